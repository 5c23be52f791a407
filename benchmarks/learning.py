"""Measures what single settings do to learning on `reacher`: scaled inputs, initial temperature and bfloat16.

The columns give the success at the end of the episode, as a mean over seeds, after each quarter of a default training
run. Run it with `python benchmarks/learning.py --json FILE`.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from common import make_parser, report

from teachers import teacher_config
from teachers.crl.training_programs import teacher_programs
from teachers.tasks.reacher import Reacher
from teachers.tasks.registry import TASKS

EPISODES = 256


class UnscaledReacher(Reacher):
    """The reacher with a scale of 1 for every field, so that networks read its numbers unchanged."""

    name = "reacher_unscaled"
    observation = tuple(field._replace(scale=1.0) for field in Reacher.observation)
    goal = tuple(field._replace(scale=1.0) for field in Reacher.goal)


TASKS[UnscaledReacher.name] = UnscaledReacher
# Name: the task and the changed settings.
VARIANTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "default": ("reacher", {}),
    "inputs not scaled": ("reacher_unscaled", {}),
    "initial temperature 1.0": ("reacher", {"learning.initial_temperature": 1.0}),
    "products in bfloat16": ("reacher", {"learning.precision": "bfloat16"}),
}


def measure_successes(task: str, overrides: Mapping[str, Any], seed: int) -> list[float]:
    """Trains a teacher and returns its success at the end of the episode after each quarter of the run."""
    config = teacher_config(task, overrides={**overrides, "seed": seed})
    programs = teacher_programs(config)
    state = programs.init(jnp.uint32(seed))
    successes = []
    for i in range(1, config.iterations + 1):
        state, _ = programs.iterate(state)
        if i % (config.iterations // 4) == 0:
            outcomes = programs.evaluator.evaluate(state.learner.params, EPISODES, seed)
            successes.append(float(outcomes.success_at_end.mean()))
    return successes


def main() -> None:
    """Trains every variant with every seed and prints the table."""
    options = make_parser(__doc__, default_seeds=(0, 1, 2)).parse_args()
    rows = []
    for variant, (task, overrides) in VARIANTS.items():
        successes = np.array([measure_successes(task, overrides, seed) for seed in options.seeds])
        quarters = {
            f"success_at_{25 * (i + 1)}%": float(mean)
            for i, mean in enumerate(successes.mean(axis=0))
        }
        final = np.round(successes[:, -1], 3).tolist()
        rows.append({"variant": variant, **quarters, "final_by_seed": final})
    report(rows, options.json)


if __name__ == "__main__":
    main()
