"""How well 2 x 64 units fit a teacher's policy on the states of one distillation, by optimiser and by weight of errors.

The error is that of the squashed mean; retention is that of the fitted policy on episodes of its own.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from common import parsed_with_teacher, parser, report

from distill import distill_config
from distill.iteration import BIAS_RATE, make_stages
from distill.retention import measure_retention
from distill.ring import Labelled
from students.config import saved_student_config
from students.networks import student_networks
from teachers import evaluate_agent
from teachers.agent import Agent

BATCH = 256
EPISODES = 512
STEPS = 12_500


def adam(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


def muon(rate: float, steps: int) -> optax.GradientTransformation:
    falling = optax.cosine_decay_schedule(rate, steps)
    return optax.contrib.muon(falling, adam_learning_rate=lambda step: BIAS_RATE * falling(step))


# Name: optimiser, its learning rate, gradient steps, and the power of 1 / standard deviation that weighs errors.
FITS: dict[str, tuple[Callable[..., optax.GradientTransformation], float, int, float]] = {
    "adam 0.002": (adam, 2e-3, STEPS, 0),
    "adam 0.005": (adam, 5e-3, STEPS, 0),
    "adam 0.002, 4 times the steps": (adam, 2e-3, 4 * STEPS, 0),
    "adam 0.002, 1 / variance": (adam, 2e-3, STEPS, 2),
    "muon 0.005": (muon, 5e-3, STEPS, 0),
    "muon 0.03": (muon, 3e-2, STEPS, 0),
    "muon 0.03, 4 times the steps": (muon, 3e-2, 4 * STEPS, 0),
    "muon 0.03, 1 / standard deviation": (muon, 3e-2, STEPS, 1),
    "muon 0.03, 1 / variance": (muon, 3e-2, STEPS, 2),
}


def visited(teacher: Agent) -> tuple[Agent, Labelled]:
    """A default student, and all that was labelled for it."""
    config = distill_config().for_teacher(teacher.metadata.metrics["steps"])
    networks = student_networks(teacher.task, config.student, teacher.config.embedding)
    stages = make_stages(config, teacher.networks, networks)
    collect, label, learn = (
        jax.jit(stage, donate_argnums=0)
        for stage in (stages.collect, stages.label, stages.learn[0])
    )
    state = jax.jit(stages.init)(jax.random.key(0))
    for _ in range(config.rounds):
        state, seen, _ = collect(state, teacher.params)
        state = label(state, teacher.params, seen)
        state, _ = learn(state, teacher.params)
    saved = saved_student_config(config.student, teacher.config.embedding)
    return Agent(networks, state.params, saved, teacher.metadata), state.ring.rows


def main() -> None:
    given, teacher = parsed_with_teacher(parser(__doc__))
    student, rows = visited(teacher)
    networks = student.networks
    held_out = jax.tree.map(lambda x: x[::20], rows)
    reference = evaluate_agent(teacher, EPISODES, 1000)

    def error(actor: Any, batch: Labelled) -> Any:
        mean, _ = networks.actor({"actor": actor}, batch.observation, batch.goal)
        return (jnp.tanh(mean) - jnp.tanh(batch.mean)) ** 2

    def fit(actor: Any, optimiser: optax.GradientTransformation, steps: int, power: float) -> Any:
        def loss(actor: Any, batch: Labelled) -> Any:
            weight = jnp.exp(-power * batch.log_std)
            return jnp.mean(weight / jnp.mean(weight) * error(actor, batch))

        def step(carry: Any, key: Any) -> Any:
            actor, state = carry
            at = jax.random.randint(key, (BATCH,), 0, len(rows.goal))
            at = jnp.where(at % 20 == 0, at + 1, at)  # not those held out
            batch = jax.tree.map(lambda x: x[at], rows)
            update, state = optimiser.update(jax.grad(loss)(actor, batch), state, actor)
            return (optax.apply_updates(actor, update), state), None

        keys = jax.random.split(jax.random.key(1), steps)
        return jax.lax.scan(step, (actor, optimiser.init(actor)), keys)[0][0]

    table = []
    for name, (make, rate, steps, power) in FITS.items():
        optimiser = make(rate, steps)
        fitted = jax.jit(partial(fit, optimiser=optimiser, steps=steps, power=power))
        for seed in given.seeds:
            actor = fitted(networks.init(jax.random.key(seed))["actor"])
            played = replace(student, params={**student.params, "actor": actor})
            measured = measure_retention(played, reference, 1000)
            table.append(
                {
                    "fit": name,
                    "seed": seed,
                    "error": float(jnp.mean(error(actor, held_out))),
                    "retention": measured["retention"],
                }
            )
    report(table, given.json)


if __name__ == "__main__":
    main()
