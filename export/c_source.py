"""Writes a student's policy as C99: one source file and its header, which need the C library's math alone, and no heap."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from export.c_memory import memory_arrays, memory_functions, memory_header, memory_lines
from export.c_text import array_definition, escape_comment, float_literal
from export.contract import Units
from export.signature import agent_signature
from students.artefact import Student
from students.config import Activation, MLPConfig
from students.memory import ENCODER
from students.networks import layer_shapes
from teachers.crl.parameters import Params
from teachers.process import in_32_bits
from teachers.runs.errors import InputError
from teachers.runs.outputs import require_unused, write_atomically
from teachers.runs.paths import create_folder
from teachers.tasks import Field, Sensor
from teachers.tasks.declaration import scales, slices
from teachers.tasks.encoding import (
    ROTATION_SIZE,
    encoded_size,
    plain_places,
    quaternion_places,
)

EPSILON = 1e-6  # the default of flax.linen.LayerNorm
ACTIVATIONS: dict[Activation, str] = {
    "relu": "x[i] < 0.0f ? 0.0f : x[i]",
    "swish": "x[i] / (1.0f + expf(-x[i]))",
    "tanh": "tanhf(x[i])",
}


class Layer(NamedTuple):
    """A dense layer and what follows it: a LayerNorm if there is one, then an activation if there is one."""

    kernel: Float[np.ndarray, "outputs inputs"]
    bias: Float[np.ndarray, "outputs"]
    norm: tuple[np.ndarray, np.ndarray] | None  # scale and bias of the LayerNorm
    activation: Activation | None


@in_32_bits
def export_c(student: Student, out: epath.PathLike, units: Units = "task") -> dict[str, str]:
    """Writes `policy.c` and `policy.h`.

    Args:
        student: a student, such as `load_student` returns.
        out: a new folder.
        units: the units of the actions: those of the task, or normalized to [-1, 1].

    Returns:
        The paths of both files, under `source` and `header`.

    Raises:
        InputError: the agent is a teacher, has weights that are not finite, or `out` holds something already.
    """
    if student.metadata.kind != "student":
        raise InputError(
            "a teacher is too deep for a microcontroller; distill it, and export the student"
        )
    if not all(np.isfinite(each).all() for each in jax.tree.leaves(student.params)):
        raise InputError("the student has weights that are not finite; distill it again")
    out = epath.Path(out)
    require_unused(out)
    create_folder(out)
    write_atomically(out / "policy.c", render_source(student, units))
    write_atomically(out / "policy.h", render_header(student, units))
    return {"source": str(out / "policy.c"), "header": str(out / "policy.h")}


def render_header(student: Student, units: Units) -> str:
    """Returns the C header: sizes of the arrays, and the meaning of every number in them."""
    task, signature = student.task, agent_signature(student.networks)
    reads, sizes = signature.reads, task.read_sizes
    has_memory = bool(signature.memory_size)
    state = "policy_state *state, " if has_memory else ""
    stateless = (
        "Several threads may call it at once, each with a state of its own."
        if has_memory
        else "It has no state, so that several threads may call it at once."
    )
    return f"""{_title_comment(student)}
#ifndef POLICY_H
#define POLICY_H

#ifdef __cplusplus
extern "C" {{
#endif

#define POLICY_{reads.upper()} {sizes["observation"]}
#define POLICY_GOAL {sizes["goal"]}
#define POLICY_ACTION {sizes["action"]}
#define POLICY_CONTROL_PERIOD {float_literal(task.control_period)} /* s */

{memory_header(signature.memory_size)}/*
 * Computes the action for {"what the sensors read" if reads == "sensors" else "an observation"} and a goal. {stateless}
 *
{_field_comments(reads, task.read_fields)}
{_field_comments("goal", task.read_goal_fields)}
{_field_comments("action", task.action)}
 *
 * Actions are {"in these units, within their limits" if units == "task" else "in [-1, 1], which stand for these limits"}.
 * Inputs are not checked: a NaN gives a NaN, and infinities and numbers far from those in training give any action.
 */
void policy_act({state}const float *{reads}, const float *goal, float *action);

#ifdef __cplusplus
}}
#endif

