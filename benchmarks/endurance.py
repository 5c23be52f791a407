"""Measures whether the memory of a process grows while a policy acts, over ten million calls.

The policy is a student of 2 x 64 units, called as `Policy` with `out=` through ONNX Runtime, and as C source. The calls
are divided into ten equal parts. The columns give the memory of the process in MiB: `begin` after the first part, `end`
after the last, and `growth`, their difference. Run it on Linux with `python benchmarks/endurance.py --json FILE`.
"""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import make_parser, report
from latency import COMPILER_FLAGS, make_student, write_onnx

import export.runtime
from export.c_source import export_c

PARTS = 10
PAGE_MIB = resource.getpagesize() / 2**20

PYTHON_PROGRAM = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import numpy as np
from runtime import Policy

policy = Policy(sys.argv[2], margin=None)
sizes = [policy.metadata["inputs"][name][-1]["stop"] for name in policy.inputs]
observation, goal = (np.zeros(size, np.float32) for size in sizes)
action = np.zeros(policy.metadata["outputs"]["action"][-1]["stop"], np.float32)
for part in range(%d):
    for _ in range(%d):
        policy(observation, goal, out=action)
        observation[0] = 0.1 * action[0]
    print(Path("/proc/self/statm").read_text().split()[1])
"""

C_PROGRAM = """
#include "policy.h"
#include <stdio.h>
int main(void)
{
    static float observation[POLICY_OBSERVATION], goal[POLICY_GOAL], action[POLICY_ACTION];
    for (int part = 0; part < %d; part++) {
        for (int i = 0; i < %d; i++) {
            policy_act(observation, goal, action);
            observation[0] = 0.1f * action[0];
        }
        FILE *memory = fopen("/proc/self/statm", "r");
        long total, resident;
        if (!memory || fscanf(memory, "%%ld %%ld", &total, &resident) != 2)
            return 1;
        fclose(memory);
        printf("%%ld\\n", resident);
    }
    return 0;
}
"""


def run_and_read_memory(command: Sequence[str | Path], folder: Path) -> list[float]:
    """Runs a program that prints its resident pages after each part, and returns them in MiB."""
    process = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return [int(line) * PAGE_MIB for line in process.stdout.split()]


def measure_onnx_runtime(file: Path, calls: int) -> list[float]:
    """Returns the MiB after each part of a process that imports only numpy and ONNX Runtime."""
    script = PYTHON_PROGRAM % (PARTS, calls // PARTS)
    runtime_folder = Path(export.runtime.__file__).parent
    return run_and_read_memory([sys.executable, "-c", script, runtime_folder, file], file.parent)


def measure_c(folder: Path, calls: int) -> list[float]:
    """Returns the MiB after each part of a C program; `folder` holds the exported C source."""
    (folder / "main.c").write_text(C_PROGRAM % (PARTS, calls // PARTS), encoding="utf-8")
    command = ["cc", *COMPILER_FLAGS, "policy.c", "main.c", "-o", "main", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return run_and_read_memory([folder / "main"], folder)


def main() -> None:
    """Measures both runtimes and prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--calls",
        type=int,
        default=10_000_000,
        help="calls of each policy (default: %(default)s)",
    )
    options = parser.parse_args()
    student = make_student(2, 64)
    with tempfile.TemporaryDirectory() as folder:
        file = write_onnx(student, "float32", Path(folder) / "policy.onnx")
        source = Path(folder) / "c"
        export_c(student, source)
        memory_by_runtime = {
            "ONNX Runtime": measure_onnx_runtime(file, options.calls),
            "C": measure_c(source, options.calls),
        }
    rows = [
        {
            "runtime": runtime,
            "calls": options.calls,
            "begin": memory[0],
            "end": memory[-1],
            "growth": memory[-1] - memory[0],
        }
        for runtime, memory in memory_by_runtime.items()
    ]
    report(rows, options.json)


if __name__ == "__main__":
    main()
