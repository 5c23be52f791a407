"""A seven-joint arm with a two-finger gripper, on a table: reaching, pushing, moving between bins, grasping.

Proportions, joint and force limits are those of a Franka Panda; all geoms are primitives. x points away from the
base, the table is at z = 0. An action sets the targets of joints 1, 2, 4 and 6 within the front part of the
workspace; joints 3, 5 and 7 keep their angles. The controller compensates gravity on the arm, as the Panda's does.
"""

import itertools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float, Key

from teachers.tasks.base import Task
from teachers.tasks.declaration import Camera, Field, GoalSet, Sensor, namespace
from teachers.tasks.defaults import PUSHING, REACHING
from teachers.tasks.modelling import BODY_COLOUR, MOVABLE_COLOUR, PAIRS_ONLY, WALL_COLOUR, add_floor

SOLVER_ITERATIONS = (4, 6)  # of the solver and of its line search
FIXED_ANGLES = {3: 0.0, 5: 0.0, 7: 0.0}  # rad, by joint
START_ANGLES = {1: 0.0, 2: 0.45, 4: -1.9, 6: 2.35}  # rad: the hand points down before the base
FINGER_TRAVEL = 0.04  # of each finger, m
CUBE_HALF_EDGE = 0.025  # m
CUBE_MASS = 0.1  # kg
TIP_RADIUS = 0.01  # of the spheres that are the fingers' pads, m
WALL = (0.005, 0.05)  # half thickness and height of the bins' walls, m
BASE_COLOUR = [0.92, 0.93, 0.95, 1]


class Joint(NamedTuple):
    """A joint of the arm, in a frame that is aligned with the world where all angles are zero."""

    anchor: tuple[float, float, float]  # in its body's frame, m
    axis: tuple[int, int, int]
    range: tuple[float, float]  # rad
    torque: float  # limit, N m
    target: tuple[float, float] | None = None  # range that an action spans, rad


class Link(NamedTuple):
    """A body with its joints.

    Two joints whose axes nearly intersect share a body, because shorter chains compile faster.
    """

    offset: tuple[float, float, float]  # from the previous link, m
    joints: tuple[Joint, ...]
    ends: tuple[tuple[float, float, float], ...]  # the corners of its capsules, m
    mass: float  # kg


LINKS = (
    Link(
        (0, 0, 0.333),
        (
            Joint((0, 0, 0), (0, 0, 1), (-2.8973, 2.8973), 87, (-0.9, 0.9)),
            Joint((0, 0, 0), (0, 1, 0), (-1.7628, 1.7628), 87, (-0.4, 1.4)),
        ),
        ((0, 0, 0), (0, 0, 0.26), (0.0825, 0, 0.316)),
        6.0,
    ),
    Link(
        (0, 0, 0.316),
        (
            Joint((0, 0, 0), (0, 0, 1), (-2.8973, 2.8973), 87),
            Joint((0.0825, 0, 0), (0, -1, 0), (-3.0718, -0.0698), 87, (-2.8, -0.6)),
        ),
        ((0.0825, 0, 0), (0, 0, 0.1), (0, 0, 0.384)),
        5.5,
    ),
    Link(
        (0, 0, 0.384),
        (
            Joint((0, 0, 0), (0, 0, 1), (-2.8973, 2.8973), 12),
            Joint((0, 0, 0), (0, -1, 0), (-0.0175, 3.7525), 12, (1.0, 3.4)),
        ),
        ((0, 0, 0), (0.088, 0, 0)),
        2.5,
    ),
    Link(
        (0.088, 0, 0),
        (Joint((0, 0, 0), (0, 0, -1), (-2.8973, 2.8973), 12),),
        ((0, 0, 0), (0, 0, -0.08)),
        0.7,
    ),
)
JOINTS = tuple(joint for link in LINKS for joint in link.joints)
DRIVEN_JOINTS = {i: joint.target for i, joint in enumerate(JOINTS) if joint.target}
HAND_OFFSET = 0.107  # from joint 7 down to the hand, m
FINGER_LENGTH = 0.1034  # from the hand down to the point between the fingertips, m
START_POSE = tuple({**FIXED_ANGLES, **START_ANGLES}[i + 1] for i in range(7))


