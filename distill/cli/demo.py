"""`crl-distill demo`: everything from a task to an ONNX student."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from distill.cli.console import prepare_process, print_result, show_progress
from distill.cli.options import Json, Seed
from distill.cli.tables import TextTable, format_figure

POLICIES = {
    "teacher": "teacher in JAX",
    "student": "student in JAX",
    "onnx": "student in ONNX Runtime",
}


def demo_command(
    out: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="Folder for all results; an earlier demo there is replaced."
        ),
    ] = "runs/demo",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Runs every stage on task reacher: teacher, student, ONNX, MuJoCo C. It takes a few minutes on two CPU cores.

    \b
    Example:
      crl-distill demo --out runs/demo
    """
    prepare_process()
    from distill.demo import run_demo

    summary = run_demo(out, seed, show_progress)
    print_result(summary, as_json, lambda: _summary_table(summary))


def _summary_table(summary: Mapping[str, Any]) -> TextTable:
    title = (
        f"{summary['task']}, {summary['episodes']} episodes, 95% intervals; "
        f"ONNX differs from JAX by at most {summary['parity_max_abs']:.1e}; "
        f"{summary['seconds']['total']:.0f} s in all"
    )
    table = TextTable(
        *("", "success at end", "time at goal", "retention", "parameters", "us per action"),
        heading=title,
    )
    for key, name in POLICIES.items():
        row = summary[key]
        table.add_row(
            name,
            f"{row['success_at_end']:.3f}",
            format_figure(row, "time_at_goal"),
            format_figure(row, "retention"),
            f"{row['parameters']:,}",
            f"{row['latency_us']['p50']:.1f}" if "latency_us" in row else "-",
        )
    return table
