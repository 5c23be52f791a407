"""A planar arm of two links that brings its fingertip to a point."""

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float, Key

from teachers.tasks.base import Task
from teachers.tasks.declaration import Camera, Field, GoalSet, Sensor, namespace
from teachers.tasks.modelling import BODY_COLOUR, add_motor

LINKS = (0.1, 0.11)  # m
TORQUE = 0.1  # N m


class Reacher(Task):
    """The reacher on its disc."""

    name = "reacher"
    summary = "A two-joint planar arm brings its fingertip to a point of the disc it can reach."
    observation = (
        Field("joint_cos", 2, "1", "cosine of the shoulder and elbow angles"),
        Field("joint_sin", 2, "1", "sine of the shoulder and elbow angles"),
        Field("joint_velocity", 2, "rad/s", "angular velocity of shoulder and elbow", scale=5.0),
        Field("fingertip", 2, "m", "x and y of the fingertip from the shoulder", scale=0.1),
    )
    goal = (Field("fingertip", 2, "m", "x and y where the fingertip should be", scale=0.1),)
    action = (
        Field("shoulder_torque", 1, "N m", "torque on the shoulder", low=-TORQUE, high=TORQUE),
        Field("elbow_torque", 1, "N m", "torque on the elbow", low=-TORQUE, high=TORQUE),
    )
    sensors = (
        Sensor("joint_cos", 2, "1", "cosine of the shoulder and elbow encoders", noise=0.002),
        Sensor("joint_sin", 2, "1", "sine of the shoulder and elbow encoders", noise=0.002),
    )
    substeps = 4
    episode_steps = 100
    success_radius = 0.05
    camera = Camera(lookat=(0.0, 0.0, 0.0), distance=0.65)

    def build(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.005
        # There are no contacts, and gravity acts along the joints' axes.
        spec.option.disableflags = (
            mujoco.mjtDisableBit.mjDSBL_CONSTRAINT | mujoco.mjtDisableBit.mjDSBL_GRAVITY
        )
        body, position = spec.worldbody, 0.0
        for joint, length in zip(("shoulder", "elbow"), LINKS, strict=True):
            body = body.add_body(name=f"{joint}_link", pos=[position, 0, 0])
            body.add_joint(
                name=joint,
                type=mujoco.mjtJoint.mjJNT_HINGE,
                axis=[0, 0, 1],
                damping=[0.005, 0, 0],
                armature=0.001,
            )
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CAPSULE,
                fromto=[0, 0, 0, length, 0, 0],
                size=[0.01, 0, 0],
                rgba=BODY_COLOUR,
            )
            add_motor(spec, joint, TORQUE)
            position = length
        body.add_site(name="fingertip", pos=[LINKS[-1], 0, 0])
        return spec

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        angle_key, velocity_key = jax.random.split(key)
        angles = jax.random.uniform(angle_key, (2,), minval=-jnp.pi, maxval=jnp.pi)
        return angles, 0.1 * jax.random.normal(velocity_key, (2,))

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        # Uniform over the reachable ring; its inner radius is the difference of the links.
        radius_key, angle_key = jax.random.split(key)
        inner, outer = abs(LINKS[0] - LINKS[1]), sum(LINKS)
        area = jax.random.uniform(radius_key, minval=inner**2, maxval=outer**2)
        angle = jax.random.uniform(angle_key, minval=-jnp.pi, maxval=jnp.pi)
        return jnp.sqrt(area) * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def observe(self, data: Any) -> Any:
        xp = namespace(data.qpos)
        return xp.concatenate(
            [xp.cos(data.qpos), xp.sin(data.qpos), data.qvel, data.site_xpos[0, :2]]
        )

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., 6:8]

    def measure(self, data: Any, goal: Any) -> Any:
        xp = namespace(data.qpos)
        return xp.concatenate([xp.cos(data.qpos), xp.sin(data.qpos)])
