"""One gradient step of contrastive RL on actor, critic and temperature, from state to state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from teachers.config import LearningConfig
from teachers.crl.losses import actor_loss, info_nce, temperature_loss
from teachers.crl.networks import Networks, pairwise_logits, sample_action, similarity
from teachers.crl.parameters import Params
from teachers.crl.replay import Batch

Metrics = dict[str, Array]
Progress = Float[Array, ""] | float


class Learner(NamedTuple):
    """What gradient steps change: parameters, temperature and optimiser states."""

    params: Params  # {"actor": ..., "phi": ..., "psi": ...}
    log_temperature: Float[Array, ""]
    optimizers: Any  # optax states: {"actor": ..., "critic": ..., "temperature": ...}
    skipped: Int[Array, ""]  # number of gradient steps that were not applied
    skipped_in_a_row: Int[Array, ""]  # those of them that came after the last one that was applied


class Gradients(NamedTuple):
    """The gradients of one gradient step."""

    actor: Params
    critic: Params  # {"phi": ..., "psi": ...}
    temperature: Float[Array, ""]


def make_optimizer(learning: LearningConfig) -> optax.GradientTransformation:
    """Returns the optimiser of actor, critic and temperature: Adam."""
    return optax.adam(learning.learning_rate)


def init_learner(networks: Networks, learning: LearningConfig, key: Key[Array, ""]) -> Learner:
    """Returns newly initialised networks and optimiser states."""
    params = networks.init(key)
    log_temperature = jnp.log(jnp.float32(learning.initial_temperature))
    optimizer = make_optimizer(learning)
    return Learner(
        params=params,
        log_temperature=log_temperature,
        optimizers={
            "actor": optimizer.init(params["actor"]),
            "critic": optimizer.init({"phi": params["phi"], "psi": params["psi"]}),
            "temperature": optimizer.init(log_temperature),
        },
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def critic_objective(
    networks: Networks, learning: LearningConfig, critic: Params, batch: Batch
) -> tuple[Float[Array, ""], tuple[Float[Array, "batch embed"], Metrics]]:
    """Returns the critic's loss, InfoNCE, of a batch.

    Args:
        networks: actor, phi and psi.
        learning: how they learn.
        critic: the parameters `{"phi": ..., "psi": ...}`.
        batch: state-action pairs, whose later observations contain the goals.

    Returns:
        The loss; and beside it the embeddings of the goals, which the actor's loss needs too, and metrics.
    """
    goals = networks.psi(critic, networks.task.achieved_goal(batch.future))
    phi = networks.phi(critic, batch.observation, batch.goal, batch.action)
    logits = pairwise_logits(phi, goals)
    loss, accuracy = info_nce(logits, learning.logsumexp_penalty)
    rows = logits.shape[0]
    positives = jnp.trace(logits)
    return loss, (
        goals,
        {
            "critic_loss": loss,
            "contrastive_accuracy": accuracy,
            "positive_logits": positives / rows,
            "negative_logits": (jnp.sum(logits) - positives) / (rows * (rows - 1)),
        },
    )


def actor_objective(
    networks: Networks,
    learning: LearningConfig,
    actor: Params,
    critic: Params,
    goals: Float[Array, "batch embed"],
    temperature: Float[Array, ""],
    batch: Batch,
    key: Key[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, "batch"]]:
    """Returns the actor's loss of a batch.

    The actor's goals are the hindsight goals of the same pairs, as in the code of Wang et al. For a share of the batch they
    are the goals of other pairs, which may lie anywhere that the replay has been; the code of Eysenbach et al. (arXiv
    2206.07568) has such goals too. A commanded critic, which reads the goal that the actor is given here, knows those best
    that were commanded in the rollouts: there this share are the pairs' own commanded goals.

    Args:
        networks: actor, phi and psi.
        learning: how they learn.
        actor: the actor's parameters.
        critic: the critic's parameters `{"phi": ..., "psi": ...}`.
        goals: the critic's embeddings of the batch's goals.
        temperature: weight of the entropy.
        batch: state-action pairs, whose later observations contain the goals.
        key: random key of the policy's actions.

    Returns:
        The loss, and the log probability density of each action.
    """
    goal = networks.task.achieved_goal(batch.future)
    if learning.random_goals:
        is_other = jnp.arange(len(goal))[:, None] < learning.random_goals * len(goal)
        if batch.goal is not None:
            other, others = batch.goal, networks.psi(critic, batch.goal)
        else:
            # Pairs are drawn independently, so that the next row's goal is a random one.
            other, others = (jnp.roll(x, -1, axis=0) for x in (goal, goals))
        goal, goals = jnp.where(is_other, other, goal), jnp.where(is_other, others, goals)
    mean, log_std = networks.actor({"actor": actor}, batch.observation, goal)
    action, log_probs = sample_action(key, mean, log_std)
    values = similarity(networks.phi(critic, batch.observation, goal, action), goals)
    return actor_loss(values, log_probs, temperature), log_probs


def target_entropy(learning: LearningConfig, progress: Progress) -> Progress:
    """Returns the target of the policy's entropy, in nats for each action dimension.

    Args:
        learning: says where it starts, and by how much it falls over the last quarter of the training.
        progress: share of the training's iterations before this one.
    """
    fallen = jnp.maximum(4.0 * progress - 3.0, 0.0)
    return learning.target_entropy - learning.entropy_fall * fallen


def learning_rate_share(learning: LearningConfig, progress: Progress) -> Progress:
    """Returns what is left of the learning rate, from 1 to 0.

    Args:
        learning: says by which share it falls over the last 40% of the training.
        progress: share of the training's iterations before this one.
    """
    return 1.0 - learning.rate_fall * jnp.maximum(2.5 * progress - 1.5, 0.0)


def make_gradients(
    networks: Networks, learning: LearningConfig
) -> Callable[..., tuple[Gradients, Metrics]]:
    """Returns a pure function `(learner, batch, key, progress) -> (gradients, metrics)`.

    It computes the gradients of the actor, critic and temperature losses on the same batch, all of them at the parameters
    before the gradient step. Its last argument, by default 0, is the share of the training's iterations before this one.
    """

    def gradients(
        learner: Learner, batch: Batch, key: Key[Array, ""], progress: Progress = 0.0
    ) -> tuple[Gradients, Metrics]:
        actor = learner.params["actor"]
        critic = {"phi": learner.params["phi"], "psi": learner.params["psi"]}
        temperature = jnp.exp(learner.log_temperature)
        # The actor's loss uses these embeddings of the goals, which saves one of its two forward passes.
        critic_grads, (goals, metrics) = jax.grad(
            lambda critic: critic_objective(networks, learning, critic, batch), has_aux=True
        )(critic)
        (loss, log_probs), actor_grads = jax.value_and_grad(
            lambda actor: actor_objective(
                networks, learning, actor, critic, goals, temperature, batch, key
            ),
            has_aux=True,
        )(actor)
        target = target_entropy(learning, progress) * networks.task.action_size
        temperature_grad = jax.grad(temperature_loss)(learner.log_temperature, log_probs, target)
        return Gradients(actor_grads, critic_grads, temperature_grad), metrics | {
            "actor_loss": loss,
            "entropy": -jnp.mean(log_probs),
            "temperature": temperature,
        }

    return gradients


def make_update(
    networks: Networks, learning: LearningConfig
) -> Callable[..., tuple[Learner, Metrics]]:
    """Returns a pure function `(learner, batch, key, progress) -> (learner, metrics)` that takes one gradient step.

    A step whose gradients are not all finite is not applied: its metrics are NaN, and `skipped_updates` is 1. The last
    argument, by default 0, is the share of the training's iterations before this one.

    Args:
        networks: actor, phi and psi.
        learning: how they learn.
    """
    gradients = make_gradients(networks, learning)
    adam = make_optimizer(learning)

    def update(
        learner: Learner, batch: Batch, key: Key[Array, ""], progress: Progress = 0.0
    ) -> tuple[Learner, Metrics]:
        grads, metrics = gradients(learner, batch, key, progress)
        actor = learner.params["actor"]
        critic = {"phi": learner.params["phi"], "psi": learner.params["psi"]}
        states = learner.optimizers
        # The losses need not be looked at: one that is not finite has gradients that are not finite.
        norm = {"actor": optax.tree.norm(grads.actor), "critic": optax.tree.norm(grads.critic)}
        is_finite = jnp.isfinite(norm["actor"] + norm["critic"] + grads.temperature)
        share = learning_rate_share(learning, progress) if learning.rate_fall else None

        def step(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
            updates, new_state = adam.update(grads, state, params)
            if share is not None:
                updates = optax.tree.scale(share, updates)
            stepped = optax.apply_updates(params, updates), new_state
            return jax.tree.map(
                lambda new, old: jnp.where(is_finite, new, old), stepped, (params, state)
            )

        actor, actor_state = step(grads.actor, states["actor"], actor)
        critic, critic_state = step(grads.critic, states["critic"], critic)
        log_temperature, temperature_state = step(
            grads.temperature, states["temperature"], learner.log_temperature
        )
        metrics |= {"actor_gradient_norm": norm["actor"], "critic_gradient_norm": norm["critic"]}
        metrics = {name: jnp.where(is_finite, value, jnp.nan) for name, value in metrics.items()}
        skipped = (~is_finite).astype(jnp.int32)
        return Learner(
            params={"actor": actor, **critic},
            log_temperature=log_temperature,
            optimizers={
                "actor": actor_state,
                "critic": critic_state,
                "temperature": temperature_state,
            },
            skipped=learner.skipped + skipped,
            skipped_in_a_row=jnp.where(is_finite, 0, learner.skipped_in_a_row + 1),
        ), metrics | {"skipped_updates": skipped}

    return update
