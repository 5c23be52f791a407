"""Measures whether a student of a deep teacher does better than shallow networks that are trained from scratch.

For each seed a deep teacher is trained and a student is distilled from it. Shallow teachers, and the student's own
networks, are trained from scratch with at least as many control steps as teacher and student took together, with each
of several learning rates. Each training run is represented by its best evaluation, as with `--checkpoint best`, and a
distillation by its end. All of them are then evaluated on new episodes, and the table shows the learning rate with the
most time at goal.

Run it with `python benchmarks/claim.py --json FILE`; it takes some hours on two cores. A run that is started again with
the same `--out` reuses what is already trained there.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from common import make_parser, network_sizes, report
from etils import epath

from distill import distill_config, distill_teacher
from distill.scratch import ScratchConfig, scratch_programs, train_from_scratch
from students.artefact import load_finished_student
from teachers import evaluate_agent, load_teacher, summary, teacher_config, train_teacher
from teachers.agent import Agent
from teachers.config import TeacherConfig
from teachers.crl.training_programs import TrainingPrograms, teacher_programs
from teachers.measures import summarise_seeds
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.tasks.registry import get_task

EPISODES = 1024
# Added to the seed of a run, so that all policies are evaluated on other episodes than during training.
EVALUATION_SEED = 1000
SHALLOW_DEPTH = 4
METRICS = ("time_at_goal", "success_at_end")

Agents = Mapping[int, Agent]  # by seed


class Experiment(NamedTuple):
    """The settings of all training runs of a task on which depth matters."""

    deep_depth: int
    width: int  # of all teachers
    shared_settings: Mapping[str, Any]  # of all training runs
    deep_settings: Mapping[str, Any]  # of the deep teachers
    learning_rates: tuple[float, ...]  # tried for the runs from scratch


EXPERIMENTS = {
    # As in the shipped experiment `cpu/depth`.
    "reacher": Experiment(
        deep_depth=256,
        width=32,
        shared_settings={
            "steps": 102_400,
            "rollout.steps": 25,
            "learning.gradient_steps": 32,
            "logging.evaluate_every": 1,
            "logging.checkpoint_every": 1,
        },
        deep_settings={"learning.learning_rate": 3e-3},
        learning_rates=(3e-3, 6e-3, 1e-2),
    ),
    # As in the shipped experiment `cpu/maze`.
    "point_big_maze": Experiment(
        deep_depth=32,
        width=64,
        shared_settings={"steps": 2_500_000, "logging.evaluate_every": 8},
        deep_settings={},
        learning_rates=(5e-4, 1e-3),
    ),
}


class Plan(NamedTuple):
    """The configurations of an experiment's runs, and how many control steps they take."""

    task: str
    experiment: Experiment

    def deep_config(self, seed: int) -> TeacherConfig:
        """Returns the configuration of the deep teacher with this seed."""
        experiment = self.experiment
        settings = {
            **experiment.shared_settings,
            **network_sizes(experiment.deep_depth, experiment.width),
            **experiment.deep_settings,
        }
        return teacher_config(self.task, overrides={**settings, "seed": seed})

    def shallow_config(self, learning_rate: float, seed: int) -> TeacherConfig:
        """Returns the configuration of a run from scratch, with the steps of deep teacher and student."""
        experiment = self.experiment
        settings = {
            **experiment.shared_settings,
            **network_sizes(SHALLOW_DEPTH, experiment.width),
            "steps": self.teacher_steps + self.student_steps,
            "learning.learning_rate": learning_rate,
        }
        return teacher_config(self.task, overrides={**settings, "seed": seed})

    @property
    def teacher_steps(self) -> int:
        """Returns the control steps of a deep teacher's training."""
        return total_steps(self.deep_config(seed=0))

    @property
    def student_steps(self) -> int:
        """Returns the control steps of a distillation."""
        config = distill_config().for_teacher(self.teacher_steps)
        return config.rounds * config.states_per_round


def total_steps(config: TeacherConfig) -> int:
    """Returns the control steps of a training run, a whole number of iterations."""
    return config.iterations * config.steps_per_iteration


def load_or_train(config: TeacherConfig, run: epath.Path) -> Agent:
    """Returns the teacher of this run at its best evaluation, and trains it first if its run is not complete."""
    if not run.exists() or max(checkpoint_steps(run), default=0) < total_steps(config):
        programs = compile_teacher_programs(config.model_copy(update={"seed": 0}))
        train_teacher(config, run, resume=True, programs=programs)
    return load_teacher(run, checkpoint="best")


@lru_cache(maxsize=1)
def compile_teacher_programs(config: TeacherConfig) -> TrainingPrograms:
    """Returns the compiled functions of teachers, which the runs of all seeds share."""
    return teacher_programs(config)


