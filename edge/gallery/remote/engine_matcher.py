"""Search a gallery that lies in an engine, for sites with more templates than a device holds.

The engine is not ours: it runs beside the message broker, on the site's own network. Probes leave the device
for it and templates lie in it, both under the site's secret rotation; so it is off unless configured.

The engine only proposes. Every entry carries its subject, its row and the number of its upload, signed with a
key from the site's secret (`signed_rows`): the score is computed here from that row, not from what the engine
says or does to its vectors. How many templates there are, which the threshold follows, is signed as well. One
entry that is not signed spoils the whole answer, since who forges one may have hidden others. Two things
remain to whoever owns the engine: to leave entries out, which rejects people or hides that two are alike, and
to bring back a whole earlier upload. So every suspicion calls for a new secret and a new upload. Who was
removed at this door stays out in any case (`question`).

When it is asked is the business of `question`. Engines are in `qdrant` and `pgvector`.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

from edge.core.download import Progress
from edge.core.errors import GalleryError, RemoteGalleryError, RemoteTimeoutError
from edge.core.text import first_line
from edge.core.types import FloatArray, Match, Probe, ScoredSubject
from edge.gallery.format.bundle import subject_entry, subject_of
from edge.gallery.format.rows import rows_text
from edge.gallery.gallery import MAX_PROTOTYPES, SEVERAL_PHOTOS, Gallery
from edge.gallery.remote.rotation import Rotation
from edge.gallery.remote.signed_rows import RowSigner, row_of
from edge.gallery.search import check_probe

TIMEOUT_S = 0.25
"""A person at a door does not notice it."""

ENGINE_TIMEOUT_S = 2
"""After this an answer that nobody waits for any more frees the connection."""

STEP_ROWS = 1000
"""After so many of them an upload says how many were sent."""

POINTS = uuid.UUID("6a1f4d43-1b1c-4f0f-9b38-5a0c6f5d9d2e")
"""Name space of the ids of entries: one for each subject and template."""

CONTENTS = uuid.uuid5(POINTS, "contents")
"""The entry that says what was uploaded. It is of no model, so no search finds it."""


@dataclass(frozen=True, slots=True, eq=False)
class RemoteEntry:
    """One template in an engine: the rotated row (dim,) by which it is found, and what the site signed.

    The entry `CONTENTS` has no model and no row.
    """

    id: uuid.UUID
    signed: Mapping[str, str]
    model_id: str | None = None
    row: FloatArray | None = None
    groups: tuple[str, ...] = ()


class RemoteEngine(Protocol):
    """A server that keeps entries and finds those whose rows are nearest, by inner product."""

    def replace(self, dim: int, entries: Iterable[RemoteEntry], step: Progress) -> None:
        """Hold exactly these entries, of rows of length `dim`; the last one is `CONTENTS`.

        `step` hears of what is done after they came.

        Raises:
            RemoteGalleryError: It refuses them.
        """
        ...

    def contents(self) -> Mapping[str, object] | None:
        """Return what the entry `CONTENTS` holds, None where there is none.

        Raises:
            Exception: Whatever its library raises.
        """
        ...

    def nearest(
        self, row: FloatArray, model_id: str, groups: Sequence[str], count: int
    ) -> Sequence[Mapping[str, object]]:
        """Return what the `count` nearest entries of a model hold; with `groups`: of their subjects.

        Raises:
            Exception: Whatever its library raises.
        """
        ...

    def close(self) -> None:
        """Let go of the server."""
        ...


class EngineMatcher:
    """The two nearest subjects of what was uploaded to an engine.

    One question at a time: while one that timed out is still under way, the next is refused at once, so that
    a dead engine costs a door one time-out and not a queue of them.
    """

    def __init__(
        self,
        engine: RemoteEngine,
        gallery: Gallery,
        rotation: Rotation,
        signer: RowSigner,
        *,
        groups: tuple[str, ...] = (),
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Ask about probes of the embedder of `gallery`; `groups`: only their subjects, none: all."""
        self._engine = engine
        self._gallery = gallery
        self._rotation = rotation
        self._signer = signer
        self._groups = groups
        self._timeout_s = timeout_s
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
        """Ask nothing more; a question under way ends by itself. The engine is its maker's to close."""
        self._pool.shutdown(wait=False)

    def _answer(self, turned: FloatArray) -> Match:
        """Ask, and be free for the next question before whoever waits is told."""
        try:
            return self._ask(turned)
        finally:
            self._busy.release()

    def _ask(self, turned: FloatArray) -> Match:
        uploaded, proposed = self._asked(turned)
        if any(said["upload"] != uploaded["upload"] for said in proposed):
            uploaded, proposed = self._asked(turned)  # an upload ended between the two questions
        found = sorted(
            (self._scored(said, str(uploaded["upload"]), turned) for said in proposed),
            key=lambda each: -each.score,
        )
        subjects: dict[str, ScoredSubject] = {}
        for each in found:
            subjects.setdefault(each.subject.subject_id, each)
        best, second = (*subjects.values(), None, None)[:2]
        searched = self._searched(uploaded)
        return Match(best, second, searched, searched * SEVERAL_PHOTOS)

    def _asked(self, turned: FloatArray) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return what the site signed: about the whole upload, and the nearest templates."""
        try:
            contents = self._engine.contents()
            # At most MAX_PROTOTYPES are of one subject, so that there is one of another beside them.
            proposed = self._engine.nearest(turned, self._gallery.model_id, self._groups, MAX_PROTOTYPES + 1)
        except Exception as error:
            # What the libraries raise has no common base below it.
            raise RemoteGalleryError(
                f"the remote gallery failed: {type(error).__name__}: {first_line(error)}"
            ) from None
        if contents is None:
            raise RemoteGalleryError("the remote gallery does not say what it holds; upload it again")
        return self._signer.read("contents", contents), [
            self._signer.read("template", entry) for entry in proposed
        ]

    def _searched(self, uploaded: dict[str, Any]) -> int:
        """Return how many templates of the door's groups there are; one of two groups counts twice."""
        if uploaded["model_id"] != self._gallery.model_id:
            return 0
        total = int(uploaded["templates"])
        if not self._groups:
            return total
        return min(total, sum(int(uploaded["groups"].get(group, 0)) for group in self._groups))

    def _scored(self, said: Mapping[str, Any], upload: str, turned: FloatArray) -> ScoredSubject:
        """Return the subject of a template of an upload, and its score against a rotated probe."""
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


