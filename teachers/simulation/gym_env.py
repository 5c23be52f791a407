"""Tasks as Gymnasium environments with goals, in MuJoCo C.

Importing this module registers `crl-distill/NAME-v0` for every task that has a name:

    import gymnasium
    import export.gym_env

    env = gymnasium.make("crl-distill/reacher-v0")

`gymnasium.make("export.gym_env:crl-distill/reacher-v0")` imports it by itself.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float

from teachers.runs.errors import InputError
from teachers.simulation.c_twin import Twin
from teachers.simulation.render import Renderer
from teachers.simulation.scene import Frame, Pose
from teachers.tasks import GoalSet, Task
from teachers.tasks.registry import TASKS, get_task, task_names

NAMESPACE = "crl-distill"

Observation = dict[str, Any]  # `observation` [obs], `achieved_goal` [goal], `desired_goal` [goal]
SENSOR_MODES = ("noisy", "clean")


class TaskEnv(gymnasium.Env[Observation, np.ndarray]):
    """One environment of a task, with the goal interface of Gymnasium-Robotics.

    An observation is a dict of float32 arrays: `observation` `[obs]`, `achieved_goal` `[goal]` and `desired_goal`
    `[goal]`, in the units of the task's fields. An action is float32 `[act]` in [-1, 1]. The reward is 0 within
    the task's success radius and -1 elsewhere.

    With `sensors` the dict has also what the task's sensors read, `sensors`, and the goal as the robot knows it, `sensed_goal`,
    which are what a student that reads sensors is given: `noisy` with noise, delay and all that the task declares of them, or
    `clean` without.

    `info` holds `is_success` (within the radius, and the episode has not ended early), `is_terminated`, `broken`, and
    `steps`, the control steps taken in this episode. An episode is truncated after the task's `episode_steps`;
    where `gymnasium.make` made the environment, its wrapper `TimeLimit` does this, after `max_episode_steps` if it was
    given. Where the simulation diverges, `broken` is True: the episode is terminated with a reward of -1, and the observation is the last
    one that was finite.

    It can be copied with `copy.deepcopy` and pickled: the copy goes on from the same state, and draws in a process of its
    own. A task from a file is loaded from there again where it is unpickled.

    Attributes:
        task: what is simulated.
        goal_set: which goals episodes get.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50.0}

    def __init__(
        self,
        task: str | Task,
        render_mode: str | None = None,
        goal_set: GoalSet | None = None,
        render_size: int = 320,
        is_limited: bool = False,
        sensors: str | None = None,
    ) -> None:
        """Builds an environment, whose first episode starts with `reset`.

        Args:
            task: a `Task`, or what `get_task` takes: a name, or `path/to/file.py:Class`.
            render_mode: `rgb_array`, for `render`.
            goal_set: `train` or `eval`; by default the one that results are measured on.
            render_size: pixels of a picture's edge.
            is_limited: whether Gymnasium's wrapper `TimeLimit` truncates the episodes, and not the environment.
            sensors: how the task's sensors are read, `noisy` or `clean`; by default they are not.

        Raises:
            InputError: there is no such task, render mode or goal set, or the task declares no sensors.
        """
        self.task = task if isinstance(task, Task) else get_task(task)
        self._sensors = _choose_sensors(self.task, sensors)
        self.goal_set = _choose_goal_set(self.task, goal_set)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise InputError(f"render_mode = {render_mode!r}; choose 'rgb_array' or None")
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": 1 / self.task.control_period}
        sizes = {
            "observation": self.task.observation_size,
            "achieved_goal": self.task.goal_size,
            "desired_goal": self.task.goal_size,
        }
        played = self.task if sensors is None else self.task.with_sensors()
        if sensors is not None:
            sizes |= {
                "sensors": played.read_sizes["observation"],
                "sensed_goal": played.read_sizes["goal"],
            }
        self.observation_space = spaces.Dict(
            {name: spaces.Box(-np.inf, np.inf, (size,)) for name, size in sizes.items()}
        )
        self.action_space = spaces.Box(-1.0, 1.0, (self.task.action_size,))
        self._twin = Twin(played)
        self._goal: np.ndarray | None = None  # until the first reset
        self._steps = 0
        self._render_size = render_size
        self._is_limited = is_limited
        self._renderer: Renderer | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode with a new state and a new goal.

        Args:
            seed: of this and, until the next seed, of all later episodes.
            options: `goal` `[goal]`, a goal to use instead of a random one.

        Raises:
            InputError: an option has another name, or the goal another size.
        """
        if unknown := set(options or {}) - {"goal"}:
            raise InputError(f"unknown options {sorted(unknown)}; there is 'goal' alone")
        chosen_goal = (options or {}).get("goal")
        if chosen_goal is not None:
            chosen_goal = _to_vector(chosen_goal, self.task.goal_size, "goal")
        super().reset(seed=seed)
        key = jax.random.key(int(self.np_random.integers(2**31)))
        sampled_goal = self._twin.restart(key, self.goal_set)
        self._goal = sampled_goal if chosen_goal is None else chosen_goal
        self._steps = 0
        return self._observe()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Advances by one control period with `action` `[act]`, clipped to [-1, 1].

        Raises:
            InputError: the action has another size, or is not finite.
            ResetNeeded: no episode has been started.
        """
        if self._goal is None:
            raise gymnasium.error.ResetNeeded("call `reset` before `step`")
        self._twin.step(_to_vector(action, self.task.action_size, "action"))
        self._steps += 1
        observation, info = self._observe()
        goals = observation["achieved_goal"], observation["desired_goal"]
        return (
            observation,
            float(self.compute_reward(*goals, info)),
            self.compute_terminated(*goals, info),
            self.compute_truncated(*goals, info),
            info,
        )

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """Returns 0 where the goals are within the success radius of each other, and -1 elsewhere and in broken steps.

        Args:
            achieved_goal: `[*batch, goal]`.
            desired_goal: `[*batch, goal]`.
            info: of the step, or of all steps of the batch: one dict of arrays, or a sequence of dicts. In None, and in a
                dict without `broken`, no step is broken.

        Returns:
            `[*batch]`, float32.
        """
        distance = self.task.goal_distance(np.asarray(achieved_goal), np.asarray(desired_goal))
        is_near = (distance < self.task.success_radius) & ~_broken_steps(info)
        return np.where(is_near, np.float32(0.0), np.float32(-1.0))[()]

    def compute_terminated(
        self, achieved_goal: Any, desired_goal: Any, info: dict[str, Any]
    ) -> bool:
        """Returns whether the episode ended early at the step of `info`, which does not depend on the goals."""
        return bool(info["is_terminated"])

    def compute_truncated(
        self, achieved_goal: Any, desired_goal: Any, info: dict[str, Any]
    ) -> bool:
        """Returns whether the episode was complete at the step of `info`, which does not depend on the goals.

        It is never so where Gymnasium's wrapper limits the episodes.
        """
        return not self._is_limited and bool(info["steps"] >= self.task.episode_steps)

    def render(self) -> Frame | None:
        """Returns a picture of the current state and goal, uint8 `[height, width, 3]`; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() draws nothing; make it with render_mode='rgb_array'")
            return None
        if self._goal is None:
            raise gymnasium.error.ResetNeeded("call `reset` before `render`")
        pose = Pose(self._twin.qpos, self.task.goal_position(self._goal))
        return self._open_renderer().draw([pose])[0]

    @property
    def render_backend(self) -> str:
        """What draws the pictures: `egl`, `osmesa`, or `matplotlib` where neither of these works."""
        return self._open_renderer().backend

    def close(self) -> None:
        """Ends the process that draws; `render` starts another one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "TaskEnv":
        memo |= {id(task): task for task in (self.task, self._twin.task)}  # tasks do not change
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        state = {**self.__dict__, "_renderer": None}
        copied.__dict__.update({name: copy.deepcopy(part, memo) for name, part in state.items()})
        return copied

    def __getstate__(self) -> dict[str, Any]:
        twin = copy.copy(self._twin)
        twin.task = None  # type: ignore[assignment] # until it is unpickled
        return {**self.__dict__, "_renderer": None, "_twin": twin, "task": _recipe(self.task)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.task, str):
            self.task = get_task(self.task)
        self._twin.task = self.task.with_sensors() if self._sensors else self.task

    def _open_renderer(self) -> Renderer:
        if self._renderer is None:
            self._renderer = Renderer(self.task, self._render_size)
        return self._renderer

    def _observe(self) -> tuple[Observation, dict[str, Any]]:
        assert self._goal is not None
        observation = self._twin.observation.copy()
        broken = self._twin.broken
        terminated = broken or bool(self._steps and self.task.terminated(observation))
        within = bool(self.task.distance(observation, self._goal) < self.task.success_radius)
        observations = {
            "observation": observation,
            "achieved_goal": np.array(self.task.achieved_goal(observation), np.float32),
            "desired_goal": self._goal.copy(),
        }
        if self._sensors == "noisy":
            read = self._twin.sense(self._goal, self.np_random)
        elif self._sensors == "clean":
            read = self._twin.task.split_reading(self._twin.measure(self._goal), self._goal)
        if self._sensors:
            observations |= dict(zip(("sensors", "sensed_goal"), map(np.array, read), strict=True))
        info = {
            "is_success": within and not terminated,
            "is_terminated": terminated,
            "broken": broken,
            "steps": self._steps,
        }
        return observations, info


