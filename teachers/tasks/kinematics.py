"""Poses and velocities of a model's bodies, for observations: the same for all engines and all models.

What MJX cannot simulate (a pair of geoms, an integrator, a flex) is no obstacle here, because nothing collides or acts.
"""

import jax
import mujoco
from jaxtyping import Array, Float

from teachers.process import mjx
from teachers.tasks.declaration import Physics
from teachers.tasks.fusion import limit_fusion


class Kinematics:
    """Computes poses and velocities of a model's bodies, joints, geoms and sites.

    Attributes:
        update: returns MJX's data in which they belong to a state. Its arguments are of one environment: `Physics`, what the
            actuators were sent last `[nu]`, and the time since the episode's start (s). XLA computes only what is read.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        """Keeps the bodies of a model without its contacts and forces."""
        # By default MJX uses the first device of all, which may belong to another machine.
        device = jax.local_devices()[0]
        bare = bare_model(model)
        with jax.ensure_compile_time_eval():  # the first use may be inside a trace
            self._model = mjx.put_model(bare, device=device)
            self._data = mjx.make_data(bare, device=device)
        # JAX traces it once, although programs contain it several times.
        self.update = jax.jit(limit_fusion(self._update))

    def _update(
        self, physics: Physics, control: Float[Array, "nu"], time: Float[Array, ""]
    ) -> mjx.Data:
        data = fill_data(self._data, physics, control).replace(time=time)
        data = mjx.kinematics(self._model, data)
        return mjx.com_vel(self._model, mjx.com_pos(self._model, data))


def fill_data(data: mjx.Data, physics: Physics, control: Float[Array, "nu"]) -> mjx.Data:
    """Returns MJX's data in the state `physics`, with what the actuators are sent."""
    data = data.replace(qpos=physics.qpos, qvel=physics.qvel, ctrl=control)
    if physics.internal is not None:
        time, activations = physics.internal[0], physics.internal[1:]
        data = data.replace(time=time, act=activations)
    if physics.mocap is not None:
        data = data.replace(mocap_pos=physics.mocap[:, :3], mocap_quat=physics.mocap[:, 3:])
    if physics.sensordata is not None:
        data = data.replace(sensordata=physics.sensordata)
    return data


def bare_model(model: mujoco.MjModel) -> mujoco.MjModel:
    """Returns the bodies, joints, geoms and sites of a model, with their ids, names and masses, and nothing else.

    No geom collides; all are small spheres.
    """
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    bodies = [spec.worldbody]
    for i in range(1, model.nbody):
        body = bodies[model.body_parentid[i]].add_body(
            name=model.body(i).name,
            pos=model.body_pos[i],
            quat=model.body_quat[i],
            mocap=model.body_mocapid[i] >= 0,
            explicitinertial=True,
            mass=model.body_mass[i],
            inertia=model.body_inertia[i],
            ipos=model.body_ipos[i],
            iquat=model.body_iquat[i],
        )
        bodies.append(body)
    turning_or_sliding = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
    for i in range(model.njnt):
        kind = mujoco.mjtJoint(model.jnt_type[i])
        reference = {"ref": model.qpos0[model.jnt_qposadr[i]]} if kind in turning_or_sliding else {}
        bodies[model.jnt_bodyid[i]].add_joint(
            name=model.joint(i).name,
            type=kind,
            pos=model.jnt_pos[i],
            axis=model.jnt_axis[i],
            **reference,
        )
    for i in range(model.ngeom):
        bodies[model.geom_bodyid[i]].add_geom(
            name=model.geom(i).name,
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[0.01, 0, 0],
            pos=model.geom_pos[i],
            quat=model.geom_quat[i],
            contype=0,
            conaffinity=0,
        )
    for i in range(model.nsite):
        bodies[model.site_bodyid[i]].add_site(
            name=model.site(i).name, pos=model.site_pos[i], quat=model.site_quat[i]
        )
    return spec.compile()
