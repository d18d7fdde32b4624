"""What the int8 recipe computes with: weights as matrices, rounded and packed, and the committed statistics.

Weights are rounded per output channel, with clips that were measured and committed. The first convolution
computes four pixels at once, which is exact: three input channels would leave most of a vector register
empty, so that four neighbours along the width are taken as one pixel of 12 channels, and one output pixel as
128 channels; in NHWC that is only another shape. Measures nothing.
"""

from typing import Annotated, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.core.errors import ModelError
from edge.core.text import first_problem
from edge.face.build.network import Floats

WEIGHT_MAX = 127
"""Weights lie in -127..127: symmetric, so that their zero point is 0."""

PAIR_MAX = 128
"""Largest |w0 + w1| of two neighbours along K: 255 * 128 fits an int16, more saturates on plain AVX2.

Source: the instruction VPMADDUBSW adds two products of uint8 and int8 with signed 16-bit saturation.
"""


PACK = 4
"""Pixels taken as one; must divide the width."""

Percent = Annotated[int, Field(ge=1, le=200)]
Positive = Annotated[float, Field(gt=0)]


def spread_matrix(weight: Floats) -> Floats:
    """Return a kernel (M, C, k, k) as a matrix (M, K) in the order the integer kernels walk it: NHWC."""
    return np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(len(weight), -1)


def gather_matrix(matrix: NDArray[np.int8], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Undo `spread_matrix`: (M, K) back to (M, C, k, k) = `shape`."""
    channels, inputs, height, width = shape
    return np.ascontiguousarray(matrix.reshape(channels, height, width, inputs).transpose(0, 3, 1, 2))


def round_weights(
    matrix: Floats, clip_percent: NDArray[np.int64], *, pair_safe: bool
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round each row of (M, K) with its own scale; returns int8 (M, K) and float32 scales (M,).

    A row's largest magnitude times `clip_percent` / 100 becomes 127; what lies beyond is clipped. With
    `pair_safe` neighbours along K are reduced until their sum fits `PAIR_MAX`.
    """
    largest = np.abs(matrix).max(axis=1)
    scale = (largest * clip_percent / 100.0 / WEIGHT_MAX).astype(np.float32)
    scale = np.where(scale > 0, scale, np.float32(1))
    steps = np.clip(np.rint(matrix / scale.astype(np.float64)[:, None]), -WEIGHT_MAX, WEIGHT_MAX)
    if pair_safe:
        _make_pairs_safe(steps)
    return steps.astype(np.int8), scale


def _make_pairs_safe(steps: Floats) -> None:
    even = steps.shape[1] // 2 * 2
    left, right = steps[:, 0:even:2], steps[:, 1:even:2]
    total = left + right
    excess = np.maximum(np.abs(total) - PAIR_MAX, 0)
    left -= np.sign(total) * np.ceil(excess / 2)
    right -= np.sign(total) * np.floor(excess / 2)


def pack_first_layer(weight: Floats, stride: int = 1) -> Floats:
    """Return the kernel that does to packed pixels what (M, C, 3, 3) does to single ones; `stride` is 1 or 2.

    Output channel p * M + m is channel m of the p-th of the `PACK` / stride pixels that come out of a pack;
    input channels likewise. It reaches from the pack to the left to the last one that is needed.
    """
    channels, inputs, height, width = weight.shape
    pixels = PACK // stride
    packs = 2 + (stride * (pixels - 1) + width // 2) // PACK
    packed = np.zeros((pixels, channels, PACK, inputs, height, packs))
    for pixel in range(pixels):
        for column in range(width):
            pack, place = divmod(stride * pixel + column - width // 2, PACK)
            packed[pixel, :, place, :, :, pack + 1] = weight[:, :, :, column]
    return packed.reshape(pixels * channels, PACK * inputs, height, packs)


class Measured(BaseModel):
    """A table of the statistics: unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LayerStatistics(Measured):
    """One convolution. `low` and `high` bound the value around its PReLU after equalisation.

    Per output channel: `equalise` divides the output, `clip_percent` of the largest weight becomes 127,
    `correction` is added to the integer bias.
    """

    name: str
    low: float = Field(lt=0)
    high: float = Field(gt=0)
    equalise: tuple[Positive, ...]
    clip_percent: tuple[Percent, ...]
    correction: tuple[int, ...]


class FcStatistics(Measured):
    """The fully connected layer; `correction` is added to the float bias."""

    clip_percent: tuple[Percent, ...]
    correction: tuple[float, ...]


class Statistics(Measured):
    """All that the int8 recipe needs beside the parent's weights. `source` says what it was measured on."""

    source: str
    layers: tuple[LayerStatistics, ...]
    fc: FcStatistics


StatisticsT = TypeVar("StatisticsT", bound=Statistics)


def read_statistics(text: bytes, kind: type[StatisticsT]) -> StatisticsT:
    """Parse committed statistics of a `kind`.

    Raises:
        ModelError: They are damaged.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ModelError(f"statistics: {first_problem(error, 'file')}; install edge again") from None


def write_statistics(statistics: Statistics) -> str:
    """Return JSON with one line per list, so that a change can be read."""
    text = statistics.model_dump_json()
    return text.replace('],"', '],\n"').replace('{"name"', '\n{"name"') + "\n"
