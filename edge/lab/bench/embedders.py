"""Time every embedder on the device at hand, alternately in one run, and compare it with its float one."""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from edge.camera.photo import read_photo
from edge.core.download import Progress
from edge.core.errors import ModelError
from edge.core.types import FloatArray, Image
from edge.device.settings.load import Settings
from edge.face.choice import load_embedder, load_session
from edge.face.detector import Detector
from edge.face.embedder import Embedder
from edge.face.manifest import Manifest, load_manifest, model_names, parts_of
from edge.lab.demo.media import ORL_SUBJECTS, orl_photo

REFERENCE = "sface-fp32"
REFERENCES = {"omz-0095": "omz-0095"}
"""By the beginning of a name: with which float embedder it is compared; all others with `REFERENCE`."""

WARM_UP = 3
"""Runs that are not timed: the first ones allocate."""


def measure_embedders(settings: Settings, media: Path, rounds: int, progress: Progress) -> dict[str, Any]:
    """Embed the ORL faces with every installed embedder in turn; returns milliseconds, bytes and cosine.

    `cpu_ms_p50` is the processor's own time, which other programs hardly change. Each embedder is compared
    with its float reference, where that is installed; a pair is not. One that cannot be used
    here (not installed, or the runtime is too old for it) is in `refused`, with the reason.

    Raises:
        ModelError: The float one cannot be used.
        MediaError: The photos are not fetched.
    """
    embedders: dict[str, Embedder] = {}
    manifests: dict[str, Manifest] = {}
    refused: dict[str, str] = {}
    for name in model_names(settings.models_path):
        if load_manifest(name, settings.models_path).kind == "embedder":
            try:
                manifests[name], embedders[name] = load_embedder(
                    name,
                    settings.models_path,
                    threads=settings.recognition.threads,
                    providers=settings.recognition.runs_on,
                )
            except ModelError as error:
                if name == REFERENCE:
                    raise
                refused[name] = str(error)
    faces = _faces(settings, media, embedders)
    spent_ms: dict[str, list[float]] = {name: [] for name in embedders}
    cpu_ms: dict[str, list[float]] = {name: [] for name in embedders}
    for number in range(WARM_UP + rounds):
        for name, embedder in embedders.items():
            face = faces[name][number % len(faces[name])]
            begun_s, begun_cpu_s = perf_counter(), process_time()
            embedder.embed(face)
            if number >= WARM_UP:
                spent_ms[name].append((perf_counter() - begun_s) * 1e3)
                cpu_ms[name].append((process_time() - begun_cpu_s) * 1e3)
        progress("rounds", number + 1, WARM_UP + rounds)
    rows = {name: [each.embed(face)[0] for face in faces[name]] for name, each in embedders.items()}
    models = {}
    for name, manifest in manifests.items():
        exact = rows.get(_reference(name))
        p50, p95 = np.percentile(spent_ms[name], (50, 95))
        models[name] = {
            "model_id": manifest.model_id,
            "ms_p50": round(float(p50), 3),
            "ms_p95": round(float(p95), 3),
            "cpu_ms_p50": round(float(np.median(cpu_ms[name])), 3),
            "bytes": sum(part.bytes for part in parts_of(manifest, settings.models_path)),
            "cosine_to_fp32": None if exact is None else _mean_cosine(rows[name], exact),
        }
    return {
        "schema": "edge.models.bench/1",
        "threads": settings.recognition.threads,
        "models": models,
        "refused": refused,
    }


def _reference(name: str) -> str:
    """Return the name of the float embedder that one is compared with."""
    return next((reference for kind, reference in REFERENCES.items() if name.startswith(kind)), REFERENCE)


def _mean_cosine(rows: list[FloatArray], exact: list[FloatArray]) -> float | None:
    if rows[0].shape != exact[0].shape:
        return None
    return round(float(np.mean([a @ b for a, b in zip(rows, exact, strict=True)])), 5)


def _faces(settings: Settings, media: Path, embedders: Mapping[str, Embedder]) -> dict[str, list[Image]]:
    """Return the faces as each embedder takes them."""
    manifest, session = load_session(
        settings.recognition.detector,
        "detector",
        settings.models_path,
        threads=settings.recognition.threads,
        providers=settings.recognition.runs_on,
    )
    detector = Detector(session, manifest, max_side_px=640, min_score=settings.recognition.detector_score)
    faces: dict[str, list[Image]] = {name: [] for name in embedders}
    for subject in range(1, ORL_SUBJECTS + 1):
        image = read_photo(orl_photo(media, subject, 1))
        for face in detector.detect(image)[:1]:
            for name, embedder in embedders.items():
                faces[name].append(embedder.align(image, face.landmarks))
    return faces
