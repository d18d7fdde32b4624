"""What the pictures may show: intervals that are known, no zero on a logarithm, no curve behind another."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.lab.bench.search import alike
from edge.lab.photos.plots import drawable, plot_det, plot_roc, resolved, share_interval


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.0, 10, 0.0, 0.2775), (0.5, 10, 0.2366, 0.7634), (1.0, 10, 0.7225, 1.0), (0.9, 50, 0.7864, 0.9565)],
)
def test_an_interval_is_wilsons(share: float, count: int, low: float, high: float):
    assert share_interval(share, count) == pytest.approx((low, high), abs=1e-4)


def test_an_interval_holds_its_share_and_narrows_with_the_count():
    for share in np.linspace(0, 1, 21):
        bounds = [share_interval(float(share), count) for count in (5, 50, 500)]
        assert all(0 <= low <= share <= high <= 1 for low, high in bounds)
        widths = [high - low for low, high in bounds]
        assert widths == sorted(widths, reverse=True)


def test_what_a_logarithm_cannot_show_is_left_out():
    x, y = np.array([0.0, 0.1, 0.5, 1.0]), np.array([0.4, 0.2, 0.0, 0.0])
    assert [column.tolist() for column in drawable(x, y, log_y=True)] == [[0.1], [0.2]]
    assert [column.tolist() for column in drawable(x, y, log_y=False)] == [[0.1, 0.5, 1.0], [0.2, 0.0, 0.0]]


def test_a_rate_below_one_case_has_no_point():
    tar = {"0.1": 1.0, "0.01": 0.9, "0.001": 0.8}
    assert resolved(tar, 1000) == tar
    assert resolved(tar, 520) == {"0.1": 1.0, "0.01": 0.9}
    assert resolved(tar, 9) == {}


def test_curves_that_would_hide_each_other_are_drawn_as_one():
    curves = {
        "reads": ([10, 100], [1000.0, 10_000.0]),
        "searches": ([10, 100], [1030.0, 10_300.0]),
        "floats": ([10, 100], [4000.0, 40_000.0]),
        "ends early": ([10], [4000.0]),
    }
    groups = alike(curves)
    assert [names for names, _ in groups] == [["reads", "searches"], ["floats"], ["ends early"]]
    assert groups[0][1] == curves["reads"]


def test_nobody_missed_is_drawn_too(tmp_path: Path):
    figures = {
        "n_subjects": 3,
        "n_genuine": 9,
        "n_unknown": 200,
        "n_pairs": 209,
        "tpir": {"0.01": 1.0},
        "tpir_interval": {"0.01": [1.0, 1.0]},
        "tar": {"0.01": 1.0},
    }
    shares = np.linspace(0, 1, 20)
    plot_det({"model": figures}, {"model": (shares, np.zeros(20))}, tmp_path / "det.png")
    plot_roc({"model": figures}, {"model": (shares, np.ones(20))}, tmp_path / "roc.png")
    for name in ("det", "roc"):
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5
