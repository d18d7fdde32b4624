"""The tail of the impostor scores against a distribution that is known exactly.

The cosine of two independent random directions of dimension D is 2 B - 1 with B ~ Beta((D-1)/2, (D-1)/2).
"""

import numpy as np
import pytest
from scipy.stats import beta

from edge.core.errors import MediaError
from edge.lab.photos.tail import Tail, fit_tail, impostor_scores, interval, measured_thresholds, site_shift
from tests.support.gallery_samples import unit_rows

DIM = 128
RATES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def true_rate(threshold: float) -> float:
    return float(beta.sf((threshold + 1) / 2, (DIM - 1) / 2, (DIM - 1) / 2))


def true_threshold(rate: float) -> float:
    return float(2 * beta.isf(rate, (DIM - 1) / 2, (DIM - 1) / 2) - 1)


def test_every_pair_is_scored_once_and_the_scores_fall():
    rows = unit_rows(4, DIM)
    expected = sorted((float(rows[i] @ rows[j]) for i in range(4) for j in range(i)), reverse=True)
    assert impostor_scores(rows) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("subjects", "least"), [pytest.param(150, 0.0), pytest.param(600, 1 / 3)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_fitted_threshold_keeps_its_promise_far_beyond_the_data(subjects: int, least: float, seed: int):
    # Of 150 subjects the fit may be too careful, never much too bold.
    tail = fit_tail(impostor_scores(unit_rows(subjects, DIM, seed=seed)))
    for rate in RATES:
        assert least < true_rate(tail.threshold_at(rate)) / rate < 2
        assert tail.rate_at(tail.threshold_at(rate)) == pytest.approx(rate, rel=1e-6)


def test_data_speaks_where_there_is_enough_of_it():
    scores = impostor_scores(unit_rows(300, DIM))
    tail = Tail(a=0.0, b=-1.0, c=0.0, start=0.0)  # an absurd fit that must not be asked
    thresholds = measured_thresholds(scores, (1e-1, 1e-2), tail, 100)
    assert [(scores >= threshold).mean() for threshold in thresholds] == pytest.approx([1e-1, 1e-2], rel=0.01)
    assert measured_thresholds(scores, (1e-5,), tail, 100) == [1.0]


def test_a_few_pairs_of_one_person_under_two_names_do_not_carry_the_tail_away():
    rows = unit_rows(400, DIM, seed=5)
    rows[1], rows[3] = rows[0], rows[2]  # two label errors
    tail = fit_tail(impostor_scores(rows))
    assert 0.4 < true_rate(tail.threshold_at(1e-5)) / 1e-5 < 2


def test_a_tail_that_bends_upwards_is_taken_for_a_line():
    ranks = np.arange(1, 20_001) / 20_000
    scores = -0.05 * np.log(ranks) + 0.01 * np.log(ranks) ** 2
    assert fit_tail(scores).c == 0


def test_the_interval_holds_what_is_true():
    held = 0
    for seed in range(10):
        rows = unit_rows(200, DIM, seed=seed)
        scores = impostor_scores(rows)
        thresholds = measured_thresholds(scores, RATES, fit_tail(scores), 100)
        low, high = interval(rows, RATES, 100)
        for rate, threshold, below, above in zip(RATES, thresholds, low, high, strict=True):
            assert below > 0
            assert above > 0
            held += threshold - below <= true_threshold(rate) <= threshold + above
    assert held >= 40  # of 50, nominally 47; the subsamples make the interval a little narrow


def test_too_few_pairs_are_refused():
    with pytest.raises(MediaError, match="give photos of 100 subjects"):
        fit_tail(impostor_scores(unit_rows(50, DIM)))


def test_a_site_whose_faces_are_more_alike_is_seen_in_its_shift():
    rates = (0.5, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)
    thresholds = [true_threshold(rate) for rate in rates]
    common = unit_rows(1, DIM, seed=99)
    rows = unit_rows(200, DIM, seed=7)
    alike = rows + 0.35 * common
    alike /= np.linalg.norm(alike, axis=1, keepdims=True)
    assert site_shift(rows, thresholds, rates) == pytest.approx(0, abs=0.02)
    shift = site_shift(alike, thresholds, rates)
    assert 0.05 < shift < 0.2
    others = unit_rows(2000, DIM, seed=8) + 0.35 * common
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    scores = impostor_scores(others)
    promised = true_threshold(1e-3)
    assert (scores >= promised).mean() > 3e-3
    assert 5e-4 < (scores >= promised + shift).mean() < 2e-3


def test_a_shift_needs_a_cohort():
    with pytest.raises(MediaError, match="20 or more"):
        site_shift(unit_rows(19, DIM), [0.1, 0.2], [0.1, 0.01])
