"""The figures of a comparison."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from teachers.runs.outputs import local_draft

POLICIES = ("teacher", "student", "randomized")


def draw_figures(result: Mapping[str, Any], out: epath.Path) -> None:
    """Draws `students.png`, `methods.png` and `robustness.png` in `out`.

    Args:
        result: what `run_compare` returns.
        out: the folder.
    """
    from matplotlib.figure import Figure  # here, because the import takes a second

    for name, width, panel in (
        ("students", 6.4, _draw_sizes),
        ("methods", 6.4, _draw_methods),
        ("robustness", 8.0, _draw_robustness),
    ):
        page = Figure(figsize=(width, 4.0), layout="constrained")
        axes = page.subplots()
        panel(axes, result)
        axes.grid(alpha=0.3)
        with local_draft(out / f"{name}.png") as draft:
            page.savefig(draft, dpi=110)


def draw_sensors(result: Mapping[str, Any], out: epath.Path) -> None:
    """Draws `sensors.png` in `out`: what students keep in each condition, distilled undisturbed and disturbed.

    Args:
        result: what `run_compare_sensors` returns.
        out: the folder.
    """
    from matplotlib.figure import Figure

    rows = result["conditions"]
    names = [row["student"] for row in result["students"] if not row["randomized"]]
    page = Figure(figsize=(9.0, 6.4), layout="constrained")
    panels = page.subplots(2, 1, sharex=True)
    for axes, ending, title in zip(
        panels,
        ("", "_randomized"),
        ("distilled undisturbed", "distilled under all disturbances"),
        strict=True,
    ):
        _draw_bars(axes, rows, {name: name + ending for name in names})
        axes.set(title=title, ylabel="time at goal / teacher's")
        axes.grid(alpha=0.3)
    panels[0].legend()
    with local_draft(out / "sensors.png") as draft:
        page.savefig(draft, dpi=110)


def _draw_bars(axes: Any, rows: list[Mapping[str, Any]], keys: Mapping[str, str]) -> None:
    """Draws a group of bars for each condition, in it one for each key, with its interval where there are values."""
    x, width = np.arange(len(rows)), 0.8 / len(keys)
    for i, (label, key) in enumerate(keys.items()):
        values = np.array([row[key] for row in rows], float)
        ends = [row[f"{key}_ci95"] or (np.nan, np.nan) for row in rows]
        low, high = np.array(ends, float).T
        lengths = _error_lengths(values, low, high)
        place = x + (i + 0.5) * width - 0.4
        axes.bar(place, values, width, yerr=lengths, label=label, capsize=2)
    axes.set_xticks(x, [row["condition"] for row in rows], rotation=30, ha="right")


def _draw_sizes(axes: Any, result: Mapping[str, Any]) -> None:
    """Draws retention against latency, and the sizes that no other size beats in both."""
    rows = [row for row in result["students"] if row["retention"] is not None]
    for row in rows:
        low, high = row["retention_ci95"]
        lengths = _error_lengths(row["retention"], low, high or row["retention"])
        axes.errorbar(row["latency_us"], row["retention"], lengths, fmt="o", capsize=3, color="C0")
        axes.annotate(
            f"{row['layers']} x {row['width']}",
            (row["latency_us"], row["retention"]),
            textcoords="offset points",
            xytext=(6, 4),
        )
    front = list(_pareto_front(rows))
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


def _pareto_front(rows: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    best = -np.inf
    for row in sorted(rows, key=lambda row: (row["latency_us"], -row["retention"])):
        if row["retention"] > best:
            best = row["retention"]
            yield row


def _draw_methods(axes: Any, result: Mapping[str, Any]) -> None:
    """Draws the retention of each method at equal steps, for each seed and over seeds."""
    rows = [row for row in result["methods"] if row["retention"] is not None]
    for x, row in enumerate(rows):
        retention, (low, high) = row["retention"], row["retention_ci95"]
        axes.plot([x] * row["seeds"], row["retention_by_seed"], ".", color="C0", alpha=0.4)
        axes.errorbar(
            x, retention, _error_lengths(retention, low, high), fmt="o", capsize=4, color="C0"
        )
    axes.set_xticks(range(len(rows)), [row["method"] for row in rows], rotation=20, ha="right")
    axes.set(ylabel=f"retention after {rows[0]['steps']:,} steps" if rows else "retention")


def _draw_robustness(axes: Any, result: Mapping[str, Any]) -> None:
    """Draws the time at goal under each condition."""
    rows = result["robustness"]
    _draw_bars(axes, rows, {name: name for name in POLICIES})
    axes.set(ylabel="time at goal")
    axes.legend()


def _error_lengths(values: Any, low: Any, high: Any) -> Any:
    """Returns an interval as matplotlib takes it: its lengths below and above the value, none of them negative."""
    return np.maximum([np.ravel(values - low), np.ravel(high - values)], 0.0)
