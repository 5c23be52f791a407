"""The first stage of a round: the rollouts in which a student, and at first its teacher, visits states.

DAgger (Ross et al., arXiv 1011.0686): the states that a student is taught on are those that it visits itself.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from distill.config import DistillConfig
from distill.ring import sample_rows
from distill.schedules import compute_beta
from distill.state import DistillState, Metrics, VisitedStates
from teachers.crl.networks import Networks
from teachers.crl.parameters import Params
from teachers.runs.devices import shard_batch
from teachers.runs.streams import Stream, stream_key
from teachers.simulation.rollout import rollout
from teachers.tasks import Disturbances, Task
from teachers.tasks.engines import choose_engine

CollectStage = Callable[[DistillState, Params], tuple[DistillState, VisitedStates, Metrics]]


def collection_task(config: DistillConfig, task: Task) -> Task:
    """Returns the task as the rollouts simulate it: with the configured engine and disturbances.

    Raises:
        InputError: the engine cannot simulate the task or what disturbs it.
    """
    collect = config.collect
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
        act = partial(
            choose_action,
            teacher=partial(teacher.policy, teacher_params),
            student=partial(student.policy, state.params),
            beta=beta,
            noise=collect.noise,
        )
        environments = state.environments._replace(
            goal=choose_hindsight_goals(state, goal_key, config, task.achieved_goal)
        )
        environments, trajectory = rollout(
            task, act, environments, rollout_key, collect.steps, "train", by_teacher
        )
        visited = VisitedStates(
            *(
                shard_batch(x.reshape(-1, x.shape[-1]))
                for x in (trajectory.observation, trajectory.goal, trajectory.action)
            )
        )
        metrics = {
            "teacher_share": beta,
            "rollout_time_at_goal": jnp.mean(trajectory.distance < task.success_radius),
        }
        key = stream_key(state.key, Stream.NEXT)
        return state._replace(environments=environments, key=key), visited, metrics

    return collect_states


def choose_action(
    keys: Key[Array, "env"],
    observation: Float[Array, "env obs"],
    goal: Float[Array, "env goal"],
    by_teacher: Bool[Array, "env 1"],
    *,
    teacher: Callable[[Array, Array], Array],
    student: Callable[[Array, Array], Array],
    beta: Float[Array, ""],
    noise: float,
) -> Float[Array, "env act"]:
    """Returns the actions of teacher and student with Gaussian noise, in [-1, 1].

    Args:
        keys: of the noise.
        observation: of each environment.
        goal: of each environment.
        by_teacher: in which environments the teacher acts.
        teacher: policy that maps observation and goal to an action.
        student: the same of the student.
        beta: share of the environments in which the teacher acts; at 0 its policy is not computed.
        noise: standard deviation.
    """
    student_action = student(observation, goal)
    action = jax.lax.cond(
        beta > 0,
        lambda: jnp.where(by_teacher, teacher(observation, goal), student_action),
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
    drawn = sample_rows(state.ring, key, collect.environments, config.rows_per_round)
    count = round(collect.hindsight_share * collect.environments)
    chosen = jnp.arange(collect.environments) < count
    is_new = environments.steps <= collect.steps
    # In the first round the ring is empty.
    replaced = chosen & is_new & (state.round > 0)
    return jnp.where(replaced[:, None], achieved_goal(drawn.observation), environments.goal)
