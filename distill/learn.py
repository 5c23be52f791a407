"""The last stage of a round: gradient steps of the student on the labelled states."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Bool, Float, Int, Key

from distill.collect import reads_goal
from distill.config import DistillConfig
from distill.critic_losses import CRITIC_LOSSES, Embeddings
from distill.policy_losses import POLICY_LOSSES, Gaussian
from distill.ring import LabelledStates, sample_rows
from distill.state import DistillState, Metrics
from students.memory import ENCODER
from teachers.crl.networks import Networks, similarity
from teachers.crl.parameters import Params
from teachers.runs.streams import Stream, stream_key

LearnStage = Callable[[DistillState, Params], tuple[DistillState, Metrics]]

POLICY = ("actor", ENCODER)
CRITIC = ("phi", "psi")
BIAS_RATE = 0.1  # learning rate of biases, as a share of Muon's


def networks_by_phase(config: DistillConfig) -> tuple[tuple[str, ...], ...]:
    """Returns the networks that each phase of learning trains: one phase for all, or the policy's and then the critic's."""
    joint = config.learning.order == "joint"
    return (POLICY + CRITIC,) if joint else (POLICY, CRITIC)


def select_networks(params: Params, names: tuple[str, ...]) -> Params:
    """Returns the parameters of the named networks. A student without a shared encoder has none of that name."""
    return {name: params[name] for name in names if name in params}


def init_optimizers(config: DistillConfig, params: Params) -> tuple[Any, ...]:
    """Returns the initial state of the optimiser of each phase."""
    optimiser = make_optimiser(config)
    phases = networks_by_phase(config)
    return tuple(optimiser.init(select_networks(params, names)) for names in phases)


def make_learn_stage(
    config: DistillConfig, teacher: Networks, student: Networks, phase: int
) -> LearnStage:
    """Returns the stage that takes `learning.gradient_steps` gradient steps of one phase.

    Args:
        config: of the distillation.
        teacher: the teacher's networks.
        student: the networks to train.
        phase: index into `networks_by_phase`.

    Returns:
        `(state, teacher_params) -> (state, metrics)`, the metrics averaged over the gradient steps.
    """
    names = networks_by_phase(config)[phase]
    optimiser = make_optimiser(config)
    loss = partial(student_loss, config=config, student=student, names=names)

    def learn(state: DistillState, teacher_params: Params) -> tuple[DistillState, Metrics]:
        key = stream_key(state.key, Stream.NEXT)
        steps_key = stream_key(state.key, Stream.STUDENT_STEPS)
        fixed = {name: params for name, params in state.params.items() if name not in names}

        def take_step(
            carry: tuple[Params, Any], step: tuple[Array, Array]
        ) -> tuple[tuple[Params, Any], Metrics]:
            (trained, optimizer_state), (key, use_value) = carry, step
            batch_key, noise_key = jax.random.split(key)
            count = max(1, config.learning.batch // config.states_per_window)
            batch = sample_rows(state.ring, batch_key, count, config.windows_per_round)
            gradient = partial(value_gradient, teacher, teacher_params, use_value)
            grads, metrics = jax.grad(loss, has_aux=True)(
                trained, fixed, batch, state.basis, gradient, noise_key
            )
            updates, optimizer_state = optimiser.update(grads, optimizer_state, trained)
            return (optax.apply_updates(trained, updates), optimizer_state), metrics

        (trained, optimizer_state), metrics = jax.lax.scan(
            take_step,
            (select_networks(state.params, names), state.optimizer_states[phase]),
            (
                jax.random.split(steps_key, config.gradient_steps),
                uses_value(config, state.round),
            ),
        )
        optimizer_states = list(state.optimizer_states)
        optimizer_states[phase] = optimizer_state
        state = state._replace(
            params={**fixed, **trained}, optimizer_states=tuple(optimizer_states), key=key
        )
        return state, {name: jnp.mean(values) for name, values in metrics.items()}

    return learn


def student_loss(
    trained: Params,
    fixed: Params,
    batch: LabelledStates,
    basis: Float[Array, "teacher_embed embed"],
    gradient: Callable[[LabelledStates, Array], Array],
    key: Key[Array, ""],
    *,
    config: DistillConfig,
    student: Networks,
    names: tuple[str, ...],
) -> tuple[Float[Array, ""], Metrics]:
    """Returns the loss of the trained networks on a batch, and metrics.

    Args:
        trained: parameters of the networks that are trained.
        fixed: parameters of the student's other networks.
        batch: labelled states.
        basis: see `fit_basis`.
        gradient: of the teacher's mean value, by the action in some of the rows; see `value_gradient`.
        key: of the sensor noise, or of the states of each window.
        config: of the distillation.
        student: its networks.
        names: of the networks that are trained.
    """
    params = {**fixed, **trained}
    if batch.readings:
        seen, goal, batch = see_readings(params, batch, config, student, key)
    else:
        # The student reads noisy sensors, and the labels are those of the clean state.
        seen, goal = student.task.declared_part(batch.observation), batch.goal
        noise = config.collect.disturbances.noise
        if noise > 0:
            normal = jax.random.normal(key, seen.shape)
            seen += noise * student.task.noise_scale * normal
    loss = jnp.zeros(())
    metrics: Metrics = {}
    if "actor" in names:
        policy, policy_metrics = _policy_loss(params, seen, goal, batch, gradient, config, student)
        loss += policy
        metrics |= policy_metrics
    if "phi" in names:
        critic, critic_metrics = _critic_loss(params, seen, goal, batch, basis, config, student)
        loss += critic
        metrics |= critic_metrics
    return loss, metrics


def see_readings(
    params: Params,
    batch: LabelledStates,
    config: DistillConfig,
    student: Networks,
    key: Key[Array, ""],
) -> tuple[Float[Array, "rows seen"], Float[Array, "rows read_goal"], LabelledStates]:
    """Returns what a student sees where it reads sensors or remembers, its goals, and the batch with a row for each state.

    A window begins with the memory of the rollout, which is that of earlier parameters; the first states of a GRU's windows,
    in which it is refreshed, are left out.

    Args:
        params: of the student.
        batch: labelled states, a row for each window if the student remembers.
        config: of the distillation.
        student: its networks.
        key: of the states that are drawn from each window, with `learning.states_per_window`.
    """
    readings = batch.readings
    if config.window == 1:
        return readings.read, readings.goal, batch  # without memory it sees what it reads

    def step(memory: Array, now: tuple[Array, ...]) -> tuple[Array, Array]:
        read, is_first = now
        memory = jnp.where(is_first[:, None], 0.0, memory)
        seen, memory = student.remember(params, read, memory)
        return memory, seen

    by_time = tuple(jnp.swapaxes(part, 0, 1) for part in (readings.read, readings.is_first))
    _, seen = jax.lax.scan(step, readings.memory, by_time)
    left_out = config.learning.burn_in if config.student.memory == "gru" else 0
    first, states = min(left_out, config.window - 1), config.states_per_window
    windows = jnp.arange(len(readings.is_first))[:, None]
    times = jnp.arange(first, config.window)[None]  # all
    if states < config.window:
        times = jax.random.randint(key, (len(windows), states), first, config.window)

    def flatten(array: Array) -> Array:
        kept = array[windows, times]
        return kept.reshape(-1, *array.shape[2:])

    rows = jax.tree.map(flatten, batch._replace(readings=()))
    return flatten(jnp.swapaxes(seen, 0, 1)), flatten(readings.goal), rows


def _policy_loss(
    params: Params,
    seen: Array,
    goal: Array,
    batch: LabelledStates,
    gradient: Callable[[LabelledStates, Array], Array],
    config: DistillConfig,
    student: Networks,
) -> tuple[Array, Metrics]:
    policy = config.policy
    fitted = Gaussian(*student.actor(params, seen, goal))
    loss = POLICY_LOSSES[policy.loss](fitted, Gaussian(batch.mean, batch.log_std))
    error = jnp.mean(jnp.abs(jnp.tanh(fitted.mean) - jnp.tanh(batch.mean)))
    metrics = {"policy_loss": loss, "action_error": error}
    if policy.value_weight > 0:
        rows = jax.tree.map(lambda x: x[: policy.value_batch], batch)
        action = jnp.tanh(fitted.mean[: policy.value_batch])
        # The gradient of this term is that of the teacher's mean value. The value of the term has no meaning.
        linear = gradient(rows, jax.lax.stop_gradient(action)) * action
        loss -= policy.value_weight * jnp.sum(linear)
    return loss, metrics


def _critic_loss(
    params: Params,
    seen: Array,
    goal: Array,
    batch: LabelledStates,
    basis: Array,
    config: DistillConfig,
    student: Networks,
) -> tuple[Array, Metrics]:
    fitted = Embeddings(student.phi(params, seen, goal, batch.action), student.psi(params, goal))
    target = Embeddings(batch.phi, batch.psi)
    # A goal that a sensor sees differs from state to state, and has no embedding of its own to be fitted to.
    name = "value" if reads_goal(student.task) else config.critic.loss
    critic_loss = CRITIC_LOSSES[name]
    loss = critic_loss(fitted, target, basis, config.critic.temperature)
    values = jnp.stack([similarity(*fitted), similarity(*target)])
    return loss, {"critic_loss": loss, "value_correlation": jnp.corrcoef(values)[0, 1]}


def value_gradient(
    teacher: Networks,
    params: Params,
    use_value: Bool[Array, ""],
    rows: LabelledStates,
    action: Float[Array, "rows act"],
) -> Float[Array, "rows act"]:
    """Returns the gradient of the mean of the teacher's values f(s, a, g) by the actions, or zeros.

    Args:
        teacher: its networks.
        params: the teacher's.
        use_value: if false, the gradient is zero and the teacher's critic is not computed.
        rows: states and goals.
        action: in [-1, 1].
    """

    def mean_value(action: Array) -> Array:
        phi = teacher.phi(params, rows.observation, rows.goal, action)
        return jnp.mean(similarity(phi, rows.psi))

    # The gradient is taken inside the branch, so that the other branch costs nothing.
    return jax.lax.cond(use_value, lambda: jax.grad(mean_value)(action), lambda: 0 * action)


def uses_value(config: DistillConfig, round: Int[Array, ""]) -> Bool[Array, "steps"]:
    """Returns in which gradient steps of a round the teacher's critic counts: the last `policy.value_share` of all.

    Args:
        config: of the distillation.
        round: number of rounds labelled so far, this one included.
    """
    steps = (round - 1) * config.gradient_steps + jnp.arange(config.gradient_steps)
    return steps >= (1 - config.policy.value_share) * config.rounds * config.gradient_steps


def make_optimiser(config: DistillConfig) -> optax.GradientTransformation:
    """Returns the optimiser: Muon for the matrices of policy and shared encoder, Adam for all else.

    Muon: Jordan et al. 2024; Liu et al., arXiv 2502.16982. Two layers of 64 units fit a policy that pushes things as well in
    12,500 steps of it as in 200,000 of Adam; a critic gains less by it than a step of it costs. Biases and LayerNorms take
    Optax's companion to Muon, Adam with Nesterov's momentum.
    """
    steps = config.rounds * config.gradient_steps

    def cosine(learning_rate: float) -> optax.Schedule:
        return optax.cosine_decay_schedule(learning_rate, steps)

    rate = config.policy.learning_rate
    optimisers = {
        "policy": optax.contrib.muon(cosine(rate), adam_learning_rate=cosine(BIAS_RATE * rate)),
        "critic": optax.adam(cosine(config.critic.learning_rate)),
    }
    by_adam = (*CRITIC, ENCODER) if config.student.memory == "gru" else CRITIC
    return optax.multi_transform(
        optimisers,
        lambda params: {name: "critic" if name in by_adam else "policy" for name in params},
    )
