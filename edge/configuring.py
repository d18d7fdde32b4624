"""ConfigDesk: takes configuration pushes, has them tried, and keeps them or goes back to the last good.

What is believed is `twin`'s business; settings are applied, and the door watched, by `pushing`. What is
remembered lies in one file, written whole before it counts: a power cut never leaves a tried configuration.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from edge import safefile
from edge.config import Settings
from edge.errors import ConfigError, EdgeError, FileError, PushError
from edge.metrics import Metrics
from edge.twin import (
    Floor,
    Identity,
    Layer,
    Memory,
    Patch,
    acknowledged,
    believed,
    effective_hash,
    identity,
    merged,
    refusals,
)

log = logging.getLogger(__name__)

MAX_MEMORY_BYTES = 1 << 20
Status = Literal["none", "applied", "rejected", "rolled_back", "pending"]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the last push; `version` is None where it could not be believed."""

    status: Status = "none"
    layer: str | None = None
    version: int | None = None
    keys: Mapping[str, str] | None = None
    error: str | None = None


def memory_path(settings: Settings) -> Path:
    """Return where a device remembers its pushes."""
    return settings.state_dir / "config" / "pushes.json"


def load_memory(path: Path) -> Memory:
    """Return what is remembered; nothing where nothing was pushed.

    Raises:
        ConfigError: The file is damaged. It is not taken for "nothing seen", which would let old pushes in.
    """
    data = safefile.read_bounded(path, MAX_MEMORY_BYTES)
    if data is None:
        return Memory()
    try:
        return Memory.model_validate_json(data)
    except ValidationError:
        raise ConfigError(
            f"{path}: damaged; restore it, or remove it to accept any signed push once more"
        ) from None


def effective(local: Settings, read: Callable[[Patch], Settings]) -> Settings:
    """Return the local settings with the good pushes over them.

    `read` reads edge.toml with a patch on top. Where the pushes do not fit the file, it stands alone.

    Raises:
        ConfigError: The memory of pushes is damaged.
    """
    if not local.push.trusted_keys:
        return local
    try:
        memory = load_memory(memory_path(local))
        layers = memory.model_copy(update={"trial": {}}).layers(local.push.groups)
        return read(merged(layers)) if layers else local
    except FileError as error:
        log.warning("pushed configuration cannot be read, edge.toml stands alone: %s", error)
    except ConfigError as error:
        if memory_path(local).name in str(error):
            raise
        log.error("pushed configuration does not fit edge.toml, which stands alone: %s", error)
    return local


