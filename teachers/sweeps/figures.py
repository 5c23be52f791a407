"""Draws the figures of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from etils import epath

from teachers.runs.outputs import local_draft

SweepFigure = Literal["depth", "parameters", "actor_critic", "batch", "curves"]
Rows = Sequence[Mapping[str, Any]]


def plot_sweep(rows: Rows, figure: SweepFigure, file: epath.PathLike) -> None:
    """Draws a figure of the results of a sweep: interquartile means over seeds with their 95% intervals, or curves.

    Args:
        rows: the results; see `teachers.sweeps.sweep.summarise`.
        figure: `depth` shows time at goal against depth, with a line for each combination of the other settings;
            `parameters` shows it against the number of parameters, with a line for each width and one for each depth;
            `actor_critic` against the depths of actor and critic; `batch` against the batch size, with a line for each
            depth; `curves` shows success against control steps, of each run and their mean.
        file: the picture to write.
    """
    from matplotlib import colormaps  # imported here because it takes a second
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    page = Figure(figsize=(6.2 * len(tasks), 3.8), layout="constrained")
    pairs = colormaps["tab20"](np.arange(20))
    colors = [*pairs[::2], *pairs[1::2]]  # the dark colour of each pair first
    for axes, task in zip(page.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        axes.set_prop_cycle(color=colors)
        _DRAW[figure](axes, [row for row in rows if row["task"] == task])
        axes.set_title(epath.Path(task).name)
    with local_draft(file) as draft:
        page.savefig(draft, dpi=110)


def _draw_by_depth(axes: Any, rows: Rows) -> None:
    _draw_lines(
        axes, rows, "critic_depth", lambda row: _varied_settings(row, "depth", "critic.depth")
    )
    axes.set(xlabel="depth", ylabel="time at goal")


def _draw_by_batch(axes: Any, rows: Rows) -> None:
    _draw_lines(axes, rows, "batch", lambda row: _varied_settings(row, "learning.batch"))
    axes.set(xlabel="batch", ylabel="time at goal")


def _draw_by_parameters(axes: Any, rows: Rows) -> None:
    for fixed, style in (("width", "-"), ("depth", "--")):

        def label(row: Mapping[str, Any], fixed: str = fixed) -> str:
            others = _varied_settings(
                row,
                *(f"{critic}{shape}" for critic in ("", "critic.") for shape in ("depth", "width")),
            )
            return f"{fixed} {row[f'critic_{fixed}']}" + (others and f", {others}")

        _draw_lines(axes, rows, "parameters", label, style)
    axes.set(xlabel="parameters", ylabel="time at goal")


def _draw_by_actor_and_critic(axes: Any, rows: Rows) -> None:
    actors = sorted({row["actor_depth"] for row in rows})
    critics = sorted({row["critic_depth"] for row in rows})
    grid = np.full((len(actors), len(critics)), np.nan)
    for row in rows:
        y, x = actors.index(row["actor_depth"]), critics.index(row["critic_depth"])
        grid[y, x] = row["time_at_goal"]
        lower, upper = row["time_at_goal_ci95"]
        label = f"{row['time_at_goal']:.2f}\n[{lower:.2f}, {upper:.2f}]"
        axes.text(x, y, label, ha="center", va="center", fontsize=7, color="white")
    axes.imshow(grid, origin="lower", vmin=0, vmax=max(0.5, float(np.nanmax(grid))), cmap="viridis")
    axes.set(xlabel="depth of phi and psi", ylabel="depth of the actor")
    axes.set_xticks(range(len(critics)), [str(depth) for depth in critics])
    axes.set_yticks(range(len(actors)), [str(depth) for depth in actors])


def _draw_curves(axes: Any, rows: Rows) -> None:
    for row in rows:
        steps = row["curve"]["step"]
        # The curve of a run that diverged is continued at its last value.
        runs = [run + run[-1:] * (len(steps) - len(run)) for run in row["curve"]["success"] if run]
        if not runs:
            continue
        (line,) = axes.plot(steps, np.mean(runs, axis=0), label=row["cell"])
        for run in runs:
            axes.plot(steps, run, color=line.get_color(), alpha=0.25, linewidth=0.8)
    axes.set(xlabel="control steps", ylabel="success at end", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    _draw_legend(axes)


def _draw_lines(axes: Any, rows: Rows, x: str, label: Any, style: str = "-") -> None:
    """Draws time at goal against the figure `x`, with a line through the rows of each label."""
    for name in dict.fromkeys(map(label, rows)):
        line = sorted((row for row in rows if label(row) == name), key=lambda row: float(row[x]))
        positions, values = (
            [row[x] for row in line],
            np.array([row["time_at_goal"] for row in line]),
        )
        lower, upper = np.transpose([row["time_at_goal_ci95"] for row in line])
        errors = np.maximum([values - lower, upper - values], 0.0)
        axes.errorbar(positions, values, errors, fmt=f"{style}o", capsize=3, label=name or None)
    axes.set_xscale("log", base=10 if x == "parameters" else 2)
    if x != "parameters":
        ticks = sorted({row[x] for row in rows})
        axes.set_xticks(ticks, [str(value) for value in ticks])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    _draw_legend(axes)


def _draw_legend(axes: Any) -> None:
    """Draws the legend; a long one beside the axes, which it would cover otherwise."""
    labels = axes.get_legend_handles_labels()[1]
    if len(labels) > 4:
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    elif labels:
        axes.legend(fontsize=7)


def _varied_settings(row: Mapping[str, Any], *hidden: str) -> str:
    """Returns the settings that a row varies as text, without the task and the hidden ones."""
    shown = (key for key in row["varied"] if key not in ("task", *hidden))
    return ", ".join(f"{key} {row['varied'][key]}" for key in shown)


_DRAW = {
    "depth": _draw_by_depth,
    "parameters": _draw_by_parameters,
    "actor_critic": _draw_by_actor_and_critic,
    "batch": _draw_by_batch,
    "curves": _draw_curves,
}
