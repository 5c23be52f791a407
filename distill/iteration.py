"""One round of distillation as pure functions from state to state: collect, label, learn."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from distill.collect import (
    CollectStage,
    collection_task,
    make_collect_stage,
    needs_readings,
)
from distill.config import DistillConfig
from distill.label import LabelStage, label_states, make_label_stage
from distill.learn import LearnStage, init_optimizers, make_learn_stage, networks_by_phase
from distill.ring import Readings, empty_ring
from distill.state import DistillState, VisitedStates
from teachers.crl.networks import Networks
from teachers.runs.streams import Stream, stream_key
from teachers.simulation.rollout import reset
from teachers.tasks import Task

InitStage = Callable[[Key[Array, ""]], DistillState]


class Stages(NamedTuple):
    """The pure functions of a distillation."""

    init: InitStage
    collect: CollectStage
    label: LabelStage
    learn: tuple[LearnStage, ...]  # one for each phase


def make_stages(config: DistillConfig, teacher: Networks, student: Networks) -> Stages:
    """Returns the stages of a distillation.

    A round is `collect`, `label` and `learn[0]`. The second phase of a sequential distillation repeats `learn[1]` alone.

    Args:
        config: of the distillation.
        teacher: the teacher's networks.
        student: the networks to train.

    Raises:
        InputError: the engine cannot simulate the task or what disturbs it.
    """
    task = collection_task(config, student.task)
    return Stages(
        init=make_init_stage(config, task, teacher, student),
        collect=make_collect_stage(config, task, teacher, student),
        label=make_label_stage(config, teacher),
        learn=tuple(
            make_learn_stage(config, teacher, student, phase)
            for phase in range(len(networks_by_phase(config)))
        ),
    )


def make_init_stage(
    config: DistillConfig, task: Task, teacher: Networks, student: Networks
) -> InitStage:
    """Returns the function that maps a key to the state before the first round.

    Args:
        config: of the distillation.
        task: see `collection_task`.
        teacher: the teacher's networks.
        student: the networks to train.
    """

    def init(key: Key[Array, ""]) -> DistillState:
        key = stream_key(key, Stream.DISTILLATION)
        params = student.init(stream_key(key, Stream.PARAMETERS))
        sizes = (task.observation_size, task.goal_size, task.action_size)
        visited = VisitedStates(*(jnp.zeros((config.window, n)) for n in sizes))
        memory: Any = ()
        if student.memory_size:
            memory = jnp.zeros((config.collect.environments, student.memory_size))
        if needs_readings(config):
            read_sizes = task.read_sizes
            read, goal = (
                jnp.zeros((config.window, read_sizes[n])) for n in ("observation", "goal")
            )
            is_first = jnp.zeros(config.window, bool)
            window = memory[:1] if student.memory_size else ()
            visited = visited._replace(readings=Readings(read, goal, is_first, window))
        label = partial(label_states, config=config, teacher=teacher)
        rows = jax.eval_shape(label, teacher.shapes, visited, key)
        read_goal = jnp.zeros((1, task.read_sizes["goal"]))
        embedding = jax.eval_shape(student.psi, params, read_goal).shape[-1]
        return DistillState(
            params=params,
            optimizer_states=init_optimizers(config, params),
            environments=reset(
                task, stream_key(key, Stream.RESET), config.collect.environments, "train"
            ),
            memory=memory,
            ring=empty_ring(config.buffer_rows, rows),
            basis=jnp.eye(rows.phi.shape[-1], embedding),
            key=key,
            round=jnp.zeros((), jnp.int32),
        )

    return init
