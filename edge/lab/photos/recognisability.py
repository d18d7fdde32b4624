"""Fit the [recognisability] of an embedder's manifest: which lengths of raw embeddings belong to plain faces.

Takes lengths. How photos are spoiled is `degrade`'s, what a recognisability is good for `face.quality`'s.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.camera.photo import read_photo
from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.face.manifest import RecognisabilityScale
from edge.lab.photos.embeddings import PhotoEmbedder, centre, nearest_face
from edge.lab.photos.shots import Shots
from edge.recognition.recognizer import Recognizer

SPOILED = ("roll 90", "roll 180", "negative")
"""What faces of strangers are taken for each other in, of `degrade.damages`.

Stretched faces, dark glasses and noise overlap with plain ones, and many tilted heads are turned upright:
they are measured, and not fitted to.
"""

LEAST_FACES = 100
"""Plain faces, and spoiled ones, that a scale is fitted to."""

ROUNDS = 100
"""Of Newton's method; a scale settles in ten."""

SHARES = (0.05, 0.1, 0.5, 0.9, 0.95)
"""Quantiles of the lengths that are told."""

LOWER_HALF_SHARE = 0.003
"""Of plain faces whose lower half is taken for covered: of three in a thousand another photo is asked for."""

LEAST_LOWER_HALVES = 1000
"""Plain faces of which so small a share can be told."""

Lengths = NDArray[np.float64]


def fit(shots: Mapping[str, Shots], source: str) -> tuple[RecognisabilityScale, dict[str, Any]]:
    """Return the scale for shots by condition, and the lengths of each; `source` says whose they are.

    Raises:
        MediaError: Too few faces were found.
    """
    found = {name: lengths_of(taken) for name, taken in shots.items()}
    plain, spoiled = found["clean"], np.concatenate([found[name] for name in SPOILED])
    if min(len(plain), len(spoiled)) < LEAST_FACES:
        raise MediaError(
            f"{len(plain)} plain and {len(spoiled)} spoiled faces found; recognisability needs "
            f"{LEAST_FACES} of each: give photos of more subjects"
        )
    middle, width = logistic(plain, spoiled)
    scale = RecognisabilityScale(
        middle=round(middle, 3),
        width=round(width, 3),
        plain=len(plain),
        spoiled=len(spoiled),
        source=source,
    )
    told = {name: _quantiles(lengths) for name, lengths in found.items()}
    return scale, {**scale.model_dump(), "lengths": told}


def lower_half_lengths(photos: Sequence[Path], embedder: PhotoEmbedder, progress: Progress) -> Lengths:
    """Return `Embedder.lower_half_length` of the faces in photos that could be enrolled, (n,).

    Raises:
        MediaError, ClusterError: As for `PhotoEmbedder.each`.
    """
    taken = embedder.each(photos, _lower_half_length, progress)
    lengths = np.array(list(taken.values()), np.float64)
    return lengths[np.isfinite(lengths)]


def _lower_half_length(path: Path, recognizer: Recognizer) -> float:
    """Return the length for one photo, NaN where no face in it could be enrolled."""
    image = read_photo(path)
    found = nearest_face(recognizer.detect(image), centre(image))
    if found is None:
        return float("nan")
    face = recognizer.align(image, found)
    refused = face.quality.refused or recognizer.gate.for_enrolment().judge(face.quality)
    return float("nan") if refused is not None else recognizer.embedder.lower_half_length(face.image)


def lower_half(lengths: Lengths) -> float | None:
    """Return the length below which a lower half counts as covered, None where too few faces tell it."""
    if len(lengths) < LEAST_LOWER_HALVES:
        return None
    return round(float(np.quantile(lengths, LOWER_HALF_SHARE)), 3)


def lengths_of(shots: Shots) -> Lengths:
    """Return the lengths of the raw embeddings of the shots in which a face was found, (n,)."""
    return np.array([shot.length for shot in shots.values() if shot is not None], np.float64)


def logistic(plain: Lengths, spoiled: Lengths) -> tuple[float, float]:
    """Return middle and width of the logistic that tells plain lengths (n,) from spoiled ones (m,).

    Both kinds weigh the same. Where they do not overlap it stays finite: targets are a little short of 0 and
    1. Source: Platt, Probabilistic Outputs for Support Vector Machines (1999).

    Raises:
        MediaError: Plain embeddings are not longer: this embedder's lengths say nothing.
    """
    lengths = np.concatenate([plain, spoiled])
    centre, spread = float(lengths.mean()), float(lengths.std()) or 1.0
    x = np.column_stack([(lengths - centre) / spread, np.ones(len(lengths))])
    target = np.repeat(
        [(len(plain) + 1) / (len(plain) + 2), 1 / (len(spoiled) + 2)], [len(plain), len(spoiled)]
    )
    weight = np.repeat([0.5 / len(plain), 0.5 / len(spoiled)], [len(plain), len(spoiled)])
    slope = np.zeros(2)
    for _ in range(ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(x @ slope, -30, 30)))
        bend = (x * (weight * np.maximum(chance * (1 - chance), 1e-6))[:, None]).T @ x
        step = np.linalg.solve(bend, x.T @ (weight * (target - chance)))
        slope += step / max(1.0, float(np.abs(step).max()))
        if float(np.abs(step).max()) < 1e-9:
            break
    if not slope[0] > 0:
        raise MediaError("the embeddings of plain faces are not longer than those of spoiled ones")
    return centre - spread * float(slope[1] / slope[0]), spread / float(slope[0])


def as_toml(scale: RecognisabilityScale) -> str:
    """Return the scale as a manifest holds it."""
    return (
        "# Lengths of raw embeddings of plain and of spoiled faces; `edge calibrate --images DIR --write`.\n"
        "[recognisability]\n"
        f"middle = {scale.middle:g}\n"
        f"width = {scale.width:g}\n"
        + ("" if scale.lower_half is None else f"lower_half = {scale.lower_half:g}\n")
        + f"plain = {scale.plain}\n"
        f"spoiled = {scale.spoiled}\n"
        f'source = "{scale.source}"\n'
    )


def spread_over(photos: Sequence[Path], count: int) -> list[Path]:
    """Return at most `count` of the photos, evenly spread."""
    kept = np.linspace(0, len(photos) - 1, min(count, len(photos))).astype(int)
    return [photos[i] for i in kept]


def _quantiles(lengths: Lengths) -> dict[str, float | int]:
    told: dict[str, float | int] = {"faces": len(lengths)}
    if len(lengths):
        values = np.quantile(lengths, SHARES)
        told |= {str(share): round(float(value), 2) for share, value in zip(SHARES, values, strict=True)}
    return told
