"""What default students of a teacher keep, one for each seed, on episodes of their own: policy, critic, cost."""

import tempfile
from pathlib import Path

from common import parsed_with_teacher, parser, report

from distill import distill_config, distill_teacher
from distill.critic_measures import measure_critic
from distill.retention import measure_retention
from teachers import evaluate_agent

EPISODES = 1024
CRITIC_EPISODES = 256
MEASURES = ("spearman", "spearman_within_goal", "top1_retention", "auroc")
MEASURED = 1000  # added to the seed of the episodes on which a student is measured


def main() -> None:
    given, teacher = parsed_with_teacher(parser(__doc__))
    rows = []
    for seed in given.seeds:
        config = distill_config(overrides={"seed": seed, "episodes": 1})
        with tempfile.TemporaryDirectory() as folder:
            student = distill_teacher(teacher, config, Path(folder) / "student")
        reference = evaluate_agent(teacher, EPISODES, MEASURED + seed)
        kept = measure_retention(student, reference, MEASURED + seed)
        critic = measure_critic(student, teacher, CRITIC_EPISODES, MEASURED + seed)
        low, high = kept["retention_ci95"]
        rows.append(
            {
                "task": teacher.metadata.task,
                "seed": seed,
                "teacher": float(reference.time_at_goal.mean()),
                "retention": kept["retention"],
                "low": low,
                "high": high,
                **{name: critic[name] for name in MEASURES},
                **{name: student.metadata.metrics[name] for name in ("steps_share", "seconds")},
                "seconds_share": student.metadata.metrics["seconds_share"],
            }
        )
    report(rows, given.json)


if __name__ == "__main__":
    main()
