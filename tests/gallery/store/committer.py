"""A process that changes a gallery, for tests of crashes and of several processes at once.

`enrol DIR PREFIX COUNT` enrols COUNT subjects one by one. `killed DIR ROUNDS` forks a process that commits
in a loop, kills it at a random moment, checks what is left on the disk, and does so again ROUNDS times.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from edge.core.types import Subject
from edge.gallery.store.store import GalleryStore
from tests.support.gallery_samples import MODEL, template, unit_rows


def enrol(directory: Path, prefix: str, count: int) -> None:
    store = GalleryStore(directory, keep_versions=3)
    for number, row in enumerate(unit_rows(count, seed=len(prefix))):
        with store.edit(MODEL) as edit:
            edit.commit(edit.gallery.with_subject(Subject(f"{prefix}-{number}", ""), [template(row)]))


def commit_for_ever(directory: Path, told: int) -> None:
    """Commit galleries whose only subject is labelled 1, 2, 3...; tell each label once it is committed."""
    store = GalleryStore(directory, keep_versions=2)
    row = template(unit_rows(1)[0])
    while True:
        with store.edit(MODEL) as edit:
            label = str(label_of(store) + 1)
            edit.commit(edit.gallery.with_subject(Subject("counter", label), [row]))
        os.write(told, f"{label}\n".encode())


def label_of(store: GalleryStore) -> int:
    subject = store.load(MODEL).subject("counter")
    return int(subject.label) if subject else 0


def killed(directory: Path, rounds: int) -> None:
    store, seen, torn_off = GalleryStore(directory, keep_versions=2), 0, 0
    dice = random.Random(0)
    for _ in range(rounds):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)  # so that it ends with whoever reads
            commit_for_ever(directory, writing)
        os.close(writing)
        with os.fdopen(reading) as told:
            seen = int(told.readline())
            time.sleep(dice.uniform(0, 0.008))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            # What is told is told whole: a line this short goes through a pipe in one piece.
            seen = max([seen, *map(int, told.read().split())])
        torn_off += (directory / "new.tmp").exists() or (directory / "current.tmp").is_symlink()
        left = label_of(store)
        assert left in (seen, seen + 1), f"{seen} was committed, {left} is there"
        assert store.set_aside == 0, "a version was torn"
    print(rounds, torn_off)


if __name__ == "__main__":
    if sys.argv[1] == "enrol":
        enrol(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        killed(Path(sys.argv[2]), int(sys.argv[3]))
