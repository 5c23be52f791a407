"""What a model's state consists of beside joint positions and velocities, and what it is at the start of an episode."""

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

FULL_PHYSICS = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)


def internal_size(model: mujoco.MjModel) -> int:
    """Returns the size of `Physics.internal`: 0 where a model has neither activations nor delays nor plugins."""
    rest = mujoco.mj_stateSize(model, FULL_PHYSICS) - model.nq - model.nv
    return rest if rest > 1 else 0  # the time alone does not matter to the physics


def initial_internal(model: mujoco.MjModel) -> Float[np.ndarray, "internal"] | None:
    """Returns `Physics.internal` after a reset, float32; None where there is none."""
    if not internal_size(model):
        return None
    state = np.empty(mujoco.mj_stateSize(model, FULL_PHYSICS))
    mujoco.mj_getState(model, mujoco.MjData(model), state, FULL_PHYSICS)
    return pick_internal(model, state).astype(np.float32)


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
