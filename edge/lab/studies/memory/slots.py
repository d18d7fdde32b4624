"""A memory of fixed size, as networks with an external memory have one, in place of a gallery that grows.

Each slot holds a key and whom it belongs to. A photo is written to the slot that was used least. A probe is
compared with all keys; attention, a softmax over the cosines, adds up what belongs to the same subject.

Source: Santoro et al., Meta-Learning with Memory-Augmented Neural Networks (2016): least recently
used access.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.core.types import FloatArray
from edge.lab.photos import rates
from edge.lab.photos.rates import Flags
from edge.lab.studies.memory.oneshot import Faces

PER_SUBJECT = (0.25, 1.0, 4.0)
PHOTOS = 4
"""Photos written of each subject, at most."""

SHARPNESS = 32.0
"""Factor of the cosines in the softmax. Source: Wang et al., NormFace (2017)."""

DECAY = 0.99
"""What a write leaves of all usage. Source: the paper's gamma, .95 to .99."""


@dataclass(slots=True, eq=False)
class SlotMemory:
    """`keys` float32 (M, D); `owners` (M,), -1 where a slot is empty; `usage` (M,)."""

    keys: FloatArray
    owners: NDArray[np.intp] = field(init=False)
    usage: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.owners = np.full(len(self.keys), -1, np.intp)
        self.usage = np.zeros(len(self.keys))

    def write(self, row: FloatArray, owner: int) -> None:
        """Write a photo (D,) of a subject to the slot used least; who had it is forgotten there."""
        place = int(self.usage.argmin())
        self.usage *= DECAY
        self.usage[place] = 1.0
        self.keys[place], self.owners[place] = row, owner

    def read(self, probes: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
        """Return for probes (N, D) whose attention is largest, and the largest cosine among their slots."""
        cosines = probes @ self.keys.T
        cosines[:, self.owners < 0] = -np.inf
        attention = np.exp(SHARPNESS * (cosines - cosines.max(axis=1, keepdims=True)))
        subjects, place = np.unique(self.owners, return_inverse=True)
        sums = np.zeros((len(probes), len(subjects)), np.float32)
        for slot, subject in enumerate(place):
            sums[:, subject] += attention[:, slot]
        chosen = subjects[sums.argmax(axis=1)]
        theirs = np.where(self.owners[None, :] == chosen[:, None], cosines, -np.inf)
        return chosen, theirs.max(axis=1)


def compare(faces: Faces, fpir: float) -> dict[str, Any]:
    """Return what memories of fixed size recognise, forget and cost, beside a gallery of the same photos.

    TPIR is that while the share `fpir` of the strangers passes. Subjects come one after the other, each with
    up to `PHOTOS` photos.
    """
    pools = [pool[:PHOTOS] for pool in faces.pools]
    probes, rows = np.concatenate(faces.probes), np.concatenate(pools)
    owners = np.repeat(np.arange(len(pools)), [len(pool) for pool in pools])
    scores = probes @ rows.T
    right = owners[scores.argmax(axis=1)] == faces.labels
    best, strangers = scores.max(axis=1), (faces.strangers @ rows.T).max(axis=1)
    gallery = {"rows": len(rows), "forgotten": 0.0, "bytes": rows.nbytes}
    report = {"gallery": gallery | _figures(right, best, strangers, fpir)}
    for share in PER_SUBJECT:
        memory = SlotMemory(np.zeros((max(1, int(share * len(pools))), rows.shape[1]), np.float32))
        for row, owner in zip(rows, owners, strict=True):
            memory.write(row, int(owner))
        chosen, best = memory.read(probes)
        left = np.isin(np.arange(len(pools)), memory.owners)
        report[f"{share:g} slots each"] = {
            "rows": len(memory.keys),
            "forgotten": round(1 - float(left.mean()), 4),
            "bytes": memory.keys.nbytes + memory.owners.nbytes + memory.usage.nbytes,
        } | _figures(chosen == faces.labels, best, memory.read(faces.strangers)[1], fpir)
    return report


def _figures(right: Flags, best: FloatArray, strangers: FloatArray, fpir: float) -> dict[str, float]:
    threshold = rates.threshold_at(strangers.astype(np.float64), fpir)
    tpir = rates.identified(best.astype(np.float64), right, threshold)
    return {"rank1": round(float(right.mean()), 4), "tpir": round(tpir, 4)}
