"""The tracker as little physics: faces that stand, walk, cross, vanish and come back."""

import numpy as np
import pytest

from edge.core.types import Detection, Track
from edge.recognition.tracker import LOST_S, Tracker

FPS = 15


def face(x: float, y: float = 200.0, size: float = 80.0) -> Detection:
    box = np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2], np.float32)
    return Detection(box, np.zeros((5, 2), np.float32), 0.9)


def run(tracker: Tracker, scene: list[list[Detection]], start: int = 0) -> list[list[Track]]:
    return [tracker.update(faces, (start + i) / FPS) for i, faces in enumerate(scene)]


def ids(tracks: list[Track]) -> list[int]:
    return [track.track_id for track in tracks]


def test_a_face_that_stands_still_keeps_one_track():
    history = run(Tracker(), [[face(300)]] * 60)
    assert {i for tracks in history[1:] for i in ids(tracks)} == {1}
    assert history[-1][0].hits == 60


def test_a_single_sighting_is_not_reported():
    history = run(Tracker(), [[face(300)], *[[]] * 30])
    assert all(not tracks for tracks in history)


@pytest.mark.parametrize("speed_px", [2, 10, 25, 45])
def test_a_walking_face_keeps_one_track(speed_px: float):
    history = run(Tracker(), [[face(50 + speed_px * i)] for i in range(20)])
    assert {i for tracks in history[1:] for i in ids(tracks)} == {1}


def test_an_approaching_face_that_grows_keeps_one_track():
    history = run(Tracker(), [[face(300, size=30 * 1.08**i)] for i in range(30)])
    assert {i for tracks in history[1:] for i in ids(tracks)} == {1}


def test_jitter_of_the_detector_does_not_break_a_track():
    rng = np.random.default_rng(0)
    history = run(Tracker(), [[face(300 + rng.normal(0, 8), size=80 + rng.normal(0, 4))] for _ in range(100)])
    assert {i for tracks in history[1:] for i in ids(tracks)} == {1}


def test_two_faces_that_cross_keep_their_own_tracks():
    scene = [[face(100 + 12 * i, y=180), face(580 - 12 * i, y=230)] for i in range(40)]
    history = run(Tracker(), scene)
    first, last = history[1], history[-1]
    where = {track.track_id: float(track.box[0]) for track in last}
    assert len(first) == len(last) == 2
    rightwards = min(first, key=lambda track: float(track.box[0])).track_id
    assert where[rightwards] > max(value for key, value in where.items() if key != rightwards)


def test_a_face_hidden_for_a_moment_comes_back_to_its_track():
    hidden = int(LOST_S * FPS) - 2
    history = run(Tracker(), [*[[face(300)]] * 10, *[[]] * hidden, *[[face(310)]] * 5])
    assert ids(history[-1]) == [1]
    assert history[-1][0].detection is not None


def test_a_walking_face_hidden_for_a_moment_is_expected_further_on():
    walk = [[face(100 + 10 * i)] for i in range(30)]
    walk[12:18] = [[]] * 6
    assert ids(run(Tracker(), walk)[-1]) == [1]


def test_a_face_that_vanishes_ends_its_track_once():
    history = run(Tracker(), [*[[face(300)]] * 10, *[[]] * 30])
    ended = [track for tracks in history for track in tracks if track.ended]
    assert [track.track_id for track in ended] == [1]
    assert history[-1] == []


def test_a_face_that_returns_late_gets_a_new_track():
    history = run(Tracker(), [*[[face(300)]] * 10, *[[]] * 30, *[[face(300)]] * 5])
    assert ids(history[-1]) == [2]


def test_a_face_elsewhere_is_another_track_even_in_the_next_frame():
    history = run(Tracker(), [*[[face(100)]] * 5, *[[face(500)]] * 5])
    assert 2 in ids(history[-1])


def test_a_much_larger_face_at_the_same_place_is_another_track():
    history = run(Tracker(), [*[[face(300, size=40)]] * 5, *[[face(300, size=160)]] * 5])
    assert 2 in ids(history[-1])


def test_nobody_leaves_while_nothing_moves():
    tracker = Tracker()
    run(tracker, [[face(300)]] * 5)
    for i in range(5, 5 + 4 * FPS):
        (track,) = tracker.hold(i / FPS)
        assert not track.ended


def test_a_track_that_was_missed_is_not_kept_alive_by_stillness():
    tracker = Tracker()
    run(tracker, [*[[face(300)]] * 5, []])
    assert tracker.hold((6 / FPS) + LOST_S + 0.01)[0].ended


def test_a_face_that_was_not_looked_for_was_not_missed():
    tracker = Tracker()
    run(tracker, [[face(300)], [face(310)]])
    assert not tracker.unsure
    [unsearched] = tracker.update([], 2 / FPS, {1})
    assert (unsearched.detection, unsearched.searched) == (None, False)
    assert tracker.unsure, "the next frame has to say where the face is"
    [missed] = tracker.update([], 3 / FPS)
    assert (missed.detection, missed.searched) == (None, True)
    [seen] = tracker.update([face(340)], 4 / FPS)
    assert (seen.track_id, seen.searched) == (1, True)
    assert not tracker.unsure
