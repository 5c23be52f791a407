"""The same task in MuJoCo's C engine: what stands in for the robot when a deployment is checked."""

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.tasks.base import GoalSet, State, Task


class Twin:
    """One environment of a task in MuJoCo C, stepped at the task's control period."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._data = mujoco.MjData(task.model)

    def reset(self, qpos: Float[np.ndarray, "nq"], qvel: Float[np.ndarray, "nv"]) -> None:
        """Starts from these joint positions and velocities."""
        mujoco.mj_resetData(self.task.model, self._data)
        self._data.qpos[:], self._data.qvel[:] = qpos, qvel
        self._update()

    def restart(self, key: Key[Array, ""], goal_set: GoalSet) -> Float[np.ndarray, "goal"]:
        """Starts an episode as `Task.reset` does from the same key, and returns its goal.

        Not compiled: a few milliseconds, where compiling takes a second for each task.
        """
        # On the CPU, since an accelerator is slower at this.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            state_key, goal_key = jax.random.split(key)
            self.reset(*(np.asarray(part) for part in self.task.sample_state(state_key)))
            goal = self.task.sample_goal(goal_key, jnp.asarray(self.observation), goal_set)
        return np.array(goal, np.float32)

    def step(self, action: Float[np.ndarray, "act"]) -> None:
        """One control period with `action` in [-1, 1]."""
        self._data.ctrl[:] = self.task.control(action)
        mujoco.mj_step(self.task.model, self._data, nstep=self.task.substeps)
        self._update()

    def _update(self) -> None:
        # `mj_step` leaves poses and velocities of the bodies as they were before its last integration.
        mujoco.mj_kinematics(self.task.model, self._data)
        mujoco.mj_comPos(self.task.model, self._data)
        mujoco.mj_comVel(self.task.model, self._data)

    @property
    def observation(self) -> Float[np.ndarray, "obs"]:
        """What the robot's sensors would give, float32."""
        return np.asarray(self.task.observe(self._data), np.float32)

    @property
    def qpos(self) -> Float[np.ndarray, "nq"]:
        """A copy of the joint positions."""
        return np.array(self._data.qpos)


def twins(task: Task, starts: State) -> list[Twin]:
    """A twin for every environment of the batch `starts`, in the same state."""
    made = []
    qpos: Any = np.asarray(starts.physics.qpos)
    qvel: Any = np.asarray(starts.physics.qvel)
    for position, velocity in zip(qpos, qvel, strict=True):
        twin = Twin(task)
        twin.reset(position, velocity)
        made.append(twin)
    return made