#endif
"""


def render_source(student: Student, units: Units) -> str:
    """Returns the C source: the weights, and the function that computes an action with them."""
    task, signature = student.task, agent_signature(student.networks)
    reads, read_fields, goal_fields = signature.reads, task.read_fields, task.read_goal_fields
    encoder, actor = _layers(student)
    observed, wanted = encoded_size(read_fields), encoded_size(goal_fields)
    encoding_size = len(encoder[-1].bias) if encoder else observed + signature.memory_size
    state = "policy_state *state, " if signature.memory_size else ""
    hidden_size = max(len(layer.bias) for layer in [*encoder, *actor])
    buffer_size = max(hidden_size, observed, encoding_size + wanted)
    arrays = [
        array_definition(f"{reads}_scale", scales(read_fields)),
        array_definition("goal_scale", scales(goal_fields)),
        *memory_arrays(student),
    ]
    has_quaternions = any(field.quaternion for field in (*read_fields, *goal_fields))
    if units == "task":
        low, high = task.action_limits
        arrays += [
            array_definition("at_minus_one", low),
            array_definition("at_one", high),
            array_definition("lower", np.minimum(low, high)),
            array_definition("upper", np.maximum(low, high)),
        ]
    for name, layers in (("encoder", encoder), ("actor", actor)):
        for i, layer in enumerate(layers):
            arrays.append(array_definition(f"{name}_{i}_kernel", layer.kernel.ravel()))
            arrays.append(array_definition(f"{name}_{i}_bias", layer.bias))
            if layer.norm:
                arrays.append(array_definition(f"{name}_{i}_norm_scale", layer.norm[0]))
                arrays.append(array_definition(f"{name}_{i}_norm_bias", layer.norm[1]))
    functions = [_DENSE, *memory_functions(student)]
    if has_quaternions:
        functions.append(_ROTATION)
    if any(layer.norm for layer in [*encoder, *actor]):
        functions.append(_LAYER_NORM)
    activations = {layer.activation for layer in [*encoder, *actor] if layer.activation}
    functions += [
        f"static void apply_{name}(float *x, int size)\n{{\n    for (int i = 0; i < size; i++)\n"
        f"        x[i] = {ACTIVATIONS[name]};\n}}\n"
        for name in sorted(activations)
    ]
    lines = [
        *_encode(reads, read_fields, 0),
        *memory_lines(student, observed),
        *_layer_calls("encoder", encoder),
        *_encode("goal", goal_fields, encoding_size),
        *_layer_calls("actor", actor),
        *_write_action(units),
    ]
    body = "\n".join(f"    {line}" for line in lines)
    return f"""{_title_comment(student)}
#include "policy.h"

#include <math.h>

{chr(10).join(arrays)}

