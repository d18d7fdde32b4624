"""The recipes that manifests name: from a parent's bytes and committed data to a model's bytes.

Equal input gives equal bytes on every machine; the manifest pins their hash.
"""

from edge.core.errors import ModelError
from edge.face.build.fp32 import flip_steep_slopes, free_input_size, write_fp32
from edge.face.build.heads import join_heads
from edge.face.build.int8 import write_int8
from edge.face.build.minifasnet.published import fit_published
from edge.face.build.minifasnet.writer import write_minifasnet
from edge.face.build.network import parse
from edge.face.build.omz.bottlenecks import parse as parse_bottlenecks
from edge.face.build.omz.bottlenecks_fp32 import write_bottlenecks_fp32
from edge.face.build.omz.bottlenecks_int8 import (
    BottleneckStatistics,
    equalise_bottlenecks,
    quantize_bottlenecks,
    write_bottlenecks_int8,
)
from edge.face.build.omz.ir import read_ir
from edge.face.build.prelu import add_prelu, max_prelu
from edge.face.build.quantized import equalise, quantize
from edge.face.build.tables import Statistics, read_statistics


def run_recipe(name: str, parent: bytes, *others: bytes, data: bytes = b"") -> bytes:
    """Build a model of its parent's file, or of its authors' files, and of committed data.

    Raises:
        ModelError: No such recipe, or it was not written for this parent or these data.
    """
    match name:
        case "yunet-joined":
            return join_heads(free_input_size(parent))
        case "sface-fp32":
            return write_fp32(flip_steep_slopes(parse(parent)), input_name="data", output_name="fc1")
        case "sface-int8" | "sface-int8-add":
            statistics = read_statistics(data, Statistics)
            quantized = quantize(equalise(parse(parent), statistics), statistics)
            prelu = max_prelu if name == "sface-int8" else add_prelu
            return write_int8(quantized, input_name="data", output_name="fc1", prelu=prelu)
        case "minifasnet":
            return write_minifasnet(parent, input_name="input", output_name="logits")
        case "minifasnet-published":
            return fit_published(parent)
        case "omz-0095":
            network = parse_bottlenecks(read_ir(parent, *others))
            return write_bottlenecks_fp32(network, input_name="0", output_name="658")
        case "omz-0095-int8":
            measured = read_statistics(data, BottleneckStatistics)
            network = equalise_bottlenecks(parse_bottlenecks(read_ir(parent, *others)), measured)
            rounded = quantize_bottlenecks(network, measured)
            return write_bottlenecks_int8(rounded, input_name="0", output_name="658")
        case _:
            raise ModelError(f"no recipe named {name!r}; install edge again")
