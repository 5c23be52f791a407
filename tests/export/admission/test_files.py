"""Which files are admitted: all that is exported; damaged and random ones are refused or do no harm."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_edits import admit, load_fixture

from export.admission import admit_model, read_contract, read_model
from export.admission.structure import OPERATORS
from export.convert import NEWEST_OPSET, convert
from export.graph import operator_types
from export.precision import reduce_precision
from export.session import open_session
from students import student_networks
from students.config import MLPConfig, SavedStudentConfig
from teachers import InputError
from teachers.agent import Agent
from teachers.tasks.registry import get_task


def test_read_model_admits_exported_files(export_folder) -> None:
    for name in ("policy", "critic"):
        model = read_model(export_folder / f"{name}.onnx")
        assert read_contract(model, name).role == name


@pytest.mark.parametrize("opset", [13, 17])
def test_admit_model_admits_teachers(teacher, opset) -> None:
    model = convert(teacher, "combined", opset=opset)
    assert admit_model(model.SerializeToString(), "teacher") == model


@pytest.mark.parametrize(
    ("opset", "precision"),
    [(13, "float16"), (17, "int8"), (18, "float32"), (NEWEST_OPSET, "float32")],
)
def test_admit_model_admits_all_opsets_and_precisions(student, opset, precision) -> None:
    shape = MLPConfig(layers=2, width=8, activation="swish", normalisation=True)
    config = SavedStudentConfig(policy=shape, critic=shape, heads=True, embedding=4)
    networks = student_networks(get_task("reacher"), config, 4)
    agent = Agent(networks, networks.init(jax.random.key(0)), config, student.metadata)
    rows = {"observation": np.eye(8, dtype=np.float32), "goal": np.ones((8, 2), np.float32)}
    model = reduce_precision(convert(agent, "combined", opset=opset), precision, rows)
    admitted = admit_model(model.SerializeToString(), "combined.onnx")
    assert operator_types(admitted) == operator_types(model)


def define_function(model: onnx.ModelProto) -> None:
    model.functions.add().name = "F"


def require_later_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def declare_other_input_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 9


INVALID = {
    define_function: "defines operators of its own",
    require_later_opset: "needs operator sets",
    declare_other_input_size: "is no valid graph",
}


@pytest.mark.parametrize("edit", INVALID, ids=lambda edit: edit.__name__)
def test_admit_model_refuses_invalid_models(edit) -> None:
    model = load_fixture()
    edit(model)
    with pytest.raises(InputError, match=INVALID[edit]) as refused:
        admit(model)
    assert "\n" not in str(refused.value)


def test_read_model_refuses_other_paths(tmp_path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="is a folder"):
        read_model(tmp_path)
    for content in (b"", b"text", b"\0" * 100):
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(InputError, match="is not an ONNX file"):
            read_model(tmp_path / "x.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    for endless in (tmp_path / "pipe.onnx", Path("/dev/zero")):
        with pytest.raises(InputError, match="is a device or a pipe"):
            read_model(endless)


def assert_harmless(content: bytes) -> None:
    """Asserts that a file is refused in one line, or that ONNX Runtime can run it."""
    message = ""
    try:
        model = admit_model(content, "policy.onnx")
        read_contract(model, "policy.onnx")
        sizes = {v.name: v.type.tensor_type.shape.dim[1].dim_value for v in model.graph.input}
        open_session(model)({name: np.zeros((1, size), np.float32) for name, size in sizes.items()})
    except InputError as error:
        message = str(error)
    assert "\n" not in message


def damage_bytes(content: bytes, random: np.random.Generator) -> bytes:
    """Returns content with some bytes changed, removed, doubled or replaced, or with its end cut off."""
    damaged = bytearray(content)
    for _ in range(random.integers(1, 5)):
        start, length = random.integers(len(damaged) + 1), random.integers(1, 64)
        match random.integers(5):
            case 0:
                damaged[start : start + 1] = random.bytes(1)
            case 1:
                del damaged[start : start + length]
            case 2:
                damaged[start:start] = damaged[start : start + length]
            case 3:
                damaged[start : start + length] = random.bytes(int(length))
            case _:
                del damaged[start:]
    return bytes(damaged)


def damage_graph(content: bytes, random: np.random.Generator) -> bytes:
    """Returns a file that is still ONNX, with some fields of its graph changed."""
    model = onnx.load_from_string(content)
    for _ in range(random.integers(1, 4)):
        change_field(random.choice(list(walk_messages(model.graph))), random)
    return model.SerializeToString()


def walk_messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for each in value if field.is_repeated else [value]:
                yield from walk_messages(each)


def change_field(message: Message, random: np.random.Generator) -> None:
    fields = message.ListFields()
    if not fields:
        return
    field, value = fields[random.integers(len(fields))]
    if field.is_repeated:
        index, other = random.integers(len(value), size=2)
        match random.integers(3):
            case 0:
                del value[index]
            case 1:
                value.append(value[index])
            case _ if field.type == field.TYPE_MESSAGE:
                value[index].CopyFrom(value[other])
            case _:
                value[index] = change_value(value[other], random)
    elif field.type == field.TYPE_ENUM:
        setattr(message, field.name, int(random.choice([*field.enum_type.values_by_number])))
    elif field.type != field.TYPE_MESSAGE:
        setattr(message, field.name, change_value(value, random))


def change_value(value: Any, random: np.random.Generator) -> Any:
    if isinstance(value, bytes):
        return damage_bytes(value, random)
    if isinstance(value, str):
        names = [*sorted(OPERATORS), "observation", "goal", "action", "const_0", ""]
        return str(random.choice(names))
    if isinstance(value, float):
        return float(random.choice([np.nan, np.inf, -1.0, 1e30]))
    return int(random.choice([0, 1, 2, 7, 16, 2**16, 2**30, value + 1]))


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_admit_model_refuses_or_survives_mutated_files(count) -> None:
    content, random = load_fixture().SerializeToString(), np.random.default_rng(0)
    for i in range(count):
        assert_harmless((damage_bytes if i % 2 else damage_graph)(content, random))


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=200))
def test_admit_model_survives_random_bytes(content) -> None:
    assert_harmless(content)
