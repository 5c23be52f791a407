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

from export.contract import Units
from export.signature import Role, agent_signature, task_fields
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
            `combined`, `(observation, goal) -> (action, value of that action)`. See `Signature` for agents that read sensors or
            remember.
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
    signature = agent_signature(agent.networks)
    inputs = signature.inputs(role)
    sizes = {
        name: signature.memory_size
        if name == "state"
        else sum(field.size for field in task_fields(task, name))
        for name in inputs
    }
    shapes = [jax.ShapeDtypeStruct((batch, size), jnp.float32) for size in sizes.values()]
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
            input_names=list(inputs),
            output_names=list(signature.outputs(role)),
        )
    # The converter writes a newer IR version, which older runtimes refuse.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model, full_check=True)
    return model


def _select_function(agent: Agent, role: Role, units: Units) -> Callable[..., tuple[Array, ...]]:
    """Returns the function of batches that a file of this role computes."""
    task, networks, params = agent.task, agent.networks, agent.params

    def see(read: Array, state: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """Returns what the networks see, and the memory after it if there is one."""
        if not state:
            return read, ()
        seen, after = networks.remember(params, read, *state)
        return seen, (after,)

    def to_units(action: Array) -> Array:
        return task.to_actuator_units(action) if units == "task" else action

    def policy(read: Array, goal: Array, *state: Array) -> tuple[Array, ...]:
        seen, after = see(read, state)
        return to_units(networks.policy(params, seen, goal)), *after

    def critic(read: Array, goal: Array, *state_and_action: Array) -> tuple[Array, ...]:
        *state, action = state_and_action
        seen, _ = see(read, tuple(state))
        normalized = task.from_actuator_units(action) if units == "task" else action
        return (networks.critic(params, seen, goal, normalized),)

    def combined(read: Array, goal: Array, *state: Array) -> tuple[Array, ...]:
        seen, after = see(read, state)
        action = networks.policy(params, seen, goal)
        return to_units(action), networks.critic(params, seen, goal, action), *after

    functions: dict[Role, Callable[..., tuple[Array, ...]]]
    functions = {"policy": policy, "critic": critic, "combined": combined}
    return functions[role]
