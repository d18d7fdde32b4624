"""A Debian system of its own, booted by systemd in a container: what the package is installed on."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.tried import NotHereError
from tests.support.waits import LIMIT_S, Stopwatch, wait_until

SUITE = "bookworm"
PACKAGES = (
    "systemd,systemd-sysv,dbus,libpam-systemd,ca-certificates,python3,procps,iproute2,mosquitto,"
    "mosquitto-clients,init-system-helpers"
)
"""What a Debian server has beside, and the broker."""

NEEDS = ("mmdebstrap", "systemd-nspawn", "nsenter")


def check_containers(needs: tuple[str, ...]) -> None:
    """Start and end a container of this machine's own programs; it takes .2 s and fetches nothing.

    Raises:
        NotHereError: One of the programs `needs` is missing, or containers cannot be started here; says why.
    """
    missing = [name for name in needs if shutil.which(name) is None]
    if missing:
        raise NotHereError(f"{', '.join(missing)} not installed")
    if os.geteuid() != 0:
        raise NotHereError("containers need root")
    options = ("--quiet", "--register=no", "--keep-unit", "--private-network", "--pipe")
    tried = subprocess.run(
        ["systemd-nspawn", *options, "--directory=/", "--volatile=yes", "/usr/bin/true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    if tried.returncode:
        raise NotHereError(f"systemd-nspawn: {(tried.stderr.strip().splitlines() or ['failed'])[-1]}")


class Machine:
    """A tree and the container that was booted from it. The container has no network but its own loopback."""

    def __init__(self, tree: Path):
        self.tree = tree
        self._log = tree.with_suffix(".log")
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    @classmethod
    def make(cls, directory: Path, base: Path) -> "Machine":
        """Copy the tree `base` into `directory`; it is made first if it is not there.

        Raises:
            NotHereError: The host lacks a program, the rights, or what Debian's packages come from.
        """
        check_containers(NEEDS)
        if not (base / "etc/debian_version").exists():
            made = subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, base],
                capture_output=True,
                text=True,
            )
            if made.returncode:
                shutil.rmtree(base, ignore_errors=True)
                raise NotHereError(f"mmdebstrap: {made.stderr.strip().splitlines()[-1:]}")
        tree = directory / "machine"
        subprocess.run(["cp", "-a", base, tree], check=True)
        (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
        return cls(tree)

    def boot(self) -> None:
        """Start the container and wait until its service manager runs.

        Raises:
            NotHereError: The host's kernel or rights do not allow it.
        """
        options = ("--quiet", "--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe")
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                ["systemd-nspawn", *options, "--directory", self.tree],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.wait_for(self._is_up, "the machine boots")
        except AssertionError:
            said = self._log.read_text(errors="replace").strip()[-300:]
            self.stop()
            raise NotHereError(f"systemd-nspawn: {said or 'the machine does not boot'}") from None
        self.run("ip", "link", "set", "lo", "up")

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, "the container has ended"
        children = subprocess.run(
            ["pgrep", "-P", str(self._nspawn.pid)], capture_output=True, text=True
        ).stdout.split()
        self._leader = int(children[0]) if children else 0
        return bool(self._leader) and self.ask("systemctl", "is-system-running") in ("running", "degraded")

    def command(self, *words: str) -> list[str]:
        """Return how a command is run inside, from outside."""
        return ["nsenter", "--target", str(self._leader), "--all", *words]

    def run(self, *words: str, expect: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """Run a command inside to its end; its exit code has to be `expect`, None: any.

        Raises:
            AssertionError: It ended otherwise; says what it printed.
        """
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3 * LIMIT_S,
        )
        assert expect is None or done.returncode == expect, (
            f"{' '.join(words)}: exit {done.returncode}: {(done.stdout + done.stderr).strip()[-600:]}"
        )
        return done

    def ask(self, *words: str) -> str:
        """Run a command inside and return what it prints, whatever its exit code."""
        return self.run(*words, expect=None).stdout.strip()

    def write(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        """Write a file of the machine from outside; `path` is absolute inside. Its owner stays who it was."""
        place = self.tree / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
        place.chmod(mode)

    def unit(self, name: str, field: str) -> str:
        """Return a property of a unit."""
        return self.ask("systemctl", "show", "--value", f"--property={field}", name)

    def wait_for(self, condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> float:
        """Wait until `condition` holds and return how long that took, in seconds.

        Raises:
            AssertionError: It did not within the limit.
        """
        watch = Stopwatch()
        wait_until(condition, what, limit_s=limit_s)
        return watch.wall_s

    def stop(self) -> None:
        """Power the container off, and end it if it does not."""
        if self._nspawn is None:
            return
        self._nspawn.send_signal(signal.SIGTERM)
        try:
            self._nspawn.wait(20)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = None


class Messages:
    """All messages of the machine's broker, heard by its own `mosquitto_sub`: pairs of topic and payload."""

    def __init__(self, machine: Machine):
        self._machine = machine
        self.seen: list[tuple[str, str]] = []
        self._process = subprocess.Popen(
            machine.command("mosquitto_sub", "-V", "5", "-t", "#", "-q", "1", "-F", "%t %p"),
            stdout=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            topic, _, payload = line.rstrip("\n").partition(" ")
            self.seen.append((topic, payload))

    def mark(self) -> int:
        """Return a place in the messages; what is heard later is after it."""
        return len(self.seen)

    def after(self, mark: int, ending: str, part: str = "") -> list[str]:
        """Return the payloads after `mark` whose topic ends so and which contain `part`."""
        return [text for topic, text in self.seen[mark:] if topic.endswith(ending) and part in text]

    def close(self) -> None:
        """Stop listening."""
        # A signal would end nsenter alone.
        self._machine.run("pkill", "mosquitto_sub", expect=None)
        self._process.wait()
        self._thread.join()
