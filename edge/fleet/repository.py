"""The published directory: signed metadata of The Update Framework and the files that it vouches for.

    metadata/<n>.root.json, <n>.targets.json, <n>.<role>.json, <n>.snapshot.json, timestamp.json
    targets/<path>/<sha256>.<name>

Knows no gallery (`galleries`). A change is signed whole before anything of it is written (`statements`); new
files come beside the old ones and become visible with the timestamp, which is written last.
Source: the specification of The Update Framework, 1.0, chapters 4 and 6.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
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

from edge.core import files
from edge.core.errors import FleetError, SignatureError
from edge.fleet.keys import KeyRing
from edge.fleet.statements import Statements, target_file

TOP = ("root", "targets", "snapshot", "timestamp")
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
        self._directory = directory
        self._said = Statements(directory)
        self._keys = keys
        self._days = days
        self._now = now

    def create(self, plans: Mapping[str, RolePlan]) -> None:
        """Make an empty repository: keys of the top roles, and the first version of each.

        Raises:
            FleetError: There is one, or it cannot be written.
        """
        if self._said.exists("root"):
            raise FleetError(f"{self._directory}: something is published there already; remove it")
        root = Root(consistent_snapshot=True)
        for role in TOP:
            for _ in range(plans[role].keys):
                root.add_key(self._keys.create(role), role)
            root.roles[role].threshold = plans[role].threshold
        with self._said.change():
            self._draft("root", Metadata(root), root)
            self._draft("targets", Metadata(Targets(delegations=Delegations({}, {}))), root)
            self._announce(("targets",), first=True)

    def root(self) -> Metadata[Root]:
        """Return the newest root."""
        return cast(Metadata[Root], self._said.load("root"))

    def role(self, name: str) -> Metadata[Targets]:
        """Return the newest version of `targets` or of a delegated role."""
        return cast(Metadata[Targets], self._said.load(name))

    def signed(self, name: str) -> Signed:
        """Return the newest signed part of any role."""
        return cast(Signed, self._said.load(name).signed)

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
        with self._said.change():
            self._draft("targets", metadata)
            self._draft(name, Metadata(Targets()))
            self._announce(("targets", name))

    def publish(
        self,
        role: str,
        targets: Mapping[str, tuple[bytes, dict[str, Any]]],
        gone: Iterable[str],
        *,
        forget: bool = False,
    ) -> None:
        """Publish files (path: content, custom) under a role and withdraw others; all at once.

        The files of the version before stay until the next one: a device that is just fetching finishes. With
        `forget` they are deleted as well.

        Raises:
            FleetError: Keys are missing, or it cannot be written, and nothing has changed; or it is
                published, and a file of before cannot be deleted.
        """
        metadata = self.role(role)
        for path in gone:
            metadata.signed.targets.pop(path, None)
        with self._said.change(forgotten=(role,) if forget else ()):
            for path, (data, custom) in targets.items():
                info = TargetFile.from_data(path, data, [HASH])
                info.unrecognized_fields["custom"] = custom
                metadata.signed.targets[path] = info
                self._said.add(info, data)
            self._draft(role, metadata)
            self._announce((role,))

    def forget(self, roles: Collection[str]) -> None:
        """Delete the files of these roles' versions before, and all that is published no more; needs no key.

        Raises:
            FleetError: One cannot be deleted; all others are.
        """
        self._said.sweep(roles)

    def read(self, role: str, path: str) -> tuple[bytes, dict[str, Any]] | None:
        """Return a published file and what is said of it, None where there is none.

        Raises:
            FleetError: It is not what was published.
        """
        info = self.role(role).signed.targets.get(path)
        if info is None:
            return None
        file = self._directory / target_file(info)
        data = files.read_bounded(file, MAX_TARGET_BYTES)
        if data is None:
            raise FleetError(f"{file}: it is missing; restore the published directory from a backup")
        try:
            info.verify_length_and_hashes(data)
        except RepositoryError:
            raise FleetError(f"{file}: altered; restore the published directory from a backup") from None
        return data, info.custom

    def rotate(self, role: str) -> str:
        """Replace the oldest key of a role by a new one; returns the id of the old one.

        A root is signed by the old keys and the new ones.

        Raises:
            FleetError: Keys that must sign the change are missing, or it cannot be written.
        """
        parent = self.root() if role in TOP else self.role("targets")
        old = parent.signed.get_delegated_role(role).keyids[0]
        before = self.root().signed
        parent.signed.add_key(self._keys.create(role), role)
        parent.signed.revoke_key(old, role)
        with self._said.change():
            if role in TOP:
                self._draft("root", parent, before, parent.signed)
                if role == "targets":
                    self._draft("targets", self.role("targets"))
                self._announce(("targets",))
            else:
                self._draft("targets", parent)
                self._draft(role, self.role(role))
                self._announce(("targets", role))
        return old

    def renew(self) -> list[str]:
        """Sign again, for their full time, the roles that have used up half of it and whose keys are here.

        Raises:
            FleetError: The online keys are missing, or it cannot be written.
        """
        due = [role for role in ("root", "targets", *self.delegated()) if self._is_due(role)]
        renewed = []
        with self._said.change():
            for role in due:
                try:
                    self._draft(role, self._said.load(role))
                except SignatureError:
                    continue  # an offline key that is not here: `status` tells how long it still has
                renewed.append(role)
            self._announce(tuple(role for role in renewed if role != "root"))
        return [*renewed, "snapshot", "timestamp"]

    def _is_due(self, role: str) -> bool:
        return self.signed(role).expires - self._now() < timedelta(days=self._days(role)) / 2

    def _announce(self, roles: Iterable[str], *, first: bool = False) -> None:
        """Tell of new versions of these roles: snapshot, then timestamp."""
        snapshot = Metadata(Snapshot()) if first else cast(Metadata[Snapshot], self._said.load("snapshot"))
        for role in roles:
            data, version = self._said.data(role), self._said.load(role).signed.version
            snapshot.signed.meta[f"{role}.json"] = MetaFile.from_data(version, data, [HASH])
        self._draft("snapshot", snapshot)
        timestamp = (
            Metadata(Timestamp()) if first else cast(Metadata[Timestamp], self._said.load("timestamp"))
        )
        timestamp.signed.snapshot_meta = MetaFile.from_data(
            snapshot.signed.version, self._said.data("snapshot"), [HASH]
        )
        self._draft("timestamp", timestamp)

    def _draft(self, role: str, metadata: Metadata[Any], *delegators: Root | Targets) -> None:
        """Make the next version of a role: number, expiry, signatures of everybody who must agree."""
        signed = metadata.signed
        if self._said.exists(role):
            signed.version += 1
        signed.expires = self._now() + timedelta(days=self._days(role))
        metadata.signatures.clear()
        for delegator in delegators or (self._delegator(role),):
            self._sign(role, metadata, delegator)
        self._said.draft(role, signed.version, metadata.to_bytes())

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
