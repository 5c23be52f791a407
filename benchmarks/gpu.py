"""Measures the project on a GPU within a given time, most valuable first, and writes rows of JSON after each item.

It measures the card's peak, trains, evaluates, distills and exports with the commands, resumes a run and compares it with
an uninterrupted one, times gradient steps by precision, depth, number of seeds and XLA's flags, compares physics with a
CPU's, and counts control steps a second. The items of a wave compile side by side and are measured one at a time.

Run it with `python benchmarks/gpu.py --minutes 9 --json benchmarks/data/gpu/CARD.json`; `--smoke` tries it on a CPU.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
COMMAND = "from distill.cli import main; main()"
LEAST_SECONDS = 20  # with less than this left, nothing is started or measured any more
# Puts all gradient steps of an iteration into one CUDA graph, if XLA accepts loops in it.
GRAPH_FLAGS = (
    "--xla_gpu_enable_command_buffer=+WHILE --xla_gpu_graph_min_graph_size=1 "
    "--xla_disable_hlo_passes=dynamic-slice-fusion-rewriter-v2,dynamic-slice-annotator,"
    "dynamic-slice-copy-fusion-async-wrapper"
)


class Item(NamedTuple):
    """A measurement of `gpu_items.py` in a process of its own."""

    item: str
    options: Sequence[str] = ()
    environment: Mapping[str, str] = {}

    @property
    def description(self) -> dict[str, str]:
        """What stands in each of its rows."""
        return {"item": self.item, "options": " ".join(self.options), **self.environment}


class Command(NamedTuple):
    """A command of `crl-distill`."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = {}


class Report:
    """The rows measured so far, written to a file after each addition."""

    def __init__(self, file: Path | None, minutes: float) -> None:
        self.rows: list[dict[str, Any]] = []
        self._file = file
        self._begun = time.monotonic()
        self._minutes = minutes

    @property
    def seconds_left(self) -> float:
        """Seconds until everything has to end."""
        return self._begun + 60 * self._minutes - time.monotonic()

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row, and prints it."""
        self.rows.append({**row, "at_s": round(time.monotonic() - self._begun, 1)})
        print(json.dumps(self.rows[-1]), flush=True)
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")


class Running:
    """A process of an item, which compiles until it is told to measure."""

    def __init__(self, item: Item, folder: Path, smoke: bool) -> None:
        self.item = item
        self._log = (folder / f"log-{time.monotonic_ns()}").open("w+", encoding="utf-8")
        arguments = [*item.options, *(["--smoke"] if smoke else []), "--folder", str(folder)]
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "gpu_items.py"), item.item, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **item.environment},
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def measure(self, report: Report) -> None:
        """Lets the process measure, and reports its rows, or why there are none."""
        try:
            self._next_line(report)
            assert self.process.stdin
            self.process.stdin.write("measure\n")
            self.process.stdin.flush()
            while line := self._next_line(report):
                report.add({**self.item.description, **json.loads(line)})
            if self.process.wait() == 0:
                return
            why = self._last_words()
        except queue.Empty:
            why = "no time was left"
        except BrokenPipeError:
            why = self._last_words()
        report.add({**self.item.description, "failed": why})

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _next_line(self, report: Report) -> str:
        return self._lines.get(timeout=max(report.seconds_left - LEAST_SECONDS / 2, 0.01))

    def _last_words(self) -> str:
        self._log.seek(0)
        return self._log.read().strip()[-600:]


def run_command(command: Command, report: Report) -> str:
    """Runs a command of `crl-distill`, reports its exit code and seconds, and returns what it printed."""
    start = time.monotonic()
    row: dict[str, Any] = {"item": "command", "command": " ".join(command.arguments)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *command.arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **command.environment},
            timeout=max(report.seconds_left - LEAST_SECONDS, 0.01),
            check=False,
        )
    except subprocess.TimeoutExpired:
        report.add({**row, **command.environment, "failed": "no time was left"})
        return ""
    row |= {"exit_code": done.returncode, "seconds": round(time.monotonic() - start, 1)}
    if done.returncode:
        row["failed"] = (done.stderr or done.stdout).strip()[-600:]
    report.add({**row, **command.environment})
    return done.stdout


def report_run(run: Path, report: Report) -> dict[str, Any]:
    """Reports the last row of a training's metrics, and returns it without clocks."""
    file = run / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if not lines:
        return {}
    last: dict[str, Any] = json.loads(lines[-1])
    report.add({"item": "metrics", "run": run.name, **last})
    return {key: value for key, value in last.items() if "second" not in key}


def train(folder: Path, report: Report, smoke: bool) -> None:
    """Trains a teacher, and evaluates its checkpoint here and on the CPU."""
    run = folder / "teacher"
    sizes = SMOKE_SIZES if smoke else ["--depth", "64"]
    run_command(Command(["train-teacher", "reacher", *sizes, "--out", str(run)]), report)
    report_run(run, report)
    for environment in ({}, {"JAX_PLATFORMS": "cpu"}):
        printed = run_command(Command(["evaluate", str(run), "--json"], environment), report)
        if printed:
            report.add({"item": "evaluate", **environment, **json.loads(printed)})


