import json
import shutil
import warnings

import jax
import numpy as np
import pytest
from edited import copy_with_metadata
from etils import epath
from examples.bench import BENCH
from metrics import drop_timings
from tiny import TEACHER

from teachers import InputError, load_teacher, teacher_config, train_teacher
from teachers.resume import require_same_teacher
from teachers.runs.checkpoint_files import checkpoint_steps, remove_training_state
from teachers.runs.checkpoints import CheckpointWarning
from teachers.runs.run_log import read_metrics
from teachers.tasks.disturbance import randomized_settings
from teachers.train import train_seeds

PER_ITERATION = 40


def settings(**overrides):
    return teacher_config("reacher", overrides={**TEACHER, **overrides})


def test_resume_training_equals_uninterrupted_training(teacher_run, tmp_path) -> None:
    train_teacher(settings(steps=80), tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:  # as a killed run may leave it
        file.write(json.dumps({"step": 120, "critic_loss": 1.0}) + "\n" + '{"step": 1')
    resumed = train_teacher(settings(), tmp_path / "run", resume=True)
    assert drop_timings(read_metrics(tmp_path / "run")) == drop_timings(read_metrics(teacher_run))
    jax.tree.map(np.testing.assert_array_equal, resumed.params, load_teacher(teacher_run).params)
    assert resumed.metadata.metrics["steps"] == 160


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "changed"),
    [
        ("reacher", {"commanded_critic": True, "learning.random_goals": 0.5}),
        ("reacher", randomized_settings("rollout")),
        (f"{BENCH.with_suffix('.py')}:Filtered", {}),  # its actuators have a state
    ],
    ids=["commanded", "randomized", "filtered"],
)
def test_resume_training_with_more_state_equals_uninterrupted_training(
    tmp_path, task, changed
) -> None:
    def configure(**more):
        return teacher_config(task, overrides={**TEACHER, **changed, **more})

    train_teacher(configure(), tmp_path / "straight")
    train_teacher(configure(steps=80), tmp_path / "resumed")
    train_teacher(configure(), tmp_path / "resumed", resume=True)
    straight, resumed = (load_teacher(tmp_path / name) for name in ("straight", "resumed"))
    jax.tree.map(np.testing.assert_array_equal, resumed.params, straight.params)


def test_resume_training_goes_on_after_interruption(teacher_run, tmp_path) -> None:
    def interrupt(done, total, figures):
        if done == 3 * PER_ITERATION:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_teacher(settings(), tmp_path / "run", progress=interrupt)
    assert load_teacher(tmp_path / "run").metadata.metrics["steps"] == 80
    train_teacher(settings(), tmp_path / "run", resume=True)
    assert drop_timings(read_metrics(tmp_path / "run")) == drop_timings(read_metrics(teacher_run))


