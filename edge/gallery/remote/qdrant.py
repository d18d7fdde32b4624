"""Search a Qdrant collection, for sites with more templates than a device holds.

The engine is not ours: it runs beside the message broker, on the site's own network. Probes leave the device
for it and templates lie in it, both under the site's secret rotation; so it is off unless configured.

The server only proposes. Every point carries its subject, its row and the number of its upload, signed with
a key from the site's secret (`signed_rows`): the score is computed here from that row, not from what the
server says or does to its vectors. How many templates there are, which the threshold follows, is signed as
well. One point that is not signed spoils the whole answer, since who forges one may have hidden others. Two
things remain to whoever owns the server: to leave points out, which rejects people or hides that two are
alike, and to bring back a whole earlier upload. So every suspicion calls for a new secret and a new upload.
Who was removed at this door stays out in any case (`question`).

When it is asked is the business of `question`. The only file that knows qdrant-client (extra `remote`).
"""

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Lock
from typing import Any

from qdrant_client import QdrantClient, models

from edge.core.errors import GalleryError, RemoteGalleryError, RemoteTimeoutError
from edge.core.types import FloatArray, Match, Probe, ScoredSubject
from edge.gallery.format.bundle import subject_entry, subject_of
from edge.gallery.format.rows import rows_text
from edge.gallery.gallery import MAX_PROTOTYPES, SEVERAL_PHOTOS, Gallery
from edge.gallery.remote.rotation import Rotation
from edge.gallery.remote.signed_rows import RowSigner, row_of
from edge.gallery.search import check_probe

TIMEOUT_S = 0.25
"""A person at a door does not notice it. qdrant-client's own limit is whole seconds, and per network step."""

CLIENT_TIMEOUT_S = 2
"""After this an answer that nobody waits for any more frees the connection."""

BATCH = 256
"""Points of one request of an upload."""

POINTS = uuid.UUID("6a1f4d43-1b1c-4f0f-9b38-5a0c6f5d9d2e")
"""Name space of the ids of points, which Qdrant wants to be UUIDs: one per subject and template."""

CONTENTS = str(uuid.uuid5(POINTS, "contents"))
"""The point that says what was uploaded. It has no `model_id` to be filtered by, so no search finds it."""


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
        signer: RowSigner,
        *,
        groups: tuple[str, ...] = (),
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Ask about probes of the embedder of `gallery`; `groups`: only their subjects, none: all."""
        self._rotation = rotation
        self._signer = signer
        self._groups = groups
        self._client = client
        self._collection = collection
        self._gallery = gallery
        self._timeout_s = timeout_s
        self._filter = _filter(gallery.model_id, groups)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="remote-gallery")
        self._busy = Lock()

    def match(self, probe: Probe) -> Match:
        """Return the two subjects with the best scores.

        `gallery_size` is the number of templates searched, not of subjects; each is worth as many comparisons
        as one of several photos, so that the threshold is rather too high.

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
        """Begin what `match` does; see `question.RemoteMatcher`."""
        asked: Future[Match]
        if not check_probe(probe, self._gallery):
            asked = Future()
            asked.set_result(Match(None, None, 0, 0))
            return asked
        if not self._busy.acquire(blocking=False):
            raise RemoteTimeoutError("the remote gallery has not answered the last question yet")
        try:
            return self._pool.submit(self._answer, self._rotation.apply(probe.embedding))
        except RuntimeError:
            self._busy.release()
            raise RemoteGalleryError("the remote gallery was closed") from None

    def close(self) -> None:
        """Ask nothing more; a question under way ends by itself. The client is its maker's to close."""
        self._pool.shutdown(wait=False)

    def _answer(self, turned: FloatArray) -> Match:
        """Ask, and be free for the next question before whoever waits is told."""
        try:
            return self._ask(turned)
        finally:
            self._busy.release()

    def _ask(self, turned: FloatArray) -> Match:
        try:
            contents = self._client.retrieve(self._collection, [CONTENTS], with_payload=True)
            points = self._client.query_points(
                self._collection,
                query=turned.tolist(),
                query_filter=self._filter,
                limit=MAX_PROTOTYPES + 1,  # of which at most MAX_PROTOTYPES are of one subject
                with_payload=True,
            ).points
        except Exception as error:
            # Over HTTP it raises ApiException, in local mode ValueError: no common base below Exception.
            raise RemoteGalleryError(f"the remote gallery failed: {type(error).__name__}") from None
        if not contents:
            raise RemoteGalleryError("the remote gallery does not say what it holds; upload it again")
        uploaded = self._signer.read("contents", contents[0].payload or {})
        found = sorted(
            (self._scored(point.payload or {}, str(uploaded["upload"]), turned) for point in points),
            key=lambda each: -each.score,
        )
        subjects: dict[str, ScoredSubject] = {}
        for each in found:
            subjects.setdefault(each.subject.subject_id, each)
        best, second = (*subjects.values(), None, None)[:2]
        searched = self._searched(uploaded)
        return Match(best, second, searched, searched * SEVERAL_PHOTOS)

    def _searched(self, uploaded: dict[str, Any]) -> int:
        """Return how many templates of the door's groups there are; one of two groups counts twice."""
        if uploaded["model_id"] != self._gallery.model_id:
            return 0
        total = int(uploaded["templates"])
        if not self._groups:
            return total
        return min(total, sum(int(uploaded["groups"].get(group, 0)) for group in self._groups))

    def _scored(self, payload: dict[str, Any], upload: str, turned: FloatArray) -> ScoredSubject:
        """Return the subject that a point of an upload signs, and its score against a rotated probe."""
        said = self._signer.read("template", payload)
        if said["upload"] != upload or said["model_id"] != self._gallery.model_id:
            raise RemoteGalleryError("the remote gallery mixes two uploads; upload it again")
        try:
            subject = subject_of(said["subject"])
        except GalleryError:
            raise RemoteGalleryError(
                "the remote gallery holds a subject that is none; upload it again"
            ) from None
        score = float(row_of(said["row"], len(turned)) @ turned)
        return ScoredSubject(subject, min(max(score, -1.0), 1.0), float(said.get("own_shift", 0.0)))


