"""Students that remember: what they see in a control step, and what they carry to the next one."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from students.config import StudentConfig
from teachers.crl.networks import Networks
from teachers.crl.parameters import Params
from teachers.tasks import Task
from teachers.tasks.encoding import encode_fields, encoded_size

ENCODER = "encoder"  # name of the parameters of what policy and phi share


class Remembering(Networks):
    """Networks that see what they read now and what they remember; policy and phi share the memory.

    Attributes:
        memory_size: of `history`, the readings before the newest one; of `gru`, its units.
    """

    def __init__(self, task: Task, config: StudentConfig, **networks: Any) -> None:
        """Makes the memory beside the three networks.

        Args:
            task: the task whose fields the networks read.
            config: of the memory.
            networks: see `Networks`.
        """
        super().__init__(task, **networks)
        self._reading_size = encoded_size(task.read_fields)
        self._gru = nn.GRUCell(config.memory_width) if config.memory == "gru" else None
        frames = (config.frames - 1) * self._reading_size
        self.memory_size = config.memory_width if self._gru else frames

    def init(self, key: Key[Array, ""]) -> Params:
        """Returns initial parameters; those of a GRU are under `encoder`."""
        if self._gru is None:
            return self._init_modules(key, {})
        key, encoder_key = jax.random.split(key)
        memory, reading = jnp.zeros((1, self.memory_size)), jnp.zeros((1, self._reading_size))
        encoder = {ENCODER: self._gru.init(encoder_key, memory, reading)}
        return encoder | self._init_modules(key, encoder)

    def remember(
        self,
        params: Params,
        read: Float[Array, "*batch read"],
        memory: Float[Array, "*batch memory"],
    ) -> tuple[Float[Array, "*batch seen"], Float[Array, "*batch memory"]]:
        """Returns the reading beside what is remembered of those before it, and the memory after it."""
        reading = encode_fields(self.task.read_fields, read)
        if self._gru is None:
            seen = jnp.concatenate([reading, memory], axis=-1)
            return seen, seen[..., : self.memory_size]
        memory, _ = self._gru.apply(params[ENCODER], memory, reading)
        return jnp.concatenate([reading, memory], axis=-1), memory

    @property
    def _input_sizes(self) -> tuple[int, int, int]:
        _, goal, action = super()._input_sizes
        return self._reading_size + self.memory_size, goal, action

    def _encode_observation(self, params: Params, observation: Array) -> Array:
        return observation  # what is seen is encoded already


def see_episodes(
    networks: Networks, params: Params, read: Float[Array, "time env read"]
) -> tuple[Float[Array, "time env seen"], Float[Array, "time env memory"]]:
    """Returns what actor and phi see in each control step of whole episodes, and the memory before it.

    Args:
        networks: with memory or without.
        params: of the networks.
        read: in each step; the first is that of an episode.
    """

    def step(memory: Array, now: Array) -> tuple[Array, tuple[Array, Array]]:
        seen, after = networks.remember(params, now, memory)
        return after, (seen, memory)

    empty = jnp.zeros((read.shape[1], networks.memory_size))
    _, found = jax.lax.scan(step, empty, read)
    return found