{chr(10).join(functions)}
void policy_act({state}const float *{reads}, const float *goal, float *action)
{{
    float first[{buffer_size}], second[{buffer_size}];
    float *x = first, *y = second, *swap;

{body}
}}
"""


_DENSE = """static void dense(const float *x, int inputs, const float *kernel, const float *bias, float *y, int outputs)
{
    for (int i = 0; i < outputs; i++) {
        float sum = bias[i];
        for (int j = 0; j < inputs; j++)
            sum += kernel[i * inputs + j] * x[j];
        y[i] = sum;
    }
}
"""

_ROTATION = """static void rotate(const float *q, float *columns)
{
    columns[0] = 1.0f - 2.0f * (q[2] * q[2] + q[3] * q[3]);
    columns[1] = 2.0f * (q[1] * q[2] + q[0] * q[3]);
    columns[2] = 2.0f * (q[1] * q[3] - q[0] * q[2]);
    columns[3] = 2.0f * (q[1] * q[2] - q[0] * q[3]);
    columns[4] = 1.0f - 2.0f * (q[1] * q[1] + q[3] * q[3]);
    columns[5] = 2.0f * (q[2] * q[3] + q[0] * q[1]);
}
"""

_LAYER_NORM = f"""static void normalise(float *x, int size, const float *scale, const float *bias)
{{
    float mean = 0.0f, variance = 0.0f;
    for (int i = 0; i < size; i++)
        mean += x[i];
    mean /= (float)size;
    for (int i = 0; i < size; i++)
        variance += (x[i] - mean) * (x[i] - mean);
    variance /= (float)size;
    for (int i = 0; i < size; i++)
        x[i] = (x[i] - mean) / sqrtf(variance + {EPSILON:g}f) * scale[i] + bias[i];
}}
"""


def _layer_calls(name: str, layers: list[Layer]) -> Iterator[str]:
    """Yields the C lines that apply these layers to `x`."""
    for i, layer in enumerate(layers):
        outputs, inputs = layer.kernel.shape
        yield f"dense(x, {inputs}, {name}_{i}_kernel, {name}_{i}_bias, y, {outputs});"
        if layer.norm:
            yield f"normalise(y, {outputs}, {name}_{i}_norm_scale, {name}_{i}_norm_bias);"
        if layer.activation:
            yield f"apply_{layer.activation}(y, {outputs});"
        yield "swap = x, x = y, y = swap;"


def _encode(name: str, fields: tuple[Field | Sensor, ...], start: int) -> Iterator[str]:
    """Yields the C lines that write what networks read of an observation or goal to `x`, from `start` on.

    See `teachers.tasks.encoding.encode_fields`.
    """
    offset = f"{start} + " if start else ""
    quaternions = quaternion_places(fields)
    if not quaternions:
        yield f"for (int i = 0; i < POLICY_{name.upper()}; i++)"
        yield f"    x[{offset}i] = {name}[i] / {name}_scale[i];"
        return
    plain = plain_places(fields)
    for target, source in enumerate(plain.tolist()):
        yield f"x[{start + target}] = {name}[{source}] / {name}_scale[{source}];"
    for number, source in enumerate(quaternions):
        target = start + len(plain) + number * ROTATION_SIZE
        yield f"rotate({name} + {source}, x + {target});"


def _write_action(units: Units) -> Iterator[str]:
    """Yields the C lines that turn the means in `x` into an action."""
    yield "for (int i = 0; i < POLICY_ACTION; i++) {"
    yield "    const float squashed = tanhf(x[i]);"
    if units == "task":
        yield "    const float range = at_one[i] - at_minus_one[i];"
        yield "    const float value = at_minus_one[i] + (squashed + 1.0f) * (0.5f * range);"
        yield "    action[i] = value < lower[i] ? lower[i] : value > upper[i] ? upper[i] : value;"
    else:
        yield "    action[i] = squashed;"
    yield "}"


def _layers(student: Student) -> tuple[list[Layer], list[Layer]]:
    """Returns the layers of the encoder, if the student has one, and those of the actor.

    The actor's last layer gives the means alone, without the standard deviations.
    """
    shapes = layer_shapes(student.config)
    encoder = (
        _mlp_layers(student.params[ENCODER], shapes[ENCODER], head=False)
        if ENCODER in shapes
        else []
    )
    actor = _mlp_layers(student.params["actor"], shapes["actor"], head=True)
    last, size = actor[-1], student.task.action_size
    actor[-1] = last._replace(kernel=last.kernel[:size], bias=last.bias[:size])
    return encoder, actor


def _mlp_layers(params: Params, shape: MLPConfig, *, head: bool) -> list[Layer]:
    weights: dict[str, Any] = params["params"]
    layers = []
    for i in range(shape.layers + head):
        dense, is_hidden = weights[f"Dense_{i}"], i < shape.layers
        norm = weights[f"LayerNorm_{i}"] if is_hidden and shape.normalisation else None
        layers.append(
            Layer(
                np.asarray(dense["kernel"]).T,
                np.asarray(dense["bias"]),
                None if norm is None else (np.asarray(norm["scale"]), np.asarray(norm["bias"])),
                shape.activation if is_hidden else None,
            )
        )
    return layers


def _field_comments(name: str, fields: tuple[Field | Sensor, ...]) -> str:
    """Returns one comment line for each field of an array: its indices, meaning, unit and limits."""
    field_slices = slices(fields)
    lines = []
    for field in fields:
        first, last = field_slices[field.name].start, field_slices[field.name].stop - 1
        indices = f"[{first}]" if first == last else f"[{first}..{last}]"
        field_range = (
            "" if field.low is None or field.high is None else f", {field.low:g} to {field.high:g}"
        )
        text = f"{field.name}, {field.meaning} ({field.unit}{field_range})"
        lines.append(f" * {name}{indices}: {escape_comment(text)}")
    return "\n".join(lines)


def _title_comment(student: Student) -> str:
    metadata = student.metadata
    teacher = metadata.lineage.get("teacher", {})
    depth = teacher.get("networks", {}).get("actor", {}).get("depth")
    origin = f", a student of a teacher of {depth} layers" if depth else ""
    task = escape_comment(metadata.task)
    return f"/* Policy of task {task}{origin}; written by crl-distill {version('crl-distill')}. */"
