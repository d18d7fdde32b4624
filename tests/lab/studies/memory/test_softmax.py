"""The softmax head: on separable data, against an independent implementation, and with one more subject."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from edge.lab.studies.memory.softmax import SCALE, SoftmaxHead, train
from tests.support.gallery_samples import unit_rows

DIM = 16


def photos(subjects: int, each: int, *, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    faces = np.repeat(unit_rows(subjects, DIM, seed), each, axis=0)
    rows = faces + np.random.default_rng(seed + 1).standard_normal(faces.shape) * noise
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), np.repeat(np.arange(subjects), each)


def rank1(head: SoftmaxHead, rows: np.ndarray, labels: np.ndarray) -> float:
    return float((head.scores(rows, probability=False).argmax(axis=1) == labels).mean())


def test_separable_faces_are_learned_without_a_mistake_and_spare_logits_stay_silent():
    rows, labels = photos(20, 5, noise=0.02)
    head = train(SoftmaxHead.blank(30, DIM, 20), rows, labels)
    assert rank1(head, rows, labels) == 1
    probabilities = head.scores(rows, probability=True)
    assert probabilities.shape == (100, 20)
    assert probabilities[np.arange(100), labels].min() > 0.5
    assert head.logits(rows)[:, 20:].max() < head.logits(rows)[np.arange(100), labels].min()


def test_it_finds_what_an_independent_implementation_finds():
    rows, labels = photos(8, 12, noise=0.25, seed=3)
    decay = 0.02
    ours = train(SoftmaxHead.blank(8, DIM, 8), rows, labels, steps=3000, rate=0.02, decay=decay)
    # Its objective is the summed loss times C plus half the squared weights, on the same stretched inputs.
    theirs = LogisticRegression(C=1 / (decay * len(rows)), max_iter=5000, tol=1e-10).fit(SCALE * rows, labels)
    fresh, _ = photos(8, 50, noise=0.25, seed=3)
    assert ours.scores(fresh, probability=True) == pytest.approx(
        theirs.predict_proba(SCALE * fresh), abs=0.01
    )


def test_a_subject_with_many_photos_counts_no_more_than_one_with_few():
    rows, labels = photos(6, 1, noise=0.1, seed=4)
    crowd, theirs = photos(6, 60, noise=0.1, seed=4)
    mine = theirs == 2
    head = train(
        SoftmaxHead.blank(6, DIM, 6),
        np.concatenate([rows, crowd[mine]]),
        np.concatenate([labels, theirs[mine]]),
    )
    probes, wanted = photos(6, 30, noise=0.1, seed=4)
    assert rank1(head, probes, wanted) == 1


def test_the_same_photos_give_the_same_head():
    rows, labels = photos(5, 3, noise=0.1)
    first, second = (train(SoftmaxHead.blank(8, DIM, 5), rows, labels, steps=20) for _ in range(2))
    assert np.array_equal(first.weights, second.weights)


def test_a_mean_written_into_a_spare_logit_is_a_subject_at_once():
    rows, labels = photos(11, 4, noise=0.05, seed=6)
    old = labels < 10
    head = train(SoftmaxHead.blank(12, DIM, 10), rows[old], labels[old])
    grown = head.with_mean(rows[~old].mean(axis=0))
    assert rank1(grown, rows, labels) == 1
    assert np.array_equal(grown.weights[:10], head.weights[:10])
    with pytest.raises(ValueError, match="no spare logit"):
        grown.with_mean(rows[0]).with_mean(rows[0])


def test_fine_tuning_on_the_newcomer_alone_forgets_the_others():
    rows, labels = photos(11, 4, noise=0.05, seed=6)
    old = labels < 10
    head = train(SoftmaxHead.blank(12, DIM, 10), rows[old], labels[old])
    grown = train(head.with_logit(), rows[~old], labels[~old], steps=300, rate=0.05, decay=0.5)
    assert rank1(grown, rows[~old], labels[~old]) == 1
    assert rank1(grown, rows[old], labels[old]) < 0.9
