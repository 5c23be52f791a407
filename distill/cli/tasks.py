"""What `crl-distill tasks` shows, and its checks."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from distill.cli.console import pair_table, text
from teachers.config import teacher_config
from teachers.runs.errors import InputError
from teachers.simulation.check import CHECKED, check_task
from teachers.tasks.registry import get_task

ARRAYS = ("observation", "goal", "action")
NO_PROBLEMS = f"no problems found (checked: {', '.join(CHECKED)})"


def overview(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A line for each task, as `describe_task` describes it."""
    result = Table("task", "obs, goal, act", "episode", "radius", "what")
    for row in rows:
        sizes = ", ".join(str(row[kind][-1]["stop"]) for kind in ARRAYS)
        result.add_row(row["name"], sizes, _episode(row), _radius(row), row["summary"])
    return result


def details(row: Mapping[str, Any]) -> RenderableType:
    """All of one task."""
    hard = row["hard_radius"]
    shown = {
        "what": row["summary"],
        "episode": _episode(row),
        "success within": _radius(row) + (f" (hard: {hard:g})" if hard else ""),
        "goal sets": row["goal_sets"],
        "contacts": f"{row['contacts']} at once",
        "training": row["training"],
    }
    return Group(pair_table(row["name"], shown), *(_fields(kind, row[kind]) for kind in ARRAYS))


def check(reference: str, seed: int) -> tuple[str, list[str]]:
    """Checks a task, its construction and its training defaults.

    Args:
        reference: see `get_task`.
        seed: see `check_task`.

    Returns:
        The task's name, or the reference where there is no task, and the problems.
    """
    try:
        task = get_task(reference)
    except InputError as error:
        return reference, [str(error)]
    problems = check_task(task, seed)
    try:
        teacher_config(reference)
    except InputError as error:
        problems.append(f"training: {error}")
    return task.name, problems


def drawn_by(renderer: str) -> str:
    """Says what drew a picture, and what to install for a better one."""
    if renderer == "matplotlib":
        return (
            "drawn by matplotlib in outlines, because neither EGL nor OSMesa was found; for MuJoCo's own "
            "renderer install libegl1 or libosmesa6"
        )
    return f"drawn by MuJoCo's renderer on {renderer}"


def _episode(row: Mapping[str, Any]) -> str:
    return f"{row['episode_steps']} x {1000 * row['control_period']:g} ms"


def _radius(row: Mapping[str, Any]) -> str:
    return f"{row['success_radius']:g} {row['goal'][0]['unit']}"


def _fields(kind: str, fields: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("field", "size", "from", "unit", "scale", "limits", "meaning")
    table = Table(*columns, title=kind, title_justify="left")
    for field in fields:
        limits = [field["low"], field["high"]]
        table.add_row(
            field["name"],
            str(field["size"]),
            str(field["start"]),
            field["unit"],
            text(field["scale"]),
            "-" if limits == [None, None] else text(limits),
            field["meaning"],
        )
    return table
