"""Measure an embedder's false match rate over threshold on photos of many subjects.

For whoever changes an embedder: `python -m edge.face.build.impostors PHOTOS MODELS_DIR NAME --source TEXT`
prints the [calibration] table of its manifest. One photo per subject, every pair of different subjects once;
the score is the plain cosine. Writes no embedding.
"""

import argparse
from pathlib import Path

import numpy as np

from edge.face.build.calibrate import THREADS, crops, first_photos
from edge.face.detector import Detector
from edge.face.manifest import load
from edge.face.session import Session
from edge.face.weights import load_verified
from edge.types import FloatArray

RATES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
"""False match rates whose thresholds are written; of fewer than `MIN_PAIRS` pairs none is."""

MIN_PAIRS = 20
"""Pairs that must score above a threshold before its rate counts as measured."""


def thresholds(embeddings: FloatArray) -> dict[float, float]:
    """Return the cosine that each measurable rate of impostor pairs reaches; embeddings (N, D), unit norm."""
    scores = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]
    ranked = np.sort(scores)[::-1]
    counts = {rate: round(rate * len(ranked)) for rate in RATES}
    return {rate: float(ranked[count - 1]) for rate, count in counts.items() if count >= MIN_PAIRS}


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description="Measure the false match rate over threshold.")
    parser.add_argument("photos", type=Path, help="directory of photos, one sub-directory per subject")
    parser.add_argument("models", type=Path, help="directory with yunet and the embedder installed")
    parser.add_argument("name", help="embedder to measure")
    parser.add_argument("--source", required=True, help="what the photos are; goes into the table")
    arguments = parser.parse_args()
    yunet, embedder = load("yunet"), load(arguments.name)
    finder = Session.of(yunet, load_verified(yunet, arguments.models), threads=THREADS)
    detector = Detector(finder, yunet, max_side_px=320, min_score=0.6)
    session = Session.of(embedder, load_verified(embedder, arguments.models), threads=THREADS)
    photos = first_photos(arguments.photos)
    vectors = np.concatenate([session.run(crop)[0] for crop in crops(photos, detector, embedder)])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    table = thresholds(unit)
    print("[calibration]")
    print(f"thresholds = {[round(value, 4) for value in table.values()]}")
    print(f"fmr = {list(table)}")
    print(f"pairs = {len(unit) * (len(unit) - 1) // 2}")
    print(f"subjects = {len(unit)}")
    print(f'source = "{arguments.source}"')


if __name__ == "__main__":
    main()
