"""The losses of contrastive RL: pure functions of arrays."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def info_nce(
    logits: Float[Array, "batch batch"], logsumexp_penalty: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the critic's loss, by which every state-action pair tells its own goal from the others of the batch.

    Wang et al. (arXiv 2503.14858), section 3: the mean over rows of -(f_ii - log sum_j exp f_ij), plus
    `logsumexp_penalty` times the mean of (log sum_j exp f_ij)^2 as in Eysenbach et al.
    (arXiv 2206.07568), which prevents the logits from drifting.

    Args:
        logits: f(s_i, a_i, g_j), with the positives on the diagonal.
        logsumexp_penalty: weight of the penalty.

    Returns:
        The loss, and the contrastive accuracy: the share of rows whose largest logit is the positive one.
    """
    normaliser = jax.nn.logsumexp(logits, axis=1)
    loss = jnp.mean(normaliser - jnp.diagonal(logits))
    loss += logsumexp_penalty * jnp.mean(normaliser**2)
    correct = jnp.argmax(logits, axis=1) == jnp.arange(logits.shape[0])
    return loss, jnp.mean(correct)


def actor_loss(
    values: Float[Array, "batch"], log_probs: Float[Array, "batch"], temperature: Float[Array, ""]
) -> Float[Array, ""]:
    """Returns the mean of temperature x log pi(a | s, g) - f(s, a, g) over actions of the policy.

    Eysenbach et al. (arXiv 2206.07568), eq. 7, with the entropy term of SAC (arXiv 1812.05905, eq. 7).

    Args:
        values: f(s, a, g) of actions drawn from the policy.
        log_probs: log pi(a | s, g) of the same actions.
        temperature: weight of the entropy.
    """
    return jnp.mean(temperature * log_probs - values)


def temperature_loss(
    log_temperature: Float[Array, ""],
    log_probs: Float[Array, "batch"],
    target_entropy: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """Returns the temperature's loss: its gradient step raises the temperature while the entropy is below the target.

    SAC (arXiv 1812.05905), eq. 18. No gradient flows into the policy.

    Args:
        log_temperature: logarithm of the entropy's weight.
        log_probs: log pi(a | s, g) of actions drawn from the policy.
        target_entropy: in nats, for all action dimensions together.
    """
    excess = -jax.lax.stop_gradient(log_probs) - target_entropy
    return jnp.mean(jnp.exp(log_temperature) * excess)
