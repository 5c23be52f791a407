"""Makes the contract of an exported file, and writes it into the file's metadata."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx

from export.contract import (
    NETWORKS,
    AnyPlace,
    Contract,
    Parity,
    Place,
    RangeSource,
    Reachability,
    SensorPlace,
    Units,
)
from export.graph import graph_precision, operator_types
from export.runtime import PREFIX
from export.signature import Role, agent_signature, task_fields
from students.memory import ENCODER
from teachers.agent import Agent, describe_teacher
from teachers.runs.metadata import library_versions, parameter_digest
from teachers.tasks import Field, Sensor
from teachers.tasks.describe import describe_fields

VALUE = Place(
    name="value",
    size=1,
    start=0,
    stop=1,
    unit="1",
    meaning="-||phi - psi||, at most 0: the nearer to 0, the sooner the goal is reached",
)


class ObservedRange(NamedTuple):
    """The smallest and the largest value of each number of an array, `[n]` each."""

    low: np.ndarray
    high: np.ndarray


def make_contract(
    agent: Agent,
    role: Role,
    model: onnx.ModelProto,
    *,
    units: Units,
    observed_ranges: Mapping[str, ObservedRange],
    range_source: RangeSource,
    parity: Parity | None = None,
    reachability: Reachability | None = None,
    metrics: Mapping[str, Any] = MappingProxyType({}),
) -> Contract:
    """Returns the contract of an exported file.

    Args:
        agent: the student or teacher that was exported.
        role: which of its functions the file computes.
        model: the file's graph.
        units: units of the actions that go in and out.
        observed_ranges: ranges of what the agent reads and of its goal, by the names of the inputs.
        range_source: where the ranges come from.
        parity: the file's difference from JAX, if it was measured.
        reachability: the calibration of the file's values, if it gives any.
        metrics: figures to add to the agent's own.
    """
    task, metadata = agent.task, agent.metadata
    networks = list(NETWORKS[role])
    if ENCODER in metadata.networks:  # the heads in this file read it
        networks.append(ENCODER)
    lineage = {name: value for name, value in metadata.lineage.items() if name != "seen"}
    if metadata.kind == "teacher":
        lineage["teacher"] = describe_teacher(agent)
    else:
        lineage["student"] = {"digest": parameter_digest(agent.params)}
    signature = agent_signature(agent.networks)

    def place_array(name: str) -> tuple[AnyPlace, ...]:
        if name == "value":
            return (VALUE,)
        if name in ("state", "next_state"):
            return (_place_memory(signature.memory_size),)
        return place_fields(task_fields(task, name), observed_ranges.get(name))

    return Contract(
        contract_version=signature.contract_version,
        kind="onnx",
        task=metadata.task,
        task_source=metadata.task_source,
        task_digest=metadata.task_digest,
        sizes=task.sizes,
        networks={name: metadata.networks[name] for name in networks},
        config=metadata.config,
        metrics={**metadata.metrics, **metrics},
        lineage=lineage,
        versions=library_versions(),
        role=role,
        inputs={name: place_array(name) for name in signature.inputs(role)},
        outputs={name: place_array(name) for name in signature.outputs(role)},
        action_units=units,
        control_period=task.control_period,
        episode_steps=task.episode_steps,
        success_radius=task.success_radius,
        embedding_size=agent.config.embedding,
        opset=model.opset_import[0].version,
        precision=graph_precision(model),
        operators=operator_types(model),
        seen_in=range_source,
        parity=parity,
        reachability=reachability,
    )


def place_fields(
    fields: tuple[Field | Sensor, ...], observed_range: ObservedRange | None = None
) -> tuple[AnyPlace, ...]:
    """Returns the fields of an array in order, each with its indices and, if it is given, its observed range."""
    places: list[AnyPlace] = []
    for field, row in zip(fields, describe_fields(fields), strict=True):
        if observed_range is not None:
            row |= _describe_range(row, observed_range)
        places.append(SensorPlace(**row) if isinstance(field, Sensor) else Place(**row))
    return tuple(places)


def _describe_range(row: Mapping[str, Any], observed_range: ObservedRange) -> dict[str, Any]:
    place = slice(row["start"], row["stop"])
    lows, highs = (ends[place].tolist() for ends in observed_range)
    if row["quaternion"]:  # a robot may send the other sign
        lows, highs = [-1.0] * row["size"], [1.0] * row["size"]
    return {"seen_low": lows, "seen_high": highs}


def _place_memory(size: int) -> Place:
    return Place(
        name="memory",
        size=size,
        start=0,
        stop=size,
        unit="1",
        meaning="what the policy carries from one control step to the next; zeros at the start of an episode",
    )


def attach_contract(model: onnx.ModelProto, contract: Contract) -> None:
    """Writes a contract into a model, in place of all metadata that the model has."""
    del model.metadata_props[:]
    values = contract.model_dump(mode="json")
    onnx.helper.set_model_props(
        model, {f"{PREFIX}{key}": json.dumps(value) for key, value in values.items()}
    )
