"""Compares a teacher's students: sizes, methods, training from scratch, critics, cost and robustness."""

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from etils import epath

from distill.compare_figures import draw_figures
from distill.compare_runs import (
    RETENTION_METRICS,
    ComparedStudents,
    ReportProgress,
    comparison_folder,
    report_nothing,
    summarise_metrics,
    summarise_students,
)
from distill.critic_measures import CriticComparison
from distill.methods import METHODS
from distill.retention import measure_retention
from distill.run import require_successful_teacher
from distill.scratch import ScratchConfig, scratch_programs, train_from_scratch
from export.latency import measure_agent_latency
from students.artefact import Student, load_finished_student
from students.config import SavedStudentConfig
from students.networks import parameters_used_by
from teachers.agent import Agent, Teacher
from teachers.crl.parameters import count_parameters
from teachers.evaluate import evaluate_agent
from teachers.measures import (
    mean_interval,
    summary,
)
from teachers.process import in_32_bits
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.errors import InputError
from teachers.runs.metadata import replace_non_finite
from teachers.runs.outputs import write_atomically
from teachers.tasks.disturbance import CONDITIONS, randomized_settings

RESULTS = "compare.json"
MAX_ONNX_PARAMETERS = 500_000_000  # of one ONNX file, which can hold 2 GB
COST_METRICS = (
    *("steps_share", "seconds_share", "label_share", "seconds"),
    *("seconds_compile", "seconds_rollout", "seconds_label", "seconds_learn"),
)
DEFAULT_SIZE = (2, 64)  # layers and width of most tasks' students
# Beside the default, which fits the embeddings.
CRITICS: Mapping[str, Mapping[str, Any]] = {
    "logits": {"critic.loss": "logits"},
    "both": {"critic.loss": "both"},
    "embedding-8": {"student.embedding": 8},
    "embedding-sequential": {"learning.order": "sequential"},
}
# Methods are compared after this fraction of the default steps. After all of them they differ too little.
METHOD_STEPS_DIVISOR = 4


class Plan(NamedTuple):
    """How much is compared."""

    sizes: tuple[tuple[int, int], ...]  # layers and width
    methods: tuple[str, ...]
    critics: tuple[str, ...]
    seeds: int
    episodes: int
    scratch_seeds: int
    scratch_steps: int | None  # None: as many as the teacher was trained for


FULL = Plan(
    sizes=((2, 16), (2, 32), DEFAULT_SIZE, (2, 128), (2, 256), (4, 64)),
    methods=tuple(METHODS),
    critics=tuple(CRITICS),
    seeds=5,
    episodes=1024,
    scratch_seeds=3,
    scratch_steps=None,
)
QUICK = Plan(
    sizes=((2, 16), DEFAULT_SIZE, (2, 256)),
    methods=("bc-augmented", "dagger", "dagger-value"),
    critics=(),
    seeds=2,
    episodes=256,
    scratch_seeds=1,
    scratch_steps=400_000,
)


@in_32_bits
def run_compare(
    teacher: Teacher,
    out: epath.PathLike,
    plan: Plan = FULL,
    *,
    force: bool = False,
    progress: ReportProgress = report_nothing,
) -> dict[str, Any]:
    """Distills a teacher in many ways, measures all students, and writes students, results and figures to `out`.

    Called again with the same `out`, it distills only the students that are missing.

    Args:
        teacher: as `load_teacher` returns it.
        out: the folder: new, or that of a comparison of the same teacher.
        plan: what is compared.
        force: compare students of the teacher even if it hardly ever reaches its goal.
        progress: returns the progress report of each student, given its name.

    Returns:
        The content of `compare.json`: `teacher`, `students` (by size), `distilled` (the default student, over seeds),
        `methods`, `from_scratch`, `critic` and `critics` (by loss; see `measure_critic`), `cost`, and `robustness` (time
        at goal by condition, of the teacher, the student, and one that was distilled under such conditions).

    Raises:
        InputError: `out` holds something else, the teacher is privileged, or it does not reach its goal.
    """
    if teacher.task.knows_disturbances:
        raise InputError(
            "students of a privileged teacher are compared by what they read: give --sensors"
        )
    if not force:
        require_successful_teacher(teacher)
    out = epath.Path(out)
    comparison = _Comparison(teacher, out, plan, progress)
    result: dict[str, Any] = {"episodes": plan.episodes}
    with comparison_folder(out, teacher):
        for part, measure in comparison.measurements().items():
            result[part] = replace_non_finite(measure())
            write_atomically(out / RESULTS, json.dumps(result, indent=1) + "\n")
        draw_figures(result, out)
    return result


