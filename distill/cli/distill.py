"""`crl-distill distill` and `crl-distill compare`: one student of a teacher, or many side by side."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from distill.cli.console import prepare_process, print_result, print_run, show_progress
from distill.cli.options import (
    Assignments,
    Checkpoint,
    ConfigFile,
    Force,
    Json,
    Physics,
    TaskOption,
    TrainingSeed,
    drop_unset,
    parse_checkpoint,
    parse_task,
)
from distill.cli.tables import TextTable, format_figure, format_value


def distill_command(
    teacher: Annotated[str, typer.Argument(help="Folder of a teacher's run.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="New folder of the run.  [default: runs/TASK-student]"),
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Hidden layers of policy and critic.")] = None,
    width: Annotated[int | None, typer.Option(help="Units of each hidden layer.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Control steps of the whole run.  [default: 8% of the teacher's]"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Settings to start from, such as bc; --config wins.  [default: dagger]"),
    ] = None,
    randomize: Annotated[
        bool,
        typer.Option(
            "--randomize",
            help="Collect states under noise, delay and pushes, with other masses, friction, gains and starts.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue an interrupted distillation in --out; start anew where there is no checkpoint.",
        ),
    ] = False,
    force: Force = False,
    seed: TrainingSeed = None,
    physics: Physics = None,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    config: ConfigFile = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Distills a teacher into a shallow student.

    \b
    Example:
      crl-distill distill runs/teacher --layers 2 --width 64 --out runs/student
    """
    prepare_process()
    from distill.config import distill_config
    from distill.run import distill_teacher
    from teachers import InputError, load_teacher
    from teachers.runs.configuration import parse_assignments
    from teachers.tasks.disturbance import randomized_settings

    if steps is not None and steps < 1:
        raise InputError(
            f"--steps {steps}: a student learns from the states it visits; give 1 or more"
        )
    networks = ("student.policy", "student.critic")
    options = {
        **{f"{network}.layers": layers for network in networks},
        **{f"{network}.width": width for network in networks},
        "seed": seed,
        "steps": steps,
        "collect.physics": physics,
        **(randomized_settings("collect") if randomize else {}),
    }
    overrides = drop_unset(options) | parse_assignments(assignments or [])
    agent = load_teacher(teacher, parse_task(task), parse_checkpoint(checkpoint))
    resolved = distill_config(config, overrides, method, agent.task)
    folder = out or f"runs/{agent.task.name}-student"
    with show_progress("distill") as report:
        student = distill_teacher(
            agent, resolved, folder, resume=resume, force=force, progress=report
        )
    print_run(folder, student.metadata, as_json)


def compare_command(
    teacher: Annotated[str, typer.Argument(help="Folder of a teacher's run.")],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Folder of the comparison, new or to continue.  [default: runs/TASK-compare, or ...-quick]",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Compare fewer sizes, methods, seeds and episodes, in a few minutes."
        ),
    ] = False,
    sensors: Annotated[
        bool,
        typer.Option(
            "--sensors",
            help="Compare what students read and remember: the observation, or the task's sensors without memory, with a history, or a GRU.",
        ),
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Number of students of each method.")
    ] = None,
    force: Force = False,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    as_json: Json = False,
) -> None:
    """Distills a teacher in many ways and measures each student's retention and cost.

    Compares sizes against latency, methods at equal steps, the same student trained from scratch, critics, and time at goal
    under noise, delay, other masses and pushes. Writes the students, compare.json and figures to --out. Called again, it
    continues where it stopped.

    With --sensors it compares students that read what the robot measures, each distilled undisturbed and under disturbances, and
    writes sensors.json and sensors.png.

    \b
    Example:
      crl-distill compare runs/teacher --quick --out runs/compare
      crl-distill compare runs/teacher --sensors --out runs/sensors
    """
    prepare_process()
    from distill import compare_sensors
    from distill.compare import FULL, QUICK, run_compare
    from teachers import load_teacher

    plan = QUICK if quick else FULL
    if seeds is not None:
        plan = plan._replace(seeds=seeds)
    agent = load_teacher(teacher, parse_task(task), parse_checkpoint(checkpoint))
    folder = out or f"runs/{agent.task.name}-compare{'-quick' if quick else ''}"
    if sensors:
        sensor_plan = compare_sensors.QUICK if quick else compare_sensors.FULL
        found = compare_sensors.run_compare_sensors(
            agent,
            folder,
            sensor_plan._replace(seeds=seeds or sensor_plan.seeds),
            force=force,
            progress=show_progress,
        )
        print_result(found, as_json, lambda: sensor_tables(folder, found))
        return
    result = run_compare(agent, folder, plan, force=force, progress=show_progress)
    print_result(result, as_json, lambda: compare_tables(folder, result))


