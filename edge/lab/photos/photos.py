"""Many photos through one function: every processor at work, each with a recognizer; and which face is meant.

Knows neither what is made of a photo nor where it is kept.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from edge.core.download import Progress
from edge.core.types import Detection, FloatArray, Image
from edge.recognition.recognizer import Recognizer

T = TypeVar("T")


def each_photo(
    photos: Sequence[Path],
    work: Callable[[Path, Callable[[], Recognizer]], T],
    make_recognizer: Callable[[], Recognizer],
    progress: Progress,
    *,
    workers: int,
) -> dict[Path, T]:
    """Return what `work` makes of each photo; it asks for its thread's recognizer only where it needs one."""
    local = threading.local()
    counting = threading.Lock()
    done = 0

    def recognizer() -> Recognizer:
        if not hasattr(local, "recognizer"):
            local.recognizer = make_recognizer()
        found: Recognizer = local.recognizer
        return found

    def counted(path: Path) -> T:
        nonlocal done
        made = work(path, recognizer)
        with counting:
            done += 1
            progress("photos", done, len(photos))
        return made

    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(photos, pool.map(counted, photos), strict=True))


def nearest_face(faces: Sequence[Detection], place: FloatArray) -> Detection | None:
    """Return the face whose middle is nearest to a place (x, y) in pixels."""
    return min(faces, key=lambda face: float(np.linalg.norm(middle(face) - place)), default=None)


def centre(image: Image) -> FloatArray:
    """Return the centre (x, y) of an image in pixels, float32."""
    return np.array(image.shape[1::-1], np.float32) * np.float32(0.5)


def middle(face: Detection) -> FloatArray:
    """Return the middle (x, y) of a face's box in pixels, float32."""
    return np.asarray((face.box[:2] + face.box[2:]) / 2, np.float32)
