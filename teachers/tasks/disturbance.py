"""Disturbances of a simulation: sensor noise, action delay, a changed model, and a push.

An episode's disturbance is drawn when it starts and is part of its state, so that one compiled program serves all.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from teachers.runs.streams import Stream, stream_key
from teachers.tasks.declaration import Field as Feature

MAX_DELAY = 3  # control periods


def _split_pair(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def _require_order(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    if pair[0] > pair[1]:
        raise ValueError(f"the lower number stands first: {pair[1]},{pair[0]}")
    return pair


_PAIR = BeforeValidator(_split_pair), AfterValidator(_require_order)
_Delay = Annotated[int, Field(ge=0, le=MAX_DELAY)]
_Mass = Annotated[float, Field(gt=0)]
_Friction = Annotated[float, Field(ge=0)]


class Disturbances(BaseModel):
    """Ranges from which each episode draws its disturbance uniformly. By default there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    noise: float = Field(
        0.0, ge=0, description="standard deviation of the sensors' noise, in each field's scale"
    )
    delay: Annotated[tuple[_Delay, _Delay], *_PAIR] = Field(
        (0, 0), description="control periods between an action's choice and its start"
    )
    mass: Annotated[tuple[_Mass, _Mass], *_PAIR] = Field(
        (1.0, 1.0), description="factor on all masses and inertias"
    )
    friction: Annotated[tuple[_Friction, _Friction], *_PAIR] = Field(
        (1.0, 1.0), description="factor on contacts' friction, joints' damping and frictionloss"
    )
    push: float = Field(
        0.0,
        ge=0,
        description="m/s by which a push, once an episode, would change the robot's speed",
    )
    gain: Annotated[tuple[_Friction, _Friction], *_PAIR] = Field(
        (1.0, 1.0), description="factor on the forces of motors and servos, before their limits"
    )
    center: float = Field(
        0.0,
        ge=0,
        le=1,
        description="largest offset of the heaviest body's centre of mass along its x and y, in its radii of gyration",
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the control steps in which nothing is read, so that the policy is given the last reading again",
    )
    start: float = Field(
        0.0,
        ge=0,
        description="rad or m by which actuated joints start elsewhere at most; evaluations leave it out",
    )

    @property
    def changes_model(self) -> bool:
        """Whether the models of the environments differ."""
        return not (self.mass == self.friction == self.gain == (1, 1) and self.center == 0)


# The rows of a robustness table.
CONDITIONS: Mapping[str, Disturbances] = {
    "clean": Disturbances(),
    "noise 5%": Disturbances(noise=0.05),
    "noise 10%": Disturbances(noise=0.1),
    "delay 1": Disturbances(delay=(1, 1)),
    "delay 2": Disturbances(delay=(2, 2)),
    "delay 3": Disturbances(delay=(3, 3)),
    "mass +10%": Disturbances(mass=(1.1, 1.1)),
    "mass -10%": Disturbances(mass=(0.9, 0.9)),
    "friction +10%": Disturbances(friction=(1.1, 1.1)),
    "friction -10%": Disturbances(friction=(0.9, 0.9)),
    "push": Disturbances(push=0.5),
    "all": Disturbances(noise=0.1, delay=(0, 3), mass=(0.9, 1.1), friction=(0.9, 1.1), push=0.5),
}
# The ranges to train with.
RANDOMIZED = Disturbances(
    noise=0.05,
    delay=(0, 2),
    mass=(0.9, 1.1),
    friction=(0.9, 1.1),
    push=0.5,
    gain=(0.9, 1.1),
    center=0.05,
    dropout=0.05,
    start=0.05,
)


def randomized_settings(section: str) -> dict[str, Any]:
    """Returns the settings, by dotted key, with which rollouts are disturbed as `RANDOMIZED` says.

    Args:
        section: of the configuration, `rollout` for a training and `collect` for a distillation.
    """
    ranges = RANDOMIZED.model_dump()
    return {f"{section}.disturbances.{name}": value for name, value in ranges.items()}


class Disturbed(NamedTuple):
    """The disturbance of one environment in one episode."""

    noise: Float[Array, "*batch"]
    delay: Int[Array, "*batch"]
    mass: Float[Array, "*batch"]
    friction: Float[Array, "*batch"]
    push: Float[Array, "*batch 2"]  # N, along x and y
    push_step: Int[Array, "*batch"]  # the control step of the episode in which it acts
    pending: Float[Array, "*batch delay act"]  # the last actions that were chosen, the newest first
    gain: Float[Array, "*batch"]
    center: Float[Array, "*batch 2"]  # m, along x and y of the body
    dropout: Float[Array, "*batch"]
    last: Float[Array, "*batch read"]  # reading

    @property
    def model_change(self) -> Float[Array, "*batch 5"]:
        """What the environment's model differs in, as `change_model_in_c` takes it."""
        factors = jnp.stack([self.mass, self.friction, self.gain], axis=-1)
        return jnp.concatenate([factors, self.center], axis=-1)


