"""Hostile and damaged files: each is refused in one line, before ONNX Runtime sees it."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.helper import make_node

from export.admission import BASIC, admitted, read_contract, read_model
from export.contract import operators
from export.convert import NEWEST, convert
from export.precision import reduced
from export.session import open_session
from students import load_student, student_networks
from students.config import MLPConfig, SavedStudentConfig
from teachers import InputError, load_teacher
from teachers.agent import Agent
from teachers.tasks.registry import get_task


@pytest.fixture(scope="module")
def raw(export_folder) -> bytes:
    return (export_folder / "policy.onnx").read_bytes()


def admit(raw: bytes) -> onnx.ModelProto:
    model = admitted(raw, "policy.onnx")
    read_contract(model, "policy.onnx")
    return model


def test_what_we_write_is_let_in(export_folder) -> None:
    for name in ("policy", "critic"):
        model = read_model(export_folder / f"{name}.onnx")
        assert read_contract(model, name).role == name


@pytest.mark.parametrize("opset", [13, 17])
def test_a_teacher_is_let_in(teacher_run, opset) -> None:
    model = convert(load_teacher(teacher_run), "combined", opset=opset)
    assert admitted(model.SerializeToString(), "teacher") == model


@pytest.mark.parametrize(
    ("opset", "precision"), [(13, "float16"), (17, "int8"), (18, "float32"), (NEWEST, "float32")]
)
def test_all_that_is_written_is_let_in(student_run, opset, precision) -> None:
    shape = MLPConfig(layers=2, width=8, activation="swish", normalisation=True)
    config = SavedStudentConfig(policy=shape, critic=shape, heads=True, embedding=4)
    networks = student_networks(get_task("reacher"), config, 4)
    metadata = load_student(student_run).metadata
    student = Agent(networks, networks.init(jax.random.key(0)), config, metadata)
    rows = {"observation": np.eye(8, dtype=np.float32), "goal": np.ones((8, 2), np.float32)}
    model = reduced(convert(student, "combined", opset=opset), precision, rows)
    assert operators(admitted(model.SerializeToString(), "combined.onnx")) == operators(model)


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../secret"


def shadowed(model: onnx.ModelProto) -> None:
    whole = TensorProto()
    whole.CopyFrom(model.graph.initializer[0])
    external(model)
    model.graph.initializer.append(whole)  # of the same name, and harmless


def huge(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**31, 2**31]


def negative(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -1


def not_a_number(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
    size = len(onnx.numpy_helper.to_array(tensor).ravel())
    tensor.raw_data = np.full(size, np.nan, np.float32).tobytes()


def foreign_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Tile"


def followed(model: onnx.ModelProto, *nodes: onnx.NodeProto, **sizes: list[int]) -> None:
    """Adds nodes, and constants that they take."""
    for name, numbers in sizes.items():
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(numbers, np.int64), name)
        )
    model.graph.node.extend(nodes)


def expanded(model: onnx.ModelProto) -> None:
    followed(model, make_node("Expand", ["goal", "huge"], ["many"]), huge=[2**20, 2**10, 2])


def computed_size(model: onnx.ModelProto) -> None:
    shape, many = make_node("Shape", ["goal"], ["s"]), make_node("Mul", ["s", "factor"], ["sizes"])
    expand = make_node("Expand", ["goal", "sizes"], ["many"])
    followed(model, shape, many, expand, factor=[2**20, 1])


def every_pair_of_rows(model: onnx.ModelProto) -> None:
    turned = make_node("Transpose", ["goal"], ["turned"])
    followed(model, turned, make_node("MatMul", ["goal", "turned"], ["pairs"]))


def foreign_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def own_function(model: onnx.ModelProto) -> None:
    model.functions.add().name = "F"


def later_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def loop(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Loop"


def other_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 9


def without_contract(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def wrong_contract(model: onnx.ModelProto) -> None:
    entry = next(p for p in model.metadata_props if p.key == "crl_distill.control_period")
    entry.value = "-1"


def text_contract(model: onnx.ModelProto) -> None:
    model.metadata_props[0].value = "{"


def other_role(model: onnx.ModelProto) -> None:
    next(p for p in model.metadata_props if p.key == "crl_distill.role").value = '"critic"'


def doubled(model: onnx.ModelProto) -> None:
    followed(model, make_node("Concat", ["goal", "goal"], ["twice"], axis=0))


def sizes_joined_again_and_again(model: onnx.ModelProto) -> None:
    nodes = [make_node("Shape", ["goal"], ["c0"])]
    nodes += [make_node("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=0) for i in range(30)]
    followed(model, *nodes)


def looped(*given: str) -> Callable[[onnx.ModelProto], None]:
    """Adds a loop of 100 products of matrices, 4,096 times over, of which it gives these."""
    square = onnx.numpy_helper.from_array(np.eye(256, dtype=np.float32), "square")
    array, flag = (
        lambda name, kind=kind, shape=shape: onnx.helper.make_tensor_value_info(name, kind, shape)
        for kind, shape in ((TensorProto.FLOAT, [256, 256]), (TensorProto.BOOL, []))
    )
    products = [make_node("MatMul", [f"m{i}", "square"], [f"m{i + 1}"]) for i in range(100)]
    body = onnx.helper.make_graph(
        [make_node("Identity", ["go"], ["went"]), *products],
        "body",
        [
            onnx.helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            flag("go"),
            array("m0"),
        ],
        [flag("went"), *(array(name) for name in given)],
    )

    def harm(model: onnx.ModelProto) -> None:
        truth = onnx.numpy_helper.from_array(np.array(True), "true")
        model.graph.initializer.extend([square, truth])
        outputs = [f"looped_{name}" for name in given]
        loop = make_node("Loop", ["trips", "true", "square"], outputs, body=body)
        followed(model, loop, trips=[4096])

    return harm


def long_loop(model: onnx.ModelProto) -> None:
    looped("m100")(model)


def keeping_loop(model: onnx.ModelProto) -> None:
    looped("m100", "m50")(model)


def many_large_arrays(model: onnx.ModelProto) -> None:
    nodes = [make_node("Expand", ["one", "wide"], ["x0"])]
    nodes += [make_node("Add", [f"x{i}", f"x{i}"], [f"x{i + 1}"]) for i in range(1900)]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1), np.float32), "one"))
    followed(model, *nodes, wide=[1, 2**16])


def entry(model: onnx.ModelProto, key: str) -> onnx.StringStringEntryProto:
    return next(p for p in model.metadata_props if p.key == f"crl_distill.{key}")


def deep_contract(model: onnx.ModelProto) -> None:
    entry(model, "lineage").value = "[" * 200_000


def no_fields(model: onnx.ModelProto) -> None:
    entry(model, "inputs").value = json.dumps({"observation": [], "goal": []})


def no_network(model: onnx.ModelProto) -> None:
    entry(model, "networks").value = json.dumps({"actor": {}})


def no_teacher(model: onnx.ModelProto) -> None:
    entry(model, "lineage").value = json.dumps({"teacher": 5})


def wrong_ranges(model: onnx.ModelProto) -> None:
    arrays = json.loads(entry(model, "inputs").value)
    arrays["goal"][0] |= {"seen_low": [1e308, 0.0], "seen_high": [-1e308, 1.0]}
    entry(model, "inputs").value = json.dumps(arrays)


def gaps_between_fields(model: onnx.ModelProto) -> None:
    arrays = json.loads(entry(model, "inputs").value)
    del arrays["observation"][1]
    entry(model, "inputs").value = json.dumps(arrays)


def other_opset(model: onnx.ModelProto) -> None:
    entry(model, "opset").value = "13"


def other_precision(model: onnx.ModelProto) -> None:
    entry(model, "precision").value = '"int8"'


def no_version(model: onnx.ModelProto) -> None:
    entry(model, "contract_version").key = "contract_version"


HOSTILE: dict[Callable[[onnx.ModelProto], None], str] = {
    external: "in another file",
    shadowed: "in another file",
    huge: "numbers but holds",
    negative: "of a negative size",
    not_a_number: "that are not finite",
    foreign_operator: "has the operator 'Tile'",
    expanded: "gives arrays sizes",
    computed_size: "gives arrays sizes",
    doubled: "joins batches",
    every_pair_of_rows: "larger than a policy's",
    foreign_domain: "has the operator",
    own_function: "defines operators of its own",
    later_opset: "needs operator sets",
    loop: "has a loop of no fixed length",
    other_size: "is no valid graph",
    sizes_joined_again_and_again: "joins more arrays",
    long_loop: "computes more than a policy",
    keeping_loop: "gives more than it carries",
    many_large_arrays: "computes more than a policy",
    deep_contract: "damaged metadata",
    no_fields: "the fields of observation do not follow",
    no_network: r"crl_distill\.networks",
    no_teacher: r"crl_distill\.lineage",
    wrong_ranges: "has ranges that are none",
    gaps_between_fields: "the fields of observation do not follow",
    other_opset: "says opset 13, but has 17",
    other_precision: "says precision 'int8', but has 'float32'",
    no_version: r"crl_distill\.contract_version",
    without_contract: "did not export it",
    wrong_contract: r"crl_distill\.control_period",
    text_contract: "damaged metadata",
    other_role: "not those of a critic",
}


@pytest.mark.parametrize("harm", HOSTILE, ids=lambda harm: harm.__name__)
def test_a_hostile_file_is_refused(raw, harm) -> None:
    model = onnx.load_from_string(raw)
    harm(model)
    with pytest.raises(InputError, match=HOSTILE[harm]) as refused:
        admit(model.SerializeToString())
    assert "\n" not in str(refused.value)


def test_a_file_that_is_none_is_refused(tmp_path) -> None:
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


def survives(raw: bytes) -> None:
    """Refused in one line, or whole enough to be run."""
    said = ""
    try:
        model = admit(raw)
        sizes = {v.name: v.type.tensor_type.shape.dim[1].dim_value for v in model.graph.input}
        open_session(model)({name: np.zeros((1, size), np.float32) for name, size in sizes.items()})
    except InputError as error:
        said = str(error)
    assert "\n" not in said


def cut(raw: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, a part left out, doubled or moved, or the rest cut off."""
    changed = bytearray(raw)
    for _ in range(random.integers(1, 5)):
        at, length = random.integers(len(changed) + 1), random.integers(1, 64)
        match random.integers(5):
            case 0:
                changed[at : at + 1] = random.bytes(1)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length]
            case 3:
                changed[at : at + length] = random.bytes(int(length))
            case _:
                del changed[at:]
    return bytes(changed)


