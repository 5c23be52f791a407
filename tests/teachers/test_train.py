import errno
import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from metrics import drop_timings
from tensorboardX.proto.event_pb2 import Event
from tiny import TEACHER

from teachers import InputError, load_teacher, teacher_config, train, train_teacher
from teachers.crl.iteration import init_training, make_iteration
from teachers.runs import run_log
from teachers.runs.checkpoint_files import checkpoint_steps, remove_training_state
from teachers.runs.checkpoints import CheckpointWarning
from teachers.runs.run_log import read_metrics

PER_ITERATION = 40


def settings(**overrides):
    return teacher_config("reacher", overrides={**TEACHER, **overrides})


def test_a_run_leaves_what_it_promises(teacher_run) -> None:
    rows = read_metrics(teacher_run)
    assert [row["step"] for row in rows] == [40, 80, 120, 160]
    assert ["success_at_end" in row for row in rows] == [False, True, False, True]
    assert all(np.isfinite(row["critic_loss"]) for row in rows)
    assert checkpoint_steps(teacher_run) == [80, 160]
    assert teacher_config("reacher", teacher_run / "config.toml") == settings()


def test_event_files_hold_the_metrics(teacher_run) -> None:
    (events,) = teacher_run.glob("events.out.tfevents.*")
    data, tags = events.read_bytes(), set()
    while data:  # each record: length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        tags |= {value.tag for value in event.summary.value}
        data = data[16 + length :]
    assert {"critic_loss", "contrastive_accuracy", "success_at_end"} <= tags


