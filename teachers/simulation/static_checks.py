"""Checks of a task that need no simulation: its declaration, what MJX and JAX make of it, and its goal function."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from teachers.simulation.problem_report import ProblemReport
from teachers.tasks.base import Task
from teachers.tasks.declaration import Camera, Field, GoalSet, Sensor, slices
from teachers.tasks.engines import choose_engine


def check_declaration(task: Task, report: ProblemReport) -> None:
    """Checks fields, action limits and the other class attributes."""
    for kind in ("observation", "goal", "action", "sensors"):
        fields: tuple[Field | Sensor, ...] = getattr(task, kind)
        names = [field.name for field in fields]
        if len(set(names)) < len(names):
            report.block(kind, f"fields {names} repeat a name", "give each its own")
        for field in fields:
            _check_field(kind, field, report)
    if type(task).control is Task.control:
        _check_action_limits(task, report)
    radius, hard, sets = task.success_radius, task.hard_radius, task.goal_sets
    for name, has_type, is_valid in (
        ("summary", isinstance(task.summary, str), lambda: bool(task.summary)),
        ("substeps", isinstance(task.substeps, int), lambda: task.substeps >= 1),
        ("episode_steps", isinstance(task.episode_steps, int), lambda: task.episode_steps >= 2),
        ("success_radius", _is_number(radius), lambda: radius > 0),
        (
            "hard_radius",
            hard is None or (_is_number(hard) and _is_number(radius)),
            lambda: hard is None or 0 < hard < radius,
        ),
        ("camera", isinstance(task.camera, Camera), lambda: True),
        (
            "goal_sets",
            isinstance(sets, tuple) and {*sets} <= {"train", "eval"},
            lambda: "train" in sets,
        ),
    ):
        remedy = "see teachers.tasks.Task for what it is"
        if not has_type:
            report.block(name, repr(getattr(task, name)), remedy)
        elif not is_valid():
            report.add(name, repr(getattr(task, name)), remedy)


def _check_field(kind: str, field: Field | Sensor, report: ProblemReport) -> None:
    what = f"{kind} field {field.name!r}"
    for name in ("name", "unit", "meaning"):
        if not getattr(field, name):
            report.add(
                what,
                f"{name} is empty",
                "declare it; the robot's side reads it (unit '1' for none)",
            )
    if not (isinstance(field.size, int) and field.size >= 1):
        report.block(what, f"size = {field.size!r}", "give the number of values it has")
    if not _is_number(field.scale):
        report.block(what, f"scale = {field.scale!r}", "give its usual magnitude in its unit")
    elif field.scale <= 0:
        report.add(what, f"scale = {field.scale!r}", "give its usual magnitude in its unit")
    low, high = field.low, field.high
    if not all(limit is None or _is_number(limit) for limit in (low, high)):
        report.block(what, f"low = {low!r}, high = {high!r}", "give numbers, or leave them out")
    elif low is None or high is None:
        if kind == "action":
            report.add(what, "low or high is missing", "give what -1 and 1 stand for, in its unit")
    # -1 may stand for the larger limit of an action, such as a gripper's opening.
    elif low == high or (kind != "action" and low > high):
        report.add(what, f"low = {low}, high = {high}", "give low < high")


def _check_action_limits(task: Task, report: ProblemReport) -> None:
    ranges = task.model.actuator_ctrlrange
    for field, place in zip(task.action, slices(task.action).values(), strict=True):
        for end, column in (("low", 0), ("high", 1)):
            declared, of_model = getattr(field, end), ranges[place, column]
            if _is_number(declared) and not np.allclose(declared, of_model, rtol=1e-4, atol=1e-9):
                report.add(
                    f"action field {field.name!r}",
                    f"{end} = {declared:g}, but the model's actuator has {format_values(of_model)}",
                    "make it the actuator's ctrlrange, or override `control`",
                )


def check_engine(task: Task, report: ProblemReport) -> None:
    """Checks that the engine which is used by default here takes the model."""
    report.attempt(
        "the engine does not take the model",
        lambda: task.simulated_by(choose_engine("auto"), 1),
        "build it without that feature",
    )


def check_traces(task: Task, report: ProblemReport) -> None:
    """Checks that JAX can trace the task's functions, and that they return arrays of the declared shapes and types."""
    key, model = jax.random.key(0), task.model
    state = report.attempt("sample_state", lambda: jax.eval_shape(task.sample_state, key))
    if state is None:
        return
    if not (isinstance(state, tuple) and len(state) == 2):
        report.block("sample_state", f"gives {type(state).__name__}", "return (qpos, qvel)")
        return
    for name, size, array in (("qpos", model.nq, state[0]), ("qvel", model.nv, state[1])):
        _check_array(report, f"{name} of sample_state", array, (size,), f"the model's n{name[1]}")
    if report.blocked:
        return

    def observe(key: Key[Array, ""]) -> Any:
        qpos, qvel = task.sample_state(key)
        return task.start_at(qpos, qvel)[1]

    observation = report.attempt("observe", lambda: jax.eval_shape(observe, key))
    if observation is None:
        return
    size = task.observation_size
    _check_array(
        report, "observe", observation, (size,), "the sum of the observation fields' sizes"
    )
    if task.sensors:
        senses = task.with_sensors()
        measured = report.attempt(
            "measure", lambda: jax.eval_shape(lambda key: senses.reset(key).sensed.measured, key)
        )
        if measured is not None:
            sizes = sum(sensor.size for sensor in task.sensors)
            _check_array(report, "measure", measured, (sizes,), "the sum of the sensors' sizes")
    example = jax.ShapeDtypeStruct((size,), jnp.float32)
    for goal_set in task.goal_sets:
        goal = report.attempt(
            f"sample_goal for {goal_set!r}",
            partial(jax.eval_shape, goal_sampler(task, goal_set), key, example),
        )
        if goal is not None:
            _check_array(report, "sample_goal", goal, (task.goal_size,), "the goal fields' sizes")
    achieved = report.attempt("achieved_goal", lambda: jax.eval_shape(task.achieved_goal, example))
    if achieved is not None:
        _check_array(report, "achieved_goal", achieved, (task.goal_size,), "the goal fields' sizes")
    terminated = report.attempt("terminated", lambda: jax.eval_shape(task.terminated, example))
    if terminated is not None:
        _check_array(report, "terminated", terminated, (), "one truth value", "bool")


