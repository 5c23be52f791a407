"""The C of students that remember: the state that the caller owns, and how it is read and written."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from export.c_text import array_definition
from students.artefact import Student
from students.memory import ENCODER


def memory_header(size: int) -> str:
    """Returns the declarations of the state; empty for a student that remembers nothing."""
    if not size:
        return ""
    return f"""#define POLICY_MEMORY {size}

/*
 * What the policy carries from one control step to the next. The caller owns it; each robot has its own. A NaN that is read
 * stays in it: check what the sensors read before policy_act, and reset the state after an action that is not finite.
 */
typedef struct {{
    float memory[POLICY_MEMORY];
}} policy_state;

/* Starts an episode: forgets what was read before. Call it before the first policy_act. */
void policy_reset(policy_state *state);

"""


def memory_arrays(student: Student) -> Iterator[str]:
    """Yields the definitions of a GRU's weights; those of the two gates take reading and memory together."""
    if not _has_gru(student):
        return
    weights: dict[str, Any] = student.params[ENCODER]["params"]

    def kernel(name: str) -> np.ndarray:
        return np.asarray(weights[name]["kernel"]).T

    for name, gate in (("reset", "r"), ("update", "z")):
        both = np.concatenate([kernel(f"i{gate}"), kernel(f"h{gate}")], axis=1)
        yield array_definition(f"{name}_kernel", both.ravel())
        yield array_definition(f"{name}_bias", np.asarray(weights[f"i{gate}"]["bias"]))
    for name, layer in (("new", "in"), ("past", "hn")):
        yield array_definition(f"{name}_kernel", kernel(layer).ravel())
        yield array_definition(f"{name}_bias", np.asarray(weights[layer]["bias"]))


def memory_functions(student: Student) -> Iterator[str]:
    """Yields the C functions that read and write the state."""
    size = student.networks.memory_size
    if not size:
        return
    yield f"""void policy_reset(policy_state *state)
{{
    for (int i = 0; i < {size}; i++)
        state->memory[i] = 0.0f;
}}
"""
    if _has_gru(student):
        yield f"""static void remember(const float *x, int inputs, float *memory)
{{
    float reset[{size}], update[{size}], fresh[{size}], past[{size}];

    dense(x, inputs + {size}, reset_kernel, reset_bias, reset, {size});
    dense(x, inputs + {size}, update_kernel, update_bias, update, {size});
    dense(x, inputs, new_kernel, new_bias, fresh, {size});
    dense(memory, {size}, past_kernel, past_bias, past, {size});
    for (int i = 0; i < {size}; i++) {{
        const float kept = 1.0f / (1.0f + expf(-update[i]));
        const float shown = 1.0f / (1.0f + expf(-reset[i]));
        memory[i] = (1.0f - kept) * tanhf(fresh[i] + shown * past[i]) + kept * memory[i];
    }}
}}
"""


def memory_lines(student: Student, read: int) -> Iterator[str]:
    """Yields the C lines that write the memory to `x` behind a reading of `read` numbers, and update the state."""
    size = student.networks.memory_size
    if not size:
        return
    to_x = [f"for (int i = 0; i < {size}; i++)", f"    x[{read} + i] = state->memory[i];"]
    yield from to_x
    if _has_gru(student):
        yield f"remember(x, {read}, state->memory);"
        yield from to_x
    else:  # the newest reading first
        yield f"for (int i = 0; i < {size}; i++)"
        yield "    state->memory[i] = x[i];"


def _has_gru(student: Student) -> bool:
    return student.config.memory == "gru"
