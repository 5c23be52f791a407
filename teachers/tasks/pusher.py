"""A seven-joint arm that pushes an object over a table.

Proportions, torques and joint limits are those of Gymnasium's Pusher.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float, Key

from teachers.tasks.base import Task
from teachers.tasks.declaration import Camera, Field, GoalSet, Sensor, namespace
from teachers.tasks.modelling import (
    BODY_COLOUR,
    FLOOR_COLOUR,
    LIMB_COLOUR,
    MOVABLE_COLOUR,
    PAIRS_ONLY,
    add_motor,
)

TORQUE = 2.0  # N m
SHOULDER = (0.0, -0.6, 0.0)  # m
TABLE_HEIGHT = -0.325  # m
OBJECT_CENTRE = (0.45, -0.05)  # of the region where objects start, m
OBJECT_SIZE = (0.05, 0.05)  # radius and half the length of its straight part, m
TIP_RADIUS = 0.04  # m
MIN_GOAL_DISTANCE = 0.17  # of the goal from the object at the start, m
SOLVER_ITERATIONS = (4, 8)  # of the solver and of its line search
# The arm starts beside the objects and at their height, so that turning the shoulder touches them. From the published
# pose, stretched out high above the table, random torques hardly ever do.
START_POSE = (0.3, 0.554, 0.0, -0.455, 0.0, -0.5, 0.0)  # rad
# The geoms that touch the object. The table touches nothing: the object's joints keep it at its height.
TOUCHING = ("tip", "wrist_roll", "forearm_roll")


class Link(NamedTuple):
    """A joint with the link that it moves."""

    name: str
    offset: tuple[float, float, float]  # from the joint before, m
    axis: tuple[int, int, int]
    range: tuple[float, float]  # rad
    length: float = 0.0  # of the link along x, m
    radius: float = 0.06  # m


LINKS = (
    Link("shoulder_pan", (0.0, 0.0, 0.0), (0, 0, 1), (-2.2854, 1.7146)),
    Link("shoulder_lift", (0.1, 0.0, 0.0), (0, 1, 0), (-0.5236, 1.3963)),
    Link("upper_arm_roll", (0.0, 0.0, 0.0), (1, 0, 0), (-1.5, 1.7), 0.4),
    Link("elbow_flex", (0.4, 0.0, 0.0), (0, 1, 0), (-2.3213, 0.0)),
    Link("forearm_roll", (0.0, 0.0, 0.0), (1, 0, 0), (-1.5, 1.5), 0.29, 0.05),
    Link("wrist_flex", (0.321, 0.0, 0.0), (0, 1, 0), (-1.094, 0.0)),
    Link("wrist_roll", (0.0, 0.0, 0.0), (1, 0, 0), (-1.5, 1.5), 0.1, 0.03),
)


class PusherEasy(Task):
    """The pusher with goals beside the object."""

    name = "pusher_easy"
    summary = "A seven-joint arm pushes an object to a place some 25 cm beside it."
    observation = (
        Field("joint_angle", 7, "rad", f"in turn {', '.join(k.name for k in LINKS)}"),
        Field("joint_velocity", 7, "rad/s", "of the same joints", 2.0),
        Field("tip", 3, "m", "x, y and z of the arm's tip", 0.3),
        Field("object", 3, "m", "x, y and z of the object", 0.3),
    )
    goal = (Field("object", 3, "m", "x, y and z where the object should be", 0.3),)
    action = tuple(
        Field(f"{k.name}_torque", 1, "N m", f"torque on {k.name}", 1.0, -TORQUE, TORQUE)
        for k in LINKS
    )
    sensors = (
        Sensor("joint_angle", 7, "rad", "encoders of the joints", noise=0.002),
        # A camera of 10 Hz, which is 100 ms late.
        Sensor("object", 3, "m", "x, y and z of the object", 0.3, noise=0.005, delay=2, every=2),
    )
    substeps = 5
    episode_steps = 100
    success_radius = 0.1
    training = {
        "steps": 4_000_000,
        "commanded_critic": True,
        # Tried on `pusher_easy`: with a shorter horizon, and without the falling rate, the arm moves the object away from the
        # goal again.
        "learning.discount": 0.99,
        "learning.rate_fall": 0.95,
        "rollout.noise_steps": 5,
        "rollout.random": 0.2,
        "learning.random_goals": 0.5,
        "learning.initial_temperature": 0.1,
        "learning.gradient_steps": 128,
        "logging.evaluate_every": 32,
    }
    camera = Camera(lookat=(0.25, -0.2, -0.2), distance=2.0, azimuth=110.0, elevation=-50.0)

    def build(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.01
        spec.option.iterations, spec.option.ls_iterations = SOLVER_ITERATIONS
        spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_GRAVITY
        spec.compiler.degree = False
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[0.3, -0.1, TABLE_HEIGHT - 0.01],
            size=[0.6, 0.6, 0.01],
            rgba=FLOOR_COLOUR,
            **PAIRS_ONLY,
        )
        body = spec.worldbody
        for link in LINKS:
            position = SHOULDER if link is LINKS[0] else link.offset
            body = body.add_body(name=link.name, pos=position)
            body.add_joint(
                name=link.name,
                type=mujoco.mjtJoint.mjJNT_HINGE,
                axis=link.axis,
                range=link.range,
                armature=0.04,
                damping=[1.0, 0, 0],
            )
            add_motor(spec, link.name, TORQUE)
            body.add_geom(
                name=link.name,
                type=mujoco.mjtGeom.mjGEOM_CAPSULE,
                fromto=[0, 0, 0, max(link.length, 0.02), 0, 0],
                size=[link.radius, 0, 0],
                density=300.0,
                rgba=BODY_COLOUR if link.length else LIMB_COLOUR,
                **PAIRS_ONLY,
            )
        body.add_geom(
            name="tip",
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            pos=[0.1, 0, 0],
            size=[TIP_RADIUS, 0, 0],
            density=300.0,
            rgba=LIMB_COLOUR,
            **PAIRS_ONLY,
        )
        movable = spec.worldbody.add_body(
            name="object", pos=[0, 0, TABLE_HEIGHT + sum(OBJECT_SIZE)]
        )
        for axis, direction in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
            movable.add_joint(
                name=f"object_{axis}",
                type=mujoco.mjtJoint.mjJNT_SLIDE,
                axis=direction,
                damping=[0.5, 0, 0],
            )
        movable.add_geom(
            name="object",
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            size=[*OBJECT_SIZE, 0],
            mass=0.1,
            rgba=MOVABLE_COLOUR,
            **PAIRS_ONLY,
        )
        for geom in TOUCHING:
            spec.add_pair(geomname1=geom, geomname2="object", condim=1)
        return spec

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        place_key, angle_key, velocity_key = jax.random.split(key, 3)
        low, high = jnp.array([[-0.3, -0.2], [0.0, 0.2]])
        place = jnp.array(OBJECT_CENTRE) + jax.random.uniform(
            place_key, (2,), minval=low, maxval=high
        )
        velocity = jax.random.uniform(velocity_key, (7,), minval=-0.005, maxval=0.005)
        angles = jnp.array(START_POSE) + jax.random.uniform(
            angle_key, (7,), minval=-0.05, maxval=0.05
        )
        angles = jnp.clip(angles, *jnp.array([link.range for link in LINKS]).T)
        return jnp.concatenate([angles, place]), jnp.append(velocity, jnp.zeros(2))

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        return self._keep_distance(
            jax.random.uniform(
                key, (2,), minval=jnp.array([-0.55, -0.2]), maxval=jnp.array([-0.25, 0.2])
            ),
            observation,
        )

    def _keep_distance(
        self, place: Float[Array, "2"], observation: Float[Array, "obs"]
    ) -> Float[Array, "goal"]:
        """Returns the goal at `place` relative to the region's centre, moved away from the object if it is too close."""
        start = self.achieved_goal(observation)
        offset = jnp.array(OBJECT_CENTRE) + place - start[:2]
        distance = jnp.linalg.norm(offset)
        offset = offset * jnp.maximum(1.0, MIN_GOAL_DISTANCE / (distance + 1e-6))
        return start + jnp.append(offset, 0.0)

    def observe(self, data: Any) -> Any:
        tip, movable = self.model.geom("tip").id, self.model.geom("object").id
        return namespace(data.qpos).concatenate(
            [data.qpos[:7], data.qvel[:7], data.geom_xpos[tip], data.geom_xpos[movable]]
        )

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., 17:20]

    def measure(self, data: Any, goal: Any) -> Any:
        movable = self.model.geom("object").id
        return namespace(data.qpos).concatenate([data.qpos[:7], data.geom_xpos[movable]])


class PusherHard(PusherEasy):
    """The pusher with goals anywhere on the table."""

    name = "pusher_hard"
    summary = "A seven-joint arm pushes an object to any place of the table."

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        return self._keep_distance(
            jax.random.uniform(
                key, (2,), minval=jnp.array([-0.65, -0.55]), maxval=jnp.array([0.35, 0.45])
            ),
            observation,
        )
