"""One gradient step of contrastive RL, on actor, critic and temperature, from state to state."""

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


class Learner(NamedTuple):
    """What gradient steps change."""

    params: Params  # {"actor": ..., "phi": ..., "psi": ...}
    log_temperature: Float[Array, ""]
    optimizers: Any  # optax states: {"actor": ..., "critic": ..., "temperature": ...}
    skipped: Int[Array, ""]  # gradient steps that were not applied, of all


class Gradients(NamedTuple):
    """Of one gradient step."""

    actor: Params
    critic: Params  # {"phi": ..., "psi": ...}
    temperature: Float[Array, ""]


def make_optimizer(learning: LearningConfig) -> optax.GradientTransformation:
    """Adam, the same for actor, critic and temperature."""
    return optax.adam(learning.learning_rate)


def init_learner(networks: Networks, learning: LearningConfig, key: Key[Array, ""]) -> Learner:
    """Fresh networks, and optimisers that have seen nothing."""
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
    )


def critic_objective(
    networks: Networks, learning: LearningConfig, critic: Params, batch: Batch
) -> tuple[Float[Array, ""], tuple[Float[Array, "batch embed"], Metrics]]:
    """InfoNCE of a batch; beside it the goals' embeddings, which the actor's loss needs too, and metrics."""
    goals = networks.psi(critic, networks.task.achieved_goal(batch.future))
    logits = pairwise_logits(networks.phi(critic, batch.observation, batch.action), goals)
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
    actor: Params,
    critic: Params,
    goals: Float[Array, "batch embed"],
    temperature: Float[Array, ""],
    batch: Batch,
    key: Key[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, "batch"]]:
    """The actor's loss for a critic and its embeddings `goals` of the batch's goals; and log probabilities."""
    goal = networks.task.achieved_goal(batch.future)
    mean, log_std = networks.actor({"actor": actor}, batch.observation, goal)
    action, log_probs = sample_action(key, mean, log_std)
    values = similarity(networks.phi(critic, batch.observation, action), goals)
    return actor_loss(values, log_probs, temperature), log_probs


def make_gradients(
    networks: Networks, learning: LearningConfig
) -> Callable[[Learner, Batch, Key[Array, ""]], tuple[Gradients, Metrics]]:
    """The gradients of all three losses on the same batch and the same, old, parameters."""
    target_entropy = learning.target_entropy * networks.task.action_size

    def gradients(learner: Learner, batch: Batch, key: Key[Array, ""]) -> tuple[Gradients, Metrics]:
        actor = learner.params["actor"]
        critic = {"phi": learner.params["phi"], "psi": learner.params["psi"]}
        temperature = jnp.exp(learner.log_temperature)
        # The actor's loss takes psi of the goals from here: one of its two forward passes is saved.
        critic_grads, (goals, metrics) = jax.grad(
            lambda critic: critic_objective(networks, learning, critic, batch), has_aux=True
        )(critic)
        (loss, log_probs), actor_grads = jax.value_and_grad(
            lambda actor: actor_objective(networks, actor, critic, goals, temperature, batch, key),
            has_aux=True,
        )(actor)
        temperature_grad = jax.grad(temperature_loss)(
            learner.log_temperature, log_probs, target_entropy
        )
        return Gradients(actor_grads, critic_grads, temperature_grad), metrics | {
            "actor_loss": loss,
            "entropy": -jnp.mean(log_probs),
            "temperature": temperature,
        }

    return gradients


def make_update(
    networks: Networks, learning: LearningConfig
) -> Callable[[Learner, Batch, Key[Array, ""]], tuple[Learner, Metrics]]:
    """One gradient step, `(learner, batch, key) -> (learner, metrics)`: a pure function.

    A step whose gradients are not all finite is not applied: its metrics are NaN, and `skipped_updates` is 1.

    Args:
        networks: actor, phi and psi.
        learning: how they learn.
    """
    gradients = make_gradients(networks, learning)
    adam = make_optimizer(learning)

    def update(learner: Learner, batch: Batch, key: Key[Array, ""]) -> tuple[Learner, Metrics]:
        grads, metrics = gradients(learner, batch, key)
        actor = learner.params["actor"]
        critic = {"phi": learner.params["phi"], "psi": learner.params["psi"]}
        states = learner.optimizers
        # A loss that is not finite has gradients that are not.
        norm = {"actor": optax.tree.norm(grads.actor), "critic": optax.tree.norm(grads.critic)}
        usable = jnp.isfinite(norm["actor"] + norm["critic"] + grads.temperature)

        def step(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
            updates, after = adam.update(grads, state, params)
            fresh = optax.apply_updates(params, updates), after
            return jax.tree.map(
                lambda new, old: jnp.where(usable, new, old), fresh, (params, state)
            )

        actor, actor_state = step(grads.actor, states["actor"], actor)
        critic, critic_state = step(grads.critic, states["critic"], critic)
        log_temperature, temperature_state = step(
            grads.temperature, states["temperature"], learner.log_temperature
        )
        metrics |= {"actor_gradient_norm": norm["actor"], "critic_gradient_norm": norm["critic"]}
        metrics = {name: jnp.where(usable, value, jnp.nan) for name, value in metrics.items()}
        skipped = (~usable).astype(jnp.int32)
        return Learner(
            params={"actor": actor, **critic},
            log_temperature=log_temperature,
            optimizers={
                "actor": actor_state,
                "critic": critic_state,
                "temperature": temperature_state,
            },
            skipped=learner.skipped + skipped,
        ), metrics | {"skipped_updates": skipped}

    return update