@pytest.mark.parametrize("killed", [False, True])
def test_resume_training_begins_without_checkpoint(teacher_run, tmp_path, killed) -> None:
    run = tmp_path / "run"
    if killed:  # what a run leaves that is killed while it saves its first checkpoint
        (run / "checkpoints" / "80.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
        shutil.copy(teacher_run / "config.toml", run)
        (run / "metrics.jsonl").write_text('{"step": 40, "critic_loss"')
        (run / "config.toml.tmp").write_text("")
    train_teacher(settings(steps=80), run, resume=True)
    ours, others = read_metrics(run), read_metrics(teacher_run)[:2]
    assert drop_timings(ours) == drop_timings(others)
    assert [entry.name for entry in (run / "checkpoints").iterdir()] == ["80"]


def test_require_same_teacher_warns_of_another_engine(teacher_run) -> None:
    assert load_teacher(teacher_run).metadata.config["rollout"]["physics"] == "c"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for physics in ("auto", "c"):
            require_same_teacher(settings(**{"rollout.physics": physics}), epath.Path(teacher_run))
    with pytest.warns(CheckpointWarning, match="'c' so far and is with 'jax' from now on"):
        require_same_teacher(settings(**{"rollout.physics": "jax"}), epath.Path(teacher_run))


@pytest.mark.usefixtures("frozen_heap")
def test_resume_training_repeats_damaged_last_checkpoint(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    shutil.rmtree(run / "checkpoints" / "160" / "replay")
    with pytest.warns(CheckpointWarning, match="checkpoint 160"):
        train_teacher(settings(), run, resume=True)
    assert drop_timings(read_metrics(run)) == drop_timings(read_metrics(teacher_run))


@pytest.mark.parametrize("item", ["training", "replay"])
@pytest.mark.usefixtures("frozen_heap")
def test_resume_training_goes_on_before_damaged_checkpoint(teacher_run, tmp_path, item) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    arrays = max((run / "checkpoints" / "160" / item).rglob("*"), key=lambda f: f.stat().st_size)
    data = bytearray(arrays.read_bytes())
    data[len(data) // 2] ^= 4
    arrays.write_bytes(data)
    (run / "checkpoints" / "200.orbax-checkpoint-tmp").mkdir()
    with pytest.warns(CheckpointWarning) as caught:
        train_teacher(settings(steps=200), run, resume=True)
    said = [str(each.message) for each in caught]
    assert "checkpoint 160" in said[0]
    assert "looking for the one before it" in said[0]
    assert "200.orbax-checkpoint-tmp" in said[1]
    assert "going on from 80" in said[1]
    assert drop_timings(read_metrics(run))[:4] == drop_timings(read_metrics(teacher_run))
    assert (run / "checkpoints" / "160.damaged").is_dir()
    assert checkpoint_steps(run)[-1] == 200


@pytest.mark.slow
def test_resume_training_without_replay_starts_with_empty_one(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    train_teacher(settings(steps=80, **{"logging.checkpoint_replay": "off"}), run)
    items = {entry.name for entry in (run / "checkpoints" / "80").iterdir() if entry.is_dir()}
    assert items == {"metadata", "checksums", "params", "training"}
    with pytest.warns(CheckpointWarning, match="holds no replay"):
        train_teacher(settings(), run, resume=True)
    ours, others = read_metrics(run), read_metrics(teacher_run)
    # The same rollouts, from the same networks; what is learned from them differs.
    assert ours[2]["rollout_time_at_goal"] == others[2]["rollout_time_at_goal"]
    assert ours[2]["critic_loss"] != others[2]["critic_loss"]


@pytest.mark.usefixtures("frozen_heap")
def test_resume_training_refuses_run_with_all_checkpoints_damaged(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    for step in ("80", "160"):
        shutil.rmtree(run / "checkpoints" / step / "training" / "d")
    with (
        pytest.warns(CheckpointWarning, match="looking for the one before"),
        pytest.raises(InputError, match=r"all checkpoints of .* are damaged; remove them"),
    ):
        train_teacher(settings(steps=200), run, resume=True)
    assert checkpoint_steps(run) == [80, 160]


def test_resume_training_refuses_another_configuration(teacher_run) -> None:
    with pytest.raises(InputError, match="trained with another configuration"):
        train_teacher(settings(**{"learning.batch": 16}), teacher_run, resume=True)


def test_resume_training_refuses_another_file_of_the_task(teacher_run, tmp_path) -> None:
    run = copy_with_metadata(teacher_run, tmp_path / "run", task_digest="0" * 64)
    with pytest.raises(InputError, match="made with another file of task 'reacher'"):
        train_teacher(settings(steps=200), run, resume=True)
    assert checkpoint_steps(run) == [80, 160]


def test_resume_training_refuses_finished_run(teacher_run) -> None:
    with pytest.raises(InputError, match="already has 160 steps; ask for more"):
        train_teacher(settings(), teacher_run, resume=True)


@pytest.mark.parametrize(
    "name",
    ["thesis.tex", "checkpoints/epoch1.pt", "checkpoints/80.damaged", "unfinished/notes.txt"],
)
def test_resume_training_refuses_folder_of_other_files(tmp_path, name) -> None:
    other = tmp_path / name
    other.parent.mkdir(exist_ok=True)
    other.write_text("precious")
    (tmp_path / "config.toml").write_text("of something else")
    with pytest.raises(
        InputError, match=rf"already holds files .*, such as {other.name}; .*nothing"
    ):
        train_teacher(settings(), tmp_path, resume=True)
    assert other.read_text() == "precious"
    assert (tmp_path / "config.toml").read_text() == "of something else"


def test_resume_training_refuses_run_without_training_state(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    remove_training_state(run)
    with pytest.raises(InputError, match="holds no state to resume from"):
        train_teacher(settings(steps=200), run, resume=True)
    assert checkpoint_steps(run) == [80, 160]


@pytest.mark.slow
def test_resume_training_accepts_settings_that_do_not_change_training(
    teacher_run, tmp_path
) -> None:
    train_teacher(settings(steps=80), tmp_path / "run")
    changed = settings(**{"learning.remat": "on", "learning.max_skipped": 3})
    train_teacher(changed, tmp_path / "run", resume=True)
    ours, other = read_metrics(tmp_path / "run")[-1], read_metrics(teacher_run)[-1]
    assert ours["critic_loss"] == pytest.approx(other["critic_loss"], rel=1e-4)


@pytest.mark.slow
def test_resume_training_goes_on_at_newest_common_checkpoint(tmp_path) -> None:
    runs = {seed: tmp_path / f"seed-{seed}" for seed in (0, 1)}
    train_seeds(settings(), runs)
    finished = read_metrics(runs[1])
    for run in runs.values():  # as if killed between the two saves
        if run == runs[1]:
            shutil.rmtree(run / "checkpoints" / "160")
    train_seeds(settings(), runs, resume=True)
    assert drop_timings(read_metrics(runs[1])) == drop_timings(finished)
    longer = settings(steps=200)
    train_seeds(longer, runs, resume=True)
    again = read_metrics(runs[1])
    assert [row["step"] for row in again] == [40, 80, 120, 160, 200]
    assert drop_timings(again)[:3] == drop_timings(finished)[:3]
    assert load_teacher(runs[0]).metadata.metrics["steps"] == 200
