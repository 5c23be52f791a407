import json
from dataclasses import replace

import pytest
from commands import run_json

from distill import compare_sensors, distill_config
from distill.compare_runs import MARKER
from distill.compare_sensors import (
    ALL,
    CONDITIONS,
    RESULTS,
    STUDENTS,
    SensorPlan,
    run_compare_sensors,
)
from teachers import InputError
from teachers.crl.networks import teacher_networks
from teachers.tasks.registry import get_task


def test_compare_sensors_refuses_a_task_without_sensors(teacher, tmp_path) -> None:
    task = type("Bare", (type(get_task("reacher")),), {"sensors": ()})()
    bare = replace(teacher, networks=teacher_networks(teacher.config, task))
    with pytest.raises(InputError, match="task reacher declares no sensors; declare them, or comp"):
        run_compare_sensors(bare, tmp_path / "out", force=True)
    assert not (tmp_path / "out").exists()


def test_compare_sensors_refuses_folder_of_another_teacher(teacher, tmp_path) -> None:
    (tmp_path / MARKER).write_text("0123\n")
    with pytest.raises(InputError, match="a comparison of another teacher"):
        run_compare_sensors(teacher, tmp_path, force=True)


def test_conditions_disturb_by_one_thing_each_and_by_all() -> None:
    assert CONDITIONS["all"] == ALL
    fields = set(type(ALL).model_fields)
    used = {name for name in fields if getattr(ALL, name) != type(ALL).model_fields[name].default}
    assert used == {"noise", "delay", "mass", "friction", "push", "dropout"}
    for name, disturbances in CONDITIONS.items():
        changed = disturbances.model_dump(exclude_defaults=True)
        assert len(changed) == {"clean": 0, "all": 6}.get(name, 2 if "mass" in name else 1)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_compare_sensors_measures_every_student_in_every_condition(
    teacher_run, tmp_path, monkeypatch
) -> None:
    # Of the students and conditions one and two, because each compiles programs of its own.
    students, conditions = (
        {"gru": STUDENTS["gru"]},
        {name: CONDITIONS[name] for name in ("clean", "all")},
    )
    monkeypatch.setattr(compare_sensors, "QUICK", SensorPlan(seeds=1, episodes=8))
    monkeypatch.setattr(compare_sensors, "STUDENTS", students)
    monkeypatch.setattr(compare_sensors, "CONDITIONS", conditions)
    out = tmp_path / "sensors"
    found = run_json("compare", teacher_run, "--sensors", "--quick", "--force", "--out", out)
    assert found == json.loads((out / RESULTS).read_text())
    assert [row["randomized"] for row in found["students"]] == [False, True]
    assert [row["memory"] for row in found["students"]] == [64, 64]
    assert [row["condition"] for row in found["conditions"]] == list(conditions)
    for row in found["conditions"]:
        assert {"teacher", "gru", "gru_ci95", "gru_randomized"} <= set(row)
    assert (out / "sensors.png").stat().st_size > 1000


def test_students_read_and_remember_what_their_names_say() -> None:
    settings = {
        name: distill_config(overrides=dict(each)).student for name, each in STUDENTS.items()
    }
    found = {name: (student.sees, student.memory) for name, student in settings.items()}
    assert found == {
        "observation": ("observation", "none"),
        "sensors": ("sensors", "none"),
        "history": ("sensors", "history"),
        "gru": ("sensors", "gru"),
    }
