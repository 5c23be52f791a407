"""Does a student of a deep teacher beat what shallow networks learn by themselves?

For each seed a deep teacher, a student distilled from it, and shallow networks trained from scratch with at least as
many steps as both took together, with the best of the learning rates below. Of every training run its best evaluation
counts, as `--checkpoint best` does; of a distillation its end. All are then measured on other episodes. Called again
with the same `--out`, it keeps the runs that are there.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from common import parser, report
from etils import epath

from distill import distill_config, distill_teacher
from distill.scratch import ScratchConfig, train_from_scratch
from students.artefact import load_finished_student
from teachers import evaluate_agent, load_teacher, summary, teacher_config, train_teacher
from teachers.agent import Agent
from teachers.config import TeacherConfig
from teachers.measures import bootstrap_interval, interquartile_mean
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.tasks.registry import get_task

EPISODES = 1024
MEASURED = 1000  # added to the seed of the episodes on which all are measured
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
            "learning.gradient_steps": 32,
            "logging.evaluate_every": 1,
            "logging.checkpoint_every": 1,
        },
        rates=(3e-3, 6e-3, 1e-2),
        width=32,
    ),
    # As in `cpu/maze`.
    "point_big_maze": Experiment(
        depth=32,
        deep={},
        shared={"steps": 2_500_000, "logging.evaluate_every": 8},
        rates=(5e-4, 1e-3),
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


def figures(name: str, by_seed: Mapping[int, Agent], steps: int) -> dict[str, Any]:
    played = [
        summary(evaluate_agent(agent, EPISODES, MEASURED + seed)) for seed, agent in by_seed.items()
    ]
    actor = next(iter(by_seed.values())).metadata.networks["actor"]
    row: dict[str, Any] = {"policy": name, "parameters": actor["parameters"], "steps": steps}
    for metric in ("time_at_goal", "success_at_end"):
        scores = np.array([each[metric] for each in played])
        low, high = bootstrap_interval(scores, interquartile_mean)
        row |= {metric: float(interquartile_mean(scores)), f"{metric}_ci95": (low, high)}
        row[f"{metric}_by_seed"] = [float(score) for score in scores]
    print(row, flush=True)
    return row


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--task", choices=list(EXPERIMENTS), default="point_big_maze")
    options.add_argument("--out", type=epath.Path, default=epath.Path("runs/claim"))
    options.set_defaults(seeds=[0, 1, 2, 3, 4])
    given = options.parse_args()
    experiment, runs = EXPERIMENTS[given.task], given.out / given.task

    def configured(settings: Mapping[str, Any], seed: int) -> TeacherConfig:
        return teacher_config(given.task, overrides={**settings, "seed": seed})

    def train(run: epath.Path, config: TeacherConfig) -> Agent:
        wanted = config.iterations * config.steps_per_iteration
        if not run.exists() or max(checkpoint_steps(run), default=0) < wanted:
            train_teacher(config, run, resume=True)
        return load_teacher(run, checkpoint="best")

    def scratch(run: epath.Path, config: TeacherConfig) -> Agent:
        own = ScratchConfig(teacher=config, student=distill_config().student)
        return load_finished_student(run, own) or train_from_scratch(get_task(given.task), own, run)

    def distill(run: epath.Path, teacher: Agent, seed: int) -> Agent:
        settings = {"seed": seed, "steps": share, "episodes": 8}
        config = distill_config(overrides=settings).for_teacher(taken)
        return load_finished_student(run, config) or distill_teacher(
            teacher, config, run, force=True
        )

    deep = {**of_depth(experiment, experiment.depth), **experiment.deep}
    first = configured(deep, 0)
    taken = first.iterations * first.steps_per_iteration
    distillation = distill_config().for_teacher(taken)
    share = distillation.rounds * distillation.states_per_round
    shallow = {**of_depth(experiment, SHALLOW), "steps": taken + share}

    def best(name: str, label: str, run: Callable[..., Agent]) -> dict[str, Any]:
        """The row of the learning rate with the most time at goal."""
        rows = []
        for rate in experiment.rates:
            configs = {
                seed: configured({**shallow, "learning.learning_rate": rate}, seed)
                for seed in given.seeds
            }
            agents = {
                seed: run(runs / f"{name}-{rate:g}-{seed}", configs[seed]) for seed in configs
            }
            steps = configs[given.seeds[0]].iterations * first.steps_per_iteration
            rows.append(figures(f"{label}, learning rate {rate:g}", agents, steps))
        return max(rows, key=lambda row: row["time_at_goal"])

    teachers = {seed: train(runs / f"deep-{seed}", configured(deep, seed)) for seed in given.seeds}
    students = {
        seed: distill(runs / f"student-{seed}", teacher, seed) for seed, teacher in teachers.items()
    }
    rows = [
        figures(f"teacher, depth {experiment.depth}", teachers, taken),
        figures("2 x 64 student of it", students, taken + share),
        best("shallow", f"teacher, depth {SHALLOW}, from scratch", train),
        best("scratch", "the student's networks, from scratch", scratch),
    ]
    by_seed = [name for name in rows[0] if name.endswith("_by_seed")]
    report(rows, given.json, without=by_seed)


if __name__ == "__main__":
    main()
