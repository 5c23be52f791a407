"""Measures of a student's critic beside its teacher's: rank correlation, contrastive accuracy, prediction of success."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from students.artefact import Student
from teachers.agent import Teacher
from teachers.crl.networks import Networks, pairwise_logits
from teachers.crl.parameters import Params
from teachers.crl.replay import geometric_offsets
from teachers.measures import auroc, label_reached_within, spearman
from teachers.process import in_32_bits
from teachers.runs.errors import InputError
from teachers.simulation.rollout import evaluation_starts, rollout
from teachers.simulation.trajectory import Trajectory, episode_lengths
from teachers.tasks import State

STATES = 256  # in which each goal is valued
GOALS = 64
BATCH = (
    256  # pairs of a state and a goal, among which the critic has to find the goal of each state
)
BATCHES = 16
MAX_ROWS = 16_384  # states valued at once


class CriticPrograms:
    """The compiled programs of one critic, whose values are taken at the actions of one policy."""

    def __init__(self, critic: Networks, policy: Networks) -> None:
        """Makes the programs; each is compiled when it is first used.

        Args:
            critic: networks with the critic.
            policy: networks with the policy.
        """
        self._achieved_goal = critic.task.achieved_goal
        self._values = jax.jit(partial(_compute_values, critic, policy))
        self._logits = jax.jit(partial(_compute_logits, critic))

    def values(
        self,
        critic: Params,
        policy: Params,
        observation: Float[np.ndarray, "*#batch obs"],
        goal: Float[np.ndarray, "*#batch goal"],
    ) -> Float[np.ndarray, "*batch"]:
        """Returns f(s, pi(s, g), g).

        Args:
            critic: parameters of the critic's networks.
            policy: parameters of the policy's networks.
            observation: states, broadcast against the goals.
            goal: goals, broadcast against the states.
        """
        shape = np.broadcast_shapes(observation.shape[:-1], goal.shape[:-1])
        observation, goal = (
            np.broadcast_to(x, (*shape, x.shape[-1])).reshape(-1, x.shape[-1])
            for x in (observation, goal)
        )
        # All rows at once would need too much memory for the activations of a deep teacher. Batches of one size need one
        # compiled program.
        size = min(MAX_ROWS, len(observation))
        batches = [
            np.asarray(
                self._values(
                    critic,
                    policy,
                    _take_padded(observation, start, size),
                    _take_padded(goal, start, size),
                )
            )
            for start in range(0, len(observation), size)
        ]
        return np.concatenate(batches)[: len(observation)].reshape(shape)

    def contrastive_accuracy(
        self,
        critic: Params,
        observation: Float[np.ndarray, "batch obs"],
        commanded: Float[np.ndarray, "batch goal"],
        action: Float[np.ndarray, "batch act"],
        future: Float[np.ndarray, "batch obs"],
    ) -> float:
        """Returns how often the critic gives a state its highest value for the goal that the state leads to.

        It chooses among the goals of the whole batch.

        Args:
            critic: parameters of the critic's networks.
            observation: states.
            commanded: goals that the policy was given there.
            action: actions taken there.
            future: a later state of the same episode, whose achieved goal is the right one.
        """
        goal = self._achieved_goal(jnp.asarray(future))
        logits = self._logits(critic, observation, commanded, action, goal)
        return float(np.mean(np.argmax(logits, axis=1) == np.arange(len(goal))))


class CriticComparison:
    """The compiled programs that measure students with the same networks beside teachers with the same networks."""

    def __init__(self, student: Networks, teacher: Networks) -> None:
        """Makes the programs; each is compiled when it is first used.

        Args:
            student: the students' networks.
            teacher: the teachers' networks, of the same task.

        Raises:
            InputError: they do not read the same.
        """
        if student.task.senses or student.memory_size or teacher.task.knows_disturbances:
            raise InputError(
                "critics are compared where student and teacher read the same: not of students that read sensors or remember, nor of a "
                "privileged teacher's"
            )
        self._task = student.task
        self._student = CriticPrograms(student, student)
        self._teacher = CriticPrograms(teacher, student)
        self._record = jax.jit(partial(_record_episodes, student))

    def measure(
        self, student: Student, teacher: Teacher, episodes: int, seed: int
    ) -> dict[str, Any]:
        """Returns the measures of a student's critic; see `measure_critic`."""
        discount = teacher.config.learning.discount
        trajectory = self.play(student.params, episodes, seed)
        random = np.random.default_rng(seed)
        lengths = episode_lengths(trajectory)
        steps, environments = np.nonzero(np.arange(len(trajectory.observation))[:, None] < lengths)

        def draw_states(count: int) -> tuple[np.ndarray, np.ndarray]:
            chosen = random.choice(len(steps), count, replace=count > len(steps))
            return steps[chosen], environments[chosen]

        states = trajectory.observation[draw_states(STATES)]
        goals = trajectory.goal[0, random.choice(episodes, GOALS, replace=episodes < GOALS)]
        values, teacher_values = self._value_both(student, teacher, states[:, None], goals[None])
        by_goal = [spearman(values[:, goal], teacher_values[:, goal]) for goal in range(GOALS)]
        result: dict[str, Any] = {
            "spearman": spearman(values.ravel(), teacher_values.ravel()),
            "spearman_within_goal": _mean_of_defined(by_goal),
        }
        batches = [
            _draw_pairs(trajectory, lengths, draw_states(BATCH), discount, random)
            for _ in range(BATCHES)
        ]
        for name, programs, critic in (
            ("top1", self._student, student.params),
            ("teacher_top1", self._teacher, teacher.params),
        ):
            accuracies = [programs.contrastive_accuracy(critic, *batch) for batch in batches]
            result[name] = float(np.mean(accuracies))
        result["top1_retention"] = (
            result["top1"] / result["teacher_top1"] if result["teacher_top1"] else None
        )
        horizon = round(1 / (1 - discount))
        reached, labelled = label_reached_within(self._task, trajectory, horizon)
        index = np.nonzero(labelled)
        if len(index[0]) > MAX_ROWS:
            chosen = random.choice(len(index[0]), MAX_ROWS, replace=False)
            index = index[0][chosen], index[1][chosen]
        values, teacher_values = self._value_both(
            student, teacher, trajectory.observation[index], trajectory.goal[index]
        )
        result["auroc"] = auroc(values, reached[index])
        result["teacher_auroc"] = auroc(teacher_values, reached[index])
        result["reached_share"] = float(reached[index].mean()) if len(index[0]) else None
        return result

    def play(self, student: Params, episodes: int, seed: int) -> Trajectory:
        """Returns the episodes that a student's policy plays, without exploration."""
        starts = evaluation_starts(self._task, episodes, seed)
        return jax.device_get(self._record(student, starts))

    def _value_both(
        self, student: Student, teacher: Teacher, observation: np.ndarray, goal: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the values of student and teacher, both at the student's actions."""
        return (
            self._student.values(student.params, student.params, observation, goal),
            self._teacher.values(teacher.params, student.params, observation, goal),
        )


@in_32_bits
def measure_critic(student: Student, teacher: Teacher, episodes: int, seed: int) -> dict[str, Any]:
    """Measures a student's critic on episodes that the student's policy plays, as on a robot.

    Values are f(s, pi(s, g), g) with the student's policy pi, of both critics. To measure many students, use one
    `CriticComparison`, which compiles its programs once.

    Args:
        student: the student whose critic is measured.
        teacher: its teacher.
        episodes: number of episodes.
        seed: of the episodes and of what is drawn from them.

    Returns:
        `spearman`, the rank correlation of the two critics' values over states and goals; `spearman_within_goal`, its mean
        over goals, of the values of one goal in different states; `top1` and `teacher_top1`, how often a critic tells the
        goal that follows a state and action from 255 others (contrastive accuracy), and `top1_retention`, their ratio;
        `auroc` and `teacher_auroc`, how well values predict whether a goal that is not reached yet will be within
        1 / (1 - discount) steps, and `reached_share`, the share of states in which it is. A measure is None where it is not
        defined, such as the AUROC where every goal is reached.
    """
    return CriticComparison(student.networks, teacher.networks).measure(
        student, teacher, episodes, seed
    )


def _record_episodes(networks: Networks, params: Params, starts: State) -> Trajectory:
    task = networks.task

    def act(_: Array, observation: Array, goal: Array) -> Array:
        return networks.policy(params, observation, goal)

    key = jax.random.key(0)
    return rollout(task, act, starts, key, task.episode_steps, task.evaluation_goals)[1]


def _compute_values(
    critic: Networks,
    policy: Networks,
    critic_params: Params,
    policy_params: Params,
    observation: Array,
    goal: Array,
) -> Float[Array, "rows"]:
    action = policy.policy(policy_params, observation, goal)
    return critic.critic(critic_params, observation, goal, action)


def _compute_logits(
    critic: Networks,
    params: Params,
    observation: Array,
    commanded: Array,
    action: Array,
    goal: Array,
) -> Float[Array, "batch batch"]:
    phi = critic.phi(params, observation, commanded, action)
    return pairwise_logits(phi, critic.psi(params, goal))


def _draw_pairs(
    trajectory: Trajectory,
    lengths: np.ndarray,
    index: tuple[np.ndarray, np.ndarray],
    discount: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns observations, commanded goals, actions, and later observations of the same episodes, drawn as in training."""
    step, environment = index
    key = jax.random.key(random.integers(2**32, dtype=np.uint32))
    remaining = jnp.asarray(lengths[environment] - 1 - step, jnp.int32)
    later = step + np.asarray(geometric_offsets(key, remaining, discount))
    future = trajectory.observation[later, environment]
    return trajectory.observation[index], trajectory.goal[index], trajectory.action[index], future


def _take_padded(rows: np.ndarray, start: int, size: int) -> np.ndarray:
    """Returns `size` rows from `start` on; past the end the last row is repeated."""
    batch = rows[start : start + size]
    return np.pad(batch, ((0, size - len(batch)), (0, 0)), mode="edge")


def _mean_of_defined(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
