"""A program that tries engines on a model: how long one takes to compile, how fast it is, and where its states end.

It is a process of its own, because MJX may take more time or memory for a model than there is.
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from teachers.runs.errors import InputError
from teachers.tasks.c_engine import simulate_with_c
from teachers.tasks.declaration import Physics
from teachers.tasks.engines import simulate_with_jax

MODEL, STARTS = "model.mjb", "starts.npz"
TIMED_SECONDS = 1.0  # for which each engine runs at least


def probe(folder: Path, engine: str) -> dict[str, float]:
    """Returns the seconds that an engine takes to compile and its control steps per second, and saves its states.

    Args:
        folder: with the model, and a file of initial states `[env, n]`, the controls `[time, env, nu]` and `substeps`.
            The states after each step are written there, to `ENGINE.npz`.
        engine: `c` or `jax`.

    Raises:
        InputError: the engine does not take the model.
    """
    model = mujoco.MjModel.from_binary_path(str(folder / MODEL))
    with np.load(folder / STARTS) as file:
        arrays = dict(file)
    controls, substeps = jnp.asarray(arrays.pop("controls")), int(arrays.pop("substeps"))
    start = Physics(**{name: jnp.asarray(array) for name, array in arrays.items()})
    began = time.perf_counter()
    simulation = simulate_with_c(model) if engine == "c" else simulate_with_jax(model, "task")

    def advance(physics: Physics, control: jax.Array) -> Physics:
        return simulation.advance(physics, control, substeps)

    @jax.jit
    def roll_out(physics: Physics) -> tuple[Physics, tuple[jax.Array, jax.Array]]:
        def step(
            physics: Physics, control: jax.Array
        ) -> tuple[Physics, tuple[jax.Array, jax.Array]]:
            physics = jax.vmap(advance)(physics, control)
            return physics, (physics.qpos, physics.qvel)

        return jax.lax.scan(step, physics, controls)

    compiled = roll_out.lower(start).compile()
    compile_seconds = time.perf_counter() - began
    _, (qpos, qvel) = jax.block_until_ready(compiled(start))
    np.savez(folder / f"{engine}.npz", qpos=qpos, qvel=qvel)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < TIMED_SECONDS:
        jax.block_until_ready(compiled(start))
        steps += controls.shape[0] * controls.shape[1]
    speed = steps / (time.perf_counter() - began)
    return {"compile_seconds": compile_seconds, "steps_per_second": speed}


if __name__ == "__main__":
    try:
        found: dict[str, float | str] = dict(probe(Path(sys.argv[1]), sys.argv[2]))
    except InputError as error:
        found = {"problem": f"does not take the model: {error.__cause__ or error}"}
    print(json.dumps(found))
