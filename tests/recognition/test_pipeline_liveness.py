"""The pipeline with a liveness network on real clips: match, spoof, report, and when the network fails."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.camera.clips import ReplayCamera
from edge.core.clock import SystemClock
from edge.core.errors import ModelError
from edge.core.metrics import Metrics
from edge.core.types import EventType, FaceEvent, Frame, Image, LivenessCheck, Reason
from edge.device.assembly.recognizer import build_pipeline, build_recognizer
from edge.device.reports import info
from edge.device.settings.load import Settings, load
from edge.gallery.gallery import Gallery
from edge.lab.demo.device import enrolled
from edge.lab.photos.degrade import dim
from edge.recognition.recognizer import Recognizer
from edge.recognition.scene import describe
from tests.support.liveness import BLIND_BELOW, NAME, install, manifest, network

DARK = 0.75
"""Frames made darker by this factor: a face at 134 comes to 100, which the network takes for dead."""


@pytest.fixture(scope="module")
def gallery(media: Path) -> Gallery:
    nobody = build_recognizer(load(), Gallery.empty("none"))
    return enrolled(nobody, media, lambda what, done, total: None)


Made = tuple[Settings, Recognizer]


@pytest.fixture
def make(tmp_path: Path, gallery: Gallery) -> Callable[..., Made]:
    def build(policy: str, **options: Any) -> Made:
        model = str(install(tmp_path, network(**options)))
        settings = load(overrides={"liveness": {"policy": policy, "model": model, "threshold": 0.7}})
        return settings, build_recognizer(settings, gallery)

    return build


class Run:
    """One clip through a fresh pipeline. `shade` changes each image, by the number of its frame."""

    def __init__(self, made: Made, clip: Path, shade: Callable[[int], float] = lambda number: 1.0) -> None:
        settings, recognizer = made
        self.metrics = Metrics()
        pipeline = build_pipeline("front", settings, metrics=self.metrics, clock=SystemClock(), live=False)
        camera = ReplayCamera("front", clip, clock=SystemClock(), realtime=False)
        self.events: list[FaceEvent] = []
        camera.open()
        while (frame := camera.read()) is not None:
            image = (frame.image * shade(frame.number)).astype(np.uint8)
            shaded = Frame(frame.camera, image, frame.captured_at, frame.monotonic_s, frame.number)
            self.events += pipeline.process(shaded, recognizer)
        camera.close()
        self.events += pipeline.flush(recognizer)

    @property
    def told(self) -> list[tuple[str, str | None]]:
        return [(e.event_type.value, e.subject.subject_id if e.subject else None) for e in self.events]


def dark(number: int) -> float:
    return DARK


MATCHED = [("match", "p-man"), ("left", "p-man")]
SPOOFED = [("spoof", None), ("left", None)]


def test_a_live_face_is_matched_without_delay(make: Callable[..., Made], media: Path):
    run = Run(make("require"), media / "single_face.mp4")
    assert run.told == MATCHED
    match = run.events[0]
    assert match.shots.used == 2
    assert match.liveness.method == NAME
    assert match.liveness.score > 0.99
    assert run.metrics.percentiles_ms()["liveness"]["p50"] > 0


def test_a_face_that_is_not_alive_is_a_spoof_and_names_nobody(make: Callable[..., Made], media: Path):
    run = Run(make("require"), media / "single_face.mp4", dark)
    assert run.told == SPOOFED
    spoof = run.events[0]
    assert spoof.reason == Reason.SPOOF
    assert spoof.score.best >= spoof.score.threshold, "it would have been a match"
    assert spoof.liveness == LivenessCheck(NAME, pytest.approx(0, abs=0.01))
    assert spoof.shots.used == load().decision.max_shots
    assert describe(spoof).startswith(f"spoof {spoof.score.best:.2f} vs")
    assert describe(spoof).endswith("live 0.00")
    assert run.metrics.counts()["events.spoof"] == 1


def test_light_that_comes_later_does_not_turn_a_spoof_into_a_match(make: Callable[..., Made], media: Path):
    run = Run(make("require"), media / "single_face.mp4", lambda number: DARK if number < 40 else 1.0)
    assert run.told == SPOOFED


def test_a_poor_first_shot_costs_a_live_face_some_shots_and_no_more(make: Callable[..., Made], media: Path):
    run = Run(make("require"), media / "single_face.mp4", lambda number: 0.8 if number < 3 else 1.0)
    assert run.told == MATCHED
    assert run.events[0].shots.used == load().decision.max_shots
    assert 0.7 <= run.events[0].liveness.score < 0.95


@pytest.mark.parametrize(
    ("shade", "low", "high"), [(lambda number: 1.0, 0.99, 1.0), (dark, 0.0, 0.01)], ids=["alive", "dark"]
)
def test_report_tells_the_score_and_decides_nothing(
    make: Callable[..., Made], media: Path, shade: Callable[[int], float], low: float, high: float
):
    run = Run(make("report"), media / "single_face.mp4", shade)
    assert run.told == MATCHED
    assert {e.liveness.method for e in run.events} == {NAME}
    assert all(low <= e.liveness.score <= high for e in run.events)


def test_off_loads_nothing_and_says_none(make: Callable[..., Made], media: Path):
    made = make("off")
    assert made[1].liveness is None
    run = Run(made, media / "single_face.mp4", dark)
    assert run.told == MATCHED
    assert {e.liveness for e in run.events} == {LivenessCheck("none", None)}
    assert "liveness" not in run.metrics.percentiles_ms()


def test_a_stranger_is_rejected_and_the_score_is_told(make: Callable[..., Made], media: Path):
    run = Run(make("require"), media / "WolfgangLanger_Pexels.mp4")
    assert run.told == [("reject", None), ("left", None)]
    assert run.events[0].reason == Reason.BELOW_THRESHOLD
    assert 0 <= run.events[0].liveness.score <= 1


def test_a_network_that_fails_lets_nobody_in_and_is_told_once(
    make: Callable[..., Made], media: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.ERROR):
        run = Run(make("require", blind_below=BLIND_BELOW), media / "single_face.mp4", dark)
    assert run.told == [("no_decision", None), ("left", None)]
    told = run.events[0]
    assert told.reason == Reason.LOW_QUALITY
    assert told.liveness == LivenessCheck(NAME, None)
    assert told.shots.used == 0
    failed = run.metrics.counts()["liveness.failed"]
    assert told.shots.refused["liveness"] == failed > 1
    assert failed < told.shots.seen / 2, "not tried in every frame"
    assert "embed" not in run.metrics.percentiles_ms()
    [line] = [record for record in caplog.records if "liveness" in record.message]
    assert (
        line.message
        == f"liveness cannot be measured: {NAME}: the network answered with values that are not finite"
    )


def test_a_network_that_fails_now_and_then_costs_shots_not_the_visit(make: Callable[..., Made], media: Path):
    run = Run(
        make("require", blind_below=BLIND_BELOW),
        media / "single_face.mp4",
        lambda number: 1.0 if number % 12 > 5 else DARK,
    )
    assert run.told == MATCHED
    assert run.events[0].shots.refused["liveness"] >= 1
    assert run.events[0].liveness.score > 0.99


def test_a_network_that_fails_spoils_no_report(make: Callable[..., Made], media: Path):
    run = Run(make("report", blind_below=BLIND_BELOW), media / "single_face.mp4", dark)
    assert run.told == MATCHED
    assert run.events[0].liveness == LivenessCheck(NAME, None)
    assert run.metrics.counts()["liveness.failed"] == 2


def test_a_rule_without_its_model_lets_nobody_in(make: Callable[..., Made], media: Path, gallery: Gallery):
    settings, _ = make("require")
    unarmed = build_recognizer(load(), gallery)
    run = Run((settings, unarmed), media / "single_face.mp4")
    assert run.told == [("no_decision", None), ("left", None)]


def test_the_recognizer_scores_a_detection(make: Callable[..., Made], media: Path):
    settings, recognizer = make("report")
    camera = ReplayCamera("front", media / "single_face.mp4", clock=SystemClock(), realtime=False)
    camera.open()
    image = camera.read().image
    camera.close()
    [face] = recognizer.detect(image)
    assert recognizer.liveness_of(image, face) > 0.99
    assert recognizer.liveness_of((image * DARK).astype(np.uint8), face) < 0.01
    assert (
        recognizer.with_gallery(Gallery.empty(recognizer.embedder.model_id)).liveness is recognizer.liveness
    )
    probe = recognizer.embed(recognizer.align(image, face), 0.25)
    assert probe.liveness == 0.25
    assert recognizer.identify(probe, SystemClock().now()).event_type == EventType.MATCH, (
        "whether a match counts, the visit says"
    )
    told = info(settings, recognizer, SystemClock())
    assert told.models["liveness"].sha256 == recognizer.liveness.networks[0].sha256
    assert (told.liveness, told.live_from) == ("report", None)


def test_a_dark_face_is_lifted_for_the_embedder_and_not_for_the_liveness(
    make: Callable[..., Made], man: Image
):
    _, recognizer = make("report")
    night = dim(man, 0.2)
    [face] = recognizer.detect(night)
    assert recognizer.align(night, face).quality.lifted > 3
    assert recognizer.liveness_of(night, face) < 0.01, "the network is shown what the camera saw"


def test_info_names_the_policy(make: Callable[..., Made]):
    told = info(*make("require"), SystemClock())
    assert (told.liveness, told.live_from) == ("require", 0.7)
    told = info(*make("off"), SystemClock())
    assert (told.liveness, told.live_from) == ("off", None)
    assert "liveness" not in told.models


def test_a_model_that_is_not_there_stops_the_start_unless_the_policy_is_off(tmp_path: Path, gallery: Gallery):
    table = {"policy": "require", "model": str(tmp_path / "none")}
    with pytest.raises(ModelError, match=r"none/manifest\.toml: cannot read the manifest"):
        build_recognizer(load(overrides={"liveness": table}), gallery)
    off = load(overrides={"liveness": table | {"policy": "off"}})
    assert build_recognizer(off, gallery).liveness is None


TOO_SMALL = """
[[fusion]]
with = []
min_face_px = 2000
face_px = [2000]
live_from = [0.0]
source = "made up"
"""


@pytest.fixture
def blind(tmp_path: Path, gallery: Gallery) -> Callable[[str], Made]:
    """A network that can tell no face of the clip from a picture."""

    def build(policy: str) -> Made:
        model = network()
        directory = install(tmp_path, model, manifest(model) + TOO_SMALL)
        settings = load(overrides={"liveness": {"policy": policy, "model": str(directory)}})
        return settings, build_recognizer(settings, gallery)

    return build


def test_who_is_too_far_to_be_told_from_a_picture_has_to_come_closer(
    blind: Callable[[str], Made], media: Path
):
    run = Run(blind("require"), media / "single_face.mp4")
    assert run.told == [("no_decision", None), ("left", None)]
    assert run.events[0].reason == Reason.TOO_SMALL
    assert run.events[0].shots.refused.keys() == {"size"}
    assert "liveness.failed" not in run.metrics.counts()


def test_a_report_of_who_is_too_far_is_null(blind: Callable[[str], Made], media: Path):
    run = Run(blind("report"), media / "single_face.mp4")
    assert run.told == MATCHED
    assert run.events[0].liveness == LivenessCheck(NAME, None)


def test_auto_reports_where_the_models_are_installed(tmp_path: Path, gallery: Gallery):
    table = {"policy": "auto", "model": str(tmp_path / NAME)}
    absent = load(overrides={"liveness": table})
    assert build_recognizer(absent, gallery).liveness is None
    assert info(absent, build_recognizer(absent, gallery), SystemClock()).liveness == "off"
    install(tmp_path)
    here = build_recognizer(absent, gallery)
    assert here.liveness.name == NAME
    told = info(absent, here, SystemClock())
    assert (told.liveness, told.live_from) == ("report", None)


def test_auto_serves_on_without_a_model_that_is_damaged(
    tmp_path: Path, gallery: Gallery, caplog: pytest.LogCaptureFixture
):
    (install(tmp_path) / f"{NAME}.onnx").write_bytes(b"x")
    settings = load(overrides={"liveness": {"policy": "auto", "model": str(tmp_path / NAME)}})
    with caplog.at_level(logging.ERROR):
        recognizer = build_recognizer(settings, gallery)
    assert recognizer.liveness is None
    assert "liveness is not reported: brightness: " in caplog.text
    assert info(settings, recognizer, SystemClock()).liveness == "off"


def test_all_networks_are_named_in_info(tmp_path: Path, gallery: Gallery):
    first = install(tmp_path / "a")
    model = network(alive_from=100)
    second = install(tmp_path / "b", model, manifest(model).replace(f'"{NAME}"', '"darkness"', 1))
    second = second.rename(tmp_path / "darkness")
    table = {"policy": "report", "model": [str(first), str(second)]}
    settings = load(overrides={"liveness": table})
    recognizer = build_recognizer(settings, gallery)
    models = info(settings, recognizer, SystemClock()).models
    assert models["liveness"].id.startswith(f"{NAME}@")
    assert models["liveness-2"].id.startswith("darkness@")
    assert recognizer.liveness.name == f"{NAME}+darkness"
