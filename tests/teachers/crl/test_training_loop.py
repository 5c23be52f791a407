import errno
import os
import signal

import jax.numpy as jnp
import pytest
from metrics import drop_timings
from tiny import TEACHER

from teachers import load_teacher, teacher_config, train_teacher
from teachers.crl import training_loop
from teachers.crl.training_programs import teacher_programs
from teachers.runs import run_log
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.checkpoints import CheckpointWarning
from teachers.runs.errors import DivergedError, StoppedError
from teachers.runs.run_log import read_metrics
from teachers.train import train_seeds

PER_ITERATION = 40


def settings(**overrides):
    return teacher_config("reacher", overrides={**TEACHER, **overrides})


def test_run_training_saves_no_replay_on_small_disk(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training_loop, "free_bytes", lambda _: 10_000)
    with pytest.warns(CheckpointWarning, match="too little room for the replay"):
        train_teacher(settings(steps=80), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / "80" / "replay").exists()


@pytest.mark.slow
def test_run_training_saves_state_at_sigterm(teacher_run, tmp_path) -> None:
    def terminate(done, total, figures):
        if done == PER_ITERATION:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match=r"step 80 of 160 is saved; to go on, give"):
        train_teacher(
            settings(**{"logging.checkpoint_every": 100}), tmp_path / "run", progress=terminate
        )
    assert checkpoint_steps(tmp_path / "run") == [80]
    train_teacher(settings(), tmp_path / "run", resume=True)
    assert drop_timings(read_metrics(tmp_path / "run")) == drop_timings(read_metrics(teacher_run))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_run_training_interrupted_before_checkpoint_leaves_nothing(tmp_path) -> None:
    def interrupt(done, total, figures):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_teacher(settings(), tmp_path / "run", progress=interrupt)
    assert not (tmp_path / "run").exists()


def test_run_training_keeps_checkpoints_on_full_disk(teacher_run, tmp_path, monkeypatch) -> None:
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


def make_diverge(programs, monkeypatch, skipped):
    """Makes the programs count gradient steps as skipped in a row: from the state after an iteration, their number."""
    iterate = programs.iterate

    def diverge(state):
        after, metrics = iterate(state)
        count = skipped(after)
        loss = jnp.where(count > 0, jnp.nan, metrics["critic_loss"])
        return after, metrics | {"critic_loss": loss, "skipped_in_a_row": count}

    monkeypatch.setattr(programs, "iterate", diverge)


def test_run_training_stops_when_diverged_and_keeps_checkpoints(
    tmp_path, monkeypatch, tiny_programs
) -> None:
    make_diverge(
        tiny_programs, monkeypatch, lambda state: jnp.where(state.iteration >= 3, jnp.int32(7), 0)
    )
    tolerant = settings(**{"learning.max_skipped": 7})
    trained = train_teacher(tolerant, tmp_path / "tolerant")
    assert trained.metadata.metrics["steps"] == 160
    strict = settings(**{"learning.max_skipped": 6})
    with pytest.raises(
        DivergedError, match=r"7 gradient steps in a row .* by step 160.* lower learn"
    ):
        train_teacher(strict, tmp_path / "run")
    # The iteration after the one that diverged had been started: the networks, which it did not change, are saved.
    assert load_teacher(tmp_path / "run").metadata.metrics["steps"] == 160
    # The metrics record the loss that was not finite.
    assert read_metrics(tmp_path / "run")[-1]["critic_loss"] is None


def test_run_training_goes_on_where_steps_are_finite_again(
    tmp_path, monkeypatch, tiny_programs
) -> None:
    make_diverge(
        tiny_programs, monkeypatch, lambda state: jnp.where(state.iteration % 2, jnp.int32(5), 0)
    )
    train_teacher(settings(**{"learning.max_skipped": 6}), tmp_path / "run")
    assert [row["skipped_in_a_row"] for row in read_metrics(tmp_path / "run")] == [5, 0, 5, 0]


@pytest.mark.slow
def test_run_training_goes_on_when_one_of_several_runs_diverges(tmp_path, monkeypatch) -> None:
    programs = teacher_programs(settings(), seeds=2)
    make_diverge(programs, monkeypatch, lambda state: jnp.array([0, 101]))
    runs = {seed: tmp_path / f"seed-{seed}" for seed in (0, 1)}
    train_seeds(settings(), runs, programs=programs)
    assert read_metrics(runs[0])[-1]["step"] == 160
    assert [row["skipped_in_a_row"] for row in read_metrics(runs[1])] == [101] * 4
