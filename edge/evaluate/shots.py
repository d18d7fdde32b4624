"""Spoil photos in known ways and take a shot of the face in each: embedding and quality. Judges nothing."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.download import Progress
from edge.evaluate.degrade import Degradation
from edge.photo import read_photo
from edge.recognizer import Recognizer
from edge.types import Detection, FloatArray, Quality


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A face of a spoiled photo: its embedding, and its quality, which says whether the gate refuses it."""

    embedding: FloatArray
    quality: Quality


Shots = Mapping[Path, Shot | None]
"""The shot of each photo, None where no face was found any more."""


def take_shots(
    photos: Sequence[Path],
    worse: Sequence[Degradation],
    make_recognizer: Callable[[], Recognizer],
    progress: Progress,
    *,
    workers: int,
) -> dict[str, dict[Path, Shot | None]]:
    """Spoil every photo in every way and embed the face nearest its centre; by degradation and photo.

    The face is found anew in the spoiled photo. One that was somewhere else in the clean photo does not
    count: its name is unknown. Each worker has a recognizer of its own.

    Raises:
        MediaError: A photo cannot be read.
    """
    local = threading.local()
    counting = threading.Lock()
    done = 0

    def work(path: Path) -> list[Shot | None]:
        nonlocal done
        if not hasattr(local, "recognizer"):
            local.recognizer = make_recognizer()
        shots = _spoiled(path, worse, local.recognizer)
        with counting:
            done += 1
            progress("photos", done, len(photos))
        return shots

    with ThreadPoolExecutor(workers) as pool:
        taken = list(pool.map(work, photos))
    return {
        way.name: {path: shots[i] for path, shots in zip(photos, taken, strict=True)}
        for i, way in enumerate(worse)
    }


def _spoiled(path: Path, worse: Sequence[Degradation], recognizer: Recognizer) -> list[Shot | None]:
    image = read_photo(path)
    size = np.array(image.shape[1::-1], np.float32)
    clean = _nearest(recognizer.detect(image), size * np.float32(0.5))
    if clean is None:
        return [None] * len(worse)
    shots: list[Shot | None] = []
    for way in worse:
        bad = way.apply(image, clean.size_px)
        scale = np.array(bad.shape[1::-1], np.float32) / size
        place = _middle(clean) * scale
        face = _nearest(recognizer.detect(bad), place)
        if face is None or float(np.abs(_middle(face) - place).max()) > clean.size_px * float(scale[0]) / 2:
            shots.append(None)
            continue
        probe = recognizer.embed(recognizer.align(bad, face))
        shots.append(Shot(probe.embedding, probe.quality))
    return shots


def _nearest(faces: Sequence[Detection], place: FloatArray) -> Detection | None:
    return min(faces, key=lambda face: float(np.linalg.norm(_middle(face) - place)), default=None)


def _middle(face: Detection) -> FloatArray:
    return np.asarray((face.box[:2] + face.box[2:]) / 2, np.float32)
