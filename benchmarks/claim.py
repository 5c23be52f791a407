"""Measures whether depth helps, and whether a student of a deep teacher does better than shallow networks trained from scratch.

For each seed a deep teacher is trained and a student is distilled from it. Teachers of fewer layers, and the student's own
networks, are trained from scratch with at least as many control steps as deep teacher and student took together. Where several
learning rates are tried, the first seeds choose the one with the most time at goal, and all seeds are trained with it. Each
training run is represented by its best evaluation, as with `--checkpoint best`, and a distillation by its end. All of them
are then evaluated on new episodes.

Run it with `python benchmarks/claim.py --json FILE`; it takes some hours on two cores. A run that is started again with
the same `--out` reuses what is already trained there, so that one process on each core can train with `--depths`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
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
METRICS = ("time_at_goal", "success_at_end")

Agents = Mapping[int, Agent]  # by seed
Train = Callable[[float, int], Agent]  # from a learning rate and a seed


class Experiment(NamedTuple):
    """The settings of all training runs of a task on which depth matters."""

    width: int  # of all teachers
    shared_settings: Mapping[str, Any]  # of all training runs
    # Tried for the teachers of each depth, and for the student's networks those of the shallowest.
    learning_rates: Mapping[int, Sequence[float]]
    rate_seeds: int  # how many of the seeds choose the learning rate


EXPERIMENTS = {
    # As in the shipped experiment `cpu/depth`.
    "reacher": Experiment(
        width=32,
        shared_settings={
            "steps": 102_400,
            "rollout.steps": 25,
            "learning.gradient_steps": 32,
            "logging.evaluate_every": 1,
            "logging.checkpoint_every": 1,
        },
        learning_rates={4: (3e-3, 6e-3, 1e-2), 256: (3e-3,)},
        rate_seeds=5,
    ),
    # As in the shipped experiment `cpu/maze`.
    "point_big_maze": Experiment(
        width=64,
        shared_settings={
            "steps": 2_500_000,
            "commanded_critic": False,
            "learning.random_goals": 0.0,
            "logging.evaluate_every": 8,
        },
        learning_rates={4: (5e-4, 1e-3), 32: (5e-4,)},
        rate_seeds=5,
    ),
    "arm_grasp": Experiment(
        width=64,
        shared_settings={
            "steps": 1_000_000,
            "logging.evaluate_every": 8,
            "logging.checkpoint_replay": "off",
        },
        learning_rates=dict.fromkeys((4, 16, 32, 64), (2.5e-4, 5e-4, 1e-3)),
        rate_seeds=1,
    ),
}


class Plan(NamedTuple):
    """The configurations of an experiment's runs, and how many control steps they take."""

    task: str
    experiment: Experiment

    @property
    def deepest(self) -> int:
        """Returns the depth of the teachers from which students are distilled."""
        return max(self.experiment.learning_rates)

    @property
    def shallowest(self) -> int:
        """Returns the least depth of a teacher."""
        return min(self.experiment.learning_rates)

    def teacher_config(self, depth: int, learning_rate: float, seed: int) -> TeacherConfig:
        """Returns the configuration of a teacher; those of less than the deepest have the steps of deep teacher and student."""
        settings = {
            **self.experiment.shared_settings,
            **network_sizes(depth, self.experiment.width),
            "learning.learning_rate": learning_rate,
            "seed": seed,
        }
        if depth != self.deepest:
            settings["steps"] = self.deep_steps + self.student_steps
        return teacher_config(self.task, overrides=settings)

    @property
    def deep_steps(self) -> int:
        """Returns the control steps of a deep teacher's training."""
        return total_steps(self.teacher_config(self.deepest, learning_rate=1e-3, seed=0))

    @property
    def student_steps(self) -> int:
        """Returns the control steps of a distillation."""
        config = distill_config(task=get_task(self.task)).for_teacher(self.deep_steps)
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
    scratch_config = ScratchConfig(
        teacher=config, student=distill_config(task=get_task(config.task)).student
    )
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
    scratch_config = ScratchConfig(
        teacher=config, student=distill_config(task=get_task(config.task)).student
    )
    return scratch_programs(get_task(config.task), scratch_config)


