"""Measures how long one action takes on one thread, for students of several sizes and memories and for the deepest teacher.

Each policy runs in ONNX Runtime, as C source and in JAX. Its parameters are random, because the time does not depend
on their values. The rows `reading the weights` are a lower bound: the time in which a C program adds up as many
float32 numbers as the policy has parameters, from the memory or cache where they stay between two actions. Run it
with `taskset -c 1 python benchmarks/latency.py --json FILE`, on a core where nothing else runs.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from common import make_parser, network_sizes, report

from export.c_source import export_c
from export.contract import Precision
from export.contract_writer import attach_contract, make_contract
from export.convert import convert
from export.policies import AgentPolicy
from export.precision import reduce_precision
from export.runtime import Policy
from export.signature import agent_signature
from students import student_networks
from students.artefact import Student
from students.config import MLPConfig, SavedStudentConfig
from students.networks import describe_networks, parameters_used_by
from teachers import Task, teacher_config
from teachers.agent import Agent, Teacher
from teachers.crl.networks import teacher_networks
from teachers.crl.parameters import count_parameters
from teachers.runs.metadata import Metadata, library_versions
from teachers.tasks.registry import get_task

TASK = "pusher_easy"
STUDENT_SIZES = ((2, 16), (2, 64), (2, 128), (2, 256), (4, 64))  # layers and width
# Of students of 2 x 64 that read the task's sensors.
MEMORIES: dict[str, dict[str, Any]] = {
    "sensors": {},
    "history of 10": {"memory": "history", "frames": 10},
    "gru of 64": {"memory": "gru", "memory_width": 64},
}
TEACHER_DEPTH, TEACHER_WIDTH = 1024, 256
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
QUANTILES = (50, 99, 99.9)  # in percent
WARM_UP_SHARE = 0.1  # of the calls; they are not counted
COMPILER_FLAGS = ("-std=c99", "-O2")

C_CLOCK = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return 1e6 * t.tv_sec + 1e-3 * t.tv_nsec; }
"""

POLICY_PROGRAM = (
    C_CLOCK
    + """
#include "policy.h"
#define CALLS %(calls)d
int main(void)
{
    static float read[%(read)s], goal[POLICY_GOAL], action[POLICY_ACTION];
    %(state)s
    for (int i = 0; i < %(read)s; i++) read[i] = 0.01f * (float)(i %% 7);
    for (int i = 0; i < CALLS; i++) {
        const double start = now();
        policy_act(%(pointer)s read, goal, action);
        printf("%%.3f\\n", now() - start);
        read[0] = 0.1f * action[0];
    }
    return 0;
}
"""
)

SUM_PROGRAM = (
    C_CLOCK
    + """
#define SIZE %d
#define CALLS %d
int main(void)
{
    float *x = malloc(SIZE * sizeof(float)), total = 0;
    for (int i = 0; i < SIZE; i++) x[i] = (float)(i %% 3);
    for (int i = 0; i < CALLS; i++) {
        const double start = now();
        float sum[16] = {0};
        for (int j = 0; j + 16 <= SIZE; j += 16)
            for (int k = 0; k < 16; k++) sum[k] += x[j + k];
        for (int k = 0; k < 16; k++) total += sum[k];
        fprintf(stdout, "%%.3f\\n", now() - start);
        x[i %% SIZE] = total;
    }
    return 0;
}
"""
)


def make_student(layers: int, width: int, **settings: Any) -> Student:
    """Returns a student with random parameters, whose policy and critic have this size, and with other settings of its networks."""
    shape = MLPConfig(layers=layers, width=width)
    config = SavedStudentConfig(policy=shape, critic=shape, embedding=64, **settings)
    networks = student_networks(get_task(TASK), config, 64)
    params = networks.init(jax.random.key(0))
    stored_config = {"student": config.model_dump(), "embedding": 64}
    metadata = make_metadata(
        "student", networks.task, describe_networks(config, params), stored_config
    )
    return Agent(networks, params, config, metadata)


def make_teacher(depth: int, width: int) -> Teacher:
    """Returns a teacher with random parameters, whose actor, phi and psi have this size."""
    config = teacher_config(TASK, overrides=network_sizes(depth, width))
    networks = teacher_networks(config, get_task(TASK))
    params = networks.init(jax.random.key(0))
    description = {name: {"parameters": count_parameters(params[name])} for name in params}
    metadata = make_metadata("teacher", networks.task, description, config.model_dump())
    return Agent(networks, params, config, metadata)


def make_metadata(
    kind: Literal["teacher", "student"],
    task: Task,
    networks: dict[str, Any],
    config: dict[str, Any],
) -> Metadata:
    """Returns the metadata that an export needs, of an agent that was not trained."""
    return Metadata(
        kind=kind,
        task=task.name,
        sizes=task.sizes,
        networks=networks,
        config=config,
        metrics={},
        lineage={},
        versions=library_versions(),
    )


def draw_inputs(agent: Agent) -> dict[str, np.ndarray]:
    """Returns random inputs of the policy by name, `[256, n]` each: what it reads, a goal, and its memory if it has one."""
    generator, sizes = np.random.default_rng(0), agent.task.read_sizes
    signature = agent_signature(agent.networks)
    counts = {
        signature.reads: sizes["observation"],
        "goal": sizes["goal"],
        "state": signature.memory_size,
    }
    return {
        name: generator.standard_normal((256, counts[name])).astype(np.float32)
        for name in signature.inputs("policy")
    }


def write_onnx(agent: Agent, precision: Precision, file: Path) -> Path:
    """Exports the agent's policy in this precision, and returns the file."""
    model = reduce_precision(convert(agent, "policy"), precision, draw_inputs(agent))
    contract = make_contract(
        agent, "policy", model, units="task", observed_ranges={}, range_source="export"
    )
    attach_contract(model, contract)
    file.write_bytes(model.SerializeToString())
    return file


