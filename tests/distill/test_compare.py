import io
import json
import shutil
from pathlib import Path

import imageio.v3 as imageio
import pytest
from commands import assert_refused, run, run_json
from rich.console import Console

from distill.cli.tables import compare_tables
from distill.compare import MARKER, QUICK, RESULTS, run_compare
from distill.compare_figures import draw
from teachers import InputError, load_teacher

FIGURES = ("students", "methods", "robustness")


def row(kept: float, **more) -> dict:
    names = ("retention", "time_at_goal", "success_at_end")
    figures = dict.fromkeys(names, kept)
    return figures | {f"{name}_ci95": (kept - 0.02, kept + 0.01) for name in names} | more


RESULT = {
    "teacher": row(0.9, task="reacher", depth=64, width=64, latency_us=400.0, parameters=270_000),
    "episodes": 1024,
    "students": [
        row(0.95, layers=2, width=16, latency_us=7.0, parameters=500),
        row(0.99, layers=2, width=64, latency_us=8.0, parameters=5_124),
        row(0.98, layers=2, width=256, latency_us=14.0, parameters=70_000),
    ],
    "distilled": row(0.99, seeds=2, retention_by_seed=[0.985, 0.995]),
    "methods": [
        row(0.97, method=name, steps=9_600, seconds=4.0, seeds=2, retention_by_seed=[0.96, 0.98])
        for name in ("bc-augmented", "dagger")
    ],
    "critic": {"spearman": 0.97, "spearman_within_goal": 0.96, "auroc": None},
    "critics": [{"loss": "logits", "spearman": 0.7}],
    "from_scratch": row(0.6, layers=2, width=64, steps=400_000),
    "cost": {"steps_share": 0.08, "seconds_share": None},
    "robustness": [
        {"condition": name}
        | {f"{who}{end}": value for who in ("teacher", "student", "randomized")
           for end, value in (("", 0.8), ("_ci95", (0.7, 0.9)))}
        for name in ("clean", "delay 2")
    ],
}  # fmt: skip


def test_figures_are_drawn_and_tables_say_everything(tmp_path) -> None:
    draw(RESULT, tmp_path)
    for name in FIGURES:
        assert imageio.imread(tmp_path / f"{name}.png").std() > 5
    page = io.StringIO()
    Console(width=200, file=page).print(compare_tables("runs/x", RESULT))
    said = page.getvalue()
    for words in ("2 x 16", "0.990 [0.970, 1.000]", "from scratch", "dagger", "logits", "delay 2"):
        assert words in said
    assert "8.0% of the teacher's steps" in said


def test_a_student_of_no_retention_is_left_out_of_the_drawing(tmp_path) -> None:
    nothing = {"retention": None, "retention_ci95": None}
    students = [{**student, **nothing} for student in RESULT["students"]]
    draw({**RESULT, "students": students, "methods": []}, tmp_path)
    assert (tmp_path / "students.png").exists()


def test_a_folder_of_something_else_is_refused(teacher_run, student_run, tmp_path) -> None:
    teacher = load_teacher(teacher_run)
    with pytest.raises(InputError, match="already holds files"):
        run_compare(teacher, student_run, force=True)
    (tmp_path / MARKER).write_text("0123\n")
    with pytest.raises(InputError, match="a comparison of another teacher"):
        run_compare(teacher, tmp_path, force=True)


def test_bad_input_is_refused_in_one_line(teacher_run, student_run) -> None:
    assert_refused(run("compare", student_run), "a student, not a teacher")
    assert_refused(run("compare", teacher_run, "--task", "point_u_maze"), "of task 'reacher'")
    assert_refused(run("compare", "/nowhere"), "/nowhere", "does not exist")


@pytest.mark.slow
def test_a_comparison_has_every_part_and_goes_on_where_it_stopped(teacher_run, tmp_path) -> None:
    out = tmp_path / "compare"
    found = run_json("compare", teacher_run, "--quick", "--force", "--out", out)
    assert found == json.loads((out / RESULTS).read_text())
    assert [(row["layers"], row["width"]) for row in found["students"]] == list(QUICK.sizes)
    for part in found["students"]:
        assert {"retention", "retention_ci95", "latency_us"} <= set(part)
        assert part["latency_us"] > 0
    assert [row["method"] for row in found["methods"]] == list(QUICK.methods)
    assert len(found["methods"][0]["retention_by_seed"]) == QUICK.seeds
    assert found["from_scratch"]["steps"] == 160
    measures = {"spearman_within_goal", "spearman", "top1_retention", "auroc"}
    assert measures <= set(found["critic"])
    assert {"steps_share", "seconds_share"} <= set(found["cost"])
    assert found["robustness"][0]["condition"] == "clean"

    def made() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.glob("s*/*/*/checkpoints/*")} | {
            path: path.stat().st_mtime_ns for path in out.glob("scratch/*/checkpoints/*")
        }

    # The same again: only one that was interrupted is distilled anew.
    before = made()
    assert len(before) == 3 + 1 + 2 * len(QUICK.methods) + 1 + 1
    removed = min(before)
    shutil.rmtree(removed)
    teacher = load_teacher(teacher_run)
    again = run_compare(teacher, out, QUICK, force=True)
    after = made()
    assert {path for path in before if after[path] != before[path]} == {removed}
    assert [row["retention"] for row in again["students"]] == [
        row["retention"] for row in found["students"]
    ]
    with pytest.raises(InputError, match="other settings"):
        run_compare(teacher, out, QUICK._replace(episodes=8), force=True)
