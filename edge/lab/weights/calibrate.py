"""Measure the statistics of SFace's int8 recipe on a directory of face photos.

For whoever changes the recipe: `python -m edge.lab.weights.calibrate PHOTOS MODELS_DIR OUT --source TEXT`.
Writes ranges, factors, clips and corrections over many subjects; no image, crop or embedding. A build needs
only its output, so that nobody needs the photos.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.camera.photo import SUFFIXES, read_photo
from edge.core.errors import ModelError
from edge.core.types import FloatArray
from edge.face.build.fp32 import flip_steep_slopes, write_fp32
from edge.face.build.int8 import write_int8
from edge.face.build.network import Floats, Layer, Network, parse
from edge.face.build.quantized import QuantizedNetwork, equalise, quantize
from edge.face.build.tables import (
    FcStatistics,
    LayerStatistics,
    Statistics,
    StatisticsT,
    pack_first_layer,
    spread_matrix,
    write_statistics,
)
from edge.face.detector import Detector
from edge.face.embedder import align
from edge.face.manifest import Input, Manifest, Output, load_manifest
from edge.face.session import Session
from edge.face.weights import load_verified
from edge.lab.weights.ranges import best_clips, best_range, factors

Taps = dict[str, FloatArray]

INPUT = Input(name="data", size=(112, 112), colour="rgb")
OUTPUT = "fc1"
THREADS = 2

HEADROOM = 1.2
"""Ranges are this much wider than is best on the photos measured: other faces reach further.

Measured on the rest of lfw-dev, cosine to fp32, 1st percentile of all / of the 60 worst: 1.0 .9946 / .973,
1.15 .9964 / .9917, 1.2 .9964 / .9928, 1.3 .9957 / .9930.
"""

POSITIONS = 64
"""Places of each feature map that are kept for the search of ranges."""


def first_photos(directory: Path) -> list[Path]:
    """Return the first photo of every subject, a sub-directory, in order of their names."""
    subjects = sorted(path for path in directory.iterdir() if path.is_dir())
    photos = [sorted(p for p in s.iterdir() if p.suffix.lower() in SUFFIXES) for s in subjects]
    return [of_subject[0] for of_subject in photos if of_subject]


def crops(photos: list[Path], detector: Detector, manifest: Manifest) -> Iterator[FloatArray]:
    """Yield of each photo the face nearest to its centre, if any, as the embedder's input (1, 3, H, W)."""
    if manifest.alignment is None or manifest.input.size is None:
        raise ModelError(f"{manifest.name}: not an embedder")
    template = np.array(manifest.alignment.points, np.float32)
    for path in photos:
        image = read_photo(path)
        centre = np.array(image.shape[1::-1]) / 2
        faces = detector.detect(image)
        if faces:
            face = min(faces, key=lambda face: float(np.linalg.norm(face.landmarks.mean(axis=0) - centre)))
            crop = align(image, face.landmarks, template, manifest.input.size)
            yield np.asarray(cv2.dnn.blobFromImage(crop, swapRB=manifest.input.colour == "rgb"), np.float32)


