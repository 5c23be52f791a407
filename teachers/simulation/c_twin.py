"""One environment in MuJoCo C, which replaces the robot when a deployment is checked."""

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.process import in_32_bits
from teachers.tasks.base import Task
from teachers.tasks.c_engine import model_without_reset
from teachers.tasks.declaration import GoalSet, State
from teachers.tasks.disturbance import MAX_DELAY, Disturbed, change_model_in_c, find_robot
from teachers.tasks.model_state import initial_mocap, reset_data
from teachers.tasks.sensors import Sensed, read_sensors_in_c, sensor_errors, unread

# Where the counts of MuJoCo's warnings that a state has diverged begin: BADQPOS, BADQVEL, BADQACC and BADCTRL are the last.
# A number is then NaN, or larger than 1e10.
DIVERGED = int(mujoco.mjtWarning.mjWARN_BADQPOS)
# MuJoCo prints the first warning of a kind, and appends it to a file in the working directory. With a count of 1 to start
# from it does neither: a broken episode is reported by those who use the twin.
SOUND = 1
STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class Twin:
    """One environment of a task in MuJoCo C, stepped at the task's control period.

    Attributes:
        broken: whether its state or observation was no longer finite. It then stands still in the last state that was,
            until it is reset.
    """

    def __init__(
        self,
        task: Task,
        disturbance: Disturbed | None = None,
        model: mujoco.MjModel | None = None,
    ) -> None:
        """Builds an environment in the model's initial state.

        Args:
            task: what is simulated.
            disturbance: of one environment. Its noise is not part of `observation`; see `sense`.
            model: what `model_without_reset` returns, where several twins share it.
        """
        self.task = task
        self.broken = False
        self._disturbance = disturbance
        self._model = model_without_reset(task.model) if model is None else model
        self._declared = self._model  # observations are made with it, as a robot's would be
        self._heaviest_body = 0
        if disturbance is not None:
            self._heaviest_body = find_robot(self._model).body
            change = np.asarray(disturbance.model_change).tolist()
            self._model = change_model_in_c(self._model, change, self._heaviest_body)
        self._data = mujoco.MjData(self._model)
        self._state = np.empty(mujoco.mj_stateSize(self._model, STATE))  # the last sound one
        self._mocap = self._initial_mocap = initial_mocap(self._model)
        self._steps = 0
        self._pending: list[np.ndarray] = []
        self._errors = sensor_errors(task.measured)
        self._sensed: Sensed | None = None  # until the first reading of an episode
        self.reset(self._data.qpos.copy(), self._data.qvel.copy())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_diverged"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_counting()

    def reset(self, qpos: Float[np.ndarray, "nq"], qvel: Float[np.ndarray, "nv"]) -> None:
        """Starts from these joint positions and velocities."""
        self._steps, self._pending = 0, [np.zeros(self.task.action_size)] * MAX_DELAY
        self.broken, self._sensed = False, None
        self._last_read = np.zeros(0)
        self._set_state(qpos, qvel)
        self._note_sound_state(self._observe())

    @in_32_bits
    def restart(self, key: Key[Array, ""], goal_set: GoalSet) -> Float[np.ndarray, "goal"]:
        """Starts an episode as `Task.reset` does from the same key, and returns its goal.

        It is not compiled: it takes a few milliseconds, and compiling takes a second for each task.
        """
        # On the CPU: an accelerator is slower for single small operations.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            state_key, goal_key = jax.random.split(key)
            self.reset(*(np.asarray(part) for part in self.task.sample_state(state_key)))
            goal = self.task.sample_goal(goal_key, jnp.asarray(self.observation), goal_set)
        return np.array(goal, np.float32)

    def step(self, action: Float[np.ndarray, "act"]) -> None:
        """Advances by one control period with `action` in [-1, 1], or with the earlier one that a delay selects."""
        if (disturbance := self._disturbance) is not None:
            self._pending = [np.array(action), *self._pending[:MAX_DELAY]]
            action = self._pending[int(disturbance.delay)]
            is_pushed = self._steps == int(disturbance.push_step)
            force = self._data.xfrc_applied[self._heaviest_body]
            force[:2] = np.asarray(disturbance.push) if is_pushed else 0.0
        if self.broken:
            return
        self._data.ctrl[:] = self.task.control(action)
        if self._model.nmocap:
            self._mocap = self.task.move_mocap(self._mocap, action)
            self._place_mocap_bodies()
        mujoco.mj_step(self._model, self._data, nstep=self.task.substeps)
        self._steps += 1
        if not self._has_diverged():
            self._update_bodies()
            observation = self._observe()
            if _is_finite(observation):
                self._note_sound_state(observation)
                return
        self.broken = True
        mujoco.mj_setState(self._model, self._data, self._state, STATE)
        self._start_counting()
        self._update_bodies()

    def _start_counting(self) -> None:
        self._diverged = self._data.warning.number[DIVERGED:]  # MuJoCo counts here
        self._diverged[:] = SOUND
        self._sound = self._diverged.tobytes()

    def _has_diverged(self) -> bool:
        return self._diverged.tobytes() != self._sound  # faster than to compare arrays

    def _note_sound_state(self, observation: Float[np.ndarray, "obs"]) -> None:
        self._qpos = self._data.qpos.copy()
        mujoco.mj_getState(self._model, self._data, self._state, STATE)
        self._observation = observation

    def _set_state(self, qpos: Float[np.ndarray, "nq"], qvel: Float[np.ndarray, "nv"]) -> None:
        reset_data(self._model, self._data, self.task.rest_control)
        self._start_counting()
        self._data.qpos[:], self._data.qvel[:] = qpos, qvel
        mujoco.mj_normalizeQuat(self._model, self._data.qpos)
        self._mocap = self._initial_mocap
        self._place_mocap_bodies()
        if self.task.senses and self._model.nsensordata:
            mujoco.mj_forward(self._model, self._data)
        self._update_bodies()

    def _place_mocap_bodies(self) -> None:
        if self._mocap is not None:
            self._data.mocap_pos[:], self._data.mocap_quat[:] = np.split(self._mocap, [3], axis=1)

    def _update_bodies(self) -> None:
        # `mj_step` leaves poses and velocities of the bodies as they were before its last integration.
        mujoco.mj_kinematics(self._declared, self._data)
        mujoco.mj_comPos(self._declared, self._data)
        mujoco.mj_comVel(self._declared, self._data)

    def _observe(self) -> Float[np.ndarray, "obs"]:
        observation = np.array(self.task.observe(self._data), np.float32)
        return self.task.add_disturbance(observation, self._disturbance, self._steps)

    @property
    def observation(self) -> Float[np.ndarray, "obs"]:
        """The observation without noise, float32; it must not be changed."""
        return self._observation

    def sense(
        self, goal: Float[np.ndarray, "goal"], random: np.random.Generator
    ) -> tuple[Float[np.ndarray, "read"], Float[np.ndarray, "read_goal"]]:
        """Returns what a policy reads, and its goal, as `Task.sense` does, float32. Call it once in each control step.

        Args:
            goal: of the episode.
            random: draws the errors of the sensors and the noise of the disturbance.
        """
        read = self.task.declared_part(self.observation)
        if self.task.senses:
            measured = self.measure(goal)
            before = self._sensed or unread(self._errors, measured)
            self._sensed = read_sensors_in_c(
                self._errors, before._replace(measured=measured), self._steps, random
            )
            read, goal = self.task.split_reading(self._sensed.reading, goal)
        if self._disturbance is not None:
            deviation = float(self._disturbance.noise) * self.task.noise_scale
            read = read + deviation * random.standard_normal(len(read))
            if self._steps and random.random() < float(self._disturbance.dropout):
                read = self._last_read
            self._last_read = read
        return np.asarray(read, np.float32), np.asarray(goal, np.float32)

    def measure(self, goal: Float[np.ndarray, "goal"]) -> Float[np.ndarray, "sens"]:
        """Returns what the sensors measure, before their errors, float32."""
        return np.array(self.task.measure(self._data, goal), np.float32)

    @property
    def qpos(self) -> Float[np.ndarray, "nq"]:
        """The joint positions; they must not be changed."""
        return self._qpos


def _is_finite(observation: Float[np.ndarray, "obs"]) -> bool:
    return 0 not in np.isfinite(observation).tobytes()  # faster than `all`


def make_twins(task: Task, starts: State) -> list[Twin]:
    """Returns a twin of every environment in the batch `starts`, in the same state and with the same disturbance."""
    twins = []
    model = model_without_reset(task.model)
    disturbed: Any = jax.device_get(starts.disturbed)
    qpos: Any = np.asarray(starts.physics.qpos)
    qvel: Any = np.asarray(starts.physics.qvel)
    for i, (position, velocity) in enumerate(zip(qpos, qvel, strict=True)):
        disturbance = Disturbed(*(part[i] for part in disturbed)) if disturbed else None
        twin = Twin(task, disturbance, model)
        twin.reset(position, velocity)
        twins.append(twin)
    return twins