def _check_array(
    report: ProblemReport,
    what: str,
    array: Any,
    shape: tuple[int, ...],
    meaning: str,
    dtype: str = "float32",
) -> None:
    if getattr(array, "shape", None) != shape:
        returned = list(array.shape) if hasattr(array, "shape") else type(array).__name__
        report.block(what, f"gives {returned}, not {list(shape)}", f"make it {meaning}")
    elif array.dtype != dtype:
        report.block(what, f"gives {array.dtype}", f"return {dtype}")


def check_goal_function(task: Task, report: ProblemReport) -> None:
    """Checks that goals are a function of observations, of any leading axes, on NumPy's and JAX's arrays."""
    rows = np.random.default_rng(0).standard_normal((3, 2, task.observation_size))
    batch = (task.observation_scale * rows).astype(np.float32)
    argument = batch.copy()
    goals = report.attempt(
        "achieved_goal on numpy", lambda: np.asarray(task.achieved_goal(argument))
    )
    if goals is None:
        return
    if not np.array_equal(argument, batch):
        report.add("achieved_goal", "changes its argument", "work on a copy")
    if goals.shape != (3, 2, task.goal_size):
        report.block(
            "achieved_goal",
            f"gives {list(goals.shape)} for observations [3, 2, {task.observation_size}]",
            "index the last axis, as in `observation[..., 0:2]`",
        )
        return
    goals = goals.copy()
    single = [[np.asarray(task.achieved_goal(one.copy())) for one in row] for row in batch]
    again = np.asarray(task.achieved_goal(batch.copy()))
    if not _goals_agree(task, goals, single) or not _goals_agree(task, goals, again):
        report.add(
            "achieved_goal",
            "gives different goals for the same observation",
            "compute it from its argument alone, row by row",
        )
    in_jax = report.attempt("achieved_goal on jax", lambda: task.achieved_goal(jnp.asarray(batch)))
    if in_jax is not None and not _goals_agree(task, goals, in_jax):
        report.add("achieved_goal", "differs between numpy and jax", "use `namespace(observation)`")
    flat = goals.reshape(6, -1)
    for field, place in zip(task.goal, slices(task.goal).values(), strict=True):
        if (flat[:, place] == flat[:1, place]).all(axis=0).any():
            report.add(
                f"goal field {field.name!r}",
                "does not depend on the observation",
                "observe what it is about, and take it from there in achieved_goal",
            )
    for name, values in (("numpy", batch), ("jax", jnp.asarray(batch))):
        terminated = report.attempt(f"terminated on {name}", partial(task.terminated, values))
        if terminated is not None and np.shape(terminated) != (3, 2):
            report.block(
                "terminated",
                f"gives {list(np.shape(terminated))} for [3, 2, obs]",
                "use the last axis",
            )
    position = report.attempt(
        "goal_position",
        lambda: np.asarray(task.goal_position(goals[0, 0]), float),
        "override it to say where a picture shows a goal",
    )
    if position is not None and position.shape != (3,):
        report.add("goal_position", f"gives {list(position.shape)}", "return x, y and z in metres")


def _goals_agree(task: Task, goals: np.ndarray, others: Any) -> bool:
    tolerance = 1e-4 * task.goal_scale
    difference = np.abs(goals - np.asarray(others))
    return bool(((difference <= tolerance) | np.isnan(difference)).all())


def goal_sampler(task: Task, goal_set: GoalSet) -> Callable[[Key[Array, ""], Array], Array]:
    """Returns a function from a key and an observation to a goal of `goal_set`."""
    return lambda key, observation: task.sample_goal(key, observation, goal_set)


def format_values(values: Any) -> str:
    """Returns numbers as text with three digits each."""
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)