def load_or_train_from_scratch(config: TeacherConfig, run: epath.Path) -> Agent:
    """Returns the default student's networks, trained by contrastive RL, at their best evaluation."""
    scratch_config = ScratchConfig(teacher=config, student=distill_config().student)
    if student := load_finished_student(run, scratch_config):
        return student
    return train_from_scratch(
        get_task(config.task),
        scratch_config,
        run,
        resume=bool(checkpoint_steps(run)),
        programs=compile_scratch_programs(config.model_copy(update={"seed": 0})),
    )


@lru_cache(maxsize=1)
def compile_scratch_programs(config: TeacherConfig) -> TrainingPrograms:
    """Returns the compiled functions of training from scratch, which the runs of all seeds share."""
    scratch_config = ScratchConfig(teacher=config, student=distill_config().student)
    return scratch_programs(get_task(config.task), scratch_config)


def load_or_distill(teacher: Agent, plan: Plan, seed: int, run: epath.Path) -> Agent:
    """Returns the student of this teacher and seed, and distills it first if its run is not complete."""
    settings = {"seed": seed, "steps": plan.student_steps, "episodes": 8}
    config = distill_config(overrides=settings).for_teacher(plan.teacher_steps)
    student = load_finished_student(run, config)
    return student or distill_teacher(teacher, config, run, force=True)


def measure(policy: str, agents: Agents, steps: int) -> dict[str, Any]:
    """Evaluates the agents on new episodes and prints and returns their row.

    Args:
        policy: the row's name.
        agents: the policies, by seed.
        steps: control steps that each of them took.
    """
    summaries = [
        summary(evaluate_agent(agent, EPISODES, EVALUATION_SEED + seed))
        for seed, agent in agents.items()
    ]
    actor = next(iter(agents.values())).metadata.networks["actor"]
    row: dict[str, Any] = {"policy": policy, "parameters": actor["parameters"], "steps": steps}
    for metric in METRICS:
        row |= summarise_seeds(metric, [outcome[metric] for outcome in summaries])
    print(row, flush=True)
    return row


def measure_from_scratch(
    policy: str,
    plan: Plan,
    seeds: Sequence[int],
    train: Callable[[TeacherConfig, epath.Path], Agent],
    run_prefix: epath.Path,
) -> dict[str, Any]:
    """Trains and measures runs from scratch, and returns the row of the learning rate with the most time at goal.

    Args:
        policy: the start of the row's name; the learning rate is added.
        plan: the experiment.
        seeds: one run for each of them and for each learning rate.
        train: loads a run, or trains it.
        run_prefix: the start of the runs' folders.
    """
    rows = []
    for learning_rate in plan.experiment.learning_rates:
        agents = {
            seed: train(
                plan.shallow_config(learning_rate, seed),
                epath.Path(f"{run_prefix}-{learning_rate:g}-{seed}"),
            )
            for seed in seeds
        }
        steps = total_steps(plan.shallow_config(learning_rate, seeds[0]))
        rows.append(measure(f"{policy}, learning rate {learning_rate:g}", agents, steps))
    return max(rows, key=lambda row: row["time_at_goal"])


def main() -> None:
    """Trains and measures all policies of a task and prints the table."""
    parser = make_parser(__doc__, default_seeds=(0, 1, 2, 3, 4))
    parser.add_argument(
        "--task",
        choices=list(EXPERIMENTS),
        default="point_big_maze",
        help="the task, with its experiment (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=epath.Path,
        default=epath.Path("runs/claim"),
        help="folder of all training runs (default: %(default)s)",
    )
    options = parser.parse_args()
    plan, runs = Plan(options.task, EXPERIMENTS[options.task]), options.out / options.task
    teachers = {
        seed: load_or_train(plan.deep_config(seed), runs / f"deep-{seed}") for seed in options.seeds
    }
    students = {
        seed: load_or_distill(teacher, plan, seed, runs / f"student-{seed}")
        for seed, teacher in teachers.items()
    }
    rows = [
        measure(f"teacher, depth {plan.experiment.deep_depth}", teachers, plan.teacher_steps),
        measure("2 x 64 student of it", students, plan.teacher_steps + plan.student_steps),
        measure_from_scratch(
            f"teacher, depth {SHALLOW_DEPTH}, from scratch",
            plan,
            options.seeds,
            load_or_train,
            runs / "shallow",
        ),
        measure_from_scratch(
            "the student's networks, from scratch",
            plan,
            options.seeds,
            load_or_train_from_scratch,
            runs / "scratch",
        ),
    ]
    by_seed = [f"{metric}_by_seed" for metric in METRICS]
    report(rows, options.json, hidden_columns=by_seed)


if __name__ == "__main__":
    main()
