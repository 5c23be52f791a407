"""What checkpoints cost: how long training stands still for one, their size, and the seconds to write and read them."""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from common import parser, report

from teachers import teacher_config
from teachers.crl.iteration import init_training, placement
from teachers.resume import restore, saved_items
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.train import describe

REPEATS = 3
SIZES = ((16, 64, True), (16, 256, True), (1024, 32, True), (1024, 256, True), (1024, 256, False))


def measure(depth: int, width: int, replay: bool) -> dict[str, Any]:
    """Medians over some checkpoints of a teacher of this size, on the disk of the temporary folder."""
    networks = ("actor", "phi", "psi")
    sizes = {f"{network}.depth": depth for network in networks} | {
        f"{network}.width": width for network in networks
    }
    config = teacher_config("reacher", overrides=sizes)
    make = partial(init_training, config)
    state = jax.jit(make, out_shardings=placement(jax.eval_shape(make)))()
    # Fresh states hold many zeros, which take no room.
    state = jax.block_until_ready(jax.tree.map(filled, state))
    metadata = describe(config, state.learner.params, 0, {})
    still, written, read = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(1, REPEATS + 2):
            with CheckpointWriter(folder) as checkpoints:
                begun = time.perf_counter()
                checkpoints.save(i, metadata, saved_items(state, replay))
                still.append(time.perf_counter() - begun)
            written.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            jax.block_until_ready(restore(config, folder, i, metadata))
            read.append(time.perf_counter() - begun)
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    # The first of each compiles the fingerprints.
    return {
        "depth": depth,
        "width": width,
        "replay": replay,
        "megabytes": round(size / 1e6, 1),
        "stands still (s)": round(statistics.median(still[1:]), 3),
        "written after (s)": round(statistics.median(written[1:]), 3),
        "read in (s)": round(statistics.median(read[1:]), 3),
        "first still (s)": round(still[0], 3),
    }


def filled(array: jax.Array) -> jax.Array:
    if array.dtype != jnp.float32:
        return array
    numbers = jax.random.normal(jax.random.key(0), array.shape)
    return jax.device_put(numbers, array.sharding)


def main() -> None:
    options = parser(__doc__).parse_args()
    report([measure(*size) for size in SIZES], options.json)


if __name__ == "__main__":
    main()
