"""The deep networks of a teacher: residual MLPs whose blocks are stacked and scanned.

After Wang et al., "1000 Layer Networks for Self-Supervised RL" (arXiv 2503.14858), section 3.
"""

from functools import cached_property

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from teachers.config import NetworkConfig, TeacherConfig
from teachers.crl.parameters import Params, apply_module
from teachers.crl.residual_mlp import ResidualMLP
from teachers.tasks.base import Task
from teachers.tasks.registry import get_task

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


def bounded_log_std(raw: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
    """Maps any number smoothly into the range of log standard deviations, as the published actor does."""
    return LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (jnp.tanh(raw) + 1.0)


def sample_action(
    key: Key[Array, ""], mean: Float[Array, "*batch act"], log_std: Float[Array, "*batch act"]
) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch"]]:
    """An action of the tanh-Gaussian policy, and its log probability density.

    The density carries the change of variables of the squashing (SAC, arXiv 1812.05905, eq. 26), in the
    form log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), which stays finite for saturated actions.
    """
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    before = mean + jnp.exp(log_std) * noise
    gaussian = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2.0 * jnp.pi)
    squashing = 2.0 * (jnp.log(2.0) - before - jax.nn.softplus(-2.0 * before))
    return jnp.tanh(before), (gaussian - squashing).sum(-1)


def similarity(
    phi: Float[Array, "*batch embed"], psi: Float[Array, "*batch embed"]
) -> Float[Array, "*batch"]:
    """The critic f = -||phi - psi||, row by row."""
    return -_norm(phi - psi)


def pairwise_logits(
    phi: Float[Array, "batch embed"], psi: Float[Array, "batch embed"]
) -> Float[Array, "batch batch"]:
    """The critic's logits: f of every row of `phi` with every row of `psi`.

    By a matrix product, as |a|^2 + |b|^2 - 2 ab. Close to zero that loses digits, so the diagonal, the positives
    of contrastive learning, is computed from the differences.
    """
    products = jnp.matmul(phi, psi.T, precision=jax.lax.Precision.HIGHEST)
    squared = (phi**2).sum(-1)[:, None] + (psi**2).sum(-1)[None, :] - 2.0 * products
    logits = -_root(jnp.maximum(squared, 0.0))
    return jnp.where(jnp.eye(len(phi), dtype=bool), similarity(phi, psi)[:, None], logits)


