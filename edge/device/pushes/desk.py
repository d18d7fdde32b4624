"""ConfigDesk: takes configuration pushes, has them tried, and keeps them or goes back to the last good.

What is believed is `twin`'s business; settings are applied, and the door watched, by `pushing`. What is
remembered lies in one file, written whole before it counts: a power cut never leaves a tried configuration.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from edge.core.clock import Clock, SystemClock
from edge.core.errors import ConfigError, EdgeError, FileError, PushError, RefusedError
from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.device.pushes.memory import load_memory, memory_path, save_memory
from edge.device.pushes.push import (
    Floor,
    Identity,
    Memory,
    Patch,
    PushLayer,
    PushOutcome,
    Status,
    Unbelieved,
    acknowledged,
    believed,
    effective_hash,
    merged,
    refusals,
)
from edge.device.settings.load import Settings
from edge.mqtt.contract.encode import to_millisecond

log = logging.getLogger(__name__)

LINES_PER_S, LINES_AT_ONCE = 1.0, 3
"""What the log says of pushes that are not believed, which anybody may send; all of them are counted."""

INTERRUPTED = "the daemon was restarted while it was read; push it again with a higher version"


class ConfigDesk:
    """One device's pushes. `read` reads edge.toml with a patch on top. Used by the main thread.

    `report` is what became of the last push that was believed, `unbelieved` the last that was not. The groups
    of the device are those it had when this was made: to others it does not listen. `unread` says why the
    disk does not give what was pushed before: nothing is believed until it does, and edge.toml stands alone.

    Raises:
        ConfigError: What was pushed before is damaged, at construction.
    """

    def __init__(
        self, read: Callable[[Patch], Settings], metrics: Metrics, clock: Clock | None = None
    ) -> None:
        self._read = read
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._lines = TokenBucket(LINES_PER_S, LINES_AT_ONCE, self._clock.monotonic)
        self._local = read({})
        self._groups = self._local.push.groups
        self._path = memory_path(self._local)
        self._memory = Memory()
        self._waiting: dict[str, bytes] = {}
        self._written = True
        self.unread: str | None = None
        self._read_memory()
        self.unbelieved: Unbelieved | None = None
        self.report = self._remembered()

    def recover(self) -> None:
        """Take back what was being tried when the daemon ended; called by the only daemon of this device."""
        if self.trying:
            layer, tried = next(iter(self._memory.trial.items()))
            why = "the daemon was restarted while it was tried"
            report = PushOutcome(status="rolled_back", layer=layer, version=tried.version, error=why)
            self._settle(report, trial={})
            log.error("pushed configuration rolled back: %s", why)

    def read_again(self) -> bool:
        """Read what the disk did not give before, if anything; returns whether all is known now."""
        if self.unread is None:
            return True
        try:
            known = self._read_memory()
        except ConfigError as error:
            known = self._is_unread(error)
        if known:
            self.report = self._remembered()
            self.recover()
        return known

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
        layers = list(self._memory.layers(self._groups).values()) if self._who.trusted else []
        return layers[-1].version if layers else None

    @property
    def refused(self) -> int:
        """How many pushes were refused since the daemon started, for whatever reason."""
        return self._metrics.counts().get("config.refused", 0)

    def settings(self) -> Settings:
        """Return edge.toml, read anew, with the pushes over it.

        Raises:
            ConfigError: They cannot be read, or do not go together.
        """
        self.read_again()
        self._local = self._read({})
        layers = self._memory.layers(self._groups) if self._local.push.trusted_keys else {}
        return self._read(merged(layers.values())) if layers else self._local

    def take(self, layer: str, data: bytes) -> Settings | None:
        """Return the settings that a push asks for, to be applied; None: nothing is to be done, see `report`.

        While one is being tried, the next of each layer waits (`resume`).
        """
        try:
            if not self.read_again():
                raise PushError(f"what was pushed before is not known: {self.unread}", "memory")
            found = believed(data, layer, self._who, self._memory)
        except PushError as error:
            self._not_believed(layer, data, error)
            return None
        if found is None:
            return None
        if self.trying:
            if layer in self._waiting:
                self._count("superseded")
            self._waiting[layer] = data
            return None
        desired, floor = found
        keys: Mapping[str, str] = {}
        try:
            unread = PushOutcome(status="rejected", layer=layer, version=floor.version, error=INTERRUPTED)
            self._remember(unread, floors=self._memory.floors | {layer: floor})
            keys = refusals(desired.patch, self._local)
            if keys:
                names = ", ".join(sorted(keys))[:200]
                raise PushError(f"{len(keys)} of its keys cannot be pushed: {names}", "keys")
            tried = {layer: PushLayer(version=floor.version, patch=desired.patch)}
            memory = self._memory.model_copy(update={"trial": tried})
            settings = self._read(merged(memory.layers(self._groups).values()))
            self._remember(self._came_of(layer, memory, "pending"), trial=tried)
        except EdgeError as error:
            self._rejected(layer, floor.version, keys, error)
            return None
        return settings

    def keep(self) -> None:
        """Make what is tried good: the door works under it.

        Raises:
            FileError: It cannot be written down; it is tried on.
        """
        layer, tried = next(iter(self._memory.trial.items()))
        good = self._memory.good | {layer: tried}
        memory = self._memory.model_copy(update={"good": good, "trial": {}})
        self._remember(self._came_of(layer, memory, "applied"), good=good, trial={})
        self._metrics.count("config.applied")
        log.info("pushed configuration kept", extra={"layer": layer, "version": tried.version})

    def drop(self, why: str, *, rejected: bool = False) -> None:
        """Forget what is tried; `settings` are the last good ones again. `rejected`: it never was in force.

        A disk that refuses changes nothing: after a restart what was tried is taken back, too.
        """
        layer, tried = next(iter(self._memory.trial.items()))
        status: Status = "rejected" if rejected else "rolled_back"
        self._settle(PushOutcome(status=status, layer=layer, version=tried.version, error=why), trial={})
        if rejected:
            self._complain("build", why)
        else:
            self._metrics.count("config.rolled_back")
            log.error("pushed configuration rolled back: %s", why)

    def write(self) -> None:
        """Write down what the disk refused before, if anything.

        Raises:
            FileError: It still refuses.
        """
        if not self._written:
            self._remember(self.report)

    def resume(self) -> list[tuple[str, bytes]]:
        """Return the pushes that have waited for the end of a trial."""
        waiting, self._waiting = self._waiting, {}
        return list(waiting.items())

    def told(self, settings: Settings) -> dict[str, Any]:
        """Return what is published about it, with the settings in force."""
        report, last = self.report, self.unbelieved
        told = None if last is None else {**asdict(last), "count": self.refused}
        return {
            **report.model_dump(),
            "versions": self.versions,
            "groups": list(self._groups),
            "effective": effective_hash(settings),
            "refused": told,
        }

    @property
    def _who(self) -> Identity:
        local = self._local
        return Identity(local.site, local.device, self._groups, local.push.trusted_keys)

    def _read_memory(self) -> bool:
        """Read what is remembered, or say why the disk does not give it; returns whether it did.

        Raises:
            ConfigError: It is damaged.
        """
        try:
            self._memory = load_memory(self._path)
        except FileError as error:
            return self._is_unread(error)
        self.unread = None
        return True

    def _is_unread(self, error: EdgeError) -> bool:
        if str(error) != self.unread:
            log.error("what was pushed before cannot be read, edge.toml stands alone: %s", error)
        self.unread = str(error)
        return False

    def _remembered(self) -> PushOutcome:
        """Return what became of the last push before the daemon started; that applied what needed it."""
        last = self._memory.last or PushOutcome(status="applied" if self._memory.good else "none")
        layers = self._memory.layers(self._groups)
        if last.status != "applied" or last.layer not in layers:
            return last
        return last.model_copy(update={"keys": acknowledged(last.layer, layers, restarted=True)})

    def _came_of(self, layer: str, memory: Memory, status: Status) -> PushOutcome:
        layers = memory.layers(self._groups)
        keys = acknowledged(layer, layers)
        return PushOutcome(status=status, layer=layer, version=layers[layer].version, keys=keys)

    def _not_believed(self, layer: str, data: bytes, error: PushError) -> None:
        self._count(error.reason)
        digest = hashlib.sha256(data).hexdigest()
        at = to_millisecond(self._clock.now())
        self.unbelieved = Unbelieved(at, layer, error.reason, str(error), digest)
        if self._lines.take():
            log.warning("a push is not believed: %s", error, extra={"layer": layer, "refused": self.refused})

    def _rejected(self, layer: str, version: int, keys: Mapping[str, str], error: EdgeError) -> None:
        self._complain(error.reason if isinstance(error, RefusedError) else "settings", str(error))
        report = PushOutcome(
            status="rejected", layer=layer, version=version, keys=dict(keys), error=str(error)
        )
        self._settle(report)

    def _settle(self, report: PushOutcome, *, trial: dict[str, PushLayer] | None = None) -> None:
        """Remember what became of a push, also where that cannot be written down yet (`write`)."""
        try:
            self._remember(report, trial=trial)
        except FileError as error:
            changes = {"last": report} if trial is None else {"last": report, "trial": trial}
            self._memory = self._memory.model_copy(update=changes)
            self.report, self._written = report, False
            log.error("what became of a push is not written down yet: %s", error)

    def _complain(self, reason: str, why: str) -> None:
        self._count(reason)
        log.error("pushed configuration refused, the last good one stays: %s", why)

    def _count(self, reason: str) -> None:
        self._metrics.count("config.refused")
        self._metrics.count(f"config.refused.{reason}")

    def _remember(
        self,
        report: PushOutcome,
        *,
        floors: dict[str, Floor] | None = None,
        good: dict[str, PushLayer] | None = None,
        trial: dict[str, PushLayer] | None = None,
    ) -> None:
        changes = {"last": report, "floors": floors, "good": good, "trial": trial}
        memory = self._memory.model_copy(update={k: v for k, v in changes.items() if v is not None})
        save_memory(self._path, memory)
        self._memory, self.report, self._written = memory, report, True
