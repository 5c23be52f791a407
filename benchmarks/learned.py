"""Collects what teachers have learned, from the folders of their runs: figures over new episodes, and learning curves.

A run is made by `crl-distill train-teacher TASK --seed SEED`, with `--set` where `settings` shows it. The figures are those of the
deterministic policy and, after `sampled_`, of actions drawn from it, at the end of the training; the episodes are not those
on which the checkpoint `best` was chosen. Run it with `python benchmarks/learned.py RUN ... --json FILE`.
"""

from collections.abc import Mapping
from typing import Any

from common import make_parser, report

from teachers import evaluate_agent, load_teacher, teacher_config
from teachers.config import TeacherConfig
from teachers.measures import summary
from teachers.runs.run_log import read_metrics

EPISODES = 256
SEED = 0  # of the episodes
FIGURES = ("success_at_end", "success_any", "time_at_goal", "distance_at_end")
CURVES = (
    "step",
    "seconds",
    *FIGURES,
    *(f"sampled_{name}" for name in FIGURES),
    "contrastive_accuracy",
    "entropy",
    "temperature",
    "saturated_actions",
)
# They do not belong to what is learned, or follow from where it runs.
LEFT_OUT = ("task", "seed", "rollout.physics")


def changed_settings(config: TeacherConfig) -> dict[str, Any]:
    """Returns the settings, by dotted key, that differ from the task's defaults."""
    ours, defaults = (
        _flatten(config.model_dump()),
        _flatten(teacher_config(config.task).model_dump()),
    )
    return {
        key: value for key, value in ours.items() if value != defaults[key] and key not in LEFT_OUT
    }


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        found |= _flatten(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return found


def measure(run: str, checkpoint: str) -> dict[str, Any]:
    """Returns the row of a run.

    Args:
        run: its folder.
        checkpoint: which of its checkpoints is evaluated.
    """
    teacher = load_teacher(run, checkpoint=checkpoint)
    rows = read_metrics(run)
    row: dict[str, Any] = {
        "task": teacher.metadata.task,
        "seed": teacher.config.seed,
        "settings": changed_settings(teacher.config),
        "steps": teacher.metadata.metrics["steps"],
        "minutes": rows[-1]["seconds"] / 60,
    }
    for prefix, is_sampled in (("", False), ("sampled_", True)):
        figures = summary(evaluate_agent(teacher, EPISODES, SEED, is_sampled=is_sampled))
        row |= {f"{prefix}{name}": value for name, value in figures.items()}
    evaluated = [each for each in rows if "success_at_end" in each]
    row["curve"] = {
        name: [None if each[name] is None else float(f"{each[name]:.4g}") for each in evaluated]
        for name in CURVES
    }
    return row


def main() -> None:
    """Evaluates the teachers of all runs and prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a training run")
    parser.add_argument(
        "--checkpoint", default="newest", help="newest, best or a control step (default: newest)"
    )
    options = parser.parse_args()
    rows = [measure(run, options.checkpoint) for run in options.runs]
    shown = (
        "task",
        "seed",
        "steps",
        "minutes",
        *FIGURES[:3],
        *(f"sampled_{n}" for n in FIGURES[:3]),
    )
    hidden = [name for name in rows[0] if name not in shown]
    report(rows, options.json, hidden_columns=hidden)


if __name__ == "__main__":
    main()
