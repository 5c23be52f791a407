"""A humanoid of seventeen joints that walks to a place, on open ground or through a maze.

Proportions, torques and joint limits are those of Gymnasium's Humanoid; each foot is a capsule from heel to toe.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.tasks.base import Task
from teachers.tasks.declaration import Camera, Field, GoalSet, Sensor, namespace
from teachers.tasks.defaults import WALKING, WALKING_DISTILLATION
from teachers.tasks.maze import BIG, HARDEST, Maze, U
from teachers.tasks.modelling import BODY_COLOUR, LIMB_COLOUR, PAIRS_ONLY, add_floor, add_motor
from teachers.tasks.walking import (
    GOAL_FROM_TORSO,
    INERTIAL_SENSORS,
    is_outside,
    measure_inertial,
    turn_into_torso,
)

DENSITY = 1000.0  # kg/m^3
CELL = 4.0  # m
STANDING_HEIGHT = 1.3  # of the torso, m
GOAL_HEIGHT = 1.25  # m
HEALTHY_HEIGHT = (1.0, 2.0)  # m; beyond it the episode ends
SOLVER_ITERATIONS = (4, 8)  # of the solver and of its line search
MAX_WALL_CONTACTS = 8
FEET = ("right_foot", "left_foot")  # the geoms that touch the floor
COLLIDING = ("chest", "right_hand", "left_hand", *FEET)  # the geoms that touch walls


class Joint(NamedTuple):
    """A hinge with its motor."""

    name: str
    axis: tuple[float, float, float]
    range: tuple[float, float]  # degrees
    torque: float  # N m
    armature: float = 0.01  # kg m^2
    stiffness: float = 10.0  # N m/rad
    damping: float = 5.0  # N m s/rad
    anchor: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m


TRUNK = (
    Joint("abdomen_z", (0, 0, 1), (-45, 45), 40.0, 0.02, 20.0, anchor=(0, 0, 0.065)),
    Joint("abdomen_y", (0, 1, 0), (-75, 30), 40.0, anchor=(0, 0, 0.065)),
    Joint("abdomen_x", (1, 0, 0), (-35, 35), 40.0, anchor=(0, 0, 0.1)),
)


def _leg(side: str, sign: int) -> tuple[Joint, ...]:
    """Returns the joints of a leg. `sign` is -1 on the right, so that the same action turns both legs outwards."""
    return (
        Joint(f"{side}_hip_x", (-sign, 0, 0), (-25, 5), 40.0),
        Joint(f"{side}_hip_z", (0, 0, -sign), (-60, 35), 40.0),
        Joint(f"{side}_hip_y", (0, 1, 0), (-110, 20), 120.0, 0.008, 20.0),
        Joint(f"{side}_knee", (0, -1, 0), (-160, -2), 80.0, 0.006, 0.0, 1.0),
    )


def _arm(side: str, sign: int) -> tuple[Joint, ...]:
    """Returns the joints of an arm. `sign` is -1 on the right."""
    return (
        Joint(f"{side}_shoulder1", (2, -sign, 1), (-85, 60), 10.0, 0.0068, 1.0, 1.0),
        Joint(f"{side}_shoulder2", (0, sign, 1), (-85, 60), 10.0, 0.0051, 1.0, 1.0),
        Joint(f"{side}_elbow", (0, sign, 1), (-90, 50), 10.0, 0.0028, 0.0, 1.0),
    )


RIGHT, LEFT = -1, 1  # along y
JOINTS = (
    *TRUNK,
    *_leg("right", RIGHT),
    *_leg("left", LEFT),
    *_arm("right", RIGHT),
    *_arm("left", LEFT),
)


FIELDS: tuple[Field, ...] = (
    Field("position", 2, "m", "x and y of the torso"),
    Field("height", 1, "m", "height of the torso"),
    Field("orientation", 4, "1", "the torso's orientation as a unit quaternion, w first", 0.5),
    Field("joint_angle", 17, "rad", f"in turn {', '.join(j.name for j in JOINTS)}", 0.5),
    Field("velocity", 3, "m/s", "linear velocity of the torso in the world"),
    Field("angular_velocity", 3, "rad/s", "angular velocity of the torso in its frame", 3.0),
    Field("joint_velocity", 17, "rad/s", "of the same joints", 5.0),
    Field("body_position", 33, "m", "place of each of 11 bodies from the centre of mass", 0.5),
    Field(
        "body_inertia",
        99,
        "kg m^2, kg m",
        "of each body about the centre of mass of all: six of the inertia, then mass times offset",
    ),
    Field(
        "body_velocity",
        66,
        "rad/s, m/s",
        "of each body at the centre of mass of all: angular, then linear",
        3.0,
    ),
    Field("actuator_torque", 17, "N m", "of the same joints, in the last step", 30.0),
    Field("centre_of_mass", 3, "m", "centre of mass from the torso", 0.3),
    Field("momentum", 3, "m/s", "velocity of the centre of mass"),
)
GOAL: tuple[Field, ...] = (
    Field("position", 2, "m", "x and y where the torso should be"),
    Field("height", 1, "m", "height where the torso should be"),
)


class Humanoid(Task):
    """The humanoid on open ground; the maze tasks add walls."""

    name = "humanoid"
    summary = "A humanoid walks to a point 1 to 5 m away and stays upright."
    observation = FIELDS
    goal = GOAL
    action = tuple(
        Field(f"{j.name}_torque", 1, "N m", f"torque on {j.name}", 1.0, -j.torque, j.torque)
        for j in JOINTS
    )
    sensors = (
        *INERTIAL_SENSORS,
        Sensor("joint_angle", 17, "rad", "encoders of the joints", 0.5, noise=0.005),
        Sensor("last_action", 17, "1", "the last action, which is known"),
        GOAL_FROM_TORSO,
    )
    substeps = 5
    episode_steps = 1000
    success_radius = 0.5
    training = WALKING
    distillation = WALKING_DISTILLATION
    camera = Camera(lookat=(0.0, 0.0, 0.8), distance=8.0, azimuth=120.0, elevation=-20.0)
    floor_half_width = 8.0  # m, in pictures

    def build(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.003
        spec.option.iterations, spec.option.ls_iterations = SOLVER_ITERATIONS
        add_floor(spec, self.floor_half_width)
        _add_humanoid(spec)
        for foot in FEET:
            spec.add_pair(geomname1="floor", geomname2=foot, condim=3, friction=[1.0, 1.0, 0, 0, 0])
        self.add_objects(spec)
        return spec

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Adds walls; by default there are none."""

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        position_key, velocity_key = jax.random.split(key)
        qpos = jnp.asarray(self.model.qpos0, jnp.float32)
        qpos = qpos.at[3:].add(jax.random.uniform(position_key, (21,), minval=-0.01, maxval=0.01))
        qpos = qpos.at[3:7].divide(jnp.linalg.norm(qpos[3:7]))
        return qpos, jax.random.uniform(velocity_key, (23,), minval=-0.01, maxval=0.01)

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        # Uniform in distance, as published, and so denser near the start.
        distance_key, angle_key = jax.random.split(key)
        distance = jax.random.uniform(distance_key, minval=1.0, maxval=5.0)
        angle = jax.random.uniform(angle_key, minval=-jnp.pi, maxval=jnp.pi)
        return jnp.stack([distance * jnp.cos(angle), distance * jnp.sin(angle), GOAL_HEIGHT])

    def observe(self, data: Any) -> Any:
        xp = namespace(data.qpos)
        inertia = getattr(data, "_impl", data).cinert  # where MJX stores it; MuJoCo C does not
        masses = self.model.body_mass[1:].astype("float32")
        centre = data.subtree_com[1]
        velocity = data.cvel[1:]
        # `cvel` is at the common centre of mass; this is the velocity at the body's own centre of mass.
        arm = data.xipos[1:] - centre
        linear = velocity[:, 3:] - xp.cross(arm, velocity[:, :3])
        return xp.concatenate(
            [
                data.qpos,
                data.qvel,
                (data.xipos[1:] - centre).reshape(-1),
                inertia[1:, :9].reshape(-1),
                velocity.reshape(-1),
                data.ctrl,
                centre - data.qpos[:3],
                (masses @ linear) / masses.sum(),
            ]
        )

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., :3]

    def measure(self, data: Any, goal: Any) -> Any:
        torques = np.array([joint.torque for joint in JOINTS], np.float32)
        ahead = turn_into_torso(data, goal - data.qpos[:3])
        return namespace(data.qpos).concatenate(
            [*measure_inertial(data), data.qpos[7:24], data.ctrl / torques, ahead]
        )

    def terminated(self, observation: Any) -> Any:
        return is_outside(observation[..., 2], HEALTHY_HEIGHT)


