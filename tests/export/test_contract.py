import json
from pathlib import Path

import onnx
import pytest
from pydantic import ValidationError

import export
from export import Policy
from export.contract import Contract, contract_schema
from export.graph import operator_types


def test_contract_schema_is_the_file_that_ships() -> None:
    shipped = Path(export.__file__).parent / "contract.schema.json"
    assert shipped.read_text() == contract_schema(), "write export.contract.contract_schema() there"


def test_make_contract_describes_an_exported_file(export_folder) -> None:
    metadata = Policy(export_folder / "policy.onnx").metadata
    contract = Contract.model_validate(metadata)
    assert contract.role == "policy"
    assert contract.operators == operator_types(onnx.load(export_folder / "policy.onnx"))
    assert contract.parity
    assert contract.parity.inputs == 4096
    assert set(metadata) == set(json.loads(contract_schema())["properties"])
    with pytest.raises(ValidationError):
        Contract.model_validate({**metadata, "action_units": "feet"})
