"""Distillation: a shallow student learns a deep teacher's policy and critic on rollouts made on the device.

DAgger (Ross et al., arXiv 1011.0686): the states are those that the student meets, the labels the teacher's.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from etils import epath
from jaxtyping import Array, Float, Int, Key

from distill import buffer
from distill.config import DistillConfig
from distill.losses import critic_loss, policy_loss
from students.artefact import save_student
from students.networks import student_networks
from teachers.agent import Agent, Networks
from teachers.devices import constrain, require_even, spread, whole
from teachers.evaluate import evaluate_agent, retention, summary
from teachers.folders import new_folder
from teachers.memory import require_memory, total_bytes
from teachers.metadata import Metadata, digest, finite, library_versions
from teachers.networks import Params, count_parameters, energy
from teachers.progress import Progress, silent
from teachers.rollout import reset, rollout
from teachers.runlog import RunLog
from teachers.tasks import State

Metrics = dict[str, Array]


class DistillState(NamedTuple):
    """All that a round reads and writes, but for the teacher's parameters."""

    params: Params
    optimizer: Any
    environments: State
    ring: buffer.Ring
    key: Key[Array, ""]
    round: Int[Array, ""]


def make_round(
    config: DistillConfig, teacher: Networks, student: Networks
) -> tuple[
    Callable[[Key[Array, ""]], DistillState],
    Callable[[DistillState, Params], tuple[DistillState, Metrics]],
]:
    """The two pure functions of a distillation: its first state, and one round from state to state.

    A round rolls out `collect.steps` control steps, has the teacher label every visited state once, in one
    batch, stores them in the ring and takes `learning.updates` gradient steps.
    """
    collect, learning = config.collect, config.learning
    task = teacher.task.simulated_by(collect.physics, collect.environments)
    schedule = optax.cosine_decay_schedule(
        learning.learning_rate, collect.rounds * learning.updates
    )
    adam = optax.adam(schedule)

    def label(params: Params, observation: Array, goal: Array, action: Array) -> buffer.Labelled:
        mean, log_std = teacher.actor(params, observation, goal)
        phi, psi = teacher.phi(params, observation, action), teacher.psi(params, goal)
        return buffer.Labelled(observation, goal, action, mean, log_std, phi, psi)

    def init(key: Key[Array, ""]) -> DistillState:
        key, params_key, reset_key = jax.random.split(key, 3)
        params = student.init(params_key)
        row = jax.eval_shape(
            lambda: label(
                teacher.init(key),
                jnp.zeros((1, task.observation_size)),
                jnp.zeros((1, task.goal_size)),
                jnp.zeros((1, task.action_size)),
            )
        )
        return DistillState(
            params=params,
            optimizer=adam.init(params),
            environments=reset(task, reset_key, collect.environments, "train"),
            ring=buffer.empty(config.buffer_rows, row),
            key=key,
            round=jnp.zeros((), jnp.int32),
        )

    def objective(params: Params, batch: buffer.Labelled) -> tuple[Array, Metrics]:
        mean, log_std = student.actor(params, batch.observation, batch.goal)
        policy = policy_loss(mean, log_std, batch.mean, batch.log_std)
        phi = student.phi(params, batch.observation, batch.action)
        psi = student.psi(params, batch.goal)
        critic = critic_loss(phi, psi, batch.phi, batch.psi)
        values = jnp.stack([energy(phi, psi), energy(batch.phi, batch.psi)])
        action_error = jnp.mean(jnp.abs(jnp.tanh(mean) - jnp.tanh(batch.mean)))
        # The networks share no parameters, so the sum trains each on its own loss.
        return policy + critic, {
            "policy_loss": policy,
            "critic_loss": critic,
            "action_error": action_error,
            "value_correlation": jnp.corrcoef(values)[0, 1],
        }

    def one_round(state: DistillState, teacher_params: Params) -> tuple[DistillState, Metrics]:
        key, who_key, rollout_key, update_key = jax.random.split(state.key, 4)
        share = teacher_share(state.round, config)
        # In each environment one of the two acts for the whole round.
        by_teacher = jax.random.uniform(who_key, (collect.environments, 1)) < share

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
            return jnp.clip(action + collect.noise * noise, -1.0, 1.0)

        environments, visited = rollout(
            task, act, state.environments, rollout_key, collect.steps, "train", by_teacher
        )
        flat = jax.tree.map(
            lambda x: constrain(x.reshape(-1, x.shape[-1])),
            (visited.observation, visited.goal, visited.action),
        )
        ring = buffer.insert(state.ring, label(teacher_params, *flat))

        def update(carry: tuple[Params, Any], key: Array) -> tuple[tuple[Params, Any], Metrics]:
            params, optimizer = carry
            batch = buffer.sample(ring, key, learning.batch, config.states_per_round)
            grads, metrics = jax.grad(objective, has_aux=True)(params, batch)
            updates, optimizer = adam.update(grads, optimizer)
            return (optax.apply_updates(params, updates), optimizer), metrics

        (params, optimizer), metrics = jax.lax.scan(
            update,
            (state.params, state.optimizer),
            jax.random.split(update_key, learning.updates),
        )
        metrics = {name: jnp.mean(values) for name, values in metrics.items()}
        metrics["teacher_share"] = share
        metrics["rollout_time_at_goal"] = jnp.mean(visited.distance < task.success_radius)
        return DistillState(params, optimizer, environments, ring, key, state.round + 1), metrics

    return init, one_round


