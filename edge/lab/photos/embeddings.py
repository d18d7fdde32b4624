"""Embed many photos on every processor or on a cluster, each once: a cache knows them by bytes and model.

The cache holds biometric data of the photos' subjects: it lies in the state directory, mode 0600, and goes
away with it.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from edge.camera.photo import decode_photo
from edge.core.download import Progress
from edge.core.errors import ConfigError, FileError, MediaError
from edge.core.types import Detection, FloatArray, Image
from edge.device.assembly.recognizer import build_elsewhere, build_recognizer
from edge.device.settings.load import Settings
from edge.face.manifest import AUTO, load_manifest
from edge.fleet.cluster import Cluster, Needs, joined
from edge.gallery.gallery import Gallery
from edge.lab.photos.measure import Embeddings
from edge.lab.photos.protocol import subjects
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


ROAD = "upright"
"""How faces were aligned: a cache of embeddings of tilted heads that were not turned upright is not read."""

KEY_BYTES = 32
"""SHA-256 of the photo's file."""


class EmbeddingCache:
    """A file of records: key, whether a face was found, embedding. Torn ends are ignored."""

    def __init__(self, path: Path, dim: int) -> None:
        self._path = path
        self._record = np.dtype([("key", f"S{KEY_BYTES}"), ("found", "u1"), ("row", "<f4", (dim,))])
        self._rows: dict[bytes, FloatArray | None] = {}
        self._lock = threading.Lock()
        if path.exists():
            try:
                data = path.read_bytes()
            except OSError as error:
                raise FileError(f"{path}: cannot be read: {error.strerror}") from None
            whole = len(data) // self._record.itemsize * self._record.itemsize
            for entry in np.frombuffer(data[:whole], self._record):
                key = bytes(entry["key"]).ljust(KEY_BYTES, b"\0")
                self._rows[key] = np.array(entry["row"], np.float32) if entry["found"] else None

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def __getitem__(self, key: bytes) -> FloatArray | None:
        return self._rows[key]

    def get(self, path: Path, make: Callable[[Image], FloatArray | None]) -> FloatArray | None:
        """Return what is remembered of a photo, made from its picture where nothing is.

        Raises:
            MediaError: It cannot be read.
            FileError: What was made of it cannot be written.
        """
        key, data = _keyed(path)
        if key not in self:
            self.put(key, make(decode_photo(data, str(path))))
        return self[key]

    def put(self, key: bytes, row: FloatArray | None) -> None:
        """Remember an embedding, or that there is no face.

        Raises:
            FileError: It cannot be written.
        """
        record = np.zeros(1, self._record)
        record["key"], record["found"] = key, row is not None
        if row is not None:
            record["row"] = row
        with self._lock:
            self._rows[key] = row
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    os.write(descriptor, record.tobytes())
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise FileError(f"{self._path}: cannot be written: {error.strerror}") from None


def _keyed(path: Path) -> tuple[bytes, bytes]:
    """Return a photo's key and its bytes."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: cannot read the photo: {error.strerror}") from None
    return hashlib.sha256(data).digest(), data


def embed_photos(
    photos: Sequence[Path],
    make_recognizer: Callable[[], Recognizer],
    cache: EmbeddingCache,
    progress: Progress,
    *,
    workers: int,
) -> dict[Path, FloatArray | None]:
    """Return the embedding of the face nearest the centre of each photo, None where no face was found.

    No quality gate: what it buys is measured by itself. Each worker has a recognizer of its own.

    Raises:
        MediaError: A photo cannot be read.
    """

    def work(path: Path, recognizer: Callable[[], Recognizer]) -> FloatArray | None:
        return cache.get(path, lambda image: _embed(image, recognizer()))

    return each_photo(photos, work, make_recognizer, progress, workers=workers)


def _embed(image: Image, recognizer: Recognizer) -> FloatArray | None:
    face = nearest_face(recognizer.detect(image), centre(image))
    return None if face is None else recognizer.embed(recognizer.align(image, face)).embedding


CHUNK = 64
"""Photos for one worker of a cluster at a time, for which it loads its models."""


def embed_on(
    cluster: Cluster, photos: Sequence[Path], cache: EmbeddingCache, progress: Progress
) -> dict[Path, FloatArray | None]:
    """Return what `embed_photos` does, embedded by the workers of a cluster; what came is in the cache.

    Raises:
        MediaError: A photo cannot be read, or changes meanwhile.
        ClusterError: The cluster is lost, or is not what is needed.
    """
    keys = {path: _keyed(path)[0] for path in photos}
    owed = list({key: path for path, key in keys.items() if key not in cache}.items())
    chunks = [owed[start : start + CHUNK] for start in range(0, len(owed), CHUNK)]
    done = 0
    for chunk, rows in zip(chunks, cluster.map(_embed_chunk, chunks), strict=True):
        for (key, _), row in zip(chunk, rows, strict=True):
            cache.put(key, row)
        done += len(chunk)
        progress("photos", done, len(owed))
    return {path: cache[key] for path, key in keys.items()}


def _embed_chunk(
    load: Callable[[], Recognizer], photos: Sequence[tuple[bytes, Path]]
) -> list[FloatArray | None]:
    recognizer, rows = load(), []
    for key, path in photos:
        there, data = _keyed(path)
        if there != key:
            raise MediaError(f"{path}: a worker reads another photo under this path")
        rows.append(_embed(decode_photo(data, str(path)), recognizer))
    return rows


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
    if load_manifest(embedder, settings.models_path).calibration is None:
        values["decision"] = settings.decision.model_copy(update={"threshold": 1.0})
    return build_recognizer(settings.model_copy(update=values), Gallery.empty(embedder))


def embed_all(
    photos: Sequence[Path],
    embedder: str,
    settings: Settings,
    progress: Progress,
    scheduler: str | None = None,
) -> tuple[str, Embeddings]:
    """Return the embedder's model id and the embedding of each photo, None where no face was found.

    Uses every processor, or the workers of a Dask scheduler, and the cache in the state directory.
    """
    recognizer = recognizer_with(embedder, settings)
    one = recognizer.embedder
    cache = EmbeddingCache(settings.state_dir / "evaluate" / f"{one.model_id}.{ROAD}.cache", one.dim)
    if scheduler is not None:
        elsewhere = partial(build_elsewhere, partial(recognizer_with, embedder), settings.recognition)
        with joined(scheduler, Needs.of(recognizer, photos[0]), elsewhere) as cluster:
            return one.model_id, embed_on(cluster, photos, cache, progress)
    make = partial(recognizer_with, embedder, settings)
    return one.model_id, embed_photos(photos, make, cache, progress, workers=os.cpu_count() or 1)


def first_faces(images: Path, embedder: str, settings: Settings, progress: Progress) -> FloatArray:
    """Return the embedding of one photo per subject of a folder, (n, D).

    Raises:
        MediaError: No photo shows a face.
    """
    photos = [paths[0] for paths in subjects(images).values()]
    _, embeddings = embed_all(photos, embedder, settings, progress)
    found = [row for path in photos if (row := embeddings[path]) is not None]
    if not found:
        raise MediaError(f"{images}: no face found in any photo")
    return np.stack(found)
