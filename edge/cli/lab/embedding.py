"""Embed an operator's photos for the commands that measure: with progress, on every processor, cached."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edge.cli.output import progress
from edge.core.errors import ConfigError
from edge.device.assembly.recognizer import build_recognizer
from edge.device.settings.load import Settings
from edge.face import manifest as manifests
from edge.face.manifest import AUTO
from edge.gallery.gallery import Gallery
from edge.lab.photos.embeddings import EmbeddingCache, embed_photos
from edge.lab.photos.measure import Embeddings
from edge.recognition.recognizer import Recognizer


def recognizer_with(embedder: str, settings: Settings) -> Recognizer:
    """Return a recognizer with this embedder and an empty gallery; one never calibrated has a raw threshold.

    Raises:
        ConfigError: It is "auto": every worker might choose another one.
    """
    if embedder == AUTO:
        raise ConfigError("--model: auto is no embedder; name one of `edge models list`")
    values: dict[str, object] = {
        "recognition": settings.recognition.model_copy(update={"embedder": embedder})
    }
    if manifests.load(embedder, settings.models_path).calibration is None:
        values["decision"] = settings.decision.model_copy(update={"threshold": 1.0})
    return build_recognizer(settings.model_copy(update=values), Gallery.empty(embedder))


def embed_all(photos: Sequence[Path], embedder: str, settings: Settings) -> tuple[str, Embeddings]:
    """Return the embedder's model id and the embedding of each photo, None where no face was found."""
    one = recognizer_with(embedder, settings).embedder
    cache = EmbeddingCache(settings.state_dir / "evaluate" / f"{one.model_id}.cache", one.dim)
    with progress(embedder) as step:
        found = embed_photos(
            photos, partial(recognizer_with, embedder, settings), cache, step, workers=os.cpu_count() or 1
        )
    return one.model_id, found