class HumanoidMaze(Humanoid):
    """The humanoid in a maze; subclasses declare the layout."""

    maze: Maze
    floor_half_width = 24.0
    goal_sets = ("train", "eval")

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        self.maze.add_walls(spec, height=2.0, touched_by=COLLIDING, max_contacts=MAX_WALL_CONTACTS)

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        qpos, qvel = super().sample_state(key)
        return qpos.at[:2].set(self.maze.start), qvel

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        return jnp.append(self.maze.sample_goal(key, goal_set), GOAL_HEIGHT)


class HumanoidUMaze(HumanoidMaze):
    """The humanoid in the U-shaped maze."""

    name = "humanoid_u_maze"
    summary = "A humanoid walks round the bend of a U-shaped corridor."
    maze = Maze(U, CELL)
    camera = maze.camera


class HumanoidBigMaze(HumanoidMaze):
    """The humanoid in the big maze."""

    name = "humanoid_big_maze"
    summary = "A humanoid finds its way through a maze of 8 x 8 cells."
    maze = Maze(BIG, CELL)
    camera = maze.camera


class HumanoidHardestMaze(HumanoidMaze):
    """The humanoid in the hardest maze."""

    name = "humanoid_hardest_maze"
    summary = "A humanoid finds its way through a maze of 12 x 9 cells."
    maze = Maze(HARDEST, CELL)
    camera = maze.camera


