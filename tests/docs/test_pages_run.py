"""Runs the blocks of code in the pages, as a reader would, with fewer training steps."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest
from pages import PAGES, Block, blocks

from distill.cli.json_keys import OUTPUTS, Output

pytestmark = pytest.mark.slow

# What training steps are divided by. A reacher still reaches some of its goals, so that there is something to distill.
SHORTER = 8
# Every command prints JSON, into a file of its own beside one with its arguments. On a busy machine a policy may be too slow
# for `verify`, which then exits with 1; `test_json_of_verify_reports_no_failure_but_latency` looks at the other checks.
SHELL = """
set -euo pipefail
crl-distill() {
    local number=$(ls "$JSON" | wc -l)
    printf '%s\\n' "$@" > "$JSON/$number.arguments"
    command crl-distill "$@" --json > "$JSON/$number.json" || [[ $1 == verify && $? == 1 ]]
}
"""


class Workplace(NamedTuple):
    """Where the blocks of a page run.

    Attributes:
        folder: the working directory.
        environment: the variables of the processes.
        outputs: where the JSON of every command is kept.
    """

    folder: Path
    environment: dict[str, str]
    outputs: Path

    def run(self, block: Block) -> None:
        text = shortened(block.text)
        if block.action == "file":
            (self.folder / block.argument).write_text(text)
            return
        command = ["bash", "-c", SHELL + text]
        if block.language == "python":
            command = [sys.executable, "-c", text]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block.place}\n{done.stdout}\n{done.stderr}"


def shortened(text: str) -> str:
    """Returns a block with fewer training steps."""

    def divided(match: re.Match[str]) -> str:
        before, steps = match.groups()
        return f"{before}{int(steps) // SHORTER}"

    return re.sub(r'(--steps |"steps": |^steps = )([\d_]+)', divided, text, flags=re.MULTILINE)


def run_page(page: str, workplace: Workplace) -> None:
    for block in blocks(page):
        if block.action in ("run", "file"):
            workplace.run(block)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("json")


@pytest.fixture(scope="module")
def main_path(tmp_path_factory, outputs) -> Workplace:
    """The folder in which the main path of README.md was followed."""
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "JSON": str(outputs),
        # Compiled programs stay where they are; tasks that the pages name are not remembered.
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("caches")),
    }
    workplace = Workplace(tmp_path_factory.mktemp("readme"), environment, outputs)
    run_page("README.md", workplace)
    return workplace


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if page != "README.md" and any(block.action == "run" for block in blocks(page))
    ],
)
def test_page_runs_as_written(page: str, main_path: Workplace, tmp_path: Path) -> None:
    shutil.copytree(main_path.folder, tmp_path, dirs_exist_ok=True)
    run_page(page, main_path._replace(folder=tmp_path))


@pytest.mark.end_to_end
def test_json_of_commands_has_the_documented_keys(main_path: Workplace) -> None:
    """Of every command that the tests before this one ran."""
    for file in sorted(main_path.outputs.glob("*.arguments")):
        words = file.read_text().splitlines()
        output = documented_output(words)
        value = json.loads(file.with_suffix(".json").read_text())
        found = {re.sub(r"_(ci95|by_seed)$", "", key.removeprefix("[].")) for key in flat(value)}
        groups = tuple(key[:-1] for key in output.keys if key.endswith(".*"))
        assert not {
            key for key in found - set(output.keys) if not f"{key}.".startswith(groups or "\0")
        }, words
        single = {key for key in output.keys if not key.endswith(".*")}
        lists = {key for key in single if "[]" in key and key.partition("[]")[0] in found}  # empty
        assert not single - found - output.optional - lists, words


@pytest.mark.end_to_end
def test_json_of_verify_reports_no_failure_but_latency(main_path: Workplace) -> None:
    """Of every `verify` that the tests before this one ran."""
    for file in sorted(main_path.outputs.glob("*.arguments")):
        if file.read_text().startswith("verify\n"):
            checks = json.loads(file.with_suffix(".json").read_text())["checks"]
            assert {check["name"] for check in checks if not check["ok"]} <= {"latency"}


def documented_output(words: list[str]) -> Output:
    """Returns the table's row for a command line."""
    command = " ".join(words[: 2 if words[0] == "share" else 1])
    for option in ("--check", "--estimate", "--dry-run"):
        if option in words:
            command += f" {option}"
    if "--format" in words:
        command += f" --format {words[words.index('--format') + 1]}"
    if command == "info":
        ending = words[1].rpartition(".")[2]
        command += f" FILE.{ending}" if ending in ("onnx", "zip") else " RUN"
    return next(output for output in OUTPUTS if output.source == command)


def flat(value: Any, prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of a JSON value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield from flat(inner, f"{prefix}[]")
    else:
        yield prefix
