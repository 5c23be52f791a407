"""What a task is: one declaration, from which the simulation, its C twin and the documentation are built.

A task's dynamics are functions of one environment; callers batch them with `jax.vmap`.
"""

import contextlib
import copy
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from teachers.process import mjx
from teachers.runs.errors import InputError
from teachers.tasks.disturbance import (
    DRAW,
    Disturbances,
    Disturbed,
    Robot,
    changed,
    delayed,
    draw,
    noisy,
    pushed_robot,
    pushing,
)

# Default settings of robots that walk for 1,000 steps: a longer horizon, and fewer of the long evaluations.
WALKING: Mapping[str, Any] = {
    "steps": 8_000_000,
    "learning.discount": 0.99,
    "learning.initial_temperature": 0.3,
    "learning.gradient_steps": 128,
    "logging.evaluate_every": 60,
    "logging.episodes": 128,
}

_UNDISTURBED = (
    "physics 'warp' simulates no disturbances; use physics 'jax', or leave the disturbances out"
)

GoalSet = Literal["train", "eval"]
Engine = Literal["jax", "warp"]  # MJX's two implementations


class Field(NamedTuple):
    """One named slice of an observation, goal or action.

    `scale` is its usual magnitude in `unit`: networks read the field divided by it, because their input
    layer's LayerNorm would drown a small field beside a large one. `low` and `high` are physical limits;
    for an action they are what -1 and 1 stand for.
    """

    name: str
    size: int
    unit: str
    meaning: str
    scale: float = 1.0
    low: float | None = None
    high: float | None = None


class Camera(NamedTuple):
    """Where pictures are taken from, in MuJoCo's free-camera terms (metres and degrees)."""

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float = 90.0
    elevation: float = -90.0


class Physics(NamedTuple):
    """All that MuJoCo integrates; everything else in `mjx.Data` is derived from it.

    Carrying this alone keeps states small and checkpoints independent of MJX's internal layout.
    """

    qpos: Float[Array, "*batch nq"]
    qvel: Float[Array, "*batch nv"]
    warmstart: Float[Array, "*batch nv"]


class State(NamedTuple):
    """One environment between two control steps."""

    physics: Physics
    observation: Float[Array, "*batch obs"]
    goal: Float[Array, "*batch goal"]
    steps: Int[Array, "*batch"]  # control steps taken in this episode
    terminated: Bool[Array, "*batch"]
    disturbed: Any = ()  # `Disturbed` where something disturbs this episode


