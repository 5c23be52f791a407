"""What a model's state consists of beside joint positions and velocities, and what it is at the start of an episode."""

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

FILTERS = (int(mujoco.mjtDyn.mjDYN_FILTER), int(mujoco.mjtDyn.mjDYN_FILTEREXACT))
FULL_PHYSICS = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)


def internal_size(model: mujoco.MjModel) -> int:
    """Returns the size of `Physics.internal`: 0 where a model has neither activations nor delays nor plugins."""
    rest = mujoco.mj_stateSize(model, FULL_PHYSICS) - model.nq - model.nv
    return rest if rest > 1 else 0  # the time alone does not matter to the physics


def initial_internal(
    model: mujoco.MjModel, control: Float[np.ndarray, "nu"]
) -> Float[np.ndarray, "internal"] | None:
    """Returns `Physics.internal` at the start of an episode, float32; None where there is none.

    Args:
        model: of the task.
        control: what the actuators were sent before.
    """
    if not internal_size(model):
        return None
    data = mujoco.MjData(model)
    reset_data(model, data, control)
    state = np.empty(mujoco.mj_stateSize(model, FULL_PHYSICS))
    mujoco.mj_getState(model, data, state, FULL_PHYSICS)
    return pick_internal(model, state).astype(np.float32)


def reset_data(
    model: mujoco.MjModel, data: mujoco.MjData, control: Float[np.ndarray, "nu"]
) -> None:
    """Resets MuJoCo's data as if the actuators had been sent the same control for long."""
    mujoco.mj_resetData(model, data)
    data.ctrl[:] = control
    for i in range(model.nactuator):
        sent = control[model.actuator_ctrladr[i] :][: model.actuator_ctrlnum[i]]
        if model.actuator_dyntype[i] in FILTERS:
            data.act[model.actuator_actadr[i]] = sent[0]
        if samples := int(model.actuator_history[i, 0]):
            mujoco.mj_initCtrlHistory(model, data, i, None, np.tile(sent, (samples, 1)))


def pick_internal(
    model: mujoco.MjModel, states: Float[np.ndarray, "*batch state"]
) -> Float[np.ndarray, "*batch internal"]:
    """Returns `Physics.internal` of MuJoCo's full states: the time, and what comes after positions and velocities."""
    rest = states[..., 1 + model.nq + model.nv :]
    return np.concatenate([states[..., :1], rest], axis=-1)


def initial_mocap(model: mujoco.MjModel) -> Float[np.ndarray, "nmocap 7"] | None:
    """Returns the poses of the mocap bodies in the model, float32; None where there are none."""
    if not model.nmocap:
        return None
    data = mujoco.MjData(model)
    return np.concatenate([data.mocap_pos, data.mocap_quat], axis=1).astype(np.float32)


def normalize_quaternions(model: mujoco.MjModel, qpos: Float[Array, "nq"]) -> Float[Array, "nq"]:
    """Returns joint positions in which the quaternions of free and ball joints have unit length.

    MuJoCo C does this to the first state that it is given, and MJX does not.
    """
    for kind, offset in ((mujoco.mjtJoint.mjJNT_FREE, 3), (mujoco.mjtJoint.mjJNT_BALL, 0)):
        for start in model.jnt_qposadr[model.jnt_type == kind]:
            place = slice(start + offset, start + offset + 4)
            qpos = qpos.at[place].divide(jnp.linalg.norm(qpos[place]))
    return qpos
