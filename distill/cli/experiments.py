"""What `train-teacher --estimate` and `sweep` show."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.table import Table

from distill.cli.console import figure, pair_table, text
from teachers.crl.memory import GIB
from teachers.sweeps.specification import Cell


def estimate_table(needed: Mapping[str, Any]) -> Table:
    """An estimate, for reading."""
    rows: dict[str, Any] = {
        "parameters": ", ".join(f"{name} {n:,}" for name, n in needed["parameters"].items()),
        "control steps": f"{needed['steps']:,} in {needed['iterations']:,} iterations",
        **{f"memory: {part}": _gib(size) for part, size in needed["memory"].items()},
        "memory: all": f"{_gib(needed['memory_total'])} of {_gib(needed['device_memory'])}",
        "activations": "computed again for the gradient" if needed["remat"] else "kept",
    }
    if "seconds" in needed:
        seconds = needed["seconds"]
        rows |= {f"seconds: {part}": text(seconds[part]) for part in seconds if part != "run"}
        rows["duration"] = str(timedelta(seconds=round(seconds["run"])))
    if not needed["fits"]:
        rows["fits"] = (
            "no: lower rollout.environments, rollout.replay_steps, learning.batch, depth or width"
        )
    return pair_table(f"estimate for {needed['task']}", rows)


def planned(cells: Sequence[Cell], seeds: int) -> list[dict[str, Any]]:
    """The cells of a sweep that is not run."""
    return [
        {
            "cell": cell.name,
            "task": cell.config.task,
            "seeds": seeds,
            "steps": cell.config.iterations * cell.config.steps_per_iteration,
        }
        for cell in cells
    ]


def planned_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The cells of a sweep that is not run, for reading."""
    table = Table("cell", "task", "seeds", "steps of each", title=title, title_justify="left")
    for row in rows:
        table.add_row(row["cell"], row["task"], str(row["seeds"]), f"{row['steps']:,}")
    return table


def sweep_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The results of a sweep, for reading."""
    columns = ("cell", "time at goal", "success", "parameters", "seconds a run")
    table = Table(*columns, title=title, title_justify="left")
    table.columns[0].overflow = "fold"  # cells differ in the end of their names
    for row in rows:
        diverged = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        table.add_row(
            row["cell"].replace(",", "\n") + diverged,
            figure(row, "time_at_goal"),
            figure(row, "success"),
            f"{row['parameters']:,}",
            f"{row['seconds']:.0f}",
        )
    return table


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f} GiB"
