"""The shallow networks of a student: MLPs that are small and fast on a robot's CPU."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from students.config import Activation, MLPConfig, StudentConfig
from students.memory import ENCODER, Remembering
from teachers.crl.networks import Networks
from teachers.crl.parameters import Params, apply_module, count_parameters
from teachers.tasks import Task
from teachers.tasks.encoding import encoded_size

HEADS = ("actor", "phi")  # networks that read the shared encoder
ACTIVATIONS: Mapping[Activation, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "swish": nn.swish,
    "tanh": nn.tanh,
}


class MLP(nn.Module):
    """An MLP with hidden layers of (Dense, LayerNorm if configured, activation) and a linear head.

    Attributes:
        shape: configuration of the hidden layers.
        outputs: size of the head; None for no head, so that the last hidden layer is the output.
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

    The policy's head reads the goal as well, phi's head the action, and a commanded critic's phi both. Encoder and
    head together have the layers of `config.policy`; the last of them belongs to the head.
    """

    def __init__(
        self, task: Task, config: StudentConfig, embedding: int, commanded_critic: bool
    ) -> None:
        """Makes the encoder, its two heads, and psi.

        Args:
            task: the task whose fields the networks read.
            config: shapes of the networks.
            embedding: size of the embeddings.
            commanded_critic: see `Networks`.
        """
        encoder, head = _split_layers(config.policy)
        super().__init__(
            task,
            actor=MLP(head, 2 * task.action_size),
            phi=MLP(head, embedding),
            psi=MLP(config.critic, embedding),
            commanded_critic=commanded_critic,
        )
        self._encoder = MLP(encoder, None)

    def init(self, key: Key[Array, ""]) -> Params:
        """Returns initial parameters; those of the encoder are under `encoder`."""
        key, encoder_key = jax.random.split(key)
        observation = jnp.zeros((1, encoded_size(self.task.read_fields)))
        encoder = {ENCODER: self._encoder.init(encoder_key, observation)}
        return encoder | self._init_modules(key, encoder)

    def _encode_observation(self, params: Params, observation: Array) -> Array:
        scaled = super()._encode_observation(params, observation)
        return apply_module(self._encoder, params[ENCODER], scaled)


def student_networks(
    task: Task, config: StudentConfig, embedding: int, commanded_critic: bool = False
) -> Networks:
    """Returns the networks of a student, without parameters.

    Args:
        task: the task of the student and its teacher.
        config: shapes of the networks.
        embedding: size of the teacher's embeddings; the student's have the same size unless `config` sets another.
        commanded_critic: whether phi reads the commanded goal, as the teacher's does.
    """
    embedding = config.embedding or embedding
    if task.knows_disturbances:
        task = task.reading_declared()
    if config.sees == "sensors":
        task = task.with_sensors()
    if config.heads:
        return TwoHeaded(task, config, embedding, commanded_critic)
    networks: dict[str, Any] = {
        "actor": MLP(config.policy, 2 * task.action_size),
        "phi": MLP(config.critic, embedding),
        "psi": MLP(config.critic, embedding),
        "commanded_critic": commanded_critic,
    }
    if config.memory == "none":
        return Networks(task, **networks)
    return Remembering(task, config, **networks)


def parameters_used_by(name: str, params: Params) -> Params:
    """Returns the parameters that a network's outputs depend on: its own, and those of the encoder if it reads one."""
    names = (name, ENCODER) if name in HEADS and ENCODER in params else (name,)
    return {name: params[name] for name in names}


def _split_layers(shape: MLPConfig) -> tuple[MLPConfig, MLPConfig]:
    """Returns the layers of the shared encoder and those of each head."""
    return (
        shape.model_copy(update={"layers": shape.layers - 1}),
        shape.model_copy(update={"layers": 1}),
    )


def layer_shapes(config: StudentConfig) -> dict[str, MLPConfig]:
    """Returns the hidden layers of each network, by the name of its parameters."""
    shapes = {"actor": config.policy, "phi": config.critic, "psi": config.critic}
    if config.heads:
        encoder, head = _split_layers(config.policy)
        shapes |= {"actor": head, "phi": head, ENCODER: encoder}
    return shapes


def describe_networks(config: StudentConfig, params: Params) -> dict[str, dict[str, Any]]:
    """Returns the shape and the number of parameters of each network, for an artefact's metadata."""
    found = {
        name: {**shape.model_dump(), "parameters": count_parameters(params[name])}
        for name, shape in layer_shapes(config).items()
    }
    if config.memory == "gru":
        width, parameters = config.memory_width, count_parameters(params[ENCODER])
        found[ENCODER] = {"memory": "gru", "width": width, "parameters": parameters}
    return found
