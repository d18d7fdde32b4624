"""What a device tells about itself: the threshold is the one that its decisions are made by."""

import json
from dataclasses import dataclass, field, replace
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
from edge.device.checkup import recognising
from edge.device.checkup.finding import Checkup
from edge.device.reports import Vitals, info, runs_elsewhere
from edge.device.settings.load import load
from edge.face.manifest import EXECUTION_PROVIDERS
from edge.gallery.gallery import Gallery
from edge.mqtt.contract.messages import LinkHealth, OutboxHealth
from edge.mqtt.contract.problems import DoorProblem
from edge.mqtt.delivery.sender import LIVE_LATE, LIVE_MISSED
from edge.recognition.recognizer import Recognizer
from tests.support.accelerator import BESIDE, lose
from tests.support.clock import SteppedClock
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
    looked_over = recognising.gallery(Checkup(settings, config_file=path))
    assert any("promised for adults" in finding.told for finding in looked_over)
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
    shift = info(settings, build_recognizer(settings), SystemClock()).shift
    assert shift is not None
    assert shift.look_alikes >= 10
    assert f"{shift.look_alikes} look like several others and need a higher score: p-20" in told
    said = f"for {shift.look_alikes} who look like several others up to +{shift.highest:.3f}"
    assert said in told
    assert said in invoke("check", config=path).output
    report = json.loads(invoke("gallery", "doctor", "--json", config=path).output)
    assert report["groups"] == [[f"p-{number}" for number in range(200, 210)]]


def test_a_raw_threshold_has_no_shift():
    settings = load(overrides={"decision": {"threshold": 0.5}})
    nobody = build_recognizer(settings, Gallery.empty("none"))
    recognizer = nobody.with_gallery(people(nobody.embedder.model_id))
    assert info(settings, recognizer, SystemClock()).shift is None


WELL = OutboxHealth(depth=0, oldest_s=0, dropped=0, undeliverable=0, durable=True)
LINK = LinkHealth(connected=True, protocol="5", connects=1)


@dataclass
class Watched:
    """The vitals of a daemon, its clock and counters, and what its board and time source say."""

    clock: SteppedClock = field(default_factory=SteppedClock)
    throttled: tuple[str, ...] | None = None
    synced: bool | None = True
    overtaken: int = 0

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.clock.monotonic)
        self.vitals = Vitals(
            self.metrics,
            Beats(self.clock.monotonic),
            self.clock,
            board=lambda: self.throttled,
            synced=lambda: self.synced,
        )

    def problems(self, outbox: OutboxHealth = WELL, others: tuple[str, ...] = ()) -> tuple[str, ...]:
        return self.vitals.health({}, {}, outbox, LINK, others).problems

    def look(self, looks: int, replaced: int, seconds: int) -> list[str]:
        """Return the problems after so many looks and frames overtaken a second, for some seconds."""
        for _ in range(seconds):
            self.clock.now_s += 1
            self.metrics.count("frames.front", looks)
            self.overtaken += replaced
            found = self.vitals.problems({"front": self.overtaken}, WELL)
        return found


@pytest.mark.parametrize(
    ("counter", "problem"),
    [
        ("far.behind.front", "far_search_behind"),
        ("frames.late.front", "frames_late"),
        ("liveness.failed", "liveness_failing"),
        ("live.missed", "live_missed"),
    ],
)
def test_what_happened_of_late_is_a_problem_for_two_minutes(counter: str, problem: str):
    door = Watched()
    assert door.problems() == ()
    door.metrics.count(counter, 3)
    assert door.problems(others=("clock_behind",)) == ("clock_behind", problem)
    door.clock.now_s = 119
    assert door.problems() == (problem,), "the next message does not hide it"
    door.clock.now_s = 121
    assert door.problems() == (), "none since"


def test_decisions_that_reach_nobody_are_problems():
    door = Watched()
    door.metrics.count(LIVE_LATE, 2)
    door.metrics.count(LIVE_MISSED, 2)  # late ones are missed ones
    assert door.problems() == ("live_late",)
    door.clock.now_s = 121
    assert door.problems() == (), "none since"
    ill = WELL.model_copy(update={"durable": False, "refused": True})
    assert door.problems(ill) == ("disk_refused", "journal_refused")
    assert door.problems() == (), "mended"


