"""How a run is found again: what of its state a checkpoint holds, and where it goes on."""

from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array

from teachers.config import TeacherConfig
from teachers.crl.iteration import TrainingState, init_training, placement
from teachers.runs.checkpoint_choice import read_newest_sound
from teachers.runs.checkpoint_files import (
    checkpoint_steps,
    has_item,
    remove_later_checkpoints,
    remove_unfinished_checkpoints,
    set_damaged_aside,
)
from teachers.runs.checkpoints import (
    DamagedError,
    read_items,
    require_kind,
    saved_item_names,
    warn_on_main_process,
)
from teachers.runs.configuration import stored_config
from teachers.runs.devices import on_main_process
from teachers.runs.errors import InputError
from teachers.runs.metadata import FORMAT_VERSION, Metadata
from teachers.runs.paths import require_reachable
from teachers.tasks import Physics, State
from teachers.tasks.registry import get_task, open_task


class _Undisturbed(NamedTuple):
    """`State` in a checkpoint. Teachers train undisturbed, and that nothing disturbs them Orbax would write down too."""

    physics: Physics
    observation: Array
    goal: Array
    steps: Array
    terminated: Array


def resumed(
    configs: Mapping[epath.Path, TeacherConfig],
) -> tuple[TrainingState, list[dict[str, Any]]] | None:
    """The state, and the figures of each run, at the newest step of which all have a sound checkpoint.

    Args:
        configs: of each run, by its folder.

    Returns:
        None where not all have a checkpoint at all: they were stopped before their first.

    Raises:
        InputError: a run is of another configuration or done, or all of its checkpoints are damaged.
    """
    for out, config in configs.items():
        require_reachable(out)
        if checkpoint_steps(out):
            _require_same(config, out)
    if not all(checkpoint_steps(out) for out in configs):
        return None
    common = set.intersection(*(set(checkpoint_steps(out)) for out in configs))
    if not common:
        raise InputError(
            f"{', '.join(map(str, configs))} have no checkpoint of the same step; remove them to start again"
        )
    damaged: list[tuple[epath.Path, int]] = []
    for step in sorted(common, reverse=True):
        states, figures = [], []
        for out, config in configs.items():
            try:
                metadata = require_kind(out, "teacher", step)
                states.append(restore(config, out, step, metadata))
                figures.append(dict(metadata.metrics))
            except DamagedError as error:
                damaged.append((out, step))
                warn_on_main_process(f"{error}; looking for the one before it")
                break
        if len(states) == len(configs):
            break
    else:
        raise InputError(
            f"all checkpoints of {', '.join(map(str, configs))} are damaged; remove them to start again"
        )
    for out, config in configs.items():
        if step >= config.steps:
            raise InputError(f"{out} already has {step} steps; ask for more with --steps")
    on_main_process(lambda: _tidy(configs, step, damaged))
    place = placement(_like(next(iter(configs.values()))), len(configs))
    return jax.device_put(_stack(states), place), figures


def _tidy(configs: Iterable[epath.Path], step: int, damaged: list[tuple[epath.Path, int]]) -> None:
    """Leaves in the runs' folders what they go on from, and what was damaged out of the way."""
    for out, aside in damaged:
        set_damaged_aside(out, aside)
    for out in configs:
        for name in remove_unfinished_checkpoints(out):
            warn_on_main_process(
                f"{name} in {out} was not finished when the run ended; going on from {step}"
            )
        remove_later_checkpoints(out, step)


def restore(
    config: TeacherConfig, out: epath.PathLike, step: int, metadata: Metadata
) -> TrainingState:
    """The training state in a checkpoint, on the devices that are here.

    Args:
        config: of the run.
        out: the run's folder.
        step: control step of the checkpoint.
        metadata: the checkpoint's.

    Raises:
        DamagedError: it is not there, or no longer as it was saved.
    """
    state = _like(config)
    place = placement(state)
    like: Any = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state, place
    )
    wanted = saved_items(like)
    if "replay" not in saved_item_names(out, step):
        warn_on_main_process(
            f"checkpoint {step} in {out} holds no replay: the run goes on with an empty one, and not as it would have"
        )
        del wanted["replay"]
    items = read_items(out, step, wanted, metadata)
    if "replay" not in items:
        fresh = jax.jit(lambda: init_training(config).replay, out_shardings=place.replay)
        items["replay"] = fresh()
    training: TrainingState = items["training"]
    learner = training.learner._replace(params=items["params"])
    environments = State(*training.environments)
    return training._replace(learner=learner, environments=environments, replay=items["replay"])


def saved_items(state: TrainingState, replay: bool = True) -> dict[str, Any]:
    """A state in the items of a checkpoint, with or without its replay."""
    nothing: Any = {}
    environments: Any = _Undisturbed(*state.environments[:-1])
    learner = state.learner._replace(params=nothing)
    rest = state._replace(learner=learner, environments=environments, replay=nothing)
    parts = {"params": state.learner.params, "training": rest}
    return parts | ({"replay": state.replay} if replay else {})


def _like(config: TeacherConfig) -> TrainingState:
    """Returns the shapes of a run's training state, which do not depend on its seed and length."""
    return _traced_shapes(config.model_copy(update={"seed": 0, "steps": 1}))


@lru_cache(maxsize=2)
def _traced_shapes(config: TeacherConfig) -> TrainingState:
    # Tracing the physics takes seconds, and several runs of a sweep share the shapes.
    return jax.eval_shape(partial(init_training, config))


def _require_same(config: TeacherConfig, out: epath.Path) -> None:
    metadata = read_newest_sound(out, lambda step: require_kind(out, "teacher", step), "newest")
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
    if not any(has_item(out, step, "training") for step in checkpoint_steps(out)):
        raise InputError(
            f"{out} holds no state to resume from (it was shared without, or is of an experiment that is done); "
            "choose another --out"
        )


def _stack(states: list[TrainingState]) -> TrainingState:
    if len(states) == 1:
        return states[0]
    return jax.tree.map(lambda *each: jnp.stack(each), *states)
