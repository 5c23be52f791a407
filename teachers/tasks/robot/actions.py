"""What an action in [-1, 1] does to a robot: position targets, commands of motors, or steps of a mocap body."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float

from teachers.runs.errors import InputError
from teachers.tasks.actuators import control_limits
from teachers.tasks.declaration import Field, namespace
from teachers.tasks.names import find

JOINT = int(mujoco.mjtTrn.mjTRN_JOINT)
SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)


class Action(NamedTuple):
    """The action of a robot."""

    fields: tuple[Field, ...]
    # From an action in [-1, 1] to what the actuators are sent, `[nu]`.
    control: Callable[[Any], Any]
    # From the mocap bodies' poses `[nmocap, 7]` and an action to their next poses.
    move_mocap: Callable[[Any, Any], Any] | None = None


# From the model and the control at rest `[nu]`.
ActionOf = Callable[[mujoco.MjModel, np.ndarray], Action]


def position_targets(*actuators: str, scale: float = 0.5) -> ActionOf:
    """Acts by offsets from the pose at rest: 1 is `scale` (rad or m) above it, within the actuators' ranges.

    Args:
        actuators: names of position actuators; by default all. The others keep the pose.
        scale: the largest offset.
    """

    def make(model: mujoco.MjModel, rest: Float[np.ndarray, "nu"]) -> Action:
        ids = _actuators(model, actuators)
        limits = model.actuator_ctrlrange[ids]
        is_limited = limits[:, 0] < limits[:, 1]
        low, high = rest[ids] - scale, rest[ids] + scale
        low = np.where(is_limited, np.maximum(low, limits[:, 0]), low)
        high = np.where(is_limited, np.minimum(high, limits[:, 1]), high)
        return _actuated(model, ids, rest, low, high, "target of")

    return make


def motor_commands(*actuators: str) -> ActionOf:
    """Acts by the whole range of the actuators: torques of motors, speeds of velocity servos.

    Args:
        actuators: their names; by default all. The others are sent what they are sent at rest.
    """

    def make(model: mujoco.MjModel, rest: Float[np.ndarray, "nu"]) -> Action:
        ids = _actuators(model, actuators)
        field = Field("action", len(ids), "1", "of an actuator")
        low, high = control_limits(model, ids, (field,), "of this robot")
        return _actuated(model, ids, rest, low, high, "command of")

    return make


def mocap_steps(body: str, step: float = 0.02) -> ActionOf:
    """Acts by moving a mocap body: 1 is a step along x, y or z (m) in a control period.

    Args:
        body: its name.
        step: the largest one, m.
    """

    def make(model: mujoco.MjModel, rest: Float[np.ndarray, "nu"]) -> Action:
        number = int(model.body_mocapid[find(model, "body", body)])
        if number < 0:
            raise InputError(f"mocap_steps({body!r}): the body is no mocap body")
        field = Field("step", 3, "m", f"step of {body} along x, y and z", step, -step, step)

        def move(mocap: Any, action: Any) -> Any:
            xp = namespace(action)
            offset = step * xp.clip(action, -1.0, 1.0)
            moved = xp.concatenate([mocap[number, :3] + offset, mocap[number, 3:]])
            return xp.concatenate([mocap[:number], moved[None], mocap[number + 1 :]])

        def control(action: Any) -> Any:
            xp = namespace(action)
            return xp.broadcast_to(xp.asarray(rest), (*action.shape[:-1], model.nu))

        return Action((field,), control, move)

    return make


def slow_down(spec: mujoco.MjSpec, time_constant: float, delay: float) -> None:
    """Lets the actuators of a model follow what they are sent by a first-order filter, after a delay.

    Args:
        spec: of the model. Actuators that have dynamics or a delay of their own keep them.
        time_constant: of the filter (s); 0: none.
        delay: s; 0: none.
    """
    for actuator in spec.actuators:
        if time_constant and actuator.dyntype == mujoco.mjtDyn.mjDYN_NONE:
            actuator.dyntype = mujoco.mjtDyn.mjDYN_FILTEREXACT
            actuator.dynprm[0] = time_constant
        if delay and not actuator.delay:
            actuator.delay = delay
            actuator.nsample = math.ceil(delay / spec.option.timestep) + 2


def _actuators(model: mujoco.MjModel, names: tuple[str, ...]) -> np.ndarray:
    """Returns the ids of actuators, by default of all.

    Raises:
        InputError: one is not there, or the model has none.
    """
    if not model.nu:
        raise InputError(
            "the model has no actuators; add some in `change`, or act with mocap_steps()"
        )
    if model.nu != model.nactuator:
        raise InputError(
            "the model has actuators of several numbers; override `control` in a plain Task"
        )
    return np.array([find(model, "actuator", name) for name in names] or range(model.nu))


def _actuated(
    model: mujoco.MjModel,
    ids: np.ndarray,
    rest: Float[np.ndarray, "nu"],
    low: np.ndarray,
    high: np.ndarray,
    meaning: str,
) -> Action:
    low, high, rest = (part.astype(np.float32) for part in (low, high, rest))
    fields = tuple(
        Field(
            model.actuator(i).name or f"actuator_{i}",
            1,
            _unit(model, i),
            f"{meaning} {model.actuator(i).name or f'actuator {i}'}",
            1.0,
            float(low[number]),
            float(high[number]),
        )
        for number, i in enumerate(ids.tolist())
    )
    # Where each actuator's number comes from: the action, or the pose at rest behind it.
    source = np.arange(model.nu) + len(ids)
    source[ids] = np.arange(len(ids))

    def control(action: Any) -> Any:
        xp = namespace(action)
        sent = low + (xp.clip(action, -1.0, 1.0) + 1.0) / 2.0 * (high - low)
        still = xp.broadcast_to(xp.asarray(rest), (*action.shape[:-1], model.nu))
        return xp.concatenate([sent, still], axis=-1)[..., source]

    return Action(fields, control)


def _unit(model: mujoco.MjModel, actuator: int) -> str:
    """Returns the unit of what an actuator is sent, `1` where it is not known."""
    if model.actuator_trntype[actuator] != JOINT:
        return "1"
    is_slide = model.jnt_type[model.actuator_trnid[actuator, 0]] == SLIDE
    gain, bias = model.actuator_gainprm[actuator, 0], model.actuator_biasprm[actuator]
    if bias[1] and np.isclose(bias[1], -gain):
        return "m" if is_slide else "rad"
    if bias[2] and np.isclose(bias[2], -gain):
        return "m/s" if is_slide else "rad/s"
    if not bias.any() and gain == 1.0:
        return "N" if is_slide else "N m"
    return "1"
