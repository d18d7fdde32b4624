"""What a device remembers of the galleries it has seen, so that nobody can give it older ones.

The Update Framework keeps such a memory as well, but as a cache: it does not survive its deletion, and is not
forced to the disk. This file is. It also remembers the latest time at which something trusted was seen.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field

from edge.core.errors import ClockError, EdgeError, GalleryError, RollbackError
from edge.core.files import StateFile

BUILT_AT = datetime(2026, 6, 1, tzinfo=UTC)
"""No clock of a device that runs this software is right before this; to be raised with a release."""

CLOCK_SLACK = timedelta(minutes=5)
"""How far a clock may be set back without a word: corrections by NTP after a start without a network."""

FILE_NAME = "floors.json"
MAX_BYTES = 16 * 1024


class Floors(BaseModel):
    """What one device has seen of one scope.

    `seen_*`: the newest gallery that was whole and ours. `installed_*`: the last one that was installed, by
    its published version and by its number in the device's own store. `candidate_*`: the candidate as it was
    published, its version, and its number in its own store (the last release wrote `beside_*`). `keys`: by
    role, the ids of the keys that were trusted for it. `rights_*`: where a gallery could not be used, from
    which files its rights were followed, and which number the device's own gallery had after it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    scope: str
    trusted_at: AwareDatetime | None = None
    metadata: dict[str, int] = Field(default_factory=dict, max_length=8)
    seen_version: int = Field(0, ge=0, lt=2**63)
    seen_sha256: str = ""
    installed_version: int = Field(0, ge=0, lt=2**63)
    installed_as: int = Field(0, ge=0, lt=2**63)
    candidate_sha256: str = Field("", validation_alias=AliasChoices("candidate_sha256", "beside_sha256"))
    candidate_version: int = Field(
        0, ge=0, lt=2**63, validation_alias=AliasChoices("candidate_version", "beside_version")
    )
    candidate_as: int = Field(0, ge=0, lt=2**63, validation_alias=AliasChoices("candidate_as", "beside_as"))
    rights_sha256: str = ""
    rights_as: int = Field(0, ge=0, lt=2**63)
    keys: dict[str, tuple[str, ...]] = Field(default_factory=dict, max_length=8)

    def check_clock(self, now: datetime, built_at: datetime) -> None:
        """Refuse a clock that is behind the last time that was trusted, or this software's making.

        Raises:
            ClockError: Expired metadata would look fresh by it.
        """
        floor = max(built_at, self.trusted_at or built_at)
        if now < floor - CLOCK_SLACK:
            raise ClockError(
                f"the clock says {now:%Y-%m-%d %H:%M} UTC, but it was {floor:%Y-%m-%d %H:%M} before; "
                "set the clock"
            )

    def check_metadata(self, versions: dict[str, int], keys: dict[str, tuple[str, ...]]) -> None:
        """Refuse metadata (role: version) older than what was seen; `keys`: who may sign them by now.

        Where a newer root replaced a role's keys, its count starts anew: whoever stole the old ones may have
        raised it beyond all bounds, and the root is how the operator takes the keys away.

        Raises:
            RollbackError: One of them is.
        """
        newer_root = versions["root"] > self.metadata.get("root", 0)
        for role, version in versions.items():
            known = self.keys.get(role)
            anew = newer_root and (known is None or known != keys.get(role))
            if version < self.metadata.get(role, 0) and not anew:
                raise RollbackError(
                    f"the {role} offered is version {version}, version {self.metadata[role]} was seen "
                    "before; somebody serves an old state"
                )

    def with_keys(self, keys: dict[str, tuple[str, ...]], scope_role: str) -> "Floors":
        """Return the same, with these keys trusted; with other keys of the scope nothing was seen yet.

        Only the offline keys of `targets` say who signs for a scope. Who stole the scope's key and counted up
        its galleries loses the count with the key. What serves stays until a gallery replaces it.
        """
        update: dict[str, object] = {"keys": {**self.keys, **keys}}
        known, now = self.keys.get(scope_role), keys.get(scope_role)
        if known is not None and now is not None and known != now:
            update |= {"seen_version": 0, "seen_sha256": ""}
        return self.model_copy(update=update)

    def check_gallery(self, version: int, sha256: str) -> None:
        """Refuse a gallery older than what was seen, or another one of the same version.

        Raises:
            RollbackError: It is.
        """
        if version < self.seen_version:
            raise RollbackError(
                f"gallery version {version} is offered, version {self.seen_version} was seen before; "
                "publish a higher one"
            )
        if version == self.seen_version and sha256 != self.seen_sha256:
            raise RollbackError(
                f"another gallery is offered as version {version} than before; publish a higher one"
            )


def trusted_at(path: Path) -> datetime | None:
    """Return the latest time at which a synchronisation found something trusted, of whatever scope.

    None where there was none, or it cannot be read: a synchronisation says so.
    """
    try:
        floors = _file(path).read()
    except EdgeError:
        return None
    return None if floors is None else floors.trusted_at


def published_version(path: Path, scope: str, gallery_version: int) -> int | None:
    """Return the published version of what is version `gallery_version` of the device's own store.

    None where that was not installed by a synchronisation, or nothing is known of it.
    """
    try:
        floors = load_floors(path, scope)
    except EdgeError:
        return None
    fits = floors.installed_version and floors.installed_as == gallery_version
    return floors.installed_version if fits else None


def candidate_version(path: Path, scope: str, gallery_version: int) -> int | None:
    """Return the same of the candidate."""
    try:
        floors = load_floors(path, scope)
    except EdgeError:
        return None
    fits = floors.candidate_version and floors.candidate_as == gallery_version
    return floors.candidate_version if fits else None


def load_floors(path: Path, scope: str) -> Floors:
    """Return what is remembered; nothing on a device that never synchronised.

    Raises:
        GalleryError: The file is damaged or of another scope. It is not taken for "nothing seen": that would
            open the door to every old gallery.
        FileError: It cannot be read.
    """
    floors = _file(path).read() or Floors(scope=scope)
    if floors.scope != scope:
        raise GalleryError(
            f"{path}: belongs to scope {floors.scope[:32]!r}, not {scope!r}; set sync.scope back, or "
            "remove the file if this device has moved to another door"
        )
    return floors


def save_floors(path: Path, floors: Floors) -> None:
    """Write what is remembered, whole and forced to the disk.

    Raises:
        FileError: It cannot be written.
    """
    _file(path).write(floors)


def _file(path: Path) -> StateFile[Floors]:
    mend = "restore it, or remove it to accept any signed gallery once more"
    return StateFile(path, Floors, MAX_BYTES, GalleryError, mend)
