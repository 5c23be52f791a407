"""Runs an exported policy or critic on a robot, with numpy and ONNX Runtime alone.

This file imports nothing else of the project. Copy it to the robot, beside the exported files:

    policy = Policy("policy.onnx", critic="critic.onnx")
    action = policy(observation, goal)  # in the units of the task, such as torques or position targets
    probability = policy.reachability(observation, goal)

It runs in Python 3.8 and later, with numpy 1.21 and onnxruntime 1.12 or later.

Some policies read sensors in place of the observation, and some remember what they read: a `Policy` carries their memory from call
to call, and `reset` starts an episode:

    policy.reset()
    action = policy(sensors, goal)

A `Policy` or a `Critic` reuses its buffers from call to call. Use one in a single thread at a time.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

# Official builds of ONNX Runtime send usage data to Microsoft. ORT_DISABLE_TELEMETRY=0 leaves that on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

PREFIX = "crl_distill."  # begins every key that crl-distill writes into an ONNX file's metadata
FORMAT_VERSION = 4  # newest format of artefacts that this file reads
# Newest contract of exported files that this file reads. The first files have none.
CONTRACT_VERSION = 2
MARGIN = 0.5  # default distance that an input may lie outside its observed range, as a share of the range
MIN_RANGE = 0.1  # an observed range counts as at least this share of the field's scale
HOLD = 0.5  # s for which the last safe action is repeated by default
SPIN = 200e-6  # s of busy waiting before a tick, because a sleeping thread wakes up about this late

FaultResponse = Literal["raise", "hold"]


class FaultError(ValueError):
    """An observation or goal on which the policy must not act."""


class _Network:
    """An exported ONNX file, run on the CPU.

    A single observation goes through buffers that are allocated once and bound to the session. A batch may have any
    size.

    Attributes:
        metadata: the description that the file carries: task, fields of every input and output, units, control
            period, lineage.
        roles: the kinds of file that a subclass opens.
        inputs: the names of the arrays that a call takes: `observation` or `sensors`, `goal`, and a critic's `action`.
        memory_size: numbers that it carries from step to step; 0 for a network that remembers nothing.
    """

    roles: tuple[str, ...]
    further_inputs: tuple[str, ...]  # beside what is read

    def __init__(
        self, path: str | Path, *, margin: float | None, threads: int, spin: bool, warm_up: int
    ) -> None:
        """Opens an exported file. The arguments are those of `Policy`.

        Raises:
            ValueError: ONNX Runtime cannot load the file, or crl-distill did not export it for this use.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
            raise ValueError(
                f"{path} is not a model that ONNX Runtime can load ({reason})"
            ) from None
        self.metadata = read_metadata(self._session.get_modelmeta().custom_metadata_map, str(path))
        role = self.metadata.get("role")
        if role not in self.roles:
            raise ValueError(
                f"{path} is a {role}, not a {self.roles[0]}; give a {' or '.join(self.roles)}.onnx"
            )
        self._output_names = [output.name for output in self._session.get_outputs()]
        described = self.metadata.get("inputs")
        names = tuple(described) if isinstance(described, dict) else ()
        self.inputs = ("sensors" if "sensors" in names else "observation", *self.further_inputs)
        state = ("state",) if "state" in names else ()
        # Files from before the contract describe the action, but not the value.
        described_outputs = [name for name in self._output_names if name == "action"]
        if not (
            _has_fields(described, (*self.inputs, *state))
            and _has_fields(self.metadata.get("outputs"), described_outputs)
        ):
            raise ValueError(f"{path} has damaged metadata; export it again")
        self.memory_size = _count_numbers(self.metadata["inputs"]["state"]) if state else 0
        self._checks = [
            _InputCheck(name, self.metadata["inputs"][name], margin) for name in self.inputs
        ]
        self._bind_buffers()
        for _ in range(warm_up):
            self._session.run_with_iobinding(self._binding)

    def _bind_buffers(self) -> None:
        """Binds the inputs and outputs of a single observation to the session."""
        self._binding = self._session.io_binding()
        self._output_buffers = {
            output.name: np.zeros([1, *output.shape[1:]], np.float32)
            for output in self._session.get_outputs()
        }
        for check in self._checks:
            row = check.buffer
            self._binding.bind_input(check.name, "cpu", 0, np.float32, row.shape, row.ctypes.data)
        self._state_buffer = np.zeros((1, self.memory_size), np.float32)
        if self.memory_size:
            row = self._state_buffer
            self._binding.bind_input("state", "cpu", 0, np.float32, row.shape, row.ctypes.data)
        for name, row in self._output_buffers.items():
            self._binding.bind_output(name, "cpu", 0, np.float32, row.shape, row.ctypes.data)

    def _check_inputs(self, *inputs: Any) -> dict[str, np.ndarray]:
        """Returns the inputs as float32 arrays by name; those of a single observation are in the bound buffers.

        Raises:
            FaultError: an input is at fault, or only some of the inputs are batches, or their sizes differ.
        """
        arrays = {check.name: check(value) for check, value in zip(self._checks, inputs)}
        (first_name, first), *others = arrays.items()
        for name, array in others:
            if array.shape[:-1] != first.shape[:-1]:
                raise FaultError(
                    f"{first_name} has shape {first.shape} but {name} {array.shape}; give all single or all in "
                    "batches of one size"
                )
        return arrays

    def _check_state(self, state: np.ndarray | None, arrays: Mapping[str, np.ndarray]) -> Any:
        """Returns the memory for inputs that `_check_inputs` returned: zeros where it is None, at the start of an episode.

        Raises:
            ValueError: the memory is that of another batch.
        """
        shape = (*next(iter(arrays.values())).shape[:-1], self.memory_size)
        if state is None:
            return np.zeros(shape, np.float32)
        if state.shape != shape:
            raise ValueError(
                f"the memory has shape {state.shape} but the {self.inputs[0]} {(*shape[:-1], '...')}; call `reset` before another "
                "batch"
            )
        return state

    def _compute(
        self, arrays: Mapping[str, np.ndarray], state: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Returns the network's outputs by name, for inputs that `_check_inputs` returned.

        The outputs of a single observation are views of buffers that the next call overwrites.

        Args:
            arrays: the inputs.
            state: the memory before the step, for a network that remembers.

        Raises:
            FaultError: ONNX Runtime cannot compute the batch, for which there may be too little memory.
        """
        first = next(iter(arrays.values()))
        if state is not None:
            if first.ndim == 1:
                self._state_buffer[0] = state
            else:
                arrays = {**arrays, "state": state}
        if first.ndim == 1:
            self._session.run_with_iobinding(self._binding)
            return {name: row[0, ...] for name, row in self._output_buffers.items()}
        try:
            outputs = self._session.run(self._output_names, dict(arrays))
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise FaultError(
                f"ONNX Runtime cannot compute a batch of {len(first)}; give a smaller one"
            ) from error
        return dict(zip(self._output_names, outputs))


class Policy(_Network):
    """An exported policy: `Policy("policy.onnx")(observation, goal)`.

    A policy that remembers carries its memory from call to call: of a single robot, or of each row of a batch. Call it once in
    each control step, and `reset` at the start of an episode, also before a batch of another size. A call that finds an input at fault, or
    holds, leaves the memory as it was: it is that of the last sound reading.

    Attributes:
        action_limits: the smallest and the largest value of each number of an action, `[act]` each; NaN for a number
            without limits.
        held: number of calls that returned the last safe action because of a fault.
        fault: what was wrong in the last of these calls; empty if there was none.
    """

    roles = ("policy", "combined")
    further_inputs = ("goal",)

    def __init__(
        self,
        path: str | Path,
        critic: str | Path | None = None,
        *,
        on_fault: FaultResponse = "raise",
        max_held: float | None = None,
        margin: float | None = MARGIN,
        normalized: bool = False,
        threads: int = 1,
        spin: bool = False,
        warm_up: int = 20,
    ) -> None:
        """Opens an exported policy.

        Args:
            path: a `policy.onnx`, or a `combined.onnx`, which holds the critic too.
            critic: the `critic.onnx` of the same export, for `reachability`; a `combined.onnx` needs none.
            on_fault: the response to an input that has a wrong shape or type, is not finite, or lies far outside the
                range observed in training: raise `FaultError`, or hold the last safe action, which is to return it
                again.
            max_held: how many calls in a row may hold, a whole number. The next one raises `FaultError`, and so do all after it until
                an input is sound again. By default as many as there are control steps in half a second, at least one;
                `math.inf` holds for ever.
            margin: how far an input may lie outside its observed range, as a share of that range; None for any
                distance.
            normalized: return actions in [-1, 1], as simulations take them, also from a file that gives physical ones.
            threads: number of threads that compute one call. One is fastest for a student.
            spin: whether the other threads wait for work in a busy loop, which is faster but occupies their cores.
            warm_up: number of calls made on opening, so that the first real call is not a slow one.

        Raises:
            ValueError: a file cannot be loaded, is not an exported policy or critic, or the two do not belong
                together; or `on_fault`, `max_held` or `margin` has another value than those above.
        """
        if on_fault not in ("raise", "hold"):
            raise ValueError(f'on_fault is {on_fault!r}; give "raise" or "hold"')
        if max_held not in (None, math.inf) and not (
            _is_number(max_held) and max_held >= 1 and max_held % 1 == 0
        ):
            raise ValueError(
                f"max_held is {max_held!r}; give a whole number from 1 on, or math.inf"
            )
        if margin is not None and not (_is_number(margin) and margin >= 0):
            raise ValueError(f"margin is {margin!r}; give at least 0, or None for no limit")
        super().__init__(path, margin=margin, threads=threads, spin=spin, warm_up=warm_up)
        period = self.metadata.get("control_period")
        if not (isinstance(period, (int, float)) and period > 0):
            raise ValueError(f"{path} has damaged metadata; export it again")
        self._low, self._high = _read_limits(self.metadata["outputs"]["action"], str(path))
        has_task_units = self.metadata.get("action_units") == "task"
        self._normalized = normalized and has_task_units
        ends = np.stack([self._low, self._high])
        if normalized or not has_task_units:
            ends[:] = [[-1.0], [1.0]]
        with np.errstate(all="ignore"):  # a field without limits has NaN
            self.action_limits = ends.min(axis=0), ends.max(axis=0)
        self._on_fault = on_fault
        self._max_held = max(1, round(HOLD / period)) if max_held is None else max_held
        self.held, self.fault = 0, ""
        self.reset()
        self._critic = None
        if critic is not None:
            self._critic = Critic(critic, threads=threads, spin=spin, warm_up=warm_up)
            self._require_same_agent(path, critic)

    def reset(self) -> None:
        """Starts an episode: forgets what was read before, and the last safe action."""
        self._held_in_a_row = 0
        self._safe_action: np.ndarray | None = None
        # The memory after the last action and before it; None at the start of an episode.
        self._state: np.ndarray | None = None
        self._state_before: np.ndarray | None = None

    def _require_same_agent(self, path: str | Path, critic: str | Path) -> None:
        critic_metadata = self._critic.metadata if self._critic else {}
        for key in ("task", "lineage", "action_units"):
            if self.metadata.get(key) != critic_metadata.get(key):
                raise ValueError(
                    f"{critic} and {path} differ in {key}; give two files of one export"
                )

    def __call__(self, observation: Any, goal: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Returns the policy's action.

        Args:
            observation: `[obs]` or `[batch, obs]`, floating-point, in the units that the metadata names; of a policy whose `inputs`
                begin with `sensors`, what these read.
            goal: `[goal]` or `[batch, goal]`.
            out: `[act]` float32, an array to write a single action into and return.

        Returns:
            `[act]` or `[batch, act]`, float32, in the units of the action's fields; in [-1, 1] if the policy was opened
            with `normalized`, or if the metadata's `action_units` is `normalized`.

        Raises:
            FaultError: an input is at fault, or the action is not finite. With `on_fault="hold"` only where no safe
                action may be repeated: before the first one, after `max_held` repetitions, and where the observation or the
                goal is a batch.
            ValueError: `out` is not a writeable array of this shape and type, or is given for a batch; or the memory is that of a
                batch of another size.
        """
        if out is not None:
            self._require_action_buffer(out)
        try:
            action = self._compute_action(observation, goal)
        except FaultError as error:
            if self._on_fault == "raise" or self._safe_action is None:
                raise
            if _is_batch(observation) or _is_batch(goal):
                raise
            if self._held_in_a_row >= self._max_held:
                raise FaultError(
                    f"{error} (the last safe action was held {self._held_in_a_row} times, the most that max_held allows)"
                ) from None
            self._held_in_a_row += 1
            self.held, self.fault = self.held + 1, str(error)
            return _copy_action(self._safe_action, out)
        if action.ndim > 1:
            if out is not None:
                raise ValueError("out is for a single action; leave it out for a batch")
            return action
        self._held_in_a_row = 0
        if self._safe_action is None:
            self._safe_action = action.copy()
        else:
            self._safe_action[:] = action
        return _copy_action(action, out)

    def _compute_action(self, observation: Any, goal: Any) -> np.ndarray:
        with np.errstate(all="ignore"):  # the checks find what numpy would report
            arrays = self._check_inputs(observation, goal)
            state = self._check_state(self._state, arrays) if self.memory_size else None
            outputs = self._compute(arrays, state)
            action = outputs["action"]
            _require_finite("action", action)
            if state is not None:
                after = outputs["next_state"]
                _require_finite("memory", after)
                self._state_before, self._state = state, after.copy() if after.ndim == 1 else after
            if self._normalized:
                scaled = (action - self._low) * (2.0 / (self._high - self._low)) - 1.0
                action = np.clip(scaled, -1.0, 1.0)  # rounding may lead beyond the limits
        return action

    def _require_action_buffer(self, out: np.ndarray) -> None:
        shape = self._output_buffers["action"].shape[1:]
        if not isinstance(out, np.ndarray):
            raise ValueError(f"out is a {type(out).__name__}; give a float32 array {shape}")
        if out.dtype != np.float32 or out.shape != shape:
            raise ValueError(f"out is {out.dtype} {out.shape}; give a float32 array {shape}")
        if not out.flags.writeable:
            raise ValueError("out is read-only; give an array that can be written")

    def reachability(self, observation: Any, goal: Any) -> np.ndarray:
        """Returns the probability that the policy reaches the goal, calibrated on simulated episodes.

        Of a policy that remembers, ask after the action of the same reading: it is computed with the memory from before it.

        Args:
            observation: `[obs]` or `[batch, obs]`, or what the sensors read.
            goal: `[goal]` or `[batch, goal]`.

        Returns:
            A scalar array or `[batch]`, float32, from 0 to 1.

        Raises:
            FaultError: an input is at fault, or the action or the value is not finite.
            ValueError: the policy was opened without its critic, or the memory is that of a batch of another size.
        """
        with np.errstate(all="ignore"):
            arrays = self._check_inputs(observation, goal)
            state = self._check_state(self._state_before, arrays) if self.memory_size else None
            outputs = self._compute(arrays, state)
        _require_finite("action", outputs["action"])
        if "value" in outputs:
            _require_finite("value", outputs["value"])
            return _to_probability(outputs["value"], self.metadata)
        if self._critic is None:
            raise ValueError(
                'the policy has no critic; open it as Policy("policy.onnx", critic="critic.onnx")'
            )
        value = self._critic(arrays[self.inputs[0]], arrays["goal"], outputs["action"], state)
        return _to_probability(value, self._critic.metadata)


class Critic(_Network):
    """An exported critic: `Critic("critic.onnx")(observation, goal, action)`."""

    roles = ("critic",)
    further_inputs = ("goal", "action")

    def __init__(
        self, path: str | Path, *, threads: int = 1, spin: bool = False, warm_up: int = 20
    ) -> None:
        """Opens an exported critic, which has no margin: it gives values for any finite inputs.

        Args:
            path: a `critic.onnx`.
            threads: see `Policy`.
            spin: see `Policy`.
            warm_up: see `Policy`.

        Raises:
            ValueError: the file cannot be loaded, or is not an exported critic.
        """
        super().__init__(path, margin=None, threads=threads, spin=spin, warm_up=warm_up)

    def __call__(
        self, observation: Any, goal: Any, action: Any, state: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns the value f(s, a, g), at most 0: the nearer to 0, the sooner the goal can be reached.

        Args:
            observation: `[obs]` or `[batch, obs]`, in the units that the metadata names.
            goal: `[goal]` or `[batch, goal]`.
            action: `[act]` or `[batch, act]`, in the units that the metadata's `action_units` names.
            state: `[memory]` or `[batch, memory]` float32, the memory before the step, of a critic that remembers; None at the
                start of an episode.

        Returns:
            A scalar array or `[batch]`, float32.

        Raises:
            FaultError: an input has a wrong shape or type, or is not finite, or the value is not finite.
            ValueError: the memory is that of another batch, or the critic has none.
        """
        if state is not None and not self.memory_size:
            raise ValueError("this critic remembers nothing; leave out its state")
        with np.errstate(all="ignore"):
            arrays = self._check_inputs(observation, goal, action)
            before = self._check_state(state, arrays) if self.memory_size else None
            value = self._compute(arrays, before)["value"]
        _require_finite("value", value)
        return value.copy() if value.ndim == 0 else value

    def reachability(
        self, observation: Any, goal: Any, action: Any, state: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns the probability that the policy reaches the goal if it takes `action` first.

        The arguments, shapes and errors are those of a call; the probabilities are float32, from 0 to 1.
        """
        return _to_probability(self(observation, goal, action, state), self.metadata)


class _InputCheck:
    """Checks the arrays that are given for one input of a network.

    Attributes:
        name: of the input.
        buffer: `[1, n]` float32, which holds the single observation that was checked last.
    """

    def __init__(self, name: str, fields: list[dict[str, Any]], margin: float | None) -> None:
        self.name, self._fields, self._size = name, fields, _count_numbers(fields)
        self.buffer = np.zeros((1, self._size), np.float32)
        self._single = self.buffer[0]
        # A field without an observed range has NaN for its ends.
        low, high = (
            np.concatenate([field.get(key) or [math.nan] * field["size"] for field in fields])
            for key in ("seen_low", "seen_high")
        )
        min_range = np.concatenate(
            [[MIN_RANGE * field.get("scale", 1.0)] * field["size"] for field in fields]
        )
        largest = np.finfo(np.float32).max
        with np.errstate(all="ignore"):
            tolerance = math.inf if margin is None else margin * np.maximum(high - low, min_range)
            # fmax and fmin replace NaN by the largest float, so that these fields take any finite number.
            self._lower = np.fmax(low - tolerance, -largest).astype(np.float32)
            self._upper = np.fmin(high + tolerance, largest).astype(np.float32)
        self._observed_range = low, high

    def __call__(self, value: Any) -> np.ndarray:
        """Returns a float32 copy of the input: a view of the buffer, or a new array for a batch.

        The copy is made before the numbers are checked, because another thread may be writing into the original.

        Raises:
            FaultError: the input is at fault, or is an object of which numpy cannot make an array.
        """
        try:
            array = value if type(value) is np.ndarray else self._to_array(value)
            if array.dtype.kind != "f":
                raise FaultError(
                    f"{self.name} is of type {array.dtype}; give floating-point numbers in the metadata's units"
                )
            if array.ndim not in (1, 2) or array.shape[-1] != self._size:
                raise FaultError(
                    f"{self.name} has shape {array.shape}; give [{self._size}] or [batch, {self._size}]"
                )
            if array.ndim == 1:
                copy = self._single
                copy[:] = array
            else:
                copy = array.astype(np.float32, order="C")
            # NaN and infinities fail these comparisons too.
            if not _all(np.greater_equal(copy, self._lower) & np.less_equal(copy, self._upper)):
                raise FaultError(self._describe_outlier(copy))
        except FaultError:
            raise
        except Exception as error:  # an object's own methods may raise anything
            raise FaultError(
                f"{self.name} cannot be read as an array of numbers ({type(error).__name__}); give [{self._size}]"
            ) from error
        return copy

    def _to_array(self, value: Any) -> np.ndarray:
        """Returns the array that numpy makes of an object.

        Raises:
            FaultError: a number of a masked array is masked; numpy would take what is under the mask.
        """
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part):
                raise FaultError(f"{self.name} has masked numbers; give numbers that were measured")
        return np.asarray(value)

    def _describe_outlier(self, array: np.ndarray) -> str:
        """Returns the error message for the first number that is not finite or not within its limits."""
        is_outlier = ~((array >= self._lower) & (array <= self._upper))
        index = int(np.argwhere(is_outlier)[0][-1])
        value = float(array[is_outlier][0])
        field = next(field for field in self._fields if index < field["stop"])
        place = f"{self.name}[{index}] ({field['name']}, {field['unit']}) is {value:g}"
        low, high = (float(end[index]) for end in self._observed_range)
        if not math.isfinite(value):
            return f"{place}; look for a broken sensor"
        return (
            f"{place}, far from the {low:.4g} to {high:.4g} that training saw; check unit and frame, or open the policy "
            "with a larger margin"
        )


class Times(NamedTuple):
    """Percentiles of a set of durations, in seconds."""

    p50: float
    p99: float
    max: float


class LoopReport(NamedTuple):
    """How well a control loop kept its period."""

    steps: int
    missed: int  # ticks that passed while an earlier step was still running
    period: Times  # from the start of one step to the start of the next
    jitter: Times  # from a tick to the start of its step
    latency: Times  # from the start of a step until its action was sent
    held: int  # steps that repeated the last safe action
    fallbacks: int  # steps that sent the fallback, because the policy raised `FaultError`
    fault: str  # what was wrong at the last of these; empty if there was none


class ControlLoop:
    """Reads the sensors, asks the policy and acts, once in every control period.

    Ticks are one period apart. A step that is still running at the next tick has missed it. Missed ticks are skipped:
    a burst of late actions would be worse than one action that is applied for longer.
    """

    def __init__(
        self,
        policy: Callable[[Any, Any], np.ndarray],
        sense: Callable[[], tuple[Any, Any]],
        act: Callable[[np.ndarray], None],
        *,
        fallback: Any = None,
        period: float | None = None,
        history: int = 100_000,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepares a loop without starting it.

        Args:
            policy: maps an observation and a goal to an action.
            sense: returns the present observation and goal.
            act: sends an action to the actuators.
            fallback: `[act]`, the action to send when the policy raises `FaultError` or the loop ends with an exception,
                such as zero torques or the position targets of a pose; by default none is sent.
            period: seconds from tick to tick; by default the control period at which the policy was trained.
            history: number of the latest steps whose times the report covers.
            clock: returns a time in seconds that never decreases.
            sleep: waits for a number of seconds.

        Raises:
            ValueError: the period or the history is not positive; or the fallback is not an array of finite numbers, or
                not an action within the limits of a `Policy`.
        """
        if period is None:
            period = policy.metadata["control_period"] if isinstance(policy, Policy) else 0.0
        if not (_is_number(period) and period > 0):
            raise ValueError(f"the control period is {period!r} s; give a positive one")
        if not (_is_number(history) and history >= 1):
            raise ValueError(f"the history is {history!r} steps long; give at least one")
        self.period = period
        self._policy, self._sense, self._act = policy, sense, act
        self._clock, self._sleep = clock, sleep
        self._fallback = None if fallback is None else _read_fallback(fallback, policy)
        self._starts, self._delays, self._latencies = (np.zeros(history) for _ in range(3))

    def run(self, steps: int) -> LoopReport:
        """Runs the loop; the first step begins at once, and is that of a new episode: a `Policy` is reset.

        A step at which the policy raises `FaultError` sends the fallback, and the loop goes on. Without a fallback,
        `FaultError` ends the loop and nothing is sent. Any other exception ends the loop; if there is a fallback it is
        sent once. The exception is passed on.

        Args:
            steps: number of control steps.
        """
        try:
            return self._run(steps)
        except BaseException as error:
            if self._fallback is not None:
                try:
                    self._act(self._fallback.copy())
                except Exception:
                    raise error  # noqa: B904 - the first one; the second is its context
            raise

    def _run(self, steps: int) -> LoopReport:
        if isinstance(self._policy, Policy):
            self._policy.reset()
        held_before = getattr(self._policy, "held", 0)
        loop_start, tick, missed = self._clock(), 0, 0
        fallbacks, fault = 0, ""
        for step in range(steps):
            due = loop_start + tick * self.period
            self._wait_until(due)
            start = self._clock()
            observation, goal = self._sense()
            try:
                action = self._policy(observation, goal)
            except FaultError as error:
                if self._fallback is None:
                    raise
                action, fallbacks, fault = self._fallback.copy(), fallbacks + 1, str(error)
            self._act(action)
            end = self._clock()
            index = step % len(self._starts)
            self._starts[index], self._delays[index] = start, start - due
            self._latencies[index] = end - start
            next_tick = max(tick + 1, math.ceil((end - loop_start) / self.period))
            missed += next_tick - tick - 1
            tick = next_tick
        count = min(steps, len(self._starts))
        # Sorted, because the arrays are written over from the beginning once they are full.
        periods = np.diff(np.sort(self._starts[:count]))
        return LoopReport(
            steps,
            missed,
            period=_percentiles(periods),
            jitter=_percentiles(self._delays[:count]),
            latency=_percentiles(self._latencies[:count]),
            held=getattr(self._policy, "held", 0) - held_before,
            fallbacks=fallbacks,
            fault=fault,
        )

    def _wait_until(self, due: float) -> None:
        remaining = due - self._clock()
        if remaining > SPIN:
            self._sleep(remaining - SPIN)
        while self._clock() < due:
            pass


def _is_number(value: Any) -> bool:
    return isinstance(value, Real)


def read_metadata(properties: dict[str, str], source: str) -> dict[str, Any]:
    """Returns the metadata that crl-distill wrote into an ONNX file, decoded from JSON, without its prefix.

    Args:
        properties: the file's metadata properties.
        source: name of the file, for error messages.

    Raises:
        ValueError: there is no such metadata, it is not JSON, or its format is newer than this file reads.
    """
    texts = {key[len(PREFIX) :]: text for key, text in properties.items() if key.startswith(PREFIX)}
    if not texts:
        raise ValueError(
            f"{source} is an ONNX file, but crl-distill did not export it (it has no {PREFIX}* metadata)"
        )
    try:
        metadata = {key: json.loads(text) for key, text in texts.items()}
    except (ValueError, RecursionError):
        raise ValueError(f"{source} has damaged metadata; export it again") from None
    for key, newest in (("format_version", FORMAT_VERSION), ("contract_version", CONTRACT_VERSION)):
        version = metadata.get(key)
        if isinstance(version, int) and version > newest:
            raise ValueError(
                f"{source} has {key.replace('_', ' ')} {version}, newer than this runtime.py reads ({newest}); "
                "take the runtime.py of the crl-distill that exported it"
            )
    return metadata


def _has_fields(arrays: Any, names: Sequence[str]) -> bool:
    """Returns whether the metadata lists fields, with sizes, indices and ranges, for each of these arrays."""
    return isinstance(arrays, dict) and all(
        isinstance(fields := arrays.get(name), list)
        and bool(fields)
        and all(
            isinstance(field, dict)
            and all(isinstance(field.get(key), int) for key in ("size", "start", "stop"))
            and isinstance(field.get("scale", 1.0), (int, float))
            and all(
                _has_numbers(field.get(end), field["size"]) for end in ("seen_low", "seen_high")
            )
            for field in fields
        )
        for name in names
    )


def _is_number_or_none(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))


def _has_numbers(values: Any, count: int) -> bool:
    """Returns whether these are `count` numbers, or none at all."""
    if not values:
        return True
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, (int, float)) for value in values)
    )


def _count_numbers(fields: list[dict[str, Any]]) -> int:
    """Returns how many numbers an array with these fields has."""
    return int(fields[-1]["stop"])


def _read_limits(fields: list[dict[str, Any]], source: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the limits that actions of -1 and 1 stand for, `[act]` each; NaN for those that are null.

    Raises:
        ValueError: a field has no such entry, or one that is no number.
    """
    if not all(
        end in field and _is_number_or_none(field[end])
        for field in fields
        for end in ("low", "high")
    ):
        raise ValueError(f"{source} has damaged metadata; export it again")
    low, high = (
        np.array([field[end] for field in fields for _ in range(field["size"])], np.float32)
        for end in ("low", "high")
    )
    return low, high


def _read_fallback(fallback: Any, policy: Any) -> np.ndarray:
    """Returns a fallback as an action, `[act]` float32.

    Raises:
        ValueError: it is not an array of finite numbers, or not an action within the limits of a `Policy`.
    """
    try:
        array = np.asarray(fallback)
        is_action = array.ndim == 1 and array.size > 0 and array.dtype.kind in "iuf"
    except Exception:
        is_action = False
    if not is_action:
        raise ValueError("the fallback is not an action; give an array [act] of numbers")
    with np.errstate(all="ignore"):
        action = array.astype(np.float32)
        if not np.isfinite(action).all():
            raise ValueError("the fallback has numbers that are not finite")
        if isinstance(policy, Policy):
            low, high = policy.action_limits
            if action.shape != low.shape:
                raise ValueError(f"the fallback has {len(action)} numbers, an action {len(low)}")
            outside = np.flatnonzero((action < low) | (action > high))
            if len(outside):
                i = outside[0]
                raise ValueError(
                    f"fallback[{i}] is {action[i]:g}, outside the action's limits {low[i]:g} to {high[i]:g}"
                )
    return action


def _is_batch(value: Any) -> bool:
    try:
        return bool(np.ndim(value) > 1)
    except Exception:  # an object's own methods may raise anything
        return False


def _all(flags: Any) -> bool:
    """Returns whether all are true: what `flags.all()` does, in a third of the time for a single observation."""
    return bool(np.count_nonzero(flags) == flags.size)


def _require_finite(name: str, array: np.ndarray) -> None:
    if not _all(np.isfinite(array)):
        raise FaultError(
            f"the {name} is not finite: an input is too large for the network; check its units"
        )


def _copy_action(action: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Returns a copy of an action, in `out` if that is given."""
    if out is None:
        return action.copy()
    out[:] = action
    return out


def _to_probability(value: np.ndarray, metadata: Mapping[str, Any]) -> np.ndarray:
    """Returns the probability that the goal is reached, from the critic's value and its calibration in the metadata."""
    calibration = metadata.get("reachability")
    if not isinstance(calibration, dict) or not all(
        isinstance(calibration.get(key), (int, float)) for key in ("scale", "offset")
    ):
        raise ValueError("the file has no calibration of its values; export it again")
    with np.errstate(all="ignore"):
        logit = calibration["scale"] * value + calibration["offset"]
        return np.asarray(1.0 / (1.0 + np.exp(-logit)), np.float32)


def _percentiles(seconds: np.ndarray) -> Times:
    if not len(seconds):
        return Times(math.nan, math.nan, math.nan)
    return Times(*(float(value) for value in np.percentile(seconds, (50, 99, 100))))
