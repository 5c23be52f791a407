"""What `compare` shows: figures, and tables for reading."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from teachers.runs.outputs import local_draft

POLICIES = ("teacher", "student", "randomized")


def draw_figures(result: Mapping[str, Any], out: epath.Path) -> None:
    """Draws a comparison's results: `students.png`, `methods.png` and `robustness.png` in `out`."""
    from matplotlib.figure import Figure  # late: it takes a second to import

    for name, width, panel in (
        ("students", 6.4, _sizes),
        ("methods", 6.4, _methods),
        ("robustness", 8.0, _robustness),
    ):
        page = Figure(figsize=(width, 4.0), layout="constrained")
        axes = page.subplots()
        panel(axes, result)
        axes.grid(alpha=0.3)
        with local_draft(out / f"{name}.png") as draft:
            page.savefig(draft, dpi=110)


def _sizes(axes: Any, result: Mapping[str, Any]) -> None:
    """Retention against latency, and which sizes no other beats in both."""
    rows = [row for row in result["students"] if row["retention"] is not None]
    for row in rows:
        low, high = row["retention_ci95"]
        around = _around(row["retention"], low, high or row["retention"])
        axes.errorbar(row["latency_us"], row["retention"], around, fmt="o", capsize=3, color="C0")
        axes.annotate(
            f"{row['layers']} x {row['width']}",
            (row["latency_us"], row["retention"]),
            textcoords="offset points",
            xytext=(6, 4),
        )
    front = list(_front(rows))
    axes.step(
        [row["latency_us"] for row in front],
        [row["retention"] for row in front],
        where="post",
        color="C0",
        alpha=0.5,
        label="Pareto front",
    )
    scratch = result["from_scratch"]
    if scratch["retention"] is not None:
        label = f"{scratch['layers']} x {scratch['width']} trained from scratch"
        axes.axhline(scratch["retention"], color="C3", linestyle="--", label=label)
    teacher = result["teacher"]
    if teacher["latency_us"]:
        axes.axvline(teacher["latency_us"], color="C1", label=f"teacher, depth {teacher['depth']}")
    axes.set(xscale="log", xlabel="µs per action, ONNX Runtime, one thread", ylabel="retention")
    axes.legend()


def _front(rows: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    best = -np.inf
    for row in sorted(rows, key=lambda row: (row["latency_us"], -row["retention"])):
        if row["retention"] > best:
            best = row["retention"]
            yield row


def _methods(axes: Any, result: Mapping[str, Any]) -> None:
    """Retention of each method at equal steps, of each seed and over seeds."""
    rows = [row for row in result["methods"] if row["retention"] is not None]
    for at, row in enumerate(rows):
        kept, (low, high) = row["retention"], row["retention_ci95"]
        axes.plot([at] * row["seeds"], row["retention_by_seed"], ".", color="C0", alpha=0.4)
        axes.errorbar(at, kept, _around(kept, low, high), fmt="o", capsize=4, color="C0")
    axes.set_xticks(range(len(rows)), [row["method"] for row in rows], rotation=20, ha="right")
    axes.set(ylabel=f"retention after {rows[0]['steps']:,} steps" if rows else "retention")


def _robustness(axes: Any, result: Mapping[str, Any]) -> None:
    """Time at goal under each condition."""
    rows = result["robustness"]
    at = np.arange(len(rows))
    for shift, name in zip((-0.25, 0.0, 0.25), POLICIES, strict=True):
        values = np.array([row[name] for row in rows])
        low, high = np.transpose([row[f"{name}_ci95"] for row in rows])
        axes.bar(at + shift, values, 0.25, yerr=_around(values, low, high), label=name, capsize=2)
    axes.set_xticks(at, [row["condition"] for row in rows], rotation=30, ha="right")
    axes.set(ylabel="time at goal")
    axes.legend()


def _around(values: Any, low: Any, high: Any) -> Any:
    """An interval as matplotlib takes it: lengths to both sides, none below zero."""
    return np.maximum([np.ravel(values - low), np.ravel(high - values)], 0.0)
