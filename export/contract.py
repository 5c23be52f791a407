"""What an exported file promises: its inputs and outputs, field by field, and where it comes from.

Every key of `Contract` is JSON under `crl_distill.KEY` in the ONNX file's metadata properties. `contract.schema.json`
beside this file is the same as a JSON schema.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, NotRequired

import numpy as np
import onnx
from pydantic import ConfigDict, field_validator, model_validator
from pydantic import Field as Described
from typing_extensions import TypedDict

from export.runtime import CONTRACT_VERSION, PREFIX
from students.networks import ENCODER
from teachers.agent import Agent, describe_teacher
from teachers.runs.configuration import Config
from teachers.runs.metadata import Metadata, library_versions, parameter_digest
from teachers.tasks import Field, Task, slices

Role = Literal["policy", "critic", "combined"]
Units = Literal["task", "normalized"]
Precision = Literal["float32", "float16", "int8"]
SeenIn = Literal["training", "export"]

INPUTS: Mapping[Role, tuple[str, ...]] = {
    "policy": ("observation", "goal"),
    "critic": ("observation", "goal", "action"),
    "combined": ("observation", "goal"),
}
OUTPUTS: Mapping[Role, tuple[str, ...]] = {
    "policy": ("action",),
    "critic": ("value",),
    "combined": ("action", "value"),
}
NETWORKS: Mapping[Role, tuple[str, ...]] = {
    "policy": ("actor",),
    "critic": ("phi", "psi"),
    "combined": ("actor", "phi", "psi"),
}
VALUE = {"name": "value", "size": 1, "start": 0, "stop": 1, "unit": "1"}
MEANING = "-||phi(s, a) - psi(g)||, at most 0: the nearer to 0, the sooner the goal is reached"


class Place(Config):
    """One named slice `[start, stop)` of an array."""

    name: str
    size: int
    start: int
    stop: int
    unit: str
    meaning: str
    scale: float = Described(
        1.0, description="usual magnitude in `unit`; the file divides observations and goals by it"
    )
    low: float | None = Described(
        None, description="physical limit; of an action, what -1 stands for"
    )
    high: float | None = Described(
        None, description="physical limit; of an action, what 1 stands for"
    )
    seen_low: tuple[float, ...] | None = Described(
        None, description="smallest values in training, one for each number of the field"
    )
    seen_high: tuple[float, ...] | None = Described(
        None, description="largest values in training, one for each number of the field"
    )

    @model_validator(mode="after")
    def _is_whole(self) -> "Place":
        seen = [len(ends) for ends in (self.seen_low, self.seen_high) if ends is not None]
        if self.size < 1 or self.start < 0 or self.stop - self.start != self.size:
            raise ValueError(f"field {self.name!r} is not {self.size} numbers")
        if seen not in ([], [self.size, self.size]):
            raise ValueError(f"field {self.name!r} has not {self.size} ranges")
        lows, highs = np.array(self.seen_low or ()), np.array(self.seen_high or ())
        most = np.finfo(np.float32).max
        if not ((-most <= lows) & (lows <= highs) & (highs <= most)).all():
            raise ValueError(f"field {self.name!r} has ranges that are none")
        return self


class Network(TypedDict):
    """Its shape, and the number of its parameters."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    parameters: int
    width: NotRequired[int]
    depth: NotRequired[int]  # of a teacher's
    layers: NotRequired[int]  # of a student's


class Origin(TypedDict):
    """What was exported."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    digest: str  # SHA-256 of the checkpoint's parameters


class Teacher(Origin):
    """Who taught it, or what was exported."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    networks: dict[str, Network]
    steps: NotRequired[int]  # control steps of its training
    success_at_end: NotRequired[float | None]
    time_at_goal: NotRequired[float | None]


