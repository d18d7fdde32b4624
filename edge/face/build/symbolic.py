"""Free the input size of a fully convolutional detector. Changes no weight and no operator."""

import onnx

from edge.core.errors import ModelError


def free_input_size(model: bytes) -> bytes:
    """Return the model with height and width of its only input, and all output sizes, left open.

    Raises:
        ModelError: The model has not exactly one image input.
    """
    proto = onnx.load_model_from_string(model)
    constants = {constant.name for constant in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise ModelError("the parent model has not exactly one image input")
    dims = inputs[0].type.tensor_type.shape.dim
    dims[2].dim_param, dims[3].dim_param = "height", "width"
    for output in proto.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"{output.name}_cells"
    # Sizes of what lies between were inferred for the old input.
    del proto.graph.value_info[:]
    return bytes(proto.SerializeToString(deterministic=True))
