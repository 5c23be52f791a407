"""`crl-distill export` and `crl-distill verify`: the files of a student, and checks of them."""

from typing import Annotated, Any

import typer

from distill.cli.console import prepare_process, print_json, print_result, show_progress
from distill.cli.options import (
    Checkpoint,
    Episodes,
    Json,
    Seed,
    TaskOption,
    parse_checkpoint,
    parse_task,
)
from distill.cli.tables import format_value, pair_table
from distill.cli.terminal import print_line


def export_command(
    student: Annotated[str, typer.Argument(help="Folder of a student's run, or a teacher's.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="New folder for the files.  [default: runs/TASK-export]"),
    ] = None,
    combined: Annotated[
        bool, typer.Option("--combined", help="Write one file with both heads, action and value.")
    ] = False,
    normalized: Annotated[
        bool,
        typer.Option(
            "--normalized", help="Give actions in [-1, 1] instead of the actuators' units."
        ),
    ] = False,
    opset: Annotated[int, typer.Option(help="ONNX operator set, from 13 to 26.")] = 17,
    dtype: Annotated[
        str, typer.Option(help="Type of weights and arithmetic: float32 or float16.")
    ] = "float32",
    quantize: Annotated[
        str | None, typer.Option(help="Integer type of weights and arithmetic: int8.")
    ] = None,
    file_format: Annotated[
        str,
        typer.Option("--format", help="onnx, or c: a policy as one C99 file and its header."),
    ] = "onnx",
    min_retention: Annotated[
        float,
        typer.Option(
            min=0, help="Lowest accepted time at goal in float16 or int8, as a share of float32's."
        ),
    ] = 0.95,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Exports a student to policy.onnx and critic.onnx, and checks both against JAX.

    \b
    Example:
      crl-distill export runs/student --out runs/export
    """
    prepare_process()
    from export.artefacts import load_agent
    from export.c_source import export_c
    from export.contract import Units
    from export.write import Form, export_student, parse_precision
    from teachers.runs.errors import InputError

    units: Units = "normalized" if normalized else "task"
    form = Form(combined, units, opset, parse_precision(dtype, quantize))
    if file_format not in ("onnx", "c"):
        raise InputError(f"there is no format {file_format!r}; choose onnx or c")
    if file_format == "c" and form != Form(units=units):
        raise InputError(
            "a C file has the policy in float32; leave out --combined, --opset, --dtype and --quantize"
        )
    agent = load_agent(student, parse_task(task), parse_checkpoint(checkpoint))
    folder = out or f"runs/{agent.task.name}-export"
    if file_format == "c":
        result = export_c(agent, folder, units)
    else:
        with show_progress("export") as report:
            result = export_student(
                agent, folder, form, min_retention=min_retention, seed=seed, progress=report
            )
    print_result(result, as_json, lambda: pair_table("exported", result))


def verify_command(
    path: Annotated[str, typer.Argument(metavar="FILE.onnx", help="An exported file.")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Run of the student or teacher that the file was exported from."
        ),
    ] = None,
    episodes: Episodes = 256,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Checks an exported file: structure, contract, parity, closed loop, latency; exit code 1 if any check fails.

    \b
    Example:
      crl-distill verify runs/export/policy.onnx --against runs/student
    """
    prepare_process()
    from export.admission import require_file
    from export.artefacts import load_agent
    from export.verify import verify

    require_file(path)
    own_task = parse_task(task)
    agent = load_agent(against, own_task, parse_checkpoint(checkpoint)) if against else None
    checks = []
    with show_progress("verify") as report:
        for check in verify(
            path, agent, task=own_task, episodes=episodes, seed=seed, progress=report
        ):
            checks.append(check)
            if not as_json:
                print_line(_format_check(check))
    passed = all(check.ok for check in checks)
    if as_json:
        rows = [check._asdict() for check in checks]
        print_json({"file": path, "ok": passed, "checks": rows})
    if not passed:
        raise typer.Exit(1)


def _format_check(check: Any) -> str:
    unit = " µs" if check.name == "latency" and isinstance(check.value, dict) else ""
    return f"{'ok' if check.ok else 'FAILED':6} {check.name}: {format_value(check.value)}{unit}"
