"""Plays any policy in MuJoCo C, as a robot would: sense, act, wait one control period."""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from teachers.runs.progress import Progress, ignore_progress
from teachers.simulation.c_twin import Twin, twins
from teachers.simulation.rollout import evaluation_starts
from teachers.tasks import State, Task
from teachers.tasks.disturbance import Disturbances

# observation [batch, obs], goal [batch, goal] -> action [batch, act], all float32 numpy arrays
PolicyFunction = Callable[[Any, Any], np.ndarray]

# what is done with a robot and its goal after each control step
Watch = Callable[[Twin, np.ndarray], None]

SIDE_BY_SIDE = 256  # each simulation of the C engine holds memory of its own


class Recording(NamedTuple):
    """Whole episodes, step by step."""

    observation: Float[np.ndarray, "time env obs"]  # what the policy was given, before the step
    goal: Float[np.ndarray, "env goal"]
    action: Float[np.ndarray, "time env act"]
    qpos: Float[np.ndarray, "time env nq"]  # before the step
    distance: Float[np.ndarray, "time env"]  # after the step, from the goal; inf once terminated


def play_in_c(
    task: Task,
    policy: PolicyFunction,
    episodes: int,
    seed: int = 0,
    progress: Progress = ignore_progress,
    disturbances: Disturbances | None = None,
    watch: Watch | None = None,
) -> Recording:
    """Plays whole episodes of a task in MuJoCo C.

    Args:
        task: what to play.
        policy: maps batches of observations and goals to actions in [-1, 1].
        episodes: how many.
        seed: of initial states and goals. `teachers.evaluate_agent` gives the same ones in MJX.
        progress: called after each control step of all episodes.
        disturbances: what the same episodes are disturbed by, as in `teachers.evaluate_agent`.
        watch: called with the robot after each of its control steps; episodes are then played one after the other.
    """
    starts = evaluation_starts(task, episodes, seed, disturbances)
    total = task.episode_steps * episodes
    parts: list[Recording] = []
    together = SIDE_BY_SIDE if watch is None else 1
    for first in range(0, episodes, together):
        some = jax.tree.map(itemgetter(slice(first, first + together)), starts)

        def stepped(
            steps: int,
            robots: list[Twin],
            goal: np.ndarray,
            before: int = first * task.episode_steps,
        ) -> None:
            progress(before + steps, total, {})
            if watch is not None:
                watch(robots[0], goal[0])

        parts.append(_play(task, policy, some, np.random.default_rng((seed, first)), stepped))
    return Recording(
        goal=np.concatenate([part.goal for part in parts]),
        **{
            name: np.concatenate([getattr(part, name) for part in parts], axis=1)
            for name in ("observation", "action", "qpos", "distance")
        },
    )


def _play(
    task: Task,
    policy: PolicyFunction,
    starts: State,
    random: np.random.Generator,
    stepped: Callable[[int, list[Twin], np.ndarray], None],
) -> Recording:
    goal = np.asarray(starts.goal, np.float32)
    robots = twins(task, starts)
    alive = np.ones(len(robots), bool)
    rows: dict[str, list[np.ndarray]] = {
        key: [] for key in ("observation", "action", "qpos", "distance")
    }
    for step in range(1, task.episode_steps + 1):
        sensed = np.stack([robot.sensed(random) for robot in robots])
        action = policy(sensed, goal)
        rows["observation"].append(sensed)
        rows["qpos"].append(np.stack([robot.qpos for robot in robots]))
        rows["action"].append(action)
        for robot, one in zip(robots, action, strict=True):
            robot.step(one)
        observation = np.stack([robot.observation for robot in robots])
        alive = alive & ~np.asarray(task.terminated(observation))
        rows["distance"].append(np.where(alive, task.distance(observation, goal), np.inf))
        stepped(step * len(robots), robots, goal)
    return Recording(goal=goal, **{key: np.stack(values) for key, values in rows.items()})
