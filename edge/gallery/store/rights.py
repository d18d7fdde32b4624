"""What the newest version of a gallery grants, remembered outside its versions: an older one grants no more.

Who was removed is in no version (`erasure`). Who was restricted is, with the rights of then: a state, a
validity, windows, groups, a face that was enrolled anew. One sealed file holds the rights of now of whoever
an older version knows with others. It names subjects by their hash, and shrinks as versions are dropped.

    {"records": [[version, subject, rights, rows], ...], "limits": [[version, not_after], ...], "fallen": ...}

`rights` null: not enrolled since that version. A line counts once its version has come into force.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.core import files
from edge.core.access import Access, SubjectState, Window
from edge.core.errors import FileError, GalleryError, GalleryIntegrityError
from edge.core.types import Subject
from edge.gallery.format.removed import HASH_CHARS, subject_hash
from edge.gallery.format.seal import Binding, seal, unseal
from edge.gallery.gallery import Gallery
from edge.gallery.store.vault import Vault
from edge.gallery.store.versions import VersionFiles

log = logging.getLogger(__name__)

FILE_NAME = "rights.sealed"
"""In the directory of the versions."""

MAX_BYTES = 64 << 20
"""A million subjects whose rights have changed within the versions that are kept."""

BINDING = Binding("rights", "", "", 1)
"""What the file is sealed as."""


class _Rights(BaseModel):
    """Groups and access of a subject, as JSON holds them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: tuple[str, ...] = ()
    state: SubjectState = SubjectState.ACTIVE
    not_before: datetime | None = None
    not_after: datetime | None = None
    windows: tuple[str, ...] = ()
    time_zone: str = ""

    @classmethod
    def of(cls, subject: Subject) -> "_Rights":
        access = subject.access
        return cls(
            groups=subject.groups,
            state=access.state,
            not_before=access.not_before,
            not_after=access.not_after,
            windows=tuple(map(str, access.windows)),
            time_zone=access.time_zone,
        )

    def given_to(self, subject: Subject) -> Subject:
        windows = tuple(map(Window.parse, self.windows))
        access = Access(self.state, self.not_before, self.not_after, windows, self.time_zone)
        return replace(subject, groups=self.groups, access=access)


class Fallen(BaseModel):
    """The last time that a version could not be read: `version` serves since, with what `source` held."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    source: int
    lost: tuple[int, ...]


Record = tuple[int, str, _Rights | None, tuple[str, ...] | None]
"""From which version on which subject, as a hash, has which rights, and which rows; None: not compared."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    records: tuple[Record, ...] = ()
    limits: tuple[tuple[int, datetime | None], ...] = ()
    fallen: Fallen | None = None


@dataclass(slots=True)
class Rights:
    """The rights of one directory's newest version. Whoever calls what writes holds the lock."""

    files: VersionFiles
    vault: Vault

    def note(self, current: int, before: Gallery | None, after: Gallery) -> None:
        """Remember before a commit what `after`, the next version, grants that is not what `before` grants.

        `current` is the version that serves until then, `before` what it holds; None: nobody can read it.

        Raises:
            GalleryError: It cannot be noted; the commit must not happen.
        """
        kept = self.files.versions()
        found = self._read()
        known = found if found is not None else self._rebuilt(current, before)
        # What was noted for a commit that never came into force is void; what every version says, needless.
        oldest, newest = min(kept, default=after.version), current or after.version
        records = [each for each in known.records if oldest < each[0] <= newest]
        limits = [each for each in known.limits if oldest < each[0] <= newest]
        if before is not None and kept:
            hashes = {each[1] for each in records}
            records += _changes(before, after, after.version, hashes)
            if before.not_after != after.not_after:
                limits.append((after.version, after.not_after))
        self._write(_Document(records=tuple(records), limits=tuple(limits)), found)

    def known(self) -> bool:
        """Return whether there is a file that can be read."""
        return self._read() is not None

    def keep(self, current: Gallery) -> None:
        """Begin to remember where nothing is, or what is cannot be read, by the versions that are kept.

        Raises:
            GalleryError: It cannot be noted.
        """
        if self._read() is None:
            self._write(self._rebuilt(current.version, current), None)

    def restricted(self, gallery: Gallery, newest: int | None) -> Gallery:
        """Return what an older version may grant where `newest` cannot be read (None: nobody knows which).

        Where nobody knows what the newest granted, everybody is suspended.
        """
        found = self._read()
        if found is None:
            log.error("it is not known what the newest gallery granted: everybody is suspended")
            return _changed(gallery, lambda subject: _suspended(subject))
        since = [each for each in found.records if gallery.version < each[0] and _until(each[0], newest)]
        rights = {each[1]: each for each in sorted(since, key=lambda each: each[0])}
        limits = [at for version, at in found.limits if gallery.version < version and _until(version, newest)]
        rows = _Rows(gallery)

        def restrict(subject: Subject) -> Subject | None:
            record = rights.get(subject_hash(subject.subject_id))
            if record is None:
                return subject
            if record[2] is None:
                return None
            given = record[2].given_to(subject)
            if record[3] is not None and not rows.of(subject.subject_id) <= set(record[3]):
                return _suspended(given)  # its face was enrolled anew
            return given

        restricted = _changed(gallery, restrict) if rights else gallery
        if limits and limits[-1] is not None:
            until = min(limits[-1], gallery.not_after or limits[-1])
            restricted = replace(restricted, not_after=until)
        return restricted

    def fell(self, fallen: Fallen) -> None:
        """Remember that an older version serves, until the next commit.

        Raises:
            GalleryError: It cannot be noted.
        """
        found = self._read()
        known = found or _Document()
        self._write(known.model_copy(update={"fallen": fallen}), found)

    def fallen(self, current: int) -> Fallen | None:
        """Return how `current` came to serve, None where it was committed."""
        found = self._read()
        if found is None or found.fallen is None or found.fallen.version != current:
            return None
        return found.fallen

    def _rebuilt(self, current: int, gallery: Gallery | None) -> _Document:
        """Return the difference of a version to every older one that can be read."""
        records: dict[str, Record] = {}
        limits: list[tuple[int, datetime | None]] = []
        for version in self.files.versions() if gallery is not None else ():
            if version >= current or gallery is None:
                continue
            try:
                older = self.vault.read(version)
            except (FileNotFoundError, GalleryIntegrityError):
                continue
            records |= {each[1]: each for each in _changes(older, gallery, current, ())}
            if older.not_after != gallery.not_after:
                limits = [(current, gallery.not_after)]
        return _Document(records=tuple(records.values()), limits=tuple(limits))

    def _read(self) -> _Document | None:
        """Return what is remembered, None where nothing is or it cannot be read, which is told."""
        path = self.files.directory / FILE_NAME
        try:
            data = files.read_bounded(path, MAX_BYTES)
            if data is None:
                return None
            return _Document.model_validate_json(unseal(data, self.vault.key(), BINDING))
        except (FileError, GalleryError, ValidationError, ValueError) as error:
            told = "damaged" if isinstance(error, ValueError) else error
            log.warning("what the newest gallery grants cannot be read: %s: %s", path, told)
            return None

    def _write(self, document: _Document, before: _Document | None) -> None:
        if document == before:
            return
        key = self.vault.key_to_write()
        plain = json.dumps(document.model_dump(mode="json"), separators=(",", ":")).encode()
        try:
            files.write_whole(self.files.directory / FILE_NAME, seal(plain, key, BINDING))
        except FileError as error:
            raise GalleryError(f"nothing is changed, because rights cannot be noted: {error}") from None


