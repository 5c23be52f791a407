"""Recordings made by hand, for the tests of what is measured of them."""

import numpy as np

from teachers.simulation.trajectory import Trajectory


def make_trajectory(task, within, starts_within=None, terminated=None) -> Trajectory:
    """Returns a recording of one episode for each environment.

    Args:
        task: one whose goal is a part of its observation.
        within: whether each step ends at the goal, `[time, env]`.
        starts_within: whether each episode starts at the goal, `[env]`; by default none does.
        terminated: whether each step ends its episode early, `[time, env]`; by default none does.
    """
    time, environments = within.shape
    starts_within = np.zeros(environments, bool) if starts_within is None else starts_within
    terminated = np.zeros(within.shape, bool) if terminated is None else terminated
    goal = np.where(starts_within, 0.0, 1.0)[:, None]
    observation = np.zeros((time, environments, task.observation_size), np.float32)
    goals = np.tile(goal, (time, 1, task.goal_size)).astype(np.float32)
    return Trajectory(
        observation=observation,
        goal=goals,
        action=np.zeros((time, environments, task.action_size), np.float32),
        steps=np.tile(np.arange(time)[:, None], (1, environments)),
        distance=np.where(within, 0.0, 1.0).astype(np.float32),
        terminated=terminated,
        broken=np.zeros(within.shape, bool),
        qpos=np.zeros((time, environments, task.model.nq)),
        read=observation,
        read_goal=goals,
    )