def test_decisions_that_take_longer_than_anybody_waits_are_a_problem_while_they_do():
    door = Watched()
    for _ in range(30):
        door.metrics.record_ms("capture_to_decision", 300)
    assert door.problems() == ()
    for _ in range(2):
        door.metrics.record_ms("capture_to_decision", 140_000)
    assert door.problems() == ("decisions_slow",)
    door.clock.now_s = 121
    door.metrics.record_ms("capture_to_decision", 300)
    assert door.problems() == ()


def test_a_camera_that_is_seldom_looked_at_though_it_gives_more_is_a_problem():
    door = Watched()
    assert door.look(15, 5, 200) == []
    assert door.look(2, 0, 200) == [], "it gives no more"
    assert door.look(2, 13, 100) == []
    assert door.look(2, 13, 40) == ["looks_seldom"]
    told = door.vitals.health({"front": None}, {"front": 0}, WELL, LINK).cameras["front"]
    assert (told.problems, told.looked_at_hz) == ((), pytest.approx(7.2, abs=1))
    assert door.look(15, 5, 20) == []


def test_a_clock_that_nobody_sets_is_a_problem_after_ten_minutes():
    door = Watched(synced=False)
    assert door.problems() == ()
    door.clock.now_s = 601
    assert door.problems() == ("clock_unsynced",)
    door.synced = None
    assert door.problems() == (), "nobody says"
    door.synced = True
    assert door.vitals.health({}, {}, WELL, LINK).clock == "synced"


def test_a_board_that_makes_itself_slower_is_a_problem():
    door = Watched()
    assert door.vitals.health({}, {}, WELL, LINK).device.throttled is None
    door.throttled, door.clock.now_s = ("under_voltage", "temperature"), 10
    told = door.vitals.health({}, {}, WELL, LINK)
    assert (told.problems, told.device.throttled) == (("throttled",), True)
    assert told.device.throttled_by == ("under_voltage", "temperature")
    assert told.remedies == {"throttled": DoorProblem.THROTTLED.remedy}


def test_a_site_shift_below_zero_counts_as_0_and_the_log_says_so(caplog: pytest.LogCaptureFixture):
    plain, lowered = (
        build_recognizer(load(overrides={"decision": {"site_shift": shift}}), Gallery.empty("none"))
        for shift in (0.0, -0.05)
    )
    assert lowered.rule.threshold_for(10) == plain.rule.threshold_for(10)
    assert caplog.text.count("decision.site_shift: a value below 0 counts as 0") == 1


def test_a_model_that_runs_on_another_provider_than_asked_for_is_a_problem(tmp_path: Path):
    on_cpu = load(overrides={"state_dir": tmp_path, "models_dir": load().models_path})
    asked = load(
        overrides={
            "state_dir": tmp_path,
            "models_dir": on_cpu.models_path,
            "recognition": {"providers": ["cuda", "cpu"], "provider_options": {"cuda": {"device_id": "0"}}},
        }
    )
    recognizer = build_recognizer(asked)
    told = info(asked, recognizer, SystemClock())
    assert set(told.execution_providers) == set(told.models) >= {"detector", "embedder"}
    assert set(told.execution_providers.values()) == {"CPUExecutionProvider"}
    assert runs_elsewhere(asked, recognizer) == [DoorProblem.PROVIDER_REFUSED]
    assert runs_elsewhere(on_cpu, recognizer) == []


def test_a_model_that_fails_on_an_accelerator_under_way_is_a_problem_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(EXECUTION_PROVIDERS, "cuda", BESIDE)
    settings = load(
        overrides={
            "state_dir": tmp_path,
            "models_dir": load().models_path,
            "recognition": {"providers": ["cuda"]},
        }
    )
    recognizer = build_recognizer(settings)
    assert runs_elsewhere(settings, recognizer) == []
    lose(recognizer.embedder._session)
    recognizer.self_test()
    told = info(settings, recognizer, SystemClock())
    assert (told.execution_provider, told.execution_providers["detector"]) == ("CPUExecutionProvider", BESIDE)
    assert runs_elsewhere(settings, recognizer) == [DoorProblem.PROVIDER_REFUSED]
