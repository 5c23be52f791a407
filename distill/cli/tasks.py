"""`crl-distill tasks`: lists, draws and checks tasks."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from distill.cli.console import prepare_process, print_json, print_result
from distill.cli.options import Json, Seed
from distill.cli.tables import TextTable, format_value, pair_table
from distill.cli.terminal import TextConsole, print_line, print_message

ARRAYS = ("observation", "goal", "action")


def tasks_command(
    name: Annotated[
        str | None, typer.Argument(help="Show only this task: a name or FILE.py:Class.")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Draw task NAME after a reset, with its goal, to a new .png file."
        ),
    ] = None,
    check: Annotated[
        str | None, typer.Option(metavar="TASK", help="Look for mistakes in a task of your own.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Lists the tasks, with the fields of their observations, goals and actions.

    A task of your own is given as FILE.py:Class. With --check, the exit code is 2 where problems are found.

    \b
    Example:
      crl-distill tasks reacher --image reacher.png
      crl-distill tasks --check my_robot.py:MyRobot
    """
    prepare_process()
    from teachers.runs.errors import InputError
    from teachers.simulation.animate import picture
    from teachers.tasks.describe import describe_task
    from teachers.tasks.registry import get_task

    if check is not None:
        if name or image:
            raise InputError("--check takes the task itself; leave out NAME and --image")
        raise typer.Exit(_check_task(check, seed, as_json))
    if image and not name:
        raise InputError(f"--image {image} draws one task; name it, as in: tasks reacher --image")
    if name is None:
        rows = _describe_all_tasks()
        print_result(rows, as_json, lambda: _overview_table(rows))
        return
    task = get_task(name)
    row = describe_task(task)
    if image:
        renderer = picture(task, image, seed)
        row |= {"image": str(image), "renderer": renderer}
        print_message(f"{image}: {_describe_renderer(renderer)}")
    print_result([row], as_json, lambda: _details_table(row))


def _check_task(reference: str, seed: int, as_json: bool) -> int:
    """Prints the problems of a task, and returns the exit code."""
    from teachers.simulation.check import CHECKS

    found = inspect_task(reference, seed)
    problems = found["problems"]
    if as_json:
        print_json(found)
    else:
        for line in problems or [f"no problems found (checked: {', '.join(CHECKS)})"]:
            print_line(line)
        if found["engines"]:
            TextConsole().print(_engines_table(found["engines"]))
        for line in found["advice"]:
            print_line(line)
    return 2 if problems else 0


def inspect_task(reference: str, seed: int) -> dict[str, Any]:
    """Looks for problems in a task's construction, in the task and in its training defaults, and tries the engines.

    Args:
        reference: see `get_task`.
        seed: see `check_task`.

    Returns:
        The task's name, or the reference where there is no task, under `task`; `problems`, `contacts`, `engines` and
        `advice` as in `TaskReport`.
    """
    from teachers.config import teacher_config
    from teachers.runs.errors import InputError
    from teachers.simulation.check import report_task
    from teachers.tasks.registry import get_task

    nothing: dict[str, Any] = {"contacts": {}, "engines": [], "advice": []}
    try:
        task = get_task(reference)
    except InputError as error:
        return {"task": reference, "problems": [str(error)], **nothing}
    report = report_task(task, seed, print_message)
    problems = report.problems
    try:
        teacher_config(reference)
    except InputError as error:
        problems.append(f"training: {error}")
    return {
        "task": task.name,
        "problems": problems,
        "contacts": report.contacts.by_kind,
        "engines": [trial._asdict() for trial in report.engines],
        "advice": report.advice,
    }


def _engines_table(trials: Sequence[Mapping[str, Any]]) -> TextTable:
    table = TextTable("physics", "compiles in", "control steps/s", "from MuJoCo C", "problem")
    for trial in trials:
        seconds, speed, difference = (
            trial[key] for key in ("compile_seconds", "steps_per_second", "difference")
        )
        table.add_row(
            trial["engine"],
            "-" if seconds is None else f"{seconds:.1f} s",
            "-" if speed is None else f"{speed:,.0f}",
            "-" if difference is None else f"{difference:.2g}",
            trial["problem"] or "-",
        )
    return table


def _describe_all_tasks() -> list[dict[str, Any]]:
    from teachers.runs.errors import InputError
    from teachers.tasks.describe import describe_task
    from teachers.tasks.registry import get_task, task_names

    rows = []
    for name in task_names():
        try:
            rows.append(describe_task(get_task(name)))
        except InputError as error:  # one broken package must not hide all other tasks
            print_message(f"left out: {error}")
    return rows


def _describe_renderer(renderer: str) -> str:
    """Returns what drew a picture, and what to install for a better one."""
    if renderer == "matplotlib":
        return (
            "drawn by matplotlib in outlines, because neither EGL nor OSMesa was found; for MuJoCo's own "
            "renderer install libegl1 or libosmesa6"
        )
    return f"drawn by MuJoCo's renderer on {renderer}"


def _overview_table(rows: Sequence[Mapping[str, Any]]) -> TextTable:
    table = TextTable("task", "obs, goal, act", "episode", "radius", "what")
    for row in rows:
        sizes = ", ".join(str(row[array][-1]["stop"]) for array in ARRAYS)
        episode, radius = _format_episode(row), _format_radius(row)
        table.add_row(row["name"], sizes, episode, radius, row["summary"])
    return table


def _details_table(row: Mapping[str, Any]) -> RenderableType:
    hard = row["hard_radius"]
    shown = {
        "what": row["summary"],
        "episode": _format_episode(row),
        "success within": _format_radius(row) + (f" (hard: {hard:g})" if hard else ""),
        "goal sets": row["goal_sets"],
        "training": row["training"],
    }
    fields = (_fields_table(array, row[array]) for array in ARRAYS)
    sensors = (_sensors_table(row),) if row["sensors"] else ()
    return Group(pair_table(row["name"], shown), *fields, *sensors)


def _sensors_table(row: Mapping[str, Any]) -> TextTable:
    from teachers.tasks.describe import describe_errors

    table = TextTable(
        "sensor", "size", "from", "unit", "as it is read", "meaning", heading="sensors"
    )
    for sensor in row["sensors"]:
        size, start = str(sensor["size"]), str(sensor["start"])
        errors = describe_errors(sensor, row["control_period"])
        table.add_row(sensor["name"], size, start, sensor["unit"], errors, sensor["meaning"])
    return table


def _fields_table(title: str, fields: Sequence[Mapping[str, Any]]) -> TextTable:
    columns = ("field", "size", "from", "unit", "scale", "limits", "meaning")
    table = TextTable(*columns, heading=title)
    for field in fields:
        limits = [field["low"], field["high"]]
        table.add_row(
            field["name"],
            str(field["size"]),
            str(field["start"]),
            field["unit"],
            format_value(field["scale"]),
            "-" if limits == [None, None] else format_value(limits),
            field["meaning"],
        )
    return table


def _format_episode(row: Mapping[str, Any]) -> str:
    return f"{row['episode_steps']} x {1000 * row['control_period']:g} ms"


def _format_radius(row: Mapping[str, Any]) -> str:
    return f"{row['success_radius']:g} {row['goal'][0]['unit']}"
