"""What the benchmarks share: where they run, and tables that are also written as JSON."""

import argparse
import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from teachers import load_teacher
from teachers.agent import Agent
from teachers.process import use_compilation_cache


def parser(description: str) -> argparse.ArgumentParser:
    """Command-line options that every benchmark takes."""
    use_compilation_cache()
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--json", type=Path, help="write the rows to this file")
    result.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return result


def parsed_with_teacher(options: argparse.ArgumentParser) -> tuple[argparse.Namespace, Agent]:
    """What the command line says, and the teacher whose run it names."""
    options.add_argument("teacher", help="its run")
    options.add_argument("--checkpoint", choices=["newest", "best"], default="newest")
    given = options.parse_args()
    return given, load_teacher(given.teacher, checkpoint=given.checkpoint)


def machine() -> str:
    """Date, processor and versions, for RESULTS.md."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{datetime.date.today()}, {platform.machine()}, {cores} CPU cores, {jax.default_backend()}, "
        f"Python {platform.python_version()}, JAX {jax.__version__}"
    )


def report(
    rows: Sequence[Mapping[str, Any]], file: Path | None, without: Sequence[str] = ()
) -> None:
    """Prints the rows as a table, `without` some columns, and writes them as JSON where a file is given."""
    shown = [column for column in rows[0] if column not in without]
    table = Table(*shown, title=machine(), title_justify="left")
    for row in rows:
        values = (row[column] for column in shown)
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values))
    Console(width=160).print(table)
    if file:
        file.write_text(json.dumps(list(rows), indent=2) + "\n")
