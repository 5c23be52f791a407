"""Measures what each task costs: compile time, control steps per second, contacts, memory and overhead.

Steps per second are those of a rollout of random actions. The column `overhead` is the share of a rollout's time that
is not physics but policy, observations and restarts. The policy there is a teacher of 16 layers of 64 units, with a third
of its actions random, so that episodes end early where the task lets them. With `--sound`, 64 environments also take
1,000 random steps, and the table shows whether all numbers stayed finite and the largest speed.

With `--engines c jax` it compares engines instead: control steps a second of whole rollouts with the same policy, in turn,
by wall time and by processor time, and what is not physics in them.

Run it with `taskset -c 1 python benchmarks/tasks.py --sound --json FILE`, and with
`python benchmarks/tasks.py --tasks ant humanoid --batches 256 --engines c jax --json FILE`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from common import make_parser, network_sizes, report

from teachers import Task, teacher_config
from teachers.crl.networks import Networks, teacher_networks
from teachers.simulation.rollout import random_policy, reset, rollout
from teachers.tasks import Engine, State
from teachers.tasks.registry import TASKS, get_task

CPU_BATCHES = (256, 1024)
GPU_BATCHES = (256, 1024, 4096, 8192)
REPEATS = 5
POLICY = 16, 64  # depth and width
RANDOM_ACTION_SHARE = 1 / 3
SOUND_ENVIRONMENTS, SOUND_STEPS = 64, 1000
# Speeds are read after each rollout of this length. It divides no episode length, so that the speeds are not always
# read where all episodes have just restarted.
SOUND_ROLLOUT_STEPS = 41

Program = Callable[[State, jax.Array], Any]  # of states and a key


def measure(name: str, engine: Engine, batches: Sequence[int], steps: int) -> dict[str, Any]:
    """Returns the row of a task; its overhead is measured with the fastest number of environments."""
    networks = teacher_networks(teacher_config(name, overrides=network_sizes(*POLICY)))
    task = networks.task.simulated_by(engine, max(batches))
    random_rollout = make_random_rollout(task, steps)
    row: dict[str, Any] = {"task": name, "contacts": task.contacts}
    fastest_rate = 0.0
    for batch in batches:
        states = make_states(task, batch)
        compile_seconds, compiled = compile_program(random_rollout, states)
        (seconds,) = median_seconds((compiled,), states)
        rate = batch * steps / seconds
        row.setdefault("compile_s", compile_seconds)  # of the first number of environments
        row[f"steps_per_s_{batch}"] = rate
        if rate > fastest_rate:
            fastest_rate, fastest_states = rate, states
    states = fastest_states
    programs = make_policy_rollout(networks, task, steps), make_physics(task, steps)
    compiled_programs = [compile_program(program, states)[1] for program in programs]
    rollout_seconds, physics_seconds = median_seconds(compiled_programs, states)
    row["overhead"] = 1 - physics_seconds / rollout_seconds
    row["bytes_per_environment"] = sum(
        leaf.nbytes // len(states.steps) for leaf in jax.tree.leaves(states)
    )
    return row


def compare_engines(
    name: str, engines: Sequence[Engine], batch: int, steps: int
) -> list[dict[str, Any]]:
    """Returns a row for each engine, with its speed as a multiple of the last engine's."""
    networks = teacher_networks(teacher_config(name, overrides=network_sizes(*POLICY)))
    rows, programs = [], []
    for engine in engines:
        task = networks.task.simulated_by(engine, batch)
        states = make_states(task, batch)
        compile_seconds, compiled = compile_program(
            make_policy_rollout(networks, task, steps), states
        )
        _, physics = compile_program(make_physics(task, steps), states)
        rows.append({"task": name, "engine": engine, "batch": batch, "compile_s": compile_seconds})
        programs += [compiled, physics]
    wall, processor = median_seconds(programs, states), []
    for compiled in programs[::2]:
        start = time.process_time()
        jax.block_until_ready(compiled(states, jax.random.key(0)))
        processor.append(time.process_time() - start)
    for number, row in enumerate(rows):
        seconds, physics_seconds = wall[2 * number : 2 * number + 2]
        row |= {
            "steps_per_s": batch * steps / seconds,
            "steps_per_processor_s": batch * steps / processor[number],
            "overhead": 1 - physics_seconds / seconds,
            "times_as_fast": wall[-2] / seconds,
        }
    return rows


def make_states(task: Task, batch: int) -> State:
    """Returns this number of environments, whose episodes do not end all at once, as in a long run."""
    states = jax.jit(lambda key: reset(task, key, batch, "train"))(jax.random.key(0))
    steps_taken = jnp.arange(batch) * task.episode_steps // batch
    return states._replace(steps=steps_taken.astype(jnp.int32))


