"""Error rates against cases computed by hand and against a plain, slow reading of the definitions."""

import numpy as np
import pytest
import sklearn.metrics

from edge.lab.photos import rates

INF = float("inf")


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


@pytest.mark.parametrize(
    ("rate", "accepted"), [(0.0, 0), (0.05, 0), (0.1, 1), (0.19, 1), (0.2, 2), (0.5, 5), (1.0, 10)]
)
def test_a_threshold_lets_at_most_that_share_of_strangers_in(rate: float, accepted: int):
    strangers = np.arange(10) / 10
    assert (strangers >= rates.threshold_at(strangers, rate)).sum() == accepted


def test_equal_scores_are_never_split():
    strangers = array(0.5, 0.5, 0.5, 0.1)
    assert rates.accepted(strangers, rates.threshold_at(strangers, 0.5)) == 0


def test_without_strangers_no_threshold_can_be_set():
    with pytest.raises(ValueError, match="no strangers"):
        rates.threshold_at(array(), 0.1)


def test_a_wrong_name_and_a_missing_face_are_misses_at_any_threshold():
    best, right = array(0.9, 0.8, 0.7, -INF), np.array([True, False, True, False])
    assert rates.identified(best, right, -INF) == 0.5
    assert rates.identified(best, right, 0.75) == 0.25


def test_tpir_at_an_fpir_by_hand():
    best, right = array(0.9, 0.6, 0.5, 0.3), np.array([True, True, False, True])
    strangers = array(*[0.1] * 8, 0.4, 0.55)
    assert rates.tpir_at(best, right, strangers, 0.0).value == 0.5
    assert rates.tpir_at(best, right, strangers, 0.1).value == 0.5
    assert rates.tpir_at(best, right, strangers, 0.2).value == 0.75


def test_the_interval_holds_the_value_and_narrows_with_more_probes():
    generator = np.random.default_rng(0)

    def interval(count: int) -> rates.Rate:
        best = generator.normal(0.6, 0.1, count)
        return rates.tpir_at(best, np.ones(count, bool), generator.normal(0.2, 0.1, count), 0.01)

    few, many = interval(100), interval(4000)
    assert few.low <= few.value <= few.high
    assert many.high - many.low < (few.high - few.low) / 2


def test_the_det_curve_is_the_definition_at_every_threshold():
    generator = np.random.default_rng(1)
    best, right = generator.normal(0.6, 0.2, 200), generator.random(200) < 0.95
    strangers = generator.normal(0.3, 0.15, 300)
    fpir, fnir = rates.det_curve(best, right, strangers)
    for index in (0, 50, 299):
        threshold = np.sort(strangers)[index]
        assert fpir[index] == pytest.approx((strangers >= threshold).mean())
        assert fnir[index] == pytest.approx(1 - (right & (best >= threshold)).mean())


def test_the_roc_curve_is_the_definition_and_runs_from_nothing_to_everything():
    generator = np.random.default_rng(2)
    genuine, impostor = generator.normal(0.6, 0.2, 100), generator.normal(0.1, 0.2, 100)
    far, tar = rates.roc_curve(genuine, impostor)
    assert (far[0], tar[0], far[-1], tar[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(far) >= 0)
    area = float(np.trapezoid(tar, far))
    wins = float((genuine[:, None] > impostor[None]).mean())  # the area is the chance to rank a pair rightly
    assert area == pytest.approx(wins, abs=1e-9)


def test_tar_at_far_by_hand():
    genuine, impostor = array(0.9, 0.7, 0.5, 0.2), array(*np.linspace(0, 0.6, 10))
    # Impostors end in .467 .533 .6: with none, one, two accepted the threshold is just above the next.
    assert rates.tar_at_far(genuine, impostor, 0.0) == 0.5
    assert rates.tar_at_far(genuine, impostor, 0.1) == 0.5
    assert rates.tar_at_far(genuine, impostor, 0.2) == 0.75


def test_the_best_threshold_lies_between_the_classes():
    scores, same = array(0.1, 0.2, 0.8, 0.9), np.array([False, False, True, True])
    assert rates.best_threshold(scores, same) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_is_as_good_as_trying_all(seed: int):
    generator = np.random.default_rng(seed)
    same = generator.random(80) < 0.5
    scores = generator.normal(np.where(same, 0.5, 0.3), 0.2)
    tried = max(((scores >= t) == same).mean() for t in [*scores, 2.0])
    assert ((scores >= rates.best_threshold(scores, same)) == same).mean() == pytest.approx(tried)


def test_folds_are_judged_by_the_others_threshold():
    scores = array(0.1, 0.9, 0.1, 0.9, 0.45, 0.55)
    same = np.array([False, True, False, True, True, False])
    folds = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]
    assert rates.fold_accuracy(scores, same, folds) == [1.0, 1.0, 0.0]


def test_the_curves_are_those_of_an_independent_implementation():
    generator = np.random.default_rng(11)
    genuine = np.round(generator.normal(0.6, 0.15, 700), 2)  # rounded: ties must be treated alike
    impostor = np.round(generator.normal(0.1, 0.1, 5000), 2)
    labels = np.concatenate([np.ones(len(genuine)), np.zeros(len(impostor))])
    scores = np.concatenate([genuine, impostor])
    far, tar, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    ours_far, ours_tar = rates.roc_curve(genuine, impostor)
    assert ours_far == pytest.approx(far)
    assert ours_tar == pytest.approx(tar)
    for wanted in (0.1, 0.01, 0.001):
        best = tar[far <= wanted].max()
        assert rates.tar_at_far(genuine, impostor, wanted) == pytest.approx(best)

    fpr, fnr, thresholds = sklearn.metrics.det_curve(labels, scores)
    det = dict(zip(np.round(thresholds, 6), zip(fpr, fnr, strict=True), strict=True))
    ours = rates.det_curve(genuine, np.ones(len(genuine), bool), impostor)
    for threshold, *point in zip(np.unique(impostor), *ours, strict=True):
        if (known := det.get(np.round(threshold, 6))) is not None:
            assert point == pytest.approx(known)
    assert len(det) > 20


def test_the_best_threshold_classifies_as_many_pairs_as_any():
    generator = np.random.default_rng(12)
    same = generator.random(400) < 0.5
    scores = np.where(same, generator.normal(0.5, 0.2, 400), generator.normal(0.2, 0.2, 400))
    far, tar, _ = sklearn.metrics.roc_curve(same, scores, drop_intermediate=False)
    best = (tar * same.sum() + (1 - far) * (~same).sum()).max() / len(same)
    assert ((scores >= rates.best_threshold(scores, same)) == same).mean() == pytest.approx(best)
