"""One host device against several: seconds of a training iteration, each number of devices in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import Any

import jax
from common import parser, report

from teachers import teacher_config
from teachers.crl.iteration import init_training, make_iteration, placement
from teachers.runs.devices import replicated

TASKS = ("reacher", "ant")
FEW = {"ant": {"learning.gradient_steps": 16}}
ITERATIONS = 6


def measure(task: str) -> float:
    """Median seconds of an iteration after the first, which compiles and resets."""
    config = teacher_config(task, overrides=FEW.get(task))
    make = partial(init_training, config)
    place = placement(jax.eval_shape(make))
    state = jax.jit(make, out_shardings=place)()
    iterate = jax.jit(make_iteration(config), donate_argnums=0, out_shardings=(place, replicated()))
    seconds = []
    for _ in range(ITERATIONS):
        begun = time.perf_counter()
        state, metrics = iterate(state)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def in_a_process(task: str, devices: int) -> float:
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, __file__, "--one", task]
    environment = {**os.environ, "XLA_FLAGS": flags}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(ended.stdout.splitlines()[-1]))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    options.add_argument("--one", help="measure this task here, for a process of its own")
    given = options.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)))
        return
    rows: list[dict[str, Any]] = []
    for task in TASKS:
        seconds = {devices: in_a_process(task, devices) for devices in given.devices}
        first = seconds[given.devices[0]]
        rows += [
            {
                "task": task,
                "devices": n,
                "iteration (s)": round(s, 3),
                "faster": round(first / s, 2),
            }
            for n, s in seconds.items()
        ]
    report(rows, given.json)


if __name__ == "__main__":
    main()
