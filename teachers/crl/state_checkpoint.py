"""A training state in the items of a checkpoint: how it is split for saving, and how it is read back."""

from collections import namedtuple
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array

from teachers.crl.iteration import TrainingState, state_shardings
from teachers.crl.learner import Learner
from teachers.crl.parameters import Params
from teachers.crl.replay import Replay, empty_replay
from teachers.crl.training_programs import TrainingPrograms
from teachers.runs.checkpoints import (
    read_items,
    saved_item_names,
    warn_on_main_process,
    was_saved_with,
)
from teachers.runs.metadata import Metadata
from teachers.tasks import Physics, State


class _EarlierLearner(NamedTuple):
    """`Learner` as checkpoints of early versions hold it: without the count of steps skipped in a row."""

    params: Params
    log_temperature: Array
    optimizers: Any
    skipped: Array


def checkpoint_items(
    state: TrainingState, *, with_replay: bool = True, best: Params | None = None
) -> dict[str, Any]:
    """Returns the items of a checkpoint from which training can be resumed.

    Args:
        state: the state of one run.
        with_replay: whether the replay is saved too.
        best: parameters to save as those of the artefact in place of the newest ones, which are then saved with the rest
            of the state.

    Returns:
        Pytrees by name: `params`, `training` and, with the replay, `replay`.
    """
    params = state.learner.params if best is None else best
    return {"params": params, **_state_items(state, with_replay, with_params=best is not None)}


def restore_state(
    programs: TrainingPrograms,
    run: epath.PathLike,
    step: int,
    metadata: Metadata,
    *,
    keeps_best: bool = False,
) -> tuple[TrainingState, Params]:
    """Reads the training state in a checkpoint onto the devices of this process.

    If the checkpoint holds no replay, the state gets an empty one, with a warning. If it is of an early version and does
    not say how many gradient steps were skipped in a row, the count begins at 0.

    Args:
        programs: the programs that trained the run.
        run: the run's folder.
        step: control step of the checkpoint.
        metadata: the checkpoint's description.
        keeps_best: whether the checkpoint was saved with the parameters `best`; see `checkpoint_items`.

    Returns:
        The state, and the parameters of the artefact.

    Raises:
        DamagedError: the checkpoint lacks something, or differs from what was saved.
    """
    shapes, shardings = programs.state_shapes, state_shardings(programs.state_shapes)
    like: Any = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    with_replay = "replay" in saved_item_names(run, step)
    if not with_replay:
        warn_on_main_process(
            f"checkpoint {step} in {run} holds no replay: training goes on with an empty one, and will differ from an "
            "uninterrupted run"
        )
    wanted = {"params": like.learner.params, **_state_items(like, with_replay, keeps_best)}
    counts_in_a_row = was_saved_with(run, step, "training", ("learner", "skipped_in_a_row"))
    if not counts_in_a_row:
        earlier: Any = _EarlierLearner(*wanted["training"].learner[:-1])
        wanted["training"] = wanted["training"]._replace(learner=earlier)
    items = read_items(run, step, wanted, metadata)
    training: TrainingState = items["training"]
    learner = training.learner
    if not counts_in_a_row:
        zero = jax.device_put(jnp.zeros_like(learner.skipped), learner.skipped.sharding)
        learner = Learner(**{**learner._asdict(), "skipped_in_a_row": zero})
    if not keeps_best:
        learner = learner._replace(params=items["params"])
    environments = training.environments._asdict()
    physics = Physics(**environments["physics"]._asdict())
    state = training._replace(
        learner=learner,
        environments=State(**environments | {"physics": physics}),
        replay=Replay(**items["replay"]._asdict())
        if with_replay
        else _empty_replay(shapes, shardings),
    )
    return state, items["params"]


def _without_empty_fields(value: Any) -> Any:
    """Returns a named tuple without the fields that hold nothing, as checkpoints hold it: Orbax would save them too."""
    fields = {name: part for name, part in value._asdict().items() if jax.tree.leaves(part)}
    if len(fields) == len(value):
        return value
    return namedtuple(type(value).__name__, fields)(**fields)


def _state_items(state: TrainingState, with_replay: bool, with_params: bool) -> dict[str, Any]:
    removed: Any = {}
    physics = _without_empty_fields(state.environments.physics)
    environments = _without_empty_fields(state.environments._replace(physics=physics))
    learner = state.learner if with_params else state.learner._replace(params=removed)
    training = state._replace(learner=learner, environments=environments, replay=removed)
    replay = _without_empty_fields(state.replay)
    return {"training": training, **({"replay": replay} if with_replay else {})}


def _empty_replay(shapes: TrainingState, shardings: TrainingState) -> Any:
    slots, environments, observation_size = shapes.replay.observation.shape
    action_size = shapes.replay.action.shape[-1]
    goal_size = None if shapes.replay.goal is None else shapes.replay.goal.shape[-1]
    create = jax.jit(
        lambda: empty_replay(slots, environments, observation_size, action_size, goal_size),
        out_shardings=shardings.replay,
    )
    return create()
