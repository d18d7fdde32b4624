"""The real daemon on real clips against a real broker: what a building system hears, and when."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.publish as mqtt
import pytest

from edge.mqtt.contract.messages import EventPayload, HealthPayload, InfoPayload, StatePayload
from edge.mqtt.contract.problems import DoorProblem
from tests.e2e.device import ROOT, Device, notify_socket
from tests.support.accelerator import BESIDE
from tests.support.broker import Mosquitto, Subscriber, retained, subscriber
from tests.support.ports import free_port
from tests.support.streams import MjpegServer
from tests.support.waits import Stopwatch, wait_until

pytestmark = pytest.mark.e2e

MakeDevice = Callable[..., Device]


def clip(media: Path, name: str, *, loop: bool = False) -> str:
    return f'source = "{media / name}"' + ("\nloop = true" if loop else "")


def events(heard: Subscriber, kind: str, camera: str = "front") -> list[EventPayload]:
    return [EventPayload.model_validate_json(data) for data in heard.on(f"/camera/{camera}/{kind}")]


def journal_ids(heard: Subscriber) -> set[str]:
    return {event.event_id for event in events(heard, "journal")}


def test_the_enrolled_man_is_matched_and_leaves(mosquitto: Mosquitto, make_device: MakeDevice, media: Path):
    device = make_device(mosquitto.port, cameras={"front": clip(media, "face_noface.mov")})
    with subscriber(mosquitto.port) as heard:
        watch = Stopwatch()
        device.start()
        heard.wait(lambda: len(events(heard, "event")) >= 2)
        disturbed_ms = 1e3 * watch.disturbed_s
        heard.wait(lambda: len(journal_ids(heard)) >= 2)
        live, journal = events(heard, "event"), events(heard, "journal")
        states = [StatePayload.model_validate_json(data) for data in heard.on("/camera/front/state")]
        assert device.stop() == 0
        heard.wait(lambda: heard.on(f"{ROOT}/status")[-1:] == [b"offline"])
    assert [event.event_type for event in live] == ["match", "left"]
    assert [event.event_id for event in live] == [event.event_id for event in journal]
    assert [event.seq for event in live] == [1, 2]
    match = live[0]
    assert match.subject.id == "p-man"
    assert match.score.best > match.score.threshold
    assert match.score.gallery_size == 42
    assert match.shots.used == 2
    assert match.model.embedder == "sface-int8"
    assert 0 < match.latency_ms.capture_to_decision < 1000 + disturbed_ms
    assert not match.replayed
    assert match.visit == live[1].visit
    assert [len(state.present) for state in states][:3] == [0, 1, 0]
    assert states[-1].last.event_type == "match"
    assert states[-1].until is not None
    statuses = heard.on("/camera/front/status")
    assert b"online" in statuses
    assert statuses[-1] == b"offline"


def test_a_door_that_does_not_know_the_hour_opens_no_window_and_says_so(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    """The board's clock is behind what the door has known: as after a cut of the power without a network."""
    device = make_device(mosquitto.port, cameras={"front": clip(media, "face_noface.mov")})
    assert device.edge("subjects", "set", "p-man", "--window", "mon-sun 00:00-24:00").returncode == 0
    later = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    (device.state / "clock.json").write_text(json.dumps({"proven_at": later}))
    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: events(heard, "event"))
        heard.wait(lambda: heard.on(f"{ROOT}/health"))
        health = HealthPayload.model_validate_json(heard.on(f"{ROOT}/health")[0])
        decided = events(heard, "event")[0]
        assert device.stop() == 0
    assert (decided.event_type, decided.reason, decided.clock) == ("reject", "outside_window", "unsynced")
    assert (health.problems, health.clock) == (("clock_behind",), "unsynced")
    assert device.said("the clock says")


