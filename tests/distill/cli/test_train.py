import pytest
from commands import assert_refused, run, run_json, set_options
from tiny import TEACHER

from distill.cli.train import estimate_table


@pytest.mark.slow
def test_train_teacher_estimate_trains_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    needed = run_json("train-teacher", "reacher", "--estimate", *set_options(TEACHER))
    assert needed["fits"]
    assert needed["seconds"]["run"] > 0
    assert not any(tmp_path.iterdir())
    shown = [str(cell) for cell in estimate_table(needed).columns[0].cells]
    assert {"memory: replay", "seconds: update", "duration"} <= set(shown)
    full = {**needed, "fits": False}
    assert "lower rollout.environments" in list(estimate_table(full).columns[1].cells)[-1]


def test_sweep_plans_runs_and_shows(tmp_path) -> None:
    spec = tmp_path / "experiment.toml"
    settings = "".join(f"{key} = {value!r}\n" for key, value in TEACHER.items())
    spec.write_text(
        'task = "reacher"\nseeds = 1\nfigures = ["depth"]\n'
        f"[settings]\n{settings}[grid]\ndepth = [8]\n"
    )
    (planned,) = run_json("sweep", spec, "--dry-run")
    assert planned == {"cell": "depth=8", "task": "reacher", "seeds": 1, "steps": 160}
    out = tmp_path / "out"
    (row,) = run_json("sweep", spec, "--out", out)
    assert row["steps"] == 160
    assert (out / "depth.png").is_file()
    assert "depth=8" in run("sweep", spec, "--out", out).stdout  # nothing is left to train
    spec.write_text(spec.read_text().replace("seeds", "sedes"))
    assert_refused(run("sweep", spec), "'sedes'", "did you mean 'seeds'")
