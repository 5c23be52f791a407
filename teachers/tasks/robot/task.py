"""A task from a robot's model and a few lines: what is observed, what an action does, what the goal is."""

from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.runs.errors import InputError
from teachers.tasks.base import Task
from teachers.tasks.declaration import Camera, Field, GoalSet, namespace
from teachers.tasks.names import find
from teachers.tasks.robot.actions import ActionOf, slow_down
from teachers.tasks.robot.ends import EndOf
from teachers.tasks.robot.goals import Sampler, angle_between
from teachers.tasks.robot.parts import BALL, FREE, Part, PartOf, join


class RobotTask(Task):
    """A robot from a MuJoCo model that brings a part of itself, or an object, to a goal.

    A subclass declares the class attributes below, and those of `Task` that have no default: `name`, `summary`,
    `substeps`, `episode_steps` and `success_radius`. Everything of `Task` may be overridden.
    """

    robot: ClassVar[str | Path]  # the model's XML file
    rest: ClassVar[str] = (
        ""  # the keyframe with the pose and the controls at rest; "": the model's own
    )
    observes: ClassVar[tuple[PartOf, ...]]  # what is observed beside the goal's part
    acts: ClassVar[ActionOf]  # what an action does
    brings: ClassVar[PartOf]  # what is brought to the goal
    action_filter: ClassVar[float] = (
        0.0  # time constant (s) with which actuators follow what they are sent
    )
    action_delay: ClassVar[float] = 0.0  # s, after which they do; in MuJoCo C alone
    goals: ClassVar[Sampler]  # where goals are drawn from
    ends: ClassVar[tuple[EndOf, ...]] = ()  # when an episode ends early
    start_noise: ClassVar[float] = (
        0.05  # of hinges (rad) and slides (m) at the start of an episode, uniform
    )
    # By how much the place of a free body is shifted at most at the start, along x, y and z (m).
    scatters: ClassVar[dict[str, tuple[float, float, float]]] = {}
    success_angle: ClassVar[float | None] = None  # rad; for goals with an orientation
    # Made by `read_model`.
    observation: tuple[Field, ...] = ()
    goal: tuple[Field, ...] = ()
    action: tuple[Field, ...] = ()
    camera = Camera(
        (0.0, 0.0, 0.0), 1.0
    )  # replaced by one that shows the whole model, unless it is declared

    def read_model(self) -> None:
        """Makes fields, parts, action and camera from the compiled model.

        Raises:
            InputError: it lacks a name that is used, or the attributes do not fit it.
        """
        model = self.model
        try:
            self.rest_pose, self.rest_control = _find_rest(model, self.rest)
            self.goal_part: Part = type(self).brings(model)
            self._ends = tuple(make(model) for make in self.ends)
            parts = tuple(make(model) for make in self.observes)
            self._action = type(self).acts(model, self.rest_control)
        except InputError as error:
            raise InputError(f"task {self.name}: {error}") from None
        self._observed = join((*parts, *(end.part for end in self._ends), self.goal_part))
        self.observation = self._observed.fields
        self.goal = self.goal_part.fields
        self.action = self._action.fields
        if type(self).camera is RobotTask.camera:
            self.camera = _show_all(model, self.rest_pose)
        self.is_single_joint = _is_single_joint(model)
        self.joint_limits = _joint_limits(model)
        self._check_orientations()

    def build(self) -> mujoco.MjSpec:
        file = Path(self.robot)
        if not file.is_file():
            raise InputError(f"task {self.name}: there is no file {file}")
        try:
            spec = mujoco.MjSpec.from_file(str(file))
        except ValueError as error:
            raise InputError(f"task {self.name}: MuJoCo does not read {file}: {error}") from None
        self.change(spec)
        slow_down(spec, self.action_filter, self.action_delay)
        return spec

    def change(self, spec: mujoco.MjSpec) -> None:
        """Changes the model before it is compiled: adds a floor, an object, actuators. By default it does not."""

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        joint_key, body_key = jax.random.split(key)
        noise = jax.random.uniform(joint_key, (self.model.nq,), minval=-1.0)
        low, high = self.joint_limits
        qpos = jnp.asarray(self.rest_pose) + self.start_noise * self.is_single_joint * noise
        qpos = jnp.clip(qpos, low, high)
        for number, (body, half) in enumerate(self.scatters.items()):
            place = self._free_body(body)
            shift = jax.random.uniform(jax.random.fold_in(body_key, number), (3,), minval=-1.0)
            qpos = qpos.at[place : place + 3].add(shift * jnp.asarray(half))
        return qpos, jnp.zeros(self.model.nv)

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        return type(self).goals(key, self.achieved_goal(observation), self)

    def observe(self, data: Any) -> Any:
        return self._observed.read(data)

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., -self.goal_part.size :]

    def terminated(self, observation: Any) -> Any:
        over = super().terminated(observation)
        place = -self.goal_part.size - len(self._ends)
        for end in self._ends:
            number = observation[..., place]
            over = over | (number < end.low) | (number > end.high)
            place += 1
        return over

    def control(self, action: Any) -> Any:
        return self._action.control(action)

    def move_mocap(self, mocap: Any, action: Any) -> Any:
        move = self._action.move_mocap
        return mocap if move is None else move(mocap, action)

    def goal_distance(self, achieved: Any, goal: Any) -> Any:
        """Returns the distance `[*batch]` from `achieved` `[*batch, goal]` to `goal` `[*batch, goal]`.

        Where goals have an orientation, it is the larger one of the distance (m) and of the angle in units in which
        `success_angle` counts as `success_radius`.
        """
        if self.success_angle is None:
            return super().goal_distance(achieved, goal)
        xp = namespace(goal)
        distance = xp.linalg.norm(achieved[..., :-4] - goal[..., :-4], axis=-1)
        angle = angle_between(achieved[..., -4:], goal[..., -4:], xp)
        return xp.maximum(distance, angle * (self.success_radius / self.success_angle))

    def goal_position(self, goal: Any) -> tuple[float, float, float]:
        place = [float(value) for value in goal[:3]]
        return (*place, 0.0, 0.0, 0.0)[:3]  # type: ignore[return-value]

    def _free_body(self, name: str) -> int:
        """Returns where a free body's position begins in `qpos`.

        Raises:
            InputError: there is no such body, or it has no free joint.
        """
        number = find(self.model, "body", name)
        joint = int(self.model.body_jntadr[number])
        if joint < 0 or self.model.jnt_type[joint] != FREE:
            raise InputError(f"task {self.name}: scatters names {name!r}, which has no free joint")
        return int(self.model.jnt_qposadr[joint])

    def _check_orientations(self) -> None:
        has_orientation = any(place.quaternion for place in self.goal)
        if has_orientation and self.success_angle is None:
            raise InputError(
                f"task {self.name}: its goals have an orientation; declare success_angle (rad), such as 0.2"
            )
        if self.success_angle is not None and not has_orientation:
            raise InputError(
                f"task {self.name}: success_angle = {self.success_angle:g}, but its goals have no orientation; "
                "bring a pose(), or leave it out"
            )
        for body in self.scatters:
            self._free_body(body)


