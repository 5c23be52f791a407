"""What a training run is, and what it leaves in its folder while it is trained."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Array, Float

from teachers.config import TeacherConfig
from teachers.crl.iteration import TrainingState
from teachers.crl.parameters import Params
from teachers.crl.state_checkpoint import checkpoint_items
from teachers.measures import measure_outcomes, summary
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.runs.configuration import Config
from teachers.runs.metadata import Metadata
from teachers.runs.run_log import RunLog
from teachers.tasks import Task

SELECTION = 1_000_000  # added to the run's seed for its evaluations


@dataclass(frozen=True)
class TrainingRun(ABC):
    """One run: where it is written, how it is trained, and how its checkpoints are described.

    Attributes:
        folder: the run's folder.
        config: how it is trained, with the run's seed.
        result: which parameters it produces: the newest, or those that did best in an evaluation.
    """

    folder: epath.Path
    config: TeacherConfig

    result: ClassVar[Literal["newest", "best"]] = "newest"

    @property
    def saved_config(self) -> Config:
        """The configuration that is written to the run's `config.toml`."""
        return self.config

    @property
    def evaluation_seed(self) -> int:
        """The seed of the episodes in which the run is evaluated.

        The best parameters are chosen on them, so that they differ from those of `evaluate`, on which results are measured.
        """
        return (SELECTION + self.config.seed) % 2**32

    @abstractmethod
    def describe(self, params: Params, metrics: dict[str, Any]) -> Metadata:
        """Returns the description of a checkpoint with these parameters and figures."""

    @abstractmethod
    def require_resumable(self) -> None:
        """Raises an error if the run cannot be resumed from the checkpoints in its folder.

        Raises:
            InputError: they belong to another configuration, or hold no state to resume from.
        """


class Candidate(NamedTuple):
    """Parameters that may become the result of a run, with what was measured of them."""

    params: Params
    metrics: dict[str, Any]


class RunRecord(NamedTuple):
    """What a run has measured so far: the newest figures, and the best parameters."""

    metrics: dict[str, Any]  # the newest value of each figure
    best: Candidate | None = None  # only of a run whose result is the best


def record_at_checkpoint(run: TrainingRun, params: Params, metrics: Mapping[str, Any]) -> RunRecord:
    """Returns the record of a run that is resumed from a checkpoint.

    Args:
        run: the run.
        params: the checkpoint's parameters.
        metrics: the checkpoint's figures.
    """
    if run.result == "newest":
        return RunRecord(dict(metrics))
    best = None
    if "time_at_goal" in metrics:  # the parameters are those of an evaluation
        of_run = ("trained_steps", "seconds")
        of_best = {name: value for name, value in metrics.items() if name not in of_run}
        best = Candidate(params, of_best)
    return RunRecord({"seconds": metrics["seconds"]}, best)


class TrainingResult(NamedTuple):
    """What a run has produced: parameters and their description."""

    params: Params
    metadata: Metadata


class Evaluation(NamedTuple):
    """An evaluation of a run, which the devices may still be computing."""

    # See `Evaluator.play`; of the deterministic policy, then of as many episodes of the sampled one.
    segments: list[Float[Array, "time env"]]
    params: Params | None  # a copy of the evaluated parameters, of a run whose result is the best


class RunRecorder:
    """Writes what one run leaves in its folder: rows of metrics, and checkpoints."""

    def __init__(
        self,
        run: TrainingRun,
        record: RunRecord,
        task: Task,
        log: RunLog | None,
        writer: CheckpointWriter,
        *,
        with_replay: bool,
    ) -> None:
        """Starts to record a run.

        Args:
            run: the run.
            record: what it has measured so far.
            task: its task.
            log: its log; None in a process that writes none.
            writer: writes its checkpoints.
            with_replay: whether checkpoints hold the replay.
        """
        self.run = run
        self.metrics = record.metrics
        self.writer = writer
        self._best = record.best
        self._task = task
        self._log = log
        self._with_replay = with_replay
        self._start_time = time.monotonic() - record.metrics.get("seconds", 0.0)

    def log(self, step: int, row: dict[str, Any], evaluation: Evaluation | None) -> None:
        """Writes a row of metrics.

        Args:
            step: control steps.
            row: figures of the iteration that ended at this step.
            evaluation: of the parameters at this step, if there was one.
        """
        if evaluation:
            row = row | self._summarise(evaluation)
            self.metrics["evaluated_at"] = step
            if self.run.result == "best":
                self._update_best(Candidate(evaluation.params, {**row, "steps": step}))
        row = {**row, "seconds": round(time.monotonic() - self._start_time, 3)}
        if self._log:
            self._log.write(step, row)
        self.metrics |= row

    def _summarise(self, evaluation: Evaluation) -> dict[str, Any]:
        """Returns the figures of an evaluation; those of sampled actions are called `sampled_NAME`."""
        distance = np.concatenate([np.asarray(segment) for segment in evaluation.segments])
        deterministic, sampled = (
            summary(measure_outcomes(self._task, part)) for part in np.split(distance, 2, axis=1)
        )
        return deterministic | {f"sampled_{name}": value for name, value in sampled.items()}

    def save(self, step: int, state: TrainingState, *, finished: bool) -> None:
        """Starts writing a checkpoint.

        Args:
            step: control steps.
            state: the run's training state.
            finished: whether the run has taken all its steps.
        """
        result = self.make_result(step, state.learner.params)
        if self.run.result == "newest":
            items = checkpoint_items(state, with_replay=self._with_replay)
        elif finished:
            items = {"params": result.params}
        else:
            items = checkpoint_items(state, with_replay=self._with_replay, best=result.params)
        if self._log:
            self._log.sync()
        self.writer.save(step, result.metadata, items)

    def make_result(self, step: int, newest: Params) -> TrainingResult:
        """Returns what the run has produced so far.

        Args:
            step: control steps.
            newest: the newest parameters.
        """
        metrics = {**self.metrics, "steps": step}
        if self.run.result == "newest":
            return TrainingResult(newest, self.run.describe(newest, metrics))
        # Before the first evaluation, the newest parameters stand in for the best.
        params, metrics = self._best or Candidate(newest, metrics)
        metrics = {**metrics, "trained_steps": step, "seconds": self.metrics["seconds"]}
        return TrainingResult(params, self.run.describe(params, metrics))

    def _update_best(self, candidate: Candidate) -> None:
        """Replaces the best parameters by others that are at goal as long or longer."""
        best = self._best
        if best is None or candidate.metrics["time_at_goal"] >= best.metrics["time_at_goal"]:
            self._best = candidate
