"""The published directory: signed metadata of The Update Framework and the files that it vouches for.

    metadata/<n>.root.json, <n>.targets.json, <n>.<role>.json, <n>.snapshot.json, timestamp.json
    targets/<path>/<sha256>.<name>

Knows no gallery (`authoring`). New files are written beside the old ones and become visible with the
timestamp, which is written last. Source: the specification of The Update Framework, 1.0, chapters 4 and 6.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge import safefile
from edge.errors import FleetError, SignatureError
from edge.fleet.keyring import KeyRing

TOP = ("root", "targets", "snapshot", "timestamp")
MAX_METADATA_BYTES = 8 << 20
MAX_TARGET_BYTES = (1 << 30) + (1 << 20)
"""A bundle of the largest size allowed, sealed."""

HASH = "sha256"


@dataclass(frozen=True, slots=True)
class RolePlan:
    """How a role signs: with `keys` keys, `threshold` of which must agree, for `days` days at a time."""

    keys: int
    threshold: int
    days: int


class Repository:
    """The published directory, changed by who has the keys; `days`: how long a role's signature lasts."""

    def __init__(
        self, directory: Path, keys: KeyRing, days: Callable[[str], int], now: Callable[[], datetime]
    ) -> None:
        self._metadata = directory / "metadata"
        self._targets = directory / "targets"
        self._keys = keys
        self._days = days
        self._now = now

    def create(self, plans: Mapping[str, RolePlan]) -> None:
        """Make an empty repository: keys of the top roles, and the first version of each.

        Raises:
            FleetError: It cannot be written.
        """
        try:
            for folder in (self._metadata, self._targets):
                folder.mkdir(parents=True)
        except OSError as error:
            raise FleetError(f"{self._metadata}: cannot be made: {error.strerror}") from None
        root = Root(consistent_snapshot=True)
        for role in TOP:
            for _ in range(plans[role].keys):
                root.add_key(self._keys.create(role), role)
            root.roles[role].threshold = plans[role].threshold
        self._write("root", Metadata(root), root)
        targets = Targets(delegations=Delegations({}, {}))
        self._write("targets", Metadata(targets), root)
        self._announce(("targets",), first=True)

    def root(self) -> Metadata[Root]:
        """Return the newest root."""
        return cast(Metadata[Root], self._load("root"))

    def role(self, name: str) -> Metadata[Targets]:
        """Return the newest version of `targets` or of a delegated role."""
        return cast(Metadata[Targets], self._load(name))

    def signed(self, name: str) -> Signed:
        """Return the newest signed part of any role."""
        return cast(Signed, self._load(name).signed)

    def delegated(self) -> dict[str, DelegatedRole]:
        """Return the delegated roles by name, in their order."""
        delegations = self.role("targets").signed.delegations
        return dict(delegations.roles or {}) if delegations else {}

    def delegate(self, name: str, paths: list[str], plan: RolePlan) -> None:
        """Let a new role, and no role after it, sign targets of these paths.

        Raises:
            FleetError: Keys of `targets` are missing, or it cannot be written.
        """
        metadata = self.role("targets")
        assert metadata.signed.delegations is not None
        assert metadata.signed.delegations.roles is not None
        role = DelegatedRole(name, [], plan.threshold, terminating=True, paths=paths)
        metadata.signed.delegations.roles[name] = role
        for _ in range(plan.keys):
            metadata.signed.add_key(self._keys.create(name), name)
        self._write("targets", metadata)
        self._write(name, Metadata(Targets()))
        self._announce(("targets", name))

    def publish(
        self, role: str, targets: Mapping[str, tuple[bytes, dict[str, Any]]], gone: Iterable[str]
    ) -> None:
        """Publish files (path: content, custom) under a role and withdraw others; all at once.

        What the version before the last one published is deleted: a device that is just fetching finishes.

        Raises:
            FleetError: Keys are missing, or it cannot be written.
        """
        metadata = self.role(role)
        before = dict(metadata.signed.targets)
        for path in gone:
            metadata.signed.targets.pop(path, None)
        for path, (data, custom) in targets.items():
            info = TargetFile.from_data(path, data, [HASH])
            info.unrecognized_fields["custom"] = custom
            metadata.signed.targets[path] = info
            file = self._targets / info.get_prefixed_paths()[0]
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FleetError(f"{file.parent}: cannot be made: {error.strerror}") from None
            safefile.write_whole(file, data, safefile.PUBLIC)
        self._write(role, metadata)
        self._announce((role,))
        self._sweep(
            [*before.values(), *metadata.signed.targets.values()], {*before, *metadata.signed.targets}
        )

    def read(self, role: str, path: str) -> tuple[bytes, dict[str, Any]] | None:
        """Return a published file and what is said of it, None where there is none.

        Raises:
            FleetError: It is not what was published.
        """
        info = self.role(role).signed.targets.get(path)
        if info is None:
            return None
        file = self._targets / info.get_prefixed_paths()[0]
        data = safefile.read_bounded(file, MAX_TARGET_BYTES)
        if data is None:
            raise FleetError(f"{file}: it is missing; restore the published directory from a backup")
        try:
            info.verify_length_and_hashes(data)
        except RepositoryError:
            raise FleetError(f"{file}: altered; restore the published directory from a backup") from None
        return data, info.custom

    def rotate(self, role: str) -> None:
        """Replace the oldest key of a role by a new one; a root is signed by the old keys and the new ones.

        Raises:
            FleetError: Keys that must sign the change are missing, or it cannot be written.
        """
        if role in TOP:
            metadata = self.root()
            old = self.root().signed
            metadata.signed.add_key(self._keys.create(role), role)
            metadata.signed.revoke_key(metadata.signed.roles[role].keyids[0], role)
            self._write("root", metadata, old, metadata.signed)
            if role == "targets":
                self._write("targets", self.role("targets"))
        else:
            parent = self.role("targets")
            delegated = parent.signed.get_delegated_role(role)
            parent.signed.add_key(self._keys.create(role), role)
            parent.signed.revoke_key(delegated.keyids[0], role)
            self._write("targets", parent)
            self._write(role, self.role(role))
        self._announce(("targets",) if role in TOP else ("targets", role))

    def renew(self) -> list[str]:
        """Sign again, for their full time, the roles that have used up half of it and whose keys are here.

        Raises:
            FleetError: The online keys are missing, or it cannot be written.
        """
        due = [role for role in ("root", "targets", *self.delegated()) if self._is_due(role)]
        renewed = []
        for role in due:
            try:
                self._write(role, self._load(role))
            except SignatureError:
                continue  # an offline key that is not here: `status` tells how long it still has
            renewed.append(role)
        self._announce(tuple(role for role in renewed if role != "root"))
        return [*renewed, "snapshot", "timestamp"]

    def _is_due(self, role: str) -> bool:
        return self.signed(role).expires - self._now() < timedelta(days=self._days(role)) / 2

    def _announce(self, roles: Iterable[str], *, first: bool = False) -> None:
        """Tell of new versions of these roles: snapshot, then timestamp."""
        snapshot = Metadata(Snapshot()) if first else cast(Metadata[Snapshot], self._load("snapshot"))
        for role in roles:
            data, version = self._bytes(role), self._load(role).signed.version
            snapshot.signed.meta[f"{role}.json"] = MetaFile.from_data(version, data, [HASH])
        self._write("snapshot", snapshot)
        timestamp = Metadata(Timestamp()) if first else cast(Metadata[Timestamp], self._load("timestamp"))
        timestamp.signed.snapshot_meta = MetaFile.from_data(
            snapshot.signed.version, self._bytes("snapshot"), [HASH]
        )
        self._write("timestamp", timestamp)

    def _write(self, role: str, metadata: Metadata[Any], *delegators: Root) -> None:
        """Make the next version of a role: number, expiry, signatures of everybody who must agree."""
        signed = metadata.signed
        if self._path(role) is not None:
            signed.version += 1
        signed.expires = self._now() + timedelta(days=self._days(role))
        metadata.signatures.clear()
        for delegator in delegators or (self._delegator(role),):
            self._sign(role, metadata, delegator)
        name = "timestamp.json" if role == "timestamp" else f"{signed.version}.{role}.json"
        safefile.write_whole(self._metadata / name, metadata.to_bytes(), safefile.PUBLIC)

    def _sign(self, role: str, metadata: Metadata[Any], delegator: Root | Targets) -> None:
        allowed = delegator.get_delegated_role(role)
        made = 0
        for keyid in allowed.keyids:
            if (signer := self._keys.signer(role, delegator.get_key(keyid))) is not None:
                metadata.sign(signer, append=True)
                made += 1
        if made < allowed.threshold:
            raise SignatureError(
                f"{role}: {made} of its keys are in {self._keys.directory}, {allowed.threshold} must sign; "
                "bring the others"
            )

    def _delegator(self, role: str) -> Root | Targets:
        return self.root().signed if role in TOP else self.role("targets").signed

    def _path(self, role: str) -> Path | None:
        if role == "timestamp":
            path = self._metadata / "timestamp.json"
            return path if path.exists() else None
        versions = {
            int(path.name.split(".")[0]): path
            for path in self._metadata.glob(f"*.{role}.json")
            if path.name.split(".")[0].isdecimal()
        }
        return versions[max(versions)] if versions else None

    def _bytes(self, role: str) -> bytes:
        path = self._path(role)
        data = safefile.read_bounded(path, MAX_METADATA_BYTES) if path else None
        if data is None:
            raise FleetError(f"{self._metadata}: there is no {role} role; see `edge fleet status`")
        return data

    def _load(self, role: str) -> Metadata[Any]:
        try:
            return Metadata.from_bytes(self._bytes(role))
        except RepositoryError as error:
            raise FleetError(f"{self._metadata}: {role} is damaged: {error}") from None

    def _sweep(self, kept: Iterable[TargetFile], paths: Iterable[str]) -> None:
        """Delete the older files of these paths."""
        names = {info.get_prefixed_paths()[0] for info in kept}
        for path in paths:
            folder, _, name = path.rpartition("/")
            for file in (self._targets / folder).glob(f"*.{name}"):
                if file.relative_to(self._targets).as_posix() not in names:
                    file.unlink(missing_ok=True)
