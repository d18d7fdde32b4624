"""PushMemory: what a device remembers of pushes, in one file, and the settings that come of it.

The file is written whole before what it says counts: a power cut never leaves a push on trial in force.
"""

import logging
from collections.abc import Callable, Iterable

from pydantic import BaseModel, ConfigDict

from edge.core.errors import ConfigError, FileError
from edge.core.files import StateFile, StateKeeper
from edge.device.pushes.push import (
    DEVICE,
    FLEET,
    Floor,
    Identity,
    Patch,
    PushLayer,
    PushReport,
    acknowledged,
    merged,
)
from edge.device.settings.load import Settings

log = logging.getLogger(__name__)

MAX_MEMORY_BYTES = 1 << 20


class PushRecord(BaseModel):
    """What is remembered by layer: the newest push checked, the one kept, and the one on trial.

    `last` is what became of the last push that was checked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    floors: dict[str, Floor] = {}
    good: dict[str, PushLayer] = {}
    trial: dict[str, PushLayer] = {}
    last: PushReport | None = None

    def layers(self, groups: Iterable[str]) -> dict[str, PushLayer]:
        """Return the layers in force by name, the one on trial included, the strongest last."""
        found = self.good | self.trial
        order = (FLEET, *(f"group:{group}" for group in groups), DEVICE)
        return {name: found[name] for name in order if name in found}


def push_file(local: Settings) -> StateFile[PushRecord]:
    """Return the file in which a device remembers its pushes."""
    path = local.state_dir / "config" / "pushes.json"
    mend = "restore it, or remove it to accept any signed push once more"
    return StateFile(path, PushRecord, MAX_MEMORY_BYTES, ConfigError, mend)


def effective(local: Settings, read: Callable[[Patch], Settings]) -> Settings:
    """Return the local settings with the pushes over them that were kept.

    `read` reads edge.toml with a patch on top. Where the pushes do not fit the file, it stands alone.

    Raises:
        ConfigError: The memory of pushes is damaged.
    """
    return with_pushes(local, read)[0]


def with_pushes(local: Settings, read: Callable[[Patch], Settings]) -> tuple[Settings, Patch]:
    """Do `effective`, and return the patch that is over the local settings as well; empty where none is.

    Raises:
        ConfigError: The memory of pushes is damaged.
    """
    if not local.push.trusted_keys:
        return local, {}
    try:
        record = push_file(local).read() or PushRecord()
    except FileError as error:
        log.warning("pushes cannot be read, edge.toml stands alone: %s", error)
        return local, {}
    patch = merged(record.model_copy(update={"trial": {}}).layers(local.push.groups).values())
    try:
        return (read(patch), patch) if patch else (local, {})
    except ConfigError as error:
        log.error("pushes do not fit edge.toml, which stands alone: %s", error)
        return local, {}


class PushMemory:
    """One device's disk, as its pushes know it: edge.toml, which `read` reads with a patch over it, a file.

    `local` is edge.toml as it was read last. `groups` are those that the device had when this was made: to
    others it does not listen. `report` is what became of the last push that was checked. `interrupted` is the
    layer and the version that were on trial when the daemon ended; they are not in force. `unread` says why
    the disk does not give the file: until it does, nothing is known, and edge.toml stands alone.

    Raises:
        ConfigError: edge.toml or the file is damaged, at construction.
    """

    def __init__(self, read: Callable[[Patch], Settings]) -> None:
        self._read = read
        self.local = read({})
        self.groups = self.local.push.groups
        without = "what was pushed before cannot be read, edge.toml stands alone"
        self._kept = StateKeeper(push_file(self.local), PushRecord(), without)
        self._written = True
        self.interrupted: tuple[str, int] | None = None
        self.report = self._remembered()

    @property
    def unread(self) -> str | None:
        """Why it is not known what was pushed before; None: it is."""
        return self._kept.unread

    @property
    def record(self) -> PushRecord:
        """What is remembered."""
        return self._kept.value

    @property
    def who(self) -> Identity:
        """Who this device is to pushes, and whom it trusts."""
        local = self.local
        return Identity(local.site, local.device, self.groups, local.push.trusted_keys)

    @property
    def versions(self) -> dict[str, int]:
        """The layers in force, by name; none where no key is trusted."""
        if not self.who.trusted:
            return {}
        return {name: layer.version for name, layer in (self.record.good | self.record.trial).items()}

    @property
    def version(self) -> int | None:
        """The version of the strongest layer in force, None without one."""
        layers = list(self.record.layers(self.groups).values()) if self.who.trusted else []
        return layers[-1].version if layers else None

    def settings(self) -> Settings:
        """Return edge.toml, read anew, with the pushes over it.

        Raises:
            ConfigError: They cannot be read, or do not go together.
        """
        self.read_again()
        self.local = self._read({})
        return self.settings_with(self.record) if self.who.trusted else self.local

    def settings_with(self, record: PushRecord) -> Settings:
        """Return edge.toml with what `record` puts over it.

        Raises:
            ConfigError: They cannot be read, or do not go together.
        """
        layers = record.layers(self.groups)
        return self._read(merged(layers.values())) if layers else self.local

    def read_again(self) -> bool:
        """Read what the disk did not give before, if anything; returns whether all is known now."""
        if self.unread is not None and self._kept.read_again():
            self.report = self._remembered()
        return self.unread is None

    def remember(self, record: PushRecord) -> None:
        """Write what is to be remembered from now on.

        Raises:
            FileError: It cannot be written, and is not remembered.
        """
        self._kept.write(record)
        self._remembers(record, written=True)

    def settle(self, record: PushRecord) -> None:
        """Remember the end of a push, also where the disk does not take it yet (`write_again`)."""
        try:
            self.remember(record)
        except FileError as error:
            self._kept.value = record
            self._remembers(record, written=False)
            log.error("what became of a push is not written down yet: %s", error)

    def write_again(self) -> None:
        """Write down what the disk refused before, if anything.

        Raises:
            FileError: It still refuses.
        """
        if not self._written:
            self.remember(self.record)

    def _remembers(self, record: PushRecord, *, written: bool) -> None:
        self.report = record.last or PushReport()
        self._written, self.interrupted = written, None

    def _remembered(self) -> PushReport:
        """Return what became of the last push before the daemon started; that applied what needed it."""
        record = self._kept.value
        if record.trial:
            layer, tried = next(iter(record.trial.items()))
            self.interrupted = layer, tried.version
            self._kept.value = record.model_copy(update={"trial": {}})
        last = record.last or PushReport(status="applied" if record.good else "none")
        layers = self.record.layers(self.groups)
        if last.status != "applied" or last.layer not in layers:
            return last
        return last.model_copy(update={"keys": acknowledged(last.layer, layers, restarted=True)})
