"""How good a gauge of progress and reachability a student's critic is, beside its teacher's."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from students.artefact import Student
from teachers.agent import Agent, Teacher
from teachers.crl.networks import Networks, pairwise_logits
from teachers.crl.parameters import Params
from teachers.crl.replay import geometric_offsets
from teachers.measures import auroc, label_reached_within, spearman
from teachers.simulation.rollout import evaluation_starts, rollout
from teachers.simulation.trajectory import Trajectory, episode_lengths
from teachers.tasks import State

STATES = 256  # from which each goal is valued
GOALS = 64
BATCH = 256  # pairs, of which the critic has to tell its own goal
BATCHES = 16
PART = 16_384  # states valued at once


def measure_critic(student: Student, teacher: Teacher, episodes: int, seed: int) -> dict[str, Any]:
    """Measures of a student's critic on episodes that its own policy plays, as on a robot.

    Values are f(s, pi(s, g), g) with the student's policy pi, of both critics.

    Args:
        student: whose critic is measured.
        teacher: of the same task.
        episodes: played.
        seed: of the episodes and of what is drawn from them.

    Returns:
        `spearman`, the rank correlation of the two critics' values over states and goals; `spearman_within_goal`, its mean
        over goals, of the values of one goal in different states; `top1` and `teacher_top1`, how often a critic tells the
        goal that follows a state and action from 255 others (contrastive accuracy), and `top1_retention`, their ratio;
        `auroc` and `teacher_auroc`, how well values foretell whether a goal that is not reached yet will be within
        1 / (1 - discount) steps, and `reached_share`, in how many states it is. A measure is None where it is not
        defined, such as the AUROC where every goal is reached.
    """
    discount = teacher.config.learning.discount
    played = play(student, episodes, seed)
    random = np.random.default_rng(seed)
    lengths = episode_lengths(played)
    steps, env = np.nonzero(np.arange(len(played.observation))[:, None] < lengths)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = random.choice(len(steps), count, replace=count > len(steps))
        return steps[chosen], env[chosen]

    states = played.observation[drawn(STATES)]
    goals = played.goal[0, random.choice(episodes, GOALS, replace=episodes < GOALS)]
    own, theirs = (
        values(agent, student, states[:, None], goals[None]) for agent in (student, teacher)
    )
    result: dict[str, Any] = {
        "spearman": spearman(own.ravel(), theirs.ravel()),
        "spearman_within_goal": _mean(
            [spearman(own[:, goal], theirs[:, goal]) for goal in range(GOALS)]
        ),
    }
    accuracies = {"top1": student, "teacher_top1": teacher}
    batches = [_pairs(played, lengths, drawn(BATCH), discount, random) for _ in range(BATCHES)]
    for name, agent in accuracies.items():
        result[name] = float(np.mean([_accuracy(agent, *batch) for batch in batches]))
    result["top1_retention"] = (
        result["top1"] / result["teacher_top1"] if result["teacher_top1"] else None
    )
    will, known = label_reached_within(student.task, played, round(1 / (1 - discount)))
    at = np.nonzero(known)
    if len(at[0]) > PART:
        some = random.choice(len(at[0]), PART, replace=False)
        at = at[0][some], at[1][some]
    observed, wanted = played.observation[at], played.goal[at]
    for name, agent in {"auroc": student, "teacher_auroc": teacher}.items():
        result[name] = auroc(values(agent, student, observed, wanted), will[at])
    result["reached_share"] = float(will[at].mean()) if len(at[0]) else None
    return result


def play(agent: Agent, episodes: int, seed: int) -> Trajectory:
    """Plays whole episodes of a policy in MJX, without exploration."""
    starts = evaluation_starts(agent.task, episodes, seed)
    return jax.device_get(_recorder(agent.networks)(agent.params, starts))


def values(
    agent: Agent,
    actor: Agent,
    observation: Float[np.ndarray, "*#batch obs"],
    goal: Float[np.ndarray, "*#batch goal"],
) -> Float[np.ndarray, "*batch"]:
    """f(s, pi(s, g), g), with the critic of one agent and the policy of another."""
    shape = np.broadcast_shapes(observation.shape[:-1], goal.shape[:-1])
    observation, goal = (
        np.broadcast_to(x, (*shape, x.shape[-1])).reshape(-1, x.shape[-1])
        for x in (observation, goal)
    )
    program = _values(agent.networks, actor.networks)
    # In parts, of one size: a deep teacher's activations of all would not fit everywhere.
    part = min(PART, len(observation))
    rows = [
        np.asarray(
            program(
                agent.params, actor.params, _padded(observation, at, part), _padded(goal, at, part)
            )
        )
        for at in range(0, len(observation), part)
    ]
    return np.concatenate(rows)[: len(observation)].reshape(shape)


def _pairs(
    played: Trajectory,
    lengths: np.ndarray,
    at: tuple[np.ndarray, np.ndarray],
    discount: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations, actions, and observations later in the same episode, as a critic is trained on them."""
    step, env = at
    key = jax.random.key(random.integers(2**32, dtype=np.uint32))
    offset = np.asarray(geometric_offsets(key, len(step), discount))
    later = np.minimum(step + offset, lengths[env] - 1)
    return played.observation[at], played.action[at], played.observation[later, env]


def _accuracy(
    agent: Agent, observation: np.ndarray, action: np.ndarray, future: np.ndarray
) -> float:
    goal = agent.task.achieved_goal(jnp.asarray(future))
    logits = _logits(agent.networks)(agent.params, observation, action, goal)
    return float(np.mean(np.argmax(logits, axis=1) == np.arange(len(goal))))


@lru_cache(maxsize=2)
def _recorder(networks: Networks) -> Callable[[Params, State], Trajectory]:
    task = networks.task

    def run(params: Params, starts: State) -> Trajectory:
        def act(_: Array, observation: Array, goal: Array) -> Array:
            return networks.policy(params, observation, goal)

        key = jax.random.key(0)
        return rollout(task, act, starts, key, task.episode_steps, task.evaluation_goals)[1]

    return jax.jit(run)


@lru_cache(maxsize=4)
def _values(critic: Networks, actor: Networks) -> Callable[..., Float[Array, "rows"]]:
    def value(
        critic_params: Params, actor_params: Params, observation: Array, goal: Array
    ) -> Array:
        action = actor.policy(actor_params, observation, goal)
        return critic.critic(critic_params, observation, goal, action)

    return jax.jit(value)


@lru_cache(maxsize=4)
def _logits(networks: Networks) -> Callable[..., Float[Array, "batch batch"]]:
    def logits(params: Params, observation: Array, action: Array, goal: Array) -> Array:
        return pairwise_logits(
            networks.phi(params, observation, action), networks.psi(params, goal)
        )

    return jax.jit(logits)


def _padded(rows: np.ndarray, at: int, size: int) -> np.ndarray:
    part = rows[at : at + size]
    return np.pad(part, ((0, size - len(part)), (0, 0)), mode="edge")


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
