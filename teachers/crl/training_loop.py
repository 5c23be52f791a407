"""The loop around the jitted iteration: it trains one run or several at once, and evaluates, logs and checkpoints them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from teachers.crl.iteration import TrainingState
from teachers.crl.learner import Metrics
from teachers.crl.memory import total_bytes
from teachers.crl.training_programs import TrainingPrograms
from teachers.crl.training_run import (
    Evaluation,
    RunRecord,
    RunRecorder,
    TrainingResult,
    TrainingRun,
)
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.runs.checkpoints import warn_on_main_process
from teachers.runs.devices import all_processes_agree
from teachers.runs.errors import RESUME_ADVICE, DivergedError, StoppedError
from teachers.runs.outputs import free_bytes
from teachers.runs.progress import Progress
from teachers.runs.run_log import RunLog
from teachers.runs.stopping import catch_stop_requests
from teachers.simulation.rollout import evaluation_starts
from teachers.tasks import State

Tree = TypeVar("Tree")


def run_training(
    runs: Sequence[TrainingRun],
    programs: TrainingPrograms,
    state: TrainingState,
    records: Sequence[RunRecord],
    progress: Progress,
) -> list[TrainingResult]:
    """Trains runs from a state until all their steps are taken.

    Args:
        runs: the runs, whose configurations differ in the seed alone.
        programs: their compiled functions.
        state: the state to go on from; the arrays of several runs have a leading axis of runs.
        records: what each run has measured so far.
        progress: called after each iteration with the control steps of one run and the figures of the first.

    Returns:
        The result of each run.

    Raises:
        DivergedError: in every run, too many gradient steps in a row were not finite.
        StoppedError: SIGTERM was received; the state was saved.
        SaveError: a checkpoint could not be written.
    """
    with_replay = _decide_replay(runs[0], state)
    iterations_done = int(jnp.max(state.iteration))
    resume_at = iterations_done * runs[0].config.steps_per_iteration or None
    with ExitStack() as stack:
        # This context is the last to be left, so that SIGTERM does not interrupt the last save either.
        stop_requested = stack.enter_context(catch_stop_requests())
        recorders = []
        for run, record in zip(runs, records, strict=True):
            log = None
            if jax.process_index() == 0:
                log = stack.enter_context(RunLog(run.folder, run.saved_config, resume_at))
            writer = stack.enter_context(_open_writer(run, len(runs)))
            recorders.append(
                RunRecorder(
                    run, record, programs.networks.task, log, writer, with_replay=with_replay
                )
            )
        loop = TrainingLoop(recorders, programs, state, stop_requested, progress)
        return loop.run(iterations_done)


def _open_writer(run: TrainingRun, runs: int) -> CheckpointWriter:
    """Opens the folder of one of several runs for writing checkpoints."""
    logging = run.config.logging
    # Several runs can be resumed only at a step of which all have a checkpoint. As they save one after the other, each
    # keeps two.
    keep = max(logging.keep_checkpoints, min(runs, 2))
    keep_best = logging.keep_best and run.result == "newest"
    return CheckpointWriter(run.folder, keep, keep_best=keep_best)


def _twice(starts: State) -> State:
    """Returns the environments, and once more the same ones."""
    return jax.tree.map(lambda x: jnp.concatenate([x, x]), starts)


def _decide_replay(run: TrainingRun, state: TrainingState) -> bool:
    """Returns whether checkpoints hold the replay; `auto` is resolved by the free space on the disk."""
    logging = run.config.logging
    if logging.checkpoint_replay != "auto":
        return logging.checkpoint_replay == "on"
    free = free_bytes(run.folder)
    # While a checkpoint is written, the one that it replaces is still there. The checkpoints that a resumed run finds
    # already have their space.
    checkpoints = logging.keep_checkpoints + logging.keep_best + 1
    checkpoints -= min(checkpoints - 1, len(checkpoint_steps(run.folder)))
    fits = all_processes_agree(free is None or checkpoints * total_bytes(state) < free)
    if not fits:
        warn_on_main_process(
            f"{run.folder} has too little room for the replay in {checkpoints} checkpoints: it is left out, and a resumed "
            "run will differ from an uninterrupted one"
        )
    return fits


class _Iteration(NamedTuple):
    """What an iteration leaves to be logged, which the devices may still be computing."""

    number: int
    metrics: Metrics  # of several runs with a leading axis of runs, like `diagnosis`
    diagnosis: Metrics
    evaluations: list[Evaluation | None]  # by run


class TrainingLoop:
    """Trains runs from a state until all their steps are taken.

    The devices are given the next iteration before the figures of the last one are fetched, so that they wait for the
    host only when a checkpoint is saved.
    """

    def __init__(
        self,
        recorders: Sequence[RunRecorder],
        programs: TrainingPrograms,
        state: TrainingState,
        stop_requested: Callable[[], bool],
        progress: Progress,
    ) -> None:
        """Prepares the loop.

        Args:
            recorders: one for each run.
            programs: the compiled functions of the runs.
            state: the state to go on from; it is donated.
            stop_requested: whether the loop has to stop; see `catch_stop_requests`.
            progress: see `run_training`.
        """
        self._recorders = recorders
        self._programs = programs
        self._state = state
        self._stop_requested = stop_requested
        self._progress = progress
        self._config = recorders[0].run.config
        episodes = self._config.logging.episodes
        # The deterministic policy and the sampled one play the same episodes.
        self._is_deterministic = np.repeat([True, False], episodes)
        self._starts = [
            _twice(evaluation_starts(programs.networks.task, episodes, each.run.evaluation_seed))
            for each in recorders
        ]

    def run(self, iterations_done: int) -> list[TrainingResult]:
        """Runs the loop; see `run_training`.

        Args:
            iterations_done: number of iterations behind the state to go on from.
        """
        try:
            return self._run(iterations_done)
        except Exception:
            # Threads that still compute would call Python while it ends.
            with suppress(Exception):
                jax.block_until_ready(self._state)
            raise

    def _run(self, iterations_done: int) -> list[TrainingResult]:
        unlogged: _Iteration | None = None
        for number in range(iterations_done + 1, self._config.iterations + 1):
            is_last = number == self._config.iterations
            iteration = self._start_iteration(number)
            diverged = unlogged is not None and self._log_iteration(unlogged)
            unlogged = iteration
            stopped = self._stop_requested()
            checkpoint_due = number % self._config.logging.checkpoint_every == 0
            if diverged or stopped or is_last or checkpoint_due:
                diverged = self._log_iteration(iteration) or diverged
                unlogged = None
                self._save(number, finished=is_last)
            for recorder in self._recorders:
                recorder.writer.check_for_errors()
            if diverged:
                raise self._diverged_error(number)
            if stopped and not is_last:
                raise self._stopped_error(number)
        step, newest = self._steps(self._config.iterations), self._state.learner.params
        return [
            recorder.make_result(step, self._select(newest, index))
            for index, recorder in enumerate(self._recorders)
        ]

    def _start_iteration(self, number: int) -> _Iteration:
        """Lets the devices compute an iteration and, where one is due, its evaluation."""
        self._state, metrics = self._programs.iterate(self._state)
        is_last = number == self._config.iterations
        if not is_last and number % self._config.logging.evaluate_every:
            return _Iteration(number, metrics, {}, [None] * len(self._recorders))
        diagnosis = self._programs.diagnose(self._state)
        evaluations = [self._evaluate(index) for index in range(len(self._recorders))]
        return _Iteration(number, metrics, diagnosis, evaluations)

    def _evaluate(self, index: int) -> Evaluation | None:
        params = self._select(self._state.learner.params, index)
        play = self._programs.evaluator.play
        segments = list(play(params, self._starts[index], self._is_deterministic))
        keeps_params = self._recorders[index].run.result == "best"
        # A copy, because the state is donated to the next iteration.
        return Evaluation(segments, jax.tree.map(jnp.copy, params) if keeps_params else None)

    def _log_iteration(self, iteration: _Iteration) -> bool:
        """Logs an iteration in all runs, and returns whether all of them have diverged."""
        step = self._steps(iteration.number)
        figures = jax.device_get(iteration.metrics | iteration.diagnosis)
        for index, recorder in enumerate(self._recorders):
            row = {name: float(value) for name, value in self._select(figures, index).items()}
            recorder.log(step, row, iteration.evaluations[index])
        self._progress(step, self._steps(self._config.iterations), self._recorders[0].metrics)
        max_skipped = self._config.learning.max_skipped
        return all(each.metrics["skipped_in_a_row"] > max_skipped for each in self._recorders)

    def _save(self, number: int, *, finished: bool) -> None:
        for index, recorder in enumerate(self._recorders):
            state = self._select(self._state, index)
            recorder.save(self._steps(number), state, finished=finished)

    def _select(self, tree: Tree, index: int) -> Tree:
        """Returns the part of a pytree that belongs to one of the runs."""
        several = len(self._recorders) > 1
        return jax.tree.map(lambda x: x[index], tree) if several else tree

    def _steps(self, number: int) -> int:
        """Returns the control steps of a run after so many iterations."""
        return number * self._config.steps_per_iteration

    def _diverged_error(self, number: int) -> DivergedError:
        config = self._config
        skipped = int(min(each.metrics["skipped_in_a_row"] for each in self._recorders))
        zero = all(network.zero_branches for network in (config.actor, config.phi, config.psi))
        residual = "" if zero else "set actor.residual, phi.residual and psi.residual to zero, "
        return DivergedError(
            f"training diverged: {skipped:,} gradient steps in a row were not finite by step {self._steps(number):,} and were "
            f"not applied; the networks before them are saved; {residual}lower learning.learning_rate, or raise "
            "learning.max_skipped"
        )

    def _stopped_error(self, number: int) -> StoppedError:
        steps, total = self._steps(number), self._steps(self._config.iterations)
        return StoppedError(f"asked to end: step {steps:,} of {total:,} is saved; {RESUME_ADVICE}")