def _find_rest(
    model: mujoco.MjModel, keyframe: str
) -> tuple[Float[np.ndarray, "nq"], Float[np.ndarray, "nu"]]:
    """Returns joint positions and controls at rest, float32.

    Where a keyframe has no controls, position actuators of joints are sent the joints' positions.

    Raises:
        InputError: there is no such keyframe.
    """
    qpos, control = model.qpos0.copy(), np.zeros(model.nu)
    if keyframe:
        number = find(model, "key", keyframe)
        qpos, control = model.key_qpos[number].copy(), model.key_ctrl[number].copy()
    if not control.any():
        for i in range(model.nu):
            joint = model.actuator_trnid[i, 0]
            is_servo = model.actuator_biasprm[i, 1] != 0
            if is_servo and model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT:
                control[i] = qpos[model.jnt_qposadr[joint]]
    limits, is_limited = model.actuator_ctrlrange, model.actuator_ctrllimited.astype(bool)
    control[is_limited] = np.clip(control, *limits.T)[is_limited]
    return qpos.astype(np.float32), control.astype(np.float32)


def _show_all(model: mujoco.MjModel, qpos: Float[np.ndarray, "nq"]) -> Camera:
    """Returns a camera that shows all bodies at rest."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    places = data.xpos[1:]
    low, high = places.min(axis=0), places.max(axis=0)
    x, y, z = ((low + high) / 2).tolist()
    distance = 2.2 * max(float(np.linalg.norm(high - low)), 2 * model.stat.meansize)
    return Camera((x, y, z), distance, azimuth=140.0, elevation=-25.0)


def _is_single_joint(model: mujoco.MjModel) -> Float[np.ndarray, "nq"]:
    """Returns 1 for the positions of hinges and slides, and 0 for those of free and ball joints."""
    single = np.zeros(model.nq, np.float32)
    single[model.jnt_qposadr[~np.isin(model.jnt_type, (FREE, BALL))]] = 1.0
    return single


def _joint_limits(
    model: mujoco.MjModel,
) -> tuple[Float[np.ndarray, "nq"], Float[np.ndarray, "nq"]]:
    """Returns the lowest and highest joint positions, infinite where there is no limit."""
    low, high = np.full(model.nq, -np.inf, np.float32), np.full(model.nq, np.inf, np.float32)
    is_limited = model.jnt_limited.astype(bool) & ~np.isin(model.jnt_type, (FREE, BALL))
    places = model.jnt_qposadr[is_limited]
    low[places], high[places] = model.jnt_range[is_limited].T
    return low, high
