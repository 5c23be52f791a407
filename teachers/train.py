"""The training of teachers: the loop around the jitted iteration, which logs, evaluates and checkpoints."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from teachers.agent import Agent, teacher_networks
from teachers.checkpoint import (
    CheckpointWriter,
    checkpoint_steps,
    drop_later,
    newest_step,
    read_training,
    require_kind,
)
from teachers.config import TeacherConfig, stored_config
from teachers.diagnose import make_diagnosis
from teachers.evaluate import evaluation_starts, outcomes, player, summary
from teachers.iteration import TrainingState, init_training, make_iteration, simulated_task
from teachers.learner import Metrics
from teachers.memory import require_memory, training_memory
from teachers.metadata import FORMAT_VERSION, Metadata, library_versions, open_task
from teachers.networks import Params, count_parameters
from teachers.progress import Progress, silent
from teachers.runlog import RunLog, new_folder
from teachers.tasks import InputError, get_task

Tree = TypeVar("Tree")


class DivergedError(RuntimeError):
    """Too many gradient steps were not finite."""


def train_teacher(
    config: TeacherConfig, out: Path, *, resume: bool = False, progress: Progress = silent
) -> Agent:
    """Trains a teacher and leaves checkpoints, metrics and events in `out`.

    Args:
        config: what to train, and for how long; see `teacher_config`.
        out: the run's folder: new, or with `resume` one that holds a run of the same configuration.
        resume: go on from the newest checkpoint; `config.steps` may have been raised since.
        progress: called after each iteration.

    Returns:
        The trained teacher, as `load_teacher(out)` opens it.

    Raises:
        InputError: `out` is taken, cannot be resumed with this configuration, or the run does not fit in memory.
        DivergedError: more than `learning.max_skipped` gradient steps were not finite; the networks as they were before
            are saved.
    """
    (teacher,) = train_seeds(config, {config.seed: out}, resume=resume, progress=progress)
    return teacher


def train_seeds(
    config: TeacherConfig,
    runs: Mapping[int, Path],
    *,
    resume: bool = False,
    progress: Progress = silent,
) -> list[Agent]:
    """Trains a teacher for each of several seeds at once, batched by `jax.vmap`.

    Args:
        config: what to train; its own seed does not matter.
        runs: the folder of each seed's run. Each becomes an ordinary run, as `train_teacher` makes it.
        resume: go on from the newest checkpoint that all of them have.
        progress: called after each iteration, with the steps of one run and the figures of the first.

    Returns:
        The trained teachers, in the order of `runs`.

    Raises:
        InputError, DivergedError: as `train_teacher`; the second when all seeds have diverged.
    """
    configs = {Path(out): config.model_copy(update={"seed": seed}) for seed, out in runs.items()}
    simulated_task(config)  # refused before anything is written
    require_fitting(config, len(runs))
    if resume:
        return _train(configs, *_resumed(configs), progress)
    with ExitStack() as folders:
        for out in configs:
            folders.enter_context(new_folder(out))
        init = _programs(_program_key(config), len(runs)).init
        seeds = np.array(list(runs), np.uint32)
        state = init(seeds if len(runs) > 1 else seeds[0])
        # Bound to the device as a restored state is, so that one compiled program serves both.
        state = jax.device_put(state, jax.local_devices()[0])
        return _train(configs, state, [{} for _ in runs], progress)


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
    return _Programs(
        init=jax.jit(together(partial(init_training, config))),
        iterate=jax.jit(together(make_iteration(config, seeds)), donate_argnums=0),
        diagnose=jax.jit(together(make_diagnosis(config))),
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
    configs: Mapping[Path, TeacherConfig],
    state: TrainingState,
    figures: list[dict[str, Any]],
    progress: Progress,
) -> list[Agent]:
    """Trains on from `state`; `figures` are each run's newest measured so far.

    The device is given an iteration before the figures of the one before it are fetched, so that it waits for the host
    where a checkpoint is saved, and nowhere else.
    """
    seeds, config = range(len(configs)), next(iter(configs.values()))
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
        for seed, log in zip(seeds, logs, strict=True):
            row = {
                name: float(values) for name, values in _part(measured, seed, len(seeds)).items()
            }
            if written.played:
                distance = np.concatenate([np.asarray(part) for part in written.played[seed]])
                row |= summary(outcomes(networks.task, distance))
            row["seconds"] = round(time.monotonic() - begun, 3)
            log.write(written.number * per_iteration, row)
            figures[seed] |= row
        progress(written.number * per_iteration, config.iterations * per_iteration, figures[0])
        return all(row["skipped_updates"] > config.learning.max_skipped for row in figures)

    def save(step: int) -> None:
        for seed, (writer, each) in enumerate(zip(writers, configs.values(), strict=True)):
            own = _part(state, seed, len(seeds))
            params = own.learner.params
            writer.save(step, describe(each, params, step, figures[seed]), params, own)

    with ExitStack() as stack:
        logs = [
            stack.enter_context(RunLog(out, each, done * per_iteration if done else None))
            for out, each in configs.items()
        ]
        writers = [
            stack.enter_context(CheckpointWriter(out, config.logging.keep_checkpoints))
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
            if diverged or last or i % config.logging.checkpoint_every == 0:
                diverged = settle(now) or diverged
                waiting = None
                save(i * per_iteration)
            if diverged:
                raise _diverged(figures, i * per_iteration, config)
    trained = [_part(state.learner.params, seed, len(seeds)) for seed in seeds]
    step = config.iterations * per_iteration
    return [
        Agent(networks, params, describe(each, params, step, row))
        for params, each, row in zip(trained, configs.values(), figures, strict=True)
    ]


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


def _resumed(
    configs: Mapping[Path, TeacherConfig],
) -> tuple[TrainingState, list[dict[str, Any]]]:
    """The state, and the figures of each run, at the newest step of which all have a checkpoint."""
    for out, config in configs.items():
        _require_same(config, out)
    common = set.intersection(*(set(checkpoint_steps(out)) for out in configs))
    if not common:
        raise InputError(
            f"{', '.join(map(str, configs))} have no checkpoint of the same step; remove them to start again"
        )
    step, states, figures = max(common), [], []
    for out, config in configs.items():
        states.append(read_training(out, jax.eval_shape(partial(init_training, config)), step))
        figures.append(dict(require_kind(out, "teacher", step).metrics))
    for out in configs:
        drop_later(out, step)
    return _stack(states), figures


def _require_same(config: TeacherConfig, out: Path) -> None:
    metadata = require_kind(out, "teacher")
    if metadata.format_version < FORMAT_VERSION:
        raise InputError(
            f"{out} was made by an older crl-distill: it can be used, but not resumed; choose another --out"
        )
    open_task(metadata, get_task(config.task), str(out))
    saved = stored_config(TeacherConfig, metadata.config, str(out))
    # How long to train, what to log, what simulates, how much memory that may take and where the task's file lies
    # may change; what is trained may not.
    free = {
        "steps": config.steps,
        "logging": config.logging,
        "task": config.task,
        "rollout": saved.rollout.model_copy(update={"physics": config.rollout.physics}),
        "learning": saved.learning.model_copy(
            update={name: getattr(config.learning, name) for name in ("remat", "max_skipped")}
        ),
    }
    if saved.model_copy(update=free) != config:
        raise InputError(
            f"{out} was trained with another configuration; repeat its options (see {out / 'config.toml'}) "
            "or choose another --out"
        )
    done = newest_step(out)
    if done >= config.steps:
        raise InputError(f"{out} already has {done} steps; ask for more with --steps")


def _stack(states: list[TrainingState]) -> TrainingState:
    if len(states) == 1:
        return states[0]
    return jax.tree.map(lambda *each: jnp.stack(each), *states)


def _part(tree: Tree, seed: int, seeds: int) -> Tree:
    """What belongs to one of the seeds that train at once."""
    return tree if seeds == 1 else jax.tree.map(lambda x: x[seed], tree)
