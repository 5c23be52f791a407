"""`crl-distill evaluate`, `play` and `info`: what a policy does, and what an artefact is."""

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.cli.console import prepare_process, print_result, show_progress
from distill.cli.options import (
    Checkpoint,
    Episodes,
    Json,
    Seed,
    TaskOption,
    parse_checkpoint,
    parse_task,
)
from distill.cli.tables import Card, figures_table, pair_table

if TYPE_CHECKING:
    from teachers import measures


def evaluate_command(
    path: Annotated[
        str,
        typer.Argument(help="Run folder of a teacher or student, or a policy.onnx."),
    ],
    episodes: Episodes = 256,
    seed: Seed = 0,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    best_of: Annotated[
        int,
        typer.Option(
            min=1,
            max=1000,
            help="Actions drawn in each step of a teacher's sampled episodes, of which its critic chooses the best.",
        ),
    ] = 1,
    as_json: Json = False,
) -> None:
    """Measures success, time at goal and the distance left at the end, with 95% intervals.

    Actions are deterministic. A teacher's policy is measured once more with actions drawn from it, as in its training.

    Everything plays in MuJoCo C; on an accelerator, teachers and students play in MJX. The same seed gives the same
    episodes.

    \b
    Example:
      crl-distill evaluate runs/teacher --episodes 256 --json
    """
    prepare_process()
    from export.artefacts import open_policy
    from teachers.measures import summary
    from teachers.runs.errors import InputError
    from teachers.tasks.engines import choose_engine

    policy = open_policy(path, parse_task(task), parse_checkpoint(checkpoint))
    if policy.evaluate_sampled is None and best_of > 1:
        raise InputError(
            f"--best-of {best_of}: actions are drawn from the policies of teachers, and {path} is none; leave it out"
        )
    with show_progress("evaluate") as report:
        outcomes = policy.evaluate(episodes, seed, report)
    figures = _summarise(policy.metadata, seed, outcomes)
    if policy.evaluate_sampled:
        with show_progress("evaluate sampled actions") as report:
            sampled = summary(policy.evaluate_sampled(episodes, seed, report, best_of))
        figures |= {f"sampled_{name}": value for name, value in sampled.items()}
        figures["best_of"] = best_of
    figures["physics"] = "c" if policy.metadata.kind == "onnx" else choose_engine("auto")
    print_result(figures, as_json, lambda: figures_table(path, figures))


def play_command(
    path: Annotated[
        str,
        typer.Argument(help="A policy.onnx, or run folder of a teacher or student."),
    ],
    episodes: Episodes = 20,
    seed: Seed = 0,
    video: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Write an animation to a new .gif or .mp4 file."),
    ] = None,
    shown: Annotated[int, typer.Option(min=1, max=100, help="Episodes in the animation.")] = 3,
    noise: Annotated[
        float,
        typer.Option(
            min=0, help="Standard deviation of sensor noise, as a share of each field's scale."
        ),
    ] = 0.0,
    delay: Annotated[
        int, typer.Option(min=0, max=3, help="Control periods before an action takes effect.")
    ] = 0,
    push: Annotated[
        float,
        typer.Option(
            min=0, help="Change of the robot's speed by a push once in each episode, in m/s."
        ),
    ] = 0.0,
    real_time: Annotated[
        bool,
        typer.Option(
            "--real-time", help="Play at the robot's pace instead of as fast as possible."
        ),
    ] = False,
    with_viewer: Annotated[
        bool, typer.Option("--viewer", help="Show the episodes in MuJoCo's viewer, in real time.")
    ] = False,
    task: TaskOption = None,
    checkpoint: Checkpoint = "newest",
    as_json: Json = False,
) -> None:
    """Plays a policy in MuJoCo C, step by step as on a robot.

    \b
    Example:
      crl-distill play runs/export/policy.onnx --episodes 20 --video reach.mp4
    """
    prepare_process()
    from export.artefacts import open_policy
    from teachers.measures import measure_outcomes
    from teachers.runs.outputs import require_new_file
    from teachers.simulation.animate import animate
    from teachers.simulation.image_files import ANIMATIONS
    from teachers.simulation.play import count_broken, play_in_c
    from teachers.simulation.trajectory import distance_until_termination
    from teachers.simulation.viewer import RealTime, viewer
    from teachers.tasks.disturbance import Disturbances

    if video:
        require_new_file(video, *ANIMATIONS)
    policy = open_policy(path, parse_task(task), parse_checkpoint(checkpoint))
    disturbances = Disturbances(noise=noise, delay=(delay, delay), push=push)
    with contextlib.ExitStack() as stack:
        window = stack.enter_context(viewer(policy.task)) if with_viewer else None
        pace = RealTime(policy.task, window) if with_viewer or real_time else None
        report = stack.enter_context(show_progress("play"))
        trajectory = play_in_c(policy.task, policy.act, episodes, seed, report, disturbances, pace)
    outcomes = measure_outcomes(policy.task, distance_until_termination(trajectory))
    figures = _summarise(policy.metadata, seed, outcomes)
    figures["broken_episodes"] = count_broken(trajectory)
    figures["by_episode"] = [float(value) for value in outcomes.time_at_goal]
    if pace:
        figures["missed"] = pace.missed
    if video:
        renderer = animate(policy.task, trajectory, video, shown)
        figures |= {"video": str(video), "renderer": renderer}
    print_result(figures, as_json, lambda: figures_table(path, figures))


def info_command(
    path: Annotated[
        str,
        typer.Argument(help="Run folder of a teacher or student, an ONNX file or an archive."),
    ],
    checkpoint: Checkpoint = "newest",
    as_json: Json = False,
) -> None:
    """Describes an artefact and where it comes from. Of an archive, it prints what the manifest declares.

    \b
    Example:
      crl-distill info runs/teacher
    """
    prepare_process(computes=not path.endswith((".onnx", ".zip")))  # JAX reads checkpoints
    from export.artefacts import describe_artefact
    from export.contract import Contract
    from export.onnx_card import render_onnx_card
    from export.share.archive import SUFFIX, describe_archive

    if path.endswith(SUFFIX):
        archive = describe_archive(path)
        print_result(archive, as_json, lambda: pair_table(path, archive))
        return
    description = describe_artefact(path, parse_checkpoint(checkpoint))
    if isinstance(description, Contract):
        card = render_onnx_card({description.role: description}, include_front_matter=False)
        print_result(description.model_dump(), as_json, lambda: Card(card))
    else:
        row = description.model_dump()
        print_result(row, as_json, lambda: pair_table(path, row))


def _summarise(metadata: Any, seed: int, outcomes: "measures.Outcomes") -> dict[str, Any]:
    from teachers.measures import summary

    return {
        "task": metadata.task,
        "kind": metadata.kind,
        "episodes": len(outcomes.time_at_goal),
        "seed": seed,
        **summary(outcomes),
    }
