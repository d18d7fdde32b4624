"""A device under test: its directories, its configuration, and the real daemon as a process."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.command_line import edge, environment_of, write_config
from tests.support.waits import LIMIT_S, wait_until

ROOT = "edge/v1/test/door"


@dataclass
class Device:
    """One door. `settings` are lines of its edge.toml before the cameras, which are sources by name.

    `under` is a program that runs the daemon and stays its child (`strace -D`).
    """

    directory: Path
    models_dir: Path
    port: int
    cameras: dict[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    under: tuple[str, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None
    name: str = "door"
    site: str = "test"

    @property
    def config(self) -> Path:
        return self.directory / "edge.toml"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def write(self) -> Path:
        lines = [
            'log.format = "json"',
            'mqtt.host = "127.0.0.1"',
            f"mqtt.port = {self.port}",
            "mqtt.backoff_max_s = 1.0",
            "capture.backoff_max_s = 1.0",
            *self.settings,
        ]
        for name, source in self.cameras.items():
            lines += [f"[cameras.{name}]", source]
        directories = {"state_dir": self.state, "models_dir": self.models_dir}
        return write_config(self.directory, *lines, site=self.site, device=self.name, **directories)

    def start(self, *, ready: bool = True) -> "Device":
        self.write()
        self.log_path = self.directory / f"log-{time.monotonic_ns()}.jsonl"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*self.under, sys.executable, "-m", "edge", "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=environment_of(self.config) | self.environment,
            )
        if ready:
            wait_until(lambda: self.said("ready") or self.process.poll() is not None, "ready")
            assert self.process.poll() is None, self.log_path.read_text()
        return self

    def log(self) -> list[dict[str, Any]]:
        lines = self.log_path.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def said(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if message in line["message"]]

    def visits(self, kind: str = "kept") -> int:
        """How many visits are on the disk: of strangers, or those that were `matched`."""
        return len(list((self.state / "strangers").glob(f"*.{kind}")))

    def decided(self) -> list[dict[str, Any]]:
        return self.said("decision")

    def stop(self, signum: int = signal.SIGTERM, timeout_s: float = LIMIT_S) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            return self.process.wait(timeout_s)
        finally:
            self.process.kill()
            self.process.wait()

    def edge(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return edge(*arguments, config=self.write())


def notify_socket(path: Path) -> "Any":
    """A socket that listens as the service manager does."""
    import socket

    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(os.fspath(path))
    manager.settimeout(LIMIT_S)
    return manager
