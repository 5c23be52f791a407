"""A quadruped of eight joints that walks to a place, through a maze, or moves something there.

Proportions, masses and joint limits are those of Gymnasium's Ant; joints are lighter and weaker, see `TORQUE`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.tasks.base import Task
from teachers.tasks.declaration import Camera, Field, GoalSet, Sensor, namespace
from teachers.tasks.defaults import WALKING, WALKING_DISTILLATION
from teachers.tasks.maze import BIG, HARDEST, PUSH, U4, U5, Maze, U
from teachers.tasks.modelling import (
    BODY_COLOUR,
    LIMB_COLOUR,
    MOVABLE_COLOUR,
    PAIRS_ONLY,
    add_floor,
    add_motor,
)
from teachers.tasks.walking import (
    GOAL_FROM_TORSO,
    INERTIAL_SENSORS,
    is_outside,
    measure_inertial,
    turn_into_torso,
)

TORSO_RADIUS = 0.25  # m
LIMB_RADIUS = 0.08  # m
UPPER_LENGTH, SHIN_LENGTH = 0.2 * 2**0.5, 0.4 * 2**0.5  # m
DENSITY = 5.0  # kg/m^3
# A tenth of the published torque and armature, and half of the published damping. From rest a joint accelerates as fast as
# the published one, but at the same speed a leg hits the floor with a tenth of the energy. With the published figures, in
# Euler steps of 10 ms, 86% of ants that take random actions bounce above their healthy height.
TORQUE = 15.0  # N m
ARMATURE = 0.1  # kg m^2
DAMPING = 0.5  # N m s/rad
CELL = 4.0  # m
FEET = tuple(f"foot_{i}" for i in range(4))
COLLIDING = ("torso", *FEET)  # the geoms that touch the floor, walls and movable bodies
SOLVER_ITERATIONS = (2, 4)  # of the solver and of its line search
MAX_WALL_CONTACTS = 8
STANDING_POSE = (0.0, 0.0, 0.55, 1.0, 0.0, 0.0, 0.0, *(0.0, 1.0) * 4)  # qpos
# Beyond it the episode ends. The lower limit is the published one, which a torso of this radius does not reach.
HEALTHY_HEIGHT = (0.2, 1.0)  # m
BALL_RADIUS = 0.5  # m
# The ant on open ground takes 16 M steps; the other ant tasks were tried for fewer, or not at all.
ANT_TRAINING: Mapping[str, Any] = {
    **WALKING,
    "steps": 16_000_000,
    "learning.entropy_fall": 0.7,
    "logging.evaluate_every": 120,
    "logging.checkpoint_every": 60,
}
FIELDS: tuple[Field, ...] = (
    Field("position", 2, "m", "x and y of the torso"),
    Field("height", 1, "m", "height of the torso", 0.5),
    Field("orientation", 4, "1", "the torso's orientation as a unit quaternion, w first", 0.5),
    Field("joint_angle", 8, "rad", "hip and ankle of each leg in turn", 0.5),
    Field("velocity", 3, "m/s", "linear velocity of the torso in the world"),
    Field("angular_velocity", 3, "rad/s", "angular velocity of the torso in its frame", 3.0),
    Field("joint_velocity", 8, "rad/s", "hip and ankle of each leg in turn", 5.0),
)
GOAL: tuple[Field, ...] = (Field("position", 2, "m", "x and y where the torso should be"),)


class Ant(Task):
    """The ant on open ground, from which the other ant tasks are derived."""

    name = "ant"
    summary = "A quadruped walks to a point 10 m away, in any direction."
    observation = FIELDS
    goal = GOAL
    action = tuple(
        Field(
            f"{joint}_torque_{leg}",
            1,
            "N m",
            f"torque on the {joint} of leg {leg}",
            1.0,
            -TORQUE,
            TORQUE,
        )
        for leg in range(4)
        for joint in ("hip", "ankle")
    )
    sensors: tuple[Sensor, ...] = (
        *INERTIAL_SENSORS,
        Sensor("joint_angle", 8, "rad", "encoders of hip and ankle of each leg", 0.5, noise=0.005),
        Sensor("last_action", 8, "1", "the last action, which is known"),
        GOAL_FROM_TORSO,
    )
    substeps = 5
    episode_steps = 1000
    success_radius = 0.5
    training = ANT_TRAINING
    distillation = WALKING_DISTILLATION
    camera = Camera(lookat=(0.0, 0.0, 0.0), distance=28.0, elevation=-60.0)
    floor_half_width = 20.0  # m, in pictures

    def build(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        option = spec.option
        option.timestep = 0.01
        # Armature dominates the joints' inertia, so that damping needs no implicit integration.
        option.disableflags = mujoco.mjtDisableBit.mjDSBL_EULERDAMP
        option.iterations, option.ls_iterations = SOLVER_ITERATIONS
        add_floor(spec, self.floor_half_width)
        _add_ant(spec)
        for geom in COLLIDING:
            spec.add_pair(geomname1="floor", geomname2=geom, condim=3, friction=[1.0, 1.0, 0, 0, 0])
        self.add_objects(spec)
        return spec

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Adds walls and movable bodies; by default there are none."""

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        return sample_near_pose(key, jnp.array(STANDING_POSE), self.model.nv)

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        return sample_on_circle(key, 10.0)

    def observe(self, data: Any) -> Any:
        return namespace(data.qpos).concatenate([data.qpos[:15], data.qvel[:14]])

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., :2]

    def measure(self, data: Any, goal: Any) -> Any:
        xp = namespace(data.qpos)
        ahead = xp.concatenate([goal - data.qpos[:2], xp.zeros_like(goal[:1])])
        last_action = data.ctrl / TORQUE
        return xp.concatenate(
            [*measure_inertial(data), data.qpos[7:15], last_action, turn_into_torso(data, ahead)]
        )

    def terminated(self, observation: Any) -> Any:
        return is_outside(observation[..., 2], HEALTHY_HEIGHT)

    def goal_position(self, goal: Any) -> tuple[float, float, float]:
        return (float(goal[0]), float(goal[1]), STANDING_POSE[2])


