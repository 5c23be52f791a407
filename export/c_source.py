"""A student's policy as one C99 file and header: no heap, no dependency but the C library's math."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from export.contract import Units
from export.units import limits
from students.config import Activation, MLPConfig, SavedStudentConfig
from students.networks import ENCODER, layer_shapes
from teachers.agent import Agent
from teachers.crl.parameters import Params
from teachers.runs.configuration import stored_config
from teachers.runs.errors import InputError
from teachers.runs.outputs import make_folder, require_new
from teachers.runs.paths import write_whole
from teachers.tasks import Field, Task
from teachers.tasks.base import slices

EPSILON = 1e-6  # of flax.linen.LayerNorm
PER_LINE = 6
ACTIVATIONS: dict[Activation, str] = {
    "relu": "x[i] < 0.0f ? 0.0f : x[i]",
    "swish": "x[i] / (1.0f + expf(-x[i]))",
    "tanh": "tanhf(x[i])",
}


class Layer(NamedTuple):
    """One layer, as it is computed."""

    kernel: Float[np.ndarray, "outputs inputs"]
    bias: Float[np.ndarray, "outputs"]
    norm: tuple[np.ndarray, np.ndarray] | None  # scale and bias of a LayerNorm after it
    activation: Activation | None


def export_c(student: Agent, out: epath.PathLike, units: Units = "task") -> dict[str, str]:
    """Writes `policy.c` and `policy.h`.

    Args:
        student: as `load_student` gives it.
        out: a new folder.
        units: of actions.

    Returns:
        The paths of `source` and `header`.

    Raises:
        InputError: it is a teacher, has weights that are not finite, or `out` is taken.
    """
    if student.metadata.kind != "student":
        raise InputError(
            "a teacher is too deep for a microcontroller; distill it, and export the student"
        )
    if not all(np.isfinite(each).all() for each in jax.tree.leaves(student.params)):
        raise InputError("the student has weights that are not finite; distill it again")
    out = epath.Path(out)
    require_new(out)
    make_folder(out)
    write_whole(out / "policy.c", source(student, units))
    write_whole(out / "policy.h", header(student, units))
    return {"source": str(out / "policy.c"), "header": str(out / "policy.h")}


def header(student: Agent, units: Units) -> str:
    """The C header: sizes, and which number goes where."""
    task = student.task
    return f"""{_notice(student)}
#ifndef POLICY_H
#define POLICY_H

#ifdef __cplusplus
extern "C" {{
#endif

#define POLICY_OBSERVATION {task.observation_size}
#define POLICY_GOAL {task.goal_size}
#define POLICY_ACTION {task.action_size}
#define POLICY_CONTROL_PERIOD {_number(task.control_period)} /* s */

/*
 * The action for an observation and a goal. Reads and writes these arrays alone; safe in any thread.
 *
{_fields("observation", task.observation)}
{_fields("goal", task.goal)}
{_fields("action", task.action)}
 *
 * Actions are {"in these units, within their limits" if units == "task" else "in [-1, 1], which stand for their limits"}.
 * Inputs are not checked: of a NaN comes a NaN, of numbers far from those in training come any actions.
 */
void policy_act(const float *observation, const float *goal, float *action);

#ifdef __cplusplus
}}
#endif

#endif
"""


def source(student: Agent, units: Units) -> str:
    """The C file: weights, and the function that computes an action with them."""
    task = student.task
    encoder, actor = _layers(student)
    joined = len(encoder[-1].bias) if encoder else task.observation_size
    hidden = max(len(layer.bias) for layer in [*encoder, *actor])
    widest = max(hidden, task.observation_size, joined + task.goal_size)
    arrays = [
        *_array("observation_scale", task.observation_scale),
        *_array("goal_scale", task.goal_scale),
    ]
    if units == "task":
        low, high = limits(task)
        arrays += [*_array("low", low), *_array("high", high)]
        arrays += [*_array("least", np.minimum(low, high)), *_array("most", np.maximum(low, high))]
    for name, layers in (("encoder", encoder), ("actor", actor)):
        for i, layer in enumerate(layers):
            arrays += _array(f"{name}_{i}_kernel", layer.kernel.ravel())
            arrays += _array(f"{name}_{i}_bias", layer.bias)
            if layer.norm:
                arrays += _array(f"{name}_{i}_norm_scale", layer.norm[0])
                arrays += _array(f"{name}_{i}_norm_bias", layer.norm[1])
    functions = [_DENSE]
    if any(layer.norm for layer in [*encoder, *actor]):
        functions.append(_NORM)
    used = {layer.activation for layer in [*encoder, *actor] if layer.activation}
    functions += [
        f"static void apply_{name}(float *x, int size)\n{{\n    for (int i = 0; i < size; i++)\n"
        f"        x[i] = {ACTIVATIONS[name]};\n}}\n"
        for name in sorted(used)
    ]
    calls = [*_calls("encoder", encoder), *_join(task, joined), *_calls("actor", actor)]
    body = "\n".join(f"    {line}" for line in [*calls, *_finish(units)])
    return f"""{_notice(student)}
