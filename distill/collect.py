"""The first stage of a round: the rollouts in which a student, and at first its teacher, visits states.

DAgger (Ross et al., arXiv 1011.0686): the states that a student is taught on are those that it visits itself.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from distill.config import DistillConfig
from distill.ring import Readings, sample_rows
from distill.schedules import compute_beta
from distill.state import DistillState, Metrics, VisitedStates
from teachers.crl.networks import Networks
from teachers.crl.parameters import Params
from teachers.runs.devices import shard_batch
from teachers.runs.errors import InputError
from teachers.runs.streams import Stream, stream_key
from teachers.simulation.rollout import StepInput, rollout_with_memory
from teachers.tasks import Disturbances, Task
from teachers.tasks.engines import choose_engine

CollectStage = Callable[[DistillState, Params], tuple[DistillState, VisitedStates, Metrics]]


def collection_task(config: DistillConfig, task: Task) -> Task:
    """Returns the task as the rollouts simulate it: with the configured engine and disturbances.

    Raises:
        InputError: the engine cannot simulate the task or what disturbs it.
    """
    collect = config.collect
    if reads_goal(task) and (collect.goals_per_state > 1 or collect.hindsight_share > 0):
        raise InputError(
            f"a sensor of task {task.name} sees the goal, so that states can be labelled for the goal of their episode alone; "
            f"collect.goals_per_state = {collect.goals_per_state} and collect.hindsight_share = {collect.hindsight_share:g}: "
            "set them to 1 and 0"
        )
    simulated = task.simulated_by(choose_engine(collect.physics), collect.environments)
    if collect.disturbances == Disturbances():
        return simulated
    return simulated.disturbed_by(collect.disturbances)


def make_collect_stage(
    config: DistillConfig, task: Task, teacher: Networks, student: Networks
) -> CollectStage:
    """Returns the stage that rolls out `collect.steps` control steps of every environment.

    Args:
        config: of the distillation.
        task: see `collection_task`.
        teacher: the teacher's networks.
        student: the student's networks.

    Returns:
        `(state, teacher_params) -> (state, visited, metrics)`.
    """
    collect = config.collect
    without_memory = not student.memory_size

    def collect_states(
        state: DistillState, teacher_params: Params
    ) -> tuple[DistillState, VisitedStates, Metrics]:
        teacher_key, goal_key, rollout_key = (
            stream_key(state.key, stream)
            for stream in (Stream.TEACHER_ACTS, Stream.HINDSIGHT_GOALS, Stream.ROLLOUT)
        )
        beta = compute_beta(state.round, collect.schedule, collect.beta_decay * config.rounds)
        # In each environment one of the two acts for all steps of the round.
        by_teacher = jax.random.uniform(teacher_key, (collect.environments, 1)) < beta
        choose = partial(choose_action, beta=beta, noise=collect.noise)

        def act(given: StepInput, by_teacher: Array) -> tuple[Array, Array]:
            seen, memory = student.remember(state.params, given.read, given.memory)
            # A teacher reads no sensors, but their noise where the student reads the same observation.
            reads_other = task.senses or task.knows_disturbances
            sees = (given.observation, given.commanded) if reads_other else (given.read, given.goal)
            action = choose(
                given.keys,
                by_teacher,
                teacher=lambda: teacher.policy(teacher_params, *sees),
                student=lambda: student.policy(state.params, seen, given.goal),
            )
            return action, memory

        environments = state.environments._replace(
            goal=choose_hindsight_goals(state, goal_key, config, task.achieved_goal)
        )
        environments, memory, trajectory = rollout_with_memory(
            task,
            act,
            environments,
            jnp.zeros((collect.environments, 0)) if without_memory else state.memory,
            rollout_key,
            collect.steps,
            "train",
            by_teacher,
        )

        def flatten(array: Array) -> Array:
            by_window = array if config.window == 1 else jnp.swapaxes(array, 0, 1)
            return shard_batch(by_window.reshape(-1, *array.shape[2:]))

        readings: Any = ()
        if needs_readings(config):
            readings = Readings(
                read=flatten(jnp.asarray(trajectory.read)),
                goal=flatten(jnp.asarray(trajectory.read_goal)),
                is_first=flatten(trajectory.steps == 0),
                memory=state.memory if without_memory else shard_batch(state.memory),
            )
        visited = VisitedStates(
            flatten(trajectory.observation),
            flatten(trajectory.goal),
            flatten(trajectory.action),
            readings,
        )
        metrics = {
            "teacher_share": beta,
            "rollout_time_at_goal": jnp.mean(trajectory.distance < task.success_radius),
        }
        key = stream_key(state.key, Stream.NEXT)
        memory = state.memory if without_memory else memory
        state = state._replace(environments=environments, memory=memory, key=key)
        return state, visited, metrics

    return collect_states


def reads_goal(task: Task) -> bool:
    """Returns whether a policy reads its goal by a sensor, such as from its torso."""
    return task.read_goal_fields is not task.goal


def needs_readings(config: DistillConfig) -> bool:
    """Returns whether what a student read is kept beside the observations."""
    return config.student.memory != "none" or config.student.sees == "sensors"


def choose_action(
    keys: Key[Array, "env"],
    by_teacher: Bool[Array, "env 1"],
    *,
    teacher: Callable[[], Float[Array, "env act"]],
    student: Callable[[], Float[Array, "env act"]],
    beta: Float[Array, ""],
    noise: float,
) -> Float[Array, "env act"]:
    """Returns the actions of teacher and student with Gaussian noise, in [-1, 1].

    Args:
        keys: of the noise.
        by_teacher: in which environments the teacher acts.
        teacher: computes its actions.
        student: the same of the student.
        beta: share of the environments in which the teacher acts; at 0 its policy is not computed.
        noise: standard deviation.
    """
    student_action = student()
    action = jax.lax.cond(
        beta > 0,
        lambda: jnp.where(by_teacher, teacher(), student_action),
        lambda: student_action,
    )
    normal = jax.vmap(lambda key: jax.random.normal(key, action.shape[1:]))(keys)
    return jnp.clip(action + noise * normal, -1.0, 1.0)


def choose_hindsight_goals(
    state: DistillState,
    key: Key[Array, ""],
    config: DistillConfig,
    achieved_goal: Callable[[Array], Array],
) -> Float[Array, "env goal"]:
    """Returns the goals of a round: in `collect.hindsight_share` of the environments, goals that were achieved earlier.

    With them the student learns goals that the task does not draw. They are given to episodes that began since the last
    round, in the same environments in every round.

    Args:
        state: at the start of the round.
        key: of the draw.
        config: of the distillation.
        achieved_goal: maps observations to the goals that they achieve.
    """
    collect, environments = config.collect, state.environments
    drawn = sample_rows(state.ring, key, collect.environments, config.windows_per_round)
    before = drawn.observation.reshape(collect.environments, config.window, -1)[:, 0]
    count = round(collect.hindsight_share * collect.environments)
    chosen = jnp.arange(collect.environments) < count
    is_new = environments.steps <= collect.steps
    # In the first round the ring is empty.
    replaced = chosen & is_new & (state.round > 0)
    return jnp.where(replaced[:, None], achieved_goal(before), environments.goal)
