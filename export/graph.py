"""What can be told from an ONNX graph alone: its subgraphs, operators and precision."""

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, TensorProto

from export.contract import Precision

PRODUCTS = ("Gemm", "MatMul")  # the operators that multiply with weights


def walk_graphs(graph: GraphProto, depth: int = 0) -> Iterator[tuple[GraphProto, int]]:
    """Yields a graph and all graphs inside its nodes, such as the bodies of loops, each with its depth of nesting."""
    yield graph, depth
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from walk_graphs(attribute.g, depth + 1)
            for subgraph in attribute.graphs:
                yield from walk_graphs(subgraph, depth + 1)


def operator_types(model: ModelProto) -> tuple[str, ...]:
    """Returns the operators of all nodes of a model, sorted."""
    types = {node.op_type for graph, _ in walk_graphs(model.graph) for node in graph.node}
    return tuple(sorted(types))


def graph_precision(model: ModelProto) -> Precision:
    """Returns the precision of a model's arithmetic, as its weights and operators show it."""
    if "QuantizeLinear" in operator_types(model):
        return "int8"
    has_float16 = any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    return "float16" if has_float16 else "float32"
