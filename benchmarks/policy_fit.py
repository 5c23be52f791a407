"""Measures how well a default student's policy fits its teacher's on the states of one distillation.

Two layers of 64 units are fitted by supervised learning with several optimisers, learning rates and weights of the
errors. The column `error` is the mean squared error of the squashed mean on held-out states; `retention` is that of the
fitted policy, which acts in new episodes. Run it with `python benchmarks/policy_fit.py RUN --seeds 0 1 --json FILE`,
where RUN is the folder of the teacher's training run.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from common import make_parser, parse_with_teacher, report

from distill import distill_config
from distill.iteration import make_stages
from distill.learn import BIAS_RATE
from distill.retention import measure_retention
from distill.ring import LabelledStates
from students.config import saved_student_config
from students.networks import student_networks
from teachers import evaluate_agent
from teachers.agent import Agent

BATCH = 256
EPISODES = 512
EVALUATION_SEED = 1000
STEPS = 12_500
HELD_OUT_EVERY = 20  # every so many-th state measures the error and is not fitted


def make_adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Returns Adam with a cosine decay over these steps."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))


def make_muon(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Returns Muon with a cosine decay over these steps, and Adam for the biases as in a distillation."""
    schedule = optax.cosine_decay_schedule(learning_rate, steps)
    return optax.contrib.muon(schedule, adam_learning_rate=lambda step: BIAS_RATE * schedule(step))


class Fit(NamedTuple):
    """The settings of a fit."""

    make_optimizer: Callable[[float, int], optax.GradientTransformation]
    learning_rate: float
    steps: int = STEPS
    weight_power: int = (
        0  # errors are weighted by this power of 1 / the teacher's standard deviation
    )


FITS = {
    "adam 0.002": Fit(make_adam, 2e-3),
    "adam 0.005": Fit(make_adam, 5e-3),
    "adam 0.002, 4 times the steps": Fit(make_adam, 2e-3, steps=4 * STEPS),
    "adam 0.002, 1 / variance": Fit(make_adam, 2e-3, weight_power=2),
    "muon 0.005": Fit(make_muon, 5e-3),
    "muon 0.03": Fit(make_muon, 3e-2),
    "muon 0.03, 4 times the steps": Fit(make_muon, 3e-2, steps=4 * STEPS),
    "muon 0.03, 1 / standard deviation": Fit(make_muon, 3e-2, weight_power=1),
    "muon 0.03, 1 / variance": Fit(make_muon, 3e-2, weight_power=2),
}


def collect_labelled_states(teacher: Agent) -> tuple[Agent, LabelledStates]:
    """Distills a default student; returns it and all states that the teacher labelled for it."""
    config = distill_config(task=teacher.task).for_teacher(teacher.metadata.metrics["steps"])
    networks = student_networks(
        teacher.task, config.student, teacher.config.embedding, teacher.config.commanded_critic
    )
    stages = make_stages(config, teacher.networks, networks)
    collect, label, learn = (
        jax.jit(stage, donate_argnums=0)
        for stage in (stages.collect, stages.label, stages.learn[0])
    )
    state = jax.jit(stages.init)(jax.random.key(0))
    for _ in range(config.rounds):
        state, visited, _ = collect(state, teacher.params)
        state = label(state, teacher.params, visited)
        state, _ = learn(state, teacher.params)
    saved = saved_student_config(config.student, teacher.config.embedding)
    return Agent(networks, state.params, saved, teacher.metadata), state.ring.rows


def squared_error(networks: Any, actor: Any, batch: LabelledStates) -> jax.Array:
    """Returns the squared errors of the squashed mean, `[batch, act]`."""
    mean, _ = networks.actor({"actor": actor}, batch.observation, batch.goal)
    return (jnp.tanh(mean) - jnp.tanh(batch.mean)) ** 2


def fit_actor(networks: Any, actor: Any, rows: LabelledStates, fit: Fit) -> Any:
    """Returns the actor's parameters after the gradient steps of this fit."""
    optimizer = fit.make_optimizer(fit.learning_rate, fit.steps)

    def loss(actor: Any, batch: LabelledStates) -> jax.Array:
        weight = jnp.exp(-fit.weight_power * batch.log_std)
        return jnp.mean(weight / jnp.mean(weight) * squared_error(networks, actor, batch))

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        actor, state = carry
        index = jax.random.randint(key, (BATCH,), 0, len(rows.goal))
        index = jnp.where(index % HELD_OUT_EVERY == 0, index + 1, index)
        batch = jax.tree.map(lambda x: x[index], rows)
        update, state = optimizer.update(jax.grad(loss)(actor, batch), state, actor)
        return (optax.apply_updates(actor, update), state), None

    keys = jax.random.split(jax.random.key(1), fit.steps)
    return jax.lax.scan(step, (actor, optimizer.init(actor)), keys)[0][0]


def main() -> None:
    """Fits the policy with all settings and seeds and prints the table."""
    options, teacher = parse_with_teacher(make_parser(__doc__, default_seeds=(0, 1, 2)))
    student, rows = collect_labelled_states(teacher)
    networks = student.networks
    held_out = jax.tree.map(lambda x: x[::HELD_OUT_EVERY], rows)
    reference = evaluate_agent(teacher, EPISODES, EVALUATION_SEED)
    table = []
    for name, fit in FITS.items():
        compiled_fit = jax.jit(partial(fit_actor, networks, rows=rows, fit=fit))
        for seed in options.seeds:
            actor = compiled_fit(networks.init(jax.random.key(seed))["actor"])
            policy = replace(student, params={**student.params, "actor": actor})
            table.append(
                {
                    "fit": name,
                    "seed": seed,
                    "error": float(jnp.mean(squared_error(networks, actor, held_out))),
                    "retention": measure_retention(policy, reference, EVALUATION_SEED)["retention"],
                }
            )
    report(table, options.json)


if __name__ == "__main__":
    main()