class Task(ABC):
    """A goal-reaching problem on MJX.

    A subclass declares the class attributes below and implements `build`, `sample_state`, `sample_goal`,
    `observe` and `achieved_goal`. Nothing else is needed to train, distill, export and play it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    observation: ClassVar[tuple[Field, ...]]
    goal: ClassVar[tuple[Field, ...]]
    action: ClassVar[tuple[Field, ...]]
    substeps: ClassVar[int]  # physics steps in a control step
    episode_steps: ClassVar[int]
    success_radius: ClassVar[float]  # in the goal's unit
    hard_radius: ClassVar[float | None] = None  # a stricter one, on which success is reported too
    camera: ClassVar[Camera]
    goal_sets: ClassVar[tuple[GoalSet, ...]] = ("train",)
    training: ClassVar[Mapping[str, Any]] = {}  # default teacher settings, by dotted key
    source: str = ""  # `file.py:Class` where `get_task` loaded it from a file
    disturbances: Disturbances | None = None  # see `disturbed_by`

    def __init__(self) -> None:
        self.model: mujoco.MjModel = self.build().compile()
        if self.model.na:
            raise InputError(
                f"task {self.name}: actuators with activation state are not supported; use stateless ones"
            )
        if type(self).control is Task.control:
            sent = self.action_size  # one number for each actuator
        else:
            sent = self.control(np.zeros(self.action_size, np.float32)).shape[-1]
        if sent != self.model.nu:
            raise InputError(
                f"task {self.name}: the model has {self.model.nu} actuators but is sent {sent} numbers; declare an "
                "action number for each actuator, or override `control`"
            )

    @cached_property
    def _mjx_model(self) -> mjx.Model:
        # The first use may be inside a trace.
        with self._explained(), jax.ensure_compile_time_eval():
            # By itself MJX would take the first device of all, which may be another machine's.
            return mjx.put_model(self.model, device=jax.local_devices()[0])

    @cached_property
    def _mjx_data(self) -> mjx.Data:
        with self._explained(), jax.ensure_compile_time_eval():
            return mjx.make_data(self.model, device=jax.local_devices()[0])

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (NotImplementedError, ValueError) as error:
            raise InputError(
                f"MJX does not take the model of task {self.name}: {error}; build it without that feature"
            ) from error

    @cached_property
    def _simulated(self) -> tuple[mjx.Model, mjx.Data]:
        """What `advance` integrates; observations come from MJX's JAX implementation in any case."""
        return self._mjx_model, self._mjx_data

    # Declared by a task.

    @abstractmethod
    def build(self) -> mujoco.MjSpec:
        """The task's model, without goal marker."""

    @abstractmethod
    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        """Joint positions and velocities at the start of an episode."""

    @abstractmethod
    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        """A goal for an episode that starts at `observation`."""

    @abstractmethod
    def observe(self, data: Any) -> Any:
        """The observation `[obs]` in `data`, an `mjx.Data` or a `mujoco.MjData`.

        Poses and velocities of the bodies (`xpos`, `site_xpos`, `cinert`, `cvel`, ...) are current, and `ctrl` is what
        the actuators were sent last, zero after a reset. Contacts, forces and sensors are not to be read.
        Write it with the array's own namespace (`namespace(data.qpos)`), so that it serves both engines.
        """

    @abstractmethod
    def achieved_goal(self, observation: Any) -> Any:
        """The goal `[*batch, goal]` that `observation` `[*batch, obs]` has reached."""

    def terminated(self, observation: Any) -> Any:
        """Whether the episode ends early at `observation` `[*batch, obs]`, by a fall say. By default never."""
        return namespace(observation).zeros(observation.shape[:-1], dtype=bool)

    def goal_position(self, goal: Any) -> tuple[float, float, float]:
        """Where a picture shows `goal` `[goal]`, in world coordinates (m)."""
        x, y, *rest = (float(value) for value in goal)
        return (x, y, rest[0] if rest else 0.0)

    # Derived from the declaration.

    @property
    def observation_size(self) -> int:
        """Numbers in an observation."""
        return sum(field.size for field in self.observation)

    @property
    def goal_size(self) -> int:
        """Numbers in a goal."""
        return sum(field.size for field in self.goal)

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return sum(field.size for field in self.action)

    @property
    def observation_scale(self) -> np.ndarray:
        """What networks divide observations by, `[obs]`."""
        return _scale(self.observation)

    @property
    def goal_scale(self) -> np.ndarray:
        """What networks divide goals by, `[goal]`."""
        return _scale(self.goal)

    @property
    def control_period(self) -> float:
        """Seconds between two actions."""
        return float(self.substeps * self.model.opt.timestep)

    @property
    def contacts(self) -> int:
        """The most contacts at once: MJX computes that many in every step, touching or not."""
        return int(self._mjx_data._impl.ncon)

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers in an observation, a goal and an action, by these names."""
        return {
            "observation": self.observation_size,
            "goal": self.goal_size,
            "action": self.action_size,
        }

    @property
    def evaluation_goals(self) -> GoalSet:
        """The goal set on which results are measured."""
        return "eval" if "eval" in self.goal_sets else "train"

    def distance(self, observation: Any, goal: Any) -> Any:
        """How far, in the goal's unit, `observation` `[*batch, obs]` is from `goal` `[*batch, goal]`: `[*batch]`."""
        return self.goal_distance(self.achieved_goal(observation), goal)

    def goal_distance(self, achieved: Any, goal: Any) -> Any:
        """How far `achieved` `[*batch, goal]` is from `goal` `[*batch, goal]`: `[*batch]`."""
        return namespace(goal).linalg.norm(achieved - goal, axis=-1)

    def control(self, action: Any) -> Any:
        """What the actuators are sent, `[nu]`, for an action in [-1, 1]: by default its place in their control range."""
        xp = namespace(action)
        low, high = self.model.actuator_ctrlrange.T.astype("float32")
        return low + (xp.clip(action, -1.0, 1.0) + 1.0) / 2.0 * (high - low)

    @property
    def action_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """What -1 and 1 stand for in each number of the action, in the units of its fields: float32 `[act]` each.

        Raises:
            InputError: a field of the action does not declare it.
        """
        for field in self.action:
            if field.low is None or field.high is None:
                raise InputError(
                    f"action field {field.name!r} of task {self.name!r} does not say what -1 and 1 stand for; declare "
                    "its low and high, or export with --normalized"
                )
        low, high = (
            np.concatenate([np.full(field.size, getattr(field, end)) for field in self.action])
            for end in ("low", "high")
        )
        return low.astype(np.float32), high.astype(np.float32)

    def to_actuator_units(self, action: Any) -> Any:
        """Returns `action` `[*batch, act]`, which is in [-1, 1], in the units of its fields, clipped to their limits.

        Raises:
            InputError: as of `action_limits`.
        """
        low, high = self.action_limits
        physical = low + (action + 1.0) * (0.5 * (high - low))
        # Rounding can exceed a limit by the last digit.
        return namespace(action).clip(physical, np.minimum(low, high), np.maximum(low, high))

    def from_actuator_units(self, action: Any) -> Any:
        """Returns `action` `[*batch, act]`, which is in the units of its fields, in [-1, 1].

        Raises:
            InputError: as of `action_limits`.
        """
        low, high = self.action_limits
        return (action - low) * (2.0 / (high - low)) - 1.0

    def simulated_by(self, engine: Engine, environments: int) -> "Task":
        """The same task, with its physics computed by one of MJX's implementations.

        Args:
            engine: `jax`, or `warp`: NVIDIA's kernels, made for NVIDIA's hardware.
            environments: the most that are ever simulated at once; Warp keeps room for their contacts.

        Raises:
            InputError: Warp cannot run here, or cannot simulate this model or what disturbs it; the message says why.
        """
        if engine == "jax":
            return self
        if self.disturbances is not None:
            raise InputError(_UNDISTURBED)
        if importlib.util.find_spec("warp") is None:
            raise InputError(
                "physics 'warp' needs the package warp-lang, which is not installed; "
                "pip install 'crl-distill[warp]', or use physics 'jax'"
            )
        import warp
        from mujoco.mjx.third_party import mujoco_warp

        warp.config.log_level = warp.LOG_WARNING  # it reports what it loads, on stdout
        room = environments * max(1, self.contacts)
        rows = max(1, int(self._mjx_data._impl.nefc))
        try:
            with jax.ensure_compile_time_eval():
                model = mjx.put_model(self.model, impl="warp")
                data = mjx.make_data(self.model, impl="warp", naconmax=room, njmax=rows)
                # Few iterations are meant (see `SOLVER` in the tasks), and no cause for a warning at each step.
                overflow = mujoco_warp.OverflowType
                warned = model.opt._impl.warn_overflow & ~int(
                    overflow.ITERATIONS | overflow.LS_ITERATIONS
                )
                model = model.tree_replace({"opt._impl.warn_overflow": warned})
        except (NotImplementedError, ValueError, RuntimeError, AssertionError) as error:
            raise InputError(
                f"physics 'warp' cannot simulate task {self.name} here: {error}; use physics 'jax'"
            ) from None
        return self._simulating(model, data)

    def disturbed_by(self, disturbances: Disturbances) -> "Task":
        """The same task, with every episode disturbed by what it draws from these ranges when it starts.

        Initial states and goals are those of the undisturbed task. Observations hold no noise: `sense` adds it.

        Raises:
            InputError: Warp simulates it.
        """
        if self._simulated[0].impl != mjx.Impl.JAX:
            raise InputError(_UNDISTURBED)
        task = copy.copy(self)
        task.disturbances = disturbances
        return task

    def disturb(self, ranges: Mapping[str, Any], key: Key[Array, ""]) -> Disturbed:
        """What disturbs the episode that `reset` starts with `key`.

        Args:
            ranges: the fields of `Disturbances`, which may be traced.
            key: that of `reset`.
        """
        return draw(
            ranges,
            jax.random.fold_in(key, DRAW),
            action_size=self.action_size,
            episode_steps=self.episode_steps,
            force=self._robot.mass / self.control_period,
        )

    @cached_property
    def _robot(self) -> Robot:
        return pushed_robot(self.model)

    def _simulating(self, model: mjx.Model, data: mjx.Data) -> "Task":
        task = copy.copy(self)
        task.__dict__["_simulated"] = model, data
        return task

    def reset(self, key: Key[Array, ""], goal_set: GoalSet = "train") -> State:
        """One environment at the start of an episode, with a new state and a new goal."""
        state_key, goal_key = jax.random.split(key)
        qpos, qvel = self.sample_state(state_key)
        physics = Physics(qpos, qvel, jnp.zeros_like(qvel))
        observation = self._observe(physics, jnp.zeros(self.model.nu))
        return State(
            physics=physics,
            observation=observation,
            goal=self.sample_goal(goal_key, observation, goal_set),
            steps=jnp.zeros((), jnp.int32),
            terminated=jnp.zeros((), bool),
            disturbed=self.disturb(self.disturbances.model_dump(), key)
            if self.disturbances
            else (),
        )

    def sense(self, state: State, key: Key[Array, ""]) -> Float[Array, "obs"]:
        """What a policy is given: the observation, with noise where the episode is disturbed."""
        if not state.disturbed:
            return state.observation
        return noisy(state.disturbed, state.observation, self.observation_scale, key)

    def step(self, state: State, action: Float[Array, "act"]) -> State:
        """One environment one control period later. Episodes do not restart here: see `teachers.simulation.rollout`.

        A disturbed one takes the action that its delay says, with its own masses and friction.
        """
        task = self
        if state.disturbed:
            action, disturbed = delayed(state.disturbed, action)
            state = state._replace(disturbed=disturbed)
            task = self._under(disturbed, state.steps)
        control = self.control(action)
        physics = task.advance(state.physics, control)
        observation = self._observe(physics, control)
        return state._replace(
            physics=physics,
            observation=observation,
            steps=state.steps + 1,
            terminated=self.terminated(observation),
        )

    def _under(self, disturbed: Disturbed, step: Int[Array, ""]) -> "Task":
        # Observations remain those of the declared model, as a robot's own would.
        model, data = self._simulated
        forces = data.xfrc_applied.at[self._robot.body, :2].set(pushing(disturbed, step))
        return self._simulating(changed(model, disturbed), data.replace(xfrc_applied=forces))

    def advance(self, physics: Physics, control: Float[Array, "nu"]) -> Physics:
        """The simulation alone, one control period later: nothing is observed."""
        model, empty = self._simulated

        def substep(_: Array, physics: Physics) -> Physics:
            data = mjx.step(model, _filled(empty, physics).replace(ctrl=control))
            return Physics(data.qpos, data.qvel, data.qacc_warmstart)

        return jax.lax.fori_loop(0, self.substeps, substep, physics)

    def _observe(self, physics: Physics, control: Float[Array, "nu"]) -> Float[Array, "obs"]:
        # `mjx.step` leaves poses and velocities as they were before its integration: bring them up to date first.
        # What the observation does not read, XLA does not compute.
        model, data = self._mjx_model, _filled(self._mjx_data, physics).replace(ctrl=control)
        return self.observe(mjx.com_vel(model, mjx.com_pos(model, mjx.kinematics(model, data))))


def add_motor(spec: mujoco.MjSpec, joint: str, limit: float) -> None:
    """Adds a motor of the joint's name whose control is its torque (N m) or force (N) within +-`limit`."""
    motor = spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        ctrlrange=[-limit, limit],
    )
    motor.set_to_motor()


def namespace(array: Any) -> Any:
    """The module whose functions take `array`: `jax.numpy` or `numpy`."""
    return array.__array_namespace__()


def _filled(data: mjx.Data, physics: Physics) -> mjx.Data:
    return data.replace(qpos=physics.qpos, qvel=physics.qvel, qacc_warmstart=physics.warmstart)


def _scale(fields: tuple[Field, ...]) -> np.ndarray:
    return np.concatenate([np.full(field.size, field.scale, np.float32) for field in fields])


def slices(fields: tuple[Field, ...]) -> dict[str, slice]:
    """Where each field stands in the flat array, by name."""
    stops = [sum(field.size for field in fields[: i + 1]) for i in range(len(fields))]
    return {
        field.name: slice(stop - field.size, stop)
        for field, stop in zip(fields, stops, strict=True)
    }
