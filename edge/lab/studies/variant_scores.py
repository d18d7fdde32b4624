"""Ways to make a score from the same weights: mirrored faces, other alignment, centring, normalised scores.

Embeds many photos once, each face aligned in two ways and mirrored or not, into a cache like that of
`photos.embeddings`. Which subjects the statistics come from, and what the scores are worth, is told by
`variants`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.types import FloatArray, Image
from edge.face.embedder import align
from edge.gallery.gallery import worth
from edge.gallery.prototypes import photos_of, prototypes
from edge.lab.photos.embeddings import EmbeddingCache, PhotoEmbedder, centre, nearest_face
from edge.lab.photos.rates import Scores, threshold_at
from edge.recognition.recognizer import Recognizer


class AlignmentMethod(StrEnum):
    """How five landmarks become a similarity transform."""

    LEAST_SQUARES = "least squares"
    ROBUST = "robust"


VIEWS = tuple((way, mirrored) for way in AlignmentMethod for mirrored in (False, True))
"""What is embedded of each photo: an alignment, and whether the aligned face is mirrored."""

PhotoViews = Mapping[Path, FloatArray | None]
"""The embeddings (len(VIEWS), D) of each photo in the order of `VIEWS`, None where no face was found."""


def views_cache(directory: Path, model_id: str, dim: int) -> EmbeddingCache:
    """Return the cache of a model's views: one record per photo holds all of them."""
    return EmbeddingCache(directory / f"{model_id}.views-{len(VIEWS)}.cache", len(VIEWS) * dim)


def stacked(photos: Sequence[Path], views: PhotoViews) -> FloatArray:
    """Return the views (n, len(VIEWS), D) of those of the photos in which a face was found.

    Raises:
        MediaError: There is none.
    """
    found = [row for path in photos if (row := views[path]) is not None]
    if not found:
        raise MediaError(f"no face found in any of {len(photos)} photos; use photos that show one")
    return np.stack(found)


def robust_align(image: Image, landmarks: FloatArray, template: FloatArray, size: tuple[int, int]) -> Image:
    """Cut a face like `face.align.align`, by the similarity of least median of squares over (5, 2) landmarks.

    It follows the pairs of landmarks that agree best and lets the others lie where they fall. Falls back to
    least squares where the landmarks give no such transform. Source: Rousseeuw, Least Median of Squares
    Regression (1984), as implemented in OpenCV (LMEDS, seeded: the same landmarks give the same transform).
    """
    matrix, _ = cv2.estimateAffinePartial2D(landmarks, template, method=cv2.LMEDS)
    if matrix is None or not np.isfinite(matrix).all():
        return align(image, landmarks, template, size)
    crop = cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
    return crop.astype(np.uint8, copy=False)


def embed_views(
    photos: Sequence[Path],
    embedder: PhotoEmbedder,
    template: FloatArray,
    cache: EmbeddingCache,
    progress: Progress,
) -> dict[Path, FloatArray | None]:
    """Return all views of the face nearest the centre of each photo; `template` (5, 2) is the embedder's.

    No quality gate.

    Raises:
        MediaError, ClusterError: As for `PhotoEmbedder.each`.
    """
    rows = embedder.remembered(photos, partial(_views, template), cache, progress)
    return {path: None if row is None else row.reshape(len(VIEWS), -1) for path, row in rows.items()}


def _views(template: FloatArray, image: Image, recognizer: Recognizer) -> FloatArray | None:
    """Return the views of the face nearest the centre, one after the other (len(VIEWS) * D,)."""
    face = nearest_face(recognizer.detect(image), centre(image))
    if face is None:
        return None
    plain = recognizer.embedder.align(image, face.landmarks)
    size = (plain.shape[0], plain.shape[1])
    crops = {
        AlignmentMethod.LEAST_SQUARES: plain,
        AlignmentMethod.ROBUST: robust_align(image, face.landmarks, template, size),
    }
    rows = [
        recognizer.embedder.embed(np.ascontiguousarray(crops[way][:, ::-1]) if mirrored else crops[way])[0]
        for way, mirrored in VIEWS
    ]
    return np.concatenate(rows)


