"""Disturbances of a simulation: sensor noise, action delay, changed masses and friction, and a push.

An episode's disturbance is drawn when it starts and is part of its state, so that one compiled program serves all.
"""

import copy
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Int, Key
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

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
RANDOMIZED = Disturbances(noise=0.05, delay=(0, 2), mass=(0.9, 1.1), friction=(0.9, 1.1), push=0.5)


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


class Robot(NamedTuple):
    """The part of a model that a push acts on."""

    body: int  # the heaviest one
    mass: float  # of all its bodies together, kg


def find_pushed_body(model: mujoco.MjModel) -> Robot:
    """Returns the robot of a model: the bodies whose joints have actuators and all attached to them, but no loose objects."""
    of_joint = np.isin(
        model.actuator_trntype,
        [mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT],
    )
    trees = model.body_treeid[model.jnt_bodyid[model.actuator_trnid[of_joint, 0]]]
    moving = np.isin(model.body_treeid, trees) if len(trees) else model.body_treeid >= 0
    return Robot(
        body=int(np.argmax(np.where(moving, model.body_mass, -1.0))),
        mass=float(model.body_mass[moving].sum()),
    )


def draw_disturbance(
    ranges: Mapping[str, Any],
    key: Key[Array, ""],
    *,
    action_size: int,
    episode_steps: int,
    force: float,
) -> Disturbed:
    """Returns the disturbance of one episode.

    Args:
        ranges: the fields of `Disturbances`, which may be traced.
        key: of the draw.
        action_size: numbers in an action.
        episode_steps: control steps in an episode.
        force: that changes the robot's speed by 1 m/s within one control period, in N.
    """
    keys = iter(jax.random.split(key, 5))

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
    )


def add_noise(
    disturbance: Disturbed,
    observation: Float[Array, "obs"],
    scale: Float[np.ndarray, "obs"],
    key: Key[Array, ""],
) -> Float[Array, "obs"]:
    """Returns the observation with the noise of the sensors."""
    return observation + disturbance.noise * scale * jax.random.normal(key, observation.shape)


def apply_delay(
    disturbance: Disturbed, action: Float[Array, "act"]
) -> tuple[Float[Array, "act"], Disturbed]:
    """Returns the action that is applied when `action` is chosen, and the disturbance with the actions pending then."""
    queue = jnp.concatenate([action[None], disturbance.pending])
    return queue[disturbance.delay], disturbance._replace(pending=queue[:-1])


def push_force(disturbance: Disturbed, step: Int[Array, ""]) -> Float[Array, "2"]:
    """Returns the force along x and y (N) in a control step of the episode."""
    return jnp.where(step == disturbance.push_step, disturbance.push, 0.0)


def scale_model(model: Any, disturbance: Disturbed) -> Any:
    """Returns an `mjx.Model` with its masses and friction multiplied by the disturbance's factors."""
    mass, friction = disturbance.mass, disturbance.friction
    factors = {
        "body_mass": mass,
        "body_inertia": mass,
        "body_subtreemass": mass,
        # The following say how much constraints give way. The factors are exact where inertia comes from masses alone:
        # an armature (the inertia of the rotors) stays as it is, so that with it they would change by less.
        "dof_M0": mass,
        "body_invweight0": 1 / mass,
        "dof_invweight0": 1 / mass,
        "tendon_invweight0": 1 / mass,
        "actuator_acc0": 1 / mass,
        "geom_friction": friction,
        "pair_friction": friction,
        "dof_damping": friction,
        "dof_frictionloss": friction,
    }
    return model.tree_replace({name: getattr(model, name) * by for name, by in factors.items()})


def scale_model_in_c(model: mujoco.MjModel, mass: float, friction: float) -> mujoco.MjModel:
    """Returns a model of MuJoCo C with its masses and friction multiplied by factors.

    It is a copy, or the model itself where both factors are 1.
    """
    if mass == friction == 1.0:
        return model
    scaled = copy.deepcopy(model)
    for name in ("body_mass", "body_inertia"):
        getattr(scaled, name)[:] *= mass
    for name in ("geom_friction", "pair_friction", "dof_damping", "dof_frictionloss"):
        getattr(scaled, name)[:] *= friction
    mujoco.mj_setConst(scaled, mujoco.MjData(scaled))
    return scaled
