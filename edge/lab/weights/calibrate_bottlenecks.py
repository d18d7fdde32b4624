"""Measure the statistics of the int8 recipe of omz-0095 on a directory of face photos.

For whoever changes the recipe:
`python -m edge.lab.weights.calibrate_bottlenecks PHOTOS MODELS_DIR OUT --source TEXT`.
As for SFace (`calibrate`), with the ranges of the gates besides, and biases corrected behind them.
"""

import numpy as np

from edge.core.types import FloatArray
from edge.face.build.network import Floats
from edge.face.build.omz.bottlenecks import HEAD, LAYERS_OF_BLOCK, Bottlenecks, parse, turn_steep_slopes
from edge.face.build.omz.bottlenecks_fp32 import write_bottlenecks_fp32
from edge.face.build.omz.bottlenecks_int8 import (
    BottleneckStatistics,
    GateStatistics,
    Range,
    equalise_bottlenecks,
    quantize_bottlenecks,
    write_bottlenecks_int8,
)
from edge.face.build.omz.ir import read_ir
from edge.face.build.tables import LayerStatistics, write_statistics
from edge.face.manifest import Input, Output, load_manifest
from edge.face.session import Session
from edge.face.weights import build_parts
from edge.lab.weights.calibrate import (
    HEADROOM,
    THREADS,
    arguments,
    corrected,
    corrected_fc,
    crops_of_subjects,
    means,
    measured_layer,
    sampled,
    taps,
    unmeasured_fc,
    with_clips,
)
from edge.lab.weights.ranges import best_range

INPUT = Input(name="0", size=(128, 128), colour="bgr")
OUTPUT = "658"

ROUNDS = 1
"""Times that all biases are corrected: a gate sees what was corrected before it, and what was not."""


def calibrate(
    network: Bottlenecks, ranging: list[FloatArray], correcting: list[FloatArray], source: str
) -> BottleneckStatistics:
    """Return the statistics of a parsed network: ranges from some crops, corrections from others."""
    network = turn_steep_slopes(network)
    statistics = _ranges(network, ranging, source)
    equal = equalise_bottlenecks(network, statistics)
    statistics = with_clips(equal.chain, statistics)
    for _ in range(ROUNDS):
        statistics = _corrections(equal, statistics, correcting)
    return statistics


def _ranges(network: Bottlenecks, crops: list[FloatArray], source: str) -> BottleneckStatistics:
    layers = network.chain.layers
    names = [layer.name for layer in layers]
    names += [f"sum_{block}" for block, adds in enumerate(network.adds, start=1) if adds]
    session = _float_session(network, *names)
    samples = sampled(session, names, crops)
    measured = []
    for index, layer in enumerate(layers):
        exponent: float | None = 0.5
        if network.block_of(index) is not None:
            exponent = None
        elif index + 1 < len(layers) and layers[index + 1].depthwise:
            exponent = 1.0
        measured.append(measured_layer(layer, samples[layer.name], exponent))
    seen = _gate_means(network, session, measured, crops)
    gates = []
    for block, values in enumerate(seen, start=1):
        summed = samples.get(f"sum_{block}")
        gates.append(GateStatistics(means=_range(values), summed=None if summed is None else _range(summed)))
    fc = unmeasured_fc(network.chain)
    return BottleneckStatistics(source=source, layers=tuple(measured), fc=fc, gates=tuple(gates))


def _gate_means(
    network: Bottlenecks, session: Session, measured: list[LayerStatistics], crops: list[FloatArray]
) -> list[Floats]:
    """Return what each gate will see, (crops, C): means of the equalised values before its projection."""
    before = range(HEAD + LAYERS_OF_BLOCK - 2, len(network.chain.layers) - 2, LAYERS_OF_BLOCK)
    seen: list[list[Floats]] = [[] for _ in before]
    for crop in crops:
        found = taps(session, crop)
        for index, values in zip(before, seen, strict=True):
            layer = network.chain.layers[index]
            x = found[layer.name][0].reshape(layer.channels, -1).astype(np.float64)
            active = np.maximum(x, x * layer.slope[:, None]).mean(axis=1)
            values.append(active / np.array(measured[index].equalise))
    return [np.stack(values) for values in seen]


def _range(x: Floats) -> Range:
    low, high = best_range(x, np.ones(x.shape[1]), per_channel=False)
    return Range(low=float(f"{low.item() * HEADROOM:.5g}"), high=float(f"{high.item() * HEADROOM:.5g}"))


def _corrections(
    network: Bottlenecks, statistics: BottleneckStatistics, crops: list[FloatArray]
) -> BottleneckStatistics:
    """Move each bias, first layer to last, until the integer graph's mean is that of the float graph."""
    ranges = {layer.name: (layer.low, layer.high) for layer in statistics.layers}
    exact = means(_float_session(network, *ranges), crops, ranges)
    opened = [f"gate_{block}_open" for block in range(1, len(network.gates) + 1)]
    exact |= means(_float_session(network, *opened), crops)
    for index in range(len(network.chain.layers)):
        quantized = quantize_bottlenecks(network, statistics)
        layer, before = quantized.chain.layers[index], quantized.scale_before(index)
        steps = means(_integer_session(network, statistics, layer.name), crops)[layer.name]
        error = exact[layer.name] - (steps - layer.out.zero_point) * layer.out.scale
        step = before.scale * layer.weight_scale[: len(error)].astype(np.float64)
        block = network.block_of(index)
        if block is not None:
            step = step * exact[f"gate_{block + 1}_open"]
        change = np.rint(error / step).astype(np.int64)
        statistics = corrected(statistics, index, change)
    error = exact[OUTPUT] - means(_integer_session(network, statistics), crops)[OUTPUT]
    return corrected_fc(statistics, error)


def _float_session(network: Bottlenecks, *names: str) -> Session:
    model = write_bottlenecks_fp32(network, input_name=INPUT.name, output_name=OUTPUT, taps=True)
    return Session(model, inputs=INPUT, outputs=Output(names=(OUTPUT, *names)), threads=THREADS)


def _integer_session(network: Bottlenecks, statistics: BottleneckStatistics, *names: str) -> Session:
    quantized = quantize_bottlenecks(network, statistics)
    model = write_bottlenecks_int8(quantized, input_name=INPUT.name, output_name=OUTPUT, taps=True)
    return Session(model, inputs=INPUT, outputs=Output(names=(OUTPUT, *names)), threads=THREADS)


def main() -> None:
    """Calibrate as the command line says."""
    chosen = arguments(
        "Measure the statistics of the int8 recipe of omz-0095.", "yunet and the files of omz-0095"
    )
    manifest = load_manifest("omz-0095")
    faces = crops_of_subjects(chosen.photos, chosen.models, manifest, chosen.subjects)
    network = parse(read_ir(*build_parts(manifest, chosen.models)))
    source = f"{chosen.source}; {len(faces)} photos, one per subject"
    statistics = calibrate(network, faces[::2], faces[1::2], source)
    chosen.out.write_text(write_statistics(statistics))


if __name__ == "__main__":
    main()
