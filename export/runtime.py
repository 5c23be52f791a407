"""What a robot runs: an exported policy or critic, with numpy and ONNX Runtime alone.

This file imports nothing else of the project; copying it to the robot is enough.

    policy = Policy("policy.onnx", critic="critic.onnx")
    action = policy(observation, goal)  # in the units of the task: torques, position targets
    chance = policy.reachability(observation, goal)

A `Policy` or `Critic` is for one thread at a time.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime

PREFIX = "crl_distill."  # of our keys among an ONNX file's metadata
FORMAT_VERSION = 4  # the newest artefacts that this file reads
CONTRACT_VERSION = 1  # of what exported files promise; files before it have none
MARGIN = 0.5  # how far beyond what training saw an input may lie, as a share of the range seen
LEAST = 0.1  # of a field's scale: the range that counts for what hardly varied in training
SPIN = 200e-6  # s before a deadline in which the loop no longer sleeps: schedulers wake up late by about as much

Fault = Literal["raise", "hold"]


class FaultError(ValueError):
    """An observation or goal that the policy must not act on."""


class _Network:
    """One ONNX file of ours, on one thread of the CPU.

    Single calls go through arrays that are allocated once and bound to the session; batches of any size work too.

    Attributes:
        metadata: what the file says of itself: task, fields of every input and output, units, control period, lineage.
    """

    roles: tuple[str, ...]
    inputs: tuple[str, ...]
    _guards: dict[str, "_Guard"]

    def __init__(
        self, path: str | Path, *, threads: int = 1, spin: bool = False, warm_up: int = 20
    ) -> None:
        """Opens an exported file; arguments as of `Policy`.

        Raises:
            ValueError: it is not an ONNX file, or not one that crl-distill exported for this use.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"{path} is not a model that ONNX Runtime can load ({reason})"
            ) from None
        self.metadata = read_metadata(self._session.get_modelmeta().custom_metadata_map, str(path))
        found = self.metadata.get("role")
        if found not in self.roles:
            raise ValueError(
                f"{path} is a {found}, not a {self.roles[0]}; give a {' or '.join(self.roles)}.onnx"
            )
        self._outputs = [output.name for output in self._session.get_outputs()]
        acts = [name for name in self._outputs if name == "action"]  # older files describe no value
        if not (
            _is_described(self.metadata.get("inputs"), self.inputs)
            and _is_described(self.metadata.get("outputs"), acts)
        ):
            raise ValueError(f"{path} has damaged metadata; export it again")
        self._bind()
        for _ in range(warm_up):
            self._session.run_with_iobinding(self._binding)

    def _bind(self) -> None:
        """Gives the session arrays of a single row, once and for all."""
        self._binding = self._session.io_binding()
        self._rows = {
            name: np.zeros((1, _size(self.metadata["inputs"][name])), np.float32)
            for name in self.inputs
        }
        self._results = {
            output.name: np.zeros([1, *output.shape[1:]], np.float32)
            for output in self._session.get_outputs()
        }
        for name, row in self._rows.items():
            self._binding.bind_input(name, "cpu", 0, np.float32, row.shape, row.ctypes.data)
        for name, row in self._results.items():
            self._binding.bind_output(name, "cpu", 0, np.float32, row.shape, row.ctypes.data)

    def _checked(self, *given: Any) -> dict[str, np.ndarray]:
        """The inputs as arrays; `FaultError` if one is at fault."""
        arrays = {
            name: self._guards[name](each) for name, each in zip(self.inputs, given, strict=True)
        }
        first, *others = arrays.items()
        for name, array in others:
            if array.shape[:-1] != first[1].shape[:-1]:
                raise FaultError(
                    f"{first[0]} has shape {first[1].shape} but {name} {array.shape}; give all single or all in "
                    "batches of one size"
                )
        return arrays

    def _run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs, of a single row in arrays that the next call writes over."""
        if next(iter(arrays.values())).ndim == 1:
            for name, array in arrays.items():
                self._rows[name][0] = array
            self._session.run_with_iobinding(self._binding)
            return {name: row[0, ...] for name, row in self._results.items()}
        results = self._session.run(self._outputs, dict(arrays))
        return dict(zip(self._outputs, results, strict=True))


class Policy(_Network):
    """An exported policy: `Policy("policy.onnx")(observation, goal)`.

    Attributes:
        held: how many calls gave the last safe action because of a fault.
        fault: what was wrong with the last of them; empty if nothing ever was.
    """

    roles = ("policy", "combined")
    inputs = ("observation", "goal")

    def __init__(
        self,
        path: str | Path,
        critic: str | Path | None = None,
        *,
        on_fault: Fault = "raise",
        margin: float | None = MARGIN,
        normalized: bool = False,
        threads: int = 1,
        spin: bool = False,
        warm_up: int = 20,
    ) -> None:
        """Opens an exported policy.

        Args:
            path: of a `policy.onnx`, or of a file with both heads.
            critic: of the `critic.onnx` beside it, for `reachability`; a file with both heads needs none.
            on_fault: what to do with an input of a wrong shape or type, one that is not finite, and one far from all
                that training saw: raise `FaultError`, or hold the last action that was safe.
            margin: how far beyond what training saw an input may lie, as a share of the range seen; None: anywhere.
            normalized: give actions in [-1, 1], as simulations take them, also where the file gives physical ones.
            threads: that compute one call. One is fastest for a student, and leaves the other cores alone.
            spin: whether further threads wait for work busily: faster, at the cost of their cores.
            warm_up: calls made now, so that the first real one is as fast as the rest.

        Raises:
            ValueError: as `Critic` says.
        """
        if on_fault not in ("raise", "hold"):
            raise ValueError(f'on_fault is {on_fault!r}; give "raise" or "hold"')
        super().__init__(path, threads=threads, spin=spin, warm_up=warm_up)
        self._guards = {
            name: _Guard(name, self.metadata["inputs"][name], margin) for name in self.inputs
        }
        self._limits = _limits(self.metadata["outputs"]["action"])
        self._normalized = normalized and self.metadata.get("action_units") == "task"
        self._on_fault = on_fault
        self._safe: np.ndarray | None = None
        self.held, self.fault = 0, ""
        self._critic = None
        if critic is not None:
            self._critic = Critic(critic, threads=threads, spin=spin, warm_up=warm_up)
            self._require_same_agent(path, critic)

    def _require_same_agent(self, path: str | Path, critic: str | Path) -> None:
        own, theirs = self.metadata, self._critic.metadata if self._critic else {}
        for key in ("task", "lineage", "action_units"):
            if own.get(key) != theirs.get(key):
                raise ValueError(
                    f"{critic} and {path} differ in {key}; give two files of one export"
                )

    def __call__(self, observation: Any, goal: Any, out: np.ndarray | None = None) -> np.ndarray:
        """The action.

        Args:
            observation: `[obs]` or `[batch, obs]`, floating-point, in the units of the metadata.
            goal: `[goal]` or `[batch, goal]`.
            out: `[act]` float32, to write a single action to and return.

        Returns:
            `[act]` or `[batch, act]`, float32, in the units of its fields, or in [-1, 1] where the policy was opened so
            or the metadata's `action_units` says `normalized`.

        Raises:
            FaultError: an input is at fault, or what comes of it, unless the policy holds; then still, if it has not
                acted yet, and of a batch.
            ValueError: `out` is no such array, or given for a batch.
        """
        if out is not None:
            self._require_fitting(out)
        try:
            action = self._acted(observation, goal)
        except FaultError as error:
            if self._on_fault == "raise" or self._safe is None or _is_batch(goal):
                raise
            self.held, self.fault = self.held + 1, str(error)
            return _written(self._safe, out)
        if action.ndim > 1:
            if out is not None:
                raise ValueError("out is for a single action; leave it out for a batch")
            return action
        if self._safe is None:
            self._safe = action.copy()
        else:
            self._safe[:] = action
        return _written(action, out)

    def _acted(self, observation: Any, goal: Any) -> np.ndarray:
        action = self._run(self._checked(observation, goal))["action"]
        if not np.isfinite(action).all():
            raise FaultError(
                "the action is not finite: the observation or goal is too large for the network; check its units"
            )
        if self._normalized:
            low, high = self._limits
            action = (action - low) * (2.0 / (high - low)) - 1.0
        return action

    def _require_fitting(self, out: np.ndarray) -> None:
        shape = self._results["action"].shape[1:]
        if out.dtype != np.float32 or out.shape != shape:
            raise ValueError(f"out is {out.dtype} {out.shape}; give a float32 array {shape}")

    def reachability(self, observation: Any, goal: Any) -> np.ndarray:
        """How likely the policy is to reach the goal, from 0 to 1, calibrated on episodes in simulation.

        Args:
            observation: `[obs]` or `[batch, obs]`.
            goal: `[goal]` or `[batch, goal]`.

        Returns:
            a scalar array or `[batch]`, float32.

        Raises:
            FaultError: an input is at fault.
            ValueError: the policy was opened without its critic.
        """
        arrays = self._checked(observation, goal)
        outputs = self._run(arrays)
        if "value" in outputs:
            return _probability(outputs["value"], self.metadata)
        if self._critic is None:
            raise ValueError(
                'the policy has no critic; open it as Policy("policy.onnx", critic="critic.onnx")'
            )
        value = self._critic(arrays["observation"], arrays["goal"], outputs["action"])
        return _probability(value, self._critic.metadata)


class Critic(_Network):
    """An exported critic: `Critic("critic.onnx")(observation, goal, action)`."""

    roles = ("critic",)
    inputs = ("observation", "goal", "action")

    def __init__(
        self, path: str | Path, *, threads: int = 1, spin: bool = False, warm_up: int = 20
    ) -> None:
        """Opens an exported critic; arguments and errors as of `Policy`. Values are given anywhere: it has no margin."""
        super().__init__(path, threads=threads, spin=spin, warm_up=warm_up)
        fields = self.metadata["inputs"]
        self._guards = {name: _Guard(name, fields[name], None) for name in self.inputs}

    def __call__(self, observation: Any, goal: Any, action: Any) -> np.ndarray:
        """The value f(s, a, g), at most 0: the nearer to 0, the sooner the goal can be reached.

        Args:
            observation: `[obs]` or `[batch, obs]`, in the units of the metadata.
            goal: `[goal]` or `[batch, goal]`.
            action: `[act]` or `[batch, act]`, in the units that the metadata's `action_units` says.

        Returns:
            a scalar array or `[batch]`, float32.

        Raises:
            FaultError: an input has a wrong shape or type, or is not finite.
        """
        value = self._run(self._checked(observation, goal, action))["value"]
        return value.copy() if value.ndim == 0 else value

    def reachability(self, observation: Any, goal: Any, action: Any) -> np.ndarray:
        """How likely the goal is to be reached, from 0 to 1, if the policy goes on after `action`."""
        return _probability(self(observation, goal, action), self.metadata)


class _Guard:
    """Refuses arrays that are none of an input's."""

    def __init__(self, name: str, fields: list[dict[str, Any]], margin: float | None) -> None:
        self._name, self._fields, self._size = name, fields, _size(fields)
        low, high = (
            np.concatenate([field.get(key) or [math.nan] * field["size"] for field in fields])
            for key in ("seen_low", "seen_high")
        )
        least = np.concatenate(
            [[LEAST * field.get("scale", 1.0)] * field["size"] for field in fields]
        )
        reach = math.inf if margin is None else margin * np.maximum(high - low, least)
        # What was never seen has no range: NaN.
        most = np.finfo(np.float32).max
        self._low = np.fmax(low - reach, -most).astype(np.float32)
        self._high = np.fmin(high + reach, most).astype(np.float32)
        self._seen = low, high

    def __call__(self, given: Any) -> np.ndarray:
        try:
            array = np.asarray(given)
        except ValueError:  # of rows of different lengths
            raise FaultError(f"{self._name} is not an array; give [{self._size}]") from None
        if array.dtype != np.float32:
            if array.dtype.kind != "f":
                raise FaultError(
                    f"{self._name} is of type {array.dtype}; give floating-point numbers in the metadata's units"
                )
            array = array.astype(np.float32)
        if array.ndim not in (1, 2) or array.shape[-1] != self._size:
            raise FaultError(
                f"{self._name} has shape {array.shape}; give [{self._size}] or [batch, {self._size}]"
            )
        # NaN and infinities are in no range.
        if not (np.greater_equal(array, self._low) & np.less_equal(array, self._high)).all():
            raise FaultError(self._complaint(array))
        return array

    def _complaint(self, array: np.ndarray) -> str:
        wrong = ~((array >= self._low) & (array <= self._high))
        index = int(np.argwhere(wrong)[0][-1])
        value = float(array[wrong][0])
        field = next(field for field in self._fields if index < field["stop"])
        place = f"{self._name}[{index}] ({field['name']}, {field['unit']}) is {value:g}"
        low, high = (float(end[index]) for end in self._seen)
        if not math.isfinite(value):
            return f"{place}; look for a broken sensor"
        return (
            f"{place}, far from the {low:.4g} to {high:.4g} that training saw; check unit and frame, or open the policy "
            "with a larger margin"
        )


