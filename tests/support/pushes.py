"""Configuration pushes as an operator signs them, or somebody else does, and a door to try them in."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.core import files
from edge.core.errors import ConfigError, FileError, ModelIntegrityError
from edge.core.metrics import Metrics
from edge.device.pushes.memory import PushMemory, effective, push_file
from edge.device.pushes.push import PAYLOAD_TYPE
from edge.device.pushes.trial import PushState, PushTrial, Seen
from edge.device.settings.load import Settings, load
from edge.mqtt.contract.envelope import public_text, sign
from tests.support.clock import SteppedClock

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TRUSTED = public_text(KEY)

STRICT = {"decision": {"target_fpir": 0.0001}}
"""A patch; where nothing is pushed `target_fpir` is .001."""

FLEET: dict[str, Any] = {"scope": "fleet", "name": None}
"""What is changed in the content of a push that is for all devices."""


def content(version: Any, patch: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """Return what is signed: by default for the device `door` of the site `test`."""
    document = {
        "schema": "edge.config-desired/1",
        "scope": "device",
        "site": "test",
        "name": "door",
        "version": version,
        "patch": {} if patch is None else patch,
    }
    document |= changes
    return json.dumps({key: value for key, value in document.items() if value != "absent"}).encode()


def push(version: Any, patch: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """Return a signed push."""
    return sign(content(version, patch, **changes), PAYLOAD_TYPE, [KEY])


class PushDoor:
    """A device with its edge.toml and its disk, and its daemon, under which the door `works` or does not.

    The daemon `builds` what is asked of it, and its models `compute` what they should, or not. `told` is what
    was published, the newest last.
    """

    def __init__(self, directory: Path, *lines: str, trusted: str = TRUSTED) -> None:
        self.path = directory / "edge.toml"
        self.path.write_text(
            "\n".join(
                [
                    'site = "test"',
                    'device = "door"',
                    f'state_dir = "{directory}/state"',
                    f'push.trusted_keys = ["{trusted}"]' if trusted else "",
                    'push.groups = ["entrances", "north"]',
                    *lines,
                ]
            )
        )
        self.metrics, self.clock = Metrics(), SteppedClock()
        self.works = self.builds = self.computes = True
        self.tested = 0
        self.told: list[Mapping[str, Any]] = []
        self.start(self.after_restart())

    def start(self, in_force: Settings) -> None:
        """Start the daemon with these settings."""
        self.in_force = in_force
        self.memory = PushMemory(self.read)
        self.trial = PushTrial(self.memory, self, self.metrics, self.clock)

    def restarted(self) -> Self:
        """Return this door after a restart of its daemon."""
        self.start(self.after_restart())
        return self

    def before_and_after_restart(self) -> Iterator[Self]:
        """Yield this door as it is, then after a restart of its daemon."""
        yield self
        yield self.restarted()

    def read(self, patch: dict[str, Any]) -> Settings:
        return load(self.path, patch)

    def after_restart(self) -> Settings:
        """Return the settings that a restart would put in force."""
        return effective(self.read({}), self.read)

    @property
    def file(self) -> Path:
        """Where pushes are remembered."""
        return push_file(self.read({})).path

    @property
    def refused(self) -> str:
        """Why the last push was refused."""
        assert self.trial.refused is not None
        return self.trial.refused.error

    @property
    def refusals(self) -> dict[str, int]:
        """What is counted of refused and rejected pushes."""
        return {key: count for key, count in self.metrics.counts().items() if "refused" in key}

    def tried(self, data: bytes, layer: str = "device") -> Settings:
        """Take a push that goes on trial; returns the settings in force."""
        before = self.memory.record.last
        self.trial.take(layer, data)
        assert self.trial.state is PushState.ON_TRIAL, (self.memory.report, self.trial.refused)
        assert self.memory.record.last is not before
        return self.in_force

    def kept(self, data: bytes, layer: str = "device") -> Settings:
        """Take a push that is kept; returns the settings in force."""
        self.tried(data, layer)
        self.wait(self.in_force.push.probation_s)
        assert self.trial.state is PushState.KEPT, self.memory.report
        return self.in_force

    def wait(self, seconds: float) -> None:
        """Let time pass, as the daemon's main loop does."""
        for _ in range(int(seconds / 0.25)):
            self.clock.now_s += 0.25
            self.trial.tick()

    def settings(self) -> Settings:
        return self.in_force

    def apply(self, settings: Settings) -> None:
        if not self.builds:
            raise ConfigError("no such model")
        self.in_force = settings

    def seen(self) -> Seen:
        frames = int(self.clock.now_s * 25) if self.works else 0
        return Seen({"front": frames}, {"front": 60.0}, True)

    def self_test(self) -> None:
        self.tested += 1
        if not self.computes:
            raise ModelIntegrityError("sface-int8: self-test failed")

    def tell(self, told: Mapping[str, Any]) -> None:
        self.told.append(told)


class FullDisk:
    """Refuses what is written about pushes until it is `mended`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch, self.write = monkeypatch, files.write_whole
        monkeypatch.setattr("edge.core.files.write_whole", self.refuse)

    def refuse(self, path: Path, data: bytes, mode: int = 0) -> None:
        raise FileError(f"{path}: cannot be written: No space left on device")

    def mend(self) -> None:
        self.monkeypatch.setattr("edge.core.files.write_whole", self.write)


def unreadable(path: Path, max_bytes: int) -> bytes | None:
    """Stands for `read_bounded` of a disk that gives nothing."""
    raise FileError(f"{path}: cannot be read: Input/output error")
