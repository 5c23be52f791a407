"""What a robot observes, and what is brought to a goal: joint angles, places, poses, each with its fields.

Each function returns what a `RobotTask` makes a `Part` of, once it has its model.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mujoco
import numpy as np

from teachers.runs.errors import InputError
from teachers.tasks.declaration import Field, namespace
from teachers.tasks.names import find, names_of

AXES = "xyz"
FREE, BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
HINGE = int(mujoco.mjtJoint.mjJNT_HINGE)


class Part(NamedTuple):
    """Some numbers of a robot's state."""

    fields: tuple[Field, ...]
    read: Callable[[Any], Any]  # from MJX's or MuJoCo C's data to `[n]`

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return sum(field.size for field in self.fields)


PartOf = Callable[[mujoco.MjModel], Part]


def joint_angles(*joints: str, scale: float = 1.0) -> PartOf:
    """Observes the positions of hinges (rad) and slides (m).

    Args:
        joints: their names; by default all of the model, but of free and ball joints.
        scale: their usual magnitude.
    """

    def make(model: mujoco.MjModel) -> Part:
        ids = _single_joints(model, joints)
        fields = _joint_fields(model, ids, "joint_angle", "joint_position", ("rad", "m"), scale)
        places = np.concatenate([model.jnt_qposadr[of] for of in _by_unit(model, ids)])
        return Part(fields, lambda data: data.qpos[places])

    return make


def joint_velocities(*joints: str, scale: float = 5.0) -> PartOf:
    """Observes the velocities of hinges (rad/s) and slides (m/s); see `joint_angles`."""

    def make(model: mujoco.MjModel) -> Part:
        ids = _single_joints(model, joints)
        names = "joint_velocity", "slide_velocity"
        fields = _joint_fields(model, ids, *names, ("rad/s", "m/s"), scale)
        places = np.concatenate([model.jnt_dofadr[of] for of in _by_unit(model, ids)])
        return Part(fields, lambda data: data.qvel[places])

    return make


def base(name: str = "", *, speed: float = 1.0) -> PartOf:
    """Observes a floating base: height, orientation, linear and angular velocity.

    Args:
        name: of the body with the free joint; by default the first one.
        speed: usual magnitude of its linear velocity (m/s).
    """

    def make(model: mujoco.MjModel) -> Part:
        joint = _free_joint(model, name)
        body_id, place = int(model.jnt_bodyid[joint]), int(model.jnt_dofadr[joint])
        what = f"of {model.body(body_id).name or 'the base'}"
        fields = (
            Field("height", 1, "m", f"height {what}", 0.5),
            Field("orientation", 4, "1", f"orientation {what}, w first", quaternion=True),
            Field("velocity", 3, "m/s", f"linear velocity {what} in the world", speed),
            Field("angular_velocity", 3, "rad/s", f"angular velocity {what} in its frame", 3.0),
        )

        def read(data: Any) -> Any:
            xp = namespace(data.qpos)
            pose = [data.xpos[body_id, 2:], data.xquat[body_id]]
            return xp.concatenate([*pose, data.qvel[place : place + 6]])

        return Part(fields, read)

    return make


def gravity_in(name: str) -> PartOf:
    """Observes the direction of gravity in a body's frame, as an inertial measurement unit at rest would."""

    def make(model: mujoco.MjModel) -> Part:
        body_id = find(model, "body", name)
        field = Field("gravity", 3, "1", f"direction of gravity in the frame of {name}")
        return Part((field,), lambda data: _gravity(data, body_id))

    return make


def site(name: str, *, axes: str = AXES, scale: float = 0.3) -> PartOf:
    """Observes where a site is in the world, along some of the axes x, y and z (m)."""
    return lambda model: _place("site", find(model, "site", name), name, axes, scale)


def body(name: str, *, axes: str = AXES, scale: float = 1.0) -> PartOf:
    """Observes where a body is in the world, along some of the axes x, y and z (m)."""
    return lambda model: _place("body", find(model, "body", name), name, axes, scale)


