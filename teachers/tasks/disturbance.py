"""What a robot meets and a plain simulation leaves out: noise, delay, another mass, other friction, a push.

An episode's disturbance is drawn when it starts and carried in its state, as data: one compiled program serves all.
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
# Folded into keys that serve other purposes too: beyond the numbers that splitting them and drawing from them use.
DRAW, SENSE = 1_000_000, 1_000_001


def _two(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def _ordered(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    if pair[0] > pair[1]:
        raise ValueError(f"the lower number stands first: {pair[1]},{pair[0]}")
    return pair


_PAIR = BeforeValidator(_two), AfterValidator(_ordered)
_Delay = Annotated[int, Field(ge=0, le=MAX_DELAY)]
_Mass = Annotated[float, Field(gt=0)]
_Friction = Annotated[float, Field(ge=0)]


class Disturbances(BaseModel):
    """Ranges from which each episode draws evenly what disturbs it. By default nothing does."""

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


# What a robustness table reports.
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
# What to train under.
RANDOMIZED = Disturbances(noise=0.05, delay=(0, 2), mass=(0.9, 1.1), friction=(0.9, 1.1), push=0.5)


class Disturbed(NamedTuple):
    """What disturbs one environment in this episode."""

    noise: Float[Array, "*batch"]
    delay: Int[Array, "*batch"]
    mass: Float[Array, "*batch"]
    friction: Float[Array, "*batch"]
    push: Float[Array, "*batch 2"]  # N, along x and y
    push_step: Int[Array, "*batch"]  # the control step of the episode in which it acts
    pending: Float[Array, "*batch delay act"]  # the actions chosen last, the newest first


class Robot(NamedTuple):
    """What a push acts on."""

    body: int  # the heaviest
    mass: float  # of all bodies together, kg


def pushed_robot(model: mujoco.MjModel) -> Robot:
    """Of a model, the bodies whose joints have actuators and those attached to them: not things that lie about."""
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


def draw(
    ranges: Mapping[str, Any],
    key: Key[Array, ""],
    *,
    action_size: int,
    episode_steps: int,
    force: float,
) -> Disturbed:
    """What disturbs one episode.

    Args:
        ranges: the fields of `Disturbances`, which may be traced.
        key: of the draw.
        action_size: numbers in an action.
        episode_steps: control steps in an episode.
        force: that in one control period changes the robot's speed by 1 m/s, in N.
    """
    keys = iter(jax.random.split(key, 5))

    def factor(pair: tuple[Any, Any]) -> Float[Array, ""]:
        low, high = pair
        return low + (high - low) * jax.random.uniform(next(keys))

    low, high = ranges["delay"]
    angle = jax.random.uniform(next(keys), maxval=2 * jnp.pi)
    return Disturbed(
        noise=jnp.asarray(ranges["noise"], jnp.float32),
        delay=jax.random.randint(next(keys), (), low, high + 1),
        mass=factor(ranges["mass"]),
        friction=factor(ranges["friction"]),
        push=ranges["push"] * force * jnp.stack([jnp.cos(angle), jnp.sin(angle)]),
        push_step=jax.random.randint(next(keys), (), 0, episode_steps),
        pending=jnp.zeros((MAX_DELAY, action_size)),
    )


def noisy(
    disturbed: Disturbed,
    observation: Float[Array, "obs"],
    scale: Float[np.ndarray, "obs"],
    key: Key[Array, ""],
) -> Float[Array, "obs"]:
    """What the sensors give for an observation."""
    return observation + disturbed.noise * scale * jax.random.normal(key, observation.shape)


def delayed(
    disturbed: Disturbed, action: Float[Array, "act"]
) -> tuple[Float[Array, "act"], Disturbed]:
    """The action that is taken where `action` is chosen, and what is pending then."""
    queue = jnp.concatenate([action[None], disturbed.pending])
    return queue[disturbed.delay], disturbed._replace(pending=queue[:-1])


def pushing(disturbed: Disturbed, step: Int[Array, ""]) -> Float[Array, "2"]:
    """The force along x and y (N) in a control step of the episode."""
    return jnp.where(step == disturbed.push_step, disturbed.push, 0.0)


def changed(model: Any, disturbed: Disturbed) -> Any:
    """An `mjx.Model` with its masses and friction changed."""
    mass, friction = disturbed.mass, disturbed.friction
    factors = {
        "body_mass": mass,
        "body_inertia": mass,
        "body_subtreemass": mass,
        # These are exact where inertia is that of masses alone. An armature, the rotors' own inertia, stays as it is,
        # and with it they would change by less; they say how much constraints give way.
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


def changed_in_c(model: mujoco.MjModel, disturbed: Disturbed) -> mujoco.MjModel:
    """A copy of a model of MuJoCo C with its masses and friction changed; the model itself where neither is."""
    mass, friction = float(disturbed.mass), float(disturbed.friction)
    if mass == friction == 1.0:
        return model
    changed = copy.deepcopy(model)
    for name in ("body_mass", "body_inertia"):
        getattr(changed, name)[:] *= mass
    for name in ("geom_friction", "pair_friction", "dof_damping", "dof_frictionloss"):
        getattr(changed, name)[:] *= friction
    mujoco.mj_setConst(changed, mujoco.MjData(changed))
    return changed
