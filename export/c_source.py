"""Writes a student's policy as C99: one source file and its header, which need the C library's math alone, and no heap."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from export.contract import Units
from students.artefact import Student
from students.config import Activation, MLPConfig
from students.networks import ENCODER, layer_shapes, require_observing
from teachers.crl.parameters import Params
from teachers.process import in_32_bits
from teachers.runs.errors import InputError
from teachers.runs.outputs import require_unused, write_atomically
from teachers.runs.paths import create_folder
from teachers.tasks import Field
from teachers.tasks.declaration import slices
from teachers.tasks.encoding import (
    ROTATION_SIZE,
    encoded_size,
    plain_places,
    quaternion_places,
)

EPSILON = 1e-6  # the default of flax.linen.LayerNorm
NUMBERS_PER_LINE = 6
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
        InputError: the agent is a teacher, reads sensors or remembers, has weights that are not finite, or `out` holds something already.
    """
    if student.metadata.kind != "student":
        raise InputError(
            "a teacher is too deep for a microcontroller; distill it, and export the student"
        )
    require_observing(student.networks, "export")
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
    task = student.task
    return f"""{_title_comment(student)}
#ifndef POLICY_H
#define POLICY_H

#ifdef __cplusplus
extern "C" {{
#endif

#define POLICY_OBSERVATION {task.observation_size}
#define POLICY_GOAL {task.goal_size}
#define POLICY_ACTION {task.action_size}
#define POLICY_CONTROL_PERIOD {_float_literal(task.control_period)} /* s */

/*
 * Computes the action for an observation and a goal. It has no state, so that several threads may call it at once.
 *
{_field_comments("observation", task.observation)}
{_field_comments("goal", task.goal)}
{_field_comments("action", task.action)}
 *
 * Actions are {"in these units, within their limits" if units == "task" else "in [-1, 1], which stand for these limits"}.
 * Inputs are not checked: a NaN gives a NaN, and infinities and numbers far from those in training give any action.
 */
void policy_act(const float *observation, const float *goal, float *action);

#ifdef __cplusplus
}}
#endif

#endif
"""


def render_source(student: Student, units: Units) -> str:
    """Returns the C source: the weights, and the function that computes an action with them."""
    task = student.task
    encoder, actor = _layers(student)
    observed, wanted = encoded_size(task.observation), encoded_size(task.goal)
    encoding_size = len(encoder[-1].bias) if encoder else observed
    hidden_size = max(len(layer.bias) for layer in [*encoder, *actor])
    buffer_size = max(hidden_size, observed, encoding_size + wanted)
    arrays = [
        _array("observation_scale", task.observation_scale),
        _array("goal_scale", task.goal_scale),
    ]
    has_quaternions = any(field.quaternion for field in (*task.observation, *task.goal))
    if units == "task":
        low, high = task.action_limits
        arrays += [
            _array("at_minus_one", low),
            _array("at_one", high),
            _array("lower", np.minimum(low, high)),
            _array("upper", np.maximum(low, high)),
        ]
    for name, layers in (("encoder", encoder), ("actor", actor)):
        for i, layer in enumerate(layers):
            arrays.append(_array(f"{name}_{i}_kernel", layer.kernel.ravel()))
            arrays.append(_array(f"{name}_{i}_bias", layer.bias))
            if layer.norm:
                arrays.append(_array(f"{name}_{i}_norm_scale", layer.norm[0]))
                arrays.append(_array(f"{name}_{i}_norm_bias", layer.norm[1]))
    functions = [_DENSE]
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
        *_encode("observation", task.observation, 0),
        *_layer_calls("encoder", encoder),
        *_encode("goal", task.goal, encoding_size),
        *_layer_calls("actor", actor),
        *_write_action(units),
    ]
    body = "\n".join(f"    {line}" for line in lines)
    return f"""{_title_comment(student)}
#include "policy.h"

#include <math.h>

{chr(10).join(arrays)}

{chr(10).join(functions)}
void policy_act(const float *observation, const float *goal, float *action)
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


def _encode(name: str, fields: tuple[Field, ...], start: int) -> Iterator[str]:
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


def _array(name: str, values: np.ndarray) -> str:
    """Returns the C definition of a constant array."""
    literals = [_float_literal(float(value)) for value in values]
    lines = [
        ", ".join(literals[i : i + NUMBERS_PER_LINE])
        for i in range(0, len(literals), NUMBERS_PER_LINE)
    ]
    content = ",\n    ".join(lines)
    return f"static const float {name}[{len(literals)}] = {{\n    {content}\n}};"


def _float_literal(value: float) -> str:
    """Returns a C literal with enough digits to give the same float again."""
    text = f"{np.float32(value):.9g}"
    return f"{text if set('.en') & set(text) else text + '.0'}f"


def _field_comments(name: str, fields: tuple[Field, ...]) -> str:
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
        lines.append(f" * {name}{indices}: {_escape_comment(text)}")
    return "\n".join(lines)


def _title_comment(student: Student) -> str:
    metadata = student.metadata
    teacher = metadata.lineage.get("teacher", {})
    depth = teacher.get("networks", {}).get("actor", {}).get("depth")
    origin = f", a student of a teacher of {depth} layers" if depth else ""
    task = _escape_comment(metadata.task)
    return f"/* Policy of task {task}{origin}; written by crl-distill {version('crl-distill')}. */"


def _escape_comment(text: str) -> str:
    """Returns text on one line that does not end the C comment around it."""
    return " ".join(text.replace("*/", "* /").replace("/*", "/ *").split())