class Arm(Task):
    """The arm over an empty table; subclasses add objects."""

    action = (
        *(
            Field(f"joint_{i + 1}", 1, "rad", f"target of joint {i + 1}", 1.0, *span)
            for i, span in DRIVEN_JOINTS.items()
        ),
        Field(
            "grip", 1, "m", "target of each finger's opening; +1 is closed", 1.0, FINGER_TRAVEL, 0.0
        ),
    )
    substeps = 10
    success_radius = 0.1
    training = REACHING
    hard_radius: ClassVar[float | None] = 0.03
    camera = Camera(lookat=(0.35, 0.0, 0.2), distance=1.7, azimuth=140.0, elevation=-25.0)

    def build(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.005
        spec.option.iterations, spec.option.ls_iterations = SOLVER_ITERATIONS
        spec.compiler.degree = False
        add_floor(spec, 1.2, name="table")
        _add_arm(spec)
        self.add_objects(spec)
        return spec

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Adds objects on the table, and the contact pairs."""

    def control(self, action: Any) -> Any:
        xp = namespace(action)
        action = xp.clip(action, -1.0, 1.0)
        low, high = self.action_limits
        target = low + (action + 1.0) / 2.0 * (high - low)
        joints = [xp.full(action.shape[:-1], value, dtype=action.dtype) for value in START_POSE]
        for place, i in enumerate(DRIVEN_JOINTS):
            joints[i] = target[..., place]
        return xp.stack([*joints, target[..., -1], target[..., -1]], axis=-1)

    def hand(self, data: Any) -> tuple[Any, Any]:
        """Returns position (m) and velocity (m/s) of the point between the fingertips."""
        # From the joints' axes, because `cvel` takes much longer to compile for a chain of this length.
        xp = namespace(data.qpos)
        position = data.site_xpos[0]
        jacobian = xp.cross(data.xaxis[:7], position - data.xanchor[:7])
        return position, data.qvel[:7] @ jacobian

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        noise = jax.random.uniform(key, (7,), minval=-0.05, maxval=0.05)
        qpos = jnp.concatenate([jnp.array(START_POSE) + noise, jnp.full(2, FINGER_TRAVEL)])
        return qpos, jnp.zeros(9)


def _arm_fields() -> tuple[Field, ...]:
    return (
        Field("joint_angle", 7, "rad", "joints 1 to 7"),
        Field("hand", 3, "m", "x, y and z of the point between the fingertips", 0.3),
        Field("hand_velocity", 3, "m/s", "velocity of that point", 0.5),
    )


ENCODERS = Sensor("joint_angle", 7, "rad", "encoders of joints 1 to 7", noise=0.001)


class ArmReach(Arm):
    """The arm without objects or contacts."""

    name = "arm_reach"
    summary = "A seven-joint arm brings its hand to a point of a box of 40 cm."
    observation = _arm_fields()
    goal = (Field("hand", 3, "m", "x, y and z where the hand should be", 0.3),)
    sensors = (ENCODERS,)
    episode_steps = 50

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        return jnp.array([0.5, 0.0, 0.3]) + jax.random.uniform(key, (3,), minval=-0.2, maxval=0.2)

    def observe(self, data: Any) -> Any:
        xp = namespace(data.qpos)
        return xp.concatenate([data.qpos[:7], *self.hand(data)])

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., 7:10]

    def measure(self, data: Any, goal: Any) -> Any:
        return data.qpos[:7]


CUBE_FIELD = Field("cube", 3, "m", "x, y and z of the cube", 0.3)


class ArmCube(Arm):
    """The arm and a cube; subclasses declare where the cube starts and where its goals are."""

    training = PUSHING

    observation = (
        CUBE_FIELD,
        *_arm_fields(),
        Field("finger_gap", 1, "m", "distance of the fingers", 0.05),
    )
    goal: tuple[Field, ...] = (CUBE_FIELD._replace(meaning="x, y and z where the cube should be"),)
    sensors = (
        ENCODERS,
        Sensor("finger_gap", 1, "m", "encoders of the fingers", 0.05, noise=0.001),
        # A camera of 10 Hz, which is 100 ms late.
        Sensor("cube", 3, "m", "x, y and z of the cube", 0.3, noise=0.005, delay=2, every=2),
    )
    cube_centre = (0.5, -0.15)  # where the cube starts, m
    cube_spread = 0.1  # half-width of the square where it starts, m
    goal_centre = (0.5, 0.1)  # m
    goal_spread = 0.1  # half-width of the square of goals, m

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        cube = spec.worldbody.add_body(name="cube", pos=[*self.cube_centre, CUBE_HALF_EDGE])
        cube.add_freejoint(name="cube")
        cube.add_geom(
            name="cube",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[CUBE_HALF_EDGE, CUBE_HALF_EDGE, CUBE_HALF_EDGE],
            mass=CUBE_MASS,
            rgba=MOVABLE_COLOUR,
            **PAIRS_ONLY,
        )
        grip = {"condim": 3, "friction": [1.0, 1.0, 0, 0, 0]}
        spec.add_pair(geomname1="table", geomname2="cube", condim=3, friction=[0.6, 0.6, 0, 0, 0])
        for side in ("left", "right"):
            for pad in ("tip", "pad"):
                spec.add_pair(geomname1=f"{side}_{pad}", geomname2="cube", **grip)
            spec.add_pair(geomname1="table", geomname2=f"{side}_tip", condim=1)

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        arm_key, cube_key = jax.random.split(key)
        qpos, _ = super().sample_state(arm_key)
        offset = jax.random.uniform(
            cube_key, (2,), minval=-self.cube_spread, maxval=self.cube_spread
        )
        place = jnp.array(self.cube_centre) + offset
        cube = jnp.concatenate([place, jnp.array([CUBE_HALF_EDGE, 1.0, 0.0, 0.0, 0.0])])
        return jnp.concatenate([qpos, cube]), jnp.zeros(15)

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        offset = jax.random.uniform(key, (2,), minval=-self.goal_spread, maxval=self.goal_spread)
        return jnp.append(jnp.array(self.goal_centre) + offset, CUBE_HALF_EDGE)

    def observe(self, data: Any) -> Any:
        xp = namespace(data.qpos)
        gap = data.qpos[7:8] + data.qpos[8:9]
        return xp.concatenate([data.qpos[9:12], data.qpos[:7], *self.hand(data), gap])

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., :3]

    def measure(self, data: Any, goal: Any) -> Any:
        gap = data.qpos[7:8] + data.qpos[8:9]
        return namespace(data.qpos).concatenate([data.qpos[:7], gap, data.qpos[9:12]])


class ArmPushEasy(ArmCube):
    """The arm and a cube with goals in the square beside its start."""

    name = "arm_push_easy"
    summary = "A seven-joint arm moves a cube from one square of 20 cm to the one beside it."
    episode_steps = 50
    cube_centre, cube_spread = (0.5, -0.1), 0.1
    goal_centre, goal_spread = (0.5, 0.1), 0.1


class ArmPushHard(ArmCube):
    """The arm and a cube with starts and goals in a large square."""

    name = "arm_push_hard"
    summary = "A seven-joint arm moves a cube from and to any place of a square of 50 cm."
    episode_steps = 80
    cube_centre, cube_spread = (0.5, 0.0), 0.25
    goal_centre, goal_spread = (0.5, 0.0), 0.25


class ArmBinpickEasy(ArmCube):
    """The arm and two bins with a wall between them, over which the cube must be lifted."""

    name = "arm_binpick_easy"
    summary = "A seven-joint arm lifts a cube out of one bin into the middle of another."
    episode_steps = 80
    cube_centre, cube_spread = (0.5, -0.19), 0.1
    goal_centre, goal_spread = (0.5, 0.19), 0.05

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        super().add_objects(spec)
        # Walls touch this sphere within the cube: much cheaper than contacts between two boxes.
        core = spec.body("cube").add_geom(
            name="core",
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[CUBE_HALF_EDGE, 0, 0],
            mass=0,
            rgba=MOVABLE_COLOUR,
            **PAIRS_ONLY,
        )
        # Of 25 possible contact points, at most eight of each kind (cube and fingers) touch at once.
        spec.add_numeric(name="max_contact_points", data=[8])
        thick, height = WALL
        x, half, far = self.cube_centre[0], 0.19, 0.38
        walls = [((x, y), (half, thick)) for y in (-far, 0.0, far)]
        walls += [((x + side, 0.0), (thick, far)) for side in (-half, half)]
        for number, ((wall_x, wall_y), (half_x, half_y)) in enumerate(walls):
            spec.worldbody.add_geom(
                name=f"wall_{number}",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=[wall_x, wall_y, height / 2],
                size=[half_x, half_y, height / 2],
                rgba=WALL_COLOUR,
                **PAIRS_ONLY,
            )
            for geom in (core.name, "left_tip", "right_tip"):
                spec.add_pair(geomname1=geom, geomname2=f"wall_{number}", condim=1)


class ArmBinpickHard(ArmBinpickEasy):
    """The arm and two bins with goals anywhere in the other bin."""

    name = "arm_binpick_hard"
    summary = "A seven-joint arm lifts a cube out of one bin to any place in another."
    goal_spread = 0.15


class ArmGrasp(ArmCube):
    """The arm and a cube that is to be taken between the fingers, at the place where it is."""

    name = "arm_grasp"
    hard_radius = None
    training = {**PUSHING, "steps": 5_000_000}
    summary = "A seven-joint arm takes a cube between its fingers."
    observation = (
        *ArmCube.observation,
        Field("left_finger", 3, "m", "x, y and z of the left fingertip", 0.3),
        Field("right_finger", 3, "m", "x, y and z of the right fingertip", 0.3),
    )
    goal = (
        Field("cube", 3, "m", "x, y and z where the cube should be", 0.3),
        Field("left_finger", 3, "m", "x, y and z where the left fingertip should be", 0.3),
        Field("right_finger", 3, "m", "x, y and z where the right fingertip should be", 0.3),
    )
    episode_steps = 50
    cube_centre, cube_spread = (0.5, 0.0), 0.15

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        # Joint 1 turns the fingers with the arm, so that they are at right angles to the line from the base to the cube.
        cube = observation[:3]
        across = jnp.stack([-cube[1], cube[0]]) / jnp.linalg.norm(cube[:2])
        offset = jnp.append((CUBE_HALF_EDGE + TIP_RADIUS) * across, 0.0)
        return jnp.concatenate([cube, cube + offset, cube - offset])

    def observe(self, data: Any) -> Any:
        tips = (self.model.geom(f"{side}_tip").id for side in ("left", "right"))
        return namespace(data.qpos).concatenate(
            [super().observe(data), *(data.geom_xpos[tip] for tip in tips)]
        )

    def achieved_goal(self, observation: Any) -> Any:
        xp = namespace(observation)
        return xp.concatenate([observation[..., :3], observation[..., 17:23]], axis=-1)


def _add_arm(spec: mujoco.MjSpec) -> None:
    capsule, box, sphere = (
        mujoco.mjtGeom.mjGEOM_CAPSULE,
        mujoco.mjtGeom.mjGEOM_BOX,
        mujoco.mjtGeom.mjGEOM_SPHERE,
    )
    look: dict[str, Any] = dict(PAIRS_ONLY)
    body = spec.worldbody
    body.add_geom(
        type=capsule, fromto=[0, 0, 0.05, 0, 0, 0.25], size=[0.075, 0, 0], rgba=BASE_COLOUR, **look
    )
    number = 0
    for link in LINKS:
        body = body.add_body(pos=link.offset, gravcomp=1.0)
        for joint in link.joints:
            number += 1
            is_strong = joint.torque > 50
            body.add_joint(
                name=f"joint_{number}",
                type=mujoco.mjtJoint.mjJNT_HINGE,
                pos=joint.anchor,
                axis=joint.axis,
                range=joint.range,
                armature=0.3 if is_strong else 0.1,
                damping=[40.0 if is_strong else 8.0, 0, 0],
            )
            _add_servo(
                spec, f"joint_{number}", 400.0 if is_strong else 100.0, joint.torque, joint.range
            )
        for start, end in itertools.pairwise(link.ends):
            body.add_geom(
                type=capsule,
                fromto=[*start, *end],
                size=[0.06 if number < 5 else 0.05, 0, 0],
                mass=link.mass / (len(link.ends) - 1),
                rgba=BODY_COLOUR if number in (4, 7) else BASE_COLOUR,
                **look,
            )
    body.add_geom(
        type=box,
        pos=[0, 0, -HAND_OFFSET - 0.03],
        size=[0.02, 0.1, 0.025],
        mass=0.7,
        rgba=BASE_COLOUR,
        **look,
    )
    body.add_site(name="hand", pos=[0, 0, -HAND_OFFSET - FINGER_LENGTH])
    for side, sign in (("left", 1), ("right", -1)):
        finger = body.add_body(
            name=f"{side}_finger", pos=[0, 0, -HAND_OFFSET - FINGER_LENGTH], gravcomp=1.0
        )
        finger.add_joint(
            name=f"{side}_finger",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, sign, 0],
            range=[0, FINGER_TRAVEL],
            armature=0.1,
            damping=[15.0, 0, 0],
        )
        finger.add_geom(
            type=box,
            pos=[0, 1.6 * TIP_RADIUS * sign, 0.025],
            size=[0.009, 0.6 * TIP_RADIUS, 0.03],
            mass=0.02,
            rgba=BODY_COLOUR,
            **look,
        )
        for name, height in (("tip", 0.0), ("pad", 0.02)):
            finger.add_geom(
                name=f"{side}_{name}",
                type=sphere,
                pos=[0, TIP_RADIUS * sign, height],
                size=[TIP_RADIUS, 0, 0],
                mass=0,
                rgba=BODY_COLOUR,
                **look,
            )
        _add_servo(spec, f"{side}_finger", 500.0, 20.0, (0.0, FINGER_TRAVEL))


def _add_servo(
    spec: mujoco.MjSpec, joint: str, stiffness: float, limit: float, span: tuple[float, float]
) -> None:
    """Adds a position controller. Its damping is that of the joint, which MuJoCo integrates implicitly."""
    servo = spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        ctrlrange=span,
        forcerange=[-limit, limit],
    )
    servo.set_to_position(kp=stiffness)
