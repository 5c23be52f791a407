"""Does a policy's memory grow while it acts? Calls it ten million times and looks at the process's memory as it goes.

On Linux.
Of `Policy` with `out=`, through ONNX Runtime, and of the C file. A row each, in MiB: `begin`, after the first of the equal
parts into which the calls are divided, and `end`, after the last.
"""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import parser, report
from latency import FLAGS, student, written

import export.runtime
from export.c_source import export_c

CALLS = 10_000_000
PARTS = 10
PAGE = resource.getpagesize() / 2**20  # MiB

IN_PYTHON = """
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

IN_C = """
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
        long all, resident;
        if (!memory || fscanf(memory, "%%ld %%ld", &all, &resident) != 2)
            return 1;
        fclose(memory);
        printf("%%ld\\n", resident);
    }
    return 0;
}
"""


def said(command: Sequence[str | Path], folder: Path) -> list[float]:
    """MiB that a program says it holds after each part."""
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return [int(line) * PAGE for line in done.stdout.split()]


def in_onnx_runtime(file: Path, calls: int) -> list[float]:
    """Of a process that has numpy and ONNX Runtime alone."""
    script = IN_PYTHON % (PARTS, calls // PARTS)
    home = Path(export.runtime.__file__).parent
    return said([sys.executable, "-c", script, home, file], file.parent)


def in_c(folder: Path, calls: int) -> list[float]:
    """Of a C program."""
    (folder / "main.c").write_text(IN_C % (PARTS, calls // PARTS))
    command = ["cc", *FLAGS, "policy.c", "main.c", "-o", "main", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return said([folder / "main"], folder)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--calls", type=int, default=CALLS)
    given = options.parse_args()
    policy = student(2, 64)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = written(policy, "float32", Path(folder) / "policy.onnx")
        export_c(policy, Path(folder) / "c")
        for runtime, found in (
            ("ONNX Runtime", in_onnx_runtime(file, given.calls)),
            ("C", in_c(Path(folder) / "c", given.calls)),
        ):
            ends = {"begin": found[0], "end": found[-1], "growth": found[-1] - found[0]}
            rows.append({"runtime": runtime, "calls": given.calls, **ends})
    report(rows, given.json)


if __name__ == "__main__":
    main()
