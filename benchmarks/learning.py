"""What some choices do to learning on `reacher`: scaled inputs, the first temperature, bfloat16."""

import jax
import numpy as np
from common import parser, report

from teachers import teacher_config
from teachers.crl.iteration import init_training, make_iteration
from teachers.crl.networks import teacher_networks
from teachers.evaluate import player
from teachers.measures import measure_outcomes
from teachers.simulation.rollout import evaluation_starts
from teachers.tasks.reacher import Reacher
from teachers.tasks.registry import TASKS


class Unscaled(Reacher):
    """The reacher, whose networks read its fields as they are."""

    name = "reacher_unscaled"
    observation = tuple(field._replace(scale=1.0) for field in Reacher.observation)
    goal = tuple(field._replace(scale=1.0) for field in Reacher.goal)


TASKS[Unscaled.name] = Unscaled
VARIANTS = {
    "default": ("reacher", {}),
    "inputs not scaled": ("reacher_unscaled", {}),
    "initial temperature 1.0": ("reacher", {"learning.initial_temperature": 1.0}),
    "products in bfloat16": ("reacher", {"learning.precision": "bfloat16"}),
}


def train(task: str, overrides: dict, seed: int, marks: int = 4) -> list[float]:
    """Success at end over 256 episodes after each quarter of the run."""
    config = teacher_config(task, overrides={**overrides, "seed": seed})
    state = jax.jit(init_training, static_argnums=0)(config)
    iterate = jax.jit(make_iteration(config), donate_argnums=0)
    networks = teacher_networks(config)
    play, starts = player(networks), evaluation_starts(networks.task, 256, seed)
    successes = []
    for i in range(1, config.iterations + 1):
        state, _ = iterate(state)
        if i % (config.iterations // marks) == 0:
            distance = np.concatenate(list(play(state.learner.params, starts)))
            successes.append(float(measure_outcomes(networks.task, distance).success_at_end.mean()))
    return successes


def main() -> None:
    options = parser(__doc__).parse_args()
    rows = []
    for name, (task, overrides) in VARIANTS.items():
        runs = np.array([train(task, overrides, seed) for seed in options.seeds])
        quarters = {
            f"success_at_{25 * (k + 1)}%": float(v) for k, v in enumerate(runs.mean(axis=0))
        }
        rows.append(
            {"variant": name, **quarters, "final_by_seed": np.round(runs[:, -1], 3).tolist()}
        )
    report(rows, options.json)


if __name__ == "__main__":
    main()
