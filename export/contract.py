"""The contract of an exported file: its inputs and outputs, field by field, how it was checked, and its lineage.

Every key of `Contract` is stored as JSON under `crl_distill.KEY` in the ONNX file's metadata properties.
`contract.schema.json` beside this module is the same contract as a JSON schema.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator
from typing_extensions import TypedDict

from export.signature import Role, Signature
from teachers.runs.configuration import Config
from teachers.runs.metadata import Metadata

Units = Literal["task", "normalized"]
Precision = Literal["float32", "float16", "int8"]
RangeSource = Literal["training", "export"]

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
    low: float | None = Field(None, description="physical limit; of an action, what -1 stands for")
    high: float | None = Field(None, description="physical limit; of an action, what 1 stands for")
    quaternion: bool = Field(
        False, description="a unit quaternion, w first, of which either sign may be given"
    )
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
            raise ValueError(
                f"field {self.name!r} has an observed range that is not finite or not in order"
            )
        return self


class SensorPlace(Place):
    """A sensor's place in an array, and how it erred in training; see `teachers.tasks.Sensor`."""

    noise: float = Field(ge=0, description="standard deviation of each reading, in `unit`")
    bias: float = Field(ge=0, description="standard deviation between episodes, in `unit`")
    resolution: float = Field(ge=0, description="smallest step, in `unit`; 0: none")
    delay: int = Field(ge=0, description="control steps by which a reading is late")
    dropout: float = Field(ge=0, lt=1, description="share of the readings that are lost")
    every: int = Field(ge=1, description="control steps from one reading to the next")
    is_goal: bool = Field(description="whether it is the goal as the robot knows it")
    privileged: bool = Field(description="something that a robot cannot measure")


def _kind_of_place(value: Any) -> str:
    is_sensor = "noise" in value if isinstance(value, Mapping) else isinstance(value, SensorPlace)
    return "sensor" if is_sensor else "field"


AnyPlace = Annotated[
    Annotated[SensorPlace, Tag("sensor")] | Annotated[Place, Tag("field")],
    Discriminator(_kind_of_place),
]


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
    inputs: dict[str, tuple[AnyPlace, ...]] = Field(description="fields of each input")
    outputs: dict[str, tuple[AnyPlace, ...]] = Field(description="fields of each output")
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
    reachability: Reachability | None = Field(
        description="calibration of the value, if there is one"
    )

    @field_validator("inputs", "outputs")
    @classmethod
    def _require_adjacent_fields(
        cls, arrays: dict[str, tuple[AnyPlace, ...]]
    ) -> dict[str, tuple[AnyPlace, ...]]:
        for name, fields in arrays.items():
            ends = [0, *(field.stop for field in fields)]
            if not fields or [field.start for field in fields] != ends[:-1]:
                raise ValueError(f"the fields of {name} do not follow each other")
        return arrays

    @property
    def signature(self) -> Signature:
        """What the file reads and carries from step to step."""
        state = self.inputs.get("state")
        return Signature(
            "sensors" if "sensors" in self.inputs else "observation",
            state[-1].stop if state else 0,
        )


def contract_schema() -> str:
    """Returns the JSON schema of the contract, which `contract.schema.json` holds."""
    schema = Contract.model_json_schema(mode="serialization")
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"