def _add_humanoid(spec: mujoco.MjSpec) -> None:
    # Bodies are added in the order of JOINTS, so that qpos, motors and actions have that order.
    torso = spec.worldbody.add_body(name="torso", pos=[0, 0, STANDING_HEIGHT])
    torso.add_freejoint(name="root")
    _add_capsule(torso, (0, -0.07, 0), (0, 0.07, 0), 0.07, BODY_COLOUR)
    _add_capsule(torso, (-0.01, -0.06, -0.12), (-0.01, 0.06, -0.12), 0.06, BODY_COLOUR)
    _add_sphere(torso, "head", (0, 0, 0.19), 0.09, LIMB_COLOUR)
    # It keeps the trunk out of walls; it has no mass and is invisible.
    _add_sphere(torso, "chest", (0, 0, 0), 0.15, [0, 0, 0, 0], density=0.0)
    waist = torso.add_body(name="waist", pos=[-0.01, 0, -0.26])
    _add_capsule(waist, (0, -0.06, 0), (0, 0.06, 0), 0.06, BODY_COLOUR)
    pelvis = waist.add_body(name="pelvis", pos=[0, 0, -0.165])
    _add_capsule(pelvis, (-0.02, -0.07, 0), (-0.02, 0.07, 0), 0.09, BODY_COLOUR)
    _add_joints(spec, waist, TRUNK[:2])
    _add_joints(spec, pelvis, TRUNK[2:])
    for side, sign in (("right", RIGHT), ("left", LEFT)):
        joints = _leg(side, sign)
        thigh = pelvis.add_body(name=f"{side}_thigh", pos=[0, 0.1 * sign, -0.04])
        _add_capsule(thigh, (0, 0, 0), (0, -0.01 * sign, -0.34), 0.06, LIMB_COLOUR)
        _add_joints(spec, thigh, joints[:3])
        shin = thigh.add_body(name=f"{side}_shin", pos=[0, -0.01 * sign, -0.403])
        _add_capsule(shin, (0, 0, 0), (0, 0, -0.3), 0.049, BODY_COLOUR)
        _add_capsule(shin, (-0.06, 0, -0.38), (0.12, 0, -0.38), 0.05, LIMB_COLOUR, f"{side}_foot")
        _add_joints(spec, shin, joints[3:])
    for side, sign in (("right", RIGHT), ("left", LEFT)):
        joints = _arm(side, sign)
        upper = torso.add_body(name=f"{side}_upper_arm", pos=[0, 0.17 * sign, 0.06])
        _add_capsule(upper, (0, 0, 0), (0.16, 0.16 * sign, -0.16), 0.04, LIMB_COLOUR)
        _add_joints(spec, upper, joints[:2])
        lower = upper.add_body(name=f"{side}_lower_arm", pos=[0.18, 0.18 * sign, -0.18])
        _add_capsule(
            lower, (0.01, -0.01 * sign, 0.01), (0.17, -0.17 * sign, 0.17), 0.031, BODY_COLOUR
        )
        _add_sphere(lower, f"{side}_hand", (0.18, -0.18 * sign, 0.18), 0.04, LIMB_COLOUR)
        _add_joints(spec, lower, joints[2:])


def _add_joints(spec: mujoco.MjSpec, body: Any, joints: tuple[Joint, ...]) -> None:
    for joint in joints:
        body.add_joint(
            name=joint.name,
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=joint.axis,
            pos=joint.anchor,
            range=joint.range,
            armature=joint.armature,
            stiffness=[joint.stiffness, 0, 0],
            damping=[joint.damping, 0, 0],
        )
        add_motor(spec, joint.name, joint.torque)


def _add_capsule(
    body: Any, start: Any, end: Any, radius: float, colour: list[float], name: str = ""
) -> None:
    body.add_geom(
        **{"name": name} if name else {},
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[*start, *end],
        size=[radius, 0, 0],
        density=DENSITY,
        rgba=colour,
        **PAIRS_ONLY,
    )


def _add_sphere(
    body: Any,
    name: str,
    position: Any,
    radius: float,
    colour: list[float],
    density: float = DENSITY,
) -> None:
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        pos=position,
        size=[radius, 0, 0],
        density=density,
        rgba=colour,
        **PAIRS_ONLY,
    )