def test_an_accelerator_that_fails_under_way_costs_no_decision_and_is_told(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path, tmp_path: Path
):
    lost = tmp_path / "lost"
    device = make_device(
        mosquitto.port,
        cameras={"front": clip(media, "face_noface.mov", loop=True)},
        settings=('recognition.providers = ["cuda"]',),
        under=(sys.executable, "-m", "tests.support.accelerator", str(lost)),
    )

    def told() -> tuple[tuple[str, ...], set[str]]:
        health = HealthPayload.model_validate_json(heard.on(f"{ROOT}/health")[-1])
        info = InfoPayload.model_validate_json(heard.on(f"{ROOT}/info")[-1])
        return health.problems, set(info.execution_providers.values())

    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: heard.on(f"{ROOT}/info") and heard.on(f"{ROOT}/health"))
        assert told() == ((), {BESIDE})
        lost.touch()
        heard.wait(lambda: told() == (("provider_refused",), {"CPUExecutionProvider"}))
        heard.wait(lambda: events(heard, "event"))
        assert device.stop() == 0
    assert events(heard, "event")[0].event_type == "match"
    failed = [line["message"].partition(":")[0] for line in device.said("while it ran")]
    after = "failed on cuda while it ran, and goes on on CPUExecutionProvider until the next reload or start"
    assert sorted(failed) == [f"sface-int8 {after}", f"yunet {after}"], "each model once"
    assert not device.said("inference failed")


def test_a_stranger_is_rejected_once_and_no_name_is_logged(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    device = make_device(mosquitto.port, cameras={"front": clip(media, "carphone_pristine.mp4")})
    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: len(events(heard, "event")) >= 2)
        device.stop()
    assert [event.event_type for event in events(heard, "event")] == ["reject", "left"]
    reject = events(heard, "event")[0]
    assert reject.reason == "below_threshold"
    assert reject.subject is None
    log = device.log_path.read_text()
    assert len(device.decided()) == 2
    assert "p-man" not in log
    assert "ORL" not in log


def test_an_empty_door_is_silent(mosquitto: Mosquitto, make_device: MakeDevice, media: Path):
    device = make_device(mosquitto.port, cameras={"front": clip(media, "no_face.mp4")})
    with subscriber(mosquitto.port) as heard:
        device.start()
        wait_until(lambda: any(line.get("why") == "ended" for line in device.said("camera offline")))
        device.stop()
        heard.wait(lambda: heard.on(f"{ROOT}/status")[-1:] == [b"offline"])
    assert events(heard, "event") == events(heard, "journal") == []