def measure_onnx_runtime(agent: Agent, precision: Precision, calls: int) -> np.ndarray:
    """Returns the microseconds of each call of the exported policy in ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        policy = Policy(write_onnx(agent, precision, Path(folder) / "policy.onnx"), margin=None)
        read, goal, *_ = (rows[0] for rows in draw_inputs(agent).values())
        action = np.zeros(agent.task.action_size, np.float32)
        return time_calls(lambda: policy(read, goal, out=action), calls)


def measure_c(agent: Agent, calls: int) -> np.ndarray:
    """Returns the microseconds of each call of the policy's C source."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "c"
        export_c(agent, source)
        has_memory = agent.networks.memory_size > 0
        program = POLICY_PROGRAM % {
            "calls": calls,
            "read": f"POLICY_{agent_signature(agent.networks).reads.upper()}",
            "state": "static policy_state state;" if has_memory else "",
            "pointer": "&state," if has_memory else "",
        }
        return run_timed_program(program, [source / "policy.c"], source, calls)


def measure_jax(agent: Agent, calls: int) -> np.ndarray:
    """Returns the microseconds of each call of the jitted policy, with the copy of the action to the host."""
    act = AgentPolicy(agent)
    read, goal, *_ = (rows[:1] for rows in draw_inputs(agent).values())
    return time_calls(lambda: act(read, goal), calls)


def measure_weight_reading(parameters: int, calls: int) -> np.ndarray:
    """Returns the microseconds in which a C program adds up as many floats as there are parameters, for each call."""
    program = SUM_PROGRAM % (parameters, calls)
    with tempfile.TemporaryDirectory() as folder:
        return run_timed_program(program, [], Path(folder), calls, "-O3", "-march=native")


def time_calls(act: Callable[[], Any], calls: int) -> np.ndarray:
    """Returns the microseconds of each call after the warm-up."""
    microseconds = np.empty(calls)
    for i in range(calls):
        start = time.perf_counter_ns()
        act()
        microseconds[i] = (time.perf_counter_ns() - start) / 1000
    return microseconds[int(WARM_UP_SHARE * calls) :]


def run_timed_program(
    program: str, sources: list[Path], folder: Path, calls: int, *flags: str
) -> np.ndarray:
    """Compiles and runs a C program that times its own calls.

    Args:
        program: the text of the main file, which prints the microseconds of each call.
        sources: other C files of the program.
        folder: an existing folder for the main file and the executable.
        calls: the number of calls that the program times.
        flags: flags of the compiler, after `COMPILER_FLAGS`.

    Returns:
        The microseconds of each call after the warm-up.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("there is no C compiler; install gcc")
    main_file, executable = folder / "main.c", folder / "timed"
    main_file.write_text(program, encoding="utf-8")
    command = [compiler, "-D_POSIX_C_SOURCE=199309L", *COMPILER_FLAGS, *flags]
    subprocess.run([*command, *sources, main_file, "-o", executable, "-lm"], check=True)
    output = subprocess.run([executable], check=True, capture_output=True, text=True).stdout
    return np.array(output.split(), float)[int(WARM_UP_SHARE * calls) :]


def make_row(policy: str, runtime: str, parameters: int, microseconds: np.ndarray) -> dict:
    """Returns a row with the quantiles of the measured microseconds."""
    quantiles = {f"p{q}": float(np.percentile(microseconds, q)) for q in QUANTILES}
    return {"policy": policy, "runtime": runtime, "parameters": parameters} | quantiles


def measure_student(name: str, student: Student, calls: int) -> list[dict[str, Any]]:
    """Returns a row for each runtime and precision of a student."""
    parameters = count_parameters(parameters_used_by("actor", student.params))
    measured = {
        f"ONNX Runtime, {precision}": measure_onnx_runtime(student, precision, calls)
        for precision in PRECISIONS
    }
    measured["C"] = measure_c(student, calls)
    measured["JAX, jit"] = measure_jax(student, calls)
    measured["reading the weights"] = measure_weight_reading(parameters, calls)
    return [
        make_row(name, runtime, parameters, microseconds)
        for runtime, microseconds in measured.items()
    ]


def measure_teacher(depth: int, width: int, calls: int) -> list[dict[str, Any]]:
    """Returns a row for each runtime that can run a teacher of this size; C source is written for students only."""
    teacher = make_teacher(depth, width)
    parameters = teacher.metadata.networks["actor"]["parameters"]
    measured = {
        "ONNX Runtime, float32": measure_onnx_runtime(teacher, "float32", calls),
        "JAX, jit": measure_jax(teacher, calls),
        "reading the weights": measure_weight_reading(parameters, calls),
    }
    return [
        make_row(f"teacher, {depth} x {width}", runtime, parameters, microseconds)
        for runtime, microseconds in measured.items()
    ]


def main() -> None:
    """Measures all students and the teacher and prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--calls",
        type=int,
        default=20_000,
        help="calls of each student; the teacher, which takes far longer, gets one in 200 of them, "
        "and at least 20 (default: %(default)s)",
    )
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for layers, width in STUDENT_SIZES:
        name, student = f"{layers} x {width}", make_student(layers, width)
        rows += measure_student(name, student, options.calls)
    for memory, settings in MEMORIES.items():
        student = make_student(2, 64, sees="sensors", **settings)
        rows += measure_student(f"{memory}, 2 x 64", student, options.calls)
    rows += measure_teacher(TEACHER_DEPTH, TEACHER_WIDTH, max(20, options.calls // 200))
    report(rows, options.json)


if __name__ == "__main__":
    main()