NEAREST = 200
"""Cohort members that the adaptive norm keeps, the most similar. Source: usual values are 100 to 500."""


KEPT = 0.02
"""Share of the impostor pairs, the highest, that thresholds are taken from."""

LEAST_KEPT = 100


class Flip(StrEnum):
    """Where the embedding of the mirrored face is averaged in."""

    NOWHERE = "nowhere"
    TEMPLATE = "template"
    BOTH = "both"


class Norm(StrEnum):
    """How a cosine is judged by the scores of a cohort of other subjects.

    Z: by the cohort's scores with the template. S: the mean of that and of the same for the probe. ADAPTIVE:
    S with the `NEAREST` of the cohort only. Source: Auckenthaler et al., Score Normalization for
    Text-Independent Speaker Verification Systems (2000); Matejka et al., Analysis of Score Normalization
    in Multilingual Speaker Recognition (2017).
    """

    NONE = "none"
    Z = "z-norm"
    S = "s-norm"
    ADAPTIVE = "adaptive s-norm"


class Fuse(StrEnum):
    """What several enrolled photos become: one mean, as many prototypes as pay, or a row each."""

    MEAN = "mean"
    GAIN = "by gain"
    ROWS = "all rows"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to enrol and to compare; the defaults are the baseline."""

    name: str
    alignment: AlignmentMethod = AlignmentMethod.LEAST_SQUARES
    flip: Flip = Flip.NOWHERE
    centred: bool = False
    norm: Norm = Norm.NONE
    photos: int = 1
    fuse: Fuse = Fuse.MEAN

    @property
    def calibrated_as(self) -> "Variant":
        """The variant whose statistics and calibration it takes: calibrations are of single photos."""
        return replace(self, name="", photos=1, fuse=Fuse.MEAN)

    @property
    def plain_cosine(self) -> bool:
        """Whether its scores are on the scale of the baseline, so that one calibration could serve both."""
        return not self.centred and self.norm is Norm.NONE


@dataclass(frozen=True, slots=True, eq=False)
class VariantStatistics:
    """What a variant takes from other subjects: means (D,), a cohort as templates and as probes (m, D)."""

    template_mean: FloatArray
    probe_mean: FloatArray
    templates: FloatArray
    probes: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class EnrolledRows:
    """Templates (rows, D), where each subject's rows start, and what the threshold rule counts."""

    rows: FloatArray
    starts: tuple[int, ...]
    comparisons: float


@dataclass(frozen=True, slots=True, eq=False)
class Impostors:
    """The highest scores of impostor pairs, and how many pairs there were."""

    highest: Scores
    pairs: int

    @staticmethod
    def of(scores: FloatArray) -> "Impostors":
        """Keep what thresholds are taken from of scores (n,)."""
        kept = min(len(scores), max(LEAST_KEPT, round(KEPT * len(scores))))
        highest = np.partition(scores, len(scores) - kept)[len(scores) - kept :]
        return Impostors(highest.astype(np.float64), len(scores))

    def threshold_at(self, fmr: float) -> float:
        """Return the lowest threshold that at most `fmr` of the pairs reach, `fmr` at most `KEPT`."""
        return threshold_at(self.highest, fmr * self.pairs / len(self.highest))


def measure_statistics(variant: Variant, cohort: FloatArray) -> VariantStatistics:
    """Measure a cohort's views (m, len(VIEWS), D), one photo per subject."""
    templates, probes = (
        _represent(variant, cohort, enrolled=True),
        _represent(variant, cohort, enrolled=False),
    )
    means = templates.mean(axis=0), probes.mean(axis=0)
    if variant.centred:
        templates, probes = _unit(templates - means[0]), _unit(probes - means[1])
    return VariantStatistics(*means, templates, probes)


