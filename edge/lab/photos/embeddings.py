"""Look at many photos on every processor or on a cluster; embed each once: a cache knows its bytes and model.

The cache holds biometric data of the photos' subjects: it lies in the state directory, mode 0600, and goes
away with it.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from edge.camera.photo import decode_photo, photo_bytes
from edge.camera.photo_store import STORED
from edge.core.download import Progress
from edge.core.errors import ClusterError, ConfigError, FileError, MediaError
from edge.core.types import Detection, FloatArray, Image
from edge.device.assembly.recognizer import build_elsewhere, build_recognizer
from edge.device.settings.load import Settings
from edge.face.manifest import AUTO, load_manifest
from edge.fleet.cluster import Needs, joined
from edge.gallery.gallery import Gallery
from edge.lab.photos.measure import Embeddings
from edge.lab.photos.protocol import subjects
from edge.recognition.recognizer import Recognizer

T = TypeVar("T")
Item = TypeVar("Item")


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
    data = photo_bytes(path)
    return hashlib.sha256(data).digest(), data


def _embed(image: Image, recognizer: Recognizer) -> FloatArray | None:
    face = nearest_face(recognizer.detect(image), centre(image))
    return None if face is None else recognizer.embed(recognizer.align(image, face)).embedding


CHUNK = 64
"""Photos for one worker of a cluster at a time, for which it loads its models."""


@dataclass(frozen=True, slots=True)
class PhotoEmbedder:
    """An embedder, and what runs it: every processor of this machine, or the workers of a Dask scheduler."""

    name: str
    settings: Settings
    scheduler: str | None = None

    def recognizer(self) -> Recognizer:
        """Return what `recognizer_with` does."""
        return recognizer_with(self.name, self.settings)

    def embed(self, photos: Sequence[Path], progress: Progress) -> Embeddings:
        """Return the embedding of each photo, None where no face was found.

        The face is that nearest the centre. No quality gate: what it buys is measured by itself.

        Raises:
            MediaError, ClusterError: As for `each`.
        """
        one = self.recognizer().embedder
        cache = EmbeddingCache(self.settings.state_dir / "evaluate" / f"{one.model_id}.{ROAD}.cache", one.dim)
        return self.remembered(photos, _embed, cache, progress)

    def remembered(
        self,
        photos: Sequence[Path],
        make: Callable[[Image, Recognizer], FloatArray | None],
        cache: EmbeddingCache,
        progress: Progress,
    ) -> dict[Path, FloatArray | None]:
        """Return what `make` makes of each photo, or what is remembered of it; what came is in the cache.

        Raises:
            MediaError, ClusterError: As for `each`; or a photo changes meanwhile.
        """
        if self.scheduler is None or not photos:

            def work(path: Path, recognizer: Callable[[], Recognizer]) -> FloatArray | None:
                return cache.get(path, lambda image: make(image, recognizer()))

            return self._here(photos, work, progress)
        if STORED in str(photos[0]):  # this machine's line to the store is narrower than that of all workers
            keys = dict(self._elsewhere(photos[0], photos, _key_of, progress))
        else:
            keys = {path: _keyed(path)[0] for path in photos}
        owed = list({key: path for path, key in keys.items() if key not in cache}.items())
        for (key, _), row in self._elsewhere(photos[0], owed, partial(_made_of, make), progress):
            cache.put(key, row)
        return {path: cache[keys[path]] for path in photos}

    def each(
        self, photos: Sequence[Path], work: Callable[[Path, Recognizer], T], progress: Progress
    ) -> dict[Path, T]:
        """Return what `work`, which must be picklable, makes of each photo.

        Raises:
            MediaError: A photo cannot be read.
            ClusterError: The cluster is lost or is not what is needed, or a photo kills its workers.
        """
        if self.scheduler is None or not photos:
            return self._here(photos, lambda path, recognizer: work(path, recognizer()), progress)
        made = dict(self._elsewhere(photos[0], photos, work, progress))
        return {path: made[path] for path in photos}

    def _here(
        self,
        photos: Sequence[Path],
        work: Callable[[Path, Callable[[], Recognizer]], T],
        progress: Progress,
    ) -> dict[Path, T]:
        """Let each thread ask for a recognizer of its own, where it needs one."""
        local = threading.local()
        counting = threading.Lock()
        done = 0

        def recognizer() -> Recognizer:
            if not hasattr(local, "recognizer"):
                local.recognizer = self.recognizer()
            found: Recognizer = local.recognizer
            return found

        def counted(path: Path) -> T:
            nonlocal done
            made = work(path, recognizer)
            with counting:
                done += 1
                progress("photos", done, len(photos))
            return made

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return dict(zip(photos, pool.map(counted, photos), strict=True))

    def _elsewhere(
        self, photo: Path, items: Sequence[Item], work: Callable[[Item, Recognizer], T], progress: Progress
    ) -> Iterator[tuple[Item, T]]:
        """Yield each item with what the workers of the cluster make of it; all must see `photo`."""
        assert self.scheduler is not None
        needs = Needs.of(self.recognizer(), photo)
        load = partial(build_elsewhere, partial(recognizer_with, self.name), self.settings.recognition)
        chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
        done, deadly = 0, []
        with joined(self.scheduler, needs, load) as cluster:
            for chunk, answers in cluster.map(partial(_each_of, work), chunks):
                for item, answer in zip(chunk, answers, strict=True):
                    if isinstance(answer, ClusterError):
                        deadly.append(f"{item[1] if isinstance(item, tuple) else item}: {answer}")
                    else:
                        yield item, answer
                done += len(chunk)
                progress("photos", done, len(items))
        if deadly:
            raise ClusterError(f"{len(deadly)} of {len(items)} photos could not be looked at: {deadly[0]}")


def _each_of(
    work: Callable[[Item, Recognizer], T], load: Callable[[], Recognizer], items: Sequence[Item]
) -> list[T]:
    recognizer = load()
    return [work(item, recognizer) for item in items]


def _key_of(path: Path, _: Recognizer) -> bytes:
    return _keyed(path)[0]


def _made_of(
    make: Callable[[Image, Recognizer], FloatArray | None], item: tuple[bytes, Path], recognizer: Recognizer
) -> FloatArray | None:
    key, path = item
    there, data = _keyed(path)
    if there != key:
        raise MediaError(f"{path}: a worker reads another photo under this path")
    return make(decode_photo(data, str(path)), recognizer)


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


def first_faces(images: Path, embedder: PhotoEmbedder, progress: Progress) -> FloatArray:
    """Return the embedding of one photo per subject of a folder, (n, D).

    Raises:
        MediaError: No photo shows a face.
    """
    photos = [paths[0] for paths in subjects(images).values()]
    embeddings = embedder.embed(photos, progress)
    found = [row for path in photos if (row := embeddings[path]) is not None]
    if not found:
        raise MediaError(f"{images}: no face found in any photo")
    return np.stack(found)