# What a privileged teacher observes beside the task's observation: the numbers of `describe_disturbance`.
DISTURBANCE_FIELDS = (
    Feature("mass_change", 1, "1", "factor on all masses, less 1", 0.1),
    Feature("friction_change", 1, "1", "factor on friction and damping, less 1", 0.1),
    Feature("gain_change", 1, "1", "factor on the actuators' forces, less 1", 0.1),
    Feature("delay", 1, "control periods", "by which actions are late"),
    Feature(
        "center", 2, "m", "offset of the heaviest body's centre of mass along its x and y", 0.01
    ),
    Feature("push", 2, "m/s", "change of the robot's speed by the push of this control step"),
)


def describe_disturbance(disturbed: Any, step: Any, force: float) -> Any:
    """Returns the numbers of `DISTURBANCE_FIELDS` in a control step, arrays of JAX or of NumPy as the disturbance has.

    Args:
        disturbed: a `Disturbed`, or what is false for an episode that nothing disturbs.
        step: of the episode.
        force: see `draw_disturbance`.
    """
    if not disturbed:
        return np.zeros(sum(field.size for field in DISTURBANCE_FIELDS), np.float32)
    xp = jnp if isinstance(disturbed.mass, jax.Array) else np
    factors = (disturbed.mass, disturbed.friction, disturbed.gain)
    push = xp.where(step == disturbed.push_step, disturbed.push, 0.0) / force
    numbers = [*(factor - 1.0 for factor in factors), disturbed.delay, *disturbed.center, *push]
    return xp.stack([xp.asarray(number, np.float32) for number in numbers])


class Robot(NamedTuple):
    """The part of a model that is disturbed."""

    body: int  # the heaviest one
    mass: float  # of all its bodies together, kg
    radius: float  # of gyration of `body`, m; 0 where MuJoCo requires that its centre of mass is its origin
    joints: Int[np.ndarray, "actuated"]  # hinges and slides with an actuator


def find_robot(model: mujoco.MjModel) -> Robot:
    """Returns the robot of a model: the bodies whose joints have actuators and all attached to them, but no loose objects."""
    of_joint = np.isin(
        model.actuator_trntype,
        [mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT],
    )
    joints = np.unique(model.actuator_trnid[of_joint, 0])
    trees = model.body_treeid[model.jnt_bodyid[joints]]
    moving = np.isin(model.body_treeid, trees) if len(trees) else model.body_treeid >= 0
    body = int(np.argmax(np.where(moving, model.body_mass, -1.0)))
    has_center = not model.body_simple[body] and model.body_mass[body] > 0
    gyration = model.body_inertia[body].mean() / model.body_mass[body] if has_center else 0.0
    is_scalar = np.isin(
        model.jnt_type[joints], [mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE]
    )
    return Robot(
        body=body,
        mass=float(model.body_mass[moving].sum()),
        radius=float(np.sqrt(gyration)),
        joints=joints[is_scalar],
    )


def shift_start(
    model: mujoco.MjModel,
    joints: Int[np.ndarray, "actuated"],
    qpos: Float[Array, "nq"],
    largest: float,
    key: Key[Array, ""],
) -> Float[Array, "nq"]:
    """Returns joint positions of which some are shifted by up to `largest` (rad or m), within the joints' ranges."""
    places = model.jnt_qposadr[joints]
    shift = jax.random.uniform(key, places.shape, minval=-largest, maxval=largest)
    is_limited = model.jnt_limited[joints].astype(bool)
    before, (low, high) = qpos[places], model.jnt_range[joints].T
    # A start outside a joint's range stays there.
    low = jnp.where(is_limited, jnp.minimum(low, before), -jnp.inf)
    high = jnp.where(is_limited, jnp.maximum(high, before), jnp.inf)
    return qpos.at[places].set(jnp.clip(before + shift, low, high))


def draw_disturbance(
    ranges: Mapping[str, Any],
    key: Key[Array, ""],
    *,
    action_size: int,
    read_size: int,
    episode_steps: int,
    force: float,
    radius: float,
) -> Disturbed:
    """Returns the disturbance of one episode.

    Args:
        ranges: the fields of `Disturbances`, which may be traced.
        key: of the draw.
        action_size: numbers in an action.
        read_size: numbers in what a policy reads.
        episode_steps: control steps in an episode.
        force: that changes the robot's speed by 1 m/s within one control period, in N.
        radius: of gyration of the robot's heaviest body, in m.
    """
    keys = iter(jax.random.split(key, 7))

    def draw_factor(pair: tuple[Any, Any]) -> Float[Array, ""]:
        low, high = pair
        return low + (high - low) * jax.random.uniform(next(keys))

    low, high = ranges["delay"]
    angle = jax.random.uniform(next(keys), maxval=2 * jnp.pi)
    return Disturbed(
        noise=jnp.asarray(ranges["noise"], jnp.float32),
        delay=jax.random.randint(next(keys), (), low, high + 1),
        mass=draw_factor(ranges["mass"]),
        friction=draw_factor(ranges["friction"]),
        push=ranges["push"] * force * jnp.stack([jnp.cos(angle), jnp.sin(angle)]),
        push_step=jax.random.randint(next(keys), (), 0, episode_steps),
        pending=jnp.zeros((MAX_DELAY, action_size)),
        gain=draw_factor(ranges["gain"]),
        center=ranges["center"] * radius * jax.random.uniform(next(keys), (2,), minval=-1),
        dropout=jnp.asarray(ranges["dropout"], jnp.float32),
        last=jnp.zeros(read_size),
    )


