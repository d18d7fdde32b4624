"""`python -m tests.gallery.remote.recall EMBEDDINGS.npz`: what a server finds among many faces, how fast.

EMBEDDINGS.npz has `names` (subject/photo) and unit `rows`. People come from them in two ways.

- Half of the subjects lend distractors, who fill the gallery up: blends of two (`lab.studies.memory.growth`).
- `real` probes are photos of the others, who are enrolled with another photo. `drawn` probes are of
  distractors: each lies from its template as far, and in the direction, as two photos of a real person do.

Recall is the share of the probes whose nearest row, by an exact comparison with all, is of the right subject,
that are answered with that row. Then twenty doors ask: each once in two seconds, twice a second, and without
a pause.
"""

import argparse
import importlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
from numpy.typing import NDArray

from edge.core.types import FloatArray
from edge.gallery.format.rows import rows_text
from edge.gallery.remote.engine_matcher import CONTENTS, RemoteEngine, RemoteEntry
from edge.gallery.remote.pgvector import PgvectorEngine
from edge.gallery.remote.qdrant import BATCH, FILTERED, OVERSAMPLING
from edge.gallery.remote.signed_rows import RowSigner
from edge.lab.photos.plots import share_interval
from edge.lab.studies.memory.growth import Halves, blended, halves
from tests.support.postgres import running_postgres

DOORS = 20
PACES = ((2.0, 15), (0.5, 30), (0.0, 10))
"""Seconds between two questions of a door, and how many it asks."""

COUNT = 4
"""Entries that are asked for, as the product does."""

SERVER = ("shared_buffers=5GB", "max_wal_size=8GB", "wal_level=minimal", "max_wal_senders=0")
CHUNK = 50_000

Asked = tuple[FloatArray, NDArray[np.intp]]
"""Probes (n, D), and the numbers of the rows that are right."""


class QdrantShard:
    """Qdrant's own engine in this process, set up as `QdrantEngine` sets up a server.

    It comes with the wheel `qdrant-edge-py`, which nothing else here needs: install 0.9.0 by hand.
    """

    def __init__(self, directory: Path) -> None:
        self._q: Any = importlib.import_module("qdrant_edge")
        self._directory = directory

    def replace(self, dim: int, entries: Iterable[RemoteEntry], step: Callable[..., object]) -> None:
        q = self._q
        self._shard = q.EdgeShard.create(
            str(self._directory / "shard"),
            q.EdgeConfig(
                vectors={"": q.EdgeVectorParams(size=dim, distance=q.Distance.Cosine)},
                on_disk_payload=True,
                hnsw_config=q.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
                quantization_config=q.ScalarQuantizationConfig(type=q.ScalarType.Int8, always_ram=True),
            ),
        )
        for field in FILTERED:
            self._shard.update(q.UpdateOperation.create_field_index(field, q.PayloadSchemaType.Keyword))
        points: list[Any] = []
        for entry in entries:
            if entry.row is None:
                continue
            payload = {**entry.signed, "model_id": entry.model_id, "groups": list(entry.groups)}
            points.append(q.Point(str(entry.id), {"": entry.row.tolist()}, payload))
            if len(points) == BATCH:
                self._shard.update(q.UpdateOperation.upsert_points(points))
                points = []
        self._shard.update(q.UpdateOperation.upsert_points(points))
        self._shard.optimize()
        own = q.FieldCondition(key="model_id", match=q.MatchValue(value="m"))
        self._filter = q.Filter(must=[own])
        self._params = q.SearchParams(
            quantization=q.QuantizationSearchParams(ignore=False, rescore=True, oversampling=OVERSAMPLING)
        )

    def contents(self) -> Mapping[str, object] | None:
        return None

    def nearest(
        self, row: FloatArray, model_id: str, groups: Sequence[str], count: int
    ) -> Sequence[Mapping[str, object]]:
        request = self._q.QueryRequest(
            limit=count,
            query=self._q.Query.Nearest(row.tolist()),
            filter=self._filter,
            with_payload=True,
            params=self._params,
        )
        return [point.payload for point in self._shard.query(request)]

    def close(self) -> None:
        """It lives as long as this process."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--engine", choices=("pgvector", "qdrant"), required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--probes", type=int, default=5000, help="the most of either kind that are asked")
    chosen = parser.parse_args()
    people = people_of(chosen.embeddings)
    rows = np.empty((chosen.rows, people.enrolled.shape[1]), np.float32)
    rows[: len(people.enrolled)] = people.enrolled
    generator = np.random.default_rng(7)
    for start in range(len(people.enrolled), len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        part[:] = blended(people.lenders, len(part), generator)
    drawn = np.sort(generator.choice(len(rows) - len(people.enrolled), chosen.probes, replace=False))
    drawn += len(people.enrolled)
    kinds: dict[str, Asked] = {
        "real": (people.probes, people.labels),
        "drawn": (_drawn(people, rows[drawn], generator), drawn),
    }
    tell = {
        "rows": len(rows),
        "enrolled": len(people.enrolled),
        "lenders of distractors": len(people.lenders),
    }
    print(json.dumps(tell), flush=True)
    kinds = {name: _answerable(asked, rows, name, chosen.probes) for name, asked in kinds.items()}
    with _engine(chosen.engine) as (connect, disk):
        began_s = time.monotonic()
        engine = connect()
        engine.replace(rows.shape[1], _entries(rows), lambda what, done, total: print(what, flush=True))
        print(json.dumps({"filled_s": round(time.monotonic() - began_s), "disk_mb": disk()}), flush=True)
        for name, (probes, right) in kinds.items():
            hits = [_has(engine, probe, who) for probe, who in zip(probes, right, strict=True)]
            low, _high = share_interval(float(np.mean(hits)), len(hits))
            recall = {"recall": float(np.mean(hits)), "at_least": round(low, 4)}
            print(json.dumps({"probes": name, "asked": len(hits), **recall}), flush=True)
        for every_s, turns in PACES:
            began_s = time.monotonic()
            times, late = _doors(connect, kinds["real"][0], every_s, turns)
            p50, p95 = np.percentile(times, [50, 95]).round(1).tolist()
            rate = round((len(times) - late) / (time.monotonic() - began_s), 1)
            found = {
                "every_s": every_s,
                "ms_p50": p50,
                "ms_p95": p95,
                "answered_a_second": rate,
                "late": late,
            }
            print(json.dumps({"doors": DOORS, **found, "load": os.getloadavg()[0]}), flush=True)


def people_of(embeddings_file: Path) -> Halves:
    found = np.load(embeddings_file)
    everybody: dict[str, list[Path]] = {}
    embeddings: dict[Path, FloatArray | None] = {}
    for name, row in zip(found["names"], found["rows"], strict=True):
        path = Path(str(name))
        everybody.setdefault(path.parent.name, []).append(path)
        usable = np.isfinite(row).all() and abs(float(np.linalg.norm(row)) - 1) < 1e-2
        embeddings[path] = row.astype(np.float32) if usable else None
    return halves({name: tuple(paths) for name, paths in everybody.items()}, embeddings)


def _drawn(people: Halves, templates: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Return a probe for each template: a real pair's angle, and its direction as far as it is across."""
    chosen = generator.integers(0, len(people.probes), len(templates))
    first, other = people.enrolled[people.labels[chosen]], people.probes[chosen]
    cosine = np.einsum("ij,ij->i", first, other)[:, None]
    away = other - cosine * first
    away -= np.einsum("ij,ij->i", away, templates)[:, None] * templates
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return np.asarray(cosine * templates + np.sqrt(1 - cosine**2) * away, np.float32)


