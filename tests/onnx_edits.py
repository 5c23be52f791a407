"""Edits of exported files, as somebody would make them who wants to harm, or who has damaged them by accident."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.admission import admit_model, read_contract
from export.runtime import PREFIX

FIXTURES = Path(__file__).parent / "fixtures"


def load_fixture(role: str = "policy") -> onnx.ModelProto:
    """Returns a stored file of a student that reads the observation and remembers nothing, for edits."""
    return onnx.load(FIXTURES / "contract-1" / f"{role}.onnx")


def admit(model: onnx.ModelProto) -> onnx.ModelProto:
    """Admits a model and its contract, as every command does before it runs a file."""
    admitted = admit_model(model.SerializeToString(), "policy.onnx")
    read_contract(admitted, "policy.onnx")
    return admitted


def add_nodes(model: onnx.ModelProto, *nodes: onnx.NodeProto, **constants: list[int]) -> None:
    """Adds nodes to a graph, and integer constants that they read."""
    for name, numbers in constants.items():
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(numbers, np.int64), name)
        )
    model.graph.node.extend(nodes)


def find_entry(model: onnx.ModelProto, key: str) -> onnx.StringStringEntryProto:
    """Returns an entry of the contract in the model's metadata."""
    return next(entry for entry in model.metadata_props if entry.key == PREFIX + key)


def set_entry(model: onnx.ModelProto, key: str, value: Any) -> None:
    """Replaces the value of an entry of the contract."""
    find_entry(model, key).value = json.dumps(value)