def regained(now: Gallery, then: Gallery) -> list[str]:
    """Return who would have rights again, by `then` in the place of `now`, that it does not have now.

    Also whoever has another face now: the one of then would pass again.
    """
    known = {subject.subject_id: subject for subject in now.subjects}
    faces = _Rows(now), _Rows(then)
    comparable = now.model_id == then.model_id
    found = []
    for subject in then.subjects:
        today = known.get(subject.subject_id)
        if today is None:
            gains = subject.access.state == SubjectState.ACTIVE
        else:
            gains = _grants_more(subject, today)
            if comparable and not gains and subject.access.state == SubjectState.ACTIVE:
                gains = not faces[1].of(subject.subject_id) <= faces[0].of(subject.subject_id)
        if gains:
            found.append(subject.subject_id)
    return found


def _grants_more(then: Subject, now: Subject) -> bool:
    """Return whether the rights of then may let somebody pass where or when those of now do not."""
    old, new = then.access, now.access
    if old.state != SubjectState.ACTIVE:
        return False
    if new.state != SubjectState.ACTIVE or not set(then.groups) <= set(now.groups):
        return True
    if new.not_before is not None and (old.not_before is None or old.not_before < new.not_before):
        return True
    if new.not_after is not None and (old.not_after is None or old.not_after > new.not_after):
        return True
    if not new.windows:
        return False
    return not old.windows or old.time_zone != new.time_zone or not set(old.windows) <= set(new.windows)


class _Rows:
    """The rows of a gallery's subjects, as hashes."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        starts = gallery.starts
        self._where = {
            subject.subject_id: (int(start), count)
            for subject, start, count in zip(gallery.subjects, starts, gallery.counts, strict=True)
        }

    def bytes_of(self, subject_id: str) -> bytes:
        start, count = self._where[subject_id]
        return self._gallery.matrix[start : start + count].tobytes()

    def of(self, subject_id: str) -> set[str]:
        start, count = self._where[subject_id]
        rows = self._gallery.matrix[start : start + count]
        return {hashlib.sha256(row.tobytes()).hexdigest()[:HASH_CHARS] for row in rows}


def _changes(before: Gallery, after: Gallery, version: int, known: Collection[str]) -> Iterable[Record]:
    """Yield the rights of whoever has others in `after`, or other rows; those of new subjects if `known`."""
    left = {subject.subject_id: subject for subject in before.subjects}
    old, new = _Rows(before), _Rows(after)
    comparable = before.model_id == after.model_id
    for subject in after.subjects:
        subject_id = subject.subject_id
        was = left.pop(subject_id, None)
        if was is None:
            changed = bool(known) and subject_hash(subject_id) in known
        else:
            changed = (was.access, was.groups) != (subject.access, subject.groups)
            changed = changed or (comparable and old.bytes_of(subject_id) != new.bytes_of(subject_id))
        if changed:
            rows = tuple(sorted(new.of(subject_id))) if comparable else None
            yield version, subject_hash(subject_id), _Rights.of(subject), rows
    for subject_id in left:
        yield version, subject_hash(subject_id), None, None


def _changed(gallery: Gallery, how: Callable[[Subject], Subject | None]) -> Gallery:
    """Return a gallery with other rights; None: without that subject."""
    subjects = {subject.subject_id: how(subject) for subject in gallery.subjects}
    gone = {subject_id for subject_id, subject in subjects.items() if subject is None}
    left = gallery.without_subjects(gone) if gone else gallery
    return replace(left, subjects=tuple(each for each in subjects.values() if each is not None))


def _suspended(subject: Subject) -> Subject:
    if subject.access.state != SubjectState.ACTIVE:
        return subject
    return replace(subject, access=replace(subject.access, state=SubjectState.SUSPENDED))


def _until(version: int, newest: int | None) -> bool:
    return newest is None or version <= newest
