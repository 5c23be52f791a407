import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from commands import run_json

from distill.compare import DEFAULT_SIZE, QUICK, RESULTS, _Comparison, run_compare
from distill.compare_runs import MARKER, report_nothing
from teachers import InputError, load_teacher
from teachers.tasks import CONDITIONS


def test_run_compare_refuses_folder_of_something_else(teacher, student_run, tmp_path) -> None:
    with pytest.raises(InputError, match="already holds files"):
        run_compare(teacher, student_run, force=True)
    (tmp_path / MARKER).write_text("0123\n")
    with pytest.raises(InputError, match="a comparison of another teacher"):
        run_compare(teacher, tmp_path, force=True)


def test_comparison_shortens_the_filling_of_the_replay_with_the_run(teacher, tmp_path) -> None:
    rollout = teacher.config.rollout.model_copy(update={"prefill_steps": 1000})
    config = teacher.config.model_copy(update={"rollout": rollout})
    metadata = teacher.metadata.model_copy(update={"metrics": {"steps": 100_000_000}})
    long = replace(teacher, config=config, metadata=metadata)
    comparison = _Comparison(long, tmp_path, QUICK, report_nothing)
    shorter = comparison._scratch_config(0).teacher
    assert (shorter.steps, shorter.rollout.prefill_steps) == (400_000, 4)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_run_compare_measures_every_part_of_a_small_plan(teacher, tmp_path) -> None:
    plan = QUICK._replace(sizes=(DEFAULT_SIZE,), methods=("dagger",), seeds=1, episodes=8)
    found = run_compare(teacher, tmp_path, plan, force=True)
    assert json.loads(json.dumps(found)) == json.loads((tmp_path / RESULTS).read_text())
    assert set(found) == {
        *("episodes", "teacher", "students", "distilled", "cost", "critic", "critics"),
        *("methods", "from_scratch", "robustness"),
    }
    assert found["students"][0]["latency_us"] > 0
    assert [row["method"] for row in found["methods"]] == ["dagger"]
    assert found["from_scratch"]["steps"] == 160
    assert [row["condition"] for row in found["robustness"]] == list(CONDITIONS)
    for name in ("students", "methods", "robustness"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.slow
def test_run_compare_has_every_part_and_continues_where_it_stopped(teacher_run, tmp_path) -> None:
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

    # Called again, it repeats only the run whose checkpoint was removed.
    before = checkpoint_times(out)
    assert len(before) == 3 + 1 + 2 * len(QUICK.methods) + 1 + 1
    removed = min(before)
    shutil.rmtree(removed)
    teacher = load_teacher(teacher_run)
    again = run_compare(teacher, out, QUICK, force=True)
    after = checkpoint_times(out)
    assert {path for path in before if after[path] != before[path]} == {removed}
    assert [row["retention"] for row in again["students"]] == [
        row["retention"] for row in found["students"]
    ]
    with pytest.raises(InputError, match="other settings"):
        run_compare(teacher, out, QUICK._replace(episodes=8), force=True)


def checkpoint_times(out: Path) -> dict[Path, int]:
    """Returns when each checkpoint of a comparison was written, in nanoseconds."""
    checkpoints = [*out.glob("students/*/*/checkpoints/*"), *out.glob("scratch/*/checkpoints/*")]
    return {path: path.stat().st_mtime_ns for path in checkpoints}
