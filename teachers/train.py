"""The training of teachers: the loop around the jitted iteration, which logs, evaluates and checkpoints."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float

from teachers.agent import Agent, Teacher
from teachers.config import TeacherConfig
from teachers.crl.diagnosis import make_diagnosis
from teachers.crl.iteration import (
    TrainingState,
    init_training,
    make_iteration,
    placement,
    simulated_task,
)
from teachers.crl.learner import Metrics
from teachers.crl.memory import require_memory, total_bytes, training_memory
from teachers.crl.networks import teacher_networks
from teachers.crl.parameters import Params, count_parameters
from teachers.evaluate import player
from teachers.measures import measure_outcomes, summary
from teachers.resume import resumed, saved_items
from teachers.runs.checkpoint_files import checkpoint_steps, remove_unfinished_checkpoints
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.runs.checkpoints import warn_on_main_process
from teachers.runs.devices import (
    all_processes_agree,
    on_main_process,
    replicated,
    require_same_settings,
)
from teachers.runs.metadata import Metadata, library_versions
from teachers.runs.outputs import free_bytes, new_run_folder, remove_unfinished_run
from teachers.runs.progress import Progress, ignore_progress
from teachers.runs.run_log import RunLog
from teachers.runs.stopping import catch_stop_requests
from teachers.simulation.rollout import evaluation_starts
from teachers.tasks.registry import get_task

Tree = TypeVar("Tree")


class DivergedError(RuntimeError):
    """Too many gradient steps were not finite."""


class StoppedError(RuntimeError):
    """The run was asked to end (SIGTERM), and saved its state first."""


def train_teacher(
    config: TeacherConfig,
    out: epath.PathLike,
    *,
    resume: bool = False,
    progress: Progress = ignore_progress,
) -> Teacher:
    """Trains a teacher and leaves checkpoints, metrics and events in `out`.

    Args:
        config: what to train, and for how long; see `teacher_config`.
        out: the run's folder: new, or with `resume` one that holds a run of the same configuration.
        resume: go on from the newest sound checkpoint, or begin where there is none; `config.steps` may have been raised
            since.
        progress: called after each iteration.

    Returns:
        The trained teacher, as `load_teacher(out)` opens it.

    Raises:
        InputError: `out` is taken, cannot be resumed with this configuration, or the run does not fit in memory.
        DivergedError: more than `learning.max_skipped` gradient steps were not finite; the networks as they were before
            are saved.
        StoppedError: SIGTERM came; the state is saved.
        SaveError: a checkpoint could not be written, for a full disk say.
    """
    (teacher,) = train_seeds(config, {config.seed: out}, resume=resume, progress=progress)
    return teacher


def train_seeds(
    config: TeacherConfig,
    runs: Mapping[int, epath.PathLike],
    *,
    resume: bool = False,
    progress: Progress = ignore_progress,
) -> list[Teacher]:
    """Trains a teacher for each of several seeds at once, batched by `jax.vmap`.

    Args:
        config: what to train; its own seed does not matter.
        runs: the folder of each seed's run. Each becomes an ordinary run, as `train_teacher` makes it.
        resume: go on from the newest sound checkpoint that all of them have, or begin where one has none.
        progress: called after each iteration, with the steps of one run and the figures of the first.

    Returns:
        The trained teachers, in the order of `runs`.

    Raises:
        InputError, DivergedError, StoppedError, SaveError: as `train_teacher`; the second when all seeds have diverged.
    """
    configs = {
        epath.Path(out): config.model_copy(update={"seed": seed}) for seed, out in runs.items()
    }
    simulated_task(config)  # refused before anything is written
    require_same_settings(f"{config.to_toml()} {[str(out) for out in configs]}")
    require_fitting(config, len(runs))
    if resume and (point := resumed(configs)):
        return _train(configs, *point, progress)
    with ExitStack() as folders:
        for out in configs:
            if resume:
                on_main_process(partial(_clear, out))
                warn_on_main_process(f"{out} holds no checkpoint: the run begins")
            folders.enter_context(new_run_folder(out))
        init = _programs(_program_key(config), len(runs)).init
        seeds = np.array(list(runs), np.uint32)
        state = init(seeds if len(runs) > 1 else seeds[0])
        return _train(configs, state, [{} for _ in runs], progress)


def _clear(out: epath.Path) -> None:
    """Removes what a run left that ended before its first checkpoint."""
    remove_unfinished_checkpoints(out)
    remove_unfinished_run(out)


def require_fitting(config: TeacherConfig, seeds: int) -> None:
    """Refuses a run of so many seeds at once that does not fit the device.

    Raises:
        InputError: it does not.
    """
    # Of several, one is copied to be saved.
    copies = seeds if seeds == 1 else seeds + 1
    remedy = "" if seeds == 1 else "the seeds trained at once, "
    require_memory(
        copies * sum(training_memory(config, seeds=seeds).values()),
        f"{remedy}rollout.environments, rollout.replay_steps, learning.batch, depth or width",
    )


class _Programs(NamedTuple):
    """The jitted functions of a run."""

    init: Callable[..., TrainingState]
    iterate: Callable[[TrainingState], tuple[TrainingState, Metrics]]
    diagnose: Callable[[TrainingState], Metrics]
    play: Callable[..., Iterator[Float[Array, "time env"]]]


@lru_cache(maxsize=2)
def _programs(config: TeacherConfig, seeds: int) -> _Programs:
    """Kept between runs that differ in seed and length alone: tracing physics takes many seconds."""
    together: Callable[..., Any] = jax.vmap if seeds > 1 else lambda function: function
    place = placement(jax.eval_shape(partial(init_training, config)), seeds)
    return _Programs(
        init=jax.jit(together(partial(init_training, config)), out_shardings=place),
        iterate=jax.jit(
            together(make_iteration(config, seeds)),
            donate_argnums=0,
            out_shardings=(place, replicated()),
        ),
        diagnose=jax.jit(together(make_diagnosis(config)), out_shardings=replicated()),
        play=player(teacher_networks(config, simulated_task(config))),
    )


def _program_key(config: TeacherConfig) -> TeacherConfig:
    return config.model_copy(update={"seed": 0, "steps": 1})


class _Iteration(NamedTuple):
    """What an iteration leaves to be written, still being computed."""

    number: int
    metrics: Metrics  # with a leading axis where several seeds train at once, like `diagnosis`
    diagnosis: Metrics
    played: list[list[Float[Array, "time env"]]]  # by seed, segments of the evaluation


def _train(
    configs: Mapping[epath.Path, TeacherConfig],
    state: TrainingState,
    figures: list[dict[str, Any]],
    progress: Progress,
) -> list[Teacher]:
    """Trains on from `state`; `figures` are each run's newest measured so far.

    The device is given an iteration before the figures of the one before it are fetched, so that it waits for the host
    where a checkpoint is saved, and nowhere else.
    """
    seeds, config = range(len(configs)), next(iter(configs.values()))
    writes = jax.process_index() == 0
    with_replay = _saves_replay(config, state, next(iter(configs)))
    programs = _programs(_program_key(config), len(seeds))
    networks = teacher_networks(config)
    starts = [
        evaluation_starts(networks.task, config.logging.episodes, each.seed)
        for each in configs.values()
    ]
    per_iteration = config.steps_per_iteration
    begun = time.monotonic() - figures[0].get("seconds", 0.0)
    done = int(jnp.max(state.iteration))

    def settle(written: _Iteration) -> bool:
        """Writes what an iteration left, and says whether all runs have diverged."""
        measured = jax.device_get(written.metrics | written.diagnosis)
        for seed in seeds:
            row = {
                name: float(values) for name, values in _part(measured, seed, len(seeds)).items()
            }
            if written.played:
                distance = np.concatenate([np.asarray(part) for part in written.played[seed]])
                row |= summary(measure_outcomes(networks.task, distance))
                figures[seed]["evaluated_at"] = written.number * per_iteration
            row["seconds"] = round(time.monotonic() - begun, 3)
            if writes:
                logs[seed].write(written.number * per_iteration, row)
            figures[seed] |= row
        progress(written.number * per_iteration, config.iterations * per_iteration, figures[0])
        return all(row["skipped_updates"] > config.learning.max_skipped for row in figures)

    def save(step: int) -> None:
        for seed, (writer, each) in enumerate(zip(writers, configs.values(), strict=True)):
            own = _part(state, seed, len(seeds))
            metadata = describe(each, own.learner.params, step, figures[seed])
            if writes:
                logs[seed].sync()
            writer.save(step, metadata, saved_items(own, with_replay))

    with ExitStack() as stack:
        # Left last, so that SIGTERM does not cut the last save short either.
        stop = stack.enter_context(catch_stop_requests())
        logs = [
            stack.enter_context(RunLog(out, each, done * per_iteration if done else None))
            for out, each in configs.items()
            if writes
        ]
        # Several seeds resume where all have a checkpoint, and save one after the other.
        keep = max(config.logging.keep_checkpoints, min(len(seeds), 2))
        writers = [
            stack.enter_context(CheckpointWriter(out, keep, keep_best=config.logging.keep_best))
            for out in configs
        ]
        waiting: _Iteration | None = None
        for i in range(done + 1, config.iterations + 1):
            last = i == config.iterations
            evaluates = last or i % config.logging.evaluate_every == 0
            state, metrics = programs.iterate(state)
            now = _Iteration(
                i,
                metrics,
                programs.diagnose(state) if evaluates else {},
                [
                    list(programs.play(_part(state.learner.params, seed, len(seeds)), starts[seed]))
                    for seed in seeds
                ]
                if evaluates
                else [],
            )
            diverged = waiting is not None and settle(waiting)
            waiting = now
            stopped = stop()
            if diverged or last or stopped or i % config.logging.checkpoint_every == 0:
                diverged = settle(now) or diverged
                waiting = None
                save(i * per_iteration)
            for writer in writers:
                writer.check_for_errors()
            if diverged:
                raise _diverged(figures, i * per_iteration, config)
            if stopped and not last:
                raise StoppedError(
                    f"asked to end: step {i * per_iteration:,} of {config.iterations * per_iteration:,} is saved; "
                    "go on with --resume"
                )
    trained = [_part(state.learner.params, seed, len(seeds)) for seed in seeds]
    step = config.iterations * per_iteration
    return [
        Agent(networks, params, each, describe(each, params, step, row))
        for params, each, row in zip(trained, configs.values(), figures, strict=True)
    ]


def _saves_replay(config: TeacherConfig, state: TrainingState, out: epath.Path) -> bool:
    """Whether checkpoints hold the replay, with `auto` resolved."""
    if config.logging.checkpoint_replay != "auto":
        return config.logging.checkpoint_replay == "on"
    free = free_bytes(out)
    # While one is written, those before it are still there; so are those of before a run is resumed.
    checkpoints = config.logging.keep_checkpoints + config.logging.keep_best + 1
    checkpoints -= min(checkpoints - 1, len(checkpoint_steps(out)))
    fits = all_processes_agree(free is None or checkpoints * total_bytes(state) < free)
    if not fits:
        warn_on_main_process(
            f"{out} has too little room for the replay in {checkpoints} checkpoints: it is left out, and a resumed "
            "run will differ from an uninterrupted one"
        )
    return fits


def _diverged(figures: list[dict[str, Any]], step: int, config: TeacherConfig) -> DivergedError:
    skipped = int(min(row["skipped_updates"] for row in figures))
    zero = all(network.zero for network in (config.actor, config.phi, config.psi))
    residual = "" if zero else "set actor.residual, phi.residual and psi.residual to zero, "
    return DivergedError(
        f"training diverged: {skipped:,} gradient steps were not finite by step {step:,} and were not applied; "
        f"the networks before them are saved; {residual}lower learning.learning_rate, or raise learning.max_skipped"
    )


def describe(config: TeacherConfig, params: Params, step: int, figures: dict[str, Any]) -> Metadata:
    """The metadata of a teacher after so many control steps of its training."""
    task = get_task(config.task)
    return Metadata(
        kind="teacher",
        task=task.name,
        task_source=task.source,
        sizes=task.sizes,
        networks={
            name: {
                **getattr(config, name).model_dump(),
                "residual": "zero" if getattr(config, name).zero else "published",
                "parameters": count_parameters(params[name]),
            }
            for name in ("actor", "phi", "psi")
        },
        config=config.model_dump(),
        metrics={**figures, "steps": step},
        lineage={},
        versions=library_versions(),
    )


def _part(tree: Tree, seed: int, seeds: int) -> Tree:
    """What belongs to one of the seeds that train at once."""
    return tree if seeds == 1 else jax.tree.map(lambda x: x[seed], tree)