def compare_tables(title: str, result: Mapping[str, Any]) -> RenderableType:
    """Returns the tables of a comparison, by sizes, methods, critics and conditions, and its cost in one line."""
    return Group(
        _sizes_table(title, result),
        _methods_table(result),
        _critics_table(result),
        _robustness_table(result),
        _describe_cost(result["cost"]),
    )


def sensor_tables(title: str, result: Mapping[str, Any]) -> RenderableType:
    """Returns the tables of a comparison by sensors: the students, and what they keep in each condition."""
    students = TextTable(
        *("student", "retention", "success at end", "us per action", "parameters", "seconds"),
        heading=f"{title}: students of {result['teacher']['task']}, {result['episodes']} episodes",
    )
    for row in result["students"]:
        students.add_row(
            f"{row['student']}, randomized" if row["randomized"] else row["student"],
            format_figure(row, "retention"),
            format_figure(row, "success_at_end"),
            f"{row['latency_us']:.1f}",
            f"{row['parameters']:,}",
            f"{row['seconds']:.1f}",
        )
    names = [row["student"] for row in result["students"] if not row["randomized"]]
    parts: list[RenderableType] = [students]
    for ending, what in (("", "distilled undisturbed"), ("_randomized", "distilled disturbed")):
        table = TextTable(
            *("condition", "teacher", *names),
            heading=f"time at goal / the teacher's undisturbed one, {what}",
        )
        for row in result["conditions"]:
            keys = ("teacher", *(name + ending for name in names))
            table.add_row(row["condition"], *(format_figure(row, key) for key in keys))
        parts.append(table)
    return Group(*parts)


def _sizes_table(title: str, result: Mapping[str, Any]) -> TextTable:
    teacher, scratch = result["teacher"], result["from_scratch"]
    table = TextTable(
        *("policy", "retention", "success at end", "us per action", "parameters"),
        heading=f"{title}: students of {teacher['task']}, {result['episodes']} episodes",
    )
    table.add_row(
        f"teacher, depth {teacher['depth']}, width {teacher['width']}",
        "-",
        format_figure(teacher, "success_at_end"),
        format_value(teacher["latency_us"] or "-"),
        f"{teacher['parameters']:,}",
    )
    for row in result["students"]:
        table.add_row(
            f"{row['layers']} x {row['width']}",
            format_figure(row, "retention"),
            format_figure(row, "success_at_end"),
            f"{row['latency_us']:.1f}",
            f"{row['parameters']:,}",
        )
    shape = f"{scratch['layers']} x {scratch['width']}"
    for name, row in (
        (f"{shape}, distilled, {result['distilled']['seeds']} seeds", result["distilled"]),
        (f"{shape}, from scratch, {scratch['steps']:,} steps", scratch),
    ):
        retention, success = format_figure(row, "retention"), format_figure(row, "success_at_end")
        table.add_row(name, retention, success, "-", "-")
    return table


def _methods_table(result: Mapping[str, Any]) -> TextTable:
    table = TextTable("method", "steps", "retention", "seconds", heading="methods at equal steps")
    for row in result["methods"]:
        retention, seconds = format_figure(row, "retention"), f"{row['seconds']:.1f}"
        table.add_row(row["method"], f"{row['steps']:,}", retention, seconds)
    return table


def _critics_table(result: Mapping[str, Any]) -> TextTable:
    measures = ("spearman", "spearman_within_goal", "top1_retention", "auroc", "teacher_auroc")
    table = TextTable("critic", *measures, heading="critic, against the teacher's")
    for row in [{"loss": "embedding (default)", **result["critic"]}, *result["critics"]]:
        table.add_row(row["loss"], *(format_figure(row, measure) for measure in measures))
    return table


def _robustness_table(result: Mapping[str, Any]) -> TextTable:
    policies = ("teacher", "student", "randomized")
    table = TextTable("condition", *policies, heading="time at goal under disturbances")
    for row in result["robustness"]:
        table.add_row(row["condition"], *(format_figure(row, policy) for policy in policies))
    return table


def _describe_cost(cost: Mapping[str, Any]) -> str:
    return "cost of distillation: " + ", ".join(
        f"{cost[key]:.1%} of the teacher's {name}"
        for key, name in (("steps_share", "steps"), ("seconds_share", "seconds"))
        if cost[key] is not None
    )
