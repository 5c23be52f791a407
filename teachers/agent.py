"""A policy and a critic with their parameters: what evaluation, distillation and export work on."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from teachers.config import TeacherConfig
from teachers.metadata import Metadata
from teachers.networks import Params, ResidualMLP, bounded_log_std, count_parameters, energy
from teachers.tasks import Task, get_task


@dataclass(frozen=True)
class Agent:
    """A teacher or a student.

    Attributes:
        metadata: what the artefact says of itself.
        params: the parameters of all its networks.
        policy: `(params, observation [*batch, obs], goal [*batch, goal]) -> action [*batch, act]`, the mode.
        critic: `(params, observation, goal, action) -> value [*batch]`.
    """

    metadata: Metadata
    params: Params
    policy: Callable[[Params, Array, Array], Array]
    critic: Callable[[Params, Array, Array, Array], Array]

    @property
    def task(self) -> Task:
        return get_task(self.metadata.task)


class TeacherNetworks:
    """The three networks of a teacher, as functions of parameters `{"actor": ..., "phi": ..., "psi": ...}`.

    Observations and goals are divided by the scale of their fields before a network reads them.
    """

    def __init__(self, config: TeacherConfig) -> None:
        task = get_task(config.task)
        self._actor = ResidualMLP(config.actor.depth, config.actor.width, 2 * task.action_size)
        self._phi = ResidualMLP(config.phi.depth, config.phi.width, config.embedding)
        self._psi = ResidualMLP(config.psi.depth, config.psi.width, config.embedding)
        self._task = task

    def init(self, key: Key[Array, ""]) -> Params:
        """Fresh parameters."""
        observation, goal, action = (
            jnp.zeros((1, size))
            for size in (self._task.observation_size, self._task.goal_size, self._task.action_size)
        )
        actor_key, phi_key, psi_key = jax.random.split(key, 3)
        return {
            "actor": self._actor.init(actor_key, jnp.concatenate([observation, goal], axis=-1)),
            "phi": self._phi.init(phi_key, jnp.concatenate([observation, action], axis=-1)),
            "psi": self._psi.init(psi_key, goal),
        }

    def actor(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"],
    ) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch act"]]:
        """pi(a | s, g): mean and log standard deviation of the action before the squashing."""
        inputs = [observation / self._task.observation_scale, goal / self._task.goal_scale]
        outputs = self._actor.apply(params["actor"], jnp.concatenate(inputs, axis=-1))
        mean, raw = jnp.split(outputs, 2, axis=-1)
        return mean, bounded_log_std(raw)

    def phi(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        action: Float[Array, "*batch act"],
    ) -> Float[Array, "*batch embed"]:
        """The embedding of a state and an action."""
        inputs = [observation / self._task.observation_scale, action]
        return self._phi.apply(params["phi"], jnp.concatenate(inputs, axis=-1))

    def psi(
        self, params: Params, goal: Float[Array, "*batch goal"]
    ) -> Float[Array, "*batch embed"]:
        """The embedding of a goal."""
        return self._psi.apply(params["psi"], goal / self._task.goal_scale)


def teacher_agent(config: TeacherConfig, params: Params, metadata: Metadata) -> Agent:
    """The agent whose networks `config` describes."""
    networks = TeacherNetworks(config)

    def policy(
        params: Params, observation: Float[Array, "*batch obs"], goal: Float[Array, "*batch goal"]
    ) -> Float[Array, "*batch act"]:
        mean, _ = networks.actor(params, observation, goal)
        return jnp.tanh(mean)

    def critic(
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"],
        action: Float[Array, "*batch act"],
    ) -> Float[Array, "*batch"]:
        return energy(networks.phi(params, observation, action), networks.psi(params, goal))

    return Agent(metadata, params, policy, critic)


def describe_teacher(config: TeacherConfig, params: Params) -> dict[str, dict[str, int]]:
    """Depth, width and parameters of each network, for the metadata."""
    shapes = {"actor": config.actor, "phi": config.phi, "psi": config.psi}
    return {
        name: {**shape.model_dump(), "parameters": count_parameters(params[name])}
        for name, shape in shapes.items()
    }
