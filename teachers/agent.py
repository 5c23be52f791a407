"""A policy and a critic with their parameters: what evaluation, distillation and export work on."""

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from teachers.config import NetworkConfig, TeacherConfig
from teachers.metadata import Metadata
from teachers.networks import (
    Params,
    ResidualMLP,
    apply,
    bounded_log_std,
    energy,
    sample_action,
)
from teachers.tasks import Task, get_task


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
        outputs = apply(self._modules["actor"], params["actor"], inputs)
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
        return apply(self._modules["phi"], params["phi"], inputs)

    def psi(
        self, params: Params, goal: Float[Array, "*batch goal"]
    ) -> Float[Array, "*batch embed"]:
        """The embedding of a goal."""
        return apply(self._modules["psi"], params["psi"], self._scaled(goal))

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
        return energy(self.phi(params, observation, action), self.psi(params, goal))

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


@dataclass(frozen=True)
class Agent:
    """A teacher or a student: its networks, their parameters, and what its artefact says of it."""

    networks: Networks
    params: Params
    metadata: Metadata

    @property
    def task(self) -> Task:
        """The task it acts on."""
        return self.networks.task


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
