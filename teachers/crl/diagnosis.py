"""Whether depth is used: how much a gradient step changes each residual block, and how much each block adds.

Depth is summarised by quantiles over the blocks of a network. If the lowest tenth of the blocks gets no gradient, or adds
nothing to the residual stream, the network is shallower than its configuration says.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from teachers.config import TeacherConfig
from teachers.crl.iteration import TrainingState
from teachers.crl.learner import Metrics, make_gradients, make_optimizer
from teachers.crl.networks import Networks
from teachers.crl.parameters import Params
from teachers.crl.replay import index_episodes, sample_pairs
from teachers.runs.devices import shard_batch
from teachers.runs.streams import Stream, stream_key

QUANTILES = {"low": 0.1, "median": 0.5, "high": 0.9}


def make_diagnosis(config: TeacherConfig, networks: Networks) -> Callable[[TrainingState], Metrics]:
    """Returns a pure function from a training state to metrics of one gradient step, which is not applied.

    For each of actor, phi and psi, the metrics are quantiles (`_low`, `_median`, `_high`) over its blocks of

    - `NETWORK_block_gradient`: the norm of the gradient;
    - `NETWORK_block_update`: the norm of the optimiser's update over that of the weights;
    - `NETWORK_block_share`: the norm of what a block adds to the residual stream, over that of the stream after it;

    and `phi_rank`, `psi_rank`: the effective rank of a batch's embeddings.

    Args:
        config: the run's configuration.
        networks: the networks in training, which must consist of residual blocks.
    """
    learning = config.learning
    gradients = make_gradients(networks, learning)
    optimizer = make_optimizer(learning)

    def diagnose(state: TrainingState) -> Metrics:
        learner = state.learner
        sample_key, action_key = jax.random.split(stream_key(state.key, Stream.DIAGNOSIS))
        index = index_episodes(state.replay)
        batch = sample_pairs(state.replay, index, sample_key, learning.batch, learning.discount)
        batch = shard_batch(batch)
        grads, _ = gradients(learner, batch, action_key)
        actor_updates, _ = optimizer.update(grads.actor, learner.optimizers["actor"])
        critic_updates, _ = optimizer.update(grads.critic, learner.optimizers["critic"])

        goal = networks.task.achieved_goal(batch.future)
        blocks = networks.block_outputs(learner.params, batch.observation, goal, batch.action)
        metrics = {f"{name}_rank": effective_rank(blocks[name][0]) for name in ("phi", "psi")}
        steps = {
            "actor": (grads.actor, actor_updates),
            "phi": (grads.critic["phi"], critic_updates["phi"]),
            "psi": (grads.critic["psi"], critic_updates["psi"]),
        }
        for name, (gradient, update) in steps.items():
            weights = _block_norms(learner.params[name])
            metrics |= _quantiles(f"{name}_block_gradient", _block_norms(gradient))
            metrics |= _quantiles(f"{name}_block_update", _block_norms(update) / weights)
            metrics |= _quantiles(f"{name}_block_share", blocks[name][1])
        return metrics

    return diagnose


def effective_rank(features: Float[Array, "batch embed"]) -> Float[Array, ""]:
    """Returns the exponential of the entropy of the normalised singular values: from 1 to the number of columns.

    Roy & Vetterli, "The effective rank" (EUSIPCO 2007), applied to the features minus their mean.
    """
    singular = jnp.linalg.svd(features - features.mean(0), compute_uv=False)
    share = singular / jnp.maximum(singular.sum(), 1e-12)
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12))))


def _block_norms(network: Params) -> Float[Array, "blocks"]:
    leaves = jax.tree.leaves(network["params"]["blocks"])
    return jnp.sqrt(sum((leaf.reshape(leaf.shape[0], -1) ** 2).sum(-1) for leaf in leaves))


def _quantiles(name: str, values: Float[Array, "blocks"]) -> Metrics:
    return {f"{name}_{label}": jnp.quantile(values, q) for label, q in QUANTILES.items()}
