"""Measures what a checkpoint costs: the pause in training, the seconds to write and read it, and its size.

Each row is the median over several checkpoints of a teacher of the task `reacher`, with and without the replay
buffer, on the disk that holds the temporary folder. Run it with `python benchmarks/checkpoint.py --json FILE`.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from common import make_parser, network_sizes, report

from teachers import teacher_config
from teachers.crl.state_checkpoint import checkpoint_items, restore_state
from teachers.crl.training_programs import teacher_programs
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.train import teacher_metadata

REPEATS = 3
# Depth and width of each network, and whether the checkpoint holds the replay buffer.
SIZES = ((16, 64, True), (16, 256, True), (1024, 32, True), (1024, 256, True), (1024, 256, False))


def measure(depth: int, width: int, replay: bool) -> dict[str, Any]:
    """Returns the row of one teacher: megabytes, and seconds of the pause, of writing and of reading."""
    config = teacher_config("reacher", overrides=network_sizes(depth, width))
    programs = teacher_programs(config)
    state = programs.init(jnp.uint32(config.seed))
    # A new state holds many zeros, which compression would make smaller than a trained state.
    state = jax.block_until_ready(jax.tree.map(fill_with_noise, state))
    metadata = teacher_metadata(config, state.learner.params, {"steps": 0})
    pause_seconds, write_seconds, read_seconds = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(1, REPEATS + 2):
            with CheckpointWriter(folder) as writer:
                start = time.perf_counter()
                writer.save(step, metadata, checkpoint_items(state, with_replay=replay))
                pause_seconds.append(time.perf_counter() - start)
            write_seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
            jax.block_until_ready(restore_state(programs, folder, step, metadata))
            read_seconds.append(time.perf_counter() - start)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    # The first repeat compiles the fingerprints' programs, so the medians leave it out.
    return {
        "depth": depth,
        "width": width,
        "replay": replay,
        "megabytes": round(size / 1e6, 1),
        "stands still (s)": round(statistics.median(pause_seconds[1:]), 3),
        "written after (s)": round(statistics.median(write_seconds[1:]), 3),
        "read in (s)": round(statistics.median(read_seconds[1:]), 3),
        "first still (s)": round(pause_seconds[0], 3),
    }


def fill_with_noise(array: jax.Array) -> jax.Array:
    """Returns normal noise with the shape and placement of a float32 array; returns other arrays unchanged."""
    if array.dtype != jnp.float32:
        return array
    noise = jax.random.normal(jax.random.key(0), array.shape)
    return jax.device_put(noise, array.sharding)


def main() -> None:
    """Measures all sizes and prints the table."""
    options = make_parser(__doc__).parse_args()
    report([measure(*size) for size in SIZES], options.json)


if __name__ == "__main__":
    main()
