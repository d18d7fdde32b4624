"""Power cuts: what a process wrote is recorded, and the disk is built that a cut at any moment could leave.

What was synced is there. Of what was written since, any sectors may be there and any not, in any order; so
may the truncation, creation and removal of files.
"""

import random
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from edge.mqtt.delivery.outbox import Outbox
from tests.faults.ledger import Entry
from tests.faults.recorded import Op, record
from tests.support.door import now

SECTOR = 512
GROUPS = 120
CUTS_PER_RECORD = 100


@dataclass
class _File:
    """What is on the disk for certain, and what was done since the last sync."""

    safe: bytearray = field(default_factory=bytearray)
    unsafe: list[Op] = field(default_factory=list)


def cut(ops: list[Op], rng: random.Random) -> dict[str, bytes]:
    """Return a content of the directory that a power cut after `ops` could leave."""
    files: dict[str, _File] = defaultdict(_File)
    named: dict[str, bool] = {}
    maybe: dict[str, bool] = {}
    """Names that certainly were in the directory or not, and what was done to names since its last sync."""
    for op in ops:
        if op.kind == "create" and not maybe.get(op.name, named.get(op.name, False)):
            maybe[op.name] = True
            files[op.name] = _File()
        elif op.kind == "unlink":
            maybe[op.name] = False
        elif op.kind == "sync" and op.name == ".":
            named |= maybe
            maybe = {}
        elif op.kind == "sync":
            file = files[op.name]
            for each in file.unsafe:
                _apply(file.safe, each)
            file.unsafe = []
        elif op.kind in ("write", "truncate"):
            files[op.name].unsafe.append(op)
    share = rng.choice((0.0, 0.2, 0.5, 0.9, 1.0))
    found: dict[str, bytes] = {}
    for name in named | maybe:
        there = named.get(name, False)
        if name in maybe and rng.random() < share:
            there = maybe[name]
        if there and not name.endswith("-shm"):  # a mapping of memory, made anew by whoever opens next
            file = files[name]
            for op in file.unsafe:
                for piece in _sectors(op):
                    if rng.random() < share:
                        _apply(file.safe, piece)
            found[name] = bytes(file.safe)
    return found


def _apply(content: bytearray, op: Op) -> None:
    if op.kind == "truncate":
        content[op.at :] = b"" if len(content) >= op.at else bytes(op.at - len(content))
    else:
        content.extend(bytes(max(0, op.at - len(content))))
        content[op.at : op.at + len(op.data)] = op.data


def _sectors(op: Op) -> list[Op]:
    """The parts of a write that reach the disk or do not, each for itself."""
    if op.kind != "write":
        return [op]
    parts, at, end = [], op.at, op.at + len(op.data)
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        parts.append(Op("write", op.name, at, op.data[at - op.at : until - op.at]))
        at = until
    return parts


def promised(ops: list[Op]) -> set[int]:
    """What the process had said to be on the disk, and not to be forgotten."""
    kept: set[int] = set()
    for op in ops:
        if op.kind == "say":
            sign, *seqs = op.data.decode().split()
            if sign == "+":
                kept |= set(map(int, seqs))
            elif sign == "-":
                kept -= set(map(int, seqs))
    return kept


def power_cut(directory: Path, rounds: int, synchronous: str = "FULL") -> Entry:
    """So many cuts at random moments of recorded lives of an outbox, checkpoints of its log among them."""
    rng, ops = random.Random(3), list[Op]()
    decided = kept = losing = checkpoints = damaged = 0
    for number in range(rounds):
        if number % CUTS_PER_RECORD == 0:
            home = directory / f"life-{number}"
            home.mkdir()
            path = home / "outbox.sqlite"
            command = [sys.executable, "-m", "tests.faults.power_child", str(path)]
            ops = record(
                [*command, str(GROUPS), str(number), synchronous], home, directory / f"life-{number}.strace"
            )
            checkpoints += _checkpoints(ops)
        until = rng.randrange(len(ops) + 1)
        copy = directory / f"cut-{number}"
        copy.mkdir()
        for name, content in cut(ops[:until], rng).items():
            (copy / name).write_bytes(content)
        outbox = Outbox.open(copy / "outbox.sqlite", max_rows=50_000, now=now)
        there = {row.seq for row in outbox.pending(100_000)}
        damaged += outbox.set_aside is not None
        outbox.close()
        wanted = promised(ops[:until])
        decided += len(wanted)
        kept += len(wanted & there)
        losing += not wanted <= there
        for file in copy.iterdir():
            file.unlink()
        copy.rmdir()
    assert checkpoints, "the log was never folded into the database"
    note = f"{checkpoints} checkpoints recorded"
    note += f"; {losing} cuts lost something, {damaged} damaged the database" if losing or damaged else ""
    return Entry(f"power cut, synchronous={synchronous}", rounds, decided, kept, decided - kept, note=note)


def _checkpoints(ops: list[Op]) -> int:
    """How often the database itself was written after its log."""
    names = [op.name for op in ops if op.kind == "write"]
    return sum(before.endswith("-wal") and after == "outbox.sqlite" for before, after in pairwise(names))
