"""Search a Qdrant collection, for sites with more templates than a device holds.

The engine is not ours: it runs beside the message broker, on the site's own network. Probes leave the device
for it and templates lie in it, both under the site's secret rotation; so it is off unless configured. When it
is asked is `elsewhere`'s business. The only file that knows qdrant-client (extra `scale`).
"""

import math
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Lock
from typing import Any

from qdrant_client import QdrantClient, models

from edge.errors import GalleryError, RemoteGalleryError, RemoteTimeoutError
from edge.gallery.bundle import subject_entry, subject_of
from edge.gallery.gallery import MAX_PROTOTYPES, SEVERAL_PHOTOS, Gallery
from edge.gallery.rotation import Rotation
from edge.gallery.search import check_probe
from edge.types import Candidate, Match, Probe

TIMEOUT_S = 0.25
"""A person at a door does not notice it. qdrant-client's own limit is whole seconds, and per network step."""

CLIENT_TIMEOUT_S = 2
"""After this an answer that nobody waits for any more frees the connection."""

BATCH = 256
POINTS = uuid.UUID("6a1f4d43-1b1c-4f0f-9b38-5a0c6f5d9d2e")
"""Name space of the ids of points, which Qdrant wants to be UUIDs: one per subject and template."""


class QdrantMatcher:
    """The two nearest subjects of a collection in which every template is a point (`upload`).

    One question at a time: while one that timed out is still under way, the next is refused at once, so that
    a dead engine costs a door one time-out and not a queue of them.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        gallery: Gallery,
        rotation: Rotation,
        *,
        groups: tuple[str, ...] = (),
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Ask about probes of the embedder of `gallery`; `groups`: only their subjects, none: all."""
        self._rotation = rotation
        self._client = client
        self._collection = collection
        self._gallery = gallery
        self._timeout_s = timeout_s
        self._filter = _filter(gallery.model_id, groups)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="remote-gallery")
        self._busy = Lock()

    def match(self, probe: Probe) -> Match:
        """Return the two subjects with the best scores.

        `gallery_size` is the number of templates searched, since an engine does not count subjects; each is
        worth as many comparisons as one of several photos, so that the threshold is rather too high.

        Raises:
            RemoteTimeoutError: No answer in time.
            RemoteGalleryError: No answer, or one that cannot be used.
            ModelMismatchError: The probe comes from another embedder.
        """
        asked = self.ask(probe)
        try:
            return asked.result(self._timeout_s)
        except FutureTimeoutError:
            raise RemoteTimeoutError(
                f"the remote gallery did not answer in {self._timeout_s * 1e3:.0f} ms; look at its server"
            ) from None

    def ask(self, probe: Probe) -> Future[Match]:
        """Begin what `match` does; see `elsewhere.RemoteMatcher`."""
        asked: Future[Match]
        if not check_probe(probe, self._gallery):
            asked = Future()
            asked.set_result(Match(None, None, 0, 0))
            return asked
        if not self._busy.acquire(blocking=False):
            raise RemoteTimeoutError("the remote gallery has not answered the last question yet")
        try:
            asked = self._pool.submit(self._ask, self._rotation.apply(probe.embedding).tolist())
        except RuntimeError:
            self._busy.release()
            raise RemoteGalleryError("the remote gallery was closed") from None
        asked.add_done_callback(lambda _: self._busy.release())
        return asked

    def close(self) -> None:
        """Ask nothing more; a question under way ends by itself. The client is its maker's to close."""
        self._pool.shutdown(wait=False)

    def _ask(self, vector: list[float]) -> Match:
        try:
            searched = self._client.count(self._collection, count_filter=self._filter, exact=False).count
            points = self._client.query_points(
                self._collection,
                query=vector,
                query_filter=self._filter,
                limit=MAX_PROTOTYPES + 1,  # of which at most MAX_PROTOTYPES are of one subject
                with_payload=True,
            ).points
        except Exception as error:
            # Over HTTP it raises ApiException, in local mode ValueError: no common base below Exception.
            raise RemoteGalleryError(f"the remote gallery failed: {type(error).__name__}") from None
        candidates: dict[str, Candidate] = {}
        for point in points:
            candidate = _candidate(point.payload or {}, point.score)
            candidates.setdefault(candidate.subject.subject_id, candidate)
        best, second = (*candidates.values(), None, None)[:2]
        return Match(best, second, searched, searched * SEVERAL_PHOTOS)


def connect(url: str, *, api_key: str | None = None) -> QdrantClient:
    """Return a client of a server; nothing is sent before the first question.

    Raises:
        RemoteGalleryError: The address cannot be used.
    """
    try:
        return QdrantClient(url=url, api_key=api_key, timeout=CLIENT_TIMEOUT_S, check_compatibility=False)
    except (ValueError, TypeError):
        raise RemoteGalleryError("remote gallery: the address must look like https://host:6333") from None


def upload(client: QdrantClient, collection: str, gallery: Gallery, rotation: Rotation) -> None:
    """Make a collection hold exactly the templates of a gallery; one that is there is replaced.

    Raises:
        RemoteGalleryError: The server refused it.
    """
    try:
        if client.collection_exists(collection):
            client.delete_collection(collection)
        client.create_collection(
            collection,
            vectors_config=models.VectorParams(size=gallery.dim, distance=models.Distance.COSINE),
        )
        client.upload_points(collection, _points(gallery, rotation), batch_size=BATCH, wait=True)
    except Exception as error:
        raise RemoteGalleryError(f"the remote gallery refused it: {type(error).__name__}") from None


def _points(gallery: Gallery, rotation: Rotation) -> Iterator[models.PointStruct]:
    rows, row = rotation.apply(gallery.matrix), 0
    for subject, count in zip(gallery.subjects, gallery.counts, strict=True):
        payload = {
            "subject": subject_entry(subject),
            "groups": list(subject.groups),
            "model_id": gallery.model_id,
        }
        for number in range(count):
            point = str(uuid.uuid5(POINTS, f"{number} {subject.subject_id}"))
            yield models.PointStruct(id=point, vector=rows[row].tolist(), payload=payload)
            row += 1


def _filter(model_id: str, groups: tuple[str, ...]) -> models.Filter:
    must: list[Any] = [models.FieldCondition(key="model_id", match=models.MatchValue(value=model_id))]
    if groups:
        must.append(models.FieldCondition(key="groups", match=models.MatchAny(any=list(groups))))
    return models.Filter(must=must)


def _candidate(payload: dict[str, Any], score: float) -> Candidate:
    """Return what a point says, believed only after the checks of a local gallery."""
    try:
        subject = subject_of(payload.get("subject"))
    except GalleryError:
        raise RemoteGalleryError(
            "the remote gallery holds a point that is not a template; upload it again"
        ) from None
    if not math.isfinite(score) or abs(score) > 1.001:
        raise RemoteGalleryError("the remote gallery gave a score that is no cosine; use distance Cosine")
    return Candidate(subject, min(max(float(score), -1.0), 1.0))
