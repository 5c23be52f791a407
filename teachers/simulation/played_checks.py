"""Checks of a task on simulated steps: resets, goals, magnitudes, actions, and observations in JAX against MuJoCo C."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.simulation.c_twin import Twin, make_twins
from teachers.simulation.problem_report import ProblemReport
from teachers.simulation.reach_check import find_unreachable
from teachers.simulation.static_checks import format_values, goal_sampler
from teachers.tasks.base import Task
from teachers.tasks.declaration import Field, GoalSet, Sensor, State, scales, slices

RESETS = 64
ENVIRONMENTS = 8  # under random actions
STEPS = 50
HOLD_STEPS = 5  # for which a random action is held
COMPARED_STEPS = 5  # over which the two engines are compared
MAX_MAGNITUDE = 40.0  # largest factor between a field's scale and its values
RESET_TOLERANCE = 1e-3  # largest difference between the engines at a reset, in scales
# And after `COMPARED_STEPS`, in the environment where it is smallest: impacts make the engines diverge.
STEP_TOLERANCE = 0.05
SEARCHED_GOALS = 32  # for joint positions that reach them
MISSED_SHARE = 0.1  # of them, which the search may fail to find
MAX_SPEED = 1e4  # of a joint, in its own unit


class Samples(NamedTuple):
    """Resets, and steps of `ENVIRONMENTS` under random actions and of two environments for each action number."""

    starts: State  # [RESETS, ...]
    goals: dict[GoalSet, Float[Array, "resets goal"]]
    actions: Float[Array, "time env act"]
    observation: Float[Array, "time env obs"]  # after each step
    measured: (
        Float[Array, "time env sens"] | None
    )  # after each step; None where no sensors are declared
    qpos: Float[Array, "time env nq"]
    qvel: Float[Array, "time env nv"]


def sample_task(task: Task, key: Key[Array, ""]) -> Samples:
    """Returns samples of a task, in one function to compile."""
    reset_key, goal_key, action_key = jax.random.split(key, 3)
    starts = jax.vmap(task.reset)(jax.random.split(reset_key, RESETS))
    goals: dict[GoalSet, Array] = {"train": starts.goal}
    for goal_set in set(task.goal_sets) - {"train"}:
        sample = jax.vmap(goal_sampler(task, goal_set))
        goals[goal_set] = sample(jax.random.split(goal_key, RESETS), starts.observation)
    # From the first reset, one environment with each action number at 1 and one with it at -1, the others at 0.
    single = jnp.eye(task.action_size)
    single = jnp.concatenate([single, -single])
    index = jnp.concatenate([jnp.arange(ENVIRONMENTS), jnp.zeros(len(single), int)])
    random = jax.random.uniform(
        action_key, (-(-STEPS // HOLD_STEPS), ENVIRONMENTS, task.action_size), minval=-1.0
    )
    actions = jnp.concatenate(
        [
            jnp.repeat(random, HOLD_STEPS, axis=0)[:STEPS],
            jnp.broadcast_to(single, (STEPS, *single.shape)),
        ],
        axis=1,
    )

    def step(states: State, action: Array) -> tuple[State, tuple[Any, ...]]:
        states = jax.vmap(task.step)(states, action)
        measured = states.sensed.measured if task.senses else None
        physics = states.physics
        return states, (states.observation, measured, physics.qpos, physics.qvel)

    first = jax.tree.map(lambda leaf: leaf[index], starts)
    _, recorded = jax.lax.scan(step, first, actions)
    return Samples(starts, goals, actions, *recorded)


def check_samples(task: Task, samples: Samples, report: ProblemReport) -> bool:
    """Checks samples of a task, and returns whether all are finite; otherwise nothing else is checked."""
    if not _check_finite(task, samples, report):
        return False
    _check_resets(task, samples, report)
    _check_magnitudes(task, samples, report)
    _check_actions(task, samples, report)
    _check_observations(task, samples, report)
    if not report.blocked:
        _check_reach(task, samples, report)
    return True


def _check_finite(task: Task, samples: Samples, report: ProblemReport) -> bool:
    """Returns whether all numbers are finite and no joint is too fast."""
    for name, rows in (
        ("at a reset", samples.starts.observation[None]),
        ("under random actions", samples.observation),
    ):
        not_finite = ~np.isfinite(rows).all(axis=(0, 1))
        if not_finite.any():
            field = _field_at(task.observation, int(np.argmax(not_finite)))
            report.add(
                f"observation field {field.name!r}",
                f"is not finite {name}",
                "lower the timestep or the actuators' force, or guard what it divides by",
            )
            return False
    for goal_set, goals in samples.goals.items():
        if not np.isfinite(goals).all():
            report.add(f"{goal_set} goals", "some are not finite", "correct sample_goal")
            return False
    speed = float(np.abs(samples.qvel).max(initial=0.0))
    if not speed <= MAX_SPEED:
        report.add(
            "joint velocities",
            f"reach {speed:.3g} within {STEPS} steps of random actions",
            "add damping or armature, or lower the timestep or the actuators' force",
        )
        return False
    return True


def _check_resets(task: Task, samples: Samples, report: ProblemReport) -> None:
    starts = samples.starts
    for goal_set, goals in samples.goals.items():
        if (goals == goals[0]).all():
            report.add(
                f"{goal_set} goals",
                f"all {RESETS} resets draw the same, {format_values(goals[0])}",
                "draw them from the key of sample_goal",
            )
    if (starts.physics.qpos == starts.physics.qpos[0]).all() and (
        starts.physics.qvel == starts.physics.qvel[0]
    ).all():
        report.add(
            "start states",
            f"all {RESETS} resets draw the same",
            "draw them from the key of sample_state, if only a little apart",
        )
    terminated = int(np.asarray(task.terminated(starts.observation)).sum())
    if terminated:
        report.add(
            "terminated",
            f"is true at {terminated} of {RESETS} resets",
            "keep sample_state away from where episodes end",
        )
    for goal_set, goals in samples.goals.items():
        reached = int((task.distance(starts.observation, goals) < task.success_radius).sum())
        if reached > 0.9 * RESETS:
            report.add(
                f"{goal_set} goals",
                f"{reached} of {RESETS} are already reached at the reset",
                f"draw goals farther off, or lower success_radius = {task.success_radius:g}",
            )
        difference = np.median(np.abs(task.achieved_goal(starts.observation) - goals), axis=0)
        is_far = difference / task.goal_scale > MAX_MAGNITUDE
        if is_far.any():
            number = int(np.argmax(is_far))
            field = _field_at(task.goal, number)
            report.add(
                f"goal field {field.name!r}",
                f"{goal_set} goals lie {difference[number]:.3g} {field.unit} from what starts have achieved, over "
                f"{MAX_MAGNITUDE:g} times its scale {field.scale:g}",
                "let sample_goal and achieved_goal give the same quantity in the same unit",
            )


def _check_reach(task: Task, samples: Samples, report: ProblemReport) -> None:
    for goal_set, goals in samples.goals.items():
        goals = goals[:SEARCHED_GOALS]
        missed = find_unreachable(task, np.asarray(goals))
        if missed and missed > MISSED_SHARE * len(goals):
            report.add(
                f"{goal_set} goals",
                f"no joint positions that a search finds come near {missed} of {len(goals)}",
                "draw goals that can be reached, as teachers.tasks.robot.reachable does",
            )


def _check_magnitudes(task: Task, samples: Samples, report: ProblemReport) -> None:
    goals = np.concatenate(list(samples.goals.values()))
    observations = samples.observation[:, :ENVIRONMENTS]
    for kind, fields, rows in (
        ("observation", task.observation, observations),
        ("goal", task.goal, goals),
    ):
        for field, place in zip(fields, slices(fields).values(), strict=True):
            magnitudes = np.abs(rows[..., place])
            mean, largest = float(magnitudes.mean()), float(magnitudes.max())
            # A field that stays at 0 may belong to a body that random actions do not move.
            is_small = 0 < largest < field.scale / MAX_MAGNITUDE
            if is_small or mean > field.scale * MAX_MAGNITUDE:
                magnitude = largest if is_small else mean
                report.add(
                    f"{kind} field {field.name!r}",
                    f"scale = {field.scale:g} {field.unit}, but its values are near {magnitude:.2g}",
                    f"set scale={magnitude:.2g}",
                )


def _check_actions(task: Task, samples: Samples, report: ProblemReport) -> None:
    size = task.action_size
    state = np.concatenate([samples.qpos, samples.qvel], axis=-1)[:, ENVIRONMENTS:]
    difference = np.abs(state[:, :size] - state[:, size:]).max(axis=(0, 2))
    for number in np.flatnonzero(difference < 1e-5):
        field = _field_at(task.action, int(number))
        report.add(
            f"action field {field.name!r}",
            f"1 and -1 lead to the same motion (action {number})",
            "look at the actuator's target, gear and ctrlrange",
        )


def _check_observations(task: Task, samples: Samples, report: ProblemReport) -> None:
    starts = jax.tree.map(lambda leaf: leaf[:ENVIRONMENTS], samples.starts)
    goals = np.asarray(starts.goal)

    def play(read: Callable[[Twin, np.ndarray], np.ndarray]) -> np.ndarray:
        robots = make_twins(task.with_sensors() if task.sensors else task, starts)
        rows = [np.stack([read(*pair) for pair in zip(robots, goals, strict=True)])]
        for actions in samples.actions[:COMPARED_STEPS, :ENVIRONMENTS]:
            for robot, action in zip(robots, actions, strict=True):
                robot.step(action)
            rows.append(np.stack([read(*pair) for pair in zip(robots, goals, strict=True)]))
        return np.stack(rows)

    compared: list[tuple[str, tuple[Field | Sensor, ...], Any, Any]] = [
        ("observe", task.observation, starts.observation, samples.observation)
    ]
    if samples.measured is not None:
        compared.append(("measure", task.sensors, starts.sensed.measured, samples.measured))
    for function, fields, first, later in compared:
        in_c = report.attempt(
            f"{function} in MuJoCo C",
            partial(play, _READERS[function]),
            "use `namespace(data.qpos)` for both",
        )
        if in_c is None:
            return
        in_jax = np.concatenate([first[None], later[:COMPARED_STEPS, :ENVIRONMENTS]])
        _compare_engines(function, fields, in_c, in_jax, report)


_READERS: dict[str, Callable[[Twin, np.ndarray], np.ndarray]] = {
    "observe": lambda robot, goal: robot.observation,
    "measure": lambda robot, goal: robot.measure(goal),
}


def _compare_engines(
    function: str,
    fields: tuple[Field | Sensor, ...],
    in_c: np.ndarray,
    in_jax: np.ndarray,
    report: ProblemReport,
) -> None:
    """Checks that a function of the task gives the same in MuJoCo C and in JAX, `[time, env, n]`."""
    if in_c.shape != in_jax.shape:
        report.add(
            f"{function} in MuJoCo C",
            f"gives {list(in_c.shape[2:])}, not {list(in_jax.shape[2:])}",
            "use `namespace(data.qpos)` for both engines",
        )
        return
    error = np.abs(in_c - in_jax) / scales(fields)
    for when, errors, tolerance in (
        ("at a reset", error[0].max(axis=0), RESET_TOLERANCE),
        (f"after {COMPARED_STEPS} steps", error.max(axis=0).min(axis=0), STEP_TOLERANCE),
    ):
        if not errors.max() <= tolerance:
            field = _field_at(fields, int(np.argmax(errors)))
            kind = "observation field" if function == "observe" else "sensor"
            report.add(
                f"{kind} {field.name!r}",
                f"differs between JAX and MuJoCo C by {errors.max():.2g} of its scale {when} (tolerance "
                f"{tolerance:g})",
                f"read only positions, velocities, poses, controls and the time: see `Task.{function}`",
            )
            return


def _field_at(fields: tuple[Field | Sensor, ...], number: int) -> Field | Sensor:
    """Returns the field to which a number of the flat array belongs."""
    places = slices(fields).values()
    return next(f for f, place in zip(fields, places, strict=True) if number < place.stop)