def _norm(x: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    return _root((x**2).sum(-1))


def _root(squared: Float[Array, "*n"]) -> Float[Array, "*n"]:
    # The small constant keeps the gradient finite where the embeddings coincide.
    return jnp.sqrt(squared + 1e-12)


class Networks:
    """Actor, phi and psi as functions of parameters `{"actor": ..., "phi": ..., "psi": ...}`.

    Deep or shallow, all agents share this: observations and goals are divided by the scale of their fields
    before a network reads them.
    """

    def __init__(self, task: Task, actor: nn.Module, phi: nn.Module, psi: nn.Module) -> None:
        """Wraps three modules that map `[*batch, inputs]` to `[*batch, outputs]`.

        Args:
            task: whose fields and scales they read.
            actor: from observation and goal to twice the action's size.
            phi: from observation and action to an embedding.
            psi: from a goal to an embedding of the same size.
        """
        self.task = task
        self._modules = {"actor": actor, "phi": phi, "psi": psi}

    def init(self, key: Key[Array, ""]) -> Params:
        """Fresh parameters."""
        return self._init_modules(key, {})

    @cached_property
    def shapes(self) -> Params:
        """Those of the parameters, without making them."""
        return jax.eval_shape(self.init, jax.eval_shape(lambda: jax.random.key(0)))

    def actor(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"],
    ) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch act"]]:
        """pi(a | s, g): mean and log standard deviation of the action before the squashing."""
        inputs = self._actor_inputs(params, observation, goal)
        outputs = apply_module(self._modules["actor"], params["actor"], inputs)
        mean, raw = jnp.split(outputs, 2, axis=-1)
        return mean, bounded_log_std(raw)

    def phi(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        action: Float[Array, "*batch act"],
    ) -> Float[Array, "*batch embed"]:
        """The embedding of a state and an action."""
        inputs = self._phi_inputs(params, observation, action)
        return apply_module(self._modules["phi"], params["phi"], inputs)

    def psi(
        self, params: Params, goal: Float[Array, "*batch goal"]
    ) -> Float[Array, "*batch embed"]:
        """The embedding of a goal."""
        return apply_module(self._modules["psi"], params["psi"], self._scaled(goal))

    def policy(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"],
    ) -> Float[Array, "*batch act"]:
        """The action in [-1, 1] without exploration: the squashed mean."""
        mean, _ = self.actor(params, observation, goal)
        return jnp.tanh(mean)

    def explore(
        self,
        params: Params,
        keys: Key[Array, "batch"],
        observation: Float[Array, "batch obs"],
        goal: Float[Array, "batch goal"],
    ) -> Float[Array, "batch act"]:
        """An action in [-1, 1] drawn from the policy, each row by its own key."""
        return jax.vmap(sample_action)(keys, *self.actor(params, observation, goal))[0]

    def critic(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"],
        action: Float[Array, "*batch act"],
    ) -> Float[Array, "*batch"]:
        """f(s, a, g)."""
        return similarity(self.phi(params, observation, action), self.psi(params, goal))

    def observed(
        self,
        params: Params,
        observation: Float[Array, "batch obs"],
        goal: Float[Array, "batch goal"],
        action: Float[Array, "batch act"],
    ) -> dict[str, tuple[Float[Array, "batch outputs"], Float[Array, "blocks"]]]:
        """For each of a teacher's networks, its outputs, and the share of each block's output that the block adds.

        See `ResidualMLP`.
        """
        seen = {}
        for name, inputs in self._inputs(params, observation, goal, action).items():
            module = self._modules[name]
            outputs, state = module.apply(params[name], inputs, mutable="intermediates")
            seen[name] = outputs, state["intermediates"]["branch_share"][0]
        return seen

    def _init_modules(self, key: Key[Array, ""], shared: Params) -> Params:
        """Fresh parameters of the three modules, where their inputs depend on the parameters `shared`."""
        inputs = self._inputs(shared, *(jnp.zeros((1, n)) for n in self.task.sizes.values()))
        keys = zip(self._modules, jax.random.split(key, 3), strict=True)
        return {name: self._modules[name].init(key, inputs[name]) for name, key in keys}

    def _inputs(
        self, params: Params, observation: Array, goal: Array, action: Array
    ) -> dict[str, Array]:
        return {
            "actor": self._actor_inputs(params, observation, goal),
            "phi": self._phi_inputs(params, observation, action),
            "psi": self._scaled(goal),
        }

    def _actor_inputs(self, params: Params, observation: Array, goal: Array) -> Array:
        return jnp.concatenate([self._encoded(params, observation), self._scaled(goal)], axis=-1)

    def _phi_inputs(self, params: Params, observation: Array, action: Array) -> Array:
        return jnp.concatenate([self._encoded(params, observation), action], axis=-1)

    def _scaled(self, goal: Array) -> Array:
        return goal / self.task.goal_scale

    def _encoded(self, params: Params, observation: Array) -> Array:
        """What actor and phi read of an observation."""
        return observation / self.task.observation_scale


def teacher_networks(
    config: TeacherConfig, task: Task | None = None, *, training: bool = False, remat: bool = False
) -> Networks:
    """The residual networks that a configuration describes, without parameters.

    Args:
        config: their depths and widths.
        task: by default the one that the configuration names.
        training: compute in `learning.precision` rather than in float32.
        remat: see `ResidualMLP`.
    """
    task = task or get_task(config.task)
    dtype = config.learning.precision if training else "float32"

    def network(shape: NetworkConfig, outputs: int) -> ResidualMLP:
        return ResidualMLP(shape.depth, shape.width, outputs, shape.zero, remat, dtype)

    return Networks(
        task,
        actor=network(config.actor, 2 * task.action_size),
        phi=network(config.phi, config.embedding),
        psi=network(config.psi, config.embedding),
    )
