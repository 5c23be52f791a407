"""Measures what the depth of a critic costs: initialisation, compilation, gradient step and memory.

The scanned network of this project and other forms of the same network are compared side by side in one process. Run
it with `python benchmarks/depth.py --depths 4,16,64,256 --forms scan,unrolled,remat --json FILE`.
"""

import gc
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import make_parser, report
from flax import linen as nn

from teachers.config import LAYERS_PER_BLOCK
from teachers.crl.losses import info_nce
from teachers.crl.networks import pairwise_logits
from teachers.crl.residual_mlp import PUBLISHED_KERNELS, ResidualMLP

OBSERVATION, ACTION, GOAL, EMBEDDING = 29, 8, 2, 64  # sizes of the ant's arrays
MEASURE_SECONDS = 20.0  # of timed gradient steps at each depth
MIN_ROUNDS, MAX_ROUNDS = 6, 200


class UnrolledMLP(nn.Module):
    """The published residual MLP as a Python loop over layers, without a scan and without rematerialisation."""

    depth: int
    width: int
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the network's outputs, `[batch, outputs]`."""
        x = nn.swish(nn.LayerNorm()(nn.Dense(self.width, kernel_init=PUBLISHED_KERNELS)(x)))
        for _block in range(self.depth // LAYERS_PER_BLOCK):
            y = x
            for _layer in range(LAYERS_PER_BLOCK):
                y = nn.swish(nn.LayerNorm()(nn.Dense(self.width, kernel_init=PUBLISHED_KERNELS)(y)))
            x = x + y
        return nn.Dense(self.outputs, kernel_init=PUBLISHED_KERNELS)(x)


FORMS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "scan": ResidualMLP,
    "unrolled": UnrolledMLP,
    "remat": lambda *shape: ResidualMLP(*shape, remat=True),
    "bfloat16": lambda *shape: ResidualMLP(*shape, dtype="bfloat16"),
}


class CompiledForm(NamedTuple):
    """An initialised form of the critic with its compiled gradient step."""

    state: Any  # parameters and the optimiser's state
    update: Callable[..., Any]
    row: dict[str, Any]  # of the table; `update_s` is still None


def compile_form(form: str, depth: int, width: int, data: tuple[jax.Array, ...]) -> CompiledForm:
    """Initialises phi and psi, compiles their gradient step, and measures the seconds and memory of both.

    Args:
        form: a key of `FORMS`.
        depth: of phi and psi, in layers.
        width: of phi and psi.
        data: observations with actions `[batch, 37]`, and goals `[batch, 2]`.
    """
    phi, psi = (FORMS[form](depth, width, EMBEDDING) for _ in range(2))
    adam = optax.adam(3e-4)
    state_action, goal = data

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key)
        params = {"phi": phi.init(keys[0], state_action), "psi": psi.init(keys[1], goal)}
        return params, adam.init(params)

    def objective(params: Any, state_action: jax.Array, goal: jax.Array) -> jax.Array:
        embeddings = phi.apply(params["phi"], state_action), psi.apply(params["psi"], goal)
        return info_nce(pairwise_logits(*embeddings), 0.1)[0]

    def update(state: Any, state_action: jax.Array, goal: jax.Array) -> Any:
        params, optimizer = state
        loss, grads = jax.value_and_grad(objective)(params, state_action, goal)
        updates, optimizer = adam.update(grads, optimizer)
        return (optax.apply_updates(params, updates), optimizer), loss

    def compile_update(batch_size: int) -> Any:
        batch = tuple(x[:batch_size] for x in data)
        return jax.jit(update, donate_argnums=0).lower(state, *batch).compile()

    # What an unrolled network leaves in JAX's caches slows the tracing of the forms after it.
    jax.clear_caches()
    gc.collect()
    start = time.perf_counter()
    state = jax.block_until_ready(jax.jit(init)(jax.random.key(0)))
    initialised = time.perf_counter()
    compiled = compile_update(len(goal))
    compile_seconds = time.perf_counter() - initialised
    memory = compiled.memory_analysis()
    half_batch_memory = compile_update(len(goal) // 2).memory_analysis()
    arguments_and_outputs = memory.argument_size_in_bytes + memory.output_size_in_bytes
    row = {
        "form": form,
        "depth": depth,
        "init_s": initialised - start,
        "compile_s": compile_seconds,
        "update_s": None,
        "peak_bytes": arguments_and_outputs
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes,
        # Only activations grow with the batch; gradients and the optimiser's state do not.
        "activation_bytes": 2 * (memory.temp_size_in_bytes - half_batch_memory.temp_size_in_bytes),
    }
    return CompiledForm(state, compiled, row)


def measure(depth: int, width: int, batch: int, forms: list[str]) -> list[dict[str, Any]]:
    """Returns a row for each form; the gradient steps of the forms are timed in turn, because machines are noisy."""
    keys = jax.random.split(jax.random.key(1))
    data = (
        jax.random.normal(keys[0], (batch, OBSERVATION + ACTION)),
        jax.random.normal(keys[1], (batch, GOAL)),
    )
    compiled = {form: compile_form(form, depth, width, data) for form in forms}
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    start, rounds = time.perf_counter(), 0
    while rounds < MIN_ROUNDS or (
        time.perf_counter() - start < MEASURE_SECONDS and rounds < MAX_ROUNDS
    ):
        for form, (state, update, row) in compiled.items():
            update_start = time.perf_counter()
            state, _loss = jax.block_until_ready(update(state, *data))
            if (
                rounds
            ):  # the first update is slow, because it uses all of its memory for the first time
                seconds[form].append(time.perf_counter() - update_start)
            compiled[form] = CompiledForm(state, update, row)
        rounds += 1
    for form in forms:
        compiled[form].row["update_s"] = float(np.median(seconds[form]))
    return [compiled[form].row for form in forms]


def main() -> None:
    """Measures all forms at all depths and prints the table after each depth."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--depths",
        default="4,16,64,256,1024",
        help="depths of phi and psi, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--width", type=int, default=256, help="of phi and psi (default: %(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=256, help="state-action pairs in a batch (default: 256)"
    )
    parser.add_argument(
        "--forms",
        default="scan,unrolled,remat",
        help=f"forms to compare, separated by commas, of {', '.join(FORMS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--deepest-unrolled",
        type=int,
        default=256,
        metavar="DEPTH",
        help="leave the unrolled form out above this depth, because it compiles for minutes "
        "(default: %(default)s)",
    )
    options = parser.parse_args()
    forms = options.forms.split(",")
    if unknown := set(forms) - set(FORMS):
        raise SystemExit(f"unknown form {unknown.pop()!r}; choose from {', '.join(FORMS)}")
    # Compile times are measured, so that no program may come from the cache. The first program of a process compiles
    # longer than the others, so that one is compiled here and not measured.
    jax.config.update("jax_enable_compilation_cache", False)
    zeros = jnp.zeros((4, OBSERVATION + ACTION)), jnp.zeros((4, GOAL))
    compile_form("scan", 8, options.width, zeros)
    rows: list[dict[str, Any]] = []
    for depth in map(int, options.depths.split(",")):
        excluded = {"unrolled"} if depth > options.deepest_unrolled else set()
        rows += measure(
            depth, options.width, options.batch, [form for form in forms if form not in excluded]
        )
        report(rows, options.json)
        gc.collect()


if __name__ == "__main__":
    main()