def test_what_is_retained_tells_a_late_comer_everything(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    make_device(mosquitto.port, cameras={"front": clip(media, "no_face.mp4", loop=True)}).start()
    topics = (f"{ROOT}/info", f"{ROOT}/health", f"{ROOT}/status", f"{ROOT}/camera/front/status")
    with subscriber(mosquitto.port) as early:
        early.wait(lambda: all(map(early.on, topics)))
        early.wait(
            lambda: early.on("/camera/front/status")[-1] == early.on(f"{ROOT}/status")[-1] == b"online"
        )
    with subscriber(mosquitto.port) as late:
        late.wait(lambda: all(map(late.on, topics)))
        info = InfoPayload.model_validate_json(late.on(f"{ROOT}/info")[0])
        HealthPayload.model_validate_json(late.on(f"{ROOT}/health")[0])
        assert late.on(f"{ROOT}/status") == [b"online"]
        assert late.on("/camera/front/status") == [b"online"]
    assert info.gallery_size == 42
    assert info.cameras == ("front",)
    assert info.models["embedder"].id.startswith("sface-int8@")
    assert info.threshold > 0.2


def test_a_killed_daemon_is_seen_to_be_offline(mosquitto: Mosquitto, make_device: MakeDevice):
    device = make_device(mosquitto.port).start()
    with subscriber(mosquitto.port) as heard:
        heard.wait(lambda: heard.on(f"{ROOT}/status") == [b"online"])
        device.stop(signal.SIGKILL)
        heard.wait(lambda: heard.on(f"{ROOT}/status") == [b"online", b"offline"])


def test_no_decision_is_lost_when_the_daemon_is_killed_during_an_outage(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    device = make_device(
        mosquitto.port,
        cameras={"front": clip(media, "face_noface.mov", loop=True)},
        settings=("decision.cooldown_s = 0.5",),
    )
    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: len(journal_ids(heard)) >= 1)
        mosquitto.kill()
        before = {line["event_id"] for line in device.decided()}
        wait_until(lambda: len(device.decided()) >= len(before) + 2, "decisions during the outage")
        device.stop(signal.SIGKILL)
        assert all(line["durable"] for line in device.decided())
        decided = {line["event_id"] for line in device.decided()}
        device.cameras = {}
        mosquitto.start()
        device.start()
        heard.wait(lambda: journal_ids(heard) >= decided)
        replayed = {event.event_id for event in events(heard, "journal") if event.replayed}
        live = {event.event_id for event in events(heard, "event")}
    assert replayed >= decided - before
    assert not live & (decided - before), "a door must not act on an old message"
    sequence = sorted({(event.seq, event.event_id) for event in events(heard, "journal")})
    assert [seq for seq, _ in sequence] == list(range(1, len(sequence) + 1)), "no gap, none twice"


def test_a_broker_that_is_absent_at_start_gets_everything_later(
    tmp_path: Path, make_device: MakeDevice, media: Path
):
    port = free_port()
    device = make_device(port, cameras={"front": clip(media, "carphone_pristine.mp4")}).start()
    wait_until(lambda: len(device.decided()) == 2, "decisions without a broker")
    broker = Mosquitto(tmp_path, lines=("allow_anonymous true", "persistence false"), port=port)
    try:
        broker.start()
        with subscriber(port) as heard:
            heard.wait(lambda: len(journal_ids(heard)) == 2)
            assert events(heard, "event") == []
    finally:
        broker.stop()


def test_an_enrolment_reaches_the_running_daemon_within_a_second(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path, still: Path
):
    device = make_device(
        mosquitto.port, enrolled=False, cameras={"front": clip(media, "single_face.mp4", loop=True)}
    )
    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: events(heard, "event"))
        assert events(heard, "event")[0].reason == "gallery_empty"
        watch = Stopwatch()
        told = device.edge("enroll", "p-new", str(still), "--label", "New colleague")
        assert told.returncode == 0, told.stderr
        committed_s = (device.state / "gallery" / "current").lstat().st_mtime
        heard.wait(lambda: len(events(heard, "event")) >= 2)
        swapped = device.said("gallery swapped")[0]
        revised = events(heard, "event")[1]
        assert revised.event_type == "match"
        assert revised.subject.id == "p-new"
        assert revised.revises == events(heard, "event")[0].event_id
        assert revised.visit == events(heard, "event")[0].visit
        assert revised.captured_at.timestamp() - committed_s < 1.5 + watch.disturbed_s
        assert swapped["gallery_version"] == 1
        info = [InfoPayload.model_validate_json(data) for data in heard.on(f"{ROOT}/info")]
        assert info[-1].gallery_size == 1