class AntMaze(Ant):
    """The ant in a maze; subclasses declare the layout."""

    maze: Maze
    goal_sets: ClassVar[tuple[GoalSet, ...]] = ("train", "eval")

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        self.maze.add_walls(spec, height=1.0, touched_by=COLLIDING, max_contacts=MAX_WALL_CONTACTS)

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        qpos, qvel = super().sample_state(key)
        return qpos.at[:2].set(self.maze.start), qvel

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        return self.maze.sample_goal(key, goal_set)


class AntUMaze(AntMaze):
    """The ant in the U-shaped maze."""

    name = "ant_u_maze"
    summary = "A quadruped walks round the bend of a U-shaped corridor."
    maze = Maze(U, CELL)
    camera = maze.camera


class AntU4Maze(AntMaze):
    """The ant in a U with longer arms."""

    name = "ant_u4_maze"
    summary = "A quadruped walks round a U-shaped corridor of 11 cells."
    maze = Maze(U4, CELL)
    camera = maze.camera


class AntU5Maze(AntMaze):
    """The ant in the longest U."""

    name = "ant_u5_maze"
    summary = "A quadruped walks round a U-shaped corridor of 17 cells."
    maze = Maze(U5, CELL)
    camera = maze.camera


class AntBigMaze(AntMaze):
    """The ant in the big maze."""

    name = "ant_big_maze"
    summary = "A quadruped finds its way through a maze of 8 x 8 cells."
    maze = Maze(BIG, CELL)
    camera = maze.camera


class AntHardestMaze(AntMaze):
    """The ant in the hardest maze."""

    name = "ant_hardest_maze"
    summary = "A quadruped finds its way through a maze of 12 x 9 cells."
    maze = Maze(HARDEST, CELL)
    camera = maze.camera


