"""Whether an exported file keeps what it promises: one check after the other, each a line."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from etils import epath
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_25

from export.admission import read_contract, read_model
from export.contract import INPUTS, Contract, field_table
from export.latency import measure_latency
from export.runtime import Policy
from export.session import open_session
from export.write import LEAST_EPISODES, TOLERANCE, measure_parity, record, rows_of
from teachers.agent import Agent
from teachers.evaluate import evaluate_agent
from teachers.measures import measure_outcomes, retention, summary
from teachers.runs.errors import InputError
from teachers.runs.metadata import parameter_digest
from teachers.runs.paths import local_copy
from teachers.runs.progress import Progress, ignore_progress
from teachers.simulation.play import play_in_c
from teachers.simulation.trajectory import distance_until_termination
from teachers.tasks import Task
from teachers.tasks.registry import open_task

LEAST_KEPT = (
    0.95  # time at goal in MuJoCo C over that in MJX, which the interval's upper end has to reach
)
# In fewer bits a file may differ from what it is compared with by so many times what it says of itself.
SLACK = 3
ROWS = 256
CALLS = 20_000


class DequantizeLinear(DequantizeLinear_25):
    """Of older opsets too, for which the evaluator has none."""


class Check(NamedTuple):
    """One promise."""

    name: str
    ok: bool
    value: Any  # what was found


def verify(
    path: epath.PathLike,
    against: Agent | None = None,
    *,
    task: Task | None = None,
    episodes: int = 256,
    seed: int = 1,
    progress: Progress = ignore_progress,
) -> Iterator[Check]:
    """Checks an exported file; what cannot be read ends the checks.

    Args:
        path: of the `.onnx` file.
        against: the checkpoint that it was exported from: without it, the file's own figures serve for comparison.
        task: to use in place of the one that the file names.
        episodes: of the closed loop.
        seed: of these, and of what is compared.
        progress: called as the episodes advance.

    Yields:
        `structure`, `contract`, `lineage` (with a checkpoint), `parity_reference` (the onnx reference evaluator),
        `parity_jax` (with a checkpoint), `determinism`, `closed_loop` (of a policy, in MuJoCo C at the control period),
        and `latency` (of a policy: microseconds, one thread, batch 1; ok where p99.9 leaves half of the period).
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
        entries = read_contract(model, str(path))
        opened_task, _ = open_task(entries, task, str(path))
        _require_fields(entries, opened_task)
    except InputError as error:
        yield Check("contract", False, str(error))
        return
    yield Check(
        "contract", True, f"version {entries.contract_version}, {entries.role} of {entries.task}"
    )
    with local_copy(path) as copy:
        subject = _Subject(copy, model, entries, opened_task, against, episodes, seed, progress)
        for name, check in subject.checks().items():
            try:
                yield check()
            except (InputError, ValueError) as error:
                yield Check(name, False, str(error).splitlines()[0])


