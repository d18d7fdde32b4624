"""Compare embedders with each other: how alike their answers are, and how long they take.

For whoever changes an embedder: `python -m edge.lab.weights.compare PHOTOS MODELS_DIR REFERENCE NAME...`.
Times are of the network alone, one thread, taken in turn in one run, on this machine. Writes nothing.
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np

from edge.camera.photo import SUFFIXES
from edge.core.types import FloatArray
from edge.face.detector import Detector
from edge.face.manifest import load_manifest
from edge.face.session import Session, pattern
from edge.face.weights import load_verified
from edge.lab.weights.calibrate import THREADS, crops

ROUNDS = 40
RUNS = 10
"""Runs of one model before the next one's turn; the first of each turn warms the caches, uncounted."""


def times_ms(sessions: list[Session], image: FloatArray) -> list[float]:
    """Return the median duration of each session on one image, taken in turn."""
    durations: list[list[float]] = [[] for _ in sessions]
    for _ in range(ROUNDS):
        for session, taken in zip(sessions, durations, strict=True):
            session.run(image)
            for _ in range(RUNS - 1):
                started_s = perf_counter()
                session.run(image)
                taken.append((perf_counter() - started_s) * 1e3)
    return [float(np.median(taken)) for taken in durations]


def main() -> None:
    """Compare as the command line says."""
    parser = argparse.ArgumentParser(description="Compare embedders with each other.")
    parser.add_argument("photos", type=Path, help="directory of photos, one sub-directory per subject")
    parser.add_argument("models", type=Path, help="directory with yunet and the embedders installed")
    parser.add_argument("names", nargs="+", help="embedders; the first is what the others are compared with")
    parser.add_argument("--every", type=int, default=1, help="use every n-th photo")
    arguments = parser.parse_args()
    yunet, *embedders = [load_manifest(name) for name in ("yunet", *arguments.names)]
    finder = Session.of(yunet, load_verified(yunet, arguments.models), threads=THREADS)
    detector = Detector(finder, yunet, max_side_px=320, min_score=0.6)
    sessions = [Session.of(m, load_verified(m, arguments.models), threads=1) for m in embedders]
    times = times_ms(sessions, pattern(*(embedders[0].input.size or (112, 112))))
    photos = sorted(path for path in arguments.photos.glob("*/*") if path.suffix.lower() in SUFFIXES)
    faces = list(crops(photos[:: arguments.every], detector, embedders[0]))
    answers = [np.concatenate([session.run(face)[0] for face in faces]) for session in sessions]
    units = [answer / np.linalg.norm(answer, axis=1, keepdims=True) for answer in answers]
    for manifest, unit, time_ms in zip(embedders, units, times, strict=True):
        cosine = (units[0] * unit).sum(axis=1)
        print(
            f"{manifest.model_id:24} {time_ms:7.2f} ms  {times[0] / time_ms:5.2f} x  "
            f"cosine mean {cosine.mean():.4f} p01 {np.quantile(cosine, 0.01):.4f} min {cosine.min():.4f} "
            f"over {len(faces)} faces"
        )


if __name__ == "__main__":
    main()
