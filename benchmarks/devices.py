"""Measures the seconds of a training iteration on one host device and on several.

Each number of devices is measured in a subprocess, because XLA fixes the number of host devices when it starts.
Run it with `python benchmarks/devices.py --json FILE`.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
from common import make_parser, network_sizes, report

from teachers import teacher_config
from teachers.crl.training_programs import teacher_programs

TASKS = ("reacher", "ant")
# The ant gets fewer gradient steps than its default, so that an iteration stays short.
OVERRIDES = {"ant": {**network_sizes(16, 64), "learning.gradient_steps": 16}}
ITERATIONS = 6


def measure(task: str) -> float:
    """Returns the median seconds of an iteration on all devices of this process.

    The median leaves out the first iteration, which compiles.
    """
    config = teacher_config(task, overrides=OVERRIDES.get(task))
    programs = teacher_programs(config)
    state = programs.init(jnp.uint32(config.seed))
    seconds = []
    for _ in range(ITERATIONS):
        start = time.perf_counter()
        state, metrics = programs.iterate(state)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def measure_in_subprocess(task: str, devices: int) -> float:
    """Returns what `measure` returns in a process with this number of host devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, __file__, "--one", task]
    environment = {**os.environ, "XLA_FLAGS": flags}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(process.stdout.splitlines()[-1]))


def main() -> None:
    """Measures each task with each number of devices and prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--devices",
        type=int,
        nargs="+",
        default=[1, 2],
        help="numbers of host devices to compare with the first of them (default: 1 2)",
    )
    parser.add_argument(
        "--one",
        choices=TASKS,
        help="measure only this task, in this process, and print its seconds",
    )
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    rows: list[dict[str, Any]] = []
    for task in TASKS:
        seconds = {count: measure_in_subprocess(task, count) for count in options.devices}
        reference = seconds[options.devices[0]]
        rows += [
            {
                "task": task,
                "devices": count,
                "iteration (s)": round(value, 3),
                "faster": round(reference / value, 2),
            }
            for count, value in seconds.items()
        ]
    report(rows, options.json)


if __name__ == "__main__":
    main()
