"""Time the search of a gallery beside what one would use instead, alternately in one run, on one core."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.core.download import Progress
from edge.core.types import FloatArray, Probe, Quality, Subject
from edge.gallery.gallery import Gallery, Provenance
from edge.gallery.int8_matcher import QuantizedMatcher
from edge.gallery.matcher import DenseMatcher
from edge.gallery.search import Mask, Matcher
from edge.lab.bench.report import machine
from edge.lab.photos.plots import new_figure, save

MODEL_ID = "bench@00000000"
GENUINE_COSINE = 0.6
"""How alike a known face is to its template. Source: FINDINGS 2, where genuine scores centre on it."""

DISTANCE_ROWS = 100_000
"""Above this `face_distance` is left out: it takes 1/4 s a probe, and 16 bytes a value."""

WARM_UP = 2
"""Rounds that are not timed: the first ones allocate."""

BURST = 4
"""Probes that an engine searches for before it is the next one's turn, as the shots of a visit are."""

CHANGES = 2_000
CHANGED_SHARE = 1 / 7
"""Rows added, then removed, one by one: so many, or that share of all, so that the mean holds the copies."""

PIECE = 65_536
SCOPES = {"half": 0.5, "hundredth": 0.01}
"""Shares of the subjects that a scoped search may find."""

QUALITY = Quality(112.0, 0.8, 0.0, 0.7, 0.9, 0.6)
AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Engine:
    """A way to find the nearest row: the bytes it reads, and the row it finds, None for the read floor."""

    nbytes: int
    search: Callable[[FloatArray], int | None]


def measure_galleries(rows: Sequence[int], dim: int, rounds: int, progress: Progress) -> dict[str, Any]:
    """Do `measure_gallery` for rising numbers of rows; the report of the last has the others in `smaller`.

    It runs in a process of its own that begins on one core: BLAS then starts one thread. Two threads that
    share a core wait for each other; measured 4.8 ms instead of .05 for numpy at 10,000 x 128.
    """
    reports = []
    with one_core(), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for done, number in enumerate(rows):
            progress(f"{number} x {dim}", done, len(rows))
            reports.append(pool.submit(measure_gallery, number, dim, rounds).result())
    progress("measured", len(rows), len(rows))
    return {
        "schema": "edge.bench.gallery/1",
        "machine": machine() | {"numpy": np.__version__, "threads": 1},
        **reports[-1],
        "smaller": reports[:-1],
    }


ENGINE_WORDS = {
    "read_floor": "reading the integer rows once, no search",
    "int8": "the product, large galleries: integers, then exact",
    "dense": "the product, small galleries: float32",
    "numpy_float32": "numpy: matrix times probe",
    "face_distance": "face_recognition's formula over a list",
    "face_distance_array": "face_recognition's formula over an array",
}
"""What the engines are called in the pictures."""

SAME = 1.05
"""Curves that differ by less than this factor everywhere are drawn as one."""

ASIDE = 1.05
"""Factor between the places of two engines, so that no bar stands behind another."""

Curve = tuple[list[int], list[float]]
"""Numbers of rows, rising, and a figure for each."""


def plot_galleries(report: dict[str, Any], directory: Path) -> None:
    """Draw milliseconds and bytes over the number of rows, of every engine.

    Raises:
        ConfigError: matplotlib is not installed, or a file cannot be written.
    """
    sizes = [*report["smaller"], report]
    figure = new_figure((8, 6))
    axes = figure.subplots()
    for number, name in enumerate(sizes[0]["engines"]):
        rows, p50 = _curve(sizes, name, "ms_p50")
        _, p95 = _curve(sizes, name, "ms_p95")
        far = [[0.0] * len(rows), [max(0.0, high - middle) for middle, high in zip(p50, p95, strict=True)]]
        beside = [each * ASIDE ** (number - 2.5) for each in rows]
        axes.errorbar(beside, p50, far, marker="o", markersize=4, capsize=3, label=ENGINE_WORDS[name])
    axes.set_title(
        f"Gallery search: time\n{report['dim']} values a row, one core, {report['probes']} probes an engine\n"
        "dots: median, bars: up to the 95th percentile"
    )
    axes.set_ylabel("milliseconds per probe")
    _finish(figure, axes, directory / "gallery_ms_p50.png")
    figure = new_figure((8, 6))
    axes = figure.subplots()
    for names, (rows, count) in alike({name: _curve(sizes, name, "bytes") for name in sizes[0]["engines"]}):
        axes.plot(rows, count, marker="o", label="\nand ".join(ENGINE_WORDS[name] for name in names))
    axes.set(title=f"Gallery search: memory read\n{report['dim']} values a row")
    axes.set_ylabel("bytes read per probe")
    _finish(figure, axes, directory / "gallery_bytes.png")