class AntWithMovable(Ant):
    """The ant and something that it moves, whose two slides come after the ant's coordinates."""

    sensors = (
        *Ant.sensors,
        # A camera of 10 Hz, which is 100 ms late.
        Sensor(
            "movable", 3, "m", "from the torso to the movable", 2.0, noise=0.05, delay=2, every=2
        ),
    )

    def observe(self, data: Any) -> Any:
        return namespace(data.qpos).concatenate([super().observe(data), data.qpos[15:17]])

    def measure(self, data: Any, goal: Any) -> Any:
        xp = namespace(data.qpos)
        away = xp.concatenate([data.qpos[15:17] - data.qpos[:2], xp.zeros_like(goal[:1])])
        return xp.concatenate([super().measure(data, goal), turn_into_torso(data, away)])


class AntBall(AntWithMovable):
    """The ant and a ball, which slides instead of rolling: that needs no contact between ball and floor."""

    name = "ant_ball"
    summary = "A quadruped brings a ball to a point 5 m away."
    observation = (*FIELDS, Field("ball", 2, "m", "x and y of the ball"))
    goal = (Field("ball", 2, "m", "x and y where the ball should be"),)
    camera = Camera(lookat=(0.0, 0.0, 0.0), distance=15.0, elevation=-60.0)
    floor_half_width = 10.0

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        ball = spec.worldbody.add_body(name="ball", pos=[0, 0, BALL_RADIUS])
        _add_slides(ball, "ball", damping=0.3)
        ball.add_geom(
            name="ball",
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[BALL_RADIUS, 0, 0],
            mass=0.5,
            rgba=MOVABLE_COLOUR,
            **PAIRS_ONLY,
        )
        for geom in COLLIDING:
            spec.add_pair(geomname1=geom, geomname2="ball", condim=1)

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        key, distance_key, angle_key = jax.random.split(key, 3)
        qpos, qvel = super().sample_state(key)
        distance = jax.random.uniform(distance_key, minval=1.5, maxval=2.5)
        return jnp.concatenate([qpos, sample_on_circle(angle_key, distance)]), qvel

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        return sample_on_circle(key, 5.0)

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., 29:31]


class AntPush(AntWithMovable, AntMaze):
    """The ant and a block in its way; if it is pushed in the wrong direction, it closes off the goal."""

    name = "ant_push"
    summary = "A quadruped pushes a block aside to get to the chamber behind it."
    maze = Maze(PUSH, CELL)
    camera = maze.camera
    observation = (*FIELDS, Field("block", 2, "m", "x and y of the block"))
    goal_sets = ("train",)

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        half, corner = CELL / 2 - 0.1, 0.3
        block = spec.worldbody.add_body(name="block", pos=[0, 0, half / 2])
        _add_slides(block, "block", damping=2.0)
        look = {"rgba": MOVABLE_COLOUR, **PAIRS_ONLY}
        block.add_geom(
            name="block",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[half, half, half / 2],
            mass=1.0,
            **look,
        )
        # Walls touch these spheres in the corners of the block: much cheaper than contacts between two boxes.
        corners = [f"block_corner_{i}" for i in range(4)]
        for name, x, y in zip(corners, (-1, -1, 1, 1), (-1, 1, -1, 1), strict=True):
            inset = half - corner
            block.add_geom(
                name=name,
                type=mujoco.mjtGeom.mjGEOM_SPHERE,
                pos=[x * inset, y * inset, 0],
                size=[corner, 0, 0],
                mass=0,
                **look,
            )
        for geom in COLLIDING:
            spec.add_pair(geomname1=geom, geomname2="block", condim=1)
        self.maze.add_walls(
            spec, height=1.0, touched_by=(*COLLIDING, *corners), max_contacts=MAX_WALL_CONTACTS + 4
        )

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        qpos, qvel = super().sample_state(key)
        return jnp.concatenate([qpos, jnp.asarray(self.maze.cells("B")[0])]), qvel