def _answerable(asked: Asked, rows: FloatArray, name: str, most: int) -> Asked:
    """Return the probes whose nearest row is the right one, at random at most so many."""
    probes, right = asked
    best, nearest = np.full(len(probes), -2.0, np.float32), np.zeros(len(probes), np.intp)
    for start in range(0, len(rows), CHUNK):
        scores = probes @ rows[start : start + CHUNK].T
        higher = scores.max(axis=1) > best
        nearest[higher] = scores[higher].argmax(axis=1) + start
        best[higher] = scores[higher].max(axis=1)
    known = np.flatnonzero(nearest == right)
    print(json.dumps({"probes": name, "nearest is right": len(known), "of": len(probes)}), flush=True)
    kept = np.random.default_rng(8).permutation(known)[:most]
    return probes[kept], right[kept]


@contextmanager
def _engine(kind: str) -> Iterator[tuple[Callable[[], RemoteEngine], Callable[[], int]]]:
    """What connects to an empty server, and tells how much of the disk its tables take, in MB."""
    if kind == "qdrant":
        with tempfile.TemporaryDirectory() as name:
            shard = QdrantShard(Path(name))
            yield lambda: shard, lambda: _megabytes(Path(name))
        return
    with running_postgres(settings=SERVER) as server:
        address = server.database()

        def disk() -> int:
            with psycopg.connect(address) as connection:
                found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            assert found is not None
            return int(found[0]) >> 20

        yield lambda: PgvectorEngine.at(address, "faces"), disk


def _megabytes(directory: Path) -> int:
    return sum(path.stat().st_blocks for path in directory.rglob("*")) * 512 >> 20


def _entries(rows: FloatArray) -> Iterator[RemoteEntry]:
    signer = RowSigner(b"site", "faces")
    for number, row in enumerate(rows):
        said = {"upload": "0" * 32, "model_id": "m", "subject": {"id": str(number)}, "row": rows_text(row)}
        yield RemoteEntry(uuid4(), signer.sign("template", said), "m", row)
    yield RemoteEntry(CONTENTS, signer.sign("contents", {}))


def _has(engine: RemoteEngine, probe: FloatArray, right: int) -> bool:
    while True:
        try:
            found = engine.nearest(probe, "m", (), COUNT)
            break
        except psycopg.errors.QueryCanceled:
            continue  # a busy machine: what is found is asked here, not how fast
    return any(json.loads(str(entry["said"]))["subject"]["id"] == str(right) for entry in found)


def _doors(
    connect: Callable[[], RemoteEngine], probes: FloatArray, every_s: float, turns: int
) -> tuple[list[float], int]:
    """Return the milliseconds of every question, and how many had no answer in `ENGINE_TIMEOUT_S`."""
    times: list[float] = []
    late: list[int] = []

    def ask(door: int) -> None:
        engine = connect()
        for turn in range(turns):
            until_s = began_s + (turn + 1 + door / DOORS) * every_s
            time.sleep(max(0.0, until_s - time.monotonic()))
            start_s = time.perf_counter()
            try:
                engine.nearest(probes[(door * turns + turn) % len(probes)], "m", (), COUNT)
            except psycopg.errors.QueryCanceled:
                late.append(turn)
            times.append((time.perf_counter() - start_s) * 1e3)
        engine.close()

    began_s = time.monotonic()
    threads = [threading.Thread(target=ask, args=(door,)) for door in range(DOORS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, len(late)


if __name__ == "__main__":
    main()
