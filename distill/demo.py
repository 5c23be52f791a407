"""Runs everything in one call, from a task to an ONNX student that acts in MuJoCo C."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from etils import epath

from distill.config import distill_config
from distill.run import distill_teacher
from export.latency import measure_agent_latency, measure_latency
from export.runtime import Policy
from export.write import export_student
from teachers import evaluate_agent, retention, summary, teacher_config, train_teacher
from teachers.measures import measure_outcomes
from teachers.process import in_32_bits
from teachers.runs.errors import StoppedError
from teachers.runs.learning_curve import plot_learning_curve
from teachers.runs.lock import lock_folder
from teachers.runs.metadata import replace_non_finite
from teachers.runs.outputs import (
    create_marked_folder,
    empty_marked_folder,
    read_marker,
    write_atomically,
)
from teachers.runs.paths import local_copy
from teachers.runs.progress import Progress, ignore_progress
from teachers.simulation.animate import animate
from teachers.simulation.play import play_in_c
from teachers.simulation.trajectory import distance_until_termination
from teachers.tasks.registry import get_task

TASK = "reacher"
TEACHER = {f"{network}.depth": 16 for network in ("actor", "phi", "psi")} | {"steps": 600_000}
STUDENT = {"student.policy.layers": 2, "student.policy.width": 64}
EPISODES = 256
SUMMARY = "summary.json"
MARKER = ".crl-distill-demo"  # marks a folder as a demo, finished or interrupted
PRODUCTS = (
    "teacher",
    "student",
    "onnx",
    "policy.onnx",
    "critic.onnx",
    "metrics.jsonl",
    "learning_curve.png",
    "animation.gif",
    SUMMARY,
)


@in_32_bits
def run_demo(
    out: epath.PathLike,
    seed: int = 0,
    progress: Callable[[str], AbstractContextManager[Progress]] = lambda _: nullcontext(
        ignore_progress
    ),
) -> dict[str, Any]:
    """Trains a teacher, then distills, exports, checks and plays a student, and writes everything to `out`.

    Args:
        out: the folder, new or that of an earlier demo, which is replaced.
        seed: of all random numbers.
        progress: returns the progress report of a stage, given its name.

    Returns:
        The content of `summary.json`: the figures of `teacher` and `student` in JAX and of `onnx` in ONNX Runtime,
        retention, parity, latency in microseconds, and seconds by stage.

    Raises:
        InputError: `out` holds something other than a demo.
        StoppedError: SIGTERM was received.
    """
    out = epath.Path(out)
    read_marker(out, MARKER, "a demo")  # raises an error if `out` holds anything else
    with lock_folder(out):
        if read_marker(out, MARKER, "a demo") is not None:
            empty_marked_folder(out, MARKER, PRODUCTS, "a demo")
        create_marked_folder(out, MARKER, "")
        try:
            return _run_stages(out, seed, progress)
        except StoppedError:
            raise StoppedError(
                "asked to end: a demo begins again when it is started again"
            ) from None


def _run_stages(
    out: epath.Path, seed: int, progress: Callable[[str], AbstractContextManager[Progress]]
) -> dict[str, Any]:
    seconds: dict[str, float] = {}

    with _time_stage(seconds, "train"), progress("train teacher") as report:
        config = teacher_config(TASK, overrides={**TEACHER, "seed": seed})
        teacher = train_teacher(config, out / "teacher", progress=report)
        plot_learning_curve(out / "teacher", out / "learning_curve.png")
        (out / "teacher" / "metrics.jsonl").copy(out / "metrics.jsonl")
    with _time_stage(seconds, "distill"), progress("distill student") as report:
        student_config = distill_config(
            overrides={**STUDENT, "episodes": EPISODES, "seed": seed}, task=teacher.task
        )
        student = distill_teacher(
            teacher, student_config, out / "student", force=True, progress=report
        )
    with _time_stage(seconds, "export"):
        exported = export_student(student, out / "onnx", seed=seed)
        for name in ("policy", "critic"):
            (out / "onnx" / f"{name}.onnx").rename(out / f"{name}.onnx")
        (out / "onnx").rmtree(missing_ok=True)  # a cloud has no folder without files
    with _time_stage(seconds, "evaluate"):
        with local_copy(out / "policy.onnx") as policy:
            act = Policy(policy, margin=None, normalized=True)
            trajectory = play_in_c(get_task(TASK), act, EPISODES, seed)
        outcomes = measure_outcomes(get_task(TASK), distance_until_termination(trajectory))
        reference = evaluate_agent(teacher, EPISODES, seed)
        onnx_retention, interval = retention(outcomes.time_at_goal, reference.time_at_goal)
    with _time_stage(seconds, "latency"):
        with local_copy(out / "policy.onnx") as policy:
            latency = measure_latency(policy)
        teacher_latency = measure_agent_latency(teacher)
    with _time_stage(seconds, "animate"):
        renderer = animate(get_task(TASK), trajectory, out / "animation.gif")

    parameters = student.metadata.networks["actor"]["parameters"]
    result = {
        "task": TASK,
        "seed": seed,
        "episodes": EPISODES,
        "teacher": {
            **summary(reference),
            "parameters": teacher.metadata.networks["actor"]["parameters"],
            "latency_us": teacher_latency,
        },
        "student": {**_select_metrics(student.metadata.metrics), "parameters": parameters},
        "onnx": {
            **summary(outcomes),
            "retention": onnx_retention,
            "retention_ci95": interval,
            "parameters": parameters,
            "latency_us": latency,
        },
        "retention": student.metadata.metrics["retention"],
        "retention_ci95": student.metadata.metrics["retention_ci95"],
        "parity_max_abs": exported["parity_max_abs"],
        "latency_us": latency,
        "renderer": renderer,
        "seconds": seconds | {"total": round(sum(seconds.values()), 2)},
    }
    write_atomically(out / SUMMARY, json.dumps(replace_non_finite(result), indent=2) + "\n")
    return result


@contextmanager
def _time_stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 2)


def _select_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    names = ("success_at_end", "success_any", "time_at_goal", "retention")
    return {key: metrics[key] for name in names for key in (name, f"{name}_ci95")}