def _add_slides(body: Any, name: str, damping: float) -> None:
    for axis, direction in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
        body.add_joint(
            name=f"{name}_{axis}",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=direction,
            damping=[damping, 0, 0],
        )


def _add_ant(spec: mujoco.MjSpec) -> None:
    capsule, sphere = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_SPHERE
    hinge = mujoco.mjtJoint.mjJNT_HINGE
    look = {"density": DENSITY, **PAIRS_ONLY}
    torso = spec.worldbody.add_body(name="torso", pos=STANDING_POSE[:3])
    torso.add_freejoint(name="root")
    torso.add_geom(name="torso", type=sphere, size=[TORSO_RADIUS, 0, 0], rgba=BODY_COLOUR, **look)
    for i in range(4):
        turn = np.pi / 4 + i * np.pi / 2
        hip = torso.add_body(name=f"hip_{i}", quat=[np.cos(turn / 2), 0, 0, np.sin(turn / 2)])
        hip.add_geom(
            type=capsule,
            fromto=[0, 0, 0, UPPER_LENGTH, 0, 0],
            size=[LIMB_RADIUS, 0, 0],
            rgba=LIMB_COLOUR,
            **look,
        )
        leg = hip.add_body(name=f"leg_{i}", pos=[UPPER_LENGTH, 0, 0])
        leg.add_geom(
            type=capsule,
            fromto=[0, 0, 0, UPPER_LENGTH, 0, 0],
            size=[LIMB_RADIUS, 0, 0],
            rgba=BODY_COLOUR,
            **look,
        )
        shin = leg.add_body(name=f"shin_{i}", pos=[UPPER_LENGTH, 0, 0])
        shin.add_geom(
            type=capsule,
            fromto=[0, 0, 0, SHIN_LENGTH, 0, 0],
            size=[LIMB_RADIUS, 0, 0],
            rgba=LIMB_COLOUR,
            **look,
        )
        # The geom that touches. It has no mass, because it lies inside the end of the shin.
        shin.add_geom(
            name=FEET[i],
            type=sphere,
            pos=[SHIN_LENGTH, 0, 0],
            size=[LIMB_RADIUS, 0, 0],
            rgba=LIMB_COLOUR,
            **look | {"density": 0},
        )
        # The hip swings the leg sideways; the ankle, at a positive angle, bends the shin down.
        for body, joint, axis, limits in (
            (leg, "hip", [0, 0, 1], [-30, 30]),
            (shin, "ankle", [0, 1, 0], [30, 70]),
        ):
            body.add_joint(
                name=f"{joint}_{i}",
                type=hinge,
                axis=axis,
                range=limits,
                armature=ARMATURE,
                damping=[DAMPING, 0, 0],
            )
            add_motor(spec, f"{joint}_{i}", TORQUE)


def sample_near_pose(
    key: Key[Array, ""], qpos: Float[Array, "nq"], velocities: int
) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
    """Returns a start near the pose `qpos`.

    Joint angles (rad) and the quaternion's numbers are within 0.1 of it; velocities have a standard deviation of 0.1.
    """
    position_key, velocity_key = jax.random.split(key)
    noise = jax.random.uniform(position_key, (12,), minval=-0.1, maxval=0.1)
    qpos = qpos.at[3:15].add(noise)
    qpos = qpos.at[3:7].divide(jnp.linalg.norm(qpos[3:7]))
    qvel = jnp.zeros(velocities).at[:14].set(0.1 * jax.random.normal(velocity_key, (14,)))
    return qpos, qvel


def sample_on_circle(key: Key[Array, ""], radius: float | Float[Array, ""]) -> Float[Array, "2"]:
    """Returns a point on the circle of this radius (m) around the origin."""
    angle = jax.random.uniform(key, minval=-jnp.pi, maxval=jnp.pi)
    return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
