"""A teacher's students side by side: sizes, methods, training from scratch, critics, cost, robustness."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

from etils import epath

from distill.compare_figures import draw_figures
from distill.config import DistillConfig, distill_config, randomized_settings
from distill.critic_measures import measure_critic
from distill.methods import METHODS
from distill.retention import measure_retention
from distill.run import distill_teacher, require_able
from distill.scratch import ScratchConfig, train_from_scratch
from export.latency import measure_agent_latency
from students.artefact import Student, load_finished_student
from students.networks import parameters_used_by
from teachers.agent import Agent, Teacher, describe_teacher
from teachers.crl.iteration import simulated
from teachers.crl.parameters import count_parameters
from teachers.evaluate import evaluate_agent
from teachers.measures import (
    Outcomes,
    mean_interval,
    summarise_seeds,
    summary,
)
from teachers.runs.errors import InputError
from teachers.runs.metadata import replace_non_finite
from teachers.runs.outputs import create_marked_folder, read_marker, write_atomically
from teachers.runs.progress import Progress, ignore_progress
from teachers.tasks.disturbance import CONDITIONS

RESULTS = "compare.json"
MARKER = ".crl-distill-compare"  # holds the teacher's digest
MOST = 500_000_000  # parameters that one ONNX file can hold
COST = (
    *("steps_share", "seconds_share", "label_share", "seconds"),
    *("seconds_compile", "seconds_rollout", "seconds_label", "seconds_learn"),
)
DEFAULT = (2, 64)  # layers and width of the students that are compared in all but size
# Beside the default, which fits the embeddings.
CRITICS: Mapping[str, Mapping[str, Any]] = {
    "logits": {"critic.loss": "logits"},
    "both": {"critic.loss": "both"},
    "embedding-8": {"student.embedding": 8},
    "embedding-sequential": {"learning.order": "sequential"},
}
METHODS_PART = 4  # of the default steps: with more, all methods come to the same


class Plan(NamedTuple):
    """How much is compared."""

    sizes: tuple[tuple[int, int], ...]  # layers and width
    methods: tuple[str, ...]
    critics: tuple[str, ...]
    seeds: int
    episodes: int
    scratch_seeds: int
    scratch_steps: int | None  # None: the teacher's whole budget


FULL = Plan(
    sizes=((2, 16), (2, 32), DEFAULT, (2, 128), (2, 256), (4, 64)),
    methods=tuple(METHODS),
    critics=tuple(CRITICS),
    seeds=5,
    episodes=1024,
    scratch_seeds=3,
    scratch_steps=None,
)
QUICK = Plan(
    sizes=((2, 16), DEFAULT, (2, 256)),
    methods=("bc-augmented", "dagger", "dagger-value"),
    critics=(),
    seeds=2,
    episodes=256,
    scratch_seeds=1,
    scratch_steps=400_000,
)


def run_compare(
    teacher: Teacher,
    out: epath.PathLike,
    plan: Plan = FULL,
    *,
    force: bool = False,
    progress: Callable[[str], AbstractContextManager[Progress]] = lambda _: nullcontext(
        ignore_progress
    ),
) -> dict[str, Any]:
    """Distills a teacher in many ways, measures all of them, and leaves students, results and figures in `out`.

    Called again with the same `out`, it keeps the students that are there.

    Args:
        teacher: as `load_teacher` gives it.
        out: the folder: new, or that of a comparison of the same teacher.
        plan: what is compared.
        force: also a teacher that hardly ever reaches its goal.
        progress: opens a progress report for each student.

    Returns:
        What `compare.json` holds: `teacher`, `students` (by size), `distilled` (the default student, over seeds),
        `methods`, `from_scratch`, `critic` and `critics` (by loss; see `measure_critic`), `cost`, and `robustness` (time
        at goal by condition, of the teacher, the student, and one that was distilled under such conditions).

    Raises:
        InputError: `out` holds something else, or the teacher does not reach its goal.
    """
    if not force:
        require_able(teacher)
    bench = _Bench(teacher, epath.Path(out), plan, progress)
    result: dict[str, Any] = {"episodes": plan.episodes}
    for part, measure in bench.parts().items():
        result[part] = replace_non_finite(measure())
        write_atomically(bench.out / RESULTS, json.dumps(result, indent=1) + "\n")
    draw_figures(result, bench.out)
    return result


class _Bench:
    """A teacher, and where its students lie."""

    def __init__(
        self,
        teacher: Teacher,
        out: epath.Path,
        plan: Plan,
        progress: Callable[[str], AbstractContextManager[Progress]],
    ) -> None:
        self.out = out
        self._teacher = teacher
        self._plan = plan
        self._progress = progress
        self._digest = describe_teacher(teacher)["digest"]
        self._reference = cache(self._play_teacher)
        self._scratch = [self._scratch_config(seed) for seed in range(plan.scratch_seeds)]
        simulated(teacher.task, self._scratch[0].teacher)  # refused before anything is done
        _open_folder(out, self._digest)

    def parts(self) -> dict[str, Callable[[], Any]]:
        """What is measured, in order, by its key among the results."""
        return {
            "teacher": self._teacher_row,
            "students": lambda: [self._size_row(*size) for size in self._plan.sizes],
            "distilled": lambda: _over_seeds(self._default()),
            "cost": self._cost,
            "critic": lambda: self._critic_row(self._default()[0]),
            "critics": lambda: [
                {"loss": name} | self._critic_row(self.student(f"critic={name}", CRITICS[name], 0))
                for name in self._plan.critics
            ],
            "methods": lambda: [self._method_row(method) for method in self._plan.methods],
            "from_scratch": self._scratch_row,
            "robustness": self._robustness_rows,
        }

    def _play_teacher(self, seed: int) -> Outcomes:
        return evaluate_agent(self._teacher, self._plan.episodes, seed)

    def _default(self) -> list[Student]:
        return [self.student("default", {}, seed) for seed in range(self._plan.seeds)]

    def _cost(self) -> dict[str, Any]:
        """Of the first default student: the others find its programs compiled."""
        return {name: _metric(self._default()[0], name) for name in COST}

    def _teacher_row(self) -> dict[str, Any]:
        metadata = self._teacher.metadata
        parameters = metadata.networks["actor"]["parameters"]
        return {
            "task": metadata.task,
            "depth": metadata.networks["actor"]["depth"],
            "width": metadata.networks["actor"]["width"],
            "steps": metadata.metrics["steps"],
            "seconds": metadata.metrics.get("seconds"),
            **summary(self._reference(0)),
            "latency_us": measure_agent_latency(self._teacher)["p50"]
            if parameters < MOST
            else None,
            "parameters": parameters,
        }

    def student(self, name: str, settings: Mapping[str, Any], seed: int) -> Student:
        """Distills one, unless it is there."""
        config = self._settled({**settings, "seed": seed, "episodes": self._plan.episodes})
        run = self.out / "students" / name / f"seed-{seed}"
        if found := load_finished_student(run, config, self._teacher.task):
            return found
        with self._progress(f"{name}, seed {seed}") as report:
            return distill_teacher(
                self._teacher,
                config,
                run,
                force=True,
                reference=self._reference(seed),
                progress=report,
            )

    def _settled(self, settings: Mapping[str, Any]) -> DistillConfig:
        steps = self._teacher.metadata.metrics["steps"]
        return distill_config(overrides=settings).for_teacher(steps)

    def _size_row(self, layers: int, width: int) -> dict[str, Any]:
        shape = {"layers": layers, "width": width}
        settings = {
            f"student.{network}.{name}": value
            for network in ("policy", "critic")
            for name, value in shape.items()
        }
        same = (layers, width) == DEFAULT
        student = self.student(*(("default", {}) if same else (f"{layers}x{width}", settings)), 0)
        latency = measure_agent_latency(student)
        return {
            **shape,
            "parameters": count_parameters(parameters_used_by("actor", student.params)),
            **_measured(student),
            "latency_us": latency["p50"],
            "latency_p99_us": latency["p99"],
        }

    def _method_row(self, method: str) -> dict[str, Any]:
        default = self._settled({}).steps
        settings = {**METHODS[method], "steps": max(1, (default or 0) // METHODS_PART)}
        seeds = range(self._plan.seeds)
        students = [self.student(f"method={method}", settings, seed) for seed in seeds]
        return {
            "method": method,
            "steps": _metric(students[0], "steps"),
            **_over_seeds(students),
            # That of the first has compilation in it.
            "seconds": min(_metric(student, "seconds") for student in students),
        }

    def _critic_row(self, student: Student) -> dict[str, Any]:
        return measure_critic(student, self._teacher, self._plan.episodes // 4, seed=0)

    def _scratch_config(self, seed: int) -> ScratchConfig:
        """Of the default student's networks, trained as the teacher was, for as many steps as its checkpoint."""
        stored = self._teacher.config
        steps, most = int(self._teacher.metadata.metrics["steps"]), self._plan.scratch_steps
        rollout = stored.rollout.model_copy(update={"physics": "jax"})
        steps = steps if most is None else min(steps, most)
        settings = {"seed": seed, "steps": steps, "rollout": rollout}
        return ScratchConfig(
            teacher=stored.model_copy(update=settings), student=distill_config().student
        )

    def _scratch_row(self) -> dict[str, Any]:
        rows = []
        for seed, config in enumerate(self._scratch):
            run = self.out / "scratch" / f"seed-{seed}"
            agent = load_finished_student(run, config, self._teacher.task)
            if agent is None:
                with self._progress(f"from scratch, seed {seed}") as report:
                    agent = train_from_scratch(self._teacher.task, config, run, progress=report)
            rows.append(measure_retention(agent, self._reference(seed), seed))
        first = self._scratch[0]
        shape = first.student.policy
        steps = first.teacher.iterations * first.teacher.steps_per_iteration
        return {
            "layers": shape.layers,
            "width": shape.width,
            "steps": steps,
            "steps_share": steps / self._teacher.metadata.metrics["steps"],
            **{
                name: value
                for metric in ("retention", "time_at_goal", "success_at_end")
                for name, value in _spread(metric, [row[metric] for row in rows]).items()
            },
        }

    def _robustness_rows(self) -> list[dict[str, Any]]:
        agents = {
            "teacher": self._teacher,
            "student": self._default()[0],
            "randomized": self.student("randomized", randomized_settings(), seed=0),
        }
        rows = []
        for condition, disturbances in CONDITIONS.items():
            row: dict[str, Any] = {"condition": condition}
            for name, agent in agents.items():
                episodes = self._plan.episodes // 4
                played = evaluate_agent(agent, episodes, disturbances=disturbances)
                row[name] = float(played.time_at_goal.mean())
                row[f"{name}_ci95"] = mean_interval(played.time_at_goal)
            rows.append(row)
        return rows


def _open_folder(out: epath.Path, digest: str) -> None:
    """Creates the folder of a teacher's comparison, or checks that an existing one is of the same teacher."""
    marked = read_marker(out, MARKER, "a comparison")
    if marked is None:
        create_marked_folder(out, MARKER, digest + "\n")
    elif marked.strip() != digest:
        raise InputError(f"{out} is a comparison of another teacher; choose another --out")


def _measured(student: Agent) -> dict[str, Any]:
    names = ("retention", "time_at_goal", "success_at_end")
    metrics = student.metadata.metrics
    return {key: metrics[key] for name in names for key in (name, f"{name}_ci95")}


def _over_seeds(students: Sequence[Agent]) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": len(students)}
    for metric in ("retention", "time_at_goal", "success_at_end"):
        row |= _spread(metric, [_metric(student, metric) for student in students])
    return row


def _spread(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    """The interquartile mean over seeds with its interval, as sweeps give it."""
    scores = [value for value in values if value is not None]
    if len(scores) < len(values):
        return {name: None, f"{name}_ci95": None, f"{name}_by_seed": list(values)}
    return summarise_seeds(name, scores)


def _metric(student: Agent, name: str) -> Any:
    return student.metadata.metrics[name]
