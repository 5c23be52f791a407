"""One round of distillation as pure functions from state to state: collect, label, learn.

DAgger (Ross et al., arXiv 1011.0686): the states are those that the student meets, the labels the teacher's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float, Int, Key

from distill import ring as buffer
from distill.config import DistillConfig
from distill.critic_losses import CRITIC_LOSSES, Embeddings, fit_basis
from distill.policy_losses import POLICY_LOSSES, Gaussian
from distill.schedules import teacher_share
from students.networks import ENCODER
from teachers.crl.networks import Networks, similarity
from teachers.crl.parameters import Params
from teachers.runs.devices import replicated, shard_batch, sharded
from teachers.simulation.rollout import reset, rollout
from teachers.tasks import Disturbances, State

Metrics = dict[str, Array]

POLICY = ("actor", ENCODER)
CRITIC = ("phi", "psi")
BIAS_RATE = 0.1  # Adam's learning rate as a share of Muon's


class DistillState(NamedTuple):
    """All that a round reads and writes, but for the teacher's parameters."""

    params: Params
    optimizers: tuple[Any, ...]  # of each phase: what it trains has one optimiser
    environments: State
    ring: buffer.Ring
    basis: Float[Array, "teacher_embed embed"]
    key: Key[Array, ""]
    round: Int[Array, ""]


class Visited(NamedTuple):
    """What a rollout has seen, a row for each control step of each environment."""

    observation: Float[Array, "rows obs"]
    goal: Float[Array, "rows goal"]
    action: Float[Array, "rows act"]


class Stages(NamedTuple):
    """A distillation's pure functions."""

    init: Callable[[Key[Array, ""]], DistillState]
    start: Callable[[Params], tuple[Any, ...]]  # optimisers that have seen nothing
    collect: Callable[[DistillState, Params], tuple[DistillState, Visited, Metrics]]
    label: Callable[[DistillState, Params, Visited], DistillState]
    learn: tuple[Callable[[DistillState, Params], tuple[DistillState, Metrics]], ...]  # by phase


def phases(config: DistillConfig) -> tuple[tuple[str, ...], ...]:
    """Which networks are trained together: all of them, or first those of the policy."""
    joint = config.learning.order == "joint"
    return (POLICY + CRITIC,) if joint else (POLICY, CRITIC)


