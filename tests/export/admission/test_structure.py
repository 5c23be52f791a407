"""Hostile graphs: each is refused in one line, before ONNX Runtime sees it."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx_edits import admit, load_fixture

from export.admission import read_model
from teachers import InputError


def store_weights_elsewhere(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../secret"


def shadow_external_weights(model: onnx.ModelProto) -> None:
    harmless = TensorProto()
    harmless.CopyFrom(model.graph.initializer[0])
    store_weights_elsewhere(model)
    model.graph.initializer.append(harmless)  # it has the same name


def declare_huge_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**31, 2**31]


def declare_negative_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -1


def store_nan_weights(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
    size = len(onnx.numpy_helper.to_array(tensor).ravel())
    tensor.raw_data = np.full(size, np.nan, np.float32).tobytes()


def use_unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Tile"


def use_unknown_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def use_endless_loop(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Loop"


HOSTILE = {
    store_weights_elsewhere: "in another file",
    shadow_external_weights: "in another file",
    declare_huge_weights: "numbers but holds",
    declare_negative_weights: "of a negative size",
    store_nan_weights: "that are not finite",
    use_unknown_operator: "has the operator 'Tile'",
    use_unknown_domain: "has the operator",
    use_endless_loop: "has a loop of no fixed length",
}


@pytest.mark.parametrize("edit", HOSTILE, ids=lambda edit: edit.__name__)
def test_require_basic_structure_refuses_hostile_graphs(edit) -> None:
    model = load_fixture()
    edit(model)
    with pytest.raises(InputError, match=HOSTILE[edit]) as refused:
        admit(model)
    assert "\n" not in str(refused.value)


def test_require_basic_structure_reads_no_other_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(
        load_fixture(),
        tmp_path / "p.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=100,
    )
    onnxruntime.InferenceSession(tmp_path / "p.onnx")  # ONNX Runtime itself reads them
    with pytest.raises(InputError, match="in another file"):
        read_model(tmp_path / "p.onnx")
