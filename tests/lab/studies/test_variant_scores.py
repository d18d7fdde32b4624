"""Each way of making a score, by hand, and nobody as his own judge."""

import cv2
import numpy as np
import pytest

from edge.face.embedder import align
from edge.face.manifest import load_manifest
from edge.gallery.gallery import SEVERAL_PHOTOS
from edge.lab.photos.rates import threshold_at
from edge.lab.studies.variant_scores import (
    VIEWS,
    AlignmentMethod,
    Flip,
    Fuse,
    Impostors,
    Norm,
    Variant,
    VariantStatistics,
    enrol,
    impostors,
    measure_statistics,
    present,
    robust_align,
    search,
)

BASELINE = Variant("baseline")
TEMPLATE = np.array(load_manifest("sface").alignment.points, np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def faces(*shape: int, seed: int = 0) -> np.ndarray:
    """Views of random faces, (*shape, len(VIEWS), 16)."""
    return unit(np.random.default_rng(seed).normal(size=(*shape, len(VIEWS), 16)))


def statistics(seed: int = 9, count: int = 40) -> VariantStatistics:
    return measure_statistics(BASELINE, faces(count, seed=seed))


def test_the_baseline_takes_the_aligned_face_as_it_is():
    views = faces(5)
    found = search(
        BASELINE,
        enrol(BASELINE, list(views[:, None]), statistics(), 3),
        present(BASELINE, views, statistics()),
        statistics(),
    )
    assert np.allclose(found, views[:, 0] @ views[:, 0].T, atol=1e-6)


@pytest.mark.parametrize(
    ("flip", "template_too", "probe_too"),
    [(Flip.NOWHERE, False, False), (Flip.TEMPLATE, True, False), (Flip.BOTH, True, True)],
)
@pytest.mark.parametrize("alignment", AlignmentMethod)
def test_the_mirrored_face_is_averaged_in_where_the_variant_says(
    alignment: AlignmentMethod, flip: Flip, template_too: bool, probe_too: bool
):
    variant = Variant("v", alignment=alignment, flip=flip)
    views = faces(3)
    plain = views[:, VIEWS.index((alignment, False))]
    both = unit(plain + views[:, VIEWS.index((alignment, True))])
    rows = enrol(variant, list(views[:, None]), statistics(), 3).rows
    assert np.allclose(rows, both if template_too else plain)
    assert np.allclose(present(variant, views, statistics()), both if probe_too else plain)


def test_centring_takes_the_mean_of_the_cohort_and_not_of_those_it_judges():
    variant = Variant("v", centred=True)
    cohort, views = faces(30) + np.float32(0.5), faces(4, seed=1)
    found = present(variant, views, measure_statistics(variant, cohort))
    assert np.allclose(found, unit(views[:, 0] - cohort[:, 0].mean(axis=0)), atol=1e-6)


@pytest.mark.parametrize("norm", [Norm.Z, Norm.S])
def test_a_norm_is_the_distance_from_the_cohorts_scores_in_their_deviations(norm: Norm):
    variant = Variant("v", norm=norm)
    cohort, views = statistics(), faces(6, seed=2)
    gallery = enrol(variant, list(views[:2, None]), cohort, 3)
    probes = present(variant, views[2:], cohort)
    found = search(variant, gallery, probes, cohort)
    for p in range(4):
        for t in range(2):
            score = float(probes[p] @ gallery.rows[t])
            by_template = cohort.probes @ gallery.rows[t]
            by_probe = cohort.templates @ probes[p]
            wanted = (score - by_template.mean()) / by_template.std()
            if norm is Norm.S:
                wanted = (wanted + (score - by_probe.mean()) / by_probe.std()) / 2
            assert found[p, t] == pytest.approx(wanted, abs=1e-4)


def test_the_adaptive_norm_looks_at_the_most_similar_of_a_large_cohort_only():
    cohort, views = statistics(count=500), faces(2, seed=2)
    variant = Variant("v", norm=Norm.ADAPTIVE)
    found = search(
        variant, enrol(variant, [views[:1]], cohort, 3), present(variant, views[1:], cohort), cohort
    )
    template, probe = views[0, 0], views[1, 0]
    near = [np.sort(cohort.probes @ row)[-200:] for row in (template, probe)]
    wanted = np.mean([(template @ probe - scores.mean()) / scores.std() for scores in near])
    assert found[0, 0] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("norm", Norm)
def test_impostor_pairs_of_a_cohort_leave_out_everybody_himself(norm: Norm):
    variant = Variant("v", norm=norm, flip=Flip.TEMPLATE)
    cohort = faces(12, seed=3)
    all_of_it = measure_statistics(variant, cohort)
    wanted = []
    for t in range(12):
        for p in range(12):
            if t == p:
                continue
            # Score t against p with statistics that know neither about t nor, on the other side, about p.
            score = float(all_of_it.probes[p] @ all_of_it.templates[t])
            by_template = np.delete(all_of_it.probes, t, axis=0) @ all_of_it.templates[t]
            by_probe = np.delete(all_of_it.templates, p, axis=0) @ all_of_it.probes[p]
            parts = [(score - scores.mean()) / scores.std() for scores in (by_template, by_probe)]
            wanted.append({Norm.NONE: score, Norm.Z: parts[0]}.get(norm, np.mean(parts)))
    found = impostors(variant, all_of_it)
    assert found.pairs == 132
    assert np.allclose(np.sort(found.highest), np.sort(wanted)[-len(found.highest) :], atol=1e-4)


@pytest.mark.parametrize("fmr", [1e-2, 1e-3, 7e-5])
def test_the_highest_scores_give_the_threshold_that_all_of_them_give(fmr: float):
    scores = np.random.default_rng(4).normal(size=50_000).astype(np.float32)
    assert Impostors.of(scores).threshold_at(fmr) == threshold_at(scores.astype(np.float64), fmr)


def test_several_photos_become_one_mean_or_a_row_each_and_count_as_in_a_gallery():
    photos = faces(1, 4)[0]
    rows = {
        fuse: enrol(Variant("v", photos=3, fuse=fuse), [photos, photos], statistics(), 3) for fuse in Fuse
    }
    mean = unit(photos[:3, 0].sum(axis=0))
    assert np.allclose(rows[Fuse.MEAN].rows, [mean, mean], atol=1e-6)
    assert np.allclose(rows[Fuse.ROWS].rows, np.tile(photos[:3, 0], (2, 1)))
    assert (rows[Fuse.MEAN].comparisons, rows[Fuse.ROWS].comparisons) == (2 * SEVERAL_PHOTOS, 6)
    probes = photos[3:, 0]
    found = search(Variant("v"), rows[Fuse.ROWS], probes, statistics())
    assert found.shape == (1, 2)
    assert found[0, 1] == pytest.approx((photos[:3, 0] @ probes[0]).max(), abs=1e-6)


def test_robust_alignment_ignores_one_landmark_that_is_far_off_and_least_squares_does_not():
    image = np.zeros((300, 300, 3), np.uint8)
    points = TEMPLATE * np.float32(2) + np.float32(20)
    for x, y in points:
        cv2.circle(image, (round(float(x)), round(float(y))), 4, (255, 255, 255), -1)
    wanted = align(image, points, TEMPLATE, (112, 112)).astype(int)
    points[2] += (35, 35)
    robust = robust_align(image, points, TEMPLATE, (112, 112)).astype(int)
    assert np.abs(robust - wanted).mean() < 0.5
    assert np.abs(align(image, points, TEMPLATE, (112, 112)).astype(int) - wanted).mean() > 1.5


def test_landmarks_that_coincide_have_no_robust_alignment_either():
    points = np.full((5, 2), 60, np.float32)
    with pytest.raises(ValueError, match="coincide"):
        robust_align(np.zeros((200, 200, 3), np.uint8), points, TEMPLATE, (112, 112))
