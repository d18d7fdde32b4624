"""Write ONNX graphs node by node, so that equal input gives equal bytes. Knows no model."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 8
"""Of the ONNX format; the one that belongs to `OPSET`."""

CONTRIB = "com.microsoft"
"""Domain of the operators that onnxruntime adds."""

FLOAT = int(TensorProto.FLOAT)
"""What the operator Cast calls float32."""

OPSET = 17
"""Old enough for every onnxruntime that is supported, new enough for per-channel quantization."""


ValueInfo = onnx.ValueInfoProto
"""A described input or output."""


class GraphWriter:
    """Collects nodes and constants; values are named by the caller."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Add a constant and return its name; an equal name must hold an equal value."""
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        if self._constants.setdefault(name, tensor) != tensor:
            raise ValueError(f"constant {name} exists with another value")
        return name

    def node(self, kind: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def finish(
        self,
        inputs: list[ValueInfo],
        outputs: list[ValueInfo],
        *,
        name: str,
        contrib: bool = False,
    ) -> bytes:
        """Serialize. `contrib` admits onnxruntime's own operators (domain com.microsoft)."""
        graph = helper.make_graph(self._nodes, name, inputs, outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        if contrib:
            opsets.append(helper.make_opsetid(CONTRIB, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edge")
        return bytes(model.SerializeToString(deterministic=True))


def float_tensor(name: str, shape: list[int | str]) -> ValueInfo:
    """Describe a float32 input or output; a name instead of a number is a free side."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def byte_tensor(name: str, shape: list[int | str]) -> ValueInfo:
    """Describe a uint8 output."""
    return helper.make_tensor_value_info(name, TensorProto.UINT8, shape)
