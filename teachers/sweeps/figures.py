"""Learning curves, and the figures of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from etils import epath

from teachers.runs.outputs import local_draft

SweepFigure = Literal["depth", "parameters", "actor_critic", "batch", "curves"]
Rows = Sequence[Mapping[str, Any]]


def plot_sweep(rows: Rows, figure: SweepFigure, file: epath.PathLike) -> None:
    """Draws the results of a sweep: interquartile means over seeds with their 95% intervals, and the curves of all runs.

    Args:
        rows: as `teachers.sweeps.sweep.summarise` gives them.
        figure: `depth`, time at goal against depth, a line for each other setting; `parameters`, against the number of
            parameters, a line for each width and one for each depth; `actor_critic`, against the actor's and the
            critic's depth; `batch`, against batch size, a line for each depth; `curves`, success against control steps, each
            run and their mean.
        file: the picture to write.
    """
    from matplotlib import colormaps  # late: it takes a second to import
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    page = Figure(figsize=(6.2 * len(tasks), 3.8), layout="constrained")
    pairs = colormaps["tab20"](np.arange(20))
    colors = [*pairs[::2], *pairs[1::2]]  # the strong ones first
    for axes, task in zip(page.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        axes.set_prop_cycle(color=colors)
        _DRAW[figure](axes, [row for row in rows if row["task"] == task])
        axes.set_title(epath.Path(task).name)
    with local_draft(file) as draft:
        page.savefig(draft, dpi=110)


def _by_depth(axes: Any, rows: Rows) -> None:
    _lines(axes, rows, "critic_depth", lambda row: _others(row, "depth", "critic.depth"))
    axes.set(xlabel="depth", ylabel="time at goal")


def _by_batch(axes: Any, rows: Rows) -> None:
    _lines(axes, rows, "batch", lambda row: _others(row, "learning.batch"))
    axes.set(xlabel="batch", ylabel="time at goal")


def _by_parameters(axes: Any, rows: Rows) -> None:
    for fixed, style in (("width", "-"), ("depth", "--")):

        def label(row: Mapping[str, Any], fixed: str = fixed) -> str:
            others = _others(
                row,
                *(f"{critic}{shape}" for critic in ("", "critic.") for shape in ("depth", "width")),
            )
            return f"{fixed} {row[f'critic_{fixed}']}" + (others and f", {others}")

        _lines(axes, rows, "parameters", label, style)
    axes.set(xlabel="parameters", ylabel="time at goal")


def _by_actor_and_critic(axes: Any, rows: Rows) -> None:
    actors = sorted({row["actor_depth"] for row in rows})
    critics = sorted({row["critic_depth"] for row in rows})
    grid = np.full((len(actors), len(critics)), np.nan)
    for row in rows:
        at = actors.index(row["actor_depth"]), critics.index(row["critic_depth"])
        grid[at] = row["time_at_goal"]
        low, high = row["time_at_goal_ci95"]
        label = f"{row['time_at_goal']:.2f}\n[{low:.2f}, {high:.2f}]"
        axes.text(at[1], at[0], label, ha="center", va="center", fontsize=7, color="white")
    axes.imshow(grid, origin="lower", vmin=0, vmax=max(0.5, float(np.nanmax(grid))), cmap="viridis")
    axes.set(xlabel="depth of phi and psi", ylabel="depth of the actor")
    axes.set_xticks(range(len(critics)), [str(depth) for depth in critics])
    axes.set_yticks(range(len(actors)), [str(depth) for depth in actors])


def _curves(axes: Any, rows: Rows) -> None:
    for row in rows:
        steps = row["curve"]["step"]
        # A run that diverged stays where it was.
        runs = [run + run[-1:] * (len(steps) - len(run)) for run in row["curve"]["success"] if run]
        if not runs:
            continue
        (line,) = axes.plot(steps, np.mean(runs, axis=0), label=row["cell"])
        for run in runs:
            axes.plot(steps, run, color=line.get_color(), alpha=0.25, linewidth=0.8)
    axes.set(xlabel="control steps", ylabel="success at end", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    _legend(axes)


def _lines(axes: Any, rows: Rows, x: str, label: Any, style: str = "-") -> None:
    """Time at goal against `x`: a line for the rows of each label."""
    for name in dict.fromkeys(map(label, rows)):
        own = sorted((row for row in rows if label(row) == name), key=lambda row: float(row[x]))
        at, values = [row[x] for row in own], np.array([row["time_at_goal"] for row in own])
        low, high = np.transpose([row["time_at_goal_ci95"] for row in own])
        around = np.maximum([values - low, high - values], 0.0)
        axes.errorbar(at, values, around, fmt=f"{style}o", capsize=3, label=name or None)
    axes.set_xscale("log", base=10 if x == "parameters" else 2)
    if x != "parameters":
        at = sorted({row[x] for row in rows})
        axes.set_xticks(at, [str(value) for value in at])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    _legend(axes)


def _legend(axes: Any) -> None:
    """Beside the drawing where it would cover it."""
    labels = axes.get_legend_handles_labels()[1]
    if len(labels) > 4:
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    elif labels:
        axes.legend(fontsize=7)


def _others(row: Mapping[str, Any], *hidden: str) -> str:
    """What a row varies beside its task and what is hidden."""
    shown = (key for key in row["varied"] if key not in ("task", *hidden))
    return ", ".join(f"{key} {row['varied'][key]}" for key in shown)


_DRAW = {
    "depth": _by_depth,
    "parameters": _by_parameters,
    "actor_critic": _by_actor_and_critic,
    "batch": _by_batch,
    "curves": _curves,
}