class ConfigDesk:
    """One device's pushes. `read_local` reads edge.toml with a patch on top. Used by the main thread."""

    def __init__(self, read: Callable[[Patch], Settings], metrics: Metrics) -> None:
        self._read = read
        self._metrics = metrics
        self._local = read({})
        self._path = memory_path(self._local)
        self._memory = Memory()
        self._waiting: dict[str, bytes] = {}
        self._written = True
        self._unread = self._read_memory()
        self.report = Report("applied" if self._memory.good else "none")

    def recover(self) -> None:
        """Take back what was being tried when the daemon ended; called by the only daemon of this device."""
        if self.trying:
            layer, tried = self._forget_trial()
            why = "the daemon was restarted while it was tried"
            self.report = Report("rolled_back", layer, tried.version, {}, why)
            log.error("pushed configuration rolled back: %s", why)

    @property
    def trying(self) -> bool:
        """Whether a push is in force that has not proved itself."""
        return bool(self._memory.trial)

    @property
    def versions(self) -> dict[str, int]:
        """The layers in force, by name; none where no key is trusted."""
        if not self._who.trusted:
            return {}
        return {name: layer.version for name, layer in (self._memory.good | self._memory.trial).items()}

    @property
    def version(self) -> int | None:
        """The version of the strongest layer in force, None without one."""
        layers = self._memory.layers(self._who.groups) if self._who.trusted else []
        return layers[-1].version if layers else None

    def settings(self) -> Settings:
        """Return edge.toml, read anew, with the pushes over it.

        Raises:
            ConfigError: They cannot be read, or do not go together.
        """
        self._local = self._read({})
        layers = self._memory.layers(self._local.push.groups) if self._local.push.trusted_keys else []
        return self._read(merged(layers)) if layers else self._local

    def take(self, layer: str, data: bytes) -> Settings | None:
        """Return the settings that a push asks for, to be applied; None: nothing is to be done, see `report`.

        While one is being tried, the next of each layer waits (`resume`).
        """
        if self.trying:
            self._waiting[layer] = data
            return None
        if self._unread is not None:
            self._unread = self._read_memory()
            self.recover()
        version = None
        keys: Mapping[str, str] = {}
        try:
            if self._unread is not None:
                raise PushError(f"what was pushed before is not known: {self._unread}")
            found = believed(data, layer, self._who, self._memory)
            if found is None:
                return None
            desired, floor = found
            version = floor.version
            self._remember(floors=self._memory.floors | {layer: floor})
            keys = refusals(desired.patch, self._local)
            if keys:
                raise PushError(f"{len(keys)} of its keys cannot be pushed: {', '.join(sorted(keys))[:200]}")
            tried = {layer: Layer(version=version, patch=desired.patch)}
            layers = self._memory.model_copy(update={"trial": tried}).layers(self._who.groups)
            settings = self._read(merged(layers))
            self._remember(trial=tried)
        except EdgeError as error:
            self._refused(layer, version, keys, str(error))
            return None
        self.report = Report("pending", layer, version, acknowledged(desired.patch))
        return settings

    def keep(self) -> None:
        """Make what is tried good: the door works under it.

        Raises:
            FileError: It cannot be written down; it is tried on.
        """
        layer, tried = next(iter(self._memory.trial.items()))
        self._remember(good=self._memory.good | {layer: tried}, trial={})
        self.report = Report("applied", layer, tried.version, acknowledged(tried.patch))
        self._metrics.count("config.applied")
        log.info("pushed configuration kept", extra={"layer": layer, "version": tried.version})

    def drop(self, why: str, *, rejected: bool = False) -> None:
        """Forget what is tried; `settings` are the last good ones again. `rejected`: it never was in force.

        A disk that refuses changes nothing: after a restart what was tried is taken back, too.
        """
        layer, tried = self._forget_trial()
        if rejected:
            self._refused(layer, tried.version, {}, why)
        else:
            self.report = Report("rolled_back", layer, tried.version, {}, why)
            self._metrics.count("config.rolled_back")
            log.error("pushed configuration rolled back: %s", why)

    def write(self) -> None:
        """Write down what the disk refused before, if anything.

        Raises:
            FileError: It still refuses.
        """
        if not self._written:
            self._remember()

    def resume(self) -> list[tuple[str, bytes]]:
        """Return the pushes that have waited for the end of a trial."""
        waiting, self._waiting = self._waiting, {}
        return list(waiting.items())

    def told(self, settings: Settings) -> dict[str, Any]:
        """Return what is published about it, with the settings in force."""
        report = self.report
        return {
            "status": report.status,
            "layer": report.layer,
            "version": report.version,
            "keys": dict(report.keys or {}),
            "error": report.error,
            "versions": self.versions,
            "effective": effective_hash(settings),
        }

    @property
    def _who(self) -> Identity:
        return identity(self._local)

    def _read_memory(self) -> str | None:
        """Read what is remembered; returns why the disk does not give it: nothing is believed until it does.

        Raises:
            ConfigError: It is damaged.
        """
        try:
            self._memory = load_memory(self._path)
        except FileError as error:
            log.error("pushed configuration cannot be read, edge.toml stands alone: %s", error)
            return str(error)
        return None

    def _forget_trial(self) -> tuple[str, Layer]:
        """End the trial, also where that cannot be written down yet; returns the layer and what was tried."""
        found = next(iter(self._memory.trial.items()))
        try:
            self._remember(trial={})
        except FileError as error:
            self._memory = self._memory.model_copy(update={"trial": {}})
            self._written = False
            log.error("the end of a trial is not written down yet: %s", error)
        return found

    def _refused(self, layer: str, version: int | None, keys: Mapping[str, str], why: str) -> None:
        report = Report("rejected", layer, version, keys, why)
        self._metrics.count("config.refused")
        level = logging.DEBUG if report == self.report else logging.ERROR  # a flood of them is one line
        log.log(level, "pushed configuration refused, the last good one stays: %s", why)
        self.report = report

    def _remember(
        self,
        *,
        floors: dict[str, Floor] | None = None,
        good: dict[str, Layer] | None = None,
        trial: dict[str, Layer] | None = None,
    ) -> None:
        changes = {"floors": floors, "good": good, "trial": trial}
        memory = self._memory.model_copy(update={k: v for k, v in changes.items() if v is not None})
        try:
            self._path.parent.mkdir(safefile.PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{self._path.parent}: cannot be made: {error.strerror}") from None
        safefile.write_whole(self._path, memory.model_dump_json().encode())
        self._memory, self._written = memory, True
