import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tiny import TEACHER

from teachers import InputError, load_teacher, teacher_config, train_teacher
from teachers.runs.checkpoint_files import checkpoint_steps
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
