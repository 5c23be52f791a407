"""The class from which tasks are derived: one declaration, from which simulation, deployment and documentation follow."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Int, Key

from teachers.runs.errors import InputError
from teachers.runs.streams import Stream, stream_key
from teachers.tasks.actuators import control_limits
from teachers.tasks.c_engine import CSimulation, simulate_with_c
from teachers.tasks.declaration import (
    Camera,
    Field,
    GoalSet,
    Physics,
    Sensor,
    State,
    namespace,
    scales,
)
from teachers.tasks.disturbance import (
    DISTURBANCE_FIELDS,
    Disturbances,
    Disturbed,
    Robot,
    apply_delay,
    describe_disturbance,
    disturb_reading,
    draw_disturbance,
    find_robot,
    push_force,
    shift_start,
)
from teachers.tasks.engines import (
    Engine,
    MjxSimulation,
    require_engine_with_disturbances,
    require_sensors_of_mjx,
    require_warp,
    simulate_with_jax,
    simulate_with_warp,
)
from teachers.tasks.kinematics import Kinematics
from teachers.tasks.model_state import initial_internal, initial_mocap, normalize_quaternions
from teachers.tasks.names import find
from teachers.tasks.sensors import (
    SensorErrors,
    read_sensors,
    require_sensors,
    sensor_errors,
    unread,
)


class Task(ABC):
    """A goal-reaching problem.

    A subclass declares the class attributes below and implements `build`, `sample_state`, `sample_goal`, `observe` and
    `achieved_goal`. Nothing else is needed to train, distill, export and play it.

    Its dynamics are functions of one environment; callers batch them with `jax.vmap`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    observation: tuple[Field, ...]
    goal: tuple[Field, ...]
    action: tuple[Field, ...]
    substeps: ClassVar[int]  # physics steps in a control step
    episode_steps: ClassVar[int]
    success_radius: ClassVar[float]  # in the goal's unit
    hard_radius: ClassVar[float | None] = None  # a stricter one, on which success is reported too
    camera: Camera
    goal_sets: ClassVar[tuple[GoalSet, ...]] = ("train",)
    training: ClassVar[Mapping[str, Any]] = {}  # default settings of its teachers, by dotted key
    distillation: ClassVar[Mapping[str, Any]] = {}  # of its students
    source: str = ""  # `/path/to/file.py:Class` where `get_task` loaded it from a file
    source_digest: str = ""  # SHA-256 of that file
    sensors: tuple[Sensor, ...] = ()  # what a robot measures; by default the observation
    disturbances: Disturbances | None = None  # see `disturbed_by`
    senses: bool = False  # see `with_sensors`
    knows_disturbances: bool = False  # see `knowing_disturbances`
    reads_declared: bool = False  # see `reading_declared`
    _simulation: MjxSimulation | CSimulation | None = None  # of the physics; None: `jax_simulation`

    def __init__(self) -> None:
        """Builds the model.

        Raises:
            InputError: the model's actuators do not match the declared action.
        """
        self.model: mujoco.MjModel = self.build().compile()
        self.rest_control = np.zeros(self.model.nu, np.float32)
        self.read_model()
        for kind in ("observation", "goal", "action"):
            _require_fields(self.name, kind, getattr(self, kind))
        require_sensors(self.name, self.sensors)
        if type(self).control is not Task.control:
            control_size = self.control(np.zeros(self.action_size, np.float32)).shape[-1]
        elif self._moves_mocap and not self.model.nu:
            control_size = 0
        else:
            control_size = self.action_size  # one number for each actuator
        if control_size != self.model.nu:
            raise InputError(
                f"task {self.name}: the model has {self.model.nu} actuators but is sent {control_size} numbers; declare "
                "an action number for each actuator, or override `control`"
                + (", or `move_mocap` for its mocap bodies" if self.model.nmocap else "")
            )
        if type(self).control is Task.control:
            _ = self._control_limits  # raises its error here

    # What a task declares.

    @abstractmethod
    def build(self) -> mujoco.MjSpec:
        """Returns the task's model, without a goal marker."""

    @abstractmethod
    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        """Returns joint positions and velocities for the start of an episode."""

    @abstractmethod
    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        """Returns a goal for an episode that starts at `observation`."""

    @abstractmethod
    def observe(self, data: Any) -> Any:
        """Returns the observation `[obs]` in `data`, an `mjx.Data` or a `mujoco.MjData`.

        Poses and velocities of the bodies (`xpos`, `site_xpos`, `cinert`, `cvel`, ...) are current, `time` counts from
        the episode's start, and `ctrl` is what the actuators were sent last, after a reset `rest_control` (zeros). Contacts,
        tendons, forces and sensors must not be read.
        Write it with the array's own namespace (`namespace(data.qpos)`), so that it serves all engines.
        """

    @abstractmethod
    def achieved_goal(self, observation: Any) -> Any:
        """Returns the goal `[*batch, goal]` that is achieved at `observation` `[*batch, obs]`."""

    def measure(self, data: Any, goal: Any) -> Any:
        """Returns what the sensors measure, `[sens]`, before what `sensors` says of their errors.

        By default it is the observation. Beside what `observe` may read there is `sensordata`, of which `read_sensor` returns a
        sensor's part. It belongs to the beginning of the last physics step, as `mj_step` leaves it.
        """
        return self.observe(data)

    def terminated(self, observation: Any) -> Any:
        """Returns whether the episode ends early at `observation` `[*batch, obs]`, for example by a fall.

        By default it never does.
        """
        return namespace(observation).zeros(observation.shape[:-1], dtype=bool)

    def goal_position(self, goal: Any) -> tuple[float, float, float]:
        """Returns where a picture shows `goal` `[goal]`, in world coordinates (m)."""
        x, y, *rest = (float(value) for value in goal)
        return (x, y, rest[0] if rest else 0.0)

    def control(self, action: Any) -> Any:
        """Returns what the actuators are sent, `[nu]`, for an action in [-1, 1].

        By default -1 and 1 are the ends of each actuator's control range, or of the action's field where an actuator has
        none.
        """
        xp = namespace(action)
        if not self.model.nu:  # the action moves mocap bodies alone
            return xp.zeros(0, dtype=action.dtype)
        low, high = self._control_limits
        return low + (xp.clip(action, -1.0, 1.0) + 1.0) / 2.0 * (high - low)

    def move_mocap(self, mocap: Any, action: Any) -> Any:
        """Returns the poses of the mocap bodies in a control step with an action in [-1, 1].

        By default they stay. Write it with the array's own namespace, so that it serves all engines.

        Args:
            mocap: their poses before: position (m) and unit quaternion of each, `[nmocap, 7]`.
            action: of the policy, `[act]`.
        """
        return mocap

    def read_model(self) -> None:  # noqa: B027 - most tasks have nothing to do
        """Declares what depends on the compiled model: fields, or `rest_control`. By default nothing does."""

    def read_sensor(self, data: Any, name: str) -> Any:
        """Returns the values of a sensor of the model in `data.sensordata`.

        Raises:
            InputError: the model has no sensor of this name.
        """
        number = find(self.model, "sensor", name)
        start = int(self.model.sensor_adr[number])
        return data.sensordata[start : start + int(self.model.sensor_dim[number])]

    # What follows from the declaration.

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
    def declared_observation(self) -> tuple[Field, ...]:
        """The fields of the observation without those of the disturbance that `knowing_disturbances` adds."""
        if not self.knows_disturbances:
            return self.observation
        return self.observation[: -len(DISTURBANCE_FIELDS)]

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers in an observation, a goal and an action as they are declared, by these names."""
        return {
            "observation": sum(field.size for field in self.declared_observation),
            "goal": self.goal_size,
            "action": self.action_size,
        }

    @property
    def measured(self) -> tuple[Sensor, ...]:
        """What the sensors measure: those that are declared, or the fields of the observation without errors."""
        return self.sensors or tuple(Sensor(*field) for field in self.declared_observation)

    @property
    def read_fields(self) -> tuple[Field | Sensor, ...]:
        """What a policy reads beside its goal: the fields of the observation, or with `with_sensors` the sensors."""
        if not self.senses:
            return self.declared_observation if self.reads_declared else self.observation
        return tuple(sensor for sensor in self.measured if not sensor.is_goal)

    @property
    def read_goal_fields(self) -> tuple[Field | Sensor, ...]:
        """What a policy reads as its goal: its fields, or with `with_sensors` the sensors that are one, if there are any."""
        goals = tuple(sensor for sensor in self.sensors if sensor.is_goal)
        return goals if goals and self.senses else self.goal

    @property
    def read_sizes(self) -> dict[str, int]:
        """Numbers in what a policy reads, in its goal and in an action, by the names of `sizes`."""
        return {
            "observation": sum(field.size for field in self.read_fields),
            "goal": sum(field.size for field in self.read_goal_fields),
            "action": self.action_size,
        }

    @property
    def observation_scale(self) -> np.ndarray:
        """What networks divide observations by, `[obs]`."""
        return scales(self.observation)

    @property
    def goal_scale(self) -> np.ndarray:
        """What networks divide goals by, `[goal]`."""
        return scales(self.goal)

    @property
    def control_period(self) -> float:
        """Seconds between two actions."""
        return float(self.substeps * self.model.opt.timestep)

    @property
    def _moves_mocap(self) -> bool:
        return type(self).move_mocap is not Task.move_mocap

    @property
    def contacts(self) -> int:
        """The largest number of contacts: MJX solves for that many in every step, whether bodies touch or not."""
        return int(self.jax_simulation.data._impl.ncon)

    @property
    def engine(self) -> Engine:
        """The engine that computes the physics."""
        return self._simulation.engine if self._simulation else "jax"

    @property
    def evaluation_goals(self) -> GoalSet:
        """The goal set on which results are measured."""
        return "eval" if "eval" in self.goal_sets else "train"

    def distance(self, observation: Any, goal: Any) -> Any:
        """Returns the distance `[*batch]`, in the goal's unit, from `observation` `[*batch, obs]` to `goal`."""
        return self.goal_distance(self.achieved_goal(observation), goal)

    def goal_distance(self, achieved: Any, goal: Any) -> Any:
        """Returns the distance `[*batch]` from `achieved` `[*batch, goal]` to `goal` `[*batch, goal]`."""
        return namespace(goal).linalg.norm(achieved - goal, axis=-1)

    # Actions in the actuators' units.

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
        """Returns `action` `[*batch, act]`, given in [-1, 1], in the units of its fields, clipped to their limits.

        Raises:
            InputError: as `action_limits`.
        """
        low, high = self.action_limits
        physical = low + (action + 1.0) * (0.5 * (high - low))
        # Rounding can exceed a limit by the last digit.
        return namespace(action).clip(physical, np.minimum(low, high), np.maximum(low, high))

    def from_actuator_units(self, action: Any) -> Any:
        """Returns `action` `[*batch, act]`, given in the units of its fields, in [-1, 1].

        Raises:
            InputError: as `action_limits`.
        """
        low, high = self.action_limits
        return (action - low) * (2.0 / (high - low)) - 1.0

    # Other versions of the task.

    def simulated_by(self, engine: Engine, environments: int) -> "Task":
        """Returns the same task, with its physics computed by an engine.

        Args:
            engine: `c`: MuJoCo C, on the CPU; `jax`: MJX; or `warp`: NVIDIA's kernels, for NVIDIA's GPUs.
            environments: the largest number simulated at once; Warp allocates memory for their contacts.

        Raises:
            InputError: the engine cannot run here, or does not support this model or disturbances; the message says which.
        """
        if engine == "c":
            return self._with_simulation(self._c_simulation)
        if engine == "jax":
            return self._with_simulation(self.jax_simulation)
        if self.disturbances is not None:
            require_engine_with_disturbances(engine)
        require_warp()
        constraints = max(1, int(self.jax_simulation.data._impl.nefc))
        contacts = environments * max(1, self.contacts)
        return self._with_simulation(
            simulate_with_warp(self.model, self.name, contacts=contacts, constraints=constraints)
        )

    def disturbed_by(self, disturbances: Disturbances) -> "Task":
        """Returns the same task, with every episode disturbed by values drawn from these ranges at its start.

        Goals are drawn as in the undisturbed task, and so are initial states unless the disturbances shift them.
        Observations contain no noise: `sense` adds it.

        Raises:
            InputError: the task is simulated by Warp.
        """
        require_engine_with_disturbances(self.engine)
        task = copy.copy(self)
        task.disturbances = disturbances
        return task

    def with_sensors(self) -> "Task":
        """Returns the same task with its sensors simulated: `sense` gives what they read in place of the observation.

        Raises:
            InputError: the engine does not compute the model's sensors.
        """
        task = copy.copy(self)
        task.senses = True
        task.__dict__.pop("_c_simulation", None)  # in which MuJoCo's sensors are switched off
        if task.engine == "c":
            return task._with_simulation(task._c_simulation)
        if task.sensors and task.model.nsensordata:
            require_sensors_of_mjx(task._simulation or task.jax_simulation, self.name)
        return task

    def knowing_disturbances(self) -> "Task":
        """Returns the same task whose observation has at its end what disturbs the episode, which no robot measures.

        A teacher with it is called privileged, after Kumar et al., "RMA: Rapid Motor Adaptation for Legged Robots"
        (arXiv 2107.04034).
        """
        task = copy.copy(self)
        task.observation = (*self.observation, *DISTURBANCE_FIELDS)
        task.knows_disturbances = True
        return task

    def reading_declared(self) -> "Task":
        """Returns the same task, of whose observation a policy reads what is declared, and not what disturbs the episode."""
        task = copy.copy(self)
        task.reads_declared = True
        return task

    def disturb(self, ranges: Mapping[str, Any], key: Key[Array, ""]) -> Disturbed:
        """Returns the disturbance of the episode that `reset` starts with `key`.

        Args:
            ranges: the fields of `Disturbances`, which may be traced.
            key: that of `reset`.
        """
        return draw_disturbance(
            ranges,
            stream_key(key, Stream.DISTURBANCE),
            action_size=self.action_size,
            read_size=self.read_sizes["observation"],
            episode_steps=self.episode_steps,
            force=self.push_scale,
            radius=self._robot.radius,
        )

    # Dynamics of one environment.

    def reset(self, key: Key[Array, ""], goal_set: GoalSet = "train") -> State:
        """Returns an environment at the start of an episode, with a new state and a new goal."""
        state_key, goal_key = jax.random.split(key)
        qpos, qvel = self.sample_state(state_key)
        if self.disturbances and self.disturbances.start:
            shift_key = stream_key(key, Stream.START)
            qpos = shift_start(
                self.model, self._robot.joints, qpos, self.disturbances.start, shift_key
            )
        physics, observation = self.start_at(qpos, qvel)
        steps = jnp.zeros((), jnp.int32)
        goal = self.sample_goal(goal_key, observation, goal_set)
        sensed: Any = ()
        if self.senses:
            measured = self._measure(physics, jnp.asarray(self.rest_control), steps, goal)
            sensed = unread(self._sensor_errors, measured)
        disturbed: Any = ()
        if self.disturbances:
            disturbed = self.disturb(self.disturbances.model_dump(), key)
        return State(
            physics=physics,
            observation=self.add_disturbance(observation, disturbed, steps),
            goal=goal,
            steps=steps,
            terminated=jnp.zeros((), bool),
            disturbed=disturbed,
            sensed=sensed,
        )

    def start_at(
        self, qpos: Float[Array, "nq"], qvel: Float[Array, "nv"]
    ) -> tuple[Physics, Float[Array, "obs"]]:
        """Returns the physics of an episode that starts there, and its first observation."""
        qpos = normalize_quaternions(self.model, qpos)
        physics = Physics(qpos, qvel, jnp.zeros_like(qvel), *self._initial_rest)
        control = jnp.asarray(self.rest_control)
        if self.senses and self.sensors and self.model.nsensordata:
            physics = physics._replace(sensordata=jnp.zeros(self.model.nsensordata))
            # The sensors of a physics step belong to its beginning.
            physics = physics._replace(
                sensordata=self._engine.advance(physics, control, 1).sensordata
            )
        return physics, self._observe(physics, control, jnp.zeros((), jnp.int32))

    def sense(
        self, state: State, key: Key[Array, ""]
    ) -> tuple[Float[Array, "read"], Float[Array, "read_goal"], State]:
        """Returns what a policy reads in a control step, its goal, and the state of the sensors after they were read.

        Without `with_sensors` these are the observation and the goal. What is read is noisy where the episode is disturbed.
        """
        read, goal = self.declared_part(state.observation), state.goal
        if self.senses:
            read_key, key = jax.random.split(key)
            sensed = read_sensors(self._sensor_errors, state.sensed, state.steps, read_key)
            read, goal = self.split_reading(sensed.reading, goal)
            state = state._replace(sensed=sensed)
        if state.disturbed:
            read, disturbed = disturb_reading(
                state.disturbed, read, self.noise_scale, state.steps, key
            )
            state = state._replace(disturbed=disturbed)
        return read, goal, state

    def split_reading(self, reading: Any, goal: Any) -> tuple[Any, Any]:
        """Returns what a policy reads of the sensors beside its goal, and its goal.

        Args:
            reading: of all sensors, `[*batch, sens]`.
            goal: of the episode, `[*batch, goal]`, which is read where no sensor is the goal.
        """
        is_goal = np.concatenate([np.full(s.size, s.is_goal) for s in self.measured])
        if not is_goal.any():
            return reading, goal
        return reading[..., ~is_goal], reading[..., is_goal]

    def step(self, state: State, action: Float[Array, "act"]) -> State:
        """Returns the environment one control period later.

        Episodes do not restart here: see `teachers.simulation.rollout`. A disturbed environment applies the action
        that its delay selects, with its own model.
        """
        task = self
        if state.disturbed:
            action, disturbed = apply_delay(state.disturbed, action)
            state = state._replace(disturbed=disturbed)
            # Observations stay those of the declared model, as a robot's would.
            force = push_force(disturbed, state.steps)
            task = self._with_simulation(
                self._engine.apply_disturbance(disturbed, self._robot.body, force)
            )
        control, physics, steps = self.control(action), state.physics, state.steps + 1
        if physics.mocap is not None:
            physics = physics._replace(mocap=self.move_mocap(physics.mocap, action))
        physics = task.advance(physics, control)
        observation = self._observe(physics, control, steps)
        if self.senses:
            measured = self._measure(physics, control, steps, state.goal)
            state = state._replace(sensed=state.sensed._replace(measured=measured))
        return state._replace(
            physics=physics,
            observation=self.add_disturbance(observation, state.disturbed, steps),
            steps=steps,
            terminated=self.terminated(observation),
        )

    def add_disturbance(self, observation: Any, disturbed: Any, steps: Any) -> Any:
        """Returns an observation with what disturbs the episode at its end, where the task knows it."""
        if not self.knows_disturbances:
            return observation
        known = describe_disturbance(disturbed, steps, self.push_scale)
        return namespace(observation).concatenate([observation, known])

    def declared_part(self, observation: Any) -> Any:
        """Returns what a policy without sensors reads of `observation`, `[*batch, obs]`."""
        return (
            observation[..., : sum(field.size for field in self.read_fields)]
            if self.reads_declared
            else observation
        )

    @property
    def noise_scale(self) -> np.ndarray:
        """What a disturbance's noise is multiplied by, `[read]`: the scale of each number that is read; 0 of a known disturbance."""
        scale = scales(self.read_fields)
        if self.knows_disturbances and not self.senses:
            scale[self.sizes["observation"] :] = 0.0
        return scale

    @property
    def push_scale(self) -> float:
        """The force (N) that changes the robot's speed by 1 m/s within one control period."""
        return self._robot.mass / self.control_period

    def advance(self, physics: Physics, control: Float[Array, "nu"]) -> Physics:
        """Returns the physics one control period later; nothing is observed."""
        return self._engine.advance(physics, control, self.substeps)

    def _observe(
        self, physics: Physics, control: Float[Array, "nu"], steps: Int[Array, ""]
    ) -> Float[Array, "obs"]:
        return self.observe(self._derive(physics, control, steps))

    def _measure(
        self,
        physics: Physics,
        control: Float[Array, "nu"],
        steps: Int[Array, ""],
        goal: Float[Array, "goal"],
    ) -> Float[Array, "sens"]:
        return self.measure(self._derive(physics, control, steps), goal)

    def _derive(self, physics: Physics, control: Float[Array, "nu"], steps: Int[Array, ""]) -> Any:
        """Returns `mjx.Data` with the poses and velocities of the bodies."""
        return self.kinematics.update(physics, control, steps * jnp.float32(self.control_period))

    @cached_property
    def _control_limits(self) -> tuple[np.ndarray, np.ndarray]:
        return control_limits(self.model, np.arange(self.model.nu), self.action, self.name)

    @cached_property
    def kinematics(self) -> Kinematics:
        """Computes what observations are made of, whatever the engine."""
        return Kinematics(self.model)

    @cached_property
    def jax_simulation(self) -> MjxSimulation:
        """Computes the physics in MJX's implementation in JAX.

        Raises:
            InputError: MJX does not take the model.
        """
        return simulate_with_jax(self.model, self.name)

    @cached_property
    def _initial_rest(self) -> tuple[Any, Any]:
        """What a state has beside positions, velocities and warm start, when an episode starts."""
        return initial_internal(self.model, self.rest_control), initial_mocap(self.model)

    @cached_property
    def _c_simulation(self) -> CSimulation:
        return simulate_with_c(self.model, has_sensors=self.senses)

    @cached_property
    def _sensor_errors(self) -> SensorErrors:
        return sensor_errors(self.measured)

    @property
    def _engine(self) -> MjxSimulation | CSimulation:
        return self._simulation or self.jax_simulation

    @cached_property
    def _robot(self) -> Robot:
        return find_robot(self.model)

    def _with_simulation(self, simulation: MjxSimulation | CSimulation) -> "Task":
        task = copy.copy(self)
        task._simulation = simulation
        return task


def _require_fields(task_name: str, kind: str, fields: Any) -> None:
    """Raises an error if what a task declares as its observation, goal or action is not a tuple of fields.

    Raises:
        InputError: it is not.
    """
    is_tuple = isinstance(fields, tuple) and not isinstance(fields, Field)
    if not is_tuple or not fields or not all(isinstance(field, Field) for field in fields):
        raise InputError(
            f"task {task_name}: {kind} is not a tuple of Field; write ({kind} of one field needs a comma) "
            f"{kind} = (Field(...),)"
        )