def crops_of_subjects(photos: Path, models: Path, manifest: Manifest, subjects: int) -> list[FloatArray]:
    """Return the faces of about so many subjects as an embedder takes them, from the first photo of each."""
    chosen = first_photos(photos)
    chosen = chosen[:: max(1, len(chosen) // subjects)]
    yunet = load_manifest("yunet")
    session = Session.of(yunet, load_verified(yunet, models), threads=THREADS)
    return list(crops(chosen, Detector(session, yunet, max_side_px=320, min_score=0.6), manifest))


def calibrate(
    network: Network, ranging: list[FloatArray], correcting: list[FloatArray], source: str
) -> Statistics:
    """Return the statistics of a parsed network: ranges from some crops, corrections from others."""
    network = flip_steep_slopes(network)
    statistics = _ranges(network, ranging, source)
    equal = equalise(network, statistics)
    return _corrections(equal, with_clips(equal, statistics), correcting)


def _ranges(network: Network, crops: list[FloatArray], source: str) -> Statistics:
    samples = sampled(_float_session(network), [layer.name for layer in network.layers], crops)
    layers = []
    for index, layer in enumerate(network.layers):
        before_depthwise = index + 1 < len(network.layers) and network.layers[index + 1].depthwise
        layers.append(measured_layer(layer, samples.pop(layer.name), 1.0 if before_depthwise else 0.5))
    return Statistics(source=source, layers=tuple(layers), fc=unmeasured_fc(network))


def sampled(session: Session, names: Sequence[str], crops: list[FloatArray]) -> dict[str, Floats]:
    """Return of each tap (1, C, H, W) its values (N, C) at `POSITIONS` places of every crop."""
    kept: dict[str, list[FloatArray]] = {name: [] for name in names}
    generator = np.random.default_rng(0)
    for crop in crops:
        found = taps(session, crop)
        for name, values in kept.items():
            flat = found[name].reshape(found[name].shape[1], -1)
            places = generator.permutation(flat.shape[1])[:POSITIONS]
            values.append(flat[:, places].T)
    return {name: np.concatenate(values).astype(np.float64) for name, values in kept.items()}


def measured_layer(layer: Layer, x: Floats, exponent: float | None) -> LayerStatistics:
    """Return range and factors of a layer with values x (N, C) before its PReLU; no clip and no correction.

    `exponent` says how far channels are made alike; None: not at all.
    """
    factor = np.ones(layer.channels)
    if exponent is not None:
        low, high = best_range(x, layer.slope, per_channel=True)
        factor = factors(low[0], high[0], exponent=exponent)
    low, high = best_range(x / factor, layer.slope, per_channel=False)
    low, high = low * HEADROOM, high * HEADROOM
    return LayerStatistics(
        name=layer.name,
        low=float(f"{low.item():.5g}"),
        high=float(f"{high.item():.5g}"),
        equalise=tuple(factor.tolist()),
        clip_percent=(100,) * layer.channels,
        correction=(0,) * layer.channels,
    )


def unmeasured_fc(network: Network) -> FcStatistics:
    """Return statistics of the fully connected layer without clip and correction."""
    dim = len(network.fc_bias)
    return FcStatistics(clip_percent=(100,) * dim, correction=(0.0,) * dim)


def with_clips(network: Network, statistics: StatisticsT) -> StatisticsT:
    """Return the statistics of an equalised network with the clips that fit its weights best."""
    layers = []
    for index, (layer, measured) in enumerate(zip(network.layers, statistics.layers, strict=True)):
        weight = layer.weight if index else pack_first_layer(layer.weight, layer.stride)
        clips = best_clips(spread_matrix(weight), pair_safe=not layer.depthwise)
        widest = clips.reshape(-1, layer.channels).max(axis=0)
        layers.append(measured.model_copy(update={"clip_percent": tuple(widest.tolist())}))
    clips = best_clips(spread_matrix(network.fc_weight), pair_safe=True)
    fc = statistics.fc.model_copy(update={"clip_percent": tuple(clips.tolist())})
    return statistics.model_copy(update={"layers": tuple(layers), "fc": fc})


def _corrections(network: Network, statistics: Statistics, crops: list[FloatArray]) -> Statistics:
    """Move each bias, first layer to last, until the integer graph's mean is that of the float graph."""
    ranges = {layer.name: (layer.low, layer.high) for layer in statistics.layers}
    exact = means(_float_session(network), crops, ranges)
    for index in range(len(network.layers)):
        quantized = quantize(network, statistics)
        layer, before = (
            quantized.layers[index],
            quantized.layers[index - 1].out if index else quantized.pixels,
        )
        steps = means(_integer_session(network, quantized), crops)[layer.name]
        error = exact[layer.name] - (steps - layer.out.zero_point) * layer.out.scale
        step = before.scale * layer.weight_scale[: len(error)].astype(np.float64)
        change = np.rint(error / step).astype(np.int64)
        statistics = corrected(statistics, index, change)
    error = exact[OUTPUT] - means(_integer_session(network, quantize(network, statistics)), crops)[OUTPUT]
    return corrected_fc(statistics, error)


def corrected(statistics: StatisticsT, index: int, change: NDArray[np.int64]) -> StatisticsT:
    """Return the statistics with `change` (M,) added to what corrects the bias of the layer at `index`."""
    measured = statistics.layers[index]
    total = tuple((np.array(measured.correction) + change).tolist())
    layers = list(statistics.layers)
    layers[index] = measured.model_copy(update={"correction": total})
    return statistics.model_copy(update={"layers": tuple(layers)})


def corrected_fc(statistics: StatisticsT, error: Floats) -> StatisticsT:
    """Return the statistics with `error` (D,) added to what corrects the embedding."""
    shifts = np.array(statistics.fc.correction) + error
    fc = statistics.fc.model_copy(update={"correction": tuple(float(f"{value:.5g}") for value in shifts)})
    return statistics.model_copy(update={"fc": fc})


def means(
    session: Session, crops: list[FloatArray], ranges: dict[str, tuple[float, float]] | None = None
) -> dict[str, Floats]:
    """Return each tap's mean per channel over all crops and places, of values clipped to `ranges`.

    Integers are clipped already; what lies beyond their range must not pull the bias.
    """
    sums: dict[str, Floats] = {}
    for crop in crops:
        for name, value in taps(session, crop).items():
            axis = tuple(
                a for a in range(value.ndim) if a != (1 if value.dtype == np.float32 else value.ndim - 1)
            )
            if ranges is not None and name in ranges:
                value = value.clip(*ranges[name])
            mean = value.mean(axis=axis, dtype=np.float64)
            sums[name] = sums.get(name, 0.0) + mean / len(crops)
    return sums


def taps(session: Session, crop: FloatArray) -> Taps:
    """Return all outputs of a session by name."""
    return dict(zip(session.output_names, session.run(crop), strict=True))


def _float_session(network: Network) -> Session:
    return _session(network, write_fp32(network, input_name=INPUT.name, output_name=OUTPUT, taps=True))


def _integer_session(network: Network, quantized: QuantizedNetwork) -> Session:
    return _session(network, write_int8(quantized, input_name=INPUT.name, output_name=OUTPUT, taps=True))


def _session(network: Network, model: bytes) -> Session:
    names = (OUTPUT, *(layer.name for layer in network.layers))
    return Session(model, inputs=INPUT, outputs=Output(names=names), threads=THREADS)


def arguments(description: str, installed: str) -> argparse.Namespace:
    """Read the command line of a calibration; `installed` says what lies in the directory of the models."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("photos", type=Path, help="directory of photos, one sub-directory per subject")
    parser.add_argument("models", type=Path, help=f"directory with {installed}")
    parser.add_argument("out", type=Path, help="statistics to write")
    parser.add_argument("--source", required=True, help="what the photos are; goes into the statistics")
    parser.add_argument("--subjects", type=int, default=300, help="subjects to use, half for each purpose")
    return parser.parse_args()


def main() -> None:
    """Calibrate as the command line says."""
    chosen = arguments("Measure the statistics of the int8 recipe.", "yunet and sface installed")
    sface = load_manifest("sface")
    faces = crops_of_subjects(chosen.photos, chosen.models, sface, chosen.subjects)
    network = parse(load_verified(sface, chosen.models))
    source = f"{chosen.source}; {len(faces)} photos, one per subject"
    statistics = calibrate(network, faces[::2], faces[1::2], source)
    chosen.out.write_text(write_statistics(statistics))


if __name__ == "__main__":
    main()
