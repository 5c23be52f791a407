import jax
import jax.numpy as jnp
import numpy as np
import pytest
from metrics import drop_timings
from tensorboardX.proto.event_pb2 import Event
from tiny import TEACHER

from teachers import InputError, load_teacher, teacher_config, train_teacher
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.learning_curve import plot_learning_curve
from teachers.runs.run_log import read_metrics
from teachers.train import train_seeds


def settings(**overrides):
    return teacher_config("reacher", overrides={**TEACHER, **overrides})


def test_train_teacher_writes_metrics_checkpoints_and_config(teacher_run) -> None:
    rows = read_metrics(teacher_run)
    assert [row["step"] for row in rows] == [40, 80, 120, 160]
    assert ["success_at_end" in row for row in rows] == [False, True, False, True]
    assert all(np.isfinite(row["critic_loss"]) for row in rows)
    assert checkpoint_steps(teacher_run) == [80, 160]
    assert teacher_config("reacher", teacher_run / "config.toml") == settings()


def test_train_teacher_writes_metrics_as_events(teacher_run) -> None:
    (events,) = teacher_run.glob("events.out.tfevents.*")
    data, tags = events.read_bytes(), set()
    while data:  # each record: length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        tags |= {value.tag for value in event.summary.value}
        data = data[16 + length :]
    assert {"critic_loss", "contrastive_accuracy", "success_at_end"} <= tags


def test_train_teacher_refuses_used_folder(teacher_run) -> None:
    before = {path: path.stat().st_mtime_ns for path in teacher_run.rglob("*")}
    with pytest.raises(InputError, match="already holds files"):
        train_teacher(settings(), teacher_run)
    assert {path: path.stat().st_mtime_ns for path in teacher_run.rglob("*")} == before


def test_train_teacher_depends_on_seed(teacher_run, tmp_path) -> None:
    train_teacher(settings(seed=1), tmp_path / "other")
    ours, other = read_metrics(teacher_run), read_metrics(tmp_path / "other")
    assert ours[0]["critic_loss"] != other[0]["critic_loss"]


@pytest.mark.slow
def test_train_teacher_in_bfloat16_keeps_float32_parameters(teacher_run, tmp_path) -> None:
    teacher = train_teacher(
        settings(steps=40, **{"learning.precision": "bfloat16"}), tmp_path / "run"
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(teacher.params)} == {jnp.dtype("float32")}
    loss, float32 = (read_metrics(run)[0]["critic_loss"] for run in (tmp_path / "run", teacher_run))
    assert loss != float32
    assert loss == pytest.approx(float32, rel=0.05)


PREFILL = {"rollout.prefill_steps": 25}  # three iterations


@pytest.mark.slow
def test_train_teacher_fills_the_replay_first_and_resumes_there(tmp_path) -> None:
    def interrupt(done, total, figures):
        if done == 120:
            raise KeyboardInterrupt

    train_teacher(settings(**PREFILL), tmp_path / "whole")
    rows = read_metrics(tmp_path / "whole")
    for name in ("critic_loss", "actor_loss", "entropy", "temperature", "contrastive_accuracy"):
        assert [row[name] is None for row in rows] == [True, True, True, False], name
    assert all(row["skipped_updates"] == 0 for row in rows)
    assert all(row["rollout_time_at_goal"] is not None for row in rows)
    assert rows[1]["time_at_goal"] >= 0  # evaluated and diagnosed while it fills the replay
    assert rows[1]["phi_block_gradient_median"] > 0
    plot_learning_curve(tmp_path / "whole", tmp_path / "curve.png")
    with pytest.raises(KeyboardInterrupt):
        train_teacher(settings(**PREFILL), tmp_path / "run", progress=interrupt)
    assert checkpoint_steps(tmp_path / "run") == [80]
    train_teacher(settings(**PREFILL), tmp_path / "run", resume=True)
    assert drop_timings(read_metrics(tmp_path / "run")) == drop_timings(rows)


@pytest.mark.slow
def test_train_seeds_fills_the_replays_of_all_seeds_first(tmp_path) -> None:
    runs = {seed: tmp_path / f"seed-{seed}" for seed in (0, 1)}
    train_seeds(settings(**PREFILL), runs)
    train_teacher(settings(seed=1, **PREFILL), tmp_path / "single")
    rows, single = read_metrics(runs[1]), read_metrics(tmp_path / "single")
    for row, other in zip(rows, single, strict=True):
        assert (row["critic_loss"] is None) == (other["critic_loss"] is None) == (row["step"] < 160)
    for name in ("critic_loss", "actor_loss", "entropy"):
        assert rows[-1][name] == pytest.approx(single[-1][name], rel=1e-3, abs=1e-4)


def test_train_teacher_refuses_a_run_without_gradient_steps(tmp_path) -> None:
    with pytest.raises(
        InputError, match=r"has 160 steps.* first 160 pass .* raise steps, or lower"
    ):
        train_teacher(settings(**{"rollout.prefill_steps": 31}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_train_teacher_refuses_programs_of_another_training(tmp_path, tiny_programs) -> None:
    with pytest.raises(ValueError, match="another configuration or number of seeds"):
        train_teacher(settings(**{"learning.batch": 16}), tmp_path / "run", programs=tiny_programs)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_train_seeds_trains_the_runs_of_single_seeds(teacher_run, tmp_path) -> None:
    runs = {seed: tmp_path / f"seed-{seed}" for seed in (0, 1)}
    teachers = train_seeds(settings(), runs)
    assert [teacher.config.seed for teacher in teachers] == [0, 1]
    alone, together = read_metrics(teacher_run), read_metrics(runs[0])
    assert [row.keys() for row in alone] == [row.keys() for row in together]
    for name in ("critic_loss", "entropy", "rollout_time_at_goal"):
        assert together[0][name] == pytest.approx(alone[0][name], rel=1e-3, abs=1e-4)
    assert read_metrics(runs[1])[0]["critic_loss"] != together[0]["critic_loss"]
    assert load_teacher(runs[1]).metadata.metrics["steps"] == 160