def make_stages(config: DistillConfig, teacher: Networks, student: Networks) -> Stages:
    """The functions of a distillation.

    `collect` rolls out `collect.steps` control steps; `label` has the teacher label every visited state, once for each of
    `collect.goals_per_state`, and stores them in the ring; `learn` takes `learning.gradient_steps` gradient steps, if wanted
    with the teacher's critic in the last of them. Of a sequential distillation, the second phase is `learn` alone.

    Args:
        config: of the distillation.
        teacher: its networks.
        student: the networks to train.
    """
    collecting, learning = config.collect, config.learning
    task = teacher.task.simulated_by(collecting.physics, collecting.environments)
    noise = collecting.disturbances.noise
    if collecting.disturbances != Disturbances():
        task = task.disturbed_by(collecting.disturbances)
    optimiser = make_optimiser(config)
    policy_loss = POLICY_LOSSES[config.policy.loss]
    critic_loss = CRITIC_LOSSES[config.critic.loss]

    def labelled(params: Params, visited: Visited, key: Key[Array, ""]) -> buffer.Labelled:
        count = collecting.goals_per_state
        goals, chosen = with_goals(visited, key, count, task.achieved_goal)
        goal, observation = goals[chosen], jnp.tile(visited.observation, (count, 1))
        mean, log_std = in_parts(partial(teacher.actor, params), observation, goal)
        # For further goals the teacher did not act. The critic is asked about what it would have done.
        instead = jnp.tanh(mean[len(visited.action) :])
        action = jnp.concatenate([visited.action, instead])
        return buffer.Labelled(
            observation=observation,
            goal=goal,
            action=action,
            mean=mean,
            log_std=log_std,
            phi=in_parts(partial(teacher.phi, params), observation, action),
            psi=in_parts(partial(teacher.psi, params), goals)[chosen],  # each goal once
        )

    def in_parts(network: Callable[..., Any], *inputs: Array) -> Any:
        if len(inputs[0]) <= collecting.label_batch:
            return network(*inputs)
        return jax.lax.map(lambda row: network(*row), inputs, batch_size=collecting.label_batch)

    def start(params: Params) -> tuple[Any, ...]:
        return tuple(optimiser.init(_part(params, phase)) for phase in phases(config))

    def init(key: Key[Array, ""]) -> DistillState:
        key, params_key, reset_key = jax.random.split(key, 3)
        params = student.init(params_key)
        one = Visited(*(jnp.zeros((1, n)) for n in task.sizes.values()))
        row = jax.eval_shape(labelled, teacher.shapes, one, key)
        embedding = jax.eval_shape(student.psi, params, one.goal).shape[-1]
        return DistillState(
            params=params,
            optimizers=start(params),
            environments=reset(task, reset_key, collecting.environments, "train"),
            ring=buffer.empty(config.buffer_rows, row),
            basis=jnp.eye(row.phi.shape[-1], embedding),
            key=key,
            round=jnp.zeros((), jnp.int32),
        )

    def collect(
        state: DistillState, teacher_params: Params
    ) -> tuple[DistillState, Visited, Metrics]:
        key, who_key, goal_key, rollout_key = jax.random.split(state.key, 4)
        share = teacher_share(
            state.round, collecting.schedule, collecting.beta_decay * config.rounds
        )
        # In each environment one of the two acts for the whole round.
        by_teacher = jax.random.uniform(who_key, (collecting.environments, 1)) < share

        def act(keys: Array, observation: Array, goal: Array, by_teacher: Array) -> Array:
            own = student.policy(state.params, observation, goal)
            action = jax.lax.cond(
                share > 0,
                lambda: jnp.where(
                    by_teacher, teacher.policy(teacher_params, observation, goal), own
                ),
                lambda: own,
            )
            noise = jax.vmap(lambda key: jax.random.normal(key, action.shape[1:]))(keys)
            return jnp.clip(action + collecting.noise * noise, -1.0, 1.0)

        environments = state.environments._replace(
            goal=relabelled(state, goal_key, config, task.achieved_goal)
        )
        environments, seen = rollout(
            task, act, environments, rollout_key, collecting.steps, "train", by_teacher
        )
        visited = Visited(
            *(
                shard_batch(x.reshape(-1, x.shape[-1]))
                for x in (seen.observation, seen.goal, seen.action)
            )
        )
        return (
            state._replace(environments=environments, key=key),
            visited,
            {
                "teacher_share": share,
                "rollout_time_at_goal": jnp.mean(seen.distance < task.success_radius),
            },
        )

    def label(state: DistillState, teacher_params: Params, visited: Visited) -> DistillState:
        key, goal_key = jax.random.split(state.key)
        labels = labelled(teacher_params, visited, goal_key)
        basis = state.basis
        if basis.shape[1] < basis.shape[0]:
            basis = jax.lax.cond(
                state.round == 0,
                lambda: fit_basis(labels.phi, labels.psi, basis.shape[1]),
                lambda: basis,
            )
        return state._replace(
            ring=buffer.insert(state.ring, labels),
            basis=basis,
            key=key,
            round=state.round + 1,
        )

    def objective(
        trained: Params,
        fixed: Params,
        batch: buffer.Labelled,
        basis: Array,
        slope: Callable[[buffer.Labelled, Array], Array],
        key: Key[Array, ""],
        phase: tuple[str, ...],
    ) -> tuple[Array, Metrics]:
        params = {**fixed, **trained}
        # The labels are those of the clean state.
        seen = batch.observation
        if noise > 0:
            seen += noise * task.observation_scale * jax.random.normal(key, seen.shape)
        total = jnp.zeros(())
        metrics: Metrics = {}
        if "actor" in phase:
            own = Gaussian(*student.actor(params, seen, batch.goal))
            loss = policy_loss(own, Gaussian(batch.mean, batch.log_std))
            error = jnp.mean(jnp.abs(jnp.tanh(own.mean) - jnp.tanh(batch.mean)))
            metrics |= {"policy_loss": loss, "action_error": error}
            total += loss
            if config.policy.value_weight > 0:
                some = jax.tree.map(lambda x: x[: config.policy.value_batch], batch)
                action = jnp.tanh(own.mean[: config.policy.value_batch])
                # The gradient of the mean value; the number itself does not matter.
                rise = slope(some, jax.lax.stop_gradient(action)) * action
                total -= config.policy.value_weight * jnp.sum(rise)
        if "phi" in phase:
            fitted = Embeddings(
                student.phi(params, seen, batch.action), student.psi(params, batch.goal)
            )
            target = Embeddings(batch.phi, batch.psi)
            loss = critic_loss(fitted, target, basis, config.critic.temperature)
            values = jnp.stack([similarity(*fitted), similarity(*target)])
            metrics |= {"critic_loss": loss, "value_correlation": jnp.corrcoef(values)[0, 1]}
            total += loss
        return total, metrics

    def make_learn(
        number: int, phase: tuple[str, ...]
    ) -> Callable[[DistillState, Params], tuple[DistillState, Metrics]]:
        def learn(state: DistillState, teacher_params: Params) -> tuple[DistillState, Metrics]:
            key, update_key = jax.random.split(state.key)
            fixed = {name: p for name, p in state.params.items() if name not in phase}
            steps = (state.round - 1) * config.gradient_steps + jnp.arange(config.gradient_steps)
            counts = (
                steps >= (1 - config.policy.value_share) * config.rounds * config.gradient_steps
            )

            def value(action: Array, rows: buffer.Labelled) -> Array:
                phi = teacher.phi(teacher_params, rows.observation, action)
                return jnp.mean(similarity(phi, rows.psi))

            def update(
                carry: tuple[Params, Any], now: tuple[Array, Array]
            ) -> tuple[tuple[Params, Any], Metrics]:
                (trained, optimizer), (key, counts) = carry, now

                def slope(rows: buffer.Labelled, action: Array) -> Array:
                    # Differentiated within the branch, so that the other one is free.
                    return jax.lax.cond(
                        counts, lambda: jax.grad(value)(action, rows), lambda: 0 * action
                    )

                batch_key, noise_key = jax.random.split(key)
                batch = buffer.sample(state.ring, batch_key, learning.batch, config.rows_per_round)
                grads, metrics = jax.grad(objective, has_aux=True)(
                    trained, fixed, batch, state.basis, slope, noise_key, phase
                )
                updates, optimizer = optimiser.update(grads, optimizer, trained)
                return (optax.apply_updates(trained, updates), optimizer), metrics

            (trained, optimizer), metrics = jax.lax.scan(
                update,
                (_part(state.params, phase), state.optimizers[number]),
                (jax.random.split(update_key, config.gradient_steps), counts),
            )
            optimizers = (*state.optimizers[:number], optimizer, *state.optimizers[number + 1 :])
            return (
                state._replace(params={**fixed, **trained}, optimizers=optimizers, key=key),
                {name: jnp.mean(values) for name, values in metrics.items()},
            )

        return learn

    return Stages(
        init,
        start,
        collect,
        label,
        tuple(make_learn(number, phase) for number, phase in enumerate(phases(config))),
    )


