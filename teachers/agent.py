"""A policy and a critic with their parameters: what evaluation, distillation and export work on."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from teachers.config import TeacherConfig
from teachers.metadata import Metadata
from teachers.networks import Params, ResidualMLP, apply, bounded_log_std, energy
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
        self._actor, self._phi, self._psi = actor, phi, psi

    def init(self, key: Key[Array, ""]) -> Params:
        """Fresh parameters."""
        task = self.task
        actor_key, phi_key, psi_key = jax.random.split(key, 3)
        return {
            "actor": self._actor.init(
                actor_key, jnp.zeros((1, task.observation_size + task.goal_size))
            ),
            "phi": self._phi.init(
                phi_key, jnp.zeros((1, task.observation_size + task.action_size))
            ),
            "psi": self._psi.init(psi_key, jnp.zeros((1, task.goal_size))),
        }

    def actor(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"],
    ) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch act"]]:
        """pi(a | s, g): mean and log standard deviation of the action before the squashing."""
        inputs = [observation / self.task.observation_scale, goal / self.task.goal_scale]
        outputs = apply(self._actor, params["actor"], jnp.concatenate(inputs, axis=-1))
        mean, raw = jnp.split(outputs, 2, axis=-1)
        return mean, bounded_log_std(raw)

    def phi(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        action: Float[Array, "*batch act"],
    ) -> Float[Array, "*batch embed"]:
        """The embedding of a state and an action."""
        inputs = [observation / self.task.observation_scale, action]
        return apply(self._phi, params["phi"], jnp.concatenate(inputs, axis=-1))

    def psi(
        self, params: Params, goal: Float[Array, "*batch goal"]
    ) -> Float[Array, "*batch embed"]:
        """The embedding of a goal."""
        return apply(self._psi, params["psi"], goal / self.task.goal_scale)

    def policy(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"],
    ) -> Float[Array, "*batch act"]:
        """The action in [-1, 1] without exploration: the squashed mean."""
        mean, _ = self.actor(params, observation, goal)
        return jnp.tanh(mean)

    def critic(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"],
        action: Float[Array, "*batch act"],
    ) -> Float[Array, "*batch"]:
        """f(s, a, g)."""
        return energy(self.phi(params, observation, action), self.psi(params, goal))


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


def teacher_networks(config: TeacherConfig, task: Task | None = None) -> Networks:
    """The residual networks that a configuration describes, without parameters.

    Args:
        config: their depths and widths.
        task: by default the one that the configuration names.
    """
    task = task or get_task(config.task)
    return Networks(
        task,
        actor=ResidualMLP(config.actor.depth, config.actor.width, 2 * task.action_size),
        phi=ResidualMLP(config.phi.depth, config.phi.width, config.embedding),
        psi=ResidualMLP(config.psi.depth, config.psi.width, config.embedding),
    )