def _broken_steps(info: Any) -> Bool[np.ndarray, "*batch"]:
    """Returns which steps were broken according to their `info`, in the forms that `compute_reward` takes."""
    if info is None or isinstance(info, Mapping):
        return np.asarray((info or {}).get("broken", False), bool)
    return np.array([(each or {}).get("broken", False) for each in info], bool)


def _recipe(task: Task) -> Task | str:
    """Returns what a pickled environment holds in place of its task: a reference to it where there is one."""
    if task.source:  # the class is in a module that another process cannot import
        return task.source
    if task.name in task_names() and get_task(task.name) is task:
        return task.name
    bare = copy.copy(task)
    for computed in (
        "jax_simulation",
        "kinematics",
        "_simulation",
        "_robot",
    ):  # MuJoCo C does not need them
        bare.__dict__.pop(computed, None)
    return bare


def _choose_sensors(task: Task, sensors: str | None) -> str | None:
    if sensors is None:
        return None
    if sensors not in SENSOR_MODES:
        raise InputError(f"sensors = {sensors!r}; choose 'noisy', 'clean' or None")
    if not task.sensors:
        raise InputError(
            f"task {task.name} declares no sensors; declare them, or leave out sensors = {sensors!r}"
        )
    return sensors


def _choose_goal_set(task: Task, goal_set: GoalSet | None) -> GoalSet:
    if goal_set is None:
        return task.evaluation_goals
    if goal_set not in task.goal_sets:
        raise InputError(
            f"task {task.name} has no goal set {goal_set!r}; choose one of: {', '.join(task.goal_sets)}"
        )
    return goal_set


def _to_vector(value: Any, size: int, what: str) -> Float[np.ndarray, "n"]:
    """Returns a copy of `value` as float32 `[size]`.

    Raises:
        InputError: it has another size, or is not finite.
    """
    vector = np.array(value, np.float32)
    if vector.shape != (size,):
        raise InputError(f"{what} has shape {vector.shape}; give ({size},)")
    if not np.isfinite(vector).all():
        raise InputError(f"{what} = {vector}; give finite numbers")
    return vector


# An entry point may have a name that Gymnasium does not take as an id, and that no task may have.
for _name in filter(re.compile(r"[\w-]+").fullmatch, task_names()):
    # How long the episodes of an installed package's task are is not known before it is loaded.
    _steps = TASKS[_name].episode_steps if _name in TASKS else None
    gymnasium.register(
        id=f"{NAMESPACE}/{_name}-v0",
        entry_point="teachers.simulation.gym_env:TaskEnv",
        kwargs={"task": _name, "is_limited": _steps is not None},
        max_episode_steps=_steps,
    )
