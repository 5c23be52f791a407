"""The training of a teacher: one jitted iteration from state to state, and the loop around it.

Contrastive RL (Eysenbach et al., arXiv 2206.07568) with deep residual networks (Wang et al.,
arXiv 2503.14858).
"""

import math
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from teachers import replay as buffer
from teachers.agent import Agent, teacher_networks
from teachers.checkpoint import CheckpointWriter, newest_step, read_training, require_kind
from teachers.config import TeacherConfig, stored_config
from teachers.evaluate import evaluation_starts, evaluator, summary
from teachers.losses import actor_loss, info_nce, temperature_loss
from teachers.memory import require_memory
from teachers.metadata import Metadata, library_versions, open_task
from teachers.networks import (
    Params,
    count_parameters,
    energy,
    pairwise_energy,
    sample_action,
)
from teachers.progress import Progress, silent
from teachers.rollout import reset, rollout
from teachers.runlog import RunLog, new_folder
from teachers.tasks import InputError, State, Task, get_task

Metrics = dict[str, Array]


class DivergedError(RuntimeError):
    """Training produced numbers that are not finite."""


class Learner(NamedTuple):
    """What gradient steps change."""

    params: Params  # {"actor": ..., "phi": ..., "psi": ...}
    log_temperature: Float[Array, ""]
    optimizers: Any  # optax states: {"actor": ..., "critic": ..., "temperature": ...}


class TrainingState(NamedTuple):
    """The whole state of a run: all that an iteration reads and writes."""

    learner: Learner
    environments: State
    replay: buffer.Replay
    key: Key[Array, ""]
    iteration: Int[Array, ""]


def init_training(config: TeacherConfig) -> TrainingState:
    """The state before the first iteration; everything random follows from `config.seed`."""
    task = get_task(config.task)
    key, params_key, reset_key = jax.random.split(jax.random.key(config.seed), 3)
    params = teacher_networks(config).init(params_key)
    log_temperature = jnp.log(jnp.float32(config.learning.initial_temperature))
    adam = optax.adam(config.learning.learning_rate)
    return TrainingState(
        learner=Learner(
            params=params,
            log_temperature=log_temperature,
            optimizers={
                "actor": adam.init(params["actor"]),
                "critic": adam.init({"phi": params["phi"], "psi": params["psi"]}),
                "temperature": adam.init(log_temperature),
            },
        ),
        environments=reset(task, reset_key, config.rollout.environments, "train"),
        replay=buffer.empty(
            config.replay_slots,
            config.rollout.environments,
            task.observation_size,
            task.action_size,
        ),
        key=key,
        iteration=jnp.zeros((), jnp.int32),
    )