def pose(name: str, *, scale: float = 0.3) -> PartOf:
    """Observes where a body is in the world (m), and how it is turned, as a unit quaternion whose sign does not matter."""

    def make(model: mujoco.MjModel) -> Part:
        body_id = find(model, "body", name)
        place = _place("body", body_id, name, AXES, scale)
        turned = Field(
            f"{name}_orientation",
            4,
            "1",
            f"orientation of {name} as a unit quaternion, w first, of either sign",
            quaternion=True,
        )

        def read(data: Any) -> Any:
            return namespace(data.qpos).concatenate([place.read(data), data.xquat[body_id]])

        return Part((*place.fields, turned), read)

    return make


def last_control(scale: float = 1.0) -> PartOf:
    """Observes what the actuators were sent last."""

    def make(model: mujoco.MjModel) -> Part:
        field = Field("last_control", model.nu, "1", "what the actuators were sent last", scale)
        return Part((field,), lambda data: data.ctrl)

    return make


def join(parts: tuple[Part, ...]) -> Part:
    """Returns several parts as one."""

    def read(data: Any) -> Any:
        return namespace(data.qpos).concatenate([part.read(data) for part in parts])

    return Part(tuple(field for part in parts for field in part.fields), read)


def _place(kind: str, number: int, name: str, axes: str, scale: float) -> Part:
    if not axes or set(axes) - set(AXES):
        raise InputError(f"axes = {axes!r} of {kind} {name!r}; use some of 'xyz'")
    places = np.array([AXES.index(axis) for axis in axes])
    title = name if axes == AXES else f"{name}_{axes}"
    field = Field(title, len(axes), "m", f"{', '.join(axes)} of the {kind} {name}", scale)
    if kind == "site":
        return Part((field,), lambda data: data.site_xpos[number, places])
    return Part((field,), lambda data: data.xpos[number, places])


def _gravity(data: Any, body_id: int) -> Any:
    return -data.xmat[body_id].reshape(9)[6:]


def _single_joints(model: mujoco.MjModel, names: tuple[str, ...]) -> np.ndarray:
    """Returns the ids of joints of one number each.

    Raises:
        InputError: a named joint is not there, or is a free or ball joint.
    """
    if not names:
        return np.flatnonzero(~np.isin(model.jnt_type, (FREE, BALL)))
    ids = np.array([find(model, "joint", name) for name in names])
    for name, kind in zip(names, model.jnt_type[ids], strict=True):
        if kind in (FREE, BALL):
            raise InputError(
                f"joint {name!r} has more than one number; observe its body with base() or pose()"
            )
    return ids


def _by_unit(model: mujoco.MjModel, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the hinges and the slides among the joints."""
    is_hinge = model.jnt_type[ids] == HINGE
    return ids[is_hinge], ids[~is_hinge]


def _joint_fields(
    model: mujoco.MjModel,
    ids: np.ndarray,
    hinge: str,
    slide: str,
    units: tuple[str, str],
    scale: float,
) -> tuple[Field, ...]:
    """Returns a field for all hinges and one for all slides, where there are any."""
    fields = []
    for name, unit, of in zip((hinge, slide), units, _by_unit(model, ids), strict=True):
        if len(of):
            listed = ", ".join(model.joint(i).name or f"joint {i}" for i in of)
            fields.append(Field(name, len(of), unit, f"of {listed}", scale))
    return tuple(fields)


def _free_joint(model: mujoco.MjModel, name: str) -> int:
    """Returns the free joint of a body, by default the first one.

    Raises:
        InputError: there is none.
    """
    free = np.flatnonzero(model.jnt_type == FREE)
    if name:
        free = free[model.jnt_bodyid[free] == find(model, "body", name)]
    if not len(free):
        has = names_of(model, "joint")
        raise InputError(
            f"base({name!r}): {'the body' if name else 'the model'} has no free joint; its joints are {', '.join(has)}"
        )
    return int(free[0])
