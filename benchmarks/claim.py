"""Does a student of a deep teacher beat what shallow networks learn by themselves?

For each seed a deep teacher, a student distilled from it, and shallow networks trained from scratch with as many steps
as both took together, each with the best of several learning rates.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import parser, report

from distill import distill_config, distill_teacher
from distill.scratch import ScratchConfig, train_from_scratch
from teachers import evaluate_agent, summary, teacher_config, train_teacher
from teachers.agent import Agent
from teachers.evaluate import bootstrap_interval
from teachers.sweep import interquartile_mean
from teachers.tasks import get_task

EPISODES = 1024
SHALLOW = 4


class Experiment(NamedTuple):
    """A task on which depth matters."""

    depth: int
    deep: Mapping[str, Any]
    shared: Mapping[str, Any]
    rates: tuple[float, ...]  # tried for the shallow ones
    width: int  # of all teachers


EXPERIMENTS = {
    # As in the shipped experiment `cpu/depth`, for half as long: what depth buys here is speed.
    "reacher": Experiment(
        depth=256,
        deep={"learning.learning_rate": 3e-3},
        shared={
            "steps": 51_200,
            "rollout.steps": 25,
            "learning.updates": 32,
            "logging.evaluate_every": 16,
        },
        rates=(3e-3, 6e-3, 1e-2),
        width=32,
    ),
    # As in `cpu/maze`, for twice as long.
    "point_big_maze": Experiment(
        depth=32, deep={}, shared={"steps": 5_000_000}, rates=(5e-4,), width=64
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


def best(
    name: str, rates: tuple[float, ...], train: Callable[[float], list[Agent]], steps: int
) -> dict[str, Any]:
    """The row of the learning rate with the most time at goal."""
    rows = [figures(f"{name}, learning rate {rate:g}", train(rate), steps) for rate in rates]
    return max(rows, key=lambda row: row["time_at_goal"])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--task", choices=list(EXPERIMENTS), default="reacher")
    options.set_defaults(seeds=[0, 1, 2, 3, 4])
    given = options.parse_args()
    experiment = EXPERIMENTS[given.task]

    def train(settings: Mapping[str, Any], seed: int) -> Agent:
        config = teacher_config(given.task, overrides={**settings, "seed": seed})
        with tempfile.TemporaryDirectory() as folder:
            return train_teacher(config, Path(folder) / "run")

    def distill(teacher: Agent, seed: int) -> Agent:
        with tempfile.TemporaryDirectory() as folder:
            config = distill_config(overrides={"seed": seed, "episodes": 8})
            return distill_teacher(teacher, config, Path(folder) / "run", force=True)

    deep = {**of_depth(experiment, experiment.depth), **experiment.deep}
    teachers = [train(deep, seed) for seed in given.seeds]
    students = [distill(teacher, seed) for seed, teacher in zip(given.seeds, teachers, strict=True)]
    taken = teachers[0].metadata.metrics["steps"]
    together = taken + students[0].metadata.metrics["steps"]
    shallow = {**of_depth(experiment, SHALLOW), "steps": together}
    student = distill_config().student

    def scratch(rate: float) -> list[Agent]:
        agents = []
        for seed in given.seeds:
            settings = {**shallow, "learning.learning_rate": rate, "seed": seed}
            config = teacher_config(given.task, overrides=settings)
            with tempfile.TemporaryDirectory() as folder:
                config = ScratchConfig(teacher=config, student=student)
                agents.append(
                    train_from_scratch(get_task(given.task), config, Path(folder) / "run")
                )
        return agents

    rows = [
        figures(f"teacher, depth {experiment.depth}", teachers, taken),
        figures("2 x 64 student of it", students, together),
        best(
            f"teacher, depth {SHALLOW}, from scratch",
            experiment.rates,
            lambda rate: [
                train({**shallow, "learning.learning_rate": rate}, seed) for seed in given.seeds
            ],
            together,
        ),
        best("the student's networks, from scratch", experiment.rates, scratch, together),
    ]
    by_seed = [name for name in rows[0] if name.endswith("_by_seed")]
    report(rows, given.json, without=by_seed)


if __name__ == "__main__":
    main()
