"""The commands. What they need is imported when they run, so that help and mistyped options answer at once."""

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from distill.cli import share
from distill.cli.console import (
    Checkpoint,
    Json,
    pair_table,
    prepare,
    print_json,
    progress,
    say,
    show,
    text,
    which,
)

if TYPE_CHECKING:
    from teachers.tasks import Task

# Typer has carried Click inside since 0.27 and does not export these two.
UsageError: type[Any] = typer.BadParameter.__mro__[1]
ClickException: type[Any] = typer.BadParameter.__mro__[2]


INTERRUPTED = 130
STOPPED = 143  # by SIGTERM


class Commands(TyperGroup):
    """Bad input ends with one line on stderr and exit code 2, an interruption with 130."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Runs a command and exits."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except UsageError as error:
            command = error.ctx.command_path if error.ctx else "crl-distill"
            _fail(f"{error.format_message().rstrip('.')}; see {command} --help", 2)
        except ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except (typer.Abort, KeyboardInterrupt):
            code = INTERRUPTED
        except Exception as error:
            _fail(*_explained(error))
        if code == INTERRUPTED:  # Typer returns it for Ctrl-C inside a command
            _fail("interrupted; checkpoints already written are intact", INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


def _explained(error: Exception) -> tuple[str, int]:
    """What to tell the user of an error, and the exit code; a defect of ours is raised again."""
    import jax

    from export.write import ParityError
    from teachers.runs.checkpoint_writer import means_full_disk
    from teachers.runs.errors import InputError, SaveError
    from teachers.train import DivergedError, StoppedError

    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, StoppedError):
        return str(error), STOPPED
    if isinstance(error, ParityError | DivergedError | SaveError):
        return str(error), 1
    if isinstance(error, OSError) and means_full_disk(error):
        place = f"writing {error.filename}: " if error.filename else ""
        return (
            f"{place}the disk is full; make room there (checkpoints already written are intact)",
            1,
        )
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; choose another path", 2
    if isinstance(error, jax.errors.JaxRuntimeError) and "memory" in str(error).lower():
        return "the device ran out of memory; lower environments, batch, depth or width", 2
    raise error


def _fail(message: str, code: int) -> NoReturn:
    say("error: " + " ".join(message.split()))
    sys.exit(code)


app = typer.Typer(
    cls=Commands,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(context: typer.Context) -> None:
    """Trains deep contrastive-RL teachers on MJX, distills them into shallow students, exports these to ONNX."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Entry point of the console script."""
    try:
        app(prog_name="crl-distill")
    except SystemExit as ended:
        if ended.code != INTERRUPTED:
            raise
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        # Python's own way out crashes at times, presumably with what JAX is still computing; nothing is left to do there.
        os._exit(INTERRUPTED)


Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")]
Episodes = Annotated[int, typer.Option(min=1, max=100_000, help="Whole episodes to play.")]
ConfigFile = Annotated[
    str | None,
    typer.Option("--config", metavar="PATH", help="TOML file with any field of the configuration."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One field, as section.key=value; may be repeated and wins over --config."
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option("--task", help="FILE.py:Class or a name, in place of the task that PATH names."),
]

Force = Annotated[
    bool, typer.Option("--force", help="Go on with a teacher that hardly ever reaches its goal.")
]
Physics = Annotated[
    str | None,
    typer.Option(help="MJX's implementation that simulates: jax, or warp on NVIDIA hardware."),
]

Coordinator = Annotated[
    str | None,
    typer.Option(
        envvar="JAX_COORDINATOR_ADDRESS",
        help="HOST:PORT of the first of several processes that train together.",
    ),
]
Processes = Annotated[
    int | None, typer.Option(min=1, envvar="JAX_NUM_PROCESSES", help="How many processes they are.")
]
Process = Annotated[
    int | None, typer.Option(min=0, envvar="JAX_PROCESS_ID", help="Which of them this one is.")
]


@app.command()
def tasks(
    name: Annotated[
        str | None, typer.Argument(help="Show this one alone: a name or FILE.py:Class.")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Draw NAME at a reset, with its goal: a new .png."),
    ] = None,
    check: Annotated[
        str | None, typer.Option(metavar="TASK", help="Look for mistakes in a task of your own.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Lists the tasks, with the fields of their observations, goals and actions.

    A task of your own is given as FILE.py:Class. With --check, the exit code is 2 where problems are found.

    \b
    Example:
      crl-distill tasks reacher --image reacher.png
      crl-distill tasks --check my_robot.py:MyRobot
    """
    prepare()
    from distill.cli import tasks as views
    from export.contract import describe_task
    from teachers.runs.errors import InputError
    from teachers.simulation.animate import picture
    from teachers.tasks.registry import get_task, task_names

    if check is not None:
        if name or image:
            raise InputError("--check takes the task itself; leave out NAME and --image")
        reference, problems = views.check(check, seed)
        if json:
            print_json({"task": reference, "problems": problems})
        else:
            print("\n".join(problems or [views.NO_PROBLEMS]))  # each on one line, however long
        raise typer.Exit(2 if problems else 0)
    if image and not name:
        raise InputError(f"--image {image} draws one task; name it, as in: tasks reacher --image")
    if name is None:
        rows = []
        for each in task_names():
            try:
                rows.append(describe_task(get_task(each)))
            except InputError as error:  # one broken package must not hide all other tasks
                say(f"left out: {error}")
        show(rows, json, lambda: views.overview(rows))
        return
    task = get_task(name)
    row = describe_task(task)
    if image:
        renderer = picture(task, image, seed)
        row |= {"image": str(image), "renderer": renderer}
        say(f"{image}: {views.drawn_by(renderer)}")
    show([row], json, lambda: views.details(row))


@app.command("train-teacher")
def train_teacher(
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
    steps: Annotated[int | None, typer.Option(help="Control steps in all.")] = None,
    physics: Physics = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    config: ConfigFile = None,
    set_: Assignments = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings to start from: paper, those of Wang et al.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the newest checkpoint in --out; begin where there is none."
        ),
    ] = False,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Train nothing: say what memory and time it would take."),
    ] = False,
    coordinator: Coordinator = None,
    processes: Processes = None,
    process: Process = None,
    json: Json = False,
) -> None:
    """Trains a deep teacher on a task, on all devices of this machine, or of several.

    Leaves checkpoints, config.toml, metrics.jsonl and TensorBoard events in --out.

    \b
    Example:
      crl-distill train-teacher reacher --depth 16 --width 64 --steps 400000 --out runs/teacher
      crl-distill train-teacher humanoid --preset paper --estimate
      crl-distill train-teacher ant --coordinator 10.0.0.1:1234 --processes 2 --process 0
    """
    prepare()
    _join(coordinator, processes, process)
    import jax

    from teachers import InputError, get_task, teacher_config
    from teachers import train_teacher as train
    from teachers.runs.configuration import parse_assignments
    from teachers.runs.progress import ignore_progress

    networks = ("actor", "phi", "psi")
    named: dict[str, Any] = {f"{network}.depth": depth for network in networks}
    named |= {f"{network}.width": width for network in networks} | {"steps": steps, "seed": seed}
    named |= {"rollout.physics": physics}
    overrides = _given(named) | parse_assignments(set_ or [])
    resolved = teacher_config(task, config, overrides, preset)
    name = get_task(task).name
    if estimate:
        if resume or out:
            raise InputError("--estimate trains nothing; leave out --out and --resume")
        from distill.cli.experiments import estimate_table
        from teachers.crl.estimate import estimate as foresee

        needed = foresee(resolved)
        show(needed, json, lambda: estimate_table(needed))
        return
    folder = out or f"runs/{name}-teacher"
    first = jax.process_index() == 0  # the others are quiet
    with progress(f"train-teacher {name}") as report:
        teacher = train(
            resolved, folder, resume=resume, progress=report if first else ignore_progress
        )
    if first:
        _show_run(folder, teacher.metadata, json)


@app.command()
def sweep(
    spec: Annotated[
        str, typer.Argument(help="TOML file, or a shipped experiment such as cpu/depth.")
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Folder of the experiment.  [default: runs/sweep-NAME]"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be trained, and train nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Trains a grid of teachers, several seeds each, and draws what comes out.

    Leaves a run for each seed of each cell, results.json and figures in --out. Called again, it goes on where it stopped.

    \b
    Example:
      crl-distill sweep cpu/depth --out runs/depth
    """
    prepare()
    from distill.cli import experiments
    from teachers.sweeps.specification import cells, read_spec
    from teachers.sweeps.sweep import run_sweep

    name, experiment = read_spec(spec)
    if dry_run:
        planned = experiments.planned(cells(experiment), experiment.seeds)
        show(planned, json, lambda: experiments.planned_table(spec, planned))
        return
    folder = out or f"runs/sweep-{name}"
    with progress(f"sweep {name}") as report:
        rows = run_sweep(experiment, folder, progress=report)
    show(rows, json, lambda: experiments.sweep_table(folder, rows))


@app.command()
def distill(
    teacher: Annotated[str, typer.Argument(help="Folder of a teacher's run.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="New folder of the run.  [default: runs/TASK-student]"),
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Hidden layers of policy and critic.")] = None,
    width: Annotated[int | None, typer.Option(help="Units of each hidden layer.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Control steps in all.  [default: 8% of the teacher's]")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Settings to start from, such as bc; --config wins.  [default: dagger]"),
    ] = None,
    randomize: Annotated[
        bool,
        typer.Option(
            "--randomize", help="Train under noise, delay, other masses and friction, and pushes."
        ),
    ] = False,
    force: Force = False,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    physics: Physics = None,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    config: ConfigFile = None,
    set_: Assignments = None,
    json: Json = False,
) -> None:
    """Distills a teacher into a shallow student.

    \b
    Example:
      crl-distill distill runs/teacher --layers 2 --width 64 --out runs/student
    """
    prepare()
    from distill.config import distill_config, randomized_settings
    from distill.run import distill_teacher
    from teachers import InputError, load_teacher
    from teachers.runs.configuration import parse_assignments

    if steps is not None and steps < 1:
        raise InputError(f"--steps {steps}: a student learns from the states it meets; give some")

    parts = ("student.policy", "student.critic")
    named: dict[str, Any] = {f"{part}.layers": layers for part in parts}
    named |= {f"{part}.width": width for part in parts}
    named |= {"seed": seed, "steps": steps, "collect.physics": physics}
    named |= randomized_settings() if randomize else {}
    overrides = _given(named) | parse_assignments(set_ or [])
    resolved = distill_config(config, overrides, method)
    opened = load_teacher(teacher, _chosen(task), which(checkpoint))
    folder = out or f"runs/{opened.task.name}-student"
    with progress("distill") as report:
        student = distill_teacher(opened, resolved, folder, force=force, progress=report)
    _show_run(folder, student.metadata, json)


@app.command()
def compare(
    teacher: Annotated[str, typer.Argument(help="Folder of a teacher's run.")],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Folder of the comparison, new or to go on with.  [default: runs/TASK-compare, or ...-quick]",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few minutes: fewer sizes, methods, seeds, episodes.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Students of each method.")
    ] = None,
    force: Force = False,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    json: Json = False,
) -> None:
    """Distills a teacher in many ways and measures what each student keeps, and what it costs.

    Sizes against latency, methods at equal steps, the same student trained from scratch, critics, and what remains under
    noise, delay, other masses and pushes. Leaves the students, compare.json and figures in --out; called again, it goes on
    where it stopped.

    \b
    Example:
      crl-distill compare runs/teacher --quick --out runs/compare
    """
    prepare()
    from distill.cli.tables import compare_tables
    from distill.compare import FULL, QUICK, run_compare
    from teachers import load_teacher

    plan = QUICK if quick else FULL
    if seeds is not None:
        plan = plan._replace(seeds=seeds)
    opened = load_teacher(teacher, _chosen(task), which(checkpoint))
    folder = out or f"runs/{opened.task.name}-compare{'-quick' if quick else ''}"
    result = run_compare(opened, folder, plan, force=force, progress=progress)
    show(result, json, lambda: compare_tables(folder, result))


@app.command()
def export(
    student: Annotated[str, typer.Argument(help="Folder of a student's run, or a teacher's.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="New folder for the files.  [default: runs/TASK-export]"),
    ] = None,
    combined: Annotated[
        bool, typer.Option("--combined", help="One file with both heads, action and value.")
    ] = False,
    normalized: Annotated[
        bool,
        typer.Option("--normalized", help="Actions in [-1, 1], not in the task's own units."),
    ] = False,
    opset: Annotated[int, typer.Option(help="Of ONNX, from 13 to 26.")] = 17,
    dtype: Annotated[str, typer.Option(help="Of weights and arithmetic: float32 or float16.")] = (
        "float32"
    ),
    quantize: Annotated[
        str | None, typer.Option(help="Weights and arithmetic in integers: int8.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="onnx, or c: a policy as one C99 file and header.")
    ] = "onnx",
    min_retention: Annotated[
        float,
        typer.Option(min=0, help="Least time at goal in float16 or int8, as a share of float32's."),
    ] = 0.95,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Exports a student to policy.onnx and critic.onnx, and checks both against JAX.

    \b
    Example:
      crl-distill export runs/student --out runs/export
    """
    prepare()
    from export.artefacts import load_agent
    from export.c_source import export_c
    from export.contract import Units
    from export.write import Form, chosen_precision, export_student
    from teachers.runs.errors import InputError

    units: Units = "normalized" if normalized else "task"
    form = Form(combined, units, opset, chosen_precision(dtype, quantize))
    if format not in ("onnx", "c"):
        raise InputError(f"there is no format {format!r}; choose onnx or c")
    if format == "c" and form != Form(units=units):
        raise InputError(
            "a C file has the policy in float32; leave out --combined, --opset, --dtype and --quantize"
        )
    opened = load_agent(student, _chosen(task), which(checkpoint))
    folder = out or f"runs/{opened.task.name}-export"
    if format == "c":
        written = export_c(opened, folder, units)
        show(written, json, lambda: pair_table("exported", written))
        return
    with progress("export") as report:
        result = export_student(
            opened, folder, form, min_retention=min_retention, seed=seed, progress=report
        )
    show(result, json, lambda: pair_table("exported", result))


@app.command()
def verify(
    path: Annotated[str, typer.Argument(metavar="FILE.onnx", help="An exported file.")],
    against: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Run folder of the student or teacher that it comes of."),
    ] = None,
    episodes: Episodes = 256,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    seed: Seed = 1,
    json: Json = False,
) -> None:
    """Checks an exported file: structure, contract, parity, closed loop, latency; exit code 1 if any check fails.

    \b
    Example:
      crl-distill verify runs/export/policy.onnx --against runs/student
    """
    prepare()
    from export.admission import require_file
    from export.artefacts import load_agent
    from export.verify import verify as verified

    require_file(path)
    chosen = _chosen(task)
    agent = load_agent(against, chosen, which(checkpoint)) if against else None
    rows = []
    with progress("verify") as report:
        for check in verified(
            path, agent, task=chosen, episodes=episodes, seed=seed, progress=report
        ):
            rows.append(check._asdict())
            if not json:
                unit = " µs" if check.name == "latency" and isinstance(check.value, dict) else ""
                print(f"{'ok' if check.ok else 'FAILED':6} {check.name}: {text(check.value)}{unit}")
    if json:
        print_json({"file": path, "ok": all(row["ok"] for row in rows), "checks": rows})
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


@app.command()
def evaluate(
    path: Annotated[
        str,
        typer.Argument(help="Run folder of a teacher or student, or a policy.onnx."),
    ],
    episodes: Episodes = 256,
    seed: Seed = 0,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    json: Json = False,
) -> None:
    """Measures success and time at goal, with 95% intervals.

    Teachers and students play in MJX, ONNX files in MuJoCo C; the same seed gives the same episodes.

    \b
    Example:
      crl-distill evaluate runs/teacher --episodes 256 --json
    """
    prepare()
    from export.artefacts import open_policy

    opened = open_policy(path, _chosen(task), which(checkpoint))
    with progress("evaluate") as report:
        outcomes = opened.evaluate(episodes, seed, report)
    figures = _outcome_figures(opened.metadata, seed, outcomes)
    show(figures, json, lambda: _figures_table(path, figures))


@app.command()
def play(
    path: Annotated[
        str,
        typer.Argument(help="A policy.onnx, or run folder of a teacher or student."),
    ],
    episodes: Episodes = 20,
    seed: Seed = 0,
    video: Annotated[
        str | None, typer.Option(metavar="PATH", help="Write an animation: a new .gif or .mp4.")
    ] = None,
    shown: Annotated[int, typer.Option(min=1, max=100, help="Episodes in the animation.")] = 3,
    noise: Annotated[
        float, typer.Option(min=0, help="Of the sensors, in shares of each field's scale.")
    ] = 0.0,
    delay: Annotated[
        int, typer.Option(min=0, max=3, help="Control periods before an action starts.")
    ] = 0,
    push: Annotated[
        float,
        typer.Option(
            min=0, help="m/s by which a push, once an episode, changes the robot's speed."
        ),
    ] = 0.0,
    real_time: Annotated[
        bool, typer.Option("--real-time", help="At the robot's pace, not as fast as possible.")
    ] = False,
    viewer: Annotated[
        bool, typer.Option("--viewer", help="Show it in MuJoCo's viewer, in real time.")
    ] = False,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    json: Json = False,
) -> None:
    """Plays a policy in MuJoCo C, step by step as on a robot.

    \b
    Example:
      crl-distill play runs/export/policy.onnx --episodes 20 --video reach.mp4
    """
    prepare()
    from export.artefacts import open_policy
    from teachers.measures import measure_outcomes
    from teachers.runs.outputs import require_new_file
    from teachers.simulation.animate import animate
    from teachers.simulation.play import play_in_c
    from teachers.simulation.render import ANIMATIONS
    from teachers.simulation.trajectory import distance_until_termination
    from teachers.simulation.viewer import RealTime
    from teachers.simulation.viewer import viewer as open_viewer
    from teachers.tasks.disturbance import Disturbances

    if video:
        require_new_file(video, *ANIMATIONS)
    opened = open_policy(path, _chosen(task), which(checkpoint))
    disturbances = Disturbances(noise=noise, delay=(delay, delay), push=push)
    with contextlib.ExitStack() as stack:
        show_in = stack.enter_context(open_viewer(opened.task)) if viewer else None
        pace = RealTime(opened.task, show_in) if viewer or real_time else None
        report = stack.enter_context(progress("play"))
        recording = play_in_c(opened.task, opened.act, episodes, seed, report, disturbances, pace)
    played = measure_outcomes(opened.task, distance_until_termination(recording))
    figures = _outcome_figures(opened.metadata, seed, played)
    figures["by_episode"] = [float(value) for value in played.time_at_goal]
    if pace:
        figures["missed"] = pace.missed
    if video:
        renderer = animate(opened.task, recording, video, shown)
        figures |= {"video": str(video), "renderer": renderer}
    show(figures, json, lambda: _figures_table(path, figures))


@app.command()
def info(
    path: Annotated[
        str,
        typer.Argument(help="Run folder of a teacher or student, an ONNX file or an archive."),
    ],
    checkpoint: Checkpoint = "newest",
    json: Json = False,
) -> None:
    """Says what an artefact is, and where it comes from. Of an archive, what its manifest says.

    \b
    Example:
      crl-distill info runs/teacher
    """
    prepare()
    from rich.markdown import Markdown

    from export.artefacts import describe_artefact
    from export.contract import Contract
    from export.onnx_card import onnx_card
    from export.share.archive import ENDING, describe_archive

    if path.endswith(ENDING):
        archive = describe_archive(path)
        show(archive, json, lambda: pair_table(path, archive))
        return
    described = describe_artefact(path, which(checkpoint))
    if isinstance(described, Contract):
        card = onnx_card({described.role: described}, front_matter=False)
        show(described.model_dump(), json, lambda: Markdown(card))
    else:
        show(described.model_dump(), json, lambda: pair_table(path, described.model_dump()))


@app.command()
def demo(
    out: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="Folder for all results; an earlier demo there is replaced."
        ),
    ] = "runs/demo",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """The whole path on task reacher: teacher, student, ONNX, MuJoCo C. A few minutes on two CPU cores.

    \b
    Example:
      crl-distill demo --out runs/demo
    """
    prepare()
    from distill.cli.tables import summary_table
    from distill.demo import run_demo

    summary = run_demo(out, seed, progress)
    show(summary, json, lambda: summary_table(summary))


app.add_typer(share.app, name="share")


def _join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    from teachers.runs.distributed import join_processes

    join_processes(coordinator, processes, process)


def _chosen(task: str | None) -> "Task | None":
    from teachers.tasks.registry import get_task

    return None if task is None else get_task(task)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _outcome_figures(metadata: Any, seed: int, played: Any) -> dict[str, Any]:
    from teachers.measures import summary

    return {
        "task": metadata.task,
        "kind": metadata.kind,
        "episodes": len(played.time_at_goal),
        "seed": seed,
        **summary(played),
    }


def _show_run(folder: str, metadata: Any, json: bool) -> None:
    result = {"out": folder, "task": metadata.task, "kind": metadata.kind, **metadata.metrics}
    show(result, json, lambda: _figures_table(folder, result))


def _figures_table(title: str, figures: Mapping[str, Any]) -> Any:
    rows = {name: value for name, value in figures.items() if name != "by_episode"}
    return pair_table(title, rows)
