"""`crl-distill train-teacher` and `crl-distill sweep`: one teacher, or a grid of them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.cli.console import prepare_process, print_result, print_run, show_progress
from distill.cli.options import (
    Assignments,
    ConfigFile,
    Coordinator,
    Json,
    Physics,
    Process,
    Processes,
    TrainingSeed,
    drop_unset,
)
from distill.cli.tables import TextTable, format_figure, format_value, pair_table

if TYPE_CHECKING:
    from teachers.sweeps.specification import Cell


def train_teacher_command(
    task: Annotated[
        str, typer.Argument(help="A task's name (see crl-distill tasks), or FILE.py:Class.")
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="New folder of the run.  [default: runs/TASK-teacher]"),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Layers of actor, phi and psi, a multiple of 4.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Units of each layer.")] = None,
    steps: Annotated[int | None, typer.Option(help="Control steps of the whole run.")] = None,
    physics: Physics = None,
    seed: TrainingSeed = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Settings to start from: paper, which are those of Wang et al."),
    ] = None,
    randomize: Annotated[
        bool,
        typer.Option(
            "--randomize",
            help="Roll out under noise, delay and pushes, with other masses, friction, gains and starts.",
        ),
    ] = False,
    privileged: Annotated[
        bool,
        typer.Option(
            "--privileged",
            help="Let the teacher observe what --randomize draws; its students have to infer it.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue from the newest checkpoint in --out; start anew where there is none.",
        ),
    ] = False,
    only_estimate: Annotated[
        bool,
        typer.Option(
            "--estimate", help="Train nothing; estimate the memory and time of the training."
        ),
    ] = False,
    coordinator: Coordinator = None,
    processes: Processes = None,
    process: Process = None,
    as_json: Json = False,
) -> None:
    """Trains a deep teacher on a task, on all devices of this machine, or of several.

    Writes checkpoints, config.toml, metrics.jsonl and TensorBoard events to --out.

    \b
    Example:
      crl-distill train-teacher reacher --depth 16 --width 64 --steps 400000 --out runs/teacher
      crl-distill train-teacher humanoid --preset paper --estimate
      crl-distill train-teacher ant --coordinator 10.0.0.1:1234 --processes 2 --process 0
    """
    prepare_process(computes=False)
    from teachers.runs.devices import require_backend
    from teachers.runs.distributed import join_processes

    join_processes(coordinator, processes, process)
    require_backend()
    import jax

    from teachers import InputError, get_task, teacher_config, train_teacher
    from teachers.crl.estimate import estimate
    from teachers.runs.configuration import parse_assignments
    from teachers.runs.progress import ignore_progress
    from teachers.tasks.disturbance import randomized_settings

    networks = ("actor", "phi", "psi")
    options = {
        **(randomized_settings("rollout") if randomize else {}),
        "rollout.privileged": privileged or None,
        **{f"{network}.depth": depth for network in networks},
        **{f"{network}.width": width for network in networks},
        "steps": steps,
        "seed": seed,
        "rollout.physics": physics,
    }
    overrides = drop_unset(options) | parse_assignments(assignments or [])
    resolved = teacher_config(task, config, overrides, preset)
    name = get_task(task).name
    if only_estimate:
        if resume or out:
            raise InputError("--estimate trains nothing; leave out --out and --resume")
        needed = estimate(resolved)
        print_result(needed, as_json, lambda: estimate_table(needed))
        return
    folder = out or f"runs/{name}-teacher"
    prints = jax.process_index() == 0  # of several processes that train together
    with show_progress(f"train-teacher {name}") as report:
        progress = report if prints else ignore_progress
        teacher = train_teacher(resolved, folder, resume=resume, progress=progress)
    if prints:
        print_run(folder, teacher.metadata, as_json)


def sweep_command(
    spec: Annotated[
        str, typer.Argument(help="TOML file, or a shipped experiment such as cpu/depth.")
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Folder of the experiment.  [default: runs/sweep-NAME]"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the teachers, and train none of them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Trains a grid of teachers, several seeds each, and draws the results.

    Writes a run for each seed of each cell, results.json and figures to --out. Called again, it continues where it stopped.

    \b
    Example:
      crl-distill sweep cpu/depth --out runs/depth
    """
    prepare_process(computes=not dry_run)
    from teachers.sweeps.specification import expand_cells, read_spec
    from teachers.sweeps.sweep import run_sweep

    name, experiment = read_spec(spec)
    if dry_run:
        planned = [_describe_cell(cell, experiment.seeds) for cell in expand_cells(experiment)]
        print_result(planned, as_json, lambda: _plan_table(spec, planned))
        return
    folder = out or f"runs/sweep-{name}"
    with show_progress(f"sweep {name}") as report:
        rows = run_sweep(experiment, folder, progress=report)
    print_result(rows, as_json, lambda: _sweep_table(folder, rows))


def _describe_cell(cell: "Cell", seeds: int) -> dict[str, Any]:
    from teachers.tasks.load import portable_reference

    return {
        "cell": cell.name,
        "task": portable_reference(cell.config.task),
        "seeds": seeds,
        "steps": cell.config.iterations * cell.config.steps_per_iteration,
    }


def estimate_table(needed: Mapping[str, Any]) -> TextTable:
    """Returns the table of an estimate of memory and time."""
    rows: dict[str, Any] = {
        "parameters": ", ".join(f"{name} {n:,}" for name, n in needed["parameters"].items()),
        "control steps": f"{needed['steps']:,} in {needed['iterations']:,} iterations",
        **{f"memory: {part}": _format_gib(size) for part, size in needed["memory"].items()},
        "memory: all": f"{_format_gib(needed['memory_total'])} of {_format_gib(needed['device_memory'])}",
        "activations": "computed again for the gradient" if needed["remat"] else "kept",
    }
    if "seconds" in needed:
        seconds = needed["seconds"]
        rows |= {
            f"seconds: {part}": format_value(seconds[part]) for part in seconds if part != "run"
        }
        rows["duration"] = str(timedelta(seconds=round(seconds["run"])))
    if not needed["fits"]:
        rows["fits"] = (
            "no: lower rollout.environments, rollout.replay_steps, learning.batch, depth or width"
        )
    return pair_table(f"estimate for {needed['task']}", rows)


def _plan_table(title: str, rows: Sequence[Mapping[str, Any]]) -> TextTable:
    table = TextTable("cell", "task", "seeds", "steps of each", heading=title)
    for row in rows:
        table.add_row(row["cell"], row["task"], str(row["seeds"]), f"{row['steps']:,}")
    return table


def _sweep_table(title: str, rows: Sequence[Mapping[str, Any]]) -> TextTable:
    columns = ("cell", "time at goal", "success", "parameters", "seconds a run")
    table = TextTable(*columns, heading=title)
    for row in rows:
        diverged = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        table.add_row(
            row["cell"] + diverged,
            format_figure(row, "time_at_goal"),
            format_figure(row, "success"),
            f"{row['parameters']:,}",
            f"{row['seconds']:.0f}",
        )
    return table


def _format_gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB"
