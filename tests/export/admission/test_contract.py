"""Contracts that are damaged, or do not agree with their graph: each is refused in one line."""

import json

import onnx
import pytest
from onnx_edits import admit, find_entry, load_fixture, set_entry

from teachers import InputError


def remove_contract(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def remove_version(model: onnx.ModelProto) -> None:
    find_entry(model, "contract_version").key = "contract_version"


def truncate_json(model: onnx.ModelProto) -> None:
    model.metadata_props[0].value = "{"


def nest_json_deeply(model: onnx.ModelProto) -> None:
    find_entry(model, "lineage").value = "[" * 200_000


def negate_control_period(model: onnx.ModelProto) -> None:
    set_entry(model, "control_period", -1)


def claim_other_role(model: onnx.ModelProto) -> None:
    set_entry(model, "role", "critic")


def claim_other_opset(model: onnx.ModelProto) -> None:
    set_entry(model, "opset", 13)


def claim_other_precision(model: onnx.ModelProto) -> None:
    set_entry(model, "precision", "int8")


def remove_fields(model: onnx.ModelProto) -> None:
    set_entry(model, "inputs", {"observation": [], "goal": []})


def remove_one_field(model: onnx.ModelProto) -> None:
    arrays = json.loads(find_entry(model, "inputs").value)
    del arrays["observation"][1]
    set_entry(model, "inputs", arrays)


def reverse_observed_range(model: onnx.ModelProto) -> None:
    arrays = json.loads(find_entry(model, "inputs").value)
    arrays["goal"][0] |= {"seen_low": [1e308, 0.0], "seen_high": [-1e308, 1.0]}
    set_entry(model, "inputs", arrays)


def remove_network_sizes(model: onnx.ModelProto) -> None:
    set_entry(model, "networks", {"actor": {}})


def replace_teacher(model: onnx.ModelProto) -> None:
    set_entry(model, "lineage", {"teacher": 5})


DAMAGED = {
    remove_contract: "did not export it",
    remove_version: r"crl_distill\.contract_version",
    truncate_json: "damaged metadata",
    nest_json_deeply: "damaged metadata",
    negate_control_period: r"crl_distill\.control_period",
    claim_other_role: "not those of a critic",
    claim_other_opset: "declares opset 13, but has 17",
    claim_other_precision: "declares precision 'int8', but has 'float32'",
    remove_fields: "the fields of observation do not follow",
    remove_one_field: "the fields of observation do not follow",
    reverse_observed_range: "has an observed range that is not finite or not in order",
    remove_network_sizes: r"crl_distill\.networks",
    replace_teacher: r"crl_distill\.lineage",
}


@pytest.mark.parametrize("edit", DAMAGED, ids=lambda edit: edit.__name__)
def test_read_contract_refuses_damaged_contracts(edit) -> None:
    model = load_fixture()
    edit(model)
    with pytest.raises(InputError, match=DAMAGED[edit]) as refused:
        admit(model)
    assert "\n" not in str(refused.value)
