"""Compute four pixels at once in the first convolution. Exact; changes no output.

Three input channels leave most of a vector register empty. Four neighbours along the width are taken as
one pixel of 12 channels, and one output pixel as 128 channels; in NHWC that is only another shape.
"""

import numpy as np

from edge.face.build.network import Floats

PACK = 4
"""Pixels taken as one; must divide the width."""


def pack_first_layer(weight: Floats) -> Floats:
    """Return the kernel (4 M, 4 C, 3, 3) that does to packed pixels what (M, C, 3, 3) does to single ones.

    Output channel p * M + m is channel m of the p-th pixel of the pack; input channels likewise.
    """
    channels, inputs, height, width = weight.shape
    packed = np.zeros((PACK, channels, PACK, inputs, height, 3))
    for pixel in range(PACK):
        for column in range(width):
            pack, place = divmod(pixel + column - width // 2, PACK)
            packed[pixel, :, place, :, :, pack + 1] = weight[:, :, :, column]
    return packed.reshape(PACK * channels, PACK * inputs, height, 3)
