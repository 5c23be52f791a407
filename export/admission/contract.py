"""Reads the contract of an admitted file, and checks that its graph agrees with it."""

from onnx import ModelProto, TensorProto, ValueInfoProto
from pydantic import ValidationError

from export.admission.refusal import refusal_error
from export.contract import Contract
from export.graph import graph_precision, operator_types
from export.runtime import PREFIX, read_metadata
from teachers.runs.errors import InputError


def read_contract(model: ModelProto, source: str) -> Contract:
    """Returns the contract of an admitted model.

    Args:
        model: as `read_model` returns it.
        source: name of the file, for error messages.

    Raises:
        InputError: there is no valid contract, or the graph does not agree with it.
    """
    properties = {entry.key: entry.value for entry in model.metadata_props}
    try:
        contract = Contract.model_validate(read_metadata(properties, source))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "all"
        raise refusal_error(
            source, f"has a contract that crl-distill did not write ({PREFIX}{key}: {first['msg']})"
        ) from None
    except ValueError as error:
        raise InputError(str(error)) from None
    signature, role = contract.signature, contract.role
    for names, values, fields in (
        (signature.inputs(role), model.graph.input, contract.inputs),
        (signature.outputs(role), model.graph.output, contract.outputs),
    ):
        if tuple(value.name for value in values) != names or set(fields) != set(names):
            raise refusal_error(
                source, f"has arrays {[v.name for v in values]}, not those of a {contract.role}"
            )
        for value in values:
            _require_shape(value, fields[value.name][-1].stop, source)
    for name, declared, actual in (
        ("contract_version", contract.contract_version, signature.contract_version),
        ("operators", contract.operators, operator_types(model)),
        ("opset", contract.opset, model.opset_import[0].version),
        ("precision", contract.precision, graph_precision(model)),
    ):
        if declared != actual:
            raise refusal_error(source, f"declares {name} {declared!r}, but has {actual!r}")
    return contract


def _require_shape(value: ValueInfoProto, size: int, source: str) -> None:
    """Raises an error unless an input or output is float32 `[batch, size]`, or `[batch]` for the value."""
    tensor = value.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    expected = [None] if value.name == "value" else [None, size]
    if tensor.elem_type != TensorProto.FLOAT or shape != expected:
        raise refusal_error(
            source, f"has {value.name} of shape {shape}, not float32 [batch, {size}]"
        )
