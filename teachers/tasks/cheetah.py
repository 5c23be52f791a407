"""A planar two-legged runner.

Proportions, springs and torques are those of Gymnasium's HalfCheetah.
"""

from typing import Any, NamedTuple

import jax
import mujoco
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.tasks.base import Task
from teachers.tasks.declaration import Camera, Field, GoalSet, Sensor, namespace
from teachers.tasks.defaults import WALKING, WALKING_DISTILLATION
from teachers.tasks.modelling import BODY_COLOUR, LIMB_COLOUR, PAIRS_ONLY, add_floor, add_motor

LIMB_RADIUS = 0.046  # m
DENSITY = 646.8  # kg/m^3, for 14 kg in all
START_HEIGHT = 0.7  # of the torso, m
MAX_GOAL_DISTANCE = 10.0  # m
SOLVER_ITERATIONS = (4, 8)  # of the solver and of its line search


class Segment(NamedTuple):
    """One segment of a leg, from its hinge at `start` to its end, in the frame of the segment above (m)."""

    name: str
    start: tuple[float, float]  # x and z
    end: tuple[float, float]  # x and z from `start`
    range: tuple[float, float]  # rad
    torque: float  # N m
    stiffness: float  # N m/rad
    damping: float  # N m s/rad


LEGS = (
    (
        Segment("back_thigh", (-0.5, 0.0), (0.16, -0.25), (-0.52, 1.05), 120.0, 240.0, 6.0),
        Segment("back_shin", (0.16, -0.25), (-0.28, -0.14), (-0.785, 0.785), 90.0, 180.0, 4.5),
        Segment("back_foot", (-0.28, -0.14), (0.08, -0.19), (-0.4, 0.785), 60.0, 120.0, 3.0),
    ),
    (
        Segment("front_thigh", (0.5, 0.0), (-0.14, -0.24), (-1.0, 0.7), 120.0, 180.0, 4.5),
        Segment("front_shin", (-0.14, -0.24), (0.13, -0.18), (-1.2, 0.87), 60.0, 120.0, 3.0),
        Segment("front_foot", (0.13, -0.18), (0.09, -0.14), (-0.5, 0.5), 30.0, 60.0, 1.5),
    ),
)
SEGMENTS = tuple(segment for leg in LEGS for segment in leg)
# The spheres that touch the floor: both ends of the trunk, the head, and both ends of each foot.
TOUCHING = (
    "tail",
    "chest",
    "head",
    *(f"{leg}_{end}" for leg in ("back", "front") for end in ("heel", "toe")),
)


