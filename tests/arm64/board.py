"""A Debian tree for arm64 whose programs run here, under an emulator of the processor.

The emulator is qemu-user 10 of Debian trixie, a static program: that of bookworm (7.2) crashes in
onnxruntime. Debian's packages are verified by their signatures, wheels by the hashes of the lock.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.debian.build import host_arch
from tests.support.tried import NotHereError
from tests.system.machine import check_containers

SUITE = "bookworm"
PACKAGES = "systemd,python3,procps,init-system-helpers,tzdata"
"""What the package needs. Not ca-certificates: under the emulator its installation takes half an hour."""

EMULATOR_SUITE, EMULATOR = "trixie", "usr/bin/qemu-aarch64"
NEEDS = ("mmdebstrap", "systemd-nspawn")
BINFMT = Path("/proc/sys/fs/binfmt_misc")

PROCESSOR = "cortex-a72"
"""The processor that is played: that of a Raspberry Pi 4, the least that the program is for.

The emulator's own default has more than any board, and its SVE makes OpenBLAS warn of divisions by zero that
nobody made.
"""

HANDLER = "edge-arm64-check"
MAGIC = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
"""How the kernel knows a program for arm64: the first 20 bytes of an ELF file of machine 0xb7, 64 bits,
little endian, executable or shared. Source: System V ABI, ELF header; ELF for the Arm 64-bit Architecture.
"""

LIMIT_S = 5400
"""Seconds for one command. It bounds a failure: the suite took half an hour on a busy machine."""


@contextmanager
def emulated(emulator: Path) -> Iterator[None]:
    """Let the kernel run programs for arm64 with `emulator` while the block runs; as root.

    The kernel opens the emulator now, so that it need not be in the tree (flag F).

    Raises:
        NotHereError: The kernel does not take it.
    """
    mounted = False
    try:
        if not (BINFMT / "register").exists():
            subprocess.run(
                ["mount", "-t", "binfmt_misc", "none", BINFMT], check=True, capture_output=True, text=True
            )
            mounted = True
        if (BINFMT / HANDLER).exists():  # of a run that was killed
            (BINFMT / HANDLER).write_text("-1")
        line = b":%s:M::%s:%s:%s:FP" % (HANDLER.encode(), MAGIC, MASK, os.fsencode(emulator))
        (BINFMT / "register").write_bytes(line)
    except subprocess.CalledProcessError as error:
        raise NotHereError(f"binfmt_misc cannot be mounted: {error.stderr.strip()}") from None
    except OSError as error:
        raise NotHereError(f"the kernel takes no emulator: {error}") from None
    try:
        yield
    finally:
        (BINFMT / HANDLER).write_text("-1")
        if mounted:
            subprocess.run(["umount", BINFMT], check=True)


class Board:
    """The tree. Each command runs in a container of its own, with the network of this machine."""

    def __init__(self, tree: Path):
        self.tree = tree

    @staticmethod
    def emulator(base: Path) -> Path:
        """Return the emulator below `base`; it is fetched first if it is not there.

        Raises:
            NotHereError: The host lacks a program, the rights, or what Debian's packages come from.
        """
        check_containers(NEEDS)
        if host_arch() == "arm64":
            raise NotHereError("this machine is an arm64 itself: make test, make test-system")
        if not (base / "qemu" / EMULATOR).exists():
            _debian(base / "qemu", EMULATOR_SUITE, "--variant=extract", "--include=qemu-user")
        return base / "qemu" / EMULATOR

    @classmethod
    def make(cls, directory: Path, base: Path) -> "Board":
        """Copy the tree below `base` into `directory`; it is made first if it is not there.

        Raises:
            NotHereError: It cannot be made; says why.
        """
        if not (base / "tree/etc/debian_version").exists():
            # mmdebstrap would ask for Debian's own emulator.
            foreign = ("--skip=check/qemu", "--architectures=arm64")
            _debian(base / "tree", SUITE, *foreign, "--variant=minbase", f"--include={PACKAGES}")
        tree = directory / "board"
        subprocess.run(["cp", "-a", base / "tree", tree], check=True)
        (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
        return cls(tree)

    def command(self, *words: str) -> list[str]:
        """Return how a command is run inside, from outside."""
        options = (
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--pipe",
            "--as-pid2",
            f"--setenv=QEMU_CPU={PROCESSOR}",
        )
        return ["systemd-nspawn", *options, "--directory", str(self.tree), *words]

    def run(self, *words: str, expect: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """Run a command inside to its end; its exit code has to be `expect`, None: any.

        Raises:
            AssertionError: It ended otherwise; says what it printed.
        """
        done = subprocess.run(
            self.command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S
        )
        assert expect is None or done.returncode == expect, (
            f"{' '.join(words)}: exit {done.returncode}: {(done.stdout + done.stderr).strip()[-1500:]}"
        )
        return done


def _debian(tree: Path, suite: str, *options: str) -> None:
    """Let mmdebstrap make a tree, and leave nothing where it cannot."""
    tree.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mmdebstrap", "--quiet", *options, suite, tree], capture_output=True, text=True)
    if made.returncode:
        shutil.rmtree(tree, ignore_errors=True)
        raise NotHereError(f"mmdebstrap: {made.stderr.strip().splitlines()[-1:]}")