class Lineage(TypedDict, total=False):
    """Where a file comes from."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    student: Origin
    teacher: Teacher


class Parity(Config):
    """How far the file's outputs were from JAX's."""

    max_abs: float = Described(
        description="largest absolute difference, actions in [-1, 1]", allow_inf_nan=False
    )
    inputs: int = Described(description="observations compared, of episodes in MuJoCo C")
    seed: int = Described(description="of these episodes")


class Reachability(Config):
    """From a value to the probability that the goal is reached in time: 1 / (1 + exp(-(scale * value + offset)))."""

    scale: float
    offset: float
    auroc: float | None = Described(
        description="of the value against what happened; None where all or no goals were reached"
    )
    horizon: float = Described(description="s within which the goal is reached")
    episodes: int = Described(description="in MuJoCo C, on which it was fitted")


class Contract(Metadata):
    """Everything that an exported file says of itself; see `teachers.runs.metadata.Metadata` for the first keys."""

    networks: dict[str, Network]
    lineage: Lineage  # type: ignore[assignment]
    contract_version: int = Described(ge=1)
    kind: Literal["onnx"]
    role: Role = Described(description="what the file computes")
    inputs: dict[str, tuple[Place, ...]] = Described(description="fields of each input")
    outputs: dict[str, tuple[Place, ...]] = Described(description="fields of each output")
    action_units: Units = Described(
        description="task: actions are in the units of their fields; normalized: in [-1, 1]"
    )
    control_period: float = Described(gt=0, description="seconds between two actions")
    episode_steps: int = Described(ge=1, description="control steps of an episode in training")
    success_radius: float = Described(gt=0, description="in the goal's unit")
    embedding_size: int = Described(ge=1, description="of the critic")
    opset: int
    precision: Precision = Described(description="of weights and arithmetic")
    operators: tuple[str, ...] = Described(description="types of all nodes, sorted")
    seen_in: SeenIn = Described(
        description="where the ranges of the inputs come from: training, or episodes played at export"
    )
    parity: Parity | None
    reachability: Reachability | None = Described(description="of files with a value")

    @field_validator("inputs", "outputs")
    @classmethod
    def _have_fields(cls, arrays: dict[str, tuple[Place, ...]]) -> dict[str, tuple[Place, ...]]:
        for name, fields in arrays.items():
            ends = [0, *(field.stop for field in fields)]
            if not fields or [field.start for field in fields] != ends[:-1]:
                raise ValueError(f"the fields of {name} do not follow each other")
        return arrays


class Ranges(NamedTuple):
    """The smallest and the largest of every number of an array, `[n]` each."""

    low: np.ndarray
    high: np.ndarray


def contract(
    agent: Agent,
    role: Role,
    model: onnx.ModelProto,
    *,
    units: Units,
    seen: Mapping[str, Ranges],
    seen_in: SeenIn,
    parity: Parity | None = None,
    reachability: Reachability | None = None,
    metrics: Mapping[str, Any] = MappingProxyType({}),
) -> Contract:
    """The metadata of an exported file.

    Args:
        agent: the student or teacher that was exported.
        role: which of its functions the file holds.
        model: the file's graph.
        units: of the actions that go in and out.
        seen: ranges of `observation` and `goal`.
        seen_in: where they come from.
        parity: of this file, if it was measured.
        reachability: of its values, if it gives any.
        metrics: figures to add to the agent's own.
    """
    task, own = agent.task, agent.metadata
    networks = list(NETWORKS[role])
    if ENCODER in own.networks:  # which the heads in this file read
        networks.append(ENCODER)
    lineage = {name: value for name, value in own.lineage.items() if name != "seen"}
    if own.kind == "teacher":
        lineage["teacher"] = describe_teacher(agent)
    else:
        lineage["student"] = {"digest": parameter_digest(agent.params)}
    outputs = {
        "action": places(task.action, None),
        "value": (Place(**VALUE, meaning=MEANING),),
    }
    return Contract(
        contract_version=CONTRACT_VERSION,
        kind="onnx",
        task=own.task,
        task_source=own.task_source,
        sizes=task.sizes,
        networks={name: own.networks[name] for name in networks},
        config=own.config,
        metrics={**own.metrics, **metrics},
        lineage=lineage,
        versions=library_versions(),
        role=role,
        inputs={name: places(getattr(task, name), seen.get(name)) for name in INPUTS[role]},
        outputs={name: outputs[name] for name in OUTPUTS[role]},
        action_units=units,
        control_period=task.control_period,
        episode_steps=task.episode_steps,
        success_radius=task.success_radius,
        embedding_size=agent.config.embedding,
        opset=model.opset_import[0].version,
        precision=precision_of(model),
        operators=operators(model),
        seen_in=seen_in,
        parity=parity,
        reachability=reachability,
    )


def places(fields: tuple[Field, ...], seen: Ranges | None) -> tuple[Place, ...]:
    """The fields of an array in order, each with its index range and the range that it was seen in."""
    rows = field_table(fields)
    if seen is None:
        return tuple(Place(**row) for row in rows)
    return tuple(
        Place(
            **row,
            seen_low=seen.low[row["start"] : row["stop"]].tolist(),
            seen_high=seen.high[row["start"] : row["stop"]].tolist(),
        )
        for row in rows
    )


def precision_of(model: onnx.ModelProto) -> Precision:
    """Of a model's arithmetic, as its weights and operators show it."""
    if "QuantizeLinear" in operators(model):
        return "int8"
    halves = any(each.data_type == onnx.TensorProto.FLOAT16 for each in model.graph.initializer)
    return "float16" if halves else "float32"


def operators(model: onnx.ModelProto) -> tuple[str, ...]:
    """The types of a model's nodes, those inside loops too, sorted."""
    found: set[str] = set()
    graphs = [model.graph]
    while graphs:
        for node in graphs.pop().node:
            found.add(node.op_type)
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return tuple(sorted(found))


def attach(model: onnx.ModelProto, entries: Contract) -> None:
    """Writes the contract into a model, in place of what metadata it has."""
    del model.metadata_props[:]
    rows = entries.model_dump(mode="json")
    onnx.helper.set_model_props(
        model, {f"{PREFIX}{key}": json.dumps(value) for key, value in rows.items()}
    )


def schema() -> str:
    """The JSON schema of the contract, as `contract.schema.json` holds it."""
    found = Contract.model_json_schema(mode="serialization")
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def field_table(fields: tuple[Field, ...]) -> list[dict[str, Any]]:
    """The fields of an array in order, each with its index range `[start, stop)`."""
    where = slices(fields)
    return [
        {**field._asdict(), "start": where[field.name].start, "stop": where[field.name].stop}
        for field in fields
    ]


def describe_task(task: Task) -> dict[str, Any]:
    """A task's declaration as JSON values."""
    return {
        "name": task.name,
        "summary": task.summary,
        "observation": field_table(task.observation),
        "goal": field_table(task.goal),
        "action": field_table(task.action),
        "control_period": task.control_period,
        "episode_steps": task.episode_steps,
        "success_radius": task.success_radius,
        "hard_radius": task.hard_radius,
        "contacts": task.contacts,
        "goal_sets": list(task.goal_sets),
        "training": dict(task.training),
    }
