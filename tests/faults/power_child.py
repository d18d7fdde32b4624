"""Keeps and forgets rows, and says each time what is promised: `+` is on the disk, `-` may go, as seqs."""

import os
import random
import sys
from pathlib import Path

from edge.mqtt.delivery.outbox import Changes, Outbox
from tests.support.door import make_row, now


def say(sign: str, seqs: list[int]) -> None:
    os.write(1, f"{sign} {' '.join(map(str, seqs))}\n".encode())


def main(path: Path, groups: int, seed: int, synchronous: str) -> None:
    rng = random.Random(seed)
    outbox = Outbox.open(path, max_rows=50_000, now=now)
    if synchronous != "FULL":
        outbox._connection.execute(f"PRAGMA synchronous = {synchronous}")
    waiting: list[int] = []
    seq = 0
    for _ in range(groups):
        rows = [
            make_row(seq + i, payload=b"x" * rng.randrange(200, 1200)) for i in range(1, rng.randrange(2, 9))
        ]
        seq += len(rows)
        done = [each for each in waiting if rng.random() < 0.3]
        say("-", done)
        outbox.write(Changes(puts={row.seq: row for row in rows}, done=set(done)))
        say("+", [row.seq for row in rows])
        waiting = [each for each in waiting if each not in done] + [row.seq for row in rows]
    say(".", [])  # what follows is the orderly end
    outbox.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
