"""Tables of results, for reading."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from distill.cli.console import figure, text
from distill.compare_figures import POLICIES


def summary_table(result: Mapping[str, Any]) -> Table:
    """The demo's figures for reading."""
    title = (
        f"{result['task']}, {result['episodes']} episodes, 95% intervals; "
        f"ONNX differs from JAX by at most {result['parity_max_abs']:.1e}; "
        f"{result['seconds']['total']:.0f} s in all"
    )
    table = Table(
        *("", "success at end", "time at goal", "retention", "parameters", "us per action"),
        title=title,
        title_justify="left",
    )
    names = {
        "teacher": "teacher in MJX",
        "student": "student in MJX",
        "onnx": "ONNX student in MuJoCo C",
    }
    for key, name in names.items():
        row = result[key]
        table.add_row(
            name,
            f"{row['success_at_end']:.3f}",
            figure(row, "time_at_goal"),
            figure(row, "retention"),
            f"{row['parameters']:,}",
            f"{row['latency_us']['p50']:.1f}" if "latency_us" in row else "-",
        )
    return table


def compare_tables(title: str, result: Mapping[str, Any]) -> RenderableType:
    """A comparison's results, for reading."""
    teacher, cost, scratch = result["teacher"], result["cost"], result["from_scratch"]
    sizes = Table(
        *("policy", "retention", "success at end", "us per action", "parameters"),
        title=f"{title}: students of {teacher['task']}, {result['episodes']} episodes",
        title_justify="left",
    )
    sizes.add_row(
        f"teacher, depth {teacher['depth']}, width {teacher['width']}",
        "-",
        figure(teacher, "success_at_end"),
        text(teacher["latency_us"] or "-"),
        f"{teacher['parameters']:,}",
    )
    for row in result["students"]:
        sizes.add_row(
            f"{row['layers']} x {row['width']}",
            figure(row, "retention"),
            figure(row, "success_at_end"),
            f"{row['latency_us']:.1f}",
            f"{row['parameters']:,}",
        )
    shape = f"{scratch['layers']} x {scratch['width']}"
    for name, row in (
        (f"{shape}, distilled, {result['distilled']['seeds']} seeds", result["distilled"]),
        (f"{shape}, from scratch, {scratch['steps']:,} steps", scratch),
    ):
        sizes.add_row(name, figure(row, "retention"), figure(row, "success_at_end"), "-", "-")

    methods = Table("method", "steps", "retention", "seconds", title="methods at equal steps")
    for row in result["methods"]:
        seconds = f"{row['seconds']:.1f}"
        methods.add_row(row["method"], f"{row['steps']:,}", figure(row, "retention"), seconds)

    names = ("spearman", "spearman_within_goal", "top1_retention", "auroc", "teacher_auroc")
    critics = Table("critic", *names, title="critic, against the teacher's")
    for row in [{"loss": "embedding (default)", **result["critic"]}, *result["critics"]]:
        critics.add_row(row["loss"], *(figure(row, name) for name in names))

    robustness = Table("condition", *POLICIES, title="time at goal under what a robot meets")
    for row in result["robustness"]:
        robustness.add_row(row["condition"], *(figure(row, name) for name in POLICIES))

    said = "cost of distillation: " + ", ".join(
        f"{cost[name]:.1%} of the teacher's {what}"
        for name, what in (("steps_share", "steps"), ("seconds_share", "seconds"))
        if cost[name] is not None
    )
    return Group(sizes, methods, critics, robustness, said)