#include "policy.h"

#include <math.h>

{chr(10).join(arrays)}

{chr(10).join(functions)}
void policy_act(const float *observation, const float *goal, float *action)
{{
    float one[{widest}], other[{widest}];
    float *x = one, *y = other, *swap;

    for (int i = 0; i < POLICY_OBSERVATION; i++)
        x[i] = observation[i] / observation_scale[i];
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

_NORM = f"""static void normalise(float *x, int size, const float *scale, const float *bias)
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


def _calls(name: str, layers: list[Layer]) -> Iterator[str]:
    for i, layer in enumerate(layers):
        outputs, inputs = layer.kernel.shape
        yield f"dense(x, {inputs}, {name}_{i}_kernel, {name}_{i}_bias, y, {outputs});"
        if layer.norm:
            yield f"normalise(y, {outputs}, {name}_{i}_norm_scale, {name}_{i}_norm_bias);"
        if layer.activation:
            yield f"apply_{layer.activation}(y, {outputs});"
        yield "swap = x, x = y, y = swap;"


def _join(task: Task, joined: int) -> Iterator[str]:
    yield "for (int i = 0; i < POLICY_GOAL; i++)"
    yield f"    x[{joined} + i] = goal[i] / goal_scale[i];"


def _finish(units: Units) -> Iterator[str]:
    yield "for (int i = 0; i < POLICY_ACTION; i++) {"
    yield "    const float squashed = tanhf(x[i]);"
    if units == "task":
        yield "    const float inside = low[i] + (squashed + 1.0f) * (0.5f * (high[i] - low[i]));"
        yield "    action[i] = inside < least[i] ? least[i] : inside > most[i] ? most[i] : inside;"
    else:
        yield "    action[i] = squashed;"
    yield "}"


def _layers(student: Agent) -> tuple[list[Layer], list[Layer]]:
    """Of the encoder, if the student has one, and of the actor, whose head gives the means alone."""
    raw = student.metadata.config
    config = stored_config(
        SavedStudentConfig,
        {**raw.get("student", {}), "embedding": raw.get("embedding")},
        "the student",
    )
    shapes = layer_shapes(config)
    encoder = (
        _of_mlp(student.params[ENCODER], shapes[ENCODER], head=False) if ENCODER in shapes else []
    )
    actor = _of_mlp(student.params["actor"], shapes["actor"], head=True)
    last, size = actor[-1], student.task.action_size
    actor[-1] = last._replace(kernel=last.kernel[:size], bias=last.bias[:size])
    return encoder, actor


def _of_mlp(params: Params, shape: MLPConfig, *, head: bool) -> list[Layer]:
    weights: dict[str, Any] = params["params"]
    found = []
    for i in range(shape.layers + head):
        dense, hidden = weights[f"Dense_{i}"], i < shape.layers
        norm = weights[f"LayerNorm_{i}"] if hidden and shape.normalisation else None
        found.append(
            Layer(
                np.asarray(dense["kernel"]).T,
                np.asarray(dense["bias"]),
                None if norm is None else (np.asarray(norm["scale"]), np.asarray(norm["bias"])),
                shape.activation if hidden else None,
            )
        )
    return found


def _array(name: str, values: np.ndarray) -> list[str]:
    numbers = [_number(float(value)) for value in values]
    lines = [", ".join(numbers[i : i + PER_LINE]) for i in range(0, len(numbers), PER_LINE)]
    inside = ",\n    ".join(lines)
    return [f"static const float {name}[{len(numbers)}] = {{\n    {inside}\n}};"]


def _number(value: float) -> str:
    """A C literal with digits enough to be the same float again."""
    text = f"{np.float32(value):.9g}"
    return f"{text if set('.en') & set(text) else text + '.0'}f"


def _fields(name: str, fields: tuple[Field, ...]) -> str:
    where = slices(fields)
    lines = []
    for field in fields:
        first, last = where[field.name].start, where[field.name].stop - 1
        index = f"[{first}]" if first == last else f"[{first}..{last}]"
        ends = (
            "" if field.low is None or field.high is None else f", {field.low:g} to {field.high:g}"
        )
        lines.append(
            f" * {name}{index}: {_comment(f'{field.name}, {field.meaning} ({field.unit}{ends})')}"
        )
    return "\n".join(lines)


def _notice(student: Agent) -> str:
    metadata = student.metadata
    teacher = metadata.lineage.get("teacher", {})
    depth = teacher.get("networks", {}).get("actor", {}).get("depth")
    of = f", a student of a teacher of {depth} layers" if depth else ""
    return f"/* Policy of task {_comment(metadata.task)}{of}; written by crl-distill {version('crl-distill')}. */"


def _comment(text: str) -> str:
    """Text that does not end the comment in which it stands."""
    return " ".join(text.replace("*/", "* /").replace("/*", "/ *").split())