def make_optimiser(config: DistillConfig) -> optax.GradientTransformation:
    """What turns gradients into updates: Muon for the matrices of policy and shared encoder, Adam for all else.

    Muon: Jordan et al. 2024; Liu et al., arXiv 2502.16982. Two layers of 64 units fit a policy that pushes things as well in
    12,500 steps of it as in 200,000 of Adam; a critic gains less by it than a step of it costs. Biases and LayerNorms take
    Optax's companion to Muon, Adam with Nesterov's momentum.
    """
    steps = config.rounds * config.gradient_steps

    def falling(learning_rate: float) -> optax.Schedule:
        return optax.cosine_decay_schedule(learning_rate, steps)

    rate = config.policy.learning_rate
    parts = {
        "policy": optax.contrib.muon(falling(rate), adam_learning_rate=falling(BIAS_RATE * rate)),
        "critic": optax.adam(falling(config.critic.learning_rate)),
    }
    return optax.multi_transform(
        parts, lambda params: {name: "critic" if name in CRITIC else "policy" for name in params}
    )


def relabelled(
    state: DistillState,
    key: Key[Array, ""],
    config: DistillConfig,
    achieved_goal: Callable[[Array], Array],
) -> Float[Array, "env goal"]:
    """The goals of a round: in some environments, always the same, each episode has one that was reached earlier.

    So the student learns goals that the task does not draw.
    """
    collect, environments = config.collect, state.environments
    drawn = buffer.sample(state.ring, key, collect.environments, config.rows_per_round)
    chosen = jnp.arange(collect.environments) < round(
        collect.hindsight_share * collect.environments
    )
    begun = environments.steps <= collect.steps  # since the last round
    # In the first round the ring is empty.
    replaced = chosen & begun & (state.round > 0)
    return jnp.where(replaced[:, None], achieved_goal(drawn.observation), environments.goal)


def with_goals(
    visited: Visited,
    key: Key[Array, ""],
    goals: int,
    achieved_goal: Callable[[Array], Array],
) -> tuple[Float[Array, "some goal"], Int[Array, "pairs"]]:
    """The goals for which states are labelled: of each its own, then by turns one headed for and one reached in the round.

    Control steps are dear and labels are cheap: the teacher says of any goal what it would do.

    Args:
        visited: in a round.
        key: of the draw.
        goals: for each state.
        achieved_goal: of an observation.

    Returns:
        The goals, and which of them stands beside each state: first one for all states, then a further one.
    """
    rows = len(visited.observation)
    headed_for, reached = visited.goal, achieved_goal(visited.observation)
    of_either = headed_for if goals <= 2 else jnp.concatenate([headed_for, reached])
    keys = jax.random.split(key, goals)[1:]
    drawn = [
        number % 2 * rows + jax.random.randint(each, (rows,), 0, rows)
        for number, each in enumerate(keys)
    ]
    return of_either, jnp.concatenate([jnp.arange(rows), *drawn])


def placement(state: DistillState) -> Any:
    """On which devices each array of a state lies: environments are spread, all else is small and on each."""
    placed: Any = jax.tree.map(lambda _: replicated(), state)
    return placed._replace(environments=jax.tree.map(lambda _: sharded(), state.environments))


def _part(params: Params, names: tuple[str, ...]) -> Params:
    return {name: params[name] for name in names if name in params}