class Cheetah(Task):
    """The cheetah on a line."""

    name = "cheetah"
    summary = "A planar runner goes to a place ahead or behind and stays there."
    observation = (
        Field("position", 1, "m", "x of the torso from the start"),
        Field("height", 1, "m", "height of the torso above its start", 0.2),
        Field("pitch", 1, "rad", "pitch of the torso"),
        Field(
            "joint_angle", 6, "rad", "thigh, shin and foot of the back, then of the front leg", 0.5
        ),
        Field("velocity", 2, "m/s", "of the torso along x and up"),
        Field("pitch_velocity", 1, "rad/s", "of the torso", 2.0),
        Field("joint_velocity", 6, "rad/s", "of the six joints", 10.0),
    )
    goal = (Field("position", 1, "m", "x where the torso should be"),)
    action = tuple(
        Field(f"{s.name}_torque", 1, "N m", f"torque on the {s.name}", 1.0, -s.torque, s.torque)
        for s in SEGMENTS
    )
    sensors = (
        Sensor("gyro", 1, "rad/s", "pitch velocity", 2.0, noise=0.05, bias=0.02),
        Sensor(
            "gravity", 2, "1", "direction of gravity, along the torso and up from it", noise=0.02
        ),
        Sensor("joint_angle", 6, "rad", "encoders of the six joints", 0.5, noise=0.005),
        Sensor("last_action", 6, "1", "the last action, which is known"),
        Sensor("goal", 1, "m", "x of the goal from the torso", noise=0.05, is_goal=True),
    )
    substeps = 5
    episode_steps = 1000
    success_radius = 0.5
    training = {**WALKING, "steps": 4_000_000}
    distillation = WALKING_DISTILLATION
    camera = Camera(lookat=(0.0, 0.0, 0.5), distance=4.0, azimuth=90.0, elevation=-10.0)

    def build(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.01
        spec.option.iterations, spec.option.ls_iterations = SOLVER_ITERATIONS
        spec.compiler.degree = False
        hinge, slide = mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE
        add_floor(spec, 2 * MAX_GOAL_DISTANCE, half_depth=2)
        torso = spec.worldbody.add_body(name="torso", pos=[0, 0, START_HEIGHT])
        torso.add_joint(name="x", type=slide, axis=[1, 0, 0])
        torso.add_joint(name="z", type=slide, axis=[0, 0, 1])
        torso.add_joint(name="pitch", type=hinge, axis=[0, 1, 0])
        _add_capsule(torso, (-0.5, 0.0), (0.5, 0.0), BODY_COLOUR)
        _add_capsule(torso, (0.5, 0.0), (0.7, 0.2), BODY_COLOUR)
        _add_sphere(torso, "tail", (-0.5, 0.0))
        _add_sphere(torso, "chest", (0.5, 0.0))
        _add_sphere(torso, "head", (0.7, 0.2))
        for end, leg in zip(("back", "front"), LEGS, strict=True):
            body = torso
            for segment in leg:
                x, z = segment.start
                body = body.add_body(name=segment.name, pos=[x, 0, z])
                body.add_joint(
                    name=segment.name,
                    type=hinge,
                    axis=[0, 1, 0],
                    range=segment.range,
                    armature=0.1,
                    stiffness=[segment.stiffness, 0, 0],
                    damping=[segment.damping, 0, 0],
                )
                add_motor(spec, segment.name, segment.torque)
                _add_capsule(body, (0.0, 0.0), segment.end, LIMB_COLOUR)
            _add_sphere(body, f"{end}_heel", (0.0, 0.0))
            _add_sphere(body, f"{end}_toe", leg[-1].end)
        for name in TOUCHING:
            spec.add_pair(geomname1="floor", geomname2=name, condim=3, friction=[0.4, 0.4, 0, 0, 0])
        return spec

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        position_key, velocity_key = jax.random.split(key)
        qpos = jax.random.uniform(position_key, (9,), minval=-0.1, maxval=0.1)
        return qpos, 0.1 * jax.random.normal(velocity_key, (9,))

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        return jax.random.uniform(key, (1,), minval=-MAX_GOAL_DISTANCE, maxval=MAX_GOAL_DISTANCE)

    def observe(self, data: Any) -> Any:
        return namespace(data.qpos).concatenate([data.qpos, data.qvel])

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., :1]

    def measure(self, data: Any, goal: Any) -> Any:
        xp = namespace(data.qpos)
        pitch = data.qpos[2:3]
        torques = np.array([s.torque for s in SEGMENTS], np.float32)
        return xp.concatenate(
            [
                data.qvel[2:3],
                xp.sin(pitch),
                -xp.cos(pitch),
                data.qpos[3:9],
                data.ctrl / torques,
                goal - data.qpos[:1],
            ]
        )

    def goal_position(self, goal: Any) -> tuple[float, float, float]:
        return (float(goal[0]), 0.0, START_HEIGHT)


def _add_capsule(
    body: Any, start: tuple[float, float], end: tuple[float, float], colour: list[float]
) -> None:
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[start[0], 0, start[1], end[0], 0, end[1]],
        size=[LIMB_RADIUS, 0, 0],
        density=DENSITY,
        rgba=colour,
        **PAIRS_ONLY,
    )


def _add_sphere(body: Any, name: str, place: tuple[float, float]) -> None:
    """Adds a sphere at the end of a capsule, as the geom that touches the floor."""
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        pos=[place[0], 0, place[1]],
        size=[LIMB_RADIUS, 0, 0],
        mass=0,
        rgba=LIMB_COLOUR,
        **PAIRS_ONLY,
    )
