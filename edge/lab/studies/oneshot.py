"""Does one-shot remove the retraining? A gallery and a trained softmax head on the same photos and probes.

Half of each subject's photos are for enrolment or training, the other half are probes; subjects with a single
photo are strangers. Growth by one subject is measured in `growth`, the scoped list in `siamese`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.types import FloatArray
from edge.gallery.prototypes import prototypes
from edge.lab.photos import rates
from edge.lab.photos.rates import Flags, Scores
from edge.lab.studies.softmax import SoftmaxHead, train

FPIRS = (0.01, 0.001)
MEANS = (3, 5, 10)
HEADS = (1, 3, None)
"""Photos per subject that a head is trained with; None: all."""

LOOKUPS = 200
MIN_SUBJECTS = 10

Search = Callable[[FloatArray], FloatArray]
"""Embeddings (N, D) to the score of each subject (N, S)."""


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Embeddings: photos to enrol (n, D) and probes (m, D) of each subject, and one of each stranger."""

    pools: tuple[FloatArray, ...]
    probes: tuple[FloatArray, ...]
    strangers: FloatArray

    @property
    def labels(self) -> NDArray[np.intp]:
        """Subject of each probe, in the order of `probes`."""
        return np.repeat(np.arange(len(self.probes)), [len(rows) for rows in self.probes])


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to keep subjects: how they are searched, what they take, how long training took."""

    name: str
    search: Search
    rows: int
    bytes: int
    train_s: float


def split(everybody: Mapping[str, Sequence[Path]], embeddings: Mapping[Path, FloatArray | None]) -> Faces:
    """Divide photos into pools, probes and strangers; photos without a face are left out.

    Raises:
        MediaError: Fewer than `MIN_SUBJECTS` subjects with two photos, or strangers.
    """
    pools, probes, strangers = [], [], []
    for photos in everybody.values():
        rows = [row for path in photos if (row := embeddings[path]) is not None]
        if len(rows) == 1:
            strangers.append(rows[0])
        elif rows:
            pools.append(np.stack(rows[: len(rows) // 2]))
            probes.append(np.stack(rows[len(rows) // 2 :]))
    if min(len(pools), len(strangers)) < MIN_SUBJECTS:
        raise MediaError(
            f"{len(pools)} subjects with two photos or more and {len(strangers)} with one (strangers) are "
            f"too few; {MIN_SUBJECTS} of each are needed"
        )
    return Faces(tuple(pools), tuple(probes), np.stack(strangers))


def variants(faces: Faces, logits: int, max_prototypes: int, step: Progress) -> list[Variant]:
    """Return every way to keep the subjects of `faces`, trained where that is needed."""
    found = [_rows("1 template", [pool[:1] for pool in faces.pools])]
    found += [_rows(f"mean of {k}", [_mean(pool[:k]) for pool in faces.pools]) for k in MEANS]
    few = [prototypes(pool, np.ones(len(pool), np.float32), max_prototypes) for pool in faces.pools]
    found.append(_rows(f"1-{max_prototypes} prototypes", few))
    found.append(_rows("all photos as rows", faces.pools))
    for done, photos in enumerate(HEADS):
        step("training", done, len(HEADS))
        head, train_s = trained(faces.pools, logits, photos)
        name = f"softmax, {photos or 'all'} photo{'s' * (photos != 1)}"
        size = head.weights.nbytes + head.biases.nbytes
        found.append(Variant(name, by_logit(head), logits, size, train_s))
    step("training", len(HEADS), len(HEADS))
    return found


def trained(pools: Sequence[FloatArray], logits: int, photos: int | None) -> tuple[SoftmaxHead, float]:
    """Return a head trained on up to `photos` photos of each subject, and the seconds it took."""
    kept = [pool[:photos] for pool in pools]
    labels = np.repeat(np.arange(len(kept)), [len(rows) for rows in kept])
    started = time.perf_counter()
    head = train(SoftmaxHead.blank(logits, kept[0].shape[1], len(kept)), np.concatenate(kept), labels)
    return head, time.perf_counter() - started


def measure(faces: Faces, found: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Return rank-1, TPIR at FPIR, rows, bytes, training time and, taken in turn, ms per lookup of each."""
    report = {}
    times = lookup_ms({variant.name: variant.search for variant in found}, faces.strangers)
    for variant in found:
        best, right, strangers = open_set(faces, variant.search)
        report[variant.name] = {
            "rank1": round(float(right.mean()), 4),
            "tpir": {
                str(fpir): round(rates.identified(best, right, rates.threshold_at(strangers, fpir)), 4)
                for fpir in FPIRS
            },
            "rows": variant.rows,
            "bytes": variant.bytes,
            "ms_lookup": round(times[variant.name], 4),
            "train_s": round(variant.train_s, 2),
        }
    return report


def open_set(faces: Faces, search: Search) -> tuple[Scores, Flags, Scores]:
    """Return the best score of each probe, whether it named the right subject, and strangers' best scores."""
    found = search(np.concatenate(faces.probes))
    right = found.argmax(axis=1) == faces.labels
    strangers = search(faces.strangers).max(axis=1)
    return found.max(axis=1).astype(np.float64), right, strangers.astype(np.float64)


def lookup_ms(searches: Mapping[str, Search], embeddings: FloatArray) -> dict[str, float]:
    """Return the median milliseconds of one lookup of one embedding, all searches in turn."""
    spent: dict[str, list[float]] = {name: [] for name in searches}
    for round_number in range(LOOKUPS):
        row = embeddings[round_number % len(embeddings)][None]
        for name, search in searches.items():
            started = time.perf_counter()
            search(row)
            spent[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) * 1e3 for name, values in spent.items()}


def by_logit(head: SoftmaxHead) -> Search:
    """Return what scores embeddings by the logits of a head."""
    return lambda rows: head.scores(rows, probability=False)


def gallery_search(templates: Sequence[FloatArray]) -> Search:
    """Return a search by cosine; a subject scores what its best template does."""
    matrix = np.ascontiguousarray(np.concatenate(templates), np.float32)
    starts = np.cumsum([0, *(len(rows) for rows in templates[:-1])])
    if len(matrix) == len(templates):
        return lambda rows: rows @ matrix.T
    return lambda rows: np.maximum.reduceat(rows @ matrix.T, starts, axis=1)


def _rows(name: str, templates: Sequence[FloatArray]) -> Variant:
    count = sum(len(rows) for rows in templates)
    return Variant(name, gallery_search(templates), count, count * templates[0].shape[1] * 4, 0.0)


def _mean(rows: FloatArray) -> FloatArray:
    mean = rows.mean(axis=0, keepdims=True)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)