def connect(url: str, *, api_key: str | None = None) -> QdrantClient:
    """Return a client of a server; nothing is sent before the first question.

    Raises:
        RemoteGalleryError: The address cannot be used.
    """
    try:
        return QdrantClient(url=url, api_key=api_key, timeout=CLIENT_TIMEOUT_S, check_compatibility=False)
    except (ValueError, TypeError):
        raise RemoteGalleryError("remote gallery: the address must look like https://host:6333") from None


def upload(
    client: QdrantClient,
    collection: str,
    gallery: Gallery,
    rotation: Rotation,
    signer: RowSigner,
    own_shifts: Mapping[str, float],
) -> None:
    """Make a collection hold exactly the templates of a gallery; one that is there is replaced.

    `own_shifts` are those of the gallery's `DecisionRule`; doors take them from here.

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
        points = _points(gallery, rotation, signer, own_shifts)
        client.upload_points(collection, points, batch_size=BATCH, wait=True)
    except Exception as error:
        raise RemoteGalleryError(f"the remote gallery refused it: {type(error).__name__}") from None


def _points(
    gallery: Gallery, rotation: Rotation, signer: RowSigner, own_shifts: Mapping[str, float]
) -> Iterator[models.PointStruct]:
    """Yield the templates, and last what they are: an upload that was interrupted is not believed."""
    number = uuid.uuid4().hex
    same: dict[str, Any] = {"upload": number, "model_id": gallery.model_id}
    rows, row = rotation.apply(gallery.matrix), 0
    groups: Counter[str] = Counter()
    for subject, count in zip(gallery.subjects, gallery.counts, strict=True):
        about = {**same, "subject": subject_entry(subject)}
        if own_shift := own_shifts.get(subject.subject_id):
            about["own_shift"] = round(own_shift, 4)
        groups.update({group: count for group in subject.groups})
        for template in range(count):
            said = {**about, "row": rows_text(rows[row])}
            yield models.PointStruct(
                id=str(uuid.uuid5(POINTS, f"{template} {subject.subject_id}")),
                vector=rows[row].tolist(),
                payload={
                    **signer.sign("template", said),
                    "groups": list(subject.groups),
                    "model_id": gallery.model_id,
                },
            )
            row += 1
    contents = {**same, "templates": row, "groups": groups}
    anywhere = [1.0] + [0.0] * (gallery.dim - 1)
    yield models.PointStruct(id=CONTENTS, vector=anywhere, payload=dict(signer.sign("contents", contents)))


def _filter(model_id: str, groups: tuple[str, ...]) -> models.Filter:
    must: list[Any] = [models.FieldCondition(key="model_id", match=models.MatchValue(value=model_id))]
    if groups:
        must.append(models.FieldCondition(key="groups", match=models.MatchAny(any=list(groups))))
    return models.Filter(must=must)
