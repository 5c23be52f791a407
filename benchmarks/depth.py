"""What depth costs: the critic's gradient step, scanned and unrolled, in one run and side by side."""

import gc
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import parser, report
from flax import linen as nn

from teachers.config import LAYERS_PER_BLOCK
from teachers.crl.losses import info_nce
from teachers.crl.networks import pairwise_logits
from teachers.crl.residual_mlp import ResidualMLP

STATE, ACTION, GOAL, EMBEDDING = 29, 8, 2, 64  # the ant's sizes
SECONDS = 20.0  # of measuring, at each depth


class Unrolled(nn.Module):
    """The published network as one writes it down: a Python loop over layers, differentiated as it is."""

    depth: int
    width: int
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        uniform = nn.initializers.lecun_uniform()
        x = nn.swish(nn.LayerNorm()(nn.Dense(self.width, kernel_init=uniform)(x)))
        for _block in range(self.depth // LAYERS_PER_BLOCK):
            y = x
            for _layer in range(LAYERS_PER_BLOCK):
                y = nn.swish(nn.LayerNorm()(nn.Dense(self.width, kernel_init=uniform)(y)))
            x = x + y
        return nn.Dense(self.outputs, kernel_init=uniform)(x)


FORMS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "scan": ResidualMLP,
    "unrolled": Unrolled,
    "remat": lambda *shape: ResidualMLP(*shape, remat=True),
    "bfloat16": lambda *shape: ResidualMLP(*shape, dtype="bfloat16"),
}


class Ready(NamedTuple):
    """A form that was initialised and compiled."""

    state: Any
    update: Callable[..., Any]
    row: dict[str, Any]


def prepare(form: str, depth: int, width: int, data: tuple[jax.Array, ...]) -> Ready:
    """Initialises phi and psi and compiles their gradient step, and times both."""
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

    def compiled(rows: int) -> Any:
        batch = tuple(x[:rows] for x in data)
        return jax.jit(update, donate_argnums=0).lower(state, *batch).compile()

    jax.clear_caches()  # what an unrolled network leaves there slows the tracing of all that follow
    gc.collect()
    begun = time.perf_counter()
    state = jax.block_until_ready(jax.jit(init)(jax.random.key(0)))
    initialised = time.perf_counter()
    whole = compiled(len(goal))
    seconds = time.perf_counter() - initialised
    memory, half = whole.memory_analysis(), compiled(len(goal) // 2).memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
    row = {
        "form": form,
        "depth": depth,
        "init_s": initialised - begun,
        "compile_s": seconds,
        "update_s": None,
        "peak_bytes": peak + memory.temp_size_in_bytes - memory.alias_size_in_bytes,
        # What grows with the batch; gradients and the optimiser's state do not.
        "activation_bytes": 2 * (memory.temp_size_in_bytes - half.temp_size_in_bytes),
    }
    return Ready(state, whole, row)


def measure(depth: int, width: int, batch: int, forms: list[str]) -> list[dict[str, Any]]:
    """A row for each form; their gradient steps are timed in turn."""
    keys = jax.random.split(jax.random.key(1))
    data = (
        jax.random.normal(keys[0], (batch, STATE + ACTION)),
        jax.random.normal(keys[1], (batch, GOAL)),
    )
    ready = {form: prepare(form, depth, width, data) for form in forms}
    times: dict[str, list[float]] = {form: [] for form in forms}
    begun, round_ = time.perf_counter(), 0
    while round_ < 6 or (time.perf_counter() - begun < SECONDS and round_ < 200):
        for form, (state, update, row) in ready.items():
            before = time.perf_counter()
            state, _loss = jax.block_until_ready(update(state, *data))
            if round_:  # the first one touches all memory for the first time
                times[form].append(time.perf_counter() - before)
            ready[form] = Ready(state, update, row)
        round_ += 1
    for form in forms:
        ready[form].row["update_s"] = float(np.median(times[form]))
    return [ready[form].row for form in forms]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--depths", default="4,16,64,256,1024", help="separated by commas")
    options.add_argument("--width", type=int, default=256)
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--forms", default="scan,unrolled,remat", help=f"of {', '.join(FORMS)}")
    options.add_argument(
        "--deepest-unrolled",
        type=int,
        default=256,
        help="beyond it the unrolled form, which compiles for minutes, is left out",
    )
    options = options.parse_args()
    forms = options.forms.split(",")
    if unknown := set(forms) - set(FORMS):
        raise SystemExit(f"unknown form {unknown.pop()!r}; choose from {', '.join(FORMS)}")
    # What is measured is how long compiling takes: nothing may come out of a cache, or be the process's first.
    jax.config.update("jax_enable_compilation_cache", False)
    prepare("scan", 8, options.width, (jnp.zeros((4, STATE + ACTION)), jnp.zeros((4, GOAL))))
    rows: list[dict[str, Any]] = []
    for depth in map(int, options.depths.split(",")):
        too_deep = {"unrolled"} if depth > options.deepest_unrolled else set()
        rows += measure(
            depth, options.width, options.batch, [form for form in forms if form not in too_deep]
        )
        report(rows, options.json)
        gc.collect()


if __name__ == "__main__":
    main()
