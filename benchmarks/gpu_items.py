"""The measurements of `gpu.py`, each in a process of its own: it compiles, waits for its turn, measures and prints rows.

`python benchmarks/gpu_items.py ITEM [options]` prints `ready` once everything is compiled, and measures when it reads a
line from stdin. Every row is one line of JSON.
"""

import argparse
import collections
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import network_sizes

from teachers import teacher_config
from teachers.config import TeacherConfig
from teachers.crl.learner import Learner, Metrics, init_learner, make_update
from teachers.crl.memory import decide_remat
from teachers.crl.networks import Networks, teacher_networks
from teachers.crl.replay import Batch
from teachers.runs.devices import shard_batch
from teachers.simulation.rollout import random_policy, reset, rollout
from teachers.tasks.declaration import Physics
from teachers.tasks.registry import get_task

Rows = list[dict[str, Any]]
REPEATS = 5
PEAK_SIZE = 8192  # rows of the square matrices whose product measures the device's peak
CHECKED_STEPS = (1, 2, 5, 10)  # control steps after which the physics of two devices are compared
PROFILED_KERNELS = 25


def median_ms(run: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Returns the median milliseconds of a call, after two that are not timed."""
    times = []
    for repeat in range(repeats + 2):
        start = time.perf_counter()
        jax.block_until_ready(run())
        if repeat >= 2:
            times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def environment(options: argparse.Namespace) -> Callable[[], Rows]:
    """Measures the device's peak and the error of a float32 matrix product at both precisions."""
    size = 512 if options.smoke else PEAK_SIZE

    def measure() -> Rows:
        device = jax.devices()[0]
        rows: Rows = [
            {
                "device": device.device_kind,
                "backend": jax.default_backend(),
                "jax": jax.__version__,
                "bytes_limit": (device.memory_stats() or {}).get("bytes_limit"),
            }
        ]
        for dtype, precision in (
            ("bfloat16", "default"),
            ("float32", "default"),
            ("float32", "highest"),
        ):
            matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
            product = jax.jit(lambda x, precision=precision: jnp.matmul(x, x, precision=precision))
            milliseconds = median_ms(lambda product=product, matrix=matrix: product(matrix))
            small = np.asarray(matrix[:512, :256], np.float64)
            got = jnp.matmul(matrix[:512, :256], matrix[:512, :256].T, precision=precision)
            exact = small @ small.T
            rows.append(
                {
                    "dtype": dtype,
                    "precision": precision,
                    "tflops": 2e-9 * size**3 / milliseconds,
                    "relative_error": float(np.linalg.norm(got - exact) / np.linalg.norm(exact)),
                }
            )
        return rows

    return measure


def make_config(options: argparse.Namespace) -> TeacherConfig:
    """Returns the configuration of a teacher of the wanted depth, width, batch and precision."""
    return teacher_config(
        options.task,
        overrides={
            **network_sizes(options.depth, options.width),
            "learning.batch": options.batch,
            "learning.precision": options.precision,
        },
    )


def gradient_steps(options: argparse.Namespace) -> Callable[[], Rows]:
    """Measures the milliseconds of one gradient step of actor and critic, in a scan of several on one random batch."""
    config, seeds = make_config(options), options.seeds
    networks = teacher_networks(config, training=True, remat=decide_remat(config, seeds))
    learn = make_learn(networks, config)
    keys = jax.random.split(jax.random.key(0), options.updates)
    batch = random_batch(networks, options.batch)
    key = jax.random.key(0)

    def init(key: jax.Array) -> Learner:
        return init_learner(networks, config.learning, key)

    if seeds > 1:
        learn = jax.vmap(learn, in_axes=(0, None, None))
        state = jax.jit(jax.vmap(init))(jax.random.split(key, seeds))
    else:
        state = jax.jit(init)(key)
    start = time.perf_counter()
    compiled = jax.jit(learn, donate_argnums=0).lower(state, batch, keys).compile()
    row = {
        "compile_s": time.perf_counter() - start,
        "temporary_mib": compiled.memory_analysis().temp_size_in_bytes >> 20,
    }

    def measure() -> Rows:
        nonlocal state
        losses: Any = None

        def run() -> Any:
            nonlocal state, losses
            state, metrics = compiled(state, batch, keys)
            losses = metrics["critic_loss"]
            return losses

        milliseconds = median_ms(run) / options.updates
        statistics = jax.local_devices()[0].memory_stats() or {}
        rows: Rows = [
            row
            | {
                "ms_per_gradient_step": milliseconds,
                "peak_mib": statistics.get("peak_bytes_in_use", 0) >> 20,
                "tflops": 1e-9 * update_operations(config) * seeds / milliseconds,
                "loss": float(np.asarray(losses).reshape(-1)[-1]),
            }
        ]
        if options.profile:
            rows += profile(run, options.updates)
        return rows

    return measure


def make_learn(networks: Networks, config: TeacherConfig) -> Callable[..., Any]:
    """Returns the gradient steps `(learner, batch, keys) -> (learner, metrics)`, one for each key."""
    update = make_update(networks, config.learning)

    def learn(learner: Learner, batch: Batch, keys: jax.Array) -> tuple[Learner, Metrics]:
        def step(learner: Learner, key: jax.Array) -> tuple[Learner, Metrics]:
            return update(learner, shard_batch(batch), key)

        return jax.lax.scan(step, learner, keys)

    return learn


def random_batch(networks: Networks, size: int) -> Batch:
    """Returns a batch of normally distributed observations and of actions in [-1, 1]."""
    task = networks.task
    keys = jax.random.split(jax.random.key(1), 3)
    return Batch(
        jax.random.normal(keys[0], (size, task.observation_size)),
        jnp.tanh(jax.random.normal(keys[1], (size, task.action_size))),
        jax.random.normal(keys[2], (size, task.observation_size)),
    )


def update_operations(config: TeacherConfig) -> float:
    """Returns the floating-point operations of a gradient step in the trunks: 8 forward passes' worth for phi, 3 each else.

    The critic's step takes three times the forward passes of phi and psi; the actor's takes three times its own forward
    pass, phi's forward pass and the gradient with respect to phi's input.
    """
    phi, psi, actor = (
        2.0 * config.learning.batch * network.depth * network.width**2
        for network in (config.phi, config.psi, config.actor)
    )
    return 3 * (phi + psi) + 3 * actor + 2 * phi


def profile(run: Callable[[], Any], updates: int) -> Rows:
    """Returns how many kernels a gradient step launches, their time, and the kernels that take most of it."""
    nanoseconds, launches = collections.Counter[str](), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        (file,) = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            if "GPU" not in plane.name:
                continue
            for line in plane.lines:
                if "Stream" not in line.name:
                    continue
                for event in line.events:
                    nanoseconds[event.name] += event.duration_ns
                    launches[event.name] += 1
    total = {
        "launches_per_gradient_step": launches.total() / updates,
        "kernel_ms_per_gradient_step": nanoseconds.total() / updates / 1e6,
    }
    return [
        total,
        *(
            {
                "kernel": name[:80],
                "launches": launches[name],
                "us_per_launch": spent / launches[name] / 1e3,
            }
            for name, spent in nanoseconds.most_common(PROFILED_KERNELS)
        ),
    ]


def physics(options: argparse.Namespace) -> Callable[[], Rows]:
    """Compares the physics of random actions on this device with those of `--reference`, which are in the folder.

    With `--reference` it writes them: start, controls, and positions and velocities after each control step.
    """
    task = get_task(options.task)
    file = options.folder / f"physics-{options.task}.npz"
    environments, length = (8 if options.smoke else 256), CHECKED_STEPS[-1]

    def advance(start: Physics, controls: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(physics: Physics, control: jax.Array) -> tuple[Physics, Any]:
            physics = jax.vmap(task.advance)(physics, control)
            return physics, (physics.qpos, physics.qvel)

        with jax.default_matmul_precision(options.matmul):
            return jax.lax.scan(step, start, controls)[1]

    start = jax.jit(lambda key: reset(task, key, environments, "train").physics)(jax.random.key(0))
    actions = jax.random.uniform(
        jax.random.key(1), (length, environments, task.action_size), minval=-1, maxval=1
    )
    controls = jax.vmap(jax.vmap(task.control))(actions)
    compiled = jax.jit(advance).lower(start, controls).compile()

    def measure() -> Rows:
        if options.reference:
            qpos, qvel = compiled(start, controls)
            np.savez(file, *start, controls, qpos, qvel)
            return []
        *arrays, controls_before, qpos_before, qvel_before = np.load(file).values()
        found = compiled(Physics(*map(jnp.asarray, arrays)), jnp.asarray(controls_before))
        rows: Rows = []
        for after in CHECKED_STEPS:
            row: dict[str, Any] = {"control_steps": after}
            for name, got, expected in zip(
                ("qpos", "qvel"), found, (qpos_before, qvel_before), strict=True
            ):
                error = np.abs(np.asarray(got)[after - 1] - expected[after - 1])
                row |= {
                    f"{name}_median_error": float(np.median(error)),
                    f"{name}_largest_error": float(error.max()),
                }
            rows.append(row)
        return rows

    return measure


def simulation(options: argparse.Namespace) -> Callable[[], Rows]:
    """Measures the control steps a second of a rollout of random actions."""
    task = get_task(options.task)
    count, length = options.environments, options.steps
    states = jax.jit(lambda key: reset(task, key, count, "train"))(jax.random.key(0))
    states = states._replace(
        steps=(jnp.arange(count) * task.episode_steps // count).astype(jnp.int32)
    )
    act = random_policy(task)
    start = time.perf_counter()
    compiled = (
        jax.jit(lambda states, key: rollout(task, act, states, key, length, "train"))
        .lower(states, jax.random.key(1))
        .compile()
    )
    compile_seconds = time.perf_counter() - start

    def measure() -> Rows:
        milliseconds = median_ms(lambda: compiled(states, jax.random.key(1)), 3)
        return [
            {
                "compile_s": compile_seconds,
                "ms_per_control_step": milliseconds / length,
                "control_steps_per_s": 1e3 * count * length / milliseconds,
            }
        ]

    return measure


ITEMS: dict[str, Callable[[argparse.Namespace], Callable[[], Rows]]] = {
    "environment": environment,
    "gradient_steps": gradient_steps,
    "physics": physics,
    "simulation": simulation,
}


def main() -> None:
    """Prepares an item, waits for its turn, and prints its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("item", choices=ITEMS)
    parser.add_argument("--smoke", action="store_true", help="use small sizes")
    parser.add_argument("--task", default="reacher")
    parser.add_argument("--depth", type=int, default=64)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--precision", default="float32", help="learning.precision")
    parser.add_argument("--updates", type=int, default=7, help="gradient steps in a scan")
    parser.add_argument("--seeds", type=int, default=1, help="teachers that learn at once")
    parser.add_argument("--profile", action="store_true", help="count the kernels")
    parser.add_argument("--matmul", default="default", help="precision of the physics")
    parser.add_argument("--reference", action="store_true", help="write the physics for others")
    parser.add_argument("--environments", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10, help="control steps of a rollout")
    parser.add_argument("--folder", type=Path, help="where the reference's physics are")
    options = parser.parse_args()
    measure = ITEMS[options.item](options)
    print("ready", flush=True)
    sys.stdin.readline()
    for row in measure():
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
