"""How long one action takes on one thread: sizes of students by what runs them, and beside them the deepest teacher.

Parameters are drawn at random; how long they take does not depend on what they are. The bound is the time in which a C
program sums up as many floats as the policy has parameters, over and over: what reads each float32 weight once, from
wherever they stay between two actions, takes no less.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import parser, report

from export.c_source import export_c
from export.contract import Precision, attach, contract
from export.convert import convert
from export.precision import reduced
from export.runtime import Policy
from students import student_networks
from students.config import MLPConfig, SavedStudentConfig
from students.networks import describe_networks
from teachers import teacher_config
from teachers.agent import Agent
from teachers.crl.networks import teacher_networks
from teachers.crl.parameters import count_parameters
from teachers.runs.metadata import Metadata, library_versions
from teachers.tasks.registry import get_task

TASK = "pusher_easy"
SIZES = ((2, 16), (2, 64), (2, 128), (2, 256), (4, 64))
TEACHER = (1024, 256)  # depth, width
WARM_UP = 0.1  # of the calls
FLAGS = ("-std=c99", "-O2")

TIMED = """
#include "policy.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#define CALLS %d
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return 1e6 * t.tv_sec + 1e-3 * t.tv_nsec; }
int main(void)
{
    static float observation[POLICY_OBSERVATION], goal[POLICY_GOAL], action[POLICY_ACTION];
    for (int i = 0; i < POLICY_OBSERVATION; i++) observation[i] = 0.01f * (float)(i %% 7);
    for (int i = 0; i < CALLS; i++) {
        const double begun = now();
        policy_act(observation, goal, action);
        printf("%%.3f\\n", now() - begun);
        observation[0] = 0.1f * action[0];
    }
    return 0;
}
"""

READ = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#define SIZE %d
#define CALLS %d
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return 1e6 * t.tv_sec + 1e-3 * t.tv_nsec; }
int main(void)
{
    float *x = malloc(SIZE * sizeof(float)), total = 0;
    for (int i = 0; i < SIZE; i++) x[i] = (float)(i %% 3);
    for (int i = 0; i < CALLS; i++) {
        const double begun = now();
        float sum[16] = {0};
        for (int j = 0; j + 16 <= SIZE; j += 16)
            for (int k = 0; k < 16; k++) sum[k] += x[j + k];
        for (int k = 0; k < 16; k++) total += sum[k];
        fprintf(stdout, "%%.3f\\n", now() - begun);
        x[i %% SIZE] = total;
    }
    return 0;
}
"""


def student(layers: int, width: int) -> Agent:
    shape = MLPConfig(layers=layers, width=width)
    config = SavedStudentConfig(policy=shape, critic=shape, embedding=64)
    networks = student_networks(get_task(TASK), config, 64)
    params = networks.init(jax.random.key(0))
    stored = {"student": config.model_dump(), "embedding": 64}
    return agent("student", networks, params, config, describe_networks(config, params), stored)


def teacher(depth: int, width: int) -> Agent:
    sizes = {
        f"{n}.{k}": v
        for n in ("actor", "phi", "psi")
        for k, v in (("depth", depth), ("width", width))
    }
    config = teacher_config(TASK, overrides=sizes)
    networks = teacher_networks(config, get_task(TASK))
    params = networks.init(jax.random.key(0))
    counted = {name: {"parameters": count_parameters(params[name])} for name in params}
    return agent("teacher", networks, params, config, counted, config.model_dump())


def agent(kind: Any, networks: Any, params: Any, config: Any, described: Any, stored: Any) -> Agent:
    task = networks.task
    return Agent(
        networks,
        params,
        config,
        Metadata(
            kind=kind,
            task=task.name,
            sizes=task.sizes,
            networks=described,
            config=stored,
            metrics={},
            lineage={},
            versions=library_versions(),
        ),
    )


def timed(act: Callable[[], Any], calls: int) -> np.ndarray:
    """Microseconds of each call."""
    taken = np.empty(calls)
    for i in range(calls):
        begun = time.perf_counter_ns()
        act()
        taken[i] = (time.perf_counter_ns() - begun) / 1000
    return taken[int(WARM_UP * calls) :]


def in_onnx_runtime(agent: Agent, precision: Precision, calls: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        policy = Policy(written(agent, precision, Path(folder) / "policy.onnx"), margin=None)
        observation, goal = (row[0] for row in drawn(agent).values())
        action = np.zeros(agent.task.action_size, np.float32)
        return timed(lambda: policy(observation, goal, out=action), calls)


def written(agent: Agent, precision: Precision, file: Path) -> Path:
    model = reduced(convert(agent, "policy"), precision, drawn(agent))
    entries = contract(agent, "policy", model, units="task", seen={}, seen_in="export")
    attach(model, entries)
    file.write_bytes(model.SerializeToString())
    return file


def drawn(agent: Agent) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal((256, agent.task.sizes[name])).astype(np.float32)
        for name in ("observation", "goal")
    }


def in_c(agent: Agent, calls: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "c"
        export_c(agent, out)
        return measured(TIMED % calls, [out / "policy.c"], out, calls)


def in_jax(agent: Agent, calls: int) -> np.ndarray:
    act = jax.jit(agent.networks.policy)
    observation, goal = (
        np.zeros(agent.task.sizes[name], np.float32) for name in ("observation", "goal")
    )
    return timed(lambda: np.asarray(act(agent.params, observation, goal)), calls)


def reading(floats: int, calls: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        return measured(READ % (floats, calls), [], Path(folder), calls, "-O3", "-march=native")


def measured(main: str, others: list[Path], folder: Path, calls: int, *flags: str) -> np.ndarray:
    (folder / "main.c").write_text(main)
    program = folder / "timed"
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("there is no C compiler; install gcc")
    command = [compiler, "-D_POSIX_C_SOURCE=199309L", *FLAGS, *flags]
    subprocess.run([*command, *others, folder / "main.c", "-o", program, "-lm"], check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return np.array(said.split(), float)[int(WARM_UP * calls) :]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--calls", type=int, default=20_000)
    given = options.parse_args()
    rows = []

    def add(policy: str, runtime: str, parameters: int, taken: np.ndarray) -> None:
        quantiles = {f"p{q}": float(np.percentile(taken, q)) for q in (50, 99, 99.9)}
        rows.append({"policy": policy, "runtime": runtime, "parameters": parameters} | quantiles)

    for layers, width in SIZES:
        name, one = f"{layers} x {width}", student(layers, width)
        count = one.metadata.networks["actor"]["parameters"]
        for precision in ("float32", "float16", "int8"):
            add(
                name,
                f"ONNX Runtime, {precision}",
                count,
                in_onnx_runtime(one, precision, given.calls),
            )
        add(name, "C", count, in_c(one, given.calls))
        add(name, "JAX, jit", count, in_jax(one, given.calls))
        add(name, "reading the weights", count, reading(count, given.calls))
    depth, width = TEACHER
    name, deep, few = (
        f"teacher, {depth} x {width}",
        teacher(depth, width),
        max(20, given.calls // 200),
    )
    count = deep.metadata.networks["actor"]["parameters"]
    add(name, "ONNX Runtime, float32", count, in_onnx_runtime(deep, "float32", few))
    add(name, "JAX, jit", count, in_jax(deep, few))
    add(name, "reading the weights", count, reading(count, few))
    report(rows, given.json)


if __name__ == "__main__":
    main()