class _Comparison:
    """The measurements of one teacher's students, whose runs lie in one folder."""

    def __init__(
        self,
        teacher: Teacher,
        out: epath.Path,
        plan: Plan,
        progress: ReportProgress,
    ) -> None:
        self._teacher = teacher
        self._out = out
        self._plan = plan
        self._progress = progress
        self._students = ComparedStudents(teacher, out, plan.episodes, progress)
        self._reference = self._students.reference
        self._critics: dict[SavedStudentConfig, CriticComparison] = {}
        self._scratch = [self._scratch_config(seed) for seed in range(plan.scratch_seeds)]
        # Settings that cannot be trained raise an error here.
        self._scratch_programs = scratch_programs(teacher.task, self._scratch[0])

    def measurements(self) -> dict[str, Callable[[], Any]]:
        """Returns the functions that measure the parts of the result, in order, by their keys."""
        return {
            "teacher": self._teacher_row,
            "students": lambda: [self._size_row(*size) for size in self._plan.sizes],
            "distilled": lambda: summarise_students(self._default_students),
            "cost": self._cost,
            "critic": lambda: self._critic_row(self._default_students[0]),
            "critics": lambda: [self._critic_loss_row(name) for name in self._plan.critics],
            "methods": lambda: [self._method_row(method) for method in self._plan.methods],
            "from_scratch": self._scratch_row,
            "robustness": self._robustness_rows,
        }

    @cached_property
    def _default_students(self) -> list[Student]:
        return self._students.distill("default", {}, range(self._plan.seeds))

    def _teacher_row(self) -> dict[str, Any]:
        metadata = self._teacher.metadata
        actor = metadata.networks["actor"]
        exportable = actor["parameters"] < MAX_ONNX_PARAMETERS
        return {
            "task": metadata.task,
            "depth": actor["depth"],
            "width": actor["width"],
            "steps": metadata.metrics["steps"],
            "seconds": metadata.metrics.get("seconds"),
            **summary(self._reference(0)),
            "latency_us": measure_agent_latency(self._teacher)["p50"] if exportable else None,
            "parameters": actor["parameters"],
        }

    def _size_row(self, layers: int, width: int) -> dict[str, Any]:
        shape = {"layers": layers, "width": width}
        settings = {
            f"student.{network}.{name}": value
            for network in ("policy", "critic")
            for name, value in shape.items()
        }
        if self._students.resolve(settings) == self._students.resolve({}):
            student = self._default_students[0]
        else:
            (student,) = self._students.distill(f"{layers}x{width}", settings)
        latency = measure_agent_latency(student)
        metrics = student.metadata.metrics
        return {
            **shape,
            "parameters": count_parameters(parameters_used_by("actor", student.params)),
            **{key: metrics[key] for name in RETENTION_METRICS for key in (name, f"{name}_ci95")},
            "latency_us": latency["p50"],
            "latency_p99_us": latency["p99"],
        }

    def _cost(self) -> dict[str, Any]:
        # The first student's cost includes compilation, which the students of other seeds do not need again.
        metrics = self._default_students[0].metadata.metrics
        return {name: metrics[name] for name in COST_METRICS}

    def _critic_loss_row(self, name: str) -> dict[str, Any]:
        (student,) = self._students.distill(f"critic={name}", CRITICS[name])
        return {"loss": name, **self._critic_row(student)}

    def _critic_row(self, student: Student) -> dict[str, Any]:
        if student.config not in self._critics:
            programs = CriticComparison(student.networks, self._teacher.networks)
            self._critics[student.config] = programs
        return self._critics[student.config].measure(
            student, self._teacher, self._plan.episodes // 4, seed=0
        )

    def _method_row(self, method: str) -> dict[str, Any]:
        default_steps = self._students.resolve({}).steps or 0
        settings = {**METHODS[method], "steps": max(1, default_steps // METHOD_STEPS_DIVISOR)}
        students = self._students.distill(f"method={method}", settings, range(self._plan.seeds))
        metrics = [student.metadata.metrics for student in students]
        return {
            "method": method,
            "steps": metrics[0]["steps"],
            **summarise_students(students),
            # The first student's seconds include compilation.
            "seconds": min(each["seconds"] for each in metrics),
        }

    def _scratch_config(self, seed: int) -> ScratchConfig:
        """Returns the settings that train the default student's networks like the teacher, and at most for as long."""
        config = self._teacher.config
        teacher_steps = int(self._teacher.metadata.metrics["steps"])
        steps = min(teacher_steps, self._plan.scratch_steps or teacher_steps)
        rollout = config.rollout.model_copy(
            update={
                "physics": "auto",
                # The same share of the shorter run.
                "prefill_steps": config.rollout.prefill_steps * steps // teacher_steps,
            }
        )
        settings = {"seed": seed, "steps": steps, "rollout": rollout}
        return ScratchConfig(
            teacher=config.model_copy(update=settings), student=self._students.resolve({}).student
        )

    def _scratch_row(self) -> dict[str, Any]:
        rows = []
        for seed, config in enumerate(self._scratch):
            run = self._out / "scratch" / f"seed-{seed}"
            agent = load_finished_student(run, config, self._teacher.task)
            if agent is None:
                with self._progress(f"from scratch, seed {seed}") as report:
                    agent = train_from_scratch(
                        self._teacher.task,
                        config,
                        run,
                        resume=bool(checkpoint_steps(run)),
                        progress=report,
                        programs=self._scratch_programs,
                    )
            rows.append(measure_retention(agent, self._reference(seed), seed))
        first = self._scratch[0]
        shape = first.student.policy
        steps = first.teacher.iterations * first.teacher.steps_per_iteration
        return {
            "layers": shape.layers,
            "width": shape.width,
            "steps": steps,
            "steps_share": steps / self._teacher.metadata.metrics["steps"],
            **summarise_metrics(rows),
        }

    def _robustness_rows(self) -> list[dict[str, Any]]:
        (randomized,) = self._students.distill("randomized", randomized_settings("collect"))
        agents: dict[str, Agent] = {
            "teacher": self._teacher,
            "student": self._default_students[0],
            "randomized": randomized,
        }
        rows = []
        for condition, disturbances in CONDITIONS.items():
            row: dict[str, Any] = {"condition": condition}
            for name, agent in agents.items():
                episodes = self._plan.episodes // 4
                outcomes = evaluate_agent(agent, episodes, disturbances=disturbances)
                row[name] = float(outcomes.time_at_goal.mean())
                row[f"{name}_ci95"] = mean_interval(outcomes.time_at_goal)
            rows.append(row)
        return rows
