from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from teachers import teacher_config
from teachers.crl.training_run import (
    Evaluation,
    RunRecord,
    RunRecorder,
    TrainingRun,
    record_at_checkpoint,
)
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.runs.metadata import Metadata
from teachers.tasks.registry import get_task


class NewestRun(TrainingRun):
    def describe(self, params, metrics):
        common = {name: {} for name in ("networks", "config", "lineage", "versions")}
        return Metadata(kind="teacher", task="reacher", metrics=metrics, **common)

    def require_resumable(self) -> None:
        pass


class BestRun(NewestRun):
    result: ClassVar = "best"


@pytest.fixture
def start_recorder(tmp_path):
    """Starts to record a run of a class, by default from its beginning."""
    with CheckpointWriter(tmp_path) as writer:

        def start_recorder(kind, record=None):
            run = kind(epath.Path(tmp_path), teacher_config("reacher"))
            record = record or RunRecord({})
            return RunRecorder(run, record, get_task("reacher"), None, writer, with_replay=True)

        yield start_recorder


def log(recorder, step, steps_at_goal, sampled_steps_at_goal=0):
    """Logs an evaluation of one episode of ten steps, some of them at the goal; the parameters are the step."""
    at_goal = np.array([steps_at_goal, sampled_steps_at_goal])
    distance = np.where(np.arange(10)[:, None] < at_goal, 0.0, 1.0)
    evaluation = Evaluation([distance], jnp.full((), step))
    recorder.log(step, {"critic_loss": float(step)}, evaluation)


def test_log_writes_deterministic_and_sampled_figures(start_recorder) -> None:
    recorder = start_recorder(NewestRun)
    log(recorder, 40, steps_at_goal=5, sampled_steps_at_goal=10)
    found = {name: recorder.metrics[name] for name in recorder.metrics if "ci95" not in name}
    assert found["time_at_goal"] == 0.5
    assert found["success_at_end"] == 0.0
    assert found["distance_at_end"] == 1.0
    assert found["sampled_time_at_goal"] == found["sampled_success_at_end"] == 1.0
    assert found["sampled_distance_at_end"] == 0.0


def test_evaluation_seed_is_not_that_of_evaluate(tmp_path) -> None:
    seeds = {}
    for seed in (0, 7, 2**32 - 1):
        config = teacher_config("reacher", overrides={"seed": seed})
        seeds[seed] = NewestRun(epath.Path(tmp_path), config).evaluation_seed
        assert 0 <= seeds[seed] < 2**32
    assert len({*seeds, *seeds.values()}) == 6


def test_make_result_is_of_the_newest_parameters(start_recorder) -> None:
    recorder = start_recorder(NewestRun)
    log(recorder, 40, steps_at_goal=5)
    log(recorder, 80, steps_at_goal=2)
    recorder.log(120, {"critic_loss": 120.0}, None)
    result = recorder.make_result(120, jnp.full((), 120))
    assert result.params == 120
    metrics = result.metadata.metrics
    assert (metrics["steps"], metrics["evaluated_at"], metrics["critic_loss"]) == (120, 80, 120.0)
    assert metrics["time_at_goal"] == pytest.approx(0.2)


@pytest.mark.parametrize(("at_goal", "best"), [((5, 2, 3), 40), ((2, 5, 5), 120), ((2, 5, 4), 80)])
def test_make_result_is_of_the_best_parameters_the_later_of_equals(
    start_recorder, at_goal, best
) -> None:
    recorder = start_recorder(BestRun)
    for step, steps_at_goal in zip((40, 80, 120), at_goal, strict=True):
        log(recorder, step, steps_at_goal)
    result = recorder.make_result(120, jnp.full((), 120))
    assert result.params == best
    metrics = result.metadata.metrics
    assert (metrics["steps"], metrics["critic_loss"]) == (best, float(best))
    assert metrics["trained_steps"] == 120
    assert "evaluated_at" not in metrics


def test_make_result_is_of_the_newest_parameters_before_the_first_evaluation(
    start_recorder,
) -> None:
    recorder = start_recorder(BestRun)
    recorder.log(40, {"critic_loss": 1.0}, None)
    result = recorder.make_result(40, jnp.full((), 40))
    assert result.params == 40
    record = record_at_checkpoint(recorder.run, result.params, result.metadata.metrics)
    assert record.best is None
    assert record.metrics == {"seconds": result.metadata.metrics["seconds"]}


def test_record_at_checkpoint_goes_on_with_the_best(start_recorder) -> None:
    recorder = start_recorder(BestRun)
    log(recorder, 40, steps_at_goal=5)
    before = recorder.make_result(40, jnp.full((), 40))
    record = record_at_checkpoint(recorder.run, before.params, before.metadata.metrics)
    recorder = start_recorder(BestRun, record)
    log(recorder, 80, steps_at_goal=4)
    after = recorder.make_result(80, jnp.full((), 80))
    assert after.params == 40
    assert after.metadata.metrics["seconds"] >= before.metadata.metrics["seconds"]
    clock = {"trained_steps": 80, "seconds": after.metadata.metrics["seconds"]}
    assert after.metadata.metrics == {**before.metadata.metrics, **clock}