def distill(folder: Path, report: Report, smoke: bool) -> None:
    """Distills the teacher, exports the student and verifies the file."""
    run, student, exported = folder / "teacher", folder / "student", folder / "exported"
    force = ["--force"] if smoke else []  # a teacher trained so shortly reaches no goal
    policy = str(exported / "policy.onnx")
    for arguments in (
        ["distill", str(run), "--out", str(student), *force],
        ["export", str(student), "--out", str(exported)],
        ["verify", policy, "--against", str(student), "--episodes", "64"],
    ):
        run_command(Command(arguments), report)


def resume(folder: Path, report: Report, smoke: bool) -> None:
    """Reports whether the same training again, and a resumed one, end with the same numbers."""
    iteration = 64 * 50
    sizes = [*SMOKE_SIZES, "--set", "rollout.environments=64", "--set", "logging.evaluate_every=2"]
    sizes += [] if smoke else ["--depth", "16", "--width", "64"]
    last: dict[str, dict[str, Any]] = {}
    for name, lengths in {"straight": [8], "again": [8], "resumed": [4, 8]}.items():
        run = folder / name
        for number, iterations in enumerate(lengths):
            steps = ["--steps", str(iterations * iteration)]
            again = ["--resume"] if number else []
            arguments = ["train-teacher", "reacher", *sizes, *steps, *again, "--out", str(run)]
            run_command(Command(arguments), report)
        last[name] = report_run(run, report)
    for name in ("again", "resumed"):
        differing = [key for key, value in last["straight"].items() if last[name].get(key) != value]
        report.add({"item": "resumption", "run": name, "differing_metrics": differing})


def estimate(_folder: Path, report: Report, smoke: bool) -> None:
    """Reports what the paper's settings would take on the ant."""
    sizes = SMOKE_SIZES if smoke else ["--preset", "paper"]
    printed = run_command(Command(["train-teacher", "ant", *sizes, "--estimate", "--json"]), report)
    if printed:
        report.add({"item": "estimate", **json.loads(printed)})


class Wave(NamedTuple):
    """Commands, and items that compile meanwhile and are measured after them."""

    commands: Sequence[Callable[[Path, Report, bool], None]]
    items: Sequence[Item]


SMOKE_SIZES = ["--depth", "4", "--width", "32", "--steps", "12800"]
PROFILE = ("--profile",)
BFLOAT16 = ("--precision", "bfloat16")
DEEP = ("--depth", "1024", "--updates", "3")


def physics_items(task: str) -> list[Item]:
    """Returns the items that compare the physics of a task: the CPU's first, which the others read."""
    options = ("--task", task)
    return [
        Item("physics", (*options, "--reference"), {"JAX_PLATFORMS": "cpu"}),
        *(Item("physics", (*options, "--matmul", matmul)) for matmul in ("default", "highest")),
    ]


def simulation_items(counts: Mapping[str, Sequence[int]]) -> list[Item]:
    """Returns the items that count control steps a second, by task and number of environments."""
    return [
        Item("simulation", ("--task", task, "--environments", str(count)))
        for task, numbers in counts.items()
        for count in numbers
    ]


WAVES = (
    Wave(
        [train],
        [
            Item("environment"),
            Item("gradient_steps", PROFILE),
            Item("gradient_steps", (*BFLOAT16, *PROFILE)),
            Item("gradient_steps", (), {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}),
            Item("gradient_steps", (), {"XLA_FLAGS": GRAPH_FLAGS}),
            Item("gradient_steps", (), {"XLA_FLAGS": "--xla_gpu_enable_command_buffer="}),
            Item("gradient_steps", (), {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}),
            Item("gradient_steps", ("--seeds", "4")),
        ],
    ),
    Wave(
        [distill],
        [
            Item("gradient_steps", (*DEEP, *BFLOAT16, *PROFILE)),
            Item("gradient_steps", DEEP),
            *physics_items("ant"),
            *physics_items("humanoid"),
            *simulation_items({"ant": [256, 4096, 16384], "humanoid": [4096]}),
        ],
    ),
    Wave(
        [resume, estimate],
        [
            *physics_items("arm_push_easy"),
            *simulation_items(
                {"reacher": [256, 8192], "humanoid": [256], "arm_push_easy": [256, 4096]}
            ),
        ],
    ),
)
SMOKE_OPTIONS = ("--depth", "8", "--width", "32", "--batch", "16", "--environments", "8")


def run_wave(wave: Wave, folder: Path, report: Report, smoke: bool) -> None:
    """Starts all items of a wave, runs its commands, then measures the items one at a time."""
    items = [
        item._replace(options=(*item.options, *SMOKE_OPTIONS)) if smoke else item
        for item in wave.items
    ]
    running: list[Running] = []
    try:
        running += [Running(item, folder, smoke) for item in items]
        for command in wave.commands:
            if report.seconds_left > LEAST_SECONDS:
                command(folder, report, smoke)
        for process in running:
            process.measure(report)
    finally:
        for process in running:
            process.end()


def main() -> None:
    """Runs all waves for which there is time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9, help="time in all (default: 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--smoke", action="store_true", help="use small sizes, to try it on a CPU")
    options = parser.parse_args()
    # Several processes share the card.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    report = Report(options.json, options.minutes)
    with tempfile.TemporaryDirectory() as folder:
        for wave in WAVES:
            if report.seconds_left > LEAST_SECONDS:
                run_wave(wave, Path(folder), report, options.smoke)


if __name__ == "__main__":
    main()
