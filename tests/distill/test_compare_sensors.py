import json
from dataclasses import replace

import numpy as np
import pytest
from commands import run_json

from distill import compare_sensors
from distill.compare_runs import MARKER
from distill.compare_sensors import ALL, CONDITIONS, RESULTS, STUDENTS, run_compare_sensors
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
    monkeypatch.setattr(
        compare_sensors, "QUICK", compare_sensors.QUICK._replace(seeds=1, episodes=8)
    )
    out = tmp_path / "sensors"
    found = run_json("compare", teacher_run, "--sensors", "--quick", "--force", "--out", out)
    assert found == json.loads((out / RESULTS).read_text())
    assert [row["student"] for row in found["students"]] == list(np.repeat(list(STUDENTS), 2))
    assert [row["randomized"] for row in found["students"]] == [False, True] * len(STUDENTS)
    memories = {row["student"]: row["memory"] for row in found["students"]}
    assert memories == {"observation": 0, "sensors": 0, "history": 36, "gru": 64}
    assert [row["condition"] for row in found["conditions"]] == list(CONDITIONS)
    keys = [name + ending for name in STUDENTS for ending in ("", "_randomized")]
    for row in found["conditions"]:
        assert {*keys, "teacher"} <= set(row)
    assert (out / "sensors.png").stat().st_size > 1000