def make_random_rollout(task: Task, steps: int) -> Program:
    """Returns a rollout of random actions."""
    act = random_policy(task)
    return lambda states, key: rollout(task, act, states, key, steps, "train")


def make_policy_rollout(networks: Networks, task: Task, steps: int) -> Program:
    """Returns a rollout of an untrained teacher's policy, with a third of its actions random."""
    params = networks.init(jax.random.key(0))
    act_randomly = random_policy(task)

    def act(keys: jax.Array, observation: jax.Array, goal: jax.Array) -> jax.Array:
        noise_keys, choice_keys, random_keys = jax.vmap(lambda key: jax.random.split(key, 3))(
            keys
        ).T
        action = networks.explore(params, noise_keys, observation, goal)
        is_random = jax.vmap(lambda key: jax.random.bernoulli(key, RANDOM_ACTION_SHARE))(
            choice_keys
        )
        return jnp.where(is_random[:, None], act_randomly(random_keys), action)

    return lambda states, key: rollout(task, act, states, key, steps, "train")


def make_physics(task: Task, steps: int) -> Program:
    """Returns the physics of a rollout alone, with one random action for all of its steps."""

    def simulate(states: State, key: jax.Array) -> Any:
        actions = jax.random.uniform(
            key, (len(states.steps), task.action_size), minval=-1, maxval=1
        )
        control = jax.vmap(task.control)(actions)
        return jax.lax.scan(
            lambda physics, _: (jax.vmap(task.advance)(physics, control), None),
            states.physics,
            length=steps,
        )[0]

    return simulate


def compile_program(program: Program, states: State) -> tuple[float, Program]:
    """Returns the seconds to trace and compile a program, and the compiled program after a first run."""
    start = time.perf_counter()
    compiled = jax.jit(program).lower(states, jax.random.key(0)).compile()
    seconds = time.perf_counter() - start
    jax.block_until_ready(compiled(states, jax.random.key(0)))
    return seconds, compiled


def median_seconds(programs: Sequence[Program], states: State) -> list[float]:
    """Returns the median seconds of each program; they run in turn, because machines are noisy."""
    measured: list[list[float]] = [[] for _ in programs]
    for repeat in range(REPEATS):
        for program, seconds in zip(programs, measured, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(program(states, jax.random.key(repeat)))
            seconds.append(time.perf_counter() - start)
    return [float(np.median(seconds)) for seconds in measured]


def measure_soundness(name: str, engine: Engine) -> dict[str, Any]:
    """Returns whether a long random rollout stays finite, and the largest speed in it (rad/s or m/s)."""
    task = get_task(name).simulated_by(engine, SOUND_ENVIRONMENTS)
    play = jax.jit(make_random_rollout(task, SOUND_ROLLOUT_STEPS))
    states = jax.jit(lambda key: reset(task, key, SOUND_ENVIRONMENTS, "train"))(jax.random.key(1))
    finite, fastest = True, 0.0
    for i in range(-(-SOUND_STEPS // SOUND_ROLLOUT_STEPS)):
        states, trajectory = play(states, jax.random.key(i))
        finite &= bool(jnp.isfinite(trajectory.observation).all())
        fastest = max(fastest, float(jnp.abs(states.physics.qvel).max()))
    return {"finite": finite, "fastest": fastest}


def main() -> None:
    """Measures all chosen tasks and prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--tasks", nargs="+", default=list(TASKS), metavar="TASK", help="tasks (default: all)"
    )
    parser.add_argument(
        "--batches",
        type=int,
        nargs="+",
        help="numbers of environments that are simulated at once "
        f"(default: {' '.join(map(str, CPU_BATCHES))}; on a GPU {' '.join(map(str, GPU_BATCHES))})",
    )
    parser.add_argument(
        "--steps", type=int, default=10, help="control steps of a rollout (default: %(default)s)"
    )
    parser.add_argument(
        "--physics",
        choices=get_args(Engine),
        default="jax",
        help="engine (default: %(default)s)",
    )
    parser.add_argument(
        "--engines", nargs="+", choices=get_args(Engine), help="engines to compare, instead"
    )
    parser.add_argument(
        "--sound",
        action="store_true",
        help="also check that 1,000 random steps stay finite, and report the largest speed",
    )
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are measured
    default_batches = CPU_BATCHES if jax.default_backend() == "cpu" else GPU_BATCHES
    batches = options.batches or default_batches
    rows = []
    for name in options.tasks if options.engines else ():
        for batch in batches:
            rows += compare_engines(name, options.engines, batch, options.steps)
            print(rows[-len(options.engines) :], flush=True)
    for name in () if options.engines else options.tasks:
        row = measure(name, options.physics, batches, options.steps)
        if options.sound:
            row |= measure_soundness(name, options.physics)
        print(row, flush=True)
        rows.append(row)
    report(rows, options.json)


if __name__ == "__main__":
    main()