def upload(
    engine: RemoteEngine,
    gallery: Gallery,
    rotation: Rotation,
    signer: RowSigner,
    own_shifts: Mapping[str, float],
    step: Progress = lambda what, done, total: None,
) -> None:
    """Make an engine hold exactly the templates of a gallery.

    `own_shifts` are those of the gallery's `DecisionRule`; doors take them from here. `step` hears how much
    is done.

    Raises:
        RemoteGalleryError: The server refused it.
    """
    total = len(gallery.matrix)

    def sent() -> Iterator[RemoteEntry]:
        for number, entry in enumerate(entries(gallery, rotation, signer, own_shifts)):
            if number % STEP_ROWS == 0:
                step("rows sent", number, total)
            yield entry

    engine.replace(gallery.dim, sent(), step)


def entries(
    gallery: Gallery, rotation: Rotation, signer: RowSigner, own_shifts: Mapping[str, float]
) -> Iterator[RemoteEntry]:
    """Yield the templates, and last what they are: an upload that was interrupted is not believed."""
    same: dict[str, Any] = {"upload": uuid.uuid4().hex, "model_id": gallery.model_id}
    rows, number = rotation.apply(gallery.matrix), 0
    groups: Counter[str] = Counter()
    for subject, count in zip(gallery.subjects, gallery.counts, strict=True):
        about = {**same, "subject": subject_entry(subject)}
        if own_shift := own_shifts.get(subject.subject_id):
            about["own_shift"] = round(own_shift, 4)
        groups.update({group: count for group in subject.groups})
        for template in range(count):
            row = rows[number]
            number += 1
            yield RemoteEntry(
                uuid.uuid5(POINTS, f"{template} {subject.subject_id}"),
                signer.sign("template", {**about, "row": rows_text(row)}),
                gallery.model_id,
                row,
                subject.groups,
            )
    yield RemoteEntry(CONTENTS, signer.sign("contents", {**same, "templates": number, "groups": groups}))
