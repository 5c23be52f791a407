"""Whether depth is used: what a gradient step does to each residual block, and how much each block does.

Quantiles over the blocks of a network stand in for its depth: a network whose lowest tenth of the blocks gets
no gradient, or adds nothing to the residual stream, is shallower than it looks.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from teachers.config import TeacherConfig
from teachers.crl import replay as buffer
from teachers.crl.iteration import TrainingState
from teachers.crl.learner import Metrics, make_gradients, make_optimizer
from teachers.crl.memory import needs_remat
from teachers.crl.networks import teacher_networks
from teachers.crl.parameters import Params
from teachers.runs.devices import shard_batch

QUANTILES = {"low": 0.1, "median": 0.5, "high": 0.9}


def make_diagnosis(config: TeacherConfig) -> Callable[[TrainingState], Metrics]:
    """A pure function from a training state to metrics, by one gradient step that is not taken.

    For each of actor, phi and psi, quantiles (`_low`, `_median`, `_high`) over its blocks of

    - `NETWORK_block_gradient`: the norm of the gradient;
    - `NETWORK_block_update`: the norm of the optimiser's update over that of the weights;
    - `NETWORK_block_share`: the norm of what a block adds to the residual stream, over the stream's after it;

    and `phi_rank`, `psi_rank`: the effective rank of a batch's embeddings.
    """
    networks = teacher_networks(config, training=True, remat=needs_remat(config))
    learning = config.learning
    gradients = make_gradients(networks, learning)
    optimizer = make_optimizer(learning)

    def diagnose(state: TrainingState) -> Metrics:
        learner = state.learner
        sample_key, action_key = jax.random.split(state.key)
        index = buffer.index(state.replay)
        batch = buffer.sample(state.replay, index, sample_key, learning.batch, learning.discount)
        batch = shard_batch(batch)
        grads, _ = gradients(learner, batch, action_key)
        actor_updates, _ = optimizer.update(grads.actor, learner.optimizers["actor"])
        critic_updates, _ = optimizer.update(grads.critic, learner.optimizers["critic"])

        goal = networks.task.achieved_goal(batch.future)
        seen = networks.observed(learner.params, batch.observation, goal, batch.action)
        metrics = {f"{name}_rank": effective_rank(seen[name][0]) for name in ("phi", "psi")}
        parts = {
            "actor": (grads.actor, actor_updates),
            "phi": (grads.critic["phi"], critic_updates["phi"]),
            "psi": (grads.critic["psi"], critic_updates["psi"]),
        }
        for name, (gradient, update) in parts.items():
            weights = _block_norms(learner.params[name])
            metrics |= _quantiles(f"{name}_block_gradient", _block_norms(gradient))
            metrics |= _quantiles(f"{name}_block_update", _block_norms(update) / weights)
            metrics |= _quantiles(f"{name}_block_share", seen[name][1])
        return metrics

    return diagnose


def effective_rank(features: Float[Array, "batch embed"]) -> Float[Array, ""]:
    """Exp of the entropy of the normalised singular values: 1 to the number of columns.

    Roy & Vetterli, "The effective rank" (EUSIPCO 2007), of the features less their mean.
    """
    singular = jnp.linalg.svd(features - features.mean(0), compute_uv=False)
    share = singular / jnp.maximum(singular.sum(), 1e-12)
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12))))


def _block_norms(network: Params) -> Float[Array, "blocks"]:
    leaves = jax.tree.leaves(network["params"]["blocks"])
    return jnp.sqrt(sum((leaf.reshape(leaf.shape[0], -1) ** 2).sum(-1) for leaf in leaves))


def _quantiles(name: str, values: Float[Array, "blocks"]) -> Metrics:
    return {f"{name}_{label}": jnp.quantile(values, q) for label, q in QUANTILES.items()}