class Times(NamedTuple):
    """Of many durations in seconds."""

    p50: float
    p99: float
    max: float


class LoopReport(NamedTuple):
    """How a control loop kept its time."""

    steps: int
    missed: int  # ticks at which it was still busy with an earlier one
    period: Times  # between two steps
    jitter: Times  # by which steps began after their tick
    latency: Times  # from a step's beginning to its action
    held: int  # steps that repeated the last safe action


class ControlLoop:
    """Senses, asks the policy and acts, once every control period.

    Steps begin on a grid of ticks. One that is not done by the next tick has missed its deadline: ticks that have passed
    by then are left out rather than made up for, since late actions in a burst are worse than one that stays.
    """

    def __init__(
        self,
        policy: Callable[[Any, Any], np.ndarray],
        sense: Callable[[], tuple[Any, Any]],
        act: Callable[[np.ndarray], None],
        *,
        period: float | None = None,
        history: int = 100_000,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepares a loop; nothing runs yet.

        Args:
            policy: from observation and goal to an action.
            sense: gives the observation and the goal of now.
            act: sends an action to the actuators.
            period: s; by default the control period that the policy was trained at.
            history: steps of which times are kept for the report, the newest.
            clock: gives s that only grow.
            sleep: waits so many s.

        Raises:
            ValueError: the period or the history is not positive.
        """
        if period is None:
            period = policy.metadata["control_period"] if isinstance(policy, Policy) else 0.0
        if not period > 0:
            raise ValueError(f"a control period of {period} s; give a positive one")
        if history < 1:
            raise ValueError(f"a history of {history} steps; give at least one")
        self.period = period
        self._policy, self._sense, self._act = policy, sense, act
        self._clock, self._sleep = clock, sleep
        self._begun, self._late, self._took = (np.zeros(history) for _ in range(3))

    def run(self, steps: int) -> LoopReport:
        """Runs so many steps, the first at once. What `sense`, the policy or `act` raise ends it.

        Args:
            steps: how many.
        """
        held = getattr(self._policy, "held", 0)
        start, tick, missed = self._clock(), 0, 0
        for step in range(steps):
            due = start + tick * self.period
            self._wait(due)
            begun = self._clock()
            self._act(self._policy(*self._sense()))
            done = self._clock()
            place = step % len(self._begun)
            self._begun[place], self._late[place] = begun, begun - due
            self._took[place] = done - begun
            following = max(tick + 1, math.ceil((done - start) / self.period))
            missed += following - tick - 1
            tick = following
        return self._report(steps, missed, getattr(self._policy, "held", 0) - held)

    def _wait(self, due: float) -> None:
        left = due - self._clock()
        if left > SPIN:
            self._sleep(left - SPIN)
        while self._clock() < due:
            pass

    def _report(self, steps: int, missed: int, held: int) -> LoopReport:
        kept = min(steps, len(self._begun))
        periods = np.diff(np.sort(self._begun[:kept]))
        return LoopReport(
            steps,
            missed,
            period=_times(periods),
            jitter=_times(self._late[:kept]),
            latency=_times(self._took[:kept]),
            held=held,
        )


def _times(seconds: np.ndarray) -> Times:
    if not len(seconds):
        return Times(math.nan, math.nan, math.nan)
    return Times(*(float(value) for value in np.percentile(seconds, (50, 99, 100))))


def _is_batch(given: Any) -> bool:
    try:
        return np.ndim(given) > 1
    except ValueError:  # of rows of different lengths
        return False


def _written(action: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return action.copy()
    out[:] = action
    return out


def _probability(value: np.ndarray, metadata: Mapping[str, Any]) -> np.ndarray:
    fitted = metadata.get("reachability")
    if fitted is None:
        raise ValueError("the file has no calibration of its values; export it again")
    return np.asarray(
        1.0 / (1.0 + np.exp(-(fitted["scale"] * value + fitted["offset"]))), np.float32
    )


def _limits(fields: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    low, high = (
        np.array([field[end] for field in fields for _ in range(field["size"])], np.float32)
        for end in ("low", "high")
    )
    return low, high


def _is_described(arrays: Any, names: Sequence[str]) -> bool:
    """Whether there are fields for each of these arrays, with sizes and places."""
    return isinstance(arrays, dict) and all(
        isinstance(fields := arrays.get(name), list)
        and bool(fields)
        and all(
            isinstance(field, dict)
            and all(isinstance(field.get(key), int) for key in ("size", "start", "stop"))
            for field in fields
        )
        for name in names
    )


def _size(fields: list[dict[str, Any]]) -> int:
    return int(fields[-1]["stop"])


def read_metadata(properties: dict[str, str], source: str) -> dict[str, Any]:
    """Our part of an ONNX file's metadata, decoded.

    Raises:
        ValueError: there is none, it is not JSON, or of a newer format.
    """
    ours = {
        key.removeprefix(PREFIX): value
        for key, value in properties.items()
        if key.startswith(PREFIX)
    }
    if not ours:
        raise ValueError(
            f"{source} is an ONNX file, but crl-distill did not export it (it has no {PREFIX}* metadata)"
        )
    try:
        metadata = {key: json.loads(value) for key, value in ours.items()}
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
