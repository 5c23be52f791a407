"""Measures what default students of a teacher keep of its policy and critic, and what the distillations cost.

A student is distilled for each seed and evaluated on new episodes, beside the teacher. Run it with
`python benchmarks/retention.py RUN --seeds 0 1 2 3 4`, where RUN is the folder of the teacher's training run.
"""

import tempfile
from pathlib import Path
from typing import Any

from common import make_parser, parse_with_teacher, report

from distill import distill_config, distill_teacher
from distill.critic_measures import CriticComparison
from distill.programs import DistillPrograms
from distill.retention import measure_retention
from teachers import evaluate_agent
from teachers.agent import Teacher

EPISODES = 1024
CRITIC_EPISODES = 256
CRITIC_MEASURES = ("spearman", "spearman_within_goal", "top1_retention", "auroc")
COSTS = ("steps_share", "seconds", "seconds_share")
# Added to the seed of a student, so that it is evaluated on other episodes than during its distillation.
EVALUATION_SEED = 1000


def measure(
    teacher: Teacher, programs: DistillPrograms, critics: CriticComparison, seed: int
) -> dict[str, Any]:
    """Distills a student with this seed and returns its row."""
    config = distill_config(overrides={"seed": seed, "episodes": 1}, task=teacher.task)
    with tempfile.TemporaryDirectory() as folder:
        student = distill_teacher(teacher, config, Path(folder) / "student", programs=programs)
    reference = evaluate_agent(teacher, EPISODES, EVALUATION_SEED + seed)
    policy = measure_retention(student, reference, EVALUATION_SEED + seed)
    critic = critics.measure(student, teacher, CRITIC_EPISODES, EVALUATION_SEED + seed)
    low, high = policy["retention_ci95"]
    return {
        "task": teacher.metadata.task,
        "seed": seed,
        "teacher_time": float(reference.time_at_goal.mean()),
        "retention": policy["retention"],
        "retention_low": low,
        "retention_high": high,
        **{name: critic[name] for name in CRITIC_MEASURES},
        **{name: student.metadata.metrics[name] for name in COSTS},
    }


def main() -> None:
    """Distills and measures a student for each seed and prints the table."""
    options, teacher = parse_with_teacher(make_parser(__doc__, default_seeds=(0, 1, 2)))
    programs = DistillPrograms(distill_config(task=teacher.task), teacher)
    critics = CriticComparison(programs.networks, teacher.networks)
    rows = [measure(teacher, programs, critics, seed) for seed in options.seeds]
    report(rows, options.json)


if __name__ == "__main__":
    main()
