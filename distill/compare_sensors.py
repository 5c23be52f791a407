"""Compares a teacher's students by what they read and remember, undisturbed and disturbed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from distill.compare_figures import draw_sensors
from distill.compare_runs import (
    ComparedStudents,
    ReportProgress,
    comparison_folder,
    report_nothing,
    summarise_students,
)
from distill.run import require_successful_teacher
from export.latency import measure_agent_latency
from students.artefact import Student
from students.networks import parameters_used_by
from teachers.agent import Agent, Teacher
from teachers.crl.parameters import count_parameters
from teachers.evaluate import evaluate_agent
from teachers.measures import mean_interval, summarise_seeds, summary
from teachers.process import in_32_bits
from teachers.runs.errors import InputError
from teachers.runs.metadata import replace_non_finite
from teachers.runs.outputs import write_atomically
from teachers.tasks.disturbance import Disturbances

RESULTS = "sensors.json"
SENSORS = {"student.sees": "sensors"}
# What students read and remember, by name.
STUDENTS: Mapping[str, Mapping[str, Any]] = {
    "observation": {},
    "sensors": SENSORS,
    "history": {**SENSORS, "student.memory": "history"},
    "gru": {**SENSORS, "student.memory": "gru"},
}
# What all of them are disturbed by together.
ALL = Disturbances(
    noise=0.05, delay=(0, 3), mass=(0.7, 1.3), friction=(0.7, 1.3), push=0.5, dropout=0.2
)
CONDITIONS: Mapping[str, Disturbances] = {
    "clean": Disturbances(),
    "noise 5%": Disturbances(noise=ALL.noise),
    "delay 3": Disturbances(delay=(3, 3)),
    "mass and friction ±30%": Disturbances(mass=ALL.mass, friction=ALL.friction),
    "push": Disturbances(push=ALL.push),
    "dropout 20%": Disturbances(dropout=ALL.dropout),
    "all": ALL,
}


class SensorPlan(NamedTuple):
    """How much is compared."""

    seeds: int
    episodes: int  # without disturbances; a quarter of them in each condition


FULL = SensorPlan(seeds=5, episodes=1024)
QUICK = SensorPlan(seeds=2, episodes=256)


@in_32_bits
def run_compare_sensors(
    teacher: Teacher,
    out: epath.PathLike,
    plan: SensorPlan = FULL,
    *,
    force: bool = False,
    progress: ReportProgress = report_nothing,
) -> dict[str, Any]:
    """Distills students that read the observation or the sensors and remember nothing, a history or a GRU's state, and measures them.

    Each is distilled undisturbed and, `randomized`, under the disturbances of all conditions together. Called again with the same
    `out`, it distills only the students that are missing.

    Args:
        teacher: as `load_teacher` returns it.
        out: the folder: new, or that of a comparison of the same teacher.
        plan: how much is compared.
        force: compare students of the teacher even if it hardly ever reaches its goal.
        progress: returns the progress report of each student, given its name.

    Returns:
        The content of `sensors.json`: `episodes`; `teacher`; `students`, by what they read and remember: their retention over
        seeds, size, latency and seconds of distillation; and `conditions`, the time at goal of teacher and students in each,
        over the teacher's undisturbed one.

    Raises:
        InputError: the task declares no sensors, `out` holds something else, or the teacher does not reach its goal.
    """
    if not teacher.task.sensors:
        raise InputError(
            f"task {teacher.task.name} declares no sensors; declare them, or compare without --sensors"
        )
    if not force:
        require_successful_teacher(teacher)
    out = epath.Path(out)
    comparison = _SensorComparison(teacher, out, plan, progress)
    with comparison_folder(out, teacher):
        result = replace_non_finite(comparison.measure())
        write_atomically(out / RESULTS, json.dumps(result, indent=1) + "\n")
        draw_sensors(result, out)
    return result


class _SensorComparison:
    """The measurements of one teacher's students."""

    def __init__(
        self, teacher: Teacher, out: epath.Path, plan: SensorPlan, progress: ReportProgress
    ) -> None:
        self._teacher, self._plan = teacher, plan
        self._students = ComparedStudents(teacher, out, plan.episodes, progress)

    def measure(self) -> dict[str, Any]:
        # Shares of nothing are no numbers.
        reference = float(self._students.reference(0).time_at_goal.mean()) or float("nan")
        rows: list[dict[str, Any]] = []
        conditions = [{"condition": name, "teacher": None} for name in CONDITIONS]
        for row, found in zip(conditions, self._disturb([self._teacher], reference), strict=True):
            row["teacher"], row["teacher_ci95"] = found["value"], found["ci95"]
        for name, settings in STUDENTS.items():
            for is_randomized in (False, True):
                key = f"{name}_randomized" if is_randomized else name
                students = self._distill(key, settings, is_randomized)
                rows.append({"student": name, "randomized": is_randomized, **_describe(students)})
                for row, found in zip(conditions, self._disturb(students, reference), strict=True):
                    row[key], row[f"{key}_ci95"] = found["value"], found["ci95"]
        return {
            "episodes": self._plan.episodes,
            "teacher": {
                "task": self._teacher.metadata.task,
                "depth": self._teacher.metadata.networks["actor"]["depth"],
                **summary(self._students.reference(0)),
            },
            "students": rows,
            "conditions": conditions,
        }

    def _distill(
        self, name: str, settings: Mapping[str, Any], is_randomized: bool
    ) -> list[Student]:
        if is_randomized:
            ranges = ALL.model_dump()
            settings = {
                **settings,
                **{f"collect.disturbances.{key}": value for key, value in ranges.items()},
            }
        return self._students.distill(f"sensors={name}", settings, range(self._plan.seeds))

    def _disturb(self, agents: Sequence[Agent], reference: float) -> list[dict[str, Any]]:
        """Returns the time at goal of agents over the teacher's undisturbed one, in each condition.

        The interval of several agents is that of their interquartile mean, that of one over its episodes.
        """
        rows = []
        for disturbances in CONDITIONS.values():
            times = [self._play(agent, disturbances) / reference for agent in agents]
            if len(times) == 1:
                value, interval = float(times[0].mean()), mean_interval(times[0])
            else:
                found = summarise_seeds("kept", [float(time.mean()) for time in times])
                value, interval = found["kept"], found["kept_ci95"]
            rows.append({"value": value, "ci95": interval})
        return rows

    def _play(self, agent: Agent, disturbances: Disturbances) -> np.ndarray:
        episodes = max(1, self._plan.episodes // 4)
        return evaluate_agent(agent, episodes, disturbances=disturbances).time_at_goal


def _describe(students: list[Student]) -> dict[str, Any]:
    """Returns the retention of students over seeds, and what one of them costs."""
    first = students[0]
    latency = measure_agent_latency(first)
    names = parameters_used_by("actor", first.params)
    return {
        **summarise_students(students),
        "memory": first.networks.memory_size,
        "parameters": count_parameters(names),
        "latency_us": latency["p50"],
        "latency_p99_us": latency["p99"],
        # The first student's seconds include compilation.
        "seconds": min(student.metadata.metrics["seconds"] for student in students),
    }
