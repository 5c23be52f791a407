"""Finds what is wrong with a task before a training run does: declaration, shapes, MJX, goals, resets, actions."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.process import mjx
from teachers.simulation.c_twin import twins
from teachers.tasks.base import Task
from teachers.tasks.declaration import Camera, Field, GoalSet, State, slices
from teachers.tasks.load import describe_error, error_place, task_file

RESETS = 64
PLAYED = 8  # environments under random actions
STEPS = 50
HELD = 5  # steps that a random action is held
COMPARED = 5  # steps over which the two engines are compared
MAGNITUDE = 40.0  # how far from a field's scale its values may be
AT_RESET = 1e-3  # largest difference of the engines at a reset, in scales
AFTER_STEPS = 0.05  # and after `COMPARED` steps, in every environment: impacts tell them apart
FASTEST = 1e4  # of a joint velocity, in its own unit

CHECKED = (
    "fields, limits and sizes",
    "MJX's support of the model",
    "tracing by JAX",
    "goals as a function of observations",
    f"{RESETS} resets",
    f"{STEPS} steps of random actions",
    "every action by itself",
    f"MJX against MuJoCo C over {COMPARED} steps",
)


class Played(NamedTuple):
    """What one compiled program found: resets, then `PLAYED` environments and two for each action."""

    starts: State  # [RESETS, ...]
    goals: dict[GoalSet, Float[Array, "resets goal"]]
    actions: Float[Array, "time env act"]
    observation: Float[Array, "time env obs"]  # after each step
    qpos: Float[Array, "time env nq"]
    qvel: Float[Array, "time env nv"]


def check_task(task: Task, seed: int = 0) -> list[str]:
    """Looks for mistakes in a task: what would stop or spoil its training and deployment.

    Args:
        task: as `get_task` builds it.
        seed: of resets, goals and actions.

    Returns:
        The problems, each one line that names what, its value and a remedy; empty if none was found. What cannot
        be checked before others are mended is left out.
    """
    check = _Check(task)
    for stage in (check.declaration, check.engine, check.traces, check.goal_function):
        stage()
        if check.stuck:
            return check.problems
    played = check.attempt("a rollout", lambda: jax.jit(check.play)(jax.random.key(seed)))
    if played is not None:
        played = jax.tree.map(np.asarray, played)
        if check.finite(played):
            check.resets(played)
            check.magnitudes(played)
            check.actions(played)
            check.engines(played)
    return check.problems


class _Check:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.problems: list[str] = []
        self.stuck = False  # what follows needs what was found broken

    def say(self, what: str, value: str, remedy: str) -> None:
        self.problems.append(" ".join(f"{what}: {value}; {remedy}".split()))

    def block(self, what: str, value: str, remedy: str) -> None:
        self.say(what, value, remedy)
        self.stuck = True

    def attempt(self, what: str, function: Callable[[], Any], remedy: str = "mend it there") -> Any:
        """What the function returns; None, and a problem, where it raises."""
        try:
            return function()
        except (
            jax.errors.ConcretizationTypeError,
            jax.errors.TracerArrayConversionError,
            jax.errors.UnexpectedTracerError,
        ) as error:
            place = error_place(error, task_file(self.task))
            value = f"JAX cannot trace it: {type(error).__name__} ({place})"
            remedy = "use `jax.numpy`, and `jnp.where` in place of `if`"
        except Exception as error:
            value = f"raises {describe_error(error, task_file(self.task))}"
        self.block(what, value, remedy)
        return None

    # What the class says.

    def declaration(self) -> None:
        task = self.task
        for kind in ("observation", "goal", "action"):
            fields: tuple[Field, ...] = getattr(task, kind)
            names = [field.name for field in fields]
            if len(set(names)) < len(names):
                self.say(kind, f"fields {names} repeat a name", "give each its own")
            for field in fields:
                self._field(kind, field)
        if type(task).control is Task.control:
            self._limits()
        radius, hard, sets = task.success_radius, task.hard_radius, task.goal_sets
        for name, usable, fits in (
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
                isinstance(sets, tuple),
                lambda: "train" in sets and {*sets} <= {"train", "eval"},
            ),
        ):
            remedy = "see teachers.tasks.Task for what it is"
            if not usable:  # what follows could not work with it
                self.block(name, repr(getattr(task, name)), remedy)
            elif not fits():
                self.say(name, repr(getattr(task, name)), remedy)

    def _field(self, kind: str, field: Field) -> None:
        what = f"{kind} field {field.name!r}"
        for name in ("name", "unit", "meaning"):
            if not getattr(field, name):
                self.say(
                    what,
                    f"{name} is empty",
                    "say it; the robot's side reads it (unit '1' for none)",
                )
        if not (isinstance(field.size, int) and field.size >= 1):
            self.block(what, f"size = {field.size!r}", "give the number of values it has")
        if not _is_number(field.scale):
            self.block(what, f"scale = {field.scale!r}", "give its usual magnitude in its unit")
        elif field.scale <= 0:
            self.say(what, f"scale = {field.scale!r}", "give its usual magnitude in its unit")
        low, high = field.low, field.high
        if not all(end is None or _is_number(end) for end in (low, high)):
            self.block(what, f"low = {low!r}, high = {high!r}", "give numbers, or leave them out")
        elif low is None or high is None:
            if kind == "action":
                self.say(
                    what, "low or high is missing", "give what -1 and 1 stand for, in its unit"
                )
        # What an action's -1 stands for may be the larger: a gripper's opening, say.
        elif low == high or (kind != "action" and low > high):
            self.say(what, f"low = {low}, high = {high}", "give low < high")

    def _limits(self) -> None:
        ranges = self.task.model.actuator_ctrlrange
        for field, place in zip(self.task.action, slices(self.task.action).values(), strict=True):
            for end, column in (("low", 0), ("high", 1)):
                said, sent = getattr(field, end), ranges[place, column]
                if _is_number(said) and not np.allclose(said, sent, rtol=1e-4, atol=1e-9):
                    self.say(
                        f"action field {field.name!r}",
                        f"{end} = {said:g}, but the model's actuator has {_short(sent)}",
                        "make it the actuator's ctrlrange, or override `control`",
                    )

    # What JAX and MJX make of it.

    def engine(self) -> None:
        self.attempt(
            "MJX does not take the model",
            lambda: (mjx.put_model(self.task.model), mjx.make_data(self.task.model)),
            "build it without that feature",
        )

    def traces(self) -> None:
        task, key = self.task, jax.random.key(0)
        model = task.model
        state = self.attempt("sample_state", lambda: jax.eval_shape(task.sample_state, key))
        if state is None:
            return
        if not (isinstance(state, tuple) and len(state) == 2):
            self.block("sample_state", f"gives {type(state).__name__}", "return (qpos, qvel)")
            return
        for name, size, found in (("qpos", model.nq, state[0]), ("qvel", model.nv, state[1])):
            self._array(f"{name} of sample_state", found, (size,), f"the model's n{name[1]}")
        if self.stuck:
            return

        def observe(key: Key[Array, ""]) -> Any:
            qpos, qvel = task.sample_state(key)
            data = task.jax_simulation.data.replace(qpos=qpos, qvel=qvel)
            return task.observe(data)

        observation = self.attempt("observe", lambda: jax.eval_shape(observe, key))
        if observation is None:
            return
        size = task.observation_size
        self._array("observe", observation, (size,), "the sum of the observation fields' sizes")
        example = jax.ShapeDtypeStruct((size,), jnp.float32)
        for goal_set in task.goal_sets:
            goal = self.attempt(
                f"sample_goal for {goal_set!r}",
                partial(jax.eval_shape, self._sampler(goal_set), key, example),
            )
            if goal is not None:
                self._array("sample_goal", goal, (task.goal_size,), "the goal fields' sizes")
        achieved = self.attempt(
            "achieved_goal", lambda: jax.eval_shape(task.achieved_goal, example)
        )
        if achieved is not None:
            self._array("achieved_goal", achieved, (task.goal_size,), "the goal fields' sizes")
        ended = self.attempt("terminated", lambda: jax.eval_shape(task.terminated, example))
        if ended is not None:
            self._array("terminated", ended, (), "one truth value", "bool")

    def _sampler(self, goal_set: GoalSet) -> Callable[[Key[Array, ""], Array], Array]:
        return lambda key, observation: self.task.sample_goal(key, observation, goal_set)

    def _array(
        self, what: str, found: Any, shape: tuple[int, ...], meaning: str, dtype: str = "float32"
    ) -> None:
        if getattr(found, "shape", None) != shape:
            given = list(found.shape) if hasattr(found, "shape") else type(found).__name__
            self.block(what, f"gives {given}, not {list(shape)}", f"make it {meaning}")
        elif found.dtype != dtype:
            self.block(what, f"gives {found.dtype}", f"return {dtype}")

    # Goals.

    def goal_function(self) -> None:
        task = self.task
        scale = task.observation_scale
        rows = np.random.default_rng(0).standard_normal((3, 2, task.observation_size))
        batch = (scale * rows).astype(np.float32)
        given = batch.copy()
        goals = self.attempt(
            "achieved_goal on numpy", lambda: np.asarray(task.achieved_goal(given))
        )
        if goals is None:
            return
        if not np.array_equal(given, batch):
            self.say("achieved_goal", "changes its argument", "work on a copy")
        if goals.shape != (3, 2, task.goal_size):
            self.block(
                "achieved_goal",
                f"gives {list(goals.shape)} for observations [3, 2, {task.observation_size}]",
                "index the last axis, as in `observation[..., 0:2]`",
            )
            return
        goals = goals.copy()
        single = [[np.asarray(task.achieved_goal(one.copy())) for one in row] for row in batch]
        again = np.asarray(task.achieved_goal(batch.copy()))
        if not self._same(goals, single) or not self._same(goals, again):
            self.say(
                "achieved_goal",
                "gives different goals for the same observation",
                "compute it from its argument alone, row by row",
            )
        traced = self.attempt(
            "achieved_goal on jax", lambda: task.achieved_goal(jnp.asarray(batch))
        )
        if traced is not None and not self._same(goals, traced):
            self.say(
                "achieved_goal", "differs between numpy and jax", "use `namespace(observation)`"
            )
        flat = goals.reshape(6, -1)
        for field, place in zip(task.goal, slices(task.goal).values(), strict=True):
            if (flat[:, place] == flat[:1, place]).all(axis=0).any():
                self.say(
                    f"goal field {field.name!r}",
                    "does not depend on the observation",
                    "observe what it is about, and take it from there in achieved_goal",
                )
        for name, values in (("numpy", batch), ("jax", jnp.asarray(batch))):
            ended = self.attempt(f"terminated on {name}", partial(task.terminated, values))
            if ended is not None and np.shape(ended) != (3, 2):
                self.block(
                    "terminated",
                    f"gives {list(np.shape(ended))} for [3, 2, obs]",
                    "use the last axis",
                )
        place = self.attempt(
            "goal_position",
            lambda: np.asarray(task.goal_position(goals[0, 0]), float),
            "override it to say where a picture shows a goal",
        )
        if place is not None and place.shape != (3,):
            self.say("goal_position", f"gives {list(place.shape)}", "return x, y and z in metres")

    def _same(self, goals: np.ndarray, others: Any) -> bool:
        tolerance = 1e-4 * self.task.goal_scale
        difference = np.abs(goals - np.asarray(others))
        return bool(((difference <= tolerance) | np.isnan(difference)).all())

    # What it does.

    def play(self, key: Key[Array, ""]) -> Played:
        task = self.task
        reset_key, goal_key, action_key = jax.random.split(key, 3)
        starts = jax.vmap(task.reset)(jax.random.split(reset_key, RESETS))
        goals: dict[GoalSet, Array] = {"train": starts.goal}
        for goal_set in set(task.goal_sets) - {"train"}:
            sample = jax.vmap(self._sampler(goal_set))
            goals[goal_set] = sample(jax.random.split(goal_key, RESETS), starts.observation)
        # Two environments for each action, from the first reset: one with it at 1 and one at -1.
        alone = jnp.eye(task.action_size)
        alone = jnp.concatenate([alone, -alone])
        which = jnp.concatenate([jnp.arange(PLAYED), jnp.zeros(len(alone), int)])
        random = jax.random.uniform(
            action_key, (-(-STEPS // HELD), PLAYED, task.action_size), minval=-1.0
        )
        actions = jnp.concatenate(
            [
                jnp.repeat(random, HELD, axis=0)[:STEPS],
                jnp.broadcast_to(alone, (STEPS, *alone.shape)),
            ],
            axis=1,
        )

        def step(states: State, action: Array) -> tuple[State, tuple[Array, Array, Array]]:
            states = jax.vmap(task.step)(states, action)
            return states, (states.observation, states.physics.qpos, states.physics.qvel)

        first = jax.tree.map(lambda leaf: leaf[which], starts)
        _, (observation, qpos, qvel) = jax.lax.scan(step, first, actions)
        return Played(starts, goals, actions, observation, qpos, qvel)

    def resets(self, played: Played) -> None:
        task, starts = self.task, played.starts
        for goal_set, goals in played.goals.items():
            if (goals == goals[0]).all():
                self.say(
                    f"{goal_set} goals",
                    f"all {RESETS} resets draw the same, {_short(goals[0])}",
                    "draw them from the key of sample_goal",
                )
        if (starts.physics.qpos == starts.physics.qpos[0]).all() and (
            starts.physics.qvel == starts.physics.qvel[0]
        ).all():
            self.say(
                "start states",
                f"all {RESETS} resets draw the same",
                "draw them from the key of sample_state, if only a little apart",
            )
        ended = int(np.asarray(task.terminated(starts.observation)).sum())
        if ended:
            self.say(
                "terminated",
                f"is true at {ended} of {RESETS} resets",
                "keep sample_state away from where episodes end",
            )
        for goal_set, goals in played.goals.items():
            there = int((task.distance(starts.observation, goals) < task.success_radius).sum())
            if there > 0.9 * RESETS:
                self.say(
                    f"{goal_set} goals",
                    f"{there} of {RESETS} are already reached at the reset",
                    f"draw goals farther off, or lower success_radius = {task.success_radius:g}",
                )
            apart = np.median(np.abs(task.achieved_goal(starts.observation) - goals), axis=0)
            far = apart / task.goal_scale > MAGNITUDE
            if far.any():
                at = int(np.argmax(far))
                field = _field_at(task.goal, at)
                self.say(
                    f"goal field {field.name!r}",
                    f"{goal_set} goals lie {apart[at]:.3g} {field.unit} from what starts have achieved, over "
                    f"{MAGNITUDE:g} times its scale {field.scale:g}",
                    "let sample_goal and achieved_goal give the same quantity in the same unit",
                )

    def finite(self, played: Played) -> bool:
        """Whether all numbers are finite; the others make no sense where some are not."""
        for name, rows in (
            ("at a reset", played.starts.observation[None]),
            ("under random actions", played.observation),
        ):
            bad = ~np.isfinite(rows).all(axis=(0, 1))
            if bad.any():
                field = _field_at(self.task.observation, int(np.argmax(bad)))
                self.say(
                    f"observation field {field.name!r}",
                    f"is not finite {name}",
                    "lower the timestep or the actuators' force, or guard what it divides by",
                )
                return False
        for goal_set, goals in played.goals.items():
            if not np.isfinite(goals).all():
                self.say(f"{goal_set} goals", "some are not finite", "mend sample_goal")
                return False
        fastest = float(np.abs(played.qvel).max(initial=0.0))
        if not fastest <= FASTEST:
            self.say(
                "joint velocities",
                f"reach {fastest:.3g} within {STEPS} steps of random actions",
                "add damping or armature, or lower the timestep or the actuators' force",
            )
            return False
        return True

    def magnitudes(self, played: Played) -> None:
        goals = np.concatenate(list(played.goals.values()))
        random = played.observation[:, :PLAYED]
        for kind, fields, rows in (
            ("observation", self.task.observation, random),
            ("goal", self.task.goal, goals),
        ):
            for field, place in zip(fields, slices(fields).values(), strict=True):
                values = np.abs(rows[..., place])
                mean, most = float(values.mean()), float(values.max())
                # A field that stays at 0 may be of something that random actions do not reach.
                small = 0 < most < field.scale / MAGNITUDE
                if small or mean > field.scale * MAGNITUDE:
                    size = most if small else mean
                    self.say(
                        f"{kind} field {field.name!r}",
                        f"scale = {field.scale:g} {field.unit}, but its values are near {size:.2g}",
                        f"set scale={size:.2g}",
                    )

    def actions(self, played: Played) -> None:
        size = self.task.action_size
        state = np.concatenate([played.qpos, played.qvel], axis=-1)[:, PLAYED:]
        apart = np.abs(state[:, :size] - state[:, size:]).max(axis=(0, 2))
        for i in np.flatnonzero(apart < 1e-5):
            field = _field_at(self.task.action, int(i))
            self.say(
                f"action field {field.name!r}",
                f"1 and -1 lead to the same motion (action {i})",
                "look at the actuator's target, gear and ctrlrange",
            )

    def engines(self, played: Played) -> None:
        task = self.task
        starts = jax.tree.map(lambda leaf: leaf[:PLAYED], played.starts)

        def play() -> np.ndarray:
            robots = twins(task, starts)
            rows = [np.stack([robot.observation for robot in robots])]
            for actions in played.actions[:COMPARED, :PLAYED]:
                for robot, action in zip(robots, actions, strict=True):
                    robot.step(action)
                rows.append(np.stack([robot.observation for robot in robots]))
            return np.stack(rows)

        theirs = self.attempt("observe in MuJoCo C", play, "use `namespace(data.qpos)` for both")
        if theirs is None:
            return
        ours = np.concatenate([starts.observation[None], played.observation[:COMPARED, :PLAYED]])
        if theirs.shape != ours.shape:
            self.say(
                "observe in MuJoCo C",
                f"gives {list(theirs.shape[2:])}, not {list(ours.shape[2:])}",
                "use `namespace(data.qpos)` for both engines",
            )
            return
        error = np.abs(theirs - ours) / task.observation_scale
        for when, found, tolerance in (
            ("at a reset", error[0].max(axis=0), AT_RESET),
            (f"after {COMPARED} steps", error.max(axis=0).min(axis=0), AFTER_STEPS),
        ):
            if not found.max() <= tolerance:
                field = _field_at(task.observation, int(np.argmax(found)))
                self.say(
                    f"observation field {field.name!r}",
                    f"differs between MJX and MuJoCo C by {found.max():.2g} of its scale {when} (tolerance "
                    f"{tolerance:g})",
                    "read only positions, velocities and poses, and use no feature that MJX approximates",
                )
                return


def _field_at(fields: tuple[Field, ...], index: int) -> Field:
    places = slices(fields).values()
    return next(f for f, place in zip(fields, places, strict=True) if index < place.stop)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _short(values: Any) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"