def test_a_gallery_that_cannot_be_read_is_refused_once_and_the_last_good_one_serves(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    device = make_device(mosquitto.port, cameras={"front": clip(media, "face_noface.mov")}).start()
    current = device.state / "gallery" / "current"
    current.unlink()
    current.symlink_to("nonsense")
    wait_until(lambda: device.said("gallery"))
    with subscriber(mosquitto.port) as heard:
        heard.wait(lambda: events(heard, "journal"))
        assert events(heard, "journal")[0].subject.id == "p-man"
    time.sleep(1.0)
    assert len([line for line in device.log() if "gallery" in line["message"]]) <= 2
    assert device.process.poll() is None


def test_sigterm_with_a_frozen_broker_ends_in_time_and_keeps_the_events(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    device = make_device(mosquitto.port, cameras={"front": clip(media, "carphone_pristine.mp4")}).start()
    wait_until(lambda: device.said("connected"))
    mosquitto.freeze()
    wait_until(lambda: len(device.decided()) >= 1)
    watch = Stopwatch()
    assert device.stop() == 0
    assert watch.undisturbed_s < 5.5
    mosquitto.thaw()
    decided = {line["event_id"] for line in device.decided()}
    with subscriber(mosquitto.port) as heard:
        device.cameras = {}
        device.start()
        heard.wait(lambda: journal_ids(heard) >= decided)


def test_a_second_signal_forces_the_end(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path, tmp_path: Path
):
    with notify_socket(tmp_path / "notify") as manager:
        device = make_device(
            mosquitto.port,
            cameras={"front": clip(media, "carphone_pristine.mp4")},
            environment={"NOTIFY_SOCKET": os.fspath(tmp_path / "notify")},
        ).start()
        wait_until(lambda: device.said("connected"))
        mosquitto.freeze()
        wait_until(lambda: len(device.decided()) >= 1)
        device.process.send_signal(signal.SIGINT)
        while manager.recv(4096) != b"STOPPING=1":
            pass
        watch = Stopwatch()
        assert device.stop(signal.SIGINT) == 128 + signal.SIGINT
        assert watch.undisturbed_s < 1.0
    mosquitto.thaw()


def test_sighup_takes_new_settings_and_refuses_bad_ones(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    device = make_device(
        mosquitto.port,
        cameras={"front": clip(media, "no_face.mp4", loop=True)},
        settings=("decision.threshold = 0.5",),
    )
    with subscriber(mosquitto.port) as heard:

        def thresholds() -> list[float]:
            return [InfoPayload.model_validate_json(data).threshold for data in heard.on(f"{ROOT}/info")]

        device.start()
        heard.wait(lambda: thresholds() == [0.5])
        device.settings = ("decision.threshold = 0.6",)
        device.cameras["side"] = clip(media, "no_face.mp4", loop=True)
        device.write()
        device.process.send_signal(signal.SIGHUP)
        heard.wait(lambda: thresholds() == [0.5, 0.6])
        heard.wait(lambda: heard.on("/camera/side/status")[-1:] == [b"online"])
        told = InfoPayload.model_validate_json(heard.on(f"{ROOT}/info")[-1])
        assert told.cameras == ("front", "side")
        assert told.gallery_size == 42
        elsewhere = device.write().read_text().replace(str(device.state), str(device.directory / "new"))
        device.config.write_text(elsewhere)
        device.process.send_signal(signal.SIGHUP)
        wait_until(lambda: device.said("these settings take effect only after a restart"))
        wait_until(lambda: len(device.said("reloaded")) == 2)
        device.settings = ("decision.threshold = 7",)
        device.write()
        device.process.send_signal(signal.SIGHUP)
        wait_until(lambda: device.said("reload refused"))
        assert "decision.threshold" in device.said("reload refused")[0]["message"]
        device.settings = ("decision.threshold = 0.7",)
        del device.cameras["side"]
        device.write()
        device.process.send_signal(signal.SIGHUP)
        heard.wait(lambda: thresholds()[-1:] == [0.7])
        heard.wait(lambda: heard.on("/camera/side/status")[-1:] == [b""])
        offline = [line for line in device.said("camera offline") if line["camera"] == "front"]
        assert offline == [], "a camera that did not change goes on"
        sizes = {InfoPayload.model_validate_json(data).gallery_size for data in heard.on(f"{ROOT}/info")}
        assert sizes == {42}, "another gallery waits for the restart, too"
        assert device.stop() == 0


def test_a_camera_that_is_absent_comes_and_goes(mosquitto: Mosquitto, make_device: MakeDevice):
    port = free_port()
    device = make_device(
        mosquitto.port, cameras={"front": f'source = "http://user:hunter2@127.0.0.1:{port}/v.mjpg"'}
    )
    with subscriber(mosquitto.port) as heard:

        def status() -> bytes | None:
            return next(reversed(heard.on("/camera/front/status")), None)

        device.start()
        heard.wait(lambda: b"not reachable" in b"".join(heard.on("/camera/front/info")))
        for _ in range(2):
            with MjpegServer(port):
                heard.wait(lambda: status() == b"online")
            heard.wait(lambda: status() == b"offline")
        assert device.process.poll() is None
        published = b"".join(message.payload for message in heard.seen)
    assert b"hunter2" not in published
    assert "hunter2" not in device.log_path.read_text()


def test_the_service_manager_hears_ready_watchdog_and_stopping(
    mosquitto: Mosquitto, make_device: MakeDevice, tmp_path: Path
):
    with notify_socket(tmp_path / "notify") as manager:
        device = make_device(
            mosquitto.port,
            environment={"NOTIFY_SOCKET": os.fspath(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"},
        ).start(ready=False)
        heard = [manager.recv(4096) for _ in range(4)]
        assert heard == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        assert device.stop() == 0
        rest = [manager.recv(4096)]
        while rest[-1] != b"STOPPING=1":
            rest.append(manager.recv(4096))


def test_two_daemons_on_one_state_directory_are_one_too_many(mosquitto: Mosquitto, make_device: MakeDevice):
    device = make_device(mosquitto.port).start()
    second = device.edge("run")
    assert second.returncode == 78
    assert "another edge daemon uses" in second.stderr
    assert "Traceback" not in second.stderr
    assert device.process.poll() is None


def test_privacy_mode_publishes_neither_label_nor_box(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    device = make_device(
        mosquitto.port,
        cameras={"front": clip(media, "single_face.mp4")},
        settings=("privacy.anonymous = true",),
    )
    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: events(heard, "journal"))
        device.stop()
        match = events(heard, "journal")[0]
        published = b"".join(message.payload for message in heard.seen)
    assert (match.subject.id, match.subject.label, match.bbox) == ("p-man", None, None)
    assert b"Man in the clip" not in published


def test_health_is_one_json_document_of_numbers(mosquitto: Mosquitto, make_device: MakeDevice, media: Path):
    device = make_device(mosquitto.port, cameras={"front": clip(media, "single_face.mp4", loop=True)})
    with subscriber(mosquitto.port) as heard:
        watch = Stopwatch()
        device.start()
        heard.wait(lambda: events(heard, "event") and heard.on(f"{ROOT}/health"))
        time.sleep(1.0)
        undisturbed = watch.undisturbed_s / watch.wall_s
        device.stop()
        heard.wait(lambda: len(heard.on(f"{ROOT}/health")) >= 2)
    last = HealthPayload.model_validate_json(heard.on(f"{ROOT}/health")[-1])
    assert last.counters["events.match"] == 1
    assert last.stages_ms["detect"].p50 > 0
    assert last.fps["front"] > 5 * undisturbed
    assert last.outbox.durable
    assert json.loads(heard.on(f"{ROOT}/health")[-1])["schema"] == "edge.health/1"


CAP_ON = """
import sys, time, cv2, numpy as np
from pathlib import Path
random, cap = np.random.default_rng(1), Path(sys.argv[1])
room = cv2.resize(random.integers(20, 230, (9, 16, 3)).astype(np.uint8), (320, 180), interpolation=0)
while True:
    shown = np.zeros_like(room) if cap.exists() else room
    noisy = cv2.add(shown, random.normal(0, 2, room.shape).astype(np.int16), dtype=0)
    sys.stdout.buffer.write(cv2.imencode(".jpg", noisy)[1].tobytes())
    sys.stdout.buffer.flush()
    time.sleep(0.1)
"""
"""A camera that is black while there is a file."""


def test_a_camera_with_its_cap_on_is_told_at_once_with_what_to_do(
    mosquitto: Mosquitto, make_device: MakeDevice, tmp_path: Path
):
    cap = tmp_path / "cap"
    program = json.dumps([sys.executable, "-c", CAP_ON, str(cap)])
    device = make_device(mosquitto.port, cameras={"front": f"command = {program}"})

    def last(heard: Subscriber) -> HealthPayload:
        return HealthPayload.model_validate_json(heard.on(f"{ROOT}/health")[-1])

    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(
            lambda: heard.on("/camera/front/status")[-1:] == [b"online"] and heard.on(f"{ROOT}/health")
        )
        watch = Stopwatch()
        cap.touch()
        heard.wait(lambda: "camera_black" in last(heard).problems)
        assert watch.undisturbed_s < 30, "not with the next regular message"
        told = last(heard)
        assert told.cameras["front"].problems == ("camera_black",)
        assert told.remedies["camera_black"] == DoorProblem.CAMERA_BLACK.remedy
        cap.unlink()
        heard.wait(lambda: "camera_black" not in last(heard).problems)
        assert device.stop() == 0


def test_a_camera_that_was_taken_out_goes_from_home_assistant_too(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    cameras = {name: clip(media, "no_face.mp4", loop=True) for name in ("front", "side")}
    device = make_device(mosquitto.port, settings=("homeassistant.discovery = true",), cameras=cameras)

    def announced(heard: Subscriber) -> dict[str, bool]:
        found = [each for each in list(heard.seen) if each.topic.startswith("homeassistant/device/")]
        return {each.topic.split("/")[2]: bool(each.payload) for each in found}

    with subscriber(mosquitto.port) as heard:
        device.start()
        own = "edge__test__door"
        heard.wait(lambda: announced(heard) == {own: True, f"{own}__front": True, f"{own}__side": True})
        assert device.stop() == 0
        del device.cameras["side"]
        device.start()
        heard.wait(lambda: announced(heard) == {own: True, f"{own}__front": True, f"{own}__side": False})
        assert device.stop() == 0


def test_what_is_gone_leaves_nothing_at_the_broker(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    """A camera taken out by a reload, another while the daemon was stopped, then the device's name."""
    cameras = {name: clip(media, "no_face.mp4", loop=True) for name in ("front", "side", "back")}
    device = make_device(mosquitto.port, cameras=cameras)

    def kept() -> set[str]:
        """Return the retained topics."""
        return {topic for topic, payload in retained(mosquitto.port).items() if payload}

    def left(*names: str) -> bool:
        return {topic.split("/")[5] for topic in kept() if "/camera/" in topic} == set(names)

    device.start()
    wait_until(lambda: left("front", "side", "back"))
    del device.cameras["side"]
    device.write()
    device.process.send_signal(signal.SIGHUP)
    wait_until(lambda: left("front", "back"))
    assert device.stop() == 0
    assert left("front", "back"), "a camera that is gone is not said to have stopped"
    del device.cameras["back"]
    device.start()
    wait_until(lambda: left("front"))
    assert device.stop() == 0
    device.name = "hall"
    device.start()
    wait_until(lambda: {topic.split("/")[3] for topic in kept()} == {"hall"})
    assert device.stop() == 0


def test_privacy_mode_tells_no_name_and_no_place_in_any_message(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    settings = (
        "privacy.anonymous = true",
        "homeassistant.discovery = true",
        "commands.unsigned_reads = true",
        "commands.snapshots = true",
        "decision.cooldown_s = 1.0",
    )
    device = make_device(
        mosquitto.port,
        settings=settings,
        cameras={"front": clip(media, "face_noface.mov", loop=True) + '\nsnapshot = "decision"'},
    )
    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: len(events(heard, "journal")) >= 2)
        for verb, args in (("subjects", {}), ("snapshot", {"camera": "front"}), ("diagnostics", {})):
            payload = json.dumps({"transaction": f"t-{verb}", "args": args})
            mqtt.single(f"{ROOT}/command/{verb}", payload, 1, hostname="127.0.0.1", port=mosquitto.port)
        heard.wait(lambda: len([each for each in heard.seen if "/response/" in each.topic]) >= 3)
        assert device.stop() == 0
    kinds = {each.topic.removeprefix(ROOT) for each in heard.seen}
    assert {
        "/info",
        "/health",
        "/camera/front/event",
        "/camera/front/journal",
        "/camera/front/state",
    } <= kinds
    assert {"/gallery/reported", "/config/reported", "/response/subjects", "/response/snapshot"} <= kinds
    assert "/camera/front/snapshot" not in kinds
    for message in heard.seen:
        if "/command/" in message.topic:
            continue
        for told in (b"Man in the clip", b"Colleague", b"ORL ", b'"label":"', b'"bbox":[', b'"jpeg"'):
            assert told not in message.payload, message.topic
    assert b"p-man" in b"".join(heard.on("/journal")), "the opaque id is what is left"


def test_a_hundred_reloads_leave_no_file_open_and_no_memory_taken(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    device = make_device(mosquitto.port, cameras={"front": clip(media, "no_face.mp4", loop=True)})
    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: heard.on("/camera/front/status")[-1:] == [b"online"])
        proc = Path(f"/proc/{device.process.pid}")

        def held() -> tuple[int, float]:
            pages = int((proc / "statm").read_text().split()[1])
            return len(list((proc / "fd").iterdir())), pages * os.sysconf("SC_PAGESIZE") / 1e6

        def reload(times: int) -> None:
            for _ in range(times):
                done = len(device.said("reloaded"))
                device.process.send_signal(signal.SIGHUP)
                wait_until(lambda n=done: len(device.said("reloaded")) > n)

        reload(5)
        files, memory_mb = held()
        reload(95)
        again, later_mb = held()
        assert again <= files + 3
        assert later_mb <= memory_mb + 64
        assert device.stop() == 0
