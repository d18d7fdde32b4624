"""Spoil photos in known ways and take a shot of the face in each: embedding and quality. Judges nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.camera.photo import read_photo
from edge.core.download import Progress
from edge.core.types import FloatArray, Quality
from edge.lab.photos.degrade import Degradation
from edge.lab.photos.embeddings import centre, each_photo, middle, nearest_face
from edge.recognition.recognizer import Recognizer


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

    def work(path: Path, recognizer: Callable[[], Recognizer]) -> list[Shot | None]:
        return _spoiled(path, worse, recognizer())

    taken = each_photo(photos, work, make_recognizer, progress, workers=workers)
    return {way.name: {path: shots[i] for path, shots in taken.items()} for i, way in enumerate(worse)}


def _spoiled(path: Path, worse: Sequence[Degradation], recognizer: Recognizer) -> list[Shot | None]:
    image = read_photo(path)
    size = np.array(image.shape[1::-1], np.float32)
    clean = nearest_face(recognizer.detect(image), centre(image))
    if clean is None:
        return [None] * len(worse)
    shots: list[Shot | None] = []
    for way in worse:
        bad = way.apply(image, clean.size_px)
        scale = np.array(bad.shape[1::-1], np.float32) / size
        place = middle(clean) * scale
        face = nearest_face(recognizer.detect(bad), place)
        if face is None or float(np.abs(middle(face) - place).max()) > clean.size_px * float(scale[0]) / 2:
            shots.append(None)
            continue
        probe = recognizer.embed(recognizer.align(bad, face))
        shots.append(Shot(probe.embedding, probe.quality))
    return shots
