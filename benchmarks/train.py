"""Measures where the time of a training iteration goes, and how near its gradient steps come to the device's peak.

Each part of an iteration is timed alone, then their sum is set beside a complete iteration. The column `share` is the
part's share of the sum; `of_peak` compares a part's floating-point operations per second with those of a large matrix
product. Run it with `python benchmarks/train.py --task reacher --depth 16 --json FILE`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from common import make_parser, network_sizes, report

from teachers import teacher_config
from teachers.config import NetworkConfig, TeacherConfig
from teachers.crl.estimate import median_seconds
from teachers.crl.iteration import TrainingState
from teachers.crl.learner import actor_objective, critic_objective, make_optimizer
from teachers.crl.networks import Networks, sample_action, teacher_networks
from teachers.crl.replay import Batch, Replay, index_episodes, insert_rollout, sample_pairs
from teachers.crl.training_programs import teacher_programs
from teachers.simulation.rollout import rollout
from teachers.simulation.trajectory import Trajectory
from teachers.tasks import State

PEAK_SIZE = 2048  # rows of the square matrices whose product measures the device's peak
TEMPERATURE = 0.1


def peak_flops(precision: str) -> float:
    """Returns the floating-point operations per second of a large matrix product."""
    matrix = jnp.ones((PEAK_SIZE, PEAK_SIZE), precision)
    product = jax.jit(lambda matrix: matrix @ matrix)
    return 2 * PEAK_SIZE**3 / median_seconds(lambda: product(matrix))


def trunk_flops(network: NetworkConfig, batch: int) -> float:
    """Returns the operations of one forward pass through the residual trunk, nearly all of a network's."""
    return 2.0 * batch * network.depth * network.width**2


def update_flops(config: TeacherConfig) -> dict[str, float]:
    """Returns the operations of one gradient step of the critic and of the actor.

    A network's gradient step takes three times the operations of its forward pass. That of the actor also takes phi's
    forward pass and the gradient with respect to phi's input.
    """
    phi, psi, actor = (
        trunk_flops(network, config.learning.batch)
        for network in (config.phi, config.psi, config.actor)
    )
    return {"critic update": 3 * (phi + psi), "actor update": 3 * actor + 2 * phi}


def make_physics(
    config: TeacherConfig, networks: Networks
) -> Callable[[TrainingState], tuple[State, Trajectory]]:
    """Returns a jitted rollout of an iteration's length with actions of zero, as a function of the training state."""
    task = networks.task

    def act(keys: jax.Array, observation: jax.Array, goal: jax.Array) -> jax.Array:
        return jnp.zeros((len(observation), task.action_size))

    @jax.jit
    def physics(state: TrainingState) -> tuple[State, Trajectory]:
        key = jax.random.key(0)
        return rollout(task, act, state.environments, key, config.rollout.steps, "train")

    return physics


