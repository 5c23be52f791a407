"""The losses of contrastive RL: pure functions of arrays."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def info_nce(
    logits: Float[Array, "batch batch"], logsumexp_penalty: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The critic's loss: every state-action pair must tell its own goal from the others of the batch.

    Wang et al. (arXiv 2503.14858), section 3: the mean over rows of -(f_ii - log sum_j exp f_ij), plus
    `logsumexp_penalty` times the mean of (log sum_j exp f_ij)^2 as in Eysenbach et al.
    (arXiv 2206.07568), which keeps the logits from drifting.

    Args:
        logits: f(s_i, a_i, g_j), the positives on the diagonal.
        logsumexp_penalty: weight of the penalty.

    Returns:
        The loss, and the share of rows whose largest logit is the positive one.
    """
    normaliser = jax.nn.logsumexp(logits, axis=1)
    loss = jnp.mean(normaliser - jnp.diagonal(logits))
    loss += logsumexp_penalty * jnp.mean(normaliser**2)
    correct = jnp.argmax(logits, axis=1) == jnp.arange(logits.shape[0])
    return loss, jnp.mean(correct)


def actor_loss(
    values: Float[Array, "batch"], log_probs: Float[Array, "batch"], temperature: Float[Array, ""]
) -> Float[Array, ""]:
    """The mean of temperature x log pi(a | s, g) - f(s, a, g) over actions of the policy.

    Eysenbach et al. (arXiv 2206.07568), eq. 7, with the entropy term of SAC (arXiv 1812.05905, eq. 7).
    """
    return jnp.mean(temperature * log_probs - values)


def temperature_loss(
    log_temperature: Float[Array, ""], log_probs: Float[Array, "batch"], target_entropy: float
) -> Float[Array, ""]:
    """Raises the temperature while the policy's entropy is below `target_entropy` (nats), and lowers it above.

    SAC (arXiv 1812.05905), eq. 18; no gradient flows into the policy.
    """
    excess = -jax.lax.stop_gradient(log_probs) - target_entropy
    return jnp.mean(jnp.exp(log_temperature) * excess)
