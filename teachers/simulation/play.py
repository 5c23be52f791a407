"""Plays a policy in MuJoCo C as on a robot: sense, act, wait one control period."""

import warnings
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import jax
import numpy as np

from teachers.process import in_32_bits
from teachers.runs.progress import Progress, ignore_progress
from teachers.simulation.c_twin import Twin, make_twins
from teachers.simulation.rollout import evaluation_starts
from teachers.simulation.trajectory import Trajectory, episode_lengths
from teachers.tasks import State, Task
from teachers.tasks.disturbance import Disturbances

# (what it reads [batch, read], goal [batch, read_goal]) -> action [batch, act], all float32 numpy arrays. One that remembers has a
# method `reset`, which is called before the first step of each batch of episodes.
PolicyFunction = Callable[[Any, Any], np.ndarray]

# called with a robot and its goal after each control step
Watch = Callable[[Twin, np.ndarray], None]

BATCH = 256  # episodes simulated at once, because each needs memory in MuJoCo C


@in_32_bits
def play_in_c(
    task: Task,
    policy: PolicyFunction,
    episodes: int,
    seed: int = 0,
    progress: Progress = ignore_progress,
    disturbances: Disturbances | None = None,
    watch: Watch | None = None,
) -> Trajectory:
    """Plays complete episodes of a task in MuJoCo C, and warns if some break.

    Args:
        task: what to play.
        policy: maps batches of observations, or readings of a task's sensors, and goals to actions in [-1, 1]; see
            `PolicyFunction`.
        episodes: how many.
        seed: of initial states and goals. `teachers.evaluate_agent` gives the same ones.
        progress: called after each control step of all episodes.
        disturbances: what the same episodes are disturbed by, as in `teachers.evaluate_agent`.
        watch: called with the robot after each of its control steps; episodes are then played one after the other.

    Returns:
        One episode for each environment, with its joint positions. A terminated episode is played on to the task's
        number of steps. One that breaks, because its numbers are no longer finite, ends as in `rollout`: with an infinite
        distance. What is recorded after it is its last sound state.
    """
    starts = evaluation_starts(task, episodes, seed, disturbances)
    total = task.episode_steps * episodes
    batches: list[Trajectory] = []
    batch = BATCH if watch is None else 1
    for first in range(0, episodes, batch):

        def after_step(
            steps: int,
            robots: list[Twin],
            goal: np.ndarray,
            before: int = first * task.episode_steps,
        ) -> None:
            progress(before + steps, total, {})
            if watch is not None:
                watch(robots[0], goal[0])

        batch_starts = jax.tree.map(itemgetter(slice(first, first + batch)), starts)
        random = np.random.default_rng((seed, first))
        batches.append(_play(task, policy, batch_starts, random, after_step))
    trajectory = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *batches)
    if broken := count_broken(trajectory):
        warnings.warn(
            f"{broken} of {episodes} episodes broke in MuJoCo C: their state was no longer finite, and they count as away "
            f"from their goal from then on; look at task {task.name!r} with `crl-distill tasks --check`",
            stacklevel=2,
        )
    return trajectory


def forget(policy: PolicyFunction) -> None:
    """Resets a policy that remembers, before the first step of new episodes."""
    reset = getattr(policy, "reset", None)
    if reset is not None:
        reset()


def count_broken(trajectory: Trajectory) -> int:
    """Returns the number of episodes that ended because their numbers were no longer finite."""
    last = episode_lengths(trajectory) - 1
    return int(np.asarray(trajectory.broken)[last, np.arange(len(last))].sum())


def _play(
    task: Task,
    policy: PolicyFunction,
    starts: State,
    random: np.random.Generator,
    after_step: Callable[[int, list[Twin], np.ndarray], None],
) -> Trajectory:
    goal = np.asarray(starts.goal, np.float32)
    robots = make_twins(task, starts)
    rows: list[dict[str, Any]] = []
    forget(policy)
    for step in range(task.episode_steps):
        observation = np.stack([robot.observation for robot in robots])
        readings = [robot.sense(g, random) for robot, g in zip(robots, goal, strict=True)]
        read, read_goal = (np.stack(part) for part in zip(*readings, strict=True))
        qpos = np.stack([robot.qpos for robot in robots])
        action = policy(read, read_goal)
        was_broken = np.array([robot.broken for robot in robots])
        for robot, one in zip(robots, action, strict=True):
            robot.step(one)
        broken = np.array([robot.broken for robot in robots]) & ~was_broken
        reached = np.stack([robot.observation for robot in robots])
        rows.append(
            {
                "observation": observation if task.senses else read,
                "goal": goal,
                "action": action,
                "steps": np.full(len(robots), step),
                "distance": np.where(broken, np.inf, task.distance(reached, goal)),
                "terminated": np.asarray(task.terminated(reached)) | broken,
                "broken": broken,
                "qpos": qpos,
                "read": read,
                "read_goal": read_goal,
            }
        )
        after_step((step + 1) * len(robots), robots, goal)
    return Trajectory(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})
