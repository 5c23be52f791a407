"""A seven-joint arm with a two-finger gripper, on a table: reaching, pushing, moving between bins, grasping.

Proportions, joint and force limits are those of a Franka Panda; all geoms are primitives. x points away from the
base, the table is z = 0. An action sets the targets of joints 1, 2, 4 and 6 within the front part of the
workspace; joints 3, 5 and 7 are held. The controller makes up for gravity on the arm, as the Panda's own does.
"""

import itertools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float, Key

from teachers.tasks.base import Task
from teachers.tasks.declaration import Camera, Field, GoalSet, namespace

SOLVER = (4, 6)
HELD = {3: 0.0, 5: 0.0, 7: 0.0}  # rad
START = {1: 0.0, 2: 0.45, 4: -1.9, 6: 2.35}  # rad: the hand points down, in front of the base
OPEN = 0.04  # travel of each finger, m
CUBE = 0.025  # half its edge, m
CUBE_MASS = 0.1  # kg
TIP = 0.01  # radius of the spheres that are the fingers' pads, m
WALL = (0.005, 0.05)  # half thickness and height of the bins' walls, m
BODY_COLOUR = [0.92, 0.93, 0.95, 1]
LIMB_COLOUR = [0.25, 0.42, 0.68, 1]
CUBE_COLOUR = [0.85, 0.55, 0.25, 1]


class Joint(NamedTuple):
    """A joint of the arm, in a frame that is aligned with the world's when all angles are zero."""

    anchor: tuple[float, float, float]  # in its body's frame, m
    axis: tuple[int, int, int]
    range: tuple[float, float]  # rad
    torque: float  # limit, N m
    target: tuple[float, float] | None = None  # range that an action spans, rad


class Link(NamedTuple):
    """A body with its joints. Two joints share one where their axes meet or nearly do: shorter chains compile faster."""

    offset: tuple[float, float, float]  # from the link before, m
    joints: tuple[Joint, ...]
    ends: tuple[tuple[float, float, float], ...]  # the corners of what is seen of it, m
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
DRIVEN = {i: joint.target for i, joint in enumerate(JOINTS) if joint.target}
HAND = 0.107  # from joint 7 down to the hand, m
FINGER = 0.1034  # from the hand down to the point between the fingertips, m
POSE = tuple({**HELD, **START}[i + 1] for i in range(7))


