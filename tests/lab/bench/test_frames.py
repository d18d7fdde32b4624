"""The rival of the bench: at a smaller width it still says who it is; ratios compare the right runs."""

from pathlib import Path

import numpy as np

from edge.camera.photo import read_photo
from edge.core.metrics import Metrics
from edge.device.settings.load import load
from edge.face.manifest import installed_path, load_manifest
from edge.lab.bench.frames import (
    EMBEDDERS,
    RIVAL,
    RIVAL_AT_RANGE,
    RIVAL_THRESHOLD,
    OpenCVLoop,
    Run,
    _sum_up,
)
from edge.lab.bench.scenes import Cutout, paste


def test_the_rival_recognises_who_it_knows_in_frames_that_it_reduces(media: Path):
    models = load().models_path
    rival = OpenCVLoop(
        installed_path(load_manifest("yunet-2023mar"), models),
        installed_path(load_manifest("sface"), models),
        RIVAL_THRESHOLD,
    )
    photo = np.asarray(read_photo(media / "orl-s05-01.pgm").repeat(2, 0).repeat(2, 1))
    assert rival.enroll("five", photo)
    frame = np.full((1080, 1920, 3), 150, np.uint8)
    height, width = photo.shape[:2]
    cut = Cutout(photo, np.ones((height, width, 1), np.float32), 140.0, (width / 2, height / 2))
    paste(frame, cut, 140.0, 1500.0, 500.0)
    assert rival.process(frame) == ["five"]
    rival.width_px = 960
    assert rival.process(frame) == ["five"]


def test_the_ratio_at_equal_range_is_to_the_loop_of_equal_range():
    metrics = {name: Metrics() for name in EMBEDDERS}
    for each in metrics.values():
        each.record_ms("loop", 10.0)
        each.record_ms("far", 4.0)
        each.record_ms("detect", 5.9)
    ours = {name: [Run(1.0, 100, {"s"}), Run(1.0, 100, {"s"})] for name in EMBEDDERS}
    full, at_range = [Run(1.0, 5, {"s"})] * 2, [Run(1.0, 10, {"s"})] * 2
    told = _sum_up(ours | {RIVAL: full, RIVAL_AT_RANGE: at_range}, metrics)
    assert (told["times_opencv_loop"], told["times_at_equal_range"]) == (20.0, 10.0)
    assert told["own_overhead"]["sface-int8"] == 0.01
    told = _sum_up(ours | {RIVAL: full}, metrics)
    assert told["times_at_equal_range"] == 20.0, "it sees as far at full width only"
