"""What every task costs: compile time, control steps a second, contacts, memory, and what is not physics.

Steps a second are those of a rollout of random actions. The overhead is the share of a rollout's time that is not
physics but policy, observation and restarts; the policy is a teacher's of the default depth and width, with a third of
its actions random, so that episodes end early where they can. With `--sound`, 64 environments take 1,000 random steps:
nothing may cease to be finite.
"""

import time
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from common import parser, report

from teachers import teacher_config
from teachers.crl.networks import teacher_networks
from teachers.simulation.rollout import random_policy, reset, rollout
from teachers.tasks import Engine
from teachers.tasks.registry import TASKS, get_task

CPU_BATCHES = (256, 1024)
GPU_BATCHES = (256, 1024, 4096, 8192)
REPEATS = 3
SOUND = (64, 1000)  # environments and steps
# Speeds are read after so many steps: never where all episodes have just restarted.
SOUND_CHUNK = 41


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--tasks", nargs="+", default=list(TASKS), metavar="TASK")
    options.add_argument("--batches", type=int, nargs="+", help="environments simulated at once")
    options.add_argument("--steps", type=int, default=10, help="control steps of a rollout")
    options.add_argument("--physics", choices=get_args(Engine), default="jax")
    options.add_argument("--sound", action="store_true", help="also take 1,000 random steps")
    chosen = options.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are measured
    default = CPU_BATCHES if jax.default_backend() == "cpu" else GPU_BATCHES
    rows = []
    for name in chosen.tasks:
        rows.append(measure(name, chosen.physics, chosen.batches or default, chosen.steps))
        if chosen.sound:
            rows[-1] |= soundness(name, chosen.physics)
        print(rows[-1], flush=True)
    report(rows, chosen.json)


def measure(name: str, engine: Engine, batches: tuple[int, ...], steps: int) -> dict[str, Any]:
    """Figures of one task; `overhead` is the share of a rollout's time that is not physics, at the best batch."""
    networks = teacher_networks(teacher_config(name))
    task = networks.task.simulated_by(engine, max(batches))
    params = networks.init(jax.random.key(0))

    at_random = random_policy(task)

    def by_policy(keys: jax.Array, observation: jax.Array, goal: jax.Array) -> jax.Array:
        noise_keys, choice_keys, random_keys = jax.vmap(lambda key: jax.random.split(key, 3))(
            keys
        ).T
        action = networks.explore(params, noise_keys, observation, goal)
        choice = jax.vmap(lambda key: jax.random.bernoulli(key, 1 / 3))(choice_keys)[:, None]
        return jnp.where(choice, at_random(random_keys), action)

    def random(states: Any, key: jax.Array) -> Any:
        return rollout(task, at_random, states, key, steps, "train")

    def whole(states: Any, key: jax.Array) -> Any:
        return rollout(task, by_policy, states, key, steps, "train")

    def physics(states: Any, key: jax.Array) -> Any:
        control = jax.vmap(task.control)(
            jax.random.uniform(key, (len(states.steps), task.action_size), minval=-1, maxval=1)
        )
        return jax.lax.scan(
            lambda now, _: (jax.vmap(task.advance)(now, control), None),
            states.physics,
            length=steps,
        )[0]

    figures: dict[str, Any] = {"task": name, "contacts": task.contacts}
    best = 0.0
    for batch in batches:
        states = jax.jit(lambda key, n=batch: reset(task, key, n, "train"))(jax.random.key(0))
        # Episodes do not end all at once, as they do not in a long run.
        steps_taken = jnp.arange(batch) * task.episode_steps // batch
        states = states._replace(steps=steps_taken.astype(jnp.int32))
        compile_s, compiled = timed_compile(random, states)
        (seconds,) = median_seconds((compiled,), states)
        rate = batch * steps / seconds
        figures.setdefault("compile_s", compile_s)
        figures[f"steps_per_s_{batch}"] = rate
        if rate > best:
            best, best_states = rate, states
    states = best_states
    both = tuple(timed_compile(function, states)[1] for function in (whole, physics))
    seconds, simulated = median_seconds(both, states)
    figures["overhead"] = 1 - simulated / seconds
    figures["bytes_per_environment"] = sum(
        leaf.nbytes // len(states.steps) for leaf in jax.tree.leaves(states)
    )
    return figures


def timed_compile(function: Callable[..., Any], states: Any) -> tuple[float, Callable[..., Any]]:
    """Seconds to trace and compile, and the compiled function, run once."""
    begun = time.perf_counter()
    compiled = jax.jit(function).lower(states, jax.random.key(0)).compile()
    seconds = time.perf_counter() - begun
    jax.block_until_ready(compiled(states, jax.random.key(0)))
    return seconds, compiled


def median_seconds(functions: tuple[Callable[..., Any], ...], states: Any) -> list[float]:
    """Median seconds of each function, measured in turn because machines are noisy."""
    taken: list[list[float]] = [[] for _ in functions]
    for repeat in range(REPEATS):
        for function, seconds in zip(functions, taken, strict=True):
            begun = time.perf_counter()
            jax.block_until_ready(function(states, jax.random.key(repeat)))
            seconds.append(time.perf_counter() - begun)
    return [float(np.median(seconds)) for seconds in taken]


def soundness(name: str, engine: Engine) -> dict[str, Any]:
    """Whether a long random rollout stays finite, and the largest speed in it (rad/s or m/s)."""
    environments, steps = SOUND
    task = get_task(name).simulated_by(engine, environments)

    act = random_policy(task)
    play = jax.jit(lambda states, key: rollout(task, act, states, key, SOUND_CHUNK, "train"))
    states = jax.jit(lambda key: reset(task, key, environments, "train"))(jax.random.key(1))
    finite, fastest = True, 0.0
    for i in range(-(-steps // SOUND_CHUNK)):
        states, trajectory = play(states, jax.random.key(i))
        finite &= bool(jnp.isfinite(trajectory.observation).all())
        fastest = max(fastest, float(jnp.abs(states.physics.qvel).max()))
    return {"finite": finite, "fastest": fastest}


if __name__ == "__main__":
    main()