def disturb_reading(
    disturbance: Disturbed,
    read: Float[Array, "read"],
    scale: Float[np.ndarray, "read"],
    step: Int[Array, ""],
    key: Key[Array, ""],
) -> tuple[Float[Array, "read"], Disturbed]:
    """Returns what a policy reads with the noise of the sensors, or the last reading again, and the disturbance after it.

    Args:
        disturbance: of the episode.
        read: what it would read undisturbed.
        scale: of each number.
        step: of the episode, in whose first one nothing is lost.
        key: of the noise and the loss.
    """
    noisy = read + disturbance.noise * scale * jax.random.normal(key, read.shape)
    is_lost = jax.random.uniform(stream_key(key, Stream.DROPOUT)) < disturbance.dropout
    read = jnp.where(is_lost & (step > 0), disturbance.last, noisy)
    return read, disturbance._replace(last=read)


def apply_delay(
    disturbance: Disturbed, action: Float[Array, "act"]
) -> tuple[Float[Array, "act"], Disturbed]:
    """Returns the action that is applied when `action` is chosen, and the disturbance with the actions pending then."""
    queue = jnp.concatenate([action[None], disturbance.pending])
    return queue[disturbance.delay], disturbance._replace(pending=queue[:-1])


def push_force(disturbance: Disturbed, step: Int[Array, ""]) -> Float[Array, "2"]:
    """Returns the force along x and y (N) in a control step of the episode."""
    return jnp.where(step == disturbance.push_step, disturbance.push, 0.0)


def change_model(model: Any, disturbed: Disturbed, body: int) -> Any:
    """Returns an `mjx.Model` that differs as the disturbance says.

    Args:
        model: to be changed.
        disturbed: the factors on its masses, friction and gains, and the offset of a centre of mass.
        body: whose centre of mass is elsewhere.
    """
    mass, friction = disturbed.mass, disturbed.friction
    gain = jnp.where(_scalable_actuators(model), disturbed.gain, 1.0)[:, None]
    factors = {
        "body_mass": mass,
        "body_inertia": mass,
        "body_subtreemass": mass,
        # The following say how much constraints give way. The factors are exact where inertia comes from masses alone:
        # an armature (the inertia of the rotors) stays as it is, so that with it they would change by less. The centre of
        # mass has a small effect on them, too.
        "dof_M0": mass,
        "body_invweight0": 1 / mass,
        "dof_invweight0": 1 / mass,
        "tendon_invweight0": 1 / mass,
        "actuator_acc0": 1 / mass,
        "geom_friction": friction,
        "pair_friction": friction,
        "dof_damping": friction,
        "dof_frictionloss": friction,
        "actuator_gainprm": gain,
        "actuator_biasprm": gain,
    }
    changed = {name: getattr(model, name) * by for name, by in factors.items()}
    center = jnp.asarray(model.body_ipos).at[body, :2].add(disturbed.center)
    return model.tree_replace(changed | {"body_ipos": center})


def change_model_in_c(model: mujoco.MjModel, change: Sequence[float], body: int) -> mujoco.MjModel:
    """Returns a copy of a model of MuJoCo C that differs, or the model itself where nothing does.

    Args:
        model: to be changed.
        change: factors on its masses, friction and gains, and the offset (m) of a centre of mass along x and y.
        body: whose centre of mass is elsewhere.
    """
    mass, friction, gain, *center = change
    if mass == friction == gain == 1.0 and not any(center):
        return model
    changed = copy.deepcopy(model)
    for name in ("body_mass", "body_inertia"):
        getattr(changed, name)[:] *= mass
    for name in ("geom_friction", "pair_friction", "dof_damping", "dof_frictionloss"):
        getattr(changed, name)[:] *= friction
    for name in ("actuator_gainprm", "actuator_biasprm"):
        getattr(changed, name)[_scalable_actuators(model)] *= gain
    if any(center):
        changed.body_ipos[body, :2] += center
        changed.body_sameframe[body] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE
    mujoco.mj_setConst(changed, mujoco.MjData(changed))
    return changed


def _scalable_actuators(model: Any) -> Bool[np.ndarray, "nu"]:
    """Returns which actuators' forces are proportional to their parameters: those of motors and servos, not of muscles."""
    gains = [mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtGain.mjGAIN_AFFINE]
    biases = [mujoco.mjtBias.mjBIAS_NONE, mujoco.mjtBias.mjBIAS_AFFINE]
    return np.isin(model.actuator_gaintype, gains) & np.isin(model.actuator_biastype, biases)
