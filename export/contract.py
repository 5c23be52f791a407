"""The contract of an exported file: its inputs and outputs, field by field, how it was checked, and its lineage.

Every key of `Contract` is stored as JSON under `crl_distill.KEY` in the ONNX file's metadata properties.
`contract.schema.json` beside this module is the same contract as a JSON schema.
"""

import json
from collections.abc import Mapping
from typing import Literal, NotRequired

import numpy as np
from pydantic import ConfigDict, Field, field_validator, model_validator
from typing_extensions import TypedDict

from teachers.runs.configuration import Config
from teachers.runs.metadata import Metadata

Role = Literal["policy", "critic", "combined"]
Units = Literal["task", "normalized"]
Precision = Literal["float32", "float16", "int8"]
RangeSource = Literal["training", "export"]

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


class Place(Config):
    """A field of an array, which takes the numbers at the indices `[start, stop)`."""

    name: str
    size: int
    start: int
    stop: int
    unit: str
    meaning: str
    scale: float = Field(
        1.0, description="usual magnitude in `unit`; the file divides observations and goals by it"
    )
    low: float | None = Field(
        None, description="physical limit; of an action, what -1 stands for"
    )
    high: float | None = Field(None, description="physical limit; of an action, what 1 stands for")
    seen_low: tuple[float, ...] | None = Field(
        None, description="smallest values in training, one for each number of the field"
    )
    seen_high: tuple[float, ...] | None = Field(
        None, description="largest values in training, one for each number of the field"
    )

    @model_validator(mode="after")
    def _require_consistent_sizes(self) -> "Place":
        lengths = [len(ends) for ends in (self.seen_low, self.seen_high) if ends is not None]
        if self.size < 1 or self.start < 0 or self.stop - self.start != self.size:
            raise ValueError(f"the indices of field {self.name!r} are not {self.size} numbers")
        if lengths not in ([], [self.size, self.size]):
            raise ValueError(f"field {self.name!r} has not {self.size} observed ranges")
        lower, upper = np.array(self.seen_low or ()), np.array(self.seen_high or ())
        largest = np.finfo(np.float32).max
        if not ((-largest <= lower) & (lower <= upper) & (upper <= largest)).all():
            raise ValueError(f"field {self.name!r} has an observed range that is not finite or not in order")
        return self


class Network(TypedDict):
    """A network's shape and number of parameters."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    parameters: int
    width: NotRequired[int]
    depth: NotRequired[int]  # a teacher's network has one
    layers: NotRequired[int]  # a student's network has them


class Origin(TypedDict):
    """A checkpoint from which the file was exported or distilled."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    digest: str  # SHA-256 of the checkpoint's parameters


class Teacher(Origin):
    """The teacher that was distilled, or that was exported itself."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    networks: dict[str, Network]
    steps: NotRequired[int]  # control steps of its training
    success_at_end: NotRequired[float | None]
    time_at_goal: NotRequired[float | None]


class Lineage(TypedDict, total=False):
    """The checkpoints from which a file comes."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    student: Origin
    teacher: Teacher


class Parity(Config):
    """The difference between the file's outputs and JAX's on the same inputs."""

    max_abs: float = Field(
        description="largest absolute difference, with actions in [-1, 1]", allow_inf_nan=False
    )
    inputs: int = Field(description="number of observations, from episodes in MuJoCo C")
    seed: int = Field(description="seed of these episodes")


class Reachability(Config):
    """The probability that the goal is reached in time, as a function of the value.

    It is 1 / (1 + exp(-(scale * value + offset))).
    """

    scale: float
    offset: float
    auroc: float | None = Field(
        description="of the value as a predictor of success; None where all or no goals were reached"
    )
    horizon: float = Field(description="seconds within which the goal is to be reached")
    episodes: int = Field(description="number of episodes in MuJoCo C that it was fitted to")


class Contract(Metadata):
    """The description inside an exported file; its first keys are those of `teachers.runs.metadata.Metadata`."""

    networks: dict[str, Network]
    lineage: Lineage  # type: ignore[assignment]
    contract_version: int = Field(ge=1)
    kind: Literal["onnx"]
    role: Role = Field(description="what the file computes")
    inputs: dict[str, tuple[Place, ...]] = Field(description="fields of each input")
    outputs: dict[str, tuple[Place, ...]] = Field(description="fields of each output")
    action_units: Units = Field(
        description="task: actions are in the units of their fields; normalized: in [-1, 1]"
    )
    control_period: float = Field(gt=0, description="seconds between two actions")
    episode_steps: int = Field(ge=1, description="control steps of an episode in training")
    success_radius: float = Field(
        gt=0, description="distance within which a goal counts as reached, in the goal's unit"
    )
    embedding_size: int = Field(ge=1, description="size of the critic's embeddings")
    opset: int
    precision: Precision = Field(description="precision of weights and arithmetic")
    operators: tuple[str, ...] = Field(description="operators of all nodes, sorted")
    seen_in: RangeSource = Field(
        description="where the ranges of the inputs come from: training, or episodes played at export"
    )
    parity: Parity | None
    reachability: Reachability | None = Field(description="calibration of the value, if there is one")

    @field_validator("inputs", "outputs")
    @classmethod
    def _require_adjacent_fields(
        cls, arrays: dict[str, tuple[Place, ...]]
    ) -> dict[str, tuple[Place, ...]]:
        for name, fields in arrays.items():
            ends = [0, *(field.stop for field in fields)]
            if not fields or [field.start for field in fields] != ends[:-1]:
                raise ValueError(f"the fields of {name} do not follow each other")
        return arrays


<<<<<<< HEAD
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
=======
def contract_schema() -> str:
    """Returns the JSON schema of the contract, which `contract.schema.json` holds."""
    schema = Contract.model_json_schema(mode="serialization")
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"
>>>>>>> ab96fa7 (Export: admission in three rooms, the contract's types apart from its making, sections of model cards in one module)
