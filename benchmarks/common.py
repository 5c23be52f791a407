"""Provides what the benchmarks share: command-line options, network sizes, and tables that are also written as JSON."""

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

TABLE_WIDTH = 200  # characters; also where the output is not a terminal


def make_parser(description: str, default_seeds: Sequence[int] = ()) -> argparse.ArgumentParser:
    """Returns a parser with the options that benchmarks share, and turns the compilation cache on.

    Args:
        description: the module docstring of the benchmark.
        default_seeds: the default of `--seeds`; empty for a benchmark that takes no seeds.
    """
    use_compilation_cache()
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    if default_seeds:
        parser.add_argument(
            "--seeds",
            type=int,
            nargs="+",
            default=list(default_seeds),
            help=f"seeds to run (default: {' '.join(map(str, default_seeds))})",
        )
    return parser


def add_checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says which checkpoint of a teacher is loaded."""
    parser.add_argument(
        "--checkpoint",
        choices=["newest", "best"],
        default="newest",
        help="checkpoint of the teacher to load (default: newest)",
    )


def parse_with_teacher(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Agent]:
    """Adds the options that name a teacher; returns all parsed options and the loaded teacher."""
    parser.add_argument("teacher", help="folder of the teacher's training run")
    add_checkpoint_option(parser)
    options = parser.parse_args()
    return options, load_teacher(options.teacher, checkpoint=options.checkpoint)


def network_sizes(depth: int, width: int) -> dict[str, int]:
    """Returns the settings that give a teacher's actor, phi and psi this depth and width."""
    networks = ("actor", "phi", "psi")
    return {
        **{f"{network}.depth": depth for network in networks},
        **{f"{network}.width": width for network in networks},
    }


def describe_machine() -> str:
    """Returns the date, processor, number of cores and versions, as RESULTS.md gives them beside each table."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{datetime.date.today()}, {platform.machine()}, {cores} CPU cores, {jax.default_backend()}, "
        f"Python {platform.python_version()}, JAX {jax.__version__}"
    )


def report(
    rows: Sequence[Mapping[str, Any]], file: Path | None, hidden_columns: Sequence[str] = ()
) -> None:
    """Prints the rows as a table and writes them as JSON.

    Args:
        rows: the rows of the table; the first row's keys are the columns.
        file: the JSON file to write; None writes no file.
        hidden_columns: columns that stand in the file but not in the printed table.
    """
    columns = [column for column in rows[0] if column not in hidden_columns]
    table = Table(*columns, title=describe_machine(), title_justify="left")
    for row in rows:
        values = (row[column] for column in columns)
        table.add_row(
            *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
        )
    Console(width=TABLE_WIDTH).print(table)
    if file:
        file.write_text(json.dumps(list(rows), indent=2) + "\n", encoding="utf-8")