def alike(curves: Mapping[str, Curve]) -> list[tuple[list[str], Curve]]:
    """Group curves that would hide each other: of equal rows, figures within `SAME`; the first is drawn."""
    groups: list[tuple[list[str], Curve]] = []
    for name, (rows, figures) in curves.items():
        for names, (other_rows, others) in groups:
            shared = [b / a for a, b in zip(others, figures, strict=False)]
            if rows == other_rows and all(1 / SAME <= ratio <= SAME for ratio in shared):
                names.append(name)
                break
        else:
            groups.append(([name], (rows, figures)))
    return groups


def _curve(sizes: Sequence[dict[str, Any]], name: str, key: str) -> Curve:
    """Return the rows at which an engine was measured, and its figures there."""
    measured = [(size["rows"], size["engines"][name][key]) for size in sizes if name in size["engines"]]
    return [rows for rows, _ in measured], [figure for _, figure in measured]


def _finish(figure: Any, axes: Any, path: Path) -> None:
    axes.set(xlabel="rows (templates in the gallery)", xscale="log", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=9)
    save(figure, path)


def measure_gallery(rows: int, dim: int, rounds: int) -> dict[str, Any]:
    """Search `rows` synthetic templates of `dim` values, one per subject; returns the figures as JSON values.

    `rounds` is how often it is every engine's turn, for `BURST` probes. Half of the probes are subjects, half
    are strangers. `agreement` is the share of probes for which an engine names whom exact float32 names;
    `floor_ratio` compares with just reading the int8 rows.
    """
    gallery = synthetic_gallery(rows, dim)
    quantized = QuantizedMatcher(gallery)
    probes = synthetic_probes(gallery.matrix, (rounds + WARM_UP) * BURST)
    engines = _engines(gallery, quantized)
    found: dict[str, list[int | None]] = {name: [] for name in engines}
    spent_ms: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(0, len(probes), BURST):
        for name, engine in engines.items():
            engine.search(probes[number - 1])  # not timed: the engine before left its rows in the caches
            for probe in probes[number : number + BURST]:
                begun_s = perf_counter()
                answer = engine.search(probe)
                spent_ms[name].append((perf_counter() - begun_s) * 1e3)
                found[name].append(answer)
    floor_ms = _middle(spent_ms["read_floor"])
    figures = {
        name: {
            **_percentiles(spent_ms[name]),
            "bytes": engine.nbytes,
            "floor_ratio": round(_middle(spent_ms[name]) / floor_ms, 2),
            "agreement": _agreement(found[name], found["numpy_float32"]),
        }
        for name, engine in engines.items()
    }
    return {
        "rows": rows,
        "dim": dim,
        "probes": rounds * BURST,
        "engines": figures,
        "scoped": _scoped(quantized, probes),
        "changes": _changes(quantized, probes),
    }


def synthetic_gallery(rows: int, dim: int) -> Gallery:
    """Return a gallery of random unit rows, each of a subject of its own."""
    generator = np.random.default_rng(rows)
    matrix = np.empty((rows, dim), np.float32)
    for start in range(0, rows, PIECE):
        piece = matrix[start : start + PIECE]
        generator.standard_normal(out=piece, dtype=np.float32)
        piece /= np.linalg.norm(piece, axis=1, keepdims=True)
    subjects = tuple(Subject(f"p-{number}", "") for number in range(rows))
    told = Provenance(QUALITY, "photo", AT)
    return Gallery(0, MODEL_ID, subjects, (1,) * rows, (told,) * rows, matrix)