def enrol(
    variant: Variant, subjects: Sequence[FloatArray], statistics: VariantStatistics, max_prototypes: int
) -> EnrolledRows:
    """Enrol the views (n, len(VIEWS), D) of each subject's first photos, as many as the variant takes."""
    found: list[FloatArray] = []
    comparisons = 0.0
    for views in subjects:
        photos = _represent(variant, views[: variant.photos], enrolled=True)
        if variant.centred:
            photos = _unit(photos - statistics.template_mean)
        rows = photos
        if variant.fuse is not Fuse.ROWS and len(photos) > 1:
            most = 1 if variant.fuse is Fuse.MEAN else max_prototypes
            rows = prototypes(photos, np.ones(len(photos), np.float32), most)
        found.append(rows)
        comparisons += sum(map(worth, photos_of(rows, photos)))
    starts = np.cumsum([0, *(len(rows) for rows in found[:-1])]).tolist()
    return EnrolledRows(np.concatenate(found), tuple(starts), comparisons)


def present(variant: Variant, views: FloatArray, statistics: VariantStatistics) -> FloatArray:
    """Return the embeddings (n, D) of probes, given as views (n, len(VIEWS), D)."""
    rows = _represent(variant, views, enrolled=False)
    return _unit(rows - statistics.probe_mean) if variant.centred else rows


def search(
    variant: Variant, gallery: EnrolledRows, probes: FloatArray, statistics: VariantStatistics
) -> FloatArray:
    """Return the score of each probe (n, D) with the best row of each subject, (n, subjects)."""
    scores = probes @ gallery.rows.T
    if variant.norm is not Norm.NONE:
        of_templates, of_probes = statistics.probes @ gallery.rows.T, statistics.templates @ probes.T
        scores = _normalised(variant.norm, scores, of_templates, of_probes)
    return np.asarray(np.maximum.reduceat(scores, gallery.starts, axis=1))


def impostors(variant: Variant, statistics: VariantStatistics) -> Impostors:
    """Compare every template of the cohort with every probe of other subjects in it: m (m - 1) pairs.

    Each is normalised by the cohort without itself.
    """
    raw = statistics.probes @ statistics.templates.T
    apart = ~np.eye(len(raw), dtype=bool)
    if variant.norm is Norm.NONE:
        return Impostors.of(raw[apart])

    def others(scores: FloatArray) -> FloatArray:
        """Drop the diagonal of (m, m): each column without its own row."""
        return np.ascontiguousarray(scores.T[apart].reshape(len(raw), -1).T)

    return Impostors.of(_normalised(variant.norm, raw, others(raw), others(raw.T))[apart])


def calibrate_all(
    variants: Sequence[Variant], cohort: FloatArray
) -> dict[Variant, tuple[VariantStatistics, Impostors]]:
    """Return what each variant takes from a cohort's views (m, len(VIEWS), D), by `calibrated_as`."""
    found = {}
    for kind in dict.fromkeys(variant.calibrated_as for variant in variants):
        statistics = measure_statistics(kind, cohort)
        found[kind] = statistics, impostors(kind, statistics)
    return found


def _represent(variant: Variant, views: FloatArray, *, enrolled: bool) -> FloatArray:
    """Return one embedding per photo (n, D), averaged with the mirrored face's where the variant says so."""
    plain = views[:, VIEWS.index((variant.alignment, False))]
    if variant.flip is Flip.BOTH or (variant.flip is Flip.TEMPLATE and enrolled):
        return _unit(plain + views[:, VIEWS.index((variant.alignment, True))])
    return plain


def _unit(rows: FloatArray) -> FloatArray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def _normalised(norm: Norm, raw: FloatArray, of_templates: FloatArray, of_probes: FloatArray) -> FloatArray:
    """Return scores (n, rows) normalised by those of the cohort (m, rows) and (m, n); not for `Norm.NONE`."""
    if norm is Norm.ADAPTIVE:
        of_templates, of_probes = _nearest(of_templates), _nearest(of_probes)
    by_template = (raw - of_templates.mean(axis=0)) / of_templates.std(axis=0)
    if norm is Norm.Z:
        return np.asarray(by_template, np.float32)
    by_probe = (raw - of_probes.mean(axis=0)[:, None]) / of_probes.std(axis=0)[:, None]
    return np.asarray((by_template + by_probe) / 2, np.float32)


def _nearest(scores: FloatArray) -> FloatArray:
    kept = min(NEAREST, len(scores))
    return np.asarray(np.partition(scores, len(scores) - kept, axis=0)[len(scores) - kept :])
