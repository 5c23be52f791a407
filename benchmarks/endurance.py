"""Does a policy's memory grow while it acts? Calls it ten million times and looks at the process's memory as it goes. On
Linux.

Of `Policy` with `out=`, through ONNX Runtime, and of the C file. A row each, in MiB: `begin`, after the first of the equal
parts into which the calls are divided, and `end`, after the last.
"""

import resource
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from common import parser, report
from latency import FLAGS, student, written

from export.c_source import export_c
from export.runtime import Policy

CALLS = 10_000_000
PARTS = 10
PAGE = resource.getpagesize() / 2**20  # MiB

MAIN = """
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
        getrusage(RUSAGE_SELF, &usage);
        printf("%%ld\\n", usage.ru_maxrss);
    }
    return 0;
}
"""


def in_onnx_runtime(file: Path, calls: int) -> list[float]:
    """MiB of this process after each part."""
    policy = Policy(file, margin=None)
    sizes = [policy.metadata["inputs"][name][-1]["stop"] for name in policy.inputs]
    observation, goal = (np.zeros(size, np.float32) for size in sizes)
    action = np.zeros(policy.metadata["outputs"]["action"][-1]["stop"], np.float32)
    found = []
    for _ in range(PARTS):
        for _ in range(calls // PARTS):
            policy(observation, goal, out=action)
            observation[0] = 0.1 * action[0]
        found.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE)
    return found


def in_c(folder: Path, calls: int) -> list[float]:
    """MiB of a C program after each part."""
    (folder / "main.c").write_text(MAIN % (PARTS, calls // PARTS))
    command = ["cc", *FLAGS, "policy.c", "main.c", "-o", "main", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    said = subprocess.run([folder / "main"], check=True, capture_output=True, text=True).stdout
    return [int(line) * PAGE for line in said.split()]


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
