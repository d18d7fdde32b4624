"""Time every embedder on the device at hand, alternately in one run, and compare it with the float one."""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from edge.camera.photo import read_photo
from edge.core.download import Progress
from edge.core.errors import ModelError
from edge.core.types import Image
from edge.device.settings.load import Settings
from edge.face.choice import load_session
from edge.face.detector import Detector
from edge.face.embedder import Embedder
from edge.face.manifest import load_manifest, model_names
from edge.lab.demo.media import ORL_SUBJECTS, orl_photo

REFERENCE = "sface-fp32"
WARM_UP = 3
"""Runs that are not timed: the first ones allocate."""


def measure_embedders(settings: Settings, media: Path, rounds: int, progress: Progress) -> dict[str, Any]:
    """Embed the ORL faces with every installed embedder in turn; returns milliseconds, bytes and cosine.

    One that cannot be used here (not installed, or the runtime is too old for it) is in `refused`, with the
    reason.

    Raises:
        ModelError: The float one cannot be used.
        MediaError: The photos are not fetched.
    """
    embedders: dict[str, Embedder] = {}
    sizes: dict[str, int] = {}
    refused: dict[str, str] = {}
    for name in model_names(settings.models_path):
        if load_manifest(name, settings.models_path).kind == "embedder":
            try:
                manifest, session = load_session(
                    name, "embedder", settings.models_path, threads=settings.recognition.threads
                )
            except ModelError as error:
                if name == REFERENCE:
                    raise
                refused[name] = str(error)
                continue
            embedders[name], sizes[name] = Embedder(session, manifest), manifest.bytes
    faces = _faces(settings, media, embedders[REFERENCE])
    spent_ms: dict[str, list[float]] = {name: [] for name in embedders}
    for number in range(WARM_UP + rounds):
        face = faces[number % len(faces)]
        for name, embedder in embedders.items():
            begun_s = perf_counter()
            embedder.embed(face)
            if number >= WARM_UP:
                spent_ms[name].append((perf_counter() - begun_s) * 1e3)
        progress("rounds", number + 1, WARM_UP + rounds)
    exact = [embedders[REFERENCE].embed(face)[0] for face in faces]
    models = {}
    for name, embedder in embedders.items():
        cosines = [float(embedder.embed(face)[0] @ row) for face, row in zip(faces, exact, strict=True)]
        p50, p95 = np.percentile(spent_ms[name], (50, 95))
        models[name] = {
            "model_id": embedder.model_id,
            "ms_p50": round(float(p50), 3),
            "ms_p95": round(float(p95), 3),
            "bytes": sizes[name],
            "cosine_to_fp32": round(float(np.mean(cosines)), 5),
        }
    return {
        "schema": "edge.models.bench/1",
        "threads": settings.recognition.threads,
        "models": models,
        "refused": refused,
    }


def _faces(settings: Settings, media: Path, embedder: Embedder) -> list[Image]:
    manifest, session = load_session(
        settings.recognition.detector, "detector", settings.models_path, threads=settings.recognition.threads
    )
    detector = Detector(session, manifest, max_side_px=640, min_score=settings.recognition.detector_score)
    faces = []
    for subject in range(1, ORL_SUBJECTS + 1):
        image = read_photo(orl_photo(media, subject, 1))
        faces += [embedder.align(image, face.landmarks) for face in detector.detect(image)[:1]]
    return faces
