"""`python -m tests.gallery.remote.recall EMBEDDINGS.npz`: what PostgreSQL finds among many faces, how fast.

EMBEDDINGS.npz has `names` (subject/photo) and unit `rows`. Half of the subjects lend distractors (blends of
two, `lab.studies.memory.growth`), who fill the table up; probes are photos of the others. Recall is the share
of the probes whose nearest row belongs to the right subject, by an exact comparison with all rows, that are
answered with that row. Then twenty doors ask, each once in two seconds.
"""

import argparse
import json
import threading
import time
from pathlib import Path
from uuid import uuid4

import numpy as np

from edge.core.types import FloatArray
from edge.gallery.remote.engine_matcher import CONTENTS, RemoteEntry
from edge.gallery.remote.pgvector import PgvectorEngine
from edge.lab.studies.memory.growth import blended, halves
from tests.support.postgres import running_postgres

DOORS, EACH_S, TURNS = 20, 2.0, 15
COUNT = 4
"""Entries that are asked for, as the product does."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    chosen = parser.parse_args()
    found = np.load(chosen.embeddings)
    everybody: dict[str, list[Path]] = {}
    embeddings: dict[Path, FloatArray | None] = {}
    for name, row in zip(found["names"], found["rows"], strict=True):
        path = Path(str(name))
        everybody.setdefault(path.parent.name, []).append(path)
        usable = np.isfinite(row).all() and abs(float(np.linalg.norm(row)) - 1) < 1e-2
        embeddings[path] = row.astype(np.float32) if usable else None
    people = halves({name: tuple(paths) for name, paths in everybody.items()}, embeddings)
    rows = np.concatenate(
        [
            people.enrolled,
            blended(people.lenders, chosen.rows - len(people.enrolled), np.random.default_rng(7)),
        ]
    )
    nearest = np.concatenate([(part @ rows.T).argmax(axis=1) for part in np.array_split(people.probes, 100)])
    asked = people.probes[nearest == people.labels]
    right = people.labels[nearest == people.labels]
    with running_postgres() as server:
        address = server.database()
        engine = PgvectorEngine.at(address, "faces")
        began_s = time.monotonic()
        entries = (RemoteEntry(uuid4(), _signed(n), "m", row) for n, row in enumerate(rows))
        engine.replace(rows.shape[1], [*entries, RemoteEntry(CONTENTS, _signed(-1))])
        print(f"{chosen.rows} rows, filled and indexed in {time.monotonic() - began_s:.0f} s", flush=True)
        hits = sum(
            _signed(int(who)) in engine.nearest(row, "m", (), COUNT)
            for row, who in zip(asked, right, strict=True)
        )
        print(json.dumps({"probes": len(asked), "recall": hits / len(asked)}), flush=True)
        times = _doors(address, asked)
        p50, p95 = np.percentile(times, [50, 95])
        print(json.dumps({"questions": len(times), "ms_p50": round(p50, 1), "ms_p95": round(p95, 1)}))
        engine.close()


def _doors(address: str, probes: FloatArray) -> list[float]:
    times: list[float] = []

    def ask(door: int) -> None:
        engine = PgvectorEngine.at(address, "faces")
        for turn in range(TURNS):
            until_s = began_s + (turn + 1 + door / DOORS) * EACH_S
            time.sleep(max(0.0, until_s - time.monotonic()))
            start_s = time.perf_counter()
            engine.nearest(probes[(door * TURNS + turn) % len(probes)], "m", (), COUNT)
            times.append((time.perf_counter() - start_s) * 1e3)
        engine.close()

    began_s = time.monotonic()
    threads = [threading.Thread(target=ask, args=(door,)) for door in range(DOORS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def _signed(number: int) -> dict[str, str]:
    return {"said": str(number), "mac": ""}


if __name__ == "__main__":
    main()
