"""Verifies that an exported file does what its contract says, in a sequence of checks."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from etils import epath
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_25

from export.admission import read_contract, read_model
from export.c_library import CPolicy, find_compiler
from export.closed_loop import MIN_EPISODES, judge_with_contract, judge_with_reference
from export.contract import Contract
from export.latency import measure_latency
from export.parity import (
    TOLERANCE,
    collect_parity_rows,
    compare_sequences,
    measure_parity,
    record_episodes,
)
from export.policies import AgentPolicy, GraphPolicy
from export.runtime import Policy
from export.session import GraphFunction, open_session
from export.signature import Signature, task_fields
from teachers.agent import Agent
from teachers.measures import measure_outcomes, retention, summary
from teachers.process import in_32_bits
from teachers.runs.errors import InputError, first_line
from teachers.runs.metadata import as_number, parameter_digest
from teachers.runs.paths import local_copy
from teachers.runs.progress import Progress, ignore_progress
from teachers.simulation.play import PolicyFunction, count_broken, play_in_c
from teachers.simulation.trajectory import distance_until_termination
from teachers.tasks import Task
from teachers.tasks.describe import describe_fields
from teachers.tasks.registry import open_task

# A float16 or int8 file may differ by this many times the difference that its contract states.
PARITY_FACTOR = 3
RANDOM_ROWS = 256
TIMED_CALLS = 20_000


class DequantizeLinear(DequantizeLinear_25):
    """The operator for older opsets, which the reference evaluator lacks."""


class Check(NamedTuple):
    """The result of one check."""

    name: str
    ok: bool
    value: Any  # a measured value, or a line of text


def verify(
    path: epath.PathLike,
    against: Agent | None = None,
    *,
    task: Task | None = None,
    episodes: int = 256,
    seed: int = 1,
    progress: Progress = ignore_progress,
) -> Iterator[Check]:
    """Checks an exported file, until a check shows that it cannot be read.

    Args:
        path: the `.onnx` file.
        against: the checkpoint that the file was exported from; without it the file is compared with the figures in its
            contract.
        task: the task to use in place of the one that the file names.
        episodes: number of episodes in the closed loop.
        seed: seed of the episodes and of the inputs that are compared.
        progress: called as the episodes advance.

    Yields:
        `structure`; `contract`; with a checkpoint, `lineage`; `parity_reference`, the difference from the onnx reference
        evaluator; with a checkpoint, `parity_jax`; for a policy that remembers, `sequences`, the differences over whole
        episodes from both, and from C where there is a compiler; `determinism`; and for a policy `closed_loop`, in MuJoCo C at the
        control period (see `export.closed_loop` for when it passes), and `latency` in microseconds, on one thread at batch
        1, whose p99.9 must be at most half of the control period.
    """
    try:
        model = read_model(path)
        open_session(model, str(path))
    except InputError as error:
        yield Check("structure", False, str(error))
        return
    yield Check(
        "structure",
        True,
        f"opset {model.opset_import[0].version}, {len(model.graph.node)} operators",
    )
    try:
        contract = read_contract(model, str(path))
        opened_task, _ = open_task(contract, task, str(path))
        opened_task = contract.signature.view(opened_task)
        _require_same_task(contract, opened_task)
    except InputError as error:
        yield Check("contract", False, str(error))
        return
    yield Check(
        "contract", True, f"version {contract.contract_version}, {contract.role} of {contract.task}"
    )
    with local_copy(path) as copy:
        checks = _Checks(copy, model, contract, opened_task, against, episodes, seed, progress)
        for name, check in checks.applicable().items():
            try:
                yield in_32_bits(check)()
            except (InputError, ValueError) as error:
                yield Check(name, False, first_line(error))


class _Checks(NamedTuple):
    """The checks of a file whose structure and contract are in order."""

    path: Path
    model: onnx.ModelProto
    contract: Contract
    task: Task
    against: Agent | None
    episodes: int
    seed: int
    progress: Progress

    def applicable(self) -> Mapping[str, Callable[[], Check]]:
        """Returns the checks that apply to the file, in order."""
        is_policy, has_checkpoint = self.contract.role != "critic", self.against is not None
        all_checks = {
            "lineage": self.check_lineage if has_checkpoint else None,
            "parity_reference": self.check_parity_with_reference,
            "parity_jax": self.check_parity_with_jax if has_checkpoint else None,
            "sequences": self.check_sequences if is_policy and self.signature.memory_size else None,
            "determinism": self.check_determinism,
            "closed_loop": self.check_closed_loop if is_policy else None,
            "latency": self.check_latency if is_policy else None,
        }
        return {name: check for name, check in all_checks.items() if check is not None}

    def check_lineage(self) -> Check:
        agent = self.checkpoint
        digest = parameter_digest(agent.params)
        lineage: Mapping[str, Any] = self.contract.lineage
        kind = "student" if "student" in lineage else "teacher"
        stated_digest = lineage.get(kind, {}).get("digest")
        value = (
            f"{agent.metadata.kind} {digest[:12]}; the file says {kind} {str(stated_digest)[:12]}"
        )
        return Check("lineage", stated_digest == digest, value)

    def check_parity_with_reference(self) -> Check:
        inputs = self.draw_inputs()
        outputs = open_session(self.model)(inputs)
        references = self.make_reference()(inputs)
        difference = np.max(
            [
                np.abs(
                    self.to_normalized(name, output) - self.to_normalized(name, references[name])
                ).max()
                for name, output in outputs.items()
            ]
        )
        return Check("parity_reference", bool(difference <= self.tolerance), float(difference))

    def check_parity_with_jax(self) -> Check:
        agent, contract = self.checkpoint, self.contract
        trajectory = record_episodes(agent, MIN_EPISODES, self.seed)
        rows = collect_parity_rows(agent, trajectory, self.seed)
        function = open_session(self.model)
        difference = measure_parity(
            self.task, self.signature, function, rows, contract.role, contract.action_units
        )
        return Check("parity_jax", difference <= self.tolerance, difference)

    def check_sequences(self) -> Check:
        """Checks the actions over whole episodes, in which each engine carries its own memory from step to step.

        With a checkpoint its C source is one of them, where there is a compiler.
        """
        policy = self.make_policy(open_session(self.model))
        trajectory = play_in_c(self.task, policy, MIN_EPISODES, self.seed)
        others: dict[str, PolicyFunction] = {"reference": self.make_policy(self.make_reference())}
        if self.against is not None:
            others["jax"] = AgentPolicy(self.against)
            if self.against.metadata.kind == "student" and find_compiler():
                others["c"] = CPolicy(self.against)
        differences = {
            name: compare_sequences(trajectory, policy, other) for name, other in others.items()
        }
        is_near = max(differences.values()) <= self.tolerance
        return Check("sequences", is_near, {"episodes": MIN_EPISODES, **differences})

    def check_determinism(self) -> Check:
        """Checks that a row gives the same bits in two sessions, in another order, and after a batch.

        And that a policy gives the same actions again after `reset`.
        """
        inputs = self.draw_inputs()
        first, second = open_session(self.model), open_session(self.model)
        rows = [
            {name: array[i : i + 1] for name, array in inputs.items()} for i in range(RANDOM_ROWS)
        ]
        outputs = [first(row) for row in rows]
        first(inputs)
        repeated = [second(row) for row in reversed(rows)][::-1]
        is_same = (
            all(_equal_bits(*pair) for pair in zip(outputs, repeated, strict=True))
            and _equal_bits(first(rows[0]), outputs[0])
            and self.repeats_after_reset(inputs)
        )
        value = "bitwise" if is_same else "outputs differ between runs"
        return Check("determinism", is_same, value)

    def check_closed_loop(self) -> Check:
        """Checks the time at goal in ONNX Runtime against JAX: on the same episodes, or as the contract states it."""
        policy = Policy(self.path, margin=None, normalized=True)
        trajectory = play_in_c(self.task, policy, self.episodes, self.seed, self.progress)
        distance = distance_until_termination(trajectory)
        outcomes = measure_outcomes(self.task, distance)
        figures = {**summary(outcomes), "broken_episodes": count_broken(trajectory)}
        if self.against is None:
            verdict = judge_with_contract(outcomes.time_at_goal, distance, self.contract.metrics)
            figures["stated"] = as_number(self.contract.metrics.get("time_at_goal"))
        else:
            agent = self.against
            reference_distance = agent.networks.evaluator.record_distances(
                agent.params, self.episodes, self.seed, self.progress
            )
            reference = measure_outcomes(self.task, reference_distance)
            verdict = judge_with_reference(
                outcomes.time_at_goal, reference.time_at_goal, distance, reference_distance
            )
            ratio, interval = retention(outcomes.time_at_goal, reference.time_at_goal)
            figures |= {
                "in_jax": summary(reference),
                "retention": ratio,
                "retention_ci95": interval,
            }
        return Check("closed_loop", verdict.ok, {"verdict": verdict.text, **figures})

    def check_latency(self) -> Check:
        latency = measure_latency(self.path, TIMED_CALLS)
        limit = 0.5e6 * self.contract.control_period
        return Check("latency", latency["p99.9"] <= limit, latency)

    def repeats_after_reset(self, inputs: Mapping[str, np.ndarray]) -> bool:
        """Returns whether a policy gives the same actions again after `reset`; a critic has nothing to forget."""
        if self.contract.role == "critic":
            return True
        policy = Policy(self.path, margin=None)
        rows = list(zip(inputs[self.signature.reads], inputs["goal"], strict=True))
        actions = [policy(*row) for row in rows]
        policy.reset()
        return all(np.array_equal(policy(*row), a) for row, a in zip(rows, actions, strict=True))

    def make_policy(self, function: GraphFunction) -> GraphPolicy:
        return GraphPolicy(function, self.signature, self.task, self.contract.action_units)

    def make_reference(self) -> GraphFunction:
        """Returns the graph as a function that the onnx reference evaluator computes."""
        evaluator = ReferenceEvaluator(self.model, new_ops=[DequantizeLinear])
        names = [output.name for output in self.model.graph.output]

        def compute(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return dict(zip(names, evaluator.run(names, dict(inputs)), strict=True))

        return compute

    @property
    def signature(self) -> Signature:
        return self.contract.signature

    @property
    def checkpoint(self) -> Agent:
        if self.against is None:
            raise ValueError("there is no checkpoint to compare with")
        return self.against

    @property
    def tolerance(self) -> float:
        """Returns the largest difference allowed, for actions in [-1, 1] and for values."""
        parity = self.contract.parity
        if self.contract.precision == "float32" or parity is None:
            return TOLERANCE
        return PARITY_FACTOR * parity.max_abs

    def draw_inputs(self) -> dict[str, np.ndarray]:
        """Returns inputs drawn uniformly from their observed ranges, and actions from all actions."""
        random, inputs = np.random.default_rng(self.seed), {}
        for name in self.signature.inputs(self.contract.role):
            places = self.contract.inputs[name]
            size = (RANDOM_ROWS, places[-1].stop)
            if name == "action":
                action = random.uniform(-1, 1, size).astype(np.float32)
                inputs[name] = self.to_file_units(action)
                continue
            low, high = (
                np.concatenate(
                    [getattr(place, end) or [sign * place.scale] * place.size for place in places]
                )
                for end, sign in (("seen_low", -1), ("seen_high", 1))
            )
            inputs[name] = random.uniform(low, high, size).astype(np.float32)
        return inputs

    def to_file_units(self, action: np.ndarray) -> np.ndarray:
        return (
            self.task.to_actuator_units(action) if self.contract.action_units == "task" else action
        )

    def to_normalized(self, name: str, output: np.ndarray) -> np.ndarray:
        if name == "action" and self.contract.action_units == "task":
            return self.task.from_actuator_units(output)
        return output


def _equal_bits(outputs: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(outputs[name], others[name]) for name in outputs)


def _require_same_task(contract: Contract, task: Task) -> None:
    """Raises an error if a contract and its task differ.

    Raises:
        InputError: they differ; the message names the first difference.
    """
    arrays = {**contract.inputs, **contract.outputs}
    for name in arrays.keys() - {"value", "state", "next_state"}:
        stated = [place.model_dump(exclude={"seen_low", "seen_high"}) for place in arrays[name]]
        fields = describe_fields(task_fields(task, name))
        if len(stated) != len(fields):
            raise InputError(f"{name} has {len(stated)} fields, but the task's has {len(fields)}")
        for place, field in zip(stated, fields, strict=True):
            for key in field:
                _require_equal(f"{name} field {field['name']!r} {key}", place[key], field[key])
    for key in ("sizes", "control_period", "episode_steps", "success_radius"):
        _require_equal(key, getattr(contract, key), getattr(task, key))


def _require_equal(name: str, stated: Any, actual: Any) -> None:
    if stated != actual:
        raise InputError(f"{name} is {stated!r} in the file, but {actual!r} in the task")