class _Subject(NamedTuple):
    """A file whose structure and contract are in order."""

    path: Path
    model: onnx.ModelProto
    entries: Contract
    task: Task
    against: Agent | None
    episodes: int
    seed: int
    progress: Progress

    def checks(self) -> Mapping[str, Callable[[], Check]]:
        """Those that apply, in order."""
        plays, has_checkpoint = self.entries.role != "critic", self.against is not None
        all_checks = {
            "lineage": self.lineage if has_checkpoint else None,
            "parity_reference": self.parity_reference,
            "parity_jax": self.parity_jax if has_checkpoint else None,
            "determinism": self.determinism,
            "closed_loop": self.closed_loop if plays else None,
            "latency": self.latency if plays else None,
        }
        return {name: check for name, check in all_checks.items() if check is not None}

    def lineage(self) -> Check:
        agent = self.checkpoint
        own = parameter_digest(agent.params)
        lineage: Mapping[str, Any] = self.entries.lineage
        kind = "student" if "student" in lineage else "teacher"
        said = lineage.get(kind, {}).get("digest")
        value = f"{agent.metadata.kind} {own[:12]}; the file says {kind} {str(said)[:12]}"
        return Check("lineage", said == own, value)

    def parity_reference(self) -> Check:
        given = self.inputs()
        found = open_session(self.model)(given)
        reference = ReferenceEvaluator(self.model, new_ops=[DequantizeLinear]).run(
            list(found), given
        )
        worst = np.max(
            [
                np.abs(self.unitless(name, found[name]) - self.unitless(name, other)).max()
                for name, other in zip(found, reference, strict=True)
            ]
        )
        return Check("parity_reference", bool(worst <= self.tolerance), float(worst))

    def parity_jax(self) -> Check:
        agent = self.checkpoint
        rows = rows_of(agent, record(agent, LEAST_EPISODES, self.seed), self.seed)
        function, entries = open_session(self.model), self.entries
        worst = measure_parity(self.task, function, rows, entries.role, entries.action_units)
        return Check("parity_jax", worst <= self.tolerance, worst)

    def determinism(self) -> Check:
        """Whether one row gives the same bits again and again, in two sessions, whatever came between."""
        given = self.inputs()
        first, second = open_session(self.model), open_session(self.model)
        ones = [{name: array[i : i + 1] for name, array in given.items()} for i in range(ROWS)]
        before = [first(one) for one in ones]
        first(given)
        after = [second(one) for one in reversed(ones)][::-1]
        same = all(_equal(*pair) for pair in zip(before, after, strict=True)) and _equal(
            first(ones[0]), before[0]
        )
        return Check("determinism", same, "bitwise" if same else "outputs differ between runs")

    def closed_loop(self) -> Check:
        """Time at goal in MuJoCo C over that in MJX: of the same episodes, or as the file says."""
        act = Policy(self.path, margin=None, normalized=True)
        recording = play_in_c(self.task, act, self.episodes, self.seed, self.progress)
        played = measure_outcomes(self.task, distance_until_termination(recording))
        figures = summary(played)
        if self.against is None:
            said = self.entries.metrics.get("time_at_goal")
            high = figures["time_at_goal_ci95"][1]
            ok = said is None or high >= LEAST_KEPT * said
            return Check("closed_loop", ok, figures | {"said": said})
        reference = evaluate_agent(self.against, self.episodes, self.seed, self.progress)
        kept, interval = retention(played.time_at_goal, reference.time_at_goal)
        figures |= {"in_mjx": summary(reference), "retention": kept, "retention_ci95": interval}
        return Check("closed_loop", interval is None or interval[1] >= LEAST_KEPT, figures)

    def latency(self) -> Check:
        found = measure_latency(self.path, CALLS)
        return Check("latency", found["p99.9"] <= 0.5e6 * self.entries.control_period, found)

    @property
    def checkpoint(self) -> Agent:
        if self.against is None:
            raise ValueError("there is no checkpoint to compare with")
        return self.against

    @property
    def tolerance(self) -> float:
        """Actions in [-1, 1], and values."""
        said = self.entries.parity
        if self.entries.precision == "float32" or said is None:
            return TOLERANCE
        return SLACK * said.max_abs

    def inputs(self) -> dict[str, np.ndarray]:
        """Rows that are drawn evenly from what training saw, and from all actions."""
        random, rows = np.random.default_rng(self.seed), {}
        for name in INPUTS[self.entries.role]:
            places = self.entries.inputs[name]
            size = (ROWS, places[-1].stop)
            if name == "action":
                action = random.uniform(-1, 1, size).astype(np.float32)
                rows[name] = self.physical(action)
                continue
            low, high = (
                np.concatenate(
                    [getattr(place, end) or [sign * place.scale] * place.size for place in places]
                )
                for end, sign in (("seen_low", -1), ("seen_high", 1))
            )
            rows[name] = random.uniform(low, high, size).astype(np.float32)
        return rows

    def physical(self, action: np.ndarray) -> np.ndarray:
        return (
            self.task.to_actuator_units(action) if self.entries.action_units == "task" else action
        )

    def unitless(self, name: str, array: np.ndarray) -> np.ndarray:
        if name == "action" and self.entries.action_units == "task":
            return self.task.from_actuator_units(array)
        return array


def _equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def _require_fields(entries: Contract, task: Task) -> None:
    """Refuses a contract that says something else than the task does.

    Raises:
        InputError: they differ; the message names the first difference.
    """
    said_of = {**entries.inputs, **entries.outputs}
    for name in said_of.keys() - {"value"}:
        said = [place.model_dump(exclude={"seen_low", "seen_high"}) for place in said_of[name]]
        rows = field_table(getattr(task, name))
        if len(said) != len(rows):
            raise InputError(f"{name} has {len(said)} fields, but the task's has {len(rows)}")
        for place, row in zip(said, rows, strict=True):
            for key in row:
                _require_equal(f"{name} field {row['name']!r} {key}", place[key], row[key])
    for key in ("sizes", "control_period", "episode_steps", "success_radius"):
        _require_equal(key, getattr(entries, key), getattr(task, key))


def _require_equal(name: str, said: Any, own: Any) -> None:
    if said != own:
        raise InputError(f"{name} is {said!r} in the file, but {own!r} in the task")
