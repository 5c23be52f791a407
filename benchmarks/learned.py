"""Measures what teachers have learned, beside the same networks before training, and collects their learning curves.

A run is made by `crl-distill train-teacher TASK --seed SEED`, with `--set` where its `settings` show more than the task's defaults. The
deterministic policy plays 256 episodes, which are not those on which the checkpoint `best` was chosen; brackets are
95% bootstrap intervals over the episodes. Run it with `python benchmarks/learned.py RUN ... --json FILE`.
"""

import dataclasses
from typing import Any

import jax
from common import add_checkpoint_option, make_parser, report

from teachers import evaluate_agent, load_teacher, teacher_config
from teachers.agent import Teacher
from teachers.config import TeacherConfig
from teachers.measures import format_interval, summary
from teachers.runs.run_log import read_metrics
from teachers.sweeps.specification import flatten

EPISODES = 256
SEED = 0  # of the episodes
FIGURES = ("success_at_end", "success_any", "time_at_goal", "distance_at_end", "episode_length")
CURVE = (
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
        flatten(config.model_dump()),
        flatten(teacher_config(config.task).model_dump()),
    )
    return {
        key: value for key, value in ours.items() if value != defaults[key] and key not in LEFT_OUT
    }


def learning_curve(run: str) -> dict[str, list[Any]]:
    """Returns the control step and each measure, rounded to four digits, of a run's evaluations."""
    rows = [row for row in read_metrics(run) if row.get("success_at_end") is not None]

    def rounded(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.4g}")

    curve = {name: [rounded(row.get(name)) for row in rows] for name in CURVE}
    return {"step": [row["step"] for row in rows], **curve}


def untrained(teacher: Teacher) -> Teacher:
    """Returns the teacher with newly initialised parameters."""
    key = jax.random.key(teacher.config.seed)
    return dataclasses.replace(teacher, params=jax.jit(teacher.networks.init)(key))


def main() -> None:
    """Evaluates the teachers of all runs and prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a training run")
    add_checkpoint_option(parser)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for run in options.runs:
        teacher = load_teacher(run, checkpoint=options.checkpoint)
        steps = teacher.metadata.metrics["steps"]
        seconds = {row["step"]: row["seconds"] for row in read_metrics(run)}[steps]
        about = {"task": teacher.metadata.task, "seed": teacher.config.seed}
        about |= {"settings": changed_settings(teacher.config)}
        for agent, more in (
            (untrained(teacher), {"steps": 0, "minutes": 0.0, "curve": None}),
            (teacher, {"steps": steps, "minutes": seconds / 60, "curve": learning_curve(run)}),
        ):
            figures = summary(evaluate_agent(agent, EPISODES, SEED))
            shown = {
                name: f"{figures[name]:.3f} {format_interval(figures[f'{name}_ci95'])}"
                for name in FIGURES
                if name in figures
            }
            rows.append(about | more | shown)
    report(rows, options.json, hidden_columns=("settings", "curve"))


if __name__ == "__main__":
    main()