def test_a_resumed_run_equals_an_uninterrupted_one(teacher_run, tmp_path) -> None:
    train_teacher(settings(steps=80), tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:  # as a killed run may leave it
        file.write(json.dumps({"step": 120, "critic_loss": 1.0}) + "\n" + '{"step": 1')
    resumed = train_teacher(settings(), tmp_path / "run", resume=True)
    assert drop_timings(read_metrics(tmp_path / "run")) == drop_timings(read_metrics(teacher_run))
    jax.tree.map(np.testing.assert_array_equal, resumed.params, load_teacher(teacher_run).params)
    assert resumed.metadata.metrics["steps"] == 160


def test_resuming_with_another_configuration_is_refused(teacher_run) -> None:
    with pytest.raises(InputError, match="trained with another configuration"):
        train_teacher(settings(**{"learning.batch": 16}), teacher_run, resume=True)


def test_resuming_a_finished_run_is_refused(teacher_run) -> None:
    with pytest.raises(InputError, match="already has 160 steps; ask for more"):
        train_teacher(settings(), teacher_run, resume=True)


@pytest.mark.parametrize("killed", [False, True])
def test_resuming_a_run_without_checkpoint_begins(teacher_run, tmp_path, killed) -> None:
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


@pytest.mark.parametrize("name", ["thesis.tex", "checkpoints/epoch1.pt", "checkpoints/80.damaged"])
def test_resuming_in_a_folder_of_other_files_is_refused(tmp_path, name) -> None:
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


def test_a_damaged_last_checkpoint_is_trained_again(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    shutil.rmtree(run / "checkpoints" / "160" / "replay")
    with pytest.warns(CheckpointWarning, match="checkpoint 160"):
        train_teacher(settings(), run, resume=True)
    assert drop_timings(read_metrics(run)) == drop_timings(read_metrics(teacher_run))


def test_a_run_without_the_state_to_resume_from_says_so(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    remove_training_state(run)
    with pytest.raises(InputError, match="holds no state to resume from"):
        train_teacher(settings(steps=200), run, resume=True)
    assert checkpoint_steps(run) == [80, 160]


def test_a_full_disk_ends_a_run_and_leaves_its_checkpoints(
    teacher_run, tmp_path, monkeypatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    events = run_log.EventsWriter.write_event

    def write(self, event):
        if event.step > 120:
            raise full
        events(self, event)

    monkeypatch.setattr(run_log.EventsWriter, "write_event", write)
    with pytest.raises(OSError, match=r"metrics\.jsonl") as caught:
        train_teacher(settings(), tmp_path / "run")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert checkpoint_steps(tmp_path / "run") == [80]
    train_teacher(settings(), tmp_path / "run", resume=True)
    assert drop_timings(read_metrics(tmp_path / "run")) == drop_timings(read_metrics(teacher_run))


@pytest.mark.parametrize("item", ["training", "replay"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    teacher_run, tmp_path, item
) -> None:
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


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(teacher_run, tmp_path) -> None:
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


@pytest.mark.slow
def test_a_checkpoint_without_replay_is_smaller_and_goes_on_with_an_empty_one(
    teacher_run, tmp_path
) -> None:
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


def test_the_replay_is_left_out_where_the_disk_has_no_room(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(train, "free_bytes", lambda _: 10_000)
    with pytest.warns(CheckpointWarning, match="too little room for the replay"):
        train_teacher(settings(steps=80), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / "80" / "replay").exists()


@pytest.mark.slow
def test_sigterm_saves_first(teacher_run, tmp_path) -> None:
    def terminate(done, total, figures):
        if done == PER_ITERATION:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(train.StoppedError, match=r"step 80 of 160 is saved; go on with --resume"):
        train_teacher(
            settings(**{"logging.checkpoint_every": 100}), tmp_path / "run", progress=terminate
        )
    assert checkpoint_steps(tmp_path / "run") == [80]
    train_teacher(settings(), tmp_path / "run", resume=True)
    assert drop_timings(read_metrics(tmp_path / "run")) == drop_timings(read_metrics(teacher_run))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_taken_folder_is_refused_and_left_alone(teacher_run) -> None:
    before = {path: path.stat().st_mtime_ns for path in teacher_run.rglob("*")}
    with pytest.raises(InputError, match="already holds files"):
        train_teacher(settings(), teacher_run)
    assert {path: path.stat().st_mtime_ns for path in teacher_run.rglob("*")} == before


def test_an_interrupted_run_keeps_its_last_checkpoint_and_resumes(teacher_run, tmp_path) -> None:
    def interrupt(done, total, figures):
        if done == 3 * PER_ITERATION:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_teacher(settings(), tmp_path / "run", progress=interrupt)
    assert load_teacher(tmp_path / "run").metadata.metrics["steps"] == 80
    train_teacher(settings(), tmp_path / "run", resume=True)
    assert drop_timings(read_metrics(tmp_path / "run")) == drop_timings(read_metrics(teacher_run))


def test_an_interrupted_run_without_checkpoint_leaves_nothing(tmp_path) -> None:
    def interrupt(done, total, figures):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_teacher(settings(), tmp_path / "run", progress=interrupt)
    assert not (tmp_path / "run").exists()


def test_divergence_ends_the_run_and_keeps_good_checkpoints(tmp_path, monkeypatch) -> None:
    honest = train._programs

    def broken(config, seeds):
        programs = honest(train._program_key(settings()), seeds)

        def diverging(state):
            after, metrics = programs.iterate(state)
            skipped = jnp.where(after.iteration >= 3, jnp.int32(7), jnp.int32(0))
            loss = jnp.where(skipped > 0, jnp.nan, metrics["critic_loss"])
            return after, metrics | {"critic_loss": loss, "skipped_updates": skipped}

        return programs._replace(iterate=diverging)

    monkeypatch.setattr(train, "_programs", broken)
    tolerant = settings(**{"learning.max_skipped": 7})
    assert train_teacher(tolerant, tmp_path / "tolerant").metadata.metrics["steps"] == 160
    with pytest.raises(train.DivergedError, match=r"7 gradient steps .* by step 160.* lower learn"):
        train_teacher(settings(**{"learning.max_skipped": 6}), tmp_path / "run")
    # The one after it had been begun: its networks, as they were before, are saved.
    assert load_teacher(tmp_path / "run").metadata.metrics["steps"] == 160
    assert read_metrics(tmp_path / "run")[-1]["critic_loss"] is None  # the bad one is on record


@pytest.mark.slow
def test_several_seeds_at_once_are_the_runs_that_they_are_alone(teacher_run, tmp_path) -> None:
    runs = {seed: tmp_path / f"seed-{seed}" for seed in (0, 1)}
    teachers = train.train_seeds(settings(), runs)
    assert [teacher.metadata.config["seed"] for teacher in teachers] == [0, 1]
    alone, together = read_metrics(teacher_run), read_metrics(runs[0])
    assert [row.keys() for row in alone] == [row.keys() for row in together]
    for name in ("critic_loss", "entropy", "rollout_time_at_goal"):
        assert together[0][name] == pytest.approx(alone[0][name], rel=1e-3, abs=1e-4)
    assert read_metrics(runs[1])[0]["critic_loss"] != together[0]["critic_loss"]
    assert load_teacher(runs[1]).metadata.metrics["steps"] == 160


@pytest.mark.slow
def test_seeds_resume_at_the_newest_checkpoint_that_all_have(tmp_path) -> None:
    runs = {seed: tmp_path / f"seed-{seed}" for seed in (0, 1)}
    train.train_seeds(settings(), runs)
    finished = read_metrics(runs[1])
    for run in runs.values():  # as if killed between the two saves
        if run == runs[1]:
            shutil.rmtree(run / "checkpoints" / "160")
    train.train_seeds(settings(), runs, resume=True)
    assert drop_timings(read_metrics(runs[1])) == drop_timings(finished)
    longer = settings(steps=200)
    train.train_seeds(longer, runs, resume=True)
    again = read_metrics(runs[1])
    assert [row["step"] for row in again] == [40, 80, 120, 160, 200]
    assert drop_timings(again)[:3] == drop_timings(finished)[:3]
    assert load_teacher(runs[0]).metadata.metrics["steps"] == 200


@pytest.mark.slow
def test_one_of_several_seeds_that_diverges_does_not_end_the_others(tmp_path, monkeypatch) -> None:
    honest = train._programs

    def broken(config, seeds):
        programs = honest(config, seeds)

        def diverging(state):
            after, metrics = programs.iterate(state)
            return after, metrics | {"skipped_updates": jnp.array([0, 101])}

        return programs._replace(iterate=diverging)

    monkeypatch.setattr(train, "_programs", broken)
    runs = {seed: tmp_path / f"seed-{seed}" for seed in (0, 1)}
    train.train_seeds(settings(), runs)
    assert read_metrics(runs[0])[-1]["step"] == 160
    assert [row["skipped_updates"] for row in read_metrics(runs[1])] == [101] * 4


@pytest.mark.slow
def test_what_does_not_change_the_training_may_change_when_it_is_resumed(
    teacher_run, tmp_path
) -> None:
    train_teacher(settings(steps=80), tmp_path / "run")
    changed = settings(**{"learning.remat": "on", "learning.max_skipped": 3})
    train_teacher(changed, tmp_path / "run", resume=True)
    ours, other = read_metrics(tmp_path / "run")[-1], read_metrics(teacher_run)[-1]
    assert ours["critic_loss"] == pytest.approx(other["critic_loss"], rel=1e-4)


@pytest.mark.slow
def test_a_teacher_trains_in_bfloat16_and_keeps_float32(teacher_run, tmp_path) -> None:
    teacher = train_teacher(
        settings(steps=40, **{"learning.precision": "bfloat16"}), tmp_path / "run"
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(teacher.params)} == {jnp.dtype("float32")}
    loss, float32 = (read_metrics(run)[0]["critic_loss"] for run in (tmp_path / "run", teacher_run))
    assert loss != float32
    assert loss == pytest.approx(float32, rel=0.05)


def test_the_seed_determines_the_run_and_another_one_changes_it(teacher_run, tmp_path) -> None:
    train_teacher(settings(seed=1), tmp_path / "other")
    ours, other = read_metrics(teacher_run), read_metrics(tmp_path / "other")
    assert ours[0]["critic_loss"] != other[0]["critic_loss"]


def test_an_iteration_is_a_pure_function() -> None:
    config = settings()
    state = jax.jit(init_training, static_argnums=0)(config)
    iteration = jax.jit(make_iteration(config))
    first, again = iteration(state), iteration(state)
    jax.tree.map(np.testing.assert_array_equal, first[0].learner.params, again[0].learner.params)
    assert int(first[0].iteration) == 1
    assert not np.array_equal(jax.random.key_data(first[0].key), jax.random.key_data(state.key))


def test_every_network_learns_in_an_iteration() -> None:
    config = settings()
    state = jax.jit(init_training, static_argnums=0)(config)
    after, _ = jax.jit(make_iteration(config))(state)
    for name in ("actor", "phi", "psi"):
        before, now = state.learner.params[name], after.learner.params[name]
        moved = [
            not np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(now), strict=True)
        ]
        assert all(moved), name
    assert after.learner.log_temperature != state.learner.log_temperature
    assert int(after.replay.inserted) == config.rollout.steps