def load_or_distill(teacher: Agent, plan: Plan, seed: int, run: epath.Path) -> Agent:
    """Returns the student of this teacher and seed, and distills it first if its run is not complete."""
    settings = {"seed": seed, "steps": plan.student_steps, "episodes": 8}
    config = distill_config(overrides=settings, task=teacher.task)
    config = config.for_teacher(plan.deep_steps)
    student = load_finished_student(run, config)
    return student or distill_teacher(teacher, config, run, force=True)


def measure(policy: str, agents: Agents, steps: int | None) -> dict[str, Any]:
    """Evaluates the agents on new episodes and prints and returns their row.

    Args:
        policy: the row's name.
        agents: the policies, by seed.
        steps: control steps that each of them took; None where the row is printed alone.
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


def train_depth(plan: Plan, runs: epath.Path, depth: int, rate: float, seed: int) -> Agent:
    """Returns the teacher of this depth, learning rate and seed, and trains it first if its run is not complete."""
    config = plan.teacher_config(depth, rate, seed)
    return load_or_train(config, runs / f"depth-{depth}-{rate:g}-{seed}")


def train_student_networks(plan: Plan, runs: epath.Path, rate: float, seed: int) -> Agent:
    """Returns the student's networks trained from scratch with the steps of deep teacher and student."""
    config = plan.teacher_config(plan.shallowest, rate, seed)
    return load_or_train_from_scratch(config, runs / f"scratch-{rate:g}-{seed}")


def train_with_best_rate(
    policy: str, rates: Sequence[float], seeds: Sequence[int], rate_seeds: int, train: Train
) -> tuple[Agents, float]:
    """Returns an agent for each seed, trained with the learning rate of the most time at goal, and that rate.

    Args:
        policy: what is trained, for the rows that are printed.
        rates: the learning rates.
        seeds: of the agents.
        rate_seeds: how many of them choose the rate.
        train: loads the agent of a learning rate and a seed, or trains it.
    """
    scores = {}
    if len(rates) > 1:
        for rate in rates:
            agents = {seed: train(rate, seed) for seed in seeds[:rate_seeds]}
            row = measure(f"{policy}, learning rate {rate:g}", agents, steps=None)
            scores[rate] = row["time_at_goal"]
    best = max(scores, key=scores.__getitem__, default=rates[0])
    return {seed: train(best, seed) for seed in seeds}, best


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
        "--depths",
        type=int,
        nargs="+",
        metavar="DEPTH",
        help="only teachers of these depths, and with the deepest its students (default: all, and the student's networks)",
    )
    parser.add_argument(
        "--out",
        type=epath.Path,
        default=epath.Path("runs/claim"),
        help="folder of all training runs (default: %(default)s)",
    )
    options = parser.parse_args()
    plan, runs = Plan(options.task, EXPERIMENTS[options.task]), options.out / options.task
    rates, rate_seeds = plan.experiment.learning_rates, plan.experiment.rate_seeds
    if unknown := set(options.depths or ()) - set(rates):
        parser.error(f"--depths: {plan.task} has none of {unknown}, but {sorted(rates)}")
    rows = []
    for depth in options.depths or sorted(rates):
        name = f"teacher, depth {depth}"
        train = partial(train_depth, plan, runs, depth)
        teachers, rate = train_with_best_rate(name, rates[depth], options.seeds, rate_seeds, train)
        steps = total_steps(plan.teacher_config(depth, rate, seed=0))
        rows.append(measure(f"{name}, learning rate {rate:g}", teachers, steps))
        if depth == plan.deepest:
            students = {
                seed: load_or_distill(teacher, plan, seed, runs / f"student-{seed}")
                for seed, teacher in teachers.items()
            }
            rows.append(measure("its student", students, steps + plan.student_steps))
    if not options.depths:
        name = "the student's networks, from scratch"
        train = partial(train_student_networks, plan, runs)
        networks, rate = train_with_best_rate(
            name, rates[plan.shallowest], options.seeds, rate_seeds, train
        )
        steps = plan.deep_steps + plan.student_steps
        rows.append(measure(f"{name}, learning rate {rate:g}", networks, steps))
    by_seed = [f"{metric}_by_seed" for metric in METRICS]
    report(rows, options.json, hidden_columns=by_seed)


if __name__ == "__main__":
    main()