def make_iteration(
    config: TeacherConfig,
) -> Callable[[TrainingState], tuple[TrainingState, Metrics]]:
    """One iteration, `state -> (state, metrics)`: roll out, store, and take all gradient steps.

    It is a pure function; `train_teacher` jits it with a donated state.
    """
    task = _simulated_task(config)
    networks = teacher_networks(config, task)
    learning = config.learning
    adam = optax.adam(learning.learning_rate)
    target_entropy = learning.target_entropy * task.action_size

    def critic_objective(critic: Params, batch: buffer.Batch) -> tuple[Array, Metrics]:
        logits = pairwise_energy(
            networks.phi(critic, batch.observation, batch.action),
            networks.psi(critic, task.achieved_goal(batch.future)),
        )
        loss, accuracy = info_nce(logits, learning.logsumexp_penalty)
        positives = jnp.trace(logits) / learning.batch
        negatives = (jnp.sum(logits) - jnp.trace(logits)) / (learning.batch * (learning.batch - 1))
        return loss, {
            "critic_loss": loss,
            "contrastive_accuracy": accuracy,
            "positive_logits": positives,
            "negative_logits": negatives,
        }

    def actor_objective(
        actor: Params, critic: Params, temperature: Array, batch: buffer.Batch, key: Array
    ) -> tuple[Array, Array]:
        goal = task.achieved_goal(batch.future)
        mean, log_std = networks.actor({"actor": actor}, batch.observation, goal)
        action, log_probs = sample_action(key, mean, log_std)
        values = energy(networks.phi(critic, batch.observation, action), networks.psi(critic, goal))
        return actor_loss(values, log_probs, temperature), log_probs

    def update(
        learner: Learner, keys: tuple[Array, Array], replay: buffer.Replay, ends: Array
    ) -> tuple[Learner, Metrics]:
        sample_key, action_key = keys
        batch = buffer.sample(replay, ends, sample_key, learning.batch, learning.discount)
        actor = learner.params["actor"]
        critic = {"phi": learner.params["phi"], "psi": learner.params["psi"]}
        temperature = jnp.exp(learner.log_temperature)

        critic_grads, metrics = jax.grad(critic_objective, has_aux=True)(critic, batch)
        (loss, log_probs), actor_grads = jax.value_and_grad(actor_objective, has_aux=True)(
            actor, critic, temperature, batch, action_key
        )
        temperature_grad = jax.grad(temperature_loss)(
            learner.log_temperature, log_probs, target_entropy
        )

        actor, actor_adam = _step(adam, actor_grads, learner.optimizers["actor"], actor)
        critic, critic_adam = _step(adam, critic_grads, learner.optimizers["critic"], critic)
        log_temperature, temperature_adam = _step(
            adam, temperature_grad, learner.optimizers["temperature"], learner.log_temperature
        )
        learner = Learner(
            params={"actor": actor, **critic},
            log_temperature=log_temperature,
            optimizers={
                "actor": actor_adam,
                "critic": critic_adam,
                "temperature": temperature_adam,
            },
        )
        return learner, metrics | {
            "actor_loss": loss,
            "entropy": -jnp.mean(log_probs),
            "temperature": temperature,
        }

    def iteration(state: TrainingState) -> tuple[TrainingState, Metrics]:
        key, rollout_key, sample_key, action_key = jax.random.split(state.key, 4)

        def act(key: Array, observation: Array, goal: Array) -> Array:
            return sample_action(key, *networks.actor(state.learner.params, observation, goal))[0]

        environments, trajectory = rollout(
            task, act, state.environments, rollout_key, config.rollout.steps, "train"
        )
        replay = buffer.insert(state.replay, trajectory)
        ends = buffer.episode_ends(replay)
        learner, metrics = jax.lax.scan(
            lambda learner, keys: update(learner, keys, replay, ends),
            state.learner,
            (
                jax.random.split(sample_key, learning.updates),
                jax.random.split(action_key, learning.updates),
            ),
        )
        metrics = {name: jnp.mean(values) for name, values in metrics.items()}
        metrics["rollout_time_at_goal"] = jnp.mean(trajectory.distance < task.success_radius)
        return TrainingState(learner, environments, replay, key, state.iteration + 1), metrics

    return iteration


def train_teacher(
    config: TeacherConfig, out: Path, *, resume: bool = False, progress: Progress = silent
) -> Agent:
    """Trains a teacher and leaves checkpoints, metrics and events in `out`.

    Args:
        config: what to train, and for how long; see `teacher_config`.
        out: the run's folder: new, or with `resume` one that holds a run of the same configuration.
        resume: go on from the newest checkpoint; `config.steps` may have been raised since.
        progress: called after each iteration.

    Returns:
        The trained teacher, as `load_teacher(out)` opens it.

    Raises:
        InputError: `out` is taken, cannot be resumed with this configuration, or the run does not fit in memory.
        DivergedError: a loss is not finite; the checkpoints written before are intact.
    """
    out = Path(out)
    _simulated_task(config)  # refused before anything is written
    _require_memory(config)
    if resume:
        state = _resumed(config, out)
        figures: dict[str, Any] = dict(require_kind(out, "teacher").metrics)
        return _train(config, out, state, figures, progress)
    with new_folder(out):
        state = jax.jit(init_training, static_argnums=0)(config)
        return _train(config, out, state, {}, progress)


