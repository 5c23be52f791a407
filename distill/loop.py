"""The loop around the compiled stages of a distillation: it runs them in rounds, logs them and saves checkpoints."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from distill.config import DistillConfig
from distill.programs import DistillPrograms
from distill.resume import Position, PositionWriter
from distill.state import DistillState, Metrics
from teachers.agent import Teacher
from teachers.runs.devices import replicated
from teachers.runs.errors import RESUME_ADVICE, StoppedError
from teachers.runs.progress import Progress
from teachers.runs.run_log import RunLog
from teachers.runs.stopping import catch_stop_requests

STAGES = ("compile", "rollout", "label", "learn")


class Clock:
    """The seconds that a distillation has taken, in all and by stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._start = time.monotonic()

    def total(self) -> float:
        """Returns the seconds since the start."""
        return time.monotonic() - self._start

    def add(self, seconds: Mapping[str, float], total: float) -> None:
        """Adds the seconds that the distillation had taken before it was resumed."""
        for stage, taken in seconds.items():
            self.seconds[stage] += taken
        self._start -= total

    def time(self, stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function, waits for its result, and adds the time to a stage."""
        start = time.monotonic()
        result = jax.block_until_ready(function(*arguments))
        self.seconds[stage] += time.monotonic() - start
        return result


class DistillationLoop:
    """The loop around the stages of one distillation: it logs them and saves checkpoints."""

    def __init__(
        self,
        config: DistillConfig,
        teacher: Teacher,
        programs: DistillPrograms,
        clock: Clock,
        log: RunLog,
        progress: Progress,
    ) -> None:
        self._config, self._teacher, self._programs = config, teacher, programs
        self._clock, self._log, self._progress = clock, log, progress

    def run(
        self, out: epath.Path, position: Position | None
    ) -> tuple[DistillState, dict[str, Any]]:
        """Runs the rounds of all phases of learning that are left, and saves a checkpoint now and then.

        Args:
            out: the run's folder.
            position: how far the distillation has come; None at its start.

        Returns:
            The last state and the newest figures.

        Raises:
            StoppedError: SIGTERM was received; the state is saved.
        """
        stages, clock, config = self._programs.compiled, self._clock, self._config
        clock.seconds["compile"] = clock.total()
        params = jax.device_put(self._teacher.params, replicated())
        if position is None:
            state = clock.time("rollout", stages.init, jax.random.key(config.seed))
            position = Position(state, 0, {}, {}, 0.0)
        clock.add(position.seconds, position.total_seconds)
        state, figures = position.state, dict(position.figures)
        total = len(stages.learn) * config.rounds
        with (
            catch_stop_requests() as stop_requested,
            PositionWriter(out, config, self._teacher) as writer,
        ):
            for done in range(position.rounds + 1, total + 1):
                phase = (done - 1) // config.rounds
                if phase == 0:
                    state, visited, collected = clock.time("rollout", stages.collect, state, params)
                    state = clock.time("label", stages.label, state, params, visited)
                    figures |= _to_floats(collected)
                state, learned = clock.time("learn", stages.learn[phase], state, params)
                figures |= _to_floats(learned)
                step = done * config.states_per_round
                if phase == 0:
                    figures["seconds"] = clock.total()
                    if done < config.rounds:  # the last row is written with the evaluation
                        self._log.write(step, figures)
                self._progress(step, total * config.states_per_round, figures)
                stopped, saved = stop_requested(), False
                if stopped or (done < total and done % config.checkpoint_every == 0):
                    self._log.sync()
                    seconds = dict(clock.seconds)
                    saved = writer.save(Position(state, done, figures, seconds, clock.total()))
                if stopped:
                    end = f"is saved; {RESUME_ADVICE}" if saved else "is not saved"
                    raise StoppedError(f"asked to end: round {done:,} of {total:,} {end}")
        return state, figures


def _to_floats(metrics: Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(metrics).items()}
