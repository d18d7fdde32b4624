"""Spoil photos in known ways and take a shot of the face in each: embedding and quality. Judges nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edge.camera.photo import read_photo
from edge.core.download import Progress
from edge.core.types import Detection, FloatArray, Image, Quality
from edge.lab.photos.degrade import Degradation
from edge.lab.photos.embeddings import PhotoEmbedder, centre, middle, nearest_face
from edge.recognition.recognizer import Recognizer


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A face of a spoiled photo: its embedding, and its quality, which says whether the gate refuses it.

    `length` is that of the raw embedding, NaN where it is not known.
    """

    embedding: FloatArray
    quality: Quality
    length: float = float("nan")


Shots = Mapping[Path, Shot | None]
"""The shot of each photo, None where no face was found any more."""


def take_shots(
    photos: Sequence[Path],
    worse: Sequence[Degradation],
    embedder: PhotoEmbedder,
    progress: Progress,
) -> dict[str, dict[Path, Shot | None]]:
    """Spoil every photo in every way and embed the face nearest its centre; by degradation and photo.

    The face is found anew in the spoiled photo. One that was somewhere else in the clean photo does not
    count: its name is unknown.

    Raises:
        MediaError, ClusterError: As for `PhotoEmbedder.each`.
    """
    taken = embedder.each(photos, partial(_spoiled, worse), progress)
    return {way.name: {path: shots[i] for path, shots in taken.items()} for i, way in enumerate(worse)}


def _spoiled(worse: Sequence[Degradation], path: Path, recognizer: Recognizer) -> list[Shot | None]:
    image = read_photo(path)
    clean = nearest_face(recognizer.detect(image), centre(image))
    if clean is None:
        return [None] * len(worse)
    shots: list[Shot | None] = []
    for way in worse:
        bad = spoil(image, clean, way)
        face = face_again(image, bad, clean, way, recognizer)
        if face is None:
            shots.append(None)
            continue
        probe, length = recognizer.embed_with_length(recognizer.align(bad, face))
        shots.append(Shot(probe.embedding, probe.quality, length))
    return shots


def spoil(image: Image, face: Detection, way: Degradation) -> Image:
    """Return a photo that shows `face`, spoiled in this way."""
    return way.apply(image, face.size_px) if way.wear is None else way.wear(image, face.landmarks)


def face_again(
    image: Image, bad: Image, clean: Detection, way: Degradation, recognizer: Recognizer
) -> Detection | None:
    """Find the face that was `clean` in a photo in its spoiled picture `bad`; None where it is not found."""
    before, after = (np.array(shown.shape[1::-1], np.float32) for shown in (image, bad))
    scale, place = _moved(middle(clean), before, after, way.turn_deg)
    face = nearest_face(recognizer.detect(bad), place)
    if face is None or float(np.abs(middle(face) - place).max()) > clean.size_px * float(scale[0]) / 2:
        return None
    return face


def _moved(
    place: FloatArray, before: FloatArray, after: FloatArray, turn_deg: float
) -> tuple[FloatArray, FloatArray]:
    """Return the scale (2,), and where a place (x, y) is in a photo of size `before` that was made `after`.

    A turned photo keeps its scale; another one was scaled from the one size to the other.
    """
    if not turn_deg:
        scale = np.asarray(after / before, np.float32)
        return scale, place * scale
    cosine, sine = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    turn = np.array([[cosine, sine], [-sine, cosine]], np.float32)
    return np.ones(2, np.float32), np.asarray(turn @ (place - before / 2) + after / 2, np.float32)