def make_inference(
    config: TeacherConfig, networks: Networks
) -> Callable[[TrainingState], jax.Array]:
    """Returns the policy's jitted inferences of an iteration, as a function of the training state."""

    @jax.jit
    def inference(state: TrainingState) -> jax.Array:
        params, environments = state.learner.params, state.environments

        def step(observation: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            action, _ = sample_action(key, *networks.actor(params, observation, environments.goal))
            # The next observation depends on the action, so that the compiler cannot remove or merge steps.
            return observation + 1e-9 * action.sum(-1, keepdims=True), action

        keys = jax.random.split(jax.random.key(0), config.rollout.steps)
        return jax.lax.scan(step, environments.observation, keys)[0]

    return inference


def make_replay(config: TeacherConfig) -> Callable[..., tuple[Replay, jax.Array]]:
    """Returns the jitted insertion of a rollout into the replay buffer, with the sampling of an iteration's batches."""
    keys = jax.random.split(jax.random.key(0), config.learning.gradient_steps)

    @partial(jax.jit, donate_argnums=0)
    def insert_and_sample(replay: Any, trajectory: Trajectory) -> Any:
        replay = insert_rollout(replay, trajectory)
        index = index_episodes(replay)
        # The sums depend on every sampled row, so that the compiler cannot leave the sampling out.
        sums = jax.lax.map(lambda key: sample_batch(config, replay, index, key).future.sum(), keys)
        return replay, sums

    return insert_and_sample


def sample_batch(config: TeacherConfig, replay: Any, index: Any, key: jax.Array) -> Batch:
    """Returns the batch of one gradient step."""
    learning = config.learning
    return sample_pairs(replay, index, key, learning.batch, learning.discount)


def make_gradient_steps(
    config: TeacherConfig, objective: Callable[[Any, jax.Array], jax.Array]
) -> Callable[[tuple[Any, Any]], tuple[tuple[Any, Any], None]]:
    """Returns an iteration's gradient steps on one batch, jitted, as a function of (parameters, optimizer state)."""
    adam = make_optimizer(config.learning)
    keys = jax.random.split(jax.random.key(0), config.learning.gradient_steps)

    def step(state: Any, key: jax.Array) -> tuple[Any, None]:
        params, optimizer = state
        grads = jax.grad(objective)(params, key)
        updates, optimizer = adam.update(grads, optimizer)
        return (jax.tree.map(jnp.add, params, updates), optimizer), None

    return jax.jit(lambda state: jax.lax.scan(step, state, keys), donate_argnums=0)


def time_state_update(update: Callable[[Any], tuple[Any, Any]], state: Any) -> float:
    """Returns the median seconds of an update that takes over the memory of its state and returns (state, output)."""

    def update_once() -> Any:
        nonlocal state
        state, output = update(state)
        return state, output

    return median_seconds(update_once)


def time_parts(config: TeacherConfig, networks: Networks, state: TrainingState) -> dict[str, float]:
    """Returns the median seconds of each part of an iteration; `state` is left as it is."""
    learning, params = config.learning, state.learner.params
    physics, inference = make_physics(config, networks), make_inference(config, networks)
    seconds = {
        "physics": median_seconds(lambda: physics(state)),
        "policy inference": median_seconds(lambda: inference(state)),
    }
    _, trajectory = physics(state)
    insert_and_sample = make_replay(config)
    seconds["replay"] = time_state_update(
        lambda replay: insert_and_sample(replay, trajectory), copy_arrays(state.replay)
    )

    @jax.jit
    def first_batch(replay: Any) -> Batch:
        replay = insert_rollout(replay, trajectory)
        return sample_batch(config, replay, index_episodes(replay), jax.random.key(0))

    batch = first_batch(state.replay)
    critic = {"phi": params["phi"], "psi": params["psi"]}
    goals = jax.jit(networks.psi)(params, networks.task.achieved_goal(batch.future))
    temperature = jnp.float32(TEMPERATURE)

    def critic_loss(critic: Any, _key: jax.Array) -> jax.Array:
        return critic_objective(networks, learning, critic, batch)[0]

    def actor_loss(actor: Any, key: jax.Array) -> jax.Array:
        return actor_objective(networks, learning, actor, critic, goals, temperature, batch, key)[0]

    adam = make_optimizer(learning)
    for name, objective, trained in (
        ("critic update", critic_loss, critic),
        ("actor update", actor_loss, params["actor"]),
    ):
        seconds[name] = time_state_update(
            make_gradient_steps(config, objective), copy_arrays((trained, adam.init(trained)))
        )
    return seconds


def copy_arrays(tree: Any) -> Any:
    """Returns a copy of all arrays, whose memory an update may take over."""
    return jax.tree.map(jnp.copy, tree)


def measure(config: TeacherConfig) -> list[dict[str, Any]]:
    """Returns a row for each part of an iteration, for their sum and for the complete iteration."""
    networks = teacher_networks(config, training=True)
    programs = teacher_programs(config)
    state = programs.init(jnp.uint32(config.seed))
    parts = time_parts(config, networks, state)
    total = sum(parts.values())
    seconds = {**parts, "sum": total, "iteration": time_state_update(programs.iterate, state)}
    flops, peak = update_flops(config), peak_flops(config.learning.precision)
    return [
        {
            "part": part,
            "seconds": value,
            "share": value / total,
            "of_peak": config.learning.gradient_steps * flops[part] / value / peak
            if part in flops
            else None,
        }
        for part, value in seconds.items()
    ]


def main() -> None:
    """Measures a training iteration with the given settings and prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--task", default="reacher", help="the task (default: %(default)s)")
    parser.add_argument(
        "--depth", type=int, default=16, help="of actor, phi and psi (default: %(default)s)"
    )
    parser.add_argument(
        "--width", type=int, default=64, help="of actor, phi and psi (default: %(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=256, help="pairs in a gradient step (default: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bfloat16"),
        help="of the trunks' matrix products (default: %(default)s)",
    )
    options = parser.parse_args()
    config = teacher_config(
        options.task,
        overrides={
            **network_sizes(options.depth, options.width),
            "learning.batch": options.batch,
            "learning.precision": options.precision,
        },
    )
    report(measure(config), options.json)


if __name__ == "__main__":
    main()