def synthetic_probes(matrix: FloatArray, count: int) -> list[FloatArray]:
    """Return probes, alternately of a row's subject, at `GENUINE_COSINE`, and of a stranger."""
    generator = np.random.default_rng(len(matrix) + 1)
    strangers = generator.standard_normal((count, matrix.shape[1]), np.float32)
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    rows = matrix[generator.integers(0, len(matrix), count)]
    away = strangers - np.vecdot(strangers, rows)[:, None] * rows
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    known = np.float32(GENUINE_COSINE) * rows + np.float32(sqrt(1 - GENUINE_COSINE**2)) * away
    return [strangers[number] if number % 2 else known[number] for number in range(count)]


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on one core, where the system can: libraries with threads gain nothing."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _engines(gallery: Gallery, quantized: QuantizedMatcher) -> dict[str, Engine]:
    matrix, codes = gallery.matrix, quantized.rows.codes
    words = codes.reshape(-1)[: codes.size // 8 * 8].view(np.int64)

    def read(probe: FloatArray) -> None:
        np.bitwise_xor.reduce(words)

    engines = {
        "read_floor": Engine(codes.nbytes, read),
        "int8": Engine(quantized.rows.nbytes, _by(quantized)),
        "dense": Engine(matrix.nbytes, _by(DenseMatcher(gallery))),
        "numpy_float32": Engine(matrix.nbytes, lambda probe: int((matrix @ probe).argmax())),
    }
    if len(matrix) <= DISTANCE_ROWS:
        doubles = matrix.astype(np.float64)
        # Its arguments are, as documented, a list of known encodings and one encoding.
        for name, known in (("face_distance", list(doubles)), ("face_distance_array", doubles)):
            engines[name] = Engine(doubles.nbytes, partial(_distance, known))
    return engines


def _distance(known: Any, probe: FloatArray) -> int:
    """Return the row at the least distance, by the formula of `face_recognition.face_distance` 1.3.0."""
    return int(np.linalg.norm(known - probe.astype(np.float64), axis=1).argmin())


def _by(matcher: Matcher, allowed: Mask | None = None) -> Callable[[FloatArray], int | None]:
    """Return a search that answers with the number of the best subject's row."""

    def search(embedding: FloatArray) -> int | None:
        best = matcher.match(Probe(embedding, MODEL_ID, QUALITY), allowed).best
        return None if best is None else int(best.subject.subject_id.removeprefix("p-"))

    return search


def _scoped(matcher: QuantizedMatcher, probes: Sequence[FloatArray]) -> dict[str, Any]:
    """Time searches for a share of the subjects, beside one for all of them."""
    size = matcher.gallery.size
    draws = np.random.default_rng(0).random(size)
    searches = {"all": _by(matcher)}
    searches |= {name: _by(matcher, draws < share) for name, share in SCOPES.items()}
    spent_ms: dict[str, list[float]] = {name: [] for name in searches}
    for probe in probes:
        for name, search in searches.items():
            begun_s = perf_counter()
            search(probe)
            spent_ms[name].append((perf_counter() - begun_s) * 1e3)
    return {name: _percentiles(spent) for name, spent in spent_ms.items()}


def _changes(matcher: QuantizedMatcher, probes: Sequence[FloatArray]) -> dict[str, float]:
    """Time rows that are added and removed one by one; microseconds, the mean of all, copies included."""
    rows = matcher.rows
    count = max(CHANGES, int(len(rows) * CHANGED_SHARE))
    gone: NDArray[np.intp] = np.random.default_rng(0).integers(0, len(rows), (count, 1))
    begun_s = perf_counter()
    for number in range(count):
        rows = rows.appended(probes[number % len(probes)][None])
    added_s = perf_counter() - begun_s
    begun_s = perf_counter()
    for row in gone:
        rows = rows.without(row)
    removed_s = perf_counter() - begun_s
    return {
        "append_us": round(added_s / count * 1e6, 2),
        "remove_us": round(removed_s / count * 1e6, 2),
    }


def _agreement(answers: Sequence[int | None], exact: Sequence[int | None]) -> float | None:
    """Return the share of equal answers, None for an engine that gives none."""
    if answers[0] is None:
        return None
    return sum(a == b for a, b in zip(answers, exact, strict=True)) / len(exact)


def _percentiles(spent_ms: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(spent_ms[WARM_UP * BURST :], (50, 95))
    return {"ms_p50": round(float(p50), 4), "ms_p95": round(float(p95), 4)}


def _middle(spent_ms: Sequence[float]) -> float:
    return float(np.median(spent_ms[WARM_UP * BURST :]))