def placement(state: DistillState) -> Any:
    """On which devices each array of a state lies: environments are spread, all else is small and on each."""
    placed: Any = jax.tree.map(lambda _: whole(), state)
    return placed._replace(environments=jax.tree.map(lambda _: spread(), state.environments))


def teacher_share(round: Int[Array, ""], config: DistillConfig) -> Float[Array, ""]:
    """Share of the environments in which the teacher acts: 1 in the first round, falling linearly to 0.

    DAgger's beta_i (Ross et al., arXiv 1011.0686, algorithm 3.1).
    """
    rounds = max(1.0, config.collect.handover * config.collect.rounds)
    return jnp.clip(1.0 - round / rounds, 0.0, 1.0)


def distill_teacher(
    teacher: Agent, config: DistillConfig, out: epath.PathLike, *, progress: Progress = silent
) -> Agent:
    """Distills a teacher into a student, and leaves the student's checkpoint, metrics and events in `out`.

    Args:
        teacher: as `load_teacher` or `train_teacher` gives it.
        config: the student's shape and how it is taught; see `distill_config`.
        out: a new folder.
        progress: called after each round.

    Returns:
        The student, with its retention of the teacher among its metrics.

    Raises:
        InputError: `out` is taken, or the distillation does not fit in memory or cannot be dealt out to the devices.
    """
    out = epath.Path(out)
    embedding = teacher.metadata.config["embedding"]
    networks = student_networks(teacher.task, config.student, embedding)
    init, one_round = make_round(config, teacher.networks, networks)
    key = jax.random.key(config.seed)
    require_even(collect__environments=config.collect.environments)
    _require_memory(config, jax.eval_shape(init, key))
    with new_folder(out), RunLog(out, config) as log:
        place = placement(jax.eval_shape(init, key))
        state = jax.jit(init, out_shardings=place)(key)
        step = jax.jit(one_round, donate_argnums=0, out_shardings=(place, whole()))
        total = config.collect.rounds * config.states_per_round
        figures: dict[str, Any] = {}
        begun = time.monotonic()
        for i in range(1, config.collect.rounds + 1):
            state, metrics = step(state, teacher.params)
            figures = {name: float(value) for name, value in jax.device_get(metrics).items()}
            figures["seconds"] = round(time.monotonic() - begun, 3)
            if i < config.collect.rounds:
                log.write(i * config.states_per_round, figures)
            progress(i * config.states_per_round, total, figures)
        metadata = describe(config, state.params, teacher, {"steps": total, **figures})
        student = Agent(networks, state.params, metadata)
        measured = compare(student, teacher, config.episodes, config.seed)
        log.write(total, figures | measured)
        metadata = metadata.model_copy(update={"metrics": metadata.metrics | finite(measured)})
        student = Agent(networks, state.params, metadata)
        save_student(student, out)
    return student


def describe(
    config: DistillConfig, params: Params, teacher: Agent, metrics: dict[str, Any]
) -> Metadata:
    """The metadata of a student with these parameters."""
    shapes = {
        "actor": config.student.policy,
        "phi": config.student.critic,
        "psi": config.student.critic,
    }
    return Metadata(
        kind="student",
        task=teacher.metadata.task,
        task_source=teacher.metadata.task_source,
        sizes=teacher.task.sizes,
        networks={
            name: {**shape.model_dump(), "parameters": count_parameters(params[name])}
            for name, shape in shapes.items()
        },
        config={**config.model_dump(), "embedding": teacher.metadata.config["embedding"]},
        metrics=metrics,
        lineage={"teacher": describe_teacher(teacher)},
        versions=library_versions(),
    )


def _require_memory(config: DistillConfig, state: DistillState) -> None:
    shapes = (config.student.policy, config.student.critic, config.student.critic)
    activations = 2 * config.learning.batch * sum(n.layers * n.width for n in shapes)
    require_memory(
        # The parameters once more for their gradients.
        total_bytes((state, state.params)) + 4 * activations,
        "collect.environments, collect.capacity, learning.batch, layers or width",
    )


def compare(student: Agent, teacher: Agent, episodes: int, seed: int) -> dict[str, Any]:
    """The student's figures over whole episodes, and its retention of the teacher over the same ones."""
    own = evaluate_agent(student, episodes, seed)
    reference = evaluate_agent(teacher, episodes, seed)
    kept, interval = retention(own.time_at_goal, reference.time_at_goal)
    return {**summary(own), "retention": kept, "retention_ci95": interval}


def describe_teacher(teacher: Agent) -> dict[str, Any]:
    """What a student remembers of its teacher."""
    metadata = teacher.metadata
    figures = ("steps", "success_at_end", "time_at_goal")
    return {
        "task": metadata.task,
        "networks": metadata.networks,
        "seed": metadata.config["seed"],
        **{name: metadata.metrics[name] for name in figures if name in metadata.metrics},
        "digest": digest(teacher.params),
        "versions": metadata.versions,
    }
