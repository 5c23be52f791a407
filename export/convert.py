"""Converts the functions of an agent to ONNX graphs."""

import contextlib
import io
from collections.abc import Callable

import jax
import jax.numpy as jnp
import onnx
from jax import export as jax_export
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array

from export.contract import INPUTS, OUTPUTS, Role, Units
from teachers.agent import Agent
from teachers.runs.errors import InputError

OPSET = 17  # the first opset with LayerNormalization; ONNX Runtime has read it since 2022
OLDEST_OPSET, NEWEST_OPSET = 13, 26  # the range that the converter writes


def convert(
    agent: Agent, role: Role, *, units: Units = "task", opset: int = OPSET
) -> onnx.ModelProto:
    """Returns a function of an agent as an ONNX model with a symbolic batch size.

    Args:
        agent: a student, or a teacher, whose blocks become an ONNX Loop.
        role: `policy`, `(observation, goal) -> action`; `critic`, `(observation, goal, action) -> value`; or
            `combined`, `(observation, goal) -> (action, value of that action)`.
        units: units of the actions: those of the task, or normalized to [-1, 1].
        opset: the operator set, from 13 to 26.

    Raises:
        InputError: the converter does not write this opset.
    """
    from jax2onnx import to_onnx  # here, because the import takes seconds

    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise InputError(
            f"opset {opset} cannot be written; give one from {OLDEST_OPSET} to {NEWEST_OPSET}"
        )
    task = agent.task
    closed = _select_function(agent, role, units)
    (batch,) = jax_export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, task.sizes[name]), jnp.float32) for name in INPUTS[role]]
    if agent.metadata.kind == "teacher":
        # The converter's own tracing of Flax layers loses their shapes inside a scan, so JAX traces the function first.
        traced = jaxpr_as_fun(jax.make_jaxpr(closed)(*shapes))

        def closed(*inputs: Array) -> tuple[Array, ...]:
            return tuple(traced(*inputs))

    with contextlib.redirect_stdout(io.StringIO()):
        model = to_onnx(
            closed,
            inputs=shapes,
            model_name=f"{task.name}_{role}",
            opset=opset,
            normalization_mode="prefer_native",
            input_names=list(INPUTS[role]),
            output_names=list(OUTPUTS[role]),
        )
    # The converter writes a newer IR version, which older runtimes refuse.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model, full_check=True)
    return model


def _select_function(agent: Agent, role: Role, units: Units) -> Callable[..., tuple[Array, ...]]:
    """Returns the function of batches that a file of this role computes."""
    task, networks, params = agent.task, agent.networks, agent.params

    def policy(observation: Array, goal: Array) -> tuple[Array, ...]:
        action = networks.policy(params, observation, goal)
        return (task.to_actuator_units(action) if units == "task" else action,)

    def critic(observation: Array, goal: Array, action: Array) -> tuple[Array, ...]:
        normalized = task.from_actuator_units(action) if units == "task" else action
        return (networks.critic(params, observation, goal, normalized),)

    def combined(observation: Array, goal: Array) -> tuple[Array, ...]:
        action = networks.policy(params, observation, goal)
        value = networks.critic(params, observation, goal, action)
        return (task.to_actuator_units(action) if units == "task" else action), value

    functions: dict[Role, Callable[..., tuple[Array, ...]]]
    functions = {"policy": policy, "critic": critic, "combined": combined}
    return functions[role]