class Arm(Task):
    """The arm over an empty table; subclasses add what it handles."""

    action = (
        *(
            Field(f"joint_{i + 1}", 1, "rad", f"target of joint {i + 1}", 1.0, *span)
            for i, span in DRIVEN.items()
        ),
        Field("grip", 1, "m", "target of each finger's opening; +1 is closed", 1.0, OPEN, 0.0),
    )
    substeps = 10
    success_radius = 0.1
    training = {"steps": 1_000_000}
    hard_radius: ClassVar[float | None] = 0.03
    camera = Camera(lookat=(0.35, 0.0, 0.2), distance=1.7, azimuth=140.0, elevation=-25.0)

    def build(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.005
        spec.option.iterations, spec.option.ls_iterations = SOLVER
        spec.compiler.degree = False
        spec.worldbody.add_geom(
            name="table",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[1.2, 1.2, 1],
            rgba=[0.86, 0.87, 0.88, 1],
            contype=0,
            conaffinity=0,
        )
        _add_arm(spec)
        self.furnish(spec)
        return spec

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Adds what lies on the table, and what touches what."""

    def control(self, action: Any) -> Any:
        xp = namespace(action)
        action = xp.clip(action, -1.0, 1.0)
        low, high = self.action_limits
        target = low + (action + 1.0) / 2.0 * (high - low)
        joints = [xp.full(action.shape[:-1], value, dtype=action.dtype) for value in POSE]
        for place, i in enumerate(DRIVEN):
            joints[i] = target[..., place]
        return xp.stack([*joints, target[..., -1], target[..., -1]], axis=-1)

    def hand(self, data: Any) -> tuple[Any, Any]:
        """Position (m) and velocity (m/s) of the point between the fingertips."""
        # From the joints' axes: for a chain this long, `cvel` takes much longer to compile.
        xp = namespace(data.qpos)
        place = data.site_xpos[0]
        by_joint = xp.cross(data.xaxis[:7], place - data.xanchor[:7])
        return place, data.qvel[:7] @ by_joint

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        noise = jax.random.uniform(key, (7,), minval=-0.05, maxval=0.05)
        qpos = jnp.concatenate([jnp.array(POSE) + noise, jnp.full(2, OPEN)])
        return qpos, jnp.zeros(9)


def _arm_fields() -> tuple[Field, ...]:
    return (
        Field("joint_angle", 7, "rad", "joints 1 to 7"),
        Field("hand", 3, "m", "x, y and z of the point between the fingertips", 0.3),
        Field("hand_velocity", 3, "m/s", "velocity of that point", 0.5),
    )


class ArmReach(Arm):
    """Touches nothing; the gripper moves along."""

    name = "arm_reach"
    summary = "A seven-joint arm brings its hand to a point of a box of 40 cm."
    observation = _arm_fields()
    goal = (Field("hand", 3, "m", "x, y and z where the hand should be", 0.3),)
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


CUBE_FIELD = Field("cube", 3, "m", "x, y and z of the cube", 0.3)


class ArmCube(Arm):
    """The arm and a cube; subclasses say where the cube starts and where it should go."""

    observation = (
        CUBE_FIELD,
        *_arm_fields(),
        Field("finger_gap", 1, "m", "distance of the fingers", 0.05),
    )
    goal: ClassVar[tuple[Field, ...]] = (
        CUBE_FIELD._replace(meaning="x, y and z where the cube should be"),
    )
    cube_centre = (0.5, -0.15)  # where the cube starts, m
    cube_spread = 0.1  # half-width of the square where it starts, m
    goal_centre = (0.5, 0.1)  # m
    goal_spread = 0.1  # half-width of the square of goals, m

    def furnish(self, spec: mujoco.MjSpec) -> None:
        cube = spec.worldbody.add_body(name="cube", pos=[*self.cube_centre, CUBE])
        cube.add_freejoint(name="cube")
        cube.add_geom(
            name="cube",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[CUBE, CUBE, CUBE],
            mass=CUBE_MASS,
            rgba=CUBE_COLOUR,
            contype=0,
            conaffinity=0,
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
        cube = jnp.concatenate([place, jnp.array([CUBE, 1.0, 0.0, 0.0, 0.0])])
        return jnp.concatenate([qpos, cube]), jnp.zeros(15)

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        offset = jax.random.uniform(key, (2,), minval=-self.goal_spread, maxval=self.goal_spread)
        return jnp.append(jnp.array(self.goal_centre) + offset, CUBE)

    def observe(self, data: Any) -> Any:
        xp = namespace(data.qpos)
        gap = data.qpos[7:8] + data.qpos[8:9]
        return xp.concatenate([data.qpos[9:12], data.qpos[:7], *self.hand(data), gap])

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., :3]


class ArmPushEasy(ArmCube):
    """From one small square to the one beside it."""

    name = "arm_push_easy"
    summary = "A seven-joint arm moves a cube from one square of 20 cm to the one beside it."
    episode_steps = 50
    cube_centre, cube_spread = (0.5, -0.1), 0.1
    goal_centre, goal_spread = (0.5, 0.1), 0.1


class ArmPushHard(ArmCube):
    """Anywhere within a large square."""

    name = "arm_push_hard"
    summary = "A seven-joint arm moves a cube from and to any place of a square of 50 cm."
    episode_steps = 80
    cube_centre, cube_spread = (0.5, 0.0), 0.25
    goal_centre, goal_spread = (0.5, 0.0), 0.25


class ArmBinpickEasy(ArmCube):
    """Two bins with a wall between them, over which the cube must be lifted."""

    name = "arm_binpick_easy"
    summary = "A seven-joint arm lifts a cube out of one bin into the middle of another."
    episode_steps = 80
    cube_centre, cube_spread = (0.5, -0.19), 0.1
    goal_centre, goal_spread = (0.5, 0.19), 0.05

    def furnish(self, spec: mujoco.MjSpec) -> None:
        super().furnish(spec)
        # Walls stop this sphere within the cube, not the cube itself: far cheaper than two boxes.
        core = spec.body("cube").add_geom(
            name="core",
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[CUBE, 0, 0],
            mass=0,
            rgba=CUBE_COLOUR,
            contype=0,
            conaffinity=0,
        )
        # Of 25 points that could touch, no more do at once than the cube's and fingers' eight of either kind.
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
                rgba=[0.55, 0.57, 0.6, 1],
                contype=0,
                conaffinity=0,
            )
            for geom in (core.name, "left_tip", "right_tip"):
                spec.add_pair(geomname1=geom, geomname2=f"wall_{number}", condim=1)


class ArmBinpickHard(ArmBinpickEasy):
    """Goals all over the other bin."""

    name = "arm_binpick_hard"
    summary = "A seven-joint arm lifts a cube out of one bin to any place in another."
    goal_spread = 0.15


class ArmGrasp(ArmCube):
    """The cube stays where it is and the fingers close in on it."""

    name = "arm_grasp"
    hard_radius = None
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
        # Joint 1 turns the fingers with the arm, so that they stand across the line from the base to the cube.
        cube = observation[:3]
        across = jnp.stack([-cube[1], cube[0]]) / jnp.linalg.norm(cube[:2])
        reach = jnp.append((CUBE + TIP) * across, 0.0)
        return jnp.concatenate([cube, cube + reach, cube - reach])

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
    look: dict[str, Any] = {"contype": 0, "conaffinity": 0}
    body = spec.worldbody
    body.add_geom(
        type=capsule, fromto=[0, 0, 0.05, 0, 0, 0.25], size=[0.075, 0, 0], rgba=BODY_COLOUR, **look
    )
    number = 0
    for link in LINKS:
        body = body.add_body(pos=link.offset, gravcomp=1.0)
        for joint in link.joints:
            number += 1
            strong = joint.torque > 50
            body.add_joint(
                name=f"joint_{number}",
                type=mujoco.mjtJoint.mjJNT_HINGE,
                pos=joint.anchor,
                axis=joint.axis,
                range=joint.range,
                armature=0.3 if strong else 0.1,
                damping=[40.0 if strong else 8.0, 0, 0],
            )
            _add_servo(
                spec, f"joint_{number}", 400.0 if strong else 100.0, joint.torque, joint.range
            )
        for start, end in itertools.pairwise(link.ends):
            body.add_geom(
                type=capsule,
                fromto=[*start, *end],
                size=[0.06 if number < 5 else 0.05, 0, 0],
                mass=link.mass / (len(link.ends) - 1),
                rgba=LIMB_COLOUR if number in (4, 7) else BODY_COLOUR,
                **look,
            )
    body.add_geom(
        type=box,
        pos=[0, 0, -HAND - 0.03],
        size=[0.02, 0.1, 0.025],
        mass=0.7,
        rgba=BODY_COLOUR,
        **look,
    )
    body.add_site(name="hand", pos=[0, 0, -HAND - FINGER])
    for side, sign in (("left", 1), ("right", -1)):
        finger = body.add_body(name=f"{side}_finger", pos=[0, 0, -HAND - FINGER], gravcomp=1.0)
        finger.add_joint(
            name=f"{side}_finger",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, sign, 0],
            range=[0, OPEN],
            armature=0.1,
            damping=[15.0, 0, 0],
        )
        finger.add_geom(
            type=box,
            pos=[0, 1.6 * TIP * sign, 0.025],
            size=[0.009, 0.6 * TIP, 0.03],
            mass=0.02,
            rgba=LIMB_COLOUR,
            **look,
        )
        for name, height in (("tip", 0.0), ("pad", 0.02)):
            finger.add_geom(
                name=f"{side}_{name}",
                type=sphere,
                pos=[0, TIP * sign, height],
                size=[TIP, 0, 0],
                mass=0,
                rgba=LIMB_COLOUR,
                **look,
            )
        _add_servo(spec, f"{side}_finger", 500.0, 20.0, (0.0, OPEN))


def _add_servo(
    spec: mujoco.MjSpec, joint: str, stiffness: float, limit: float, span: tuple[float, float]
) -> None:
    """Adds a position controller whose damping is the joint's, which MuJoCo integrates implicitly."""
    servo = spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        ctrlrange=span,
        forcerange=[-limit, limit],
    )
    servo.set_to_position(kp=stiffness)
