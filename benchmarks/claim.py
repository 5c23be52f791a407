"""Does a student of a deep teacher beat what shallow networks learn by themselves?

For each seed a deep teacher, a student distilled from it, and shallow networks trained from scratch with as many steps
as both took together, each with the best of several learning rates. Of every run the best of its evaluations counts, of
each the same number. Called again with the same `--out`, it keeps the runs that are there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import parser, report

from distill import distill_config, distill_teacher
from distill.scratch import ScratchConfig, train_from_scratch
from students import load_student
from teachers import evaluate_agent, load_teacher, summary, teacher_config, train_teacher
from teachers.agent import Agent
from teachers.checkpoint import checkpoint_steps
from teachers.config import TeacherConfig
from teachers.evaluate import bootstrap_interval
from teachers.sweep import interquartile_mean
from teachers.tasks import get_task

EPISODES = 1024
SHALLOW = 4  # layers


class Experiment(NamedTuple):
    """A task on which depth matters."""

    depth: int
    deep: Mapping[str, Any]
    shared: Mapping[str, Any]
    rates: tuple[float, ...]  # tried for the shallow ones
    width: int  # of all teachers


EXPERIMENTS = {
    # As in the shipped experiment `cpu/depth`.
    "reacher": Experiment(
        depth=256,
        deep={"learning.learning_rate": 3e-3},
        shared={
            "steps": 102_400,
            "rollout.steps": 25,
            "learning.updates": 32,
            "logging.evaluate_every": 16,
        },
        rates=(3e-3, 6e-3, 1e-2),
        width=32,
    ),
    # As in `cpu/maze`.
    "point_big_maze": Experiment(
        depth=32,
        deep={},
        shared={"steps": 2_500_000, "logging.evaluate_every": 8},
        rates=(5e-4,),
        width=64,
    ),
}


def of_depth(experiment: Experiment, depth: int) -> dict[str, Any]:
    networks = ("actor", "phi", "psi")
    return {
        **experiment.shared,
        **{f"{network}.depth": depth for network in networks},
        **{f"{network}.width": experiment.width for network in networks},
    }


def figures(name: str, by_seed: list[Agent], steps: int) -> dict[str, Any]:
    played = [summary(evaluate_agent(agent, EPISODES, seed)) for seed, agent in enumerate(by_seed)]
    row: dict[str, Any] = {
        "policy": name,
        "parameters": by_seed[0].metadata.networks["actor"]["parameters"],
        "steps": steps,
    }
    for metric in ("time_at_goal", "success_at_end"):
        scores = np.array([each[metric] for each in played])
        low, high = bootstrap_interval(scores, interquartile_mean)
        row |= {metric: float(interquartile_mean(scores)), f"{metric}_ci95": (low, high)}
        row[f"{metric}_by_seed"] = [float(score) for score in scores]
    print(row, flush=True)
    return row


def newest(run: Path) -> int:
    """Control step of a run's newest checkpoint; 0 where there is none."""
    return max(checkpoint_steps(run), default=0) if run.exists() else 0


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--task", choices=list(EXPERIMENTS), default="point_big_maze")
    options.add_argument("--out", type=Path, default=Path("runs/claim"))
    given = options.parse_args()
    experiment, runs = EXPERIMENTS[given.task], given.out / given.task

    def train(name: str, settings: Mapping[str, Any], seed: int) -> Agent:
        run, config = runs / f"{name}-{seed}", configured(settings, seed)
        if newest(run) < config.iterations * config.steps_per_iteration:
            train_teacher(config, run, resume=True)
        return load_teacher(run, checkpoint="best")

    def scratch(name: str, settings: Mapping[str, Any], seed: int) -> Agent:
        run = runs / f"{name}-{seed}"
        if newest(run):
            return load_student(run)
        config = ScratchConfig(teacher=configured(settings, seed), student=distill_config().student)
        return train_from_scratch(get_task(given.task), config, run)

    def configured(settings: Mapping[str, Any], seed: int) -> TeacherConfig:
        return teacher_config(given.task, overrides={**settings, "seed": seed})

    def distill(teacher: Agent, seed: int) -> Agent:
        run = runs / f"student-{seed}"
        if newest(run):
            return load_student(run)
        config = distill_config(overrides={"seed": seed, "steps": steps_of_student, "episodes": 8})
        return distill_teacher(teacher, config, run, force=True)

    deep = {**of_depth(experiment, experiment.depth), **experiment.deep}
    steps_of_student = distill_config().for_teacher(experiment.shared["steps"]).steps or 0
    together = experiment.shared["steps"] + steps_of_student
    shallow = {**of_depth(experiment, SHALLOW), "steps": together}

    def best(name: str, run: Callable[[str, Mapping[str, Any], int], Agent]) -> dict[str, Any]:
        """The row of the learning rate with the most time at goal."""
        rows = []
        for rate in experiment.rates:
            settings = {**shallow, "learning.learning_rate": rate}
            agents = [run(f"{run.__name__}-{rate:g}", settings, seed) for seed in given.seeds]
            rows.append(figures(f"{name}, learning rate {rate:g}", agents, together))
        return max(rows, key=lambda row: row["time_at_goal"])

    teachers = [train("deep", deep, seed) for seed in given.seeds]
    students = [distill(teacher, seed) for seed, teacher in zip(given.seeds, teachers, strict=True)]
    rows = [
        figures(f"teacher, depth {experiment.depth}", teachers, experiment.shared["steps"]),
        figures("2 x 64 student of it", students, together),
        best(f"teacher, depth {SHALLOW}, from scratch", train),
        best("the student's networks, from scratch", scratch),
    ]
    by_seed = [name for name in rows[0] if name.endswith("_by_seed")]
    report(rows, given.json, without=by_seed)


if __name__ == "__main__":
    main()
