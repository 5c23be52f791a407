"""Shallow policies and critics: plain MLPs, made to be small and fast on a robot's CPU."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from students.config import Activation, MLPConfig, StudentConfig
from teachers.crl.networks import Networks
from teachers.crl.parameters import Params, apply_module, count_parameters
from teachers.tasks import Task

ENCODER = "encoder"  # the name of what two heads share, among parameters
HEADS = ("actor", "phi")
ACTIVATIONS: Mapping[Activation, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "swish": nn.swish,
    "tanh": nn.tanh,
}


class MLP(nn.Module):
    """Hidden layers of (Dense, LayerNorm if wanted, activation) and a linear head.

    Attributes:
        shape: the hidden layers.
        outputs: size of the head; without one, the last hidden layer is the output.
    """

    shape: MLPConfig
    outputs: int | None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Applies the network."""
        for _ in range(self.shape.layers):
            x = nn.Dense(self.shape.width, kernel_init=nn.initializers.he_uniform())(x)
            if self.shape.normalisation:
                x = nn.LayerNorm()(x)
            x = ACTIVATIONS[self.shape.activation](x)
        if self.outputs is None:
            return x
        return nn.Dense(self.outputs, kernel_init=nn.initializers.lecun_uniform())(x)


class TwoHeaded(Networks):
    """One network with two heads: policy and phi read the same encoding of the observation.

    Encoder and head together have the layers of `config.policy`, of which the last is the head's own. What the heads
    read besides is the goal and the action.
    """

    def __init__(self, task: Task, config: StudentConfig, embedding: int) -> None:
        """Two heads on one encoder, and psi."""
        before, last = _cut(config.policy)
        super().__init__(
            task,
            actor=MLP(last, 2 * task.action_size),
            phi=MLP(last, embedding),
            psi=MLP(config.critic, embedding),
        )
        self._encoder = MLP(before, None)

    def init(self, key: Key[Array, ""]) -> Params:
        """Fresh parameters, those of the encoder under `encoder`."""
        key, encoder_key = jax.random.split(key)
        observation = jnp.zeros((1, self.task.sizes["observation"]))
        encoder = {ENCODER: self._encoder.init(encoder_key, observation)}
        return encoder | self._init_modules(key, encoder)

    def _encoded(self, params: Params, observation: Array) -> Array:
        scaled = super()._encoded(params, observation)
        return apply_module(self._encoder, params[ENCODER], scaled)


def student_networks(task: Task, config: StudentConfig, embedding: int) -> Networks:
    """The networks of a student, without parameters.

    Args:
        task: the task of its teacher.
        config: their shapes.
        embedding: size of the teacher's embeddings, which the student's critic has too, unless `config` says otherwise.
    """
    embedding = config.embedding or embedding
    if config.heads:
        return TwoHeaded(task, config, embedding)
    return Networks(
        task,
        actor=MLP(config.policy, 2 * task.action_size),
        phi=MLP(config.critic, embedding),
        psi=MLP(config.critic, embedding),
    )


def parameters_used_by(name: str, params: Params) -> Params:
    """The parameters that a network's outputs depend on: its own and, of a head, the encoder's."""
    names = (name, ENCODER) if name in HEADS and ENCODER in params else (name,)
    return {each: params[each] for each in names}


def _cut(shape: MLPConfig) -> tuple[MLPConfig, MLPConfig]:
    """The layers that two heads share, and those of each."""
    return (
        shape.model_copy(update={"layers": shape.layers - 1}),
        shape.model_copy(update={"layers": 1}),
    )


def layer_shapes(config: StudentConfig) -> dict[str, MLPConfig]:
    """The hidden layers of each network, by its name among parameters."""
    shapes = {"actor": config.policy, "phi": config.critic, "psi": config.critic}
    if config.heads:
        before, last = _cut(config.policy)
        shapes |= {"actor": last, "phi": last, ENCODER: before}
    return shapes


def describe_networks(config: StudentConfig, params: Params) -> dict[str, dict[str, Any]]:
    """For an artefact's metadata: of each network its shape and number of parameters."""
    return {
        name: {**shape.model_dump(), "parameters": count_parameters(params[name])}
        for name, shape in layer_shapes(config).items()
    }
