"""What a device tells about itself: the threshold is the one that its decisions are made by."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.core.access import Access, SubjectState
from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.core.threads import Beats
from edge.core.types import FloatArray, Probe, Subject
from edge.device.assembly.recognizer import build_recognizer
from edge.device.assembly.stores import gallery_store
from edge.device.reports import Vitals, info
from edge.device.settings.load import load
from edge.gallery.gallery import Gallery
from edge.mqtt.contract.messages import LinkHealth, OutboxHealth
from edge.mqtt.delivery.sender import LIVE_LATE
from edge.recognition.recognizer import Recognizer
from tests.support.command_line import invoke, write_config
from tests.support.gallery_samples import QUALITY, alike_rows, template, unit_rows

ROWS = unit_rows(100, seed=3)


def subject(number: int) -> Subject:
    """Return one of a hundred: ten serve this door, five of the others are suspended as well."""
    access = Access(SubjectState.SUSPENDED) if number >= 95 else Access()
    return Subject(f"p-{number}", "", ("here" if number < 10 else "elsewhere",), access)


def people(model_id: str) -> Gallery:
    return Gallery.empty(model_id).with_subjects(
        (subject(number), [template(row, model_id)]) for number, row in enumerate(ROWS)
    )


def deciding(recognizer: Recognizer, row: int) -> float:
    probe = Probe(ROWS[row], recognizer.embedder.model_id, QUALITY)
    decision = recognizer.identify(probe, datetime.now(UTC))
    assert decision.score is not None
    return decision.score.threshold


@pytest.mark.parametrize(
    ("groups", "admitted"), [((), 95), (("here",), 10), (("elsewhere",), 85), (("nowhere",), 0)]
)
def test_the_threshold_told_is_the_one_that_decides(groups: tuple[str, ...], admitted: int, tmp_path: Path):
    settings = load(overrides={"access": {"groups": groups}})
    nobody = build_recognizer(settings, Gallery.empty("none"))
    recognizer = nobody.with_gallery(people(nobody.embedder.model_id))
    told = info(settings, recognizer, SystemClock())
    assert recognizer.admission.scope(datetime.now(UTC))[0] == admitted
    assert told.gallery_size == 100
    if admitted:
        row = next(number for number in range(95) if not groups or subject(number).groups == groups)
        assert told.threshold == pytest.approx(deciding(recognizer, row), abs=1e-4)
    assert told.threshold == pytest.approx(recognizer.rule.threshold_for(admitted), abs=1e-4)


def test_check_and_doctor_tell_the_same_threshold(tmp_path: Path):
    directories = {"state_dir": tmp_path / "state", "models_dir": load().models_path}
    path = write_config(tmp_path, 'access.groups = ["here"]', **directories)
    settings = load(path)
    nobody = build_recognizer(settings, Gallery.empty("none"))
    gallery_store(settings).commit(people(nobody.embedder.model_id))
    expected = f"{nobody.rule.threshold_for(10):.3f}"
    checked = invoke("check", config=path)
    assert f"threshold  {expected} for 10 subjects" in checked.output, checked.output
    examined = invoke("gallery", "doctor", config=path)
    assert f"threshold {expected}" in examined.output, examined.output
    assert "10 may pass here now" in examined.output


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param(alike_rows(50, 0.3), "the 50 enrolled are 0.", id="look-alikes"),
        pytest.param(unit_rows(50), "the 50 enrolled are not more alike", id="as the calibration"),
        pytest.param(alike_rows(19, 0.3), "fewer than 20 people can be compared", id="too few"),
    ],
)
def test_info_check_and_doctor_tell_how_alike_the_enrolled_are(rows: FloatArray, says: str, tmp_path: Path):
    path = write_config(tmp_path, state_dir=tmp_path / "state", models_dir=load().models_path)
    settings = load(path)
    model_id = build_recognizer(settings, Gallery.empty("none")).embedder.model_id
    enrolled = Gallery.empty(model_id).with_subjects(
        (Subject(f"p-{number}", ""), [template(row, model_id)]) for number, row in enumerate(rows)
    )
    gallery_store(settings).commit(enrolled)
    recognizer = build_recognizer(settings)
    shift = info(settings, recognizer, SystemClock()).shift
    assert shift is not None
    plain = replace(recognizer.rule, gallery_shift=None).threshold_for(len(rows))
    threshold = recognizer.rule.threshold_for(len(rows))
    assert shift.value == pytest.approx(threshold - plain, abs=1e-4)
    if shift.gallery is not None:
        assert shift.low is not None
        assert shift.high is not None
        assert shift.low <= shift.gallery <= shift.high + 1e-4
    checked = invoke("check", config=path).output
    assert f"+{shift.value:.3f}: {says}" in checked
    assert "promised for adults" in checked
    examined = invoke("gallery", "doctor", config=path).output
    assert f"shift +{shift.value:.3f}: {says}" in examined
    assert "promised for adults" in examined
    report = json.loads(invoke("gallery", "doctor", "--json", config=path).output)
    assert report["shift"]["value"] == pytest.approx(shift.value, abs=1e-4)
    assert report["schema"] == "edge.gallery.doctor/1"


def test_the_doctor_names_look_alikes_in_a_mixed_gallery(tmp_path: Path):
    path = write_config(tmp_path, state_dir=tmp_path / "state", models_dir=load().models_path)
    settings = load(path)
    model_id = build_recognizer(settings, Gallery.empty("none")).embedder.model_id
    rows = [*unit_rows(200, seed=5), *alike_rows(10, 0.5, seed=6)]
    gallery_store(settings).commit(
        Gallery.empty(model_id).with_subjects(
            (Subject(f"p-{number}", ""), [template(row, model_id)]) for number, row in enumerate(rows)
        )
    )
    told = invoke("gallery", "doctor", config=path).output
    assert "10 subjects look alike: p-200, p-201, p-202, " in told
    report = json.loads(invoke("gallery", "doctor", "--json", config=path).output)
    assert report["groups"] == [[f"p-{number}" for number in range(200, 210)]]


def test_a_raw_threshold_has_no_shift():
    settings = load(overrides={"decision": {"threshold": 0.5}})
    nobody = build_recognizer(settings, Gallery.empty("none"))
    recognizer = nobody.with_gallery(people(nobody.embedder.model_id))
    assert info(settings, recognizer, SystemClock()).shift is None


def test_a_search_that_falls_behind_is_a_problem_until_it_keeps_up():
    metrics = Metrics()
    vitals = Vitals(metrics, Beats(), SystemClock())
    outbox = OutboxHealth(depth=0, oldest_s=0, dropped=0, undeliverable=0, durable=True)
    link = LinkHealth(connected=True, protocol="5", connects=1)
    assert vitals.health({}, {}, outbox, link).problems == ()
    metrics.count("far.behind.front", 3)
    assert vitals.health({}, {}, outbox, link, ["clock_behind"]).problems == (
        "clock_behind",
        "far_search_behind",
    )
    assert vitals.health({}, {}, outbox, link).problems == (), "it has kept up since"


def test_decisions_that_reach_nobody_are_problems():
    metrics, link = Metrics(), LinkHealth(connected=True, protocol="5", connects=1)
    vitals = Vitals(metrics, Beats(), SystemClock())
    well = OutboxHealth(depth=0, oldest_s=0, dropped=0, undeliverable=0, durable=True)
    assert vitals.health({}, {}, well, link).problems == ()
    metrics.count(LIVE_LATE, 2)
    assert vitals.health({}, {}, well, link).problems == ("live_late",)
    assert vitals.health({}, {}, well, link).problems == (), "none since"
    ill = well.model_copy(update={"durable": False, "refused": True})
    assert vitals.health({}, {}, ill, link).problems == ("disk_refused", "journal_refused")
    assert vitals.health({}, {}, well, link).problems == (), "mended"


def test_a_site_shift_below_zero_counts_as_0_and_the_log_says_so(caplog: pytest.LogCaptureFixture):
    plain, lowered = (
        build_recognizer(load(overrides={"decision": {"site_shift": shift}}), Gallery.empty("none"))
        for shift in (0.0, -0.05)
    )
    assert lowered.rule.threshold_for(10) == plain.rule.threshold_for(10)
    assert caplog.text.count("decision.site_shift: a value below 0 counts as 0") == 1
