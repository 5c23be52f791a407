"""Trains JaxGCRL's contrastive RL on its reacher, to compare it with `crl-distill train-teacher`.

It runs in a Python environment of its own, which holds no crl-distill:

    python3.11 -m venv jaxgcrl-env
    jaxgcrl-env/bin/pip install jaxgcrl==0.2.5 brax==0.12.1 jax==0.4.25 jaxlib==0.4.25 "numpy<2" "scipy<1.13"
    jaxgcrl-env/bin/python benchmarks/compare_jaxgcrl.py --steps 1200000 --evaluations 12 --json FILE

All settings of JaxGCRL are its defaults. After each of its evaluations, this program plays episodes with its deterministic policy
and prints how many are within the environment's own threshold of the goal at their last step, and at any step; the time that
this takes is not counted.
"""

import argparse
import importlib.util
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

EPISODES = 256
ENVIRONMENT = "reacher"
EPISODE_STEPS = 100  # as in crl-distill's task


def import_jaxgcrl() -> list[Any]:
    """Returns JaxGCRL's modules `agents.crl.crl`, `utils.config` and `utils.env`; its packages import themselves in a circle if imported whole."""
    root = Path(importlib.util.find_spec("jaxgcrl").origin).parent  # type: ignore[union-attr, arg-type]
    for name, folder in (("jaxgcrl", root), ("jaxgcrl.utils", root / "utils")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    names = ("agents.crl.crl", "utils.config", "utils.env")
    return [importlib.import_module(f"jaxgcrl.{name}") for name in names]


def make_evaluation(crl: Any, env: Any, agent: Any) -> Any:
    """Returns a jitted function `(actor parameters, key) -> [time, env]` of whether each step ended at the goal."""
    import jax

    actor = crl.Actor(
        action_size=env.action_size,
        network_width=agent.h_dim,
        network_depth=agent.n_hidden,
        skip_connections=agent.skip_connections,
        use_relu=agent.use_relu,
    )

    def evaluate(params: Any, key: Any) -> Any:
        def step(state: Any, _: None) -> tuple[Any, Any]:
            mean, _log_std = actor.apply(params, state.obs)
            state = jax.vmap(env.step)(state, jax.numpy.tanh(mean))
            return state, state.metrics["success"]

        state = jax.vmap(env.reset)(jax.random.split(key, EPISODES))
        return jax.lax.scan(step, state, None, length=EPISODE_STEPS)[1]

    return jax.jit(evaluate)


def main() -> None:
    """Trains, and writes a row after each evaluation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, required=True, help="control steps of the training")
    parser.add_argument("--evaluations", type=int, required=True, help="number of evaluations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    start = time.perf_counter() - time.process_time()  # imports count too
    not_counted = {"seconds": 0.0, "processor_seconds": 0.0}

    crl, config, environments = import_jaxgcrl()
    import jax

    train, evaluation = (environments.create_env(ENVIRONMENT, None) for _ in range(2))
    agent = crl.CRL()
    evaluate = make_evaluation(crl, evaluation, agent)
    rows: list[dict[str, float]] = []

    def record(step: int, _metrics: Any, _make: Any, params: Any, *_: Any, **__: Any) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        row = {"step": step, "seconds": wall - start, "processor_seconds": processor}
        row = {name: value - not_counted.get(name, 0.0) for name, value in row.items()}
        at_goal = jax.device_get(evaluate(params, jax.random.key(step))) > 0
        row |= {
            "success_at_end": float(at_goal[-1].mean()),
            "success_any": float(at_goal.any(axis=0).mean()),
            "time_at_goal": float(at_goal.mean()),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        not_counted["seconds"] += time.perf_counter() - wall
        not_counted["processor_seconds"] += time.process_time() - processor

    # Its own evaluation needs a metric that its reacher does not have.
    crl.ActorEvaluator.run_evaluation = lambda _self, _state, metrics: metrics
    run = config.RunConfig(
        env=ENVIRONMENT,
        total_env_steps=options.steps,
        num_evals=options.evaluations,
        seed=options.seed,
        log_wandb=False,
        cuda=False,
    )
    agent.train_fn(run, train, evaluation, progress_fn=record)


if __name__ == "__main__":
    main()
