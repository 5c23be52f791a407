"""Policies of agents and of ONNX graphs, as `play_in_c` takes them: with the memory that they carry from step to step."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from export.contract import Units
from export.session import GraphFunction
from export.signature import Signature
from teachers.agent import Agent
from teachers.crl.parameters import Params
from teachers.tasks import Task


class AgentPolicy:
    """The deterministic policy of an agent, computed by JAX."""

    def __init__(self, agent: Agent) -> None:
        """Prepares the policy; it is compiled at its first call for each size of a batch."""
        networks = agent.networks
        self._params, self._memory_size = agent.params, networks.memory_size

        def act(
            params: Params, read: Array, goal: Array, memory: Array
        ) -> tuple[Float[Array, "env act"], Float[Array, "env memory"]]:
            seen, memory = networks.remember(params, read, memory)
            return networks.policy(params, seen, goal), memory

        self._act = jax.jit(act)
        self.reset()

    def reset(self) -> None:
        """Forgets what was read, before the first step of new episodes."""
        self._memory: Any = None

    def __call__(self, read: np.ndarray, goal: np.ndarray) -> Float[np.ndarray, "env act"]:
        """Returns the action in [-1, 1]."""
        if self._memory is None:
            self._memory = np.zeros((len(read), self._memory_size), np.float32)
        action, self._memory = self._act(self._params, read, goal, self._memory)
        return np.asarray(action)


class GraphPolicy:
    """The policy in an ONNX graph."""

    def __init__(
        self, function: GraphFunction, signature: Signature, task: Task, units: Units
    ) -> None:
        """Prepares the policy.

        Args:
            function: what the graph computes; see `open_session`.
            signature: what the agent reads and carries from step to step.
            task: the agent's.
            units: of the graph's actions.
        """
        self._function, self._signature = function, signature
        self._task, self._units = task, units
        self.reset()

    def reset(self) -> None:
        """Forgets what was read, before the first step of new episodes."""
        self._state: np.ndarray | None = None

    def __call__(self, read: np.ndarray, goal: np.ndarray) -> Float[np.ndarray, "env act"]:
        """Returns the action in [-1, 1]."""
        inputs = {self._signature.reads: read, "goal": goal}
        if size := self._signature.memory_size:
            if self._state is None:
                self._state = np.zeros((len(read), size), np.float32)
            inputs["state"] = self._state
        outputs = self._function(inputs)
        self._state = outputs.get("next_state")
        action = outputs["action"]
        return self._task.from_actuator_units(action) if self._units == "task" else action
