"""Where the time of one training iteration goes, and what share of the device's peak the gradient steps reach."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from common import parser, report

from teachers import teacher_config
from teachers.config import NetworkConfig, TeacherConfig
from teachers.crl import replay as buffer
from teachers.crl.estimate import median_seconds
from teachers.crl.iteration import init_training, make_iteration
from teachers.crl.learner import actor_objective, critic_objective, make_optimizer
from teachers.crl.networks import sample_action, teacher_networks
from teachers.simulation.rollout import rollout

PEAK_SIZE = 2048  # of the square matrix product that stands for the device's peak


def peak_flops(precision: str) -> float:
    """Floating-point operations a second in a large matrix product."""
    a = jnp.ones((PEAK_SIZE, PEAK_SIZE), precision)
    product = jax.jit(lambda a: a @ a)
    return 2 * PEAK_SIZE**3 / median_seconds(lambda: product(a))


def trunk_flops(network: NetworkConfig, batch: int) -> float:
    """Operations of one forward pass through the residual trunk, which is nearly all of a network."""
    return 2.0 * batch * network.depth * network.width**2


def measure(config: TeacherConfig) -> list[dict[str, Any]]:
    """Seconds of each part of an iteration, of their sum and of the whole."""
    networks = teacher_networks(config, training=True)
    task, learning = networks.task, config.learning
    adam = make_optimizer(learning)
    state = jax.jit(lambda: init_training(config))()
    keys = jax.random.split(jax.random.key(0), learning.gradient_steps)
    params = state.learner.params
    critic = {"phi": params["phi"], "psi": params["psi"]}

    def held(keys: jax.Array, observation: jax.Array, goal: jax.Array) -> jax.Array:
        return jnp.zeros((len(observation), task.action_size))

    @jax.jit
    def physics(state: Any) -> Any:
        return rollout(task, held, state.environments, keys[0], config.rollout.steps, "train")

    @jax.jit
    def inference(params: Any, environments: Any) -> jax.Array:
        def step(observation: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            action, _ = sample_action(key, *networks.actor(params, observation, environments.goal))
            # What is observed depends on the action, so that no step can be left out or merged.
            return observation + 1e-9 * action.sum(-1, keepdims=True), action

        steps = jax.random.split(keys[0], config.rollout.steps)
        return jax.lax.scan(step, environments.observation, steps)[0]

    def draw(replay: Any, index: Any, key: jax.Array) -> buffer.Batch:
        return buffer.sample(replay, index, key, learning.batch, learning.discount)

    @partial(jax.jit, donate_argnums=0)
    def store(replay: Any, trajectory: Any) -> Any:
        replay = buffer.insert(replay, trajectory)
        index = buffer.index(replay)
        draws = jax.lax.map(lambda key: draw(replay, index, key).future.sum(), keys)
        return replay, draws

    def descend(objective: Callable[..., Any]) -> Callable[..., Any]:
        """As many gradient steps as an iteration has, on one batch."""

        @partial(jax.jit, donate_argnums=(0, 1))
        def run(params: Any, optimizer: Any) -> Any:
            def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
                params, optimizer = carry
                grads = jax.grad(lambda params: objective(params, key))(params)
                updates, optimizer = adam.update(grads, optimizer)
                return (jax.tree.map(jnp.add, params, updates), optimizer), None

            return jax.lax.scan(step, (params, optimizer), keys)[0]

        return run

    # Everything below is made before the pieces that give their arguments away.
    _, trajectory = jax.block_until_ready(physics(state))

    @jax.jit
    def first_batch(replay: Any, trajectory: Any) -> buffer.Batch:
        replay = buffer.insert(replay, trajectory)
        return draw(replay, buffer.index(replay), keys[0])

    batch = first_batch(state.replay, trajectory)
    goals = jax.jit(networks.psi)(params, task.achieved_goal(batch.future))
    learn_critic = descend(lambda c, key: critic_objective(networks, learning, c, batch)[0])
    learn_actor = descend(
        lambda a, key: actor_objective(networks, a, critic, goals, jnp.float32(0.1), batch, key)[0]
    )
    times = {
        "physics": median_seconds(lambda: physics(state)),
        "policy inference": median_seconds(lambda: inference(params, state.environments)),
    }
    ring = jax.tree.map(jnp.copy, state.replay)

    def store_once() -> Any:
        nonlocal ring
        ring, draws = store(ring, trajectory)
        return draws

    times["replay"] = median_seconds(store_once)
    for name, run, own in (
        ("critic update", learn_critic, critic),
        ("actor update", learn_actor, params["actor"]),
    ):
        held_state = jax.tree.map(jnp.copy, (own, adam.init(own)))

        def learn_once(run: Any = run) -> Any:
            nonlocal held_state
            held_state = run(*held_state)
            return held_state

        times[name] = median_seconds(learn_once)
    iterate = jax.jit(make_iteration(config), donate_argnums=0)

    def iterate_once() -> Any:
        nonlocal state
        state, metrics = iterate(state)
        return state, metrics

    whole = median_seconds(iterate_once)

    # A gradient costs a forward pass twice more; the actor's also goes through phi, whose weights it does not change.
    phi, psi, actor = (
        trunk_flops(network, learning.batch) for network in (config.phi, config.psi, config.actor)
    )
    work = {"critic update": 3 * (phi + psi), "actor update": 3 * actor + 2 * phi}
    peak = peak_flops(learning.precision)
    rows: list[dict[str, Any]] = []
    for name, value in {**times, "sum": sum(times.values()), "iteration": whole}.items():
        share = learning.gradient_steps * work[name] / value / peak if name in work else None
        rows.append(
            {
                "part": name,
                "seconds": value,
                "share": value / sum(times.values()),
                "of_peak": share,
            }
        )
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--task", default="reacher")
    options.add_argument("--depth", type=int, default=16)
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    options = options.parse_args()
    networks = ("actor", "phi", "psi")
    config = teacher_config(
        options.task,
        overrides={
            **{f"{network}.depth": options.depth for network in networks},
            **{f"{network}.width": options.width for network in networks},
            "learning.batch": options.batch,
            "learning.precision": options.precision,
        },
    )
    report(measure(config), options.json)


if __name__ == "__main__":
    main()