def _train(
    config: TeacherConfig,
    out: Path,
    state: TrainingState,
    figures: dict[str, Any],
    progress: Progress,
) -> Agent:
    """Trains on from `state`; `figures` are the newest measured so far."""
    done = int(state.iteration)
    networks = teacher_networks(config)
    simulated = teacher_networks(config, _simulated_task(config))
    iterate = jax.jit(make_iteration(config), donate_argnums=0)
    play = evaluator(simulated)
    starts = evaluation_starts(networks.task, config.logging.episodes, config.seed)
    per_iteration = config.steps_per_iteration
    begun = time.monotonic()
    with (
        RunLog(out, config, done * per_iteration if done else None) as log,
        CheckpointWriter(out, config.logging.keep_checkpoints) as checkpoints,
    ):
        for i in range(done + 1, config.iterations + 1):
            last = i == config.iterations
            state, metrics = iterate(state)
            row = {name: float(value) for name, value in jax.device_get(metrics).items()}
            _require_finite(row, i * per_iteration)
            if last or i % config.logging.evaluate_every == 0:
                row |= summary(play(state.learner.params, starts))
            row["seconds"] = round(time.monotonic() - begun, 3)
            log.write(i * per_iteration, row)
            figures |= row
            if last or i % config.logging.checkpoint_every == 0:
                metadata = describe(config, state, figures)
                checkpoints.save(i * per_iteration, metadata, state.learner.params, state)
            progress(i * per_iteration, config.iterations * per_iteration, figures)
    return Agent(networks, state.learner.params, describe(config, state, figures))


@lru_cache(maxsize=4)
def _simulated_task(config: TeacherConfig) -> Task:
    # Evaluations play as many episodes at once.
    most = max(config.rollout.environments, config.logging.episodes)
    return get_task(config.task).simulated_by(config.rollout.physics, most)


def _require_finite(row: dict[str, float], step: int) -> None:
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        raise DivergedError(
            f"training diverged: {bad[0]} is {row[bad[0]]} at step {step:,}; earlier checkpoints are intact; "
            "lower learning.learning_rate or depth"
        )


def describe(config: TeacherConfig, state: TrainingState, figures: dict[str, Any]) -> Metadata:
    """The metadata of a teacher at this point of its training."""
    task = get_task(config.task)
    return Metadata(
        kind="teacher",
        task=task.name,
        task_source=task.source,
        sizes=task.sizes,
        networks={
            name: {
                **getattr(config, name).model_dump(),
                "parameters": count_parameters(state.learner.params[name]),
            }
            for name in ("actor", "phi", "psi")
        },
        config=config.model_dump(),
        metrics={**figures, "steps": int(state.iteration) * config.steps_per_iteration},
        lineage={},
        versions=library_versions(),
    )


def _require_memory(config: TeacherConfig) -> None:
    state = jax.eval_shape(lambda: init_training(config))
    units = sum(n.depth * n.width for n in (config.actor, config.phi, config.psi))
    batch = config.learning.batch
    # Of one gradient step, in numbers: the logits with their gradient, and the activations.
    scratch = 2 * batch**2 + 2 * batch * units
    require_memory(
        (state, state.learner.params),  # the parameters once more for their gradients
        4 * scratch,
        "rollout.environments, rollout.replay_steps, learning.batch, depth or width",
    )


def _resumed(config: TeacherConfig, out: Path) -> TrainingState:
    metadata = require_kind(out, "teacher")
    open_task(metadata, get_task(config.task), str(out))
    saved = stored_config(TeacherConfig, metadata.config, str(out))
    # How long to train, what to log, what simulates and where the task's file lies may change; what is trained may not.
    free = {
        "steps": config.steps,
        "logging": config.logging,
        "task": config.task,
        "rollout": saved.rollout.model_copy(update={"physics": config.rollout.physics}),
    }
    if saved.model_copy(update=free) != config:
        raise InputError(
            f"{out} was trained with another configuration; repeat its options (see {out / 'config.toml'}) "
            "or choose another --out"
        )
    done = newest_step(out)
    if done >= config.steps:
        raise InputError(f"{out} already has {done} steps; ask for more with --steps")
    restored: TrainingState = read_training(out, jax.eval_shape(lambda: init_training(config)))
    return restored


def _step(
    optimizer: optax.GradientTransformation, grads: Params, state: Any, params: Params
) -> tuple[Params, Any]:
    updates, state = optimizer.update(grads, state)
    return optax.apply_updates(params, updates), state
