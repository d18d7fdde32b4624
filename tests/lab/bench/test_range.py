"""The bench of range: its scenes show what they say; a far face is found with the search, not without it."""

import random
from pathlib import Path

import numpy as np
import pytest

from edge.device.settings.load import load
from edge.lab.bench.range import distance_m, measure_range, plot_range, range_tables
from edge.lab.bench.scenes import Cutout, Scene, paste, walk


def test_a_face_of_fifteen_centimetres_is_as_far_as_the_lens_says():
    assert distance_m(1920, 80) == pytest.approx(2.22, abs=0.01)
    assert distance_m(1920, 40) == pytest.approx(2 * distance_m(1920, 80))


def test_a_pasted_face_stands_where_it_should_and_may_leave_the_frame():
    face = Cutout(np.full((80, 80, 3), 250, np.uint8), np.ones((80, 80, 1), np.float32), 40.0, (40.0, 40.0))
    frame = np.zeros((200, 200, 3), np.uint8)
    paste(frame, face, 20.0, 100.0, 80.0)
    assert frame[80, 100].tolist() == [250, 250, 250]
    assert frame[20, 20].sum() == 0
    paste(frame, face, 20.0, -5.0, 250.0)


def test_far_faces_are_found_in_time_with_the_search_and_not_without(media: Path):
    report = measure_range(
        load(),
        people=3,
        images=None,
        progress=lambda *_: None,
        resolutions=["1080p"],
        sizes_px=(36,),
        visits=[("1080p", 60)],
    )
    far = next(row for row in report["rows"] if row["face_px"] == 36)
    assert far["found"]["share"] - far["found_reduced_only"]["share"] > 0.5
    nobody = next(row for row in report["rows"] if row["face_px"] is None)
    assert nobody["cost_ratio"] > 0
    [visit] = report["visits"]
    assert (visit["gallery"], visit["clips"], visit["wrong"]) == (3, 3, 0)
    assert visit["named"]["share"] > visit["named_reduced_only"]["share"]
    assert visit["ms_mean"] < visit["ms_mean_full_width"]
    assert [table.row_count for table in range_tables(report)] == [2, 1]


def test_scenes_are_made_of_another_clip(media: Path):
    report = measure_range(
        load(),
        people=1,
        images=None,
        progress=lambda *_: None,
        resolutions=["720p"],
        sizes_px=(),
        visits=(),
        clips=[media / "bikes.mp4"],
        seed=5,
    )
    assert (report["scenes"], report["seed"]) == (["bikes"], 5)
    [nobody] = report["rows"]
    assert nobody["search_ratio"] > 0
    assert 0 <= nobody["ms_shots"] < nobody["ms_mean"]


def test_who_walks_in_is_not_in_view_before_and_stands_behind_what_is_near():
    picture = np.full((400, 600, 3), 200, np.uint8)
    scene = Scene([picture] * 5, [[(0, 0, 600, 150)]] * 5)
    face = Cutout(np.zeros((80, 80, 3), np.uint8), np.ones((80, 80, 1), np.float32), 40.0, (40.0, 40.0))
    frames = list(walk(scene, face, 20, random.Random(1), 30))
    before, after = frames[:-30], frames[-30:]
    assert all(place is None and np.array_equal(frame.image, picture) for frame, place in before)
    assert all((frame.image[:150] == 200).all() for frame, _ in after)
    x, y = after[0][1]
    assert y > 150
    assert after[0][0].image[int(y), int(x)].tolist() == [0, 0, 0]


def test_the_plot_is_drawn(tmp_path: Path):
    rate = {"share": 0.5, "interval": (0.3, 0.7)}
    row = {"resolution": "720p", "face_px": 24, "distance_m": 4.9, "found": rate, "found_reduced_only": rate}
    plot_range({"people": 10, "rows": [row, {"resolution": "720p", "face_px": None}]}, tmp_path)
    assert (tmp_path / "range.png").stat().st_size > 5000
