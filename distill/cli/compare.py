"""A teacher's students side by side: sizes, methods, training from scratch, critics, cost, robustness."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from distill.cli.compare_figures import draw
from distill.config import STEPS_SHARE, distill_config, randomized_settings
from distill.critic_measures import measure_critic
from distill.methods import METHODS
from distill.retention import measure_retention
from distill.run import describe_teacher, distill_teacher, require_able
from distill.scratch import ScratchConfig, train_from_scratch
from export.latency import agent_latency
from students.artefact import load_student
from teachers.agent import Agent
from teachers.checkpoint import checkpoint_steps
from teachers.config import Config, TeacherConfig, stored_config
from teachers.evaluate import Episodes, bootstrap_interval, evaluate_agent, mean_interval, summary
from teachers.folders import make_folder
from teachers.metadata import finite
from teachers.paths import reaching, require_reachable, write_whole
from teachers.progress import Progress, silent
from teachers.sweep import interquartile_mean
from teachers.tasks import InputError
from teachers.tasks.disturbance import CONDITIONS

RESULTS = "compare.json"
MARKER = ".crl-distill-compare"  # tells a folder of ours, finished or interrupted
DEFAULT = (2, 64)  # layers and width of the students that are compared in all but size
CRITICS: Mapping[str, Mapping[str, Any]] = {
    "embedding": {"critic.loss": "embedding"},
    "logits": {"critic.loss": "logits"},
    "both": {"critic.loss": "both"},
    "embedding, 8 dimensions": {"critic.loss": "embedding", "student.embedding": 8},
    "both, after the policy": {"critic.loss": "both", "learning.order": "sequential"},
}
METHODS_SHARE = STEPS_SHARE / 4  # of the teacher's steps: with more, all methods come to the same


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
    methods=("bc", "dagger"),
    critics=(),
    seeds=2,
    episodes=256,
    scratch_seeds=1,
    scratch_steps=400_000,
)


def run_compare(
    teacher: Agent,
    out: epath.PathLike,
    plan: Plan = FULL,
    *,
    force: bool = False,
    progress: Callable[[str], AbstractContextManager[Progress]] = lambda _: nullcontext(silent),
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
    bench = _Bench(teacher, _opened(epath.Path(out)), plan.episodes, progress)
    result: dict[str, Any] = {"teacher": bench.teacher_row(), "episodes": plan.episodes}

    result["students"] = [bench.size_row(*size) for size in plan.sizes]
    default = [bench.student("default", {}, seed) for seed in range(plan.seeds)]
    result["distilled"] = _over_seeds(default)
    result["cost"] = {
        name: _figure([_metric(student, name) for student in default])
        for name in ("steps_share", "seconds_share", "seconds")
    } | {
        part: _figure([_metric(student, part) for student in default[:1]])
        for part in ("seconds_compile", "seconds_rollout", "seconds_label", "seconds_learn")
    }
    result["critic"] = bench.critic_row(default[0])
    result["critics"] = [
        {"loss": name} | bench.critic_row(bench.student(f"critic={name}", CRITICS[name], seed=0))
        for name in plan.critics
    ]
    result["methods"] = [bench.method_row(method, plan.seeds) for method in plan.methods]
    result["from_scratch"] = bench.scratch_row(plan.scratch_seeds, plan.scratch_steps)
    randomized = bench.student("randomized", randomized_settings(), seed=0)
    result["robustness"] = bench.robustness_rows(default[0], randomized)

    result = finite(result)
    write_whole(bench.out / RESULTS, json.dumps(result, indent=1) + "\n")
    draw(result, bench.out)
    return result


class _Bench:
    """A teacher, and where its students lie."""

    def __init__(
        self,
        teacher: Agent,
        out: epath.Path,
        episodes: int,
        progress: Callable[[str], AbstractContextManager[Progress]],
    ) -> None:
        self.out = out
        self._teacher = teacher
        self._episodes = episodes
        self._progress = progress
        self._digest = describe_teacher(teacher)["digest"]
        self.reference = cache(self._reference)

    def _reference(self, seed: int) -> Episodes:
        return evaluate_agent(self._teacher, self._episodes, seed)

    def teacher_row(self) -> dict[str, Any]:
        metadata = self._teacher.metadata
        return {
            "task": metadata.task,
            "depth": metadata.networks["actor"]["depth"],
            "width": metadata.networks["actor"]["width"],
            "steps": metadata.metrics["steps"],
            "seconds": metadata.metrics.get("seconds"),
            **summary(self.reference(0)),
            "latency_us": agent_latency(self._teacher)["p50"],
            "parameters": metadata.networks["actor"]["parameters"],
        }

    def student(self, name: str, settings: Mapping[str, Any], seed: int) -> Agent:
        """Distills one, unless it is there."""
        config = distill_config(
            overrides={**settings, "seed": seed, "episodes": self._episodes}
        ).for_teacher(self._teacher.metadata.metrics["steps"])
        run = self.out / "students" / name / f"seed-{seed}"
        if (found := self._found(run, config)) is not None:
            return found
        with self._progress(f"{name}, seed {seed}") as report:
            return distill_teacher(
                self._teacher,
                config,
                run,
                force=True,
                reference=self.reference(seed),
                progress=report,
            )

    def size_row(self, layers: int, width: int) -> dict[str, Any]:
        shape = {"layers": layers, "width": width}
        settings = {
            f"student.{network}.{name}": value
            for network in ("policy", "critic")
            for name, value in shape.items()
        }
        same = (layers, width) == DEFAULT
        student = self.student(*(("default", {}) if same else (f"{layers}x{width}", settings)), 0)
        latency = agent_latency(student)
        return {
            **shape,
            "parameters": student.metadata.networks["actor"]["parameters"],
            **_measured(student),
            "latency_us": latency["p50"],
            "latency_p99_us": latency["p99"],
        }

    def method_row(self, method: str, seeds: int) -> dict[str, Any]:
        steps = max(1, int(METHODS_SHARE * self._teacher.metadata.metrics["steps"]))
        settings = {**METHODS[method], "steps": steps}
        students = [self.student(f"method={method}", settings, seed) for seed in range(seeds)]
        return {
            "method": method,
            "steps": _metric(students[0], "steps"),
            **_over_seeds(students),
            "seconds": _figure([_metric(student, "seconds") for student in students]),
        }

    def critic_row(self, student: Agent) -> dict[str, Any]:
        return measure_critic(student, self._teacher, self._episodes // 4, seed=0)

    def scratch_row(self, seeds: int, most_steps: int | None) -> dict[str, Any]:
        """The default student's networks, trained by contrastive RL as the teacher was."""
        stored = stored_config(TeacherConfig, self._teacher.metadata.config, "the teacher")
        steps = int(self._teacher.metadata.metrics["steps"])
        steps = steps if most_steps is None else min(steps, most_steps)
        student = distill_config().student
        rows = []
        for seed in range(seeds):
            settings = stored.model_copy(update={"seed": seed, "steps": steps})
            config = ScratchConfig(teacher=settings, student=student)
            run = self.out / "scratch" / f"seed-{seed}"
            agent = self._found(run, config)
            if agent is None:
                with self._progress(f"from scratch, seed {seed}") as report:
                    agent = train_from_scratch(config, run, progress=report)
            rows.append(measure_retention(agent, self.reference(seed), seed))
        return {
            "layers": student.policy.layers,
            "width": student.policy.width,
            "steps": steps,
            "steps_share": steps / self._teacher.metadata.metrics["steps"],
            **{
                name: value
                for metric in ("retention", "time_at_goal", "success_at_end")
                for name, value in _spread(metric, [row[metric] for row in rows]).items()
            },
        }

    def robustness_rows(self, student: Agent, randomized: Agent) -> list[dict[str, Any]]:
        agents = {"teacher": self._teacher, "student": student, "randomized": randomized}
        rows = []
        for condition, disturbances in CONDITIONS.items():
            row: dict[str, Any] = {"condition": condition}
            for name, agent in agents.items():
                episodes = self._episodes // 4
                played = evaluate_agent(agent, episodes, disturbances=disturbances)
                row[name] = float(played.time_at_goal.mean())
                row[f"{name}_ci95"] = mean_interval(played.time_at_goal)
            rows.append(row)
        return rows

    def _found(self, run: epath.Path, config: Config) -> Agent | None:
        """The student that an earlier comparison left in `run`."""
        if not checkpoint_steps(run):
            if run.exists():  # it was interrupted
                run.rmtree()
            return None
        student = load_student(run, self._teacher.task)
        lineage = student.metadata.lineage
        same = not lineage or lineage["teacher"]["digest"] == self._digest
        if not same or (run / "config.toml").read_text() != config.to_toml():
            raise InputError(
                f"{run} comes of another teacher or of other settings; choose another --out, or remove it"
            )
        return student


def _opened(out: epath.Path) -> epath.Path:
    require_reachable(out)
    with reaching(out):
        if out.is_dir() and any(out.iterdir()) and not (out / MARKER).exists():
            raise InputError(f"{out} holds files that are no comparison's; choose another --out")
    make_folder(out)
    write_whole(out / MARKER, "")
    return out


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
    if None in values:
        return {name: None, f"{name}_ci95": None, f"{name}_by_seed": list(values)}
    scores = np.array(values, float)
    return {
        name: float(interquartile_mean(scores)),
        f"{name}_ci95": bootstrap_interval(scores, interquartile_mean),
        f"{name}_by_seed": scores.tolist(),
    }


def _metric(student: Agent, name: str) -> Any:
    return student.metadata.metrics[name]


def _figure(values: Sequence[float | None]) -> float | None:
    """The median, of what is there."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