def rewired(raw: bytes, random: np.random.Generator) -> bytes:
    """Still an ONNX file, of which some fields say something else."""
    model = onnx.load_from_string(raw)
    for _ in range(random.integers(1, 4)):
        change(random.choice(list(messages(model.graph))), random)
    return model.SerializeToString()


def messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for each in value if field.is_repeated else [value]:
                yield from messages(each)


def change(message: Message, random: np.random.Generator) -> None:
    fields = message.ListFields()
    if not fields:
        return
    field, value = fields[random.integers(len(fields))]
    if field.is_repeated:
        at, other = random.integers(len(value), size=2)
        match random.integers(3):
            case 0:
                del value[at]
            case 1:
                value.append(value[at])
            case _ if field.type == field.TYPE_MESSAGE:
                value[at].CopyFrom(value[other])
            case _:
                value[at] = replaced(value[other], random)
    elif field.type == field.TYPE_ENUM:
        setattr(message, field.name, int(random.choice([*field.enum_type.values_by_number])))
    elif field.type != field.TYPE_MESSAGE:
        setattr(message, field.name, replaced(value, random))


def replaced(value: Any, random: np.random.Generator) -> Any:
    if isinstance(value, bytes):
        return cut(value, random)
    if isinstance(value, str):
        return str(random.choice([*sorted(BASIC), "observation", "goal", "action", "const_0", ""]))
    if isinstance(value, float):
        return float(random.choice([np.nan, np.inf, -1.0, 1e30]))
    return int(random.choice([0, 1, 2, 7, 16, 2**16, 2**30, value + 1]))


def fuzz(raw: bytes, count: int) -> None:
    """Each of so many is refused, or computes something."""
    random = np.random.default_rng(0)
    for i in range(count):
        survives((cut if i % 2 else rewired)(raw, random))


def test_mutated_files_do_no_harm(raw) -> None:
    fuzz(raw, 300)


@pytest.mark.slow
def test_ten_thousand_mutated_files_do_no_harm(raw) -> None:
    fuzz(raw, 10_000)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=200))
def test_any_bytes_do_no_harm(content) -> None:
    survives(content)


def test_no_other_file_is_read(raw, tmp_path: Path, monkeypatch) -> None:
    """Weights that lie beside the file, where ONNX Runtime itself would read them."""
    monkeypatch.chdir(tmp_path)
    model = onnx.load_from_string(raw)
    onnx.save(
        model, tmp_path / "p.onnx", save_as_external_data=True, location="w.bin", size_threshold=100
    )
    onnxruntime.InferenceSession(tmp_path / "p.onnx")  # it reads them
    with pytest.raises(InputError, match="in another file"):
        read_model(tmp_path / "p.onnx")
