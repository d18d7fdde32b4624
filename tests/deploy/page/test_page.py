"""The page in a real browser, at a real broker with the access rules that we ship."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.publish as mqtt
import pytest
from paho.mqtt.client import topic_matches_sub

from edge.core.errors import DownloadError
from edge.core.types import EventType, Reason
from edge.device.settings.load import load
from edge.lab.demo.page import SOURCES, page_dir, write_page
from edge.lab.demo.stage import make_pause
from edge.mqtt.contract.problems import DoorProblem
from edge.mqtt.contract.topics import CHANNELS, PARAMETERS, Party
from tests.deploy.page.browser import BINARY, Browser, browser
from tests.e2e.device import Device
from tests.support.broker import Mosquitto
from tests.support.places import ROOT
from tests.support.ports import free_port

AXE = ROOT / "tests" / "node" / "node_modules" / "axe-core" / "axe.min.js"
"""Looks for what keeps people from using a page. Source: github.com/dequelabs/axe-core, MPL-2.0."""

ACL = ROOT / "deploy" / "mosquitto" / "acl"
USERS = ("page", "test/door", "site")
ATTACK = '<img src=x onerror="window.harmed = 1">'
NAME = "Man in the clip"


def words() -> str:
    return (SOURCES / "words.js").read_text()


def test_every_word_of_the_contract_has_words_for_people():
    told = {*DoorProblem, *Reason, *(set(EventType) - {EventType.LEFT})}
    assert {word for word in told if not re.search(rf"^\s+{word}: ", words(), re.M)} == set()


def test_it_subscribes_to_what_its_user_may_hear():
    listed = (SOURCES / "site.js").read_text().split("const FILTERS = [")[1].split("]")[0]
    filters = {f"edge/v1/+/+/{leaf}" for leaf in re.findall(r'"([^"]+)"', listed)}
    rules = ACL.read_text().split("\nuser page\n")[1].split("\n\n")[0].splitlines()
    assert {f"topic read {each}" for each in filters} == set(rules)
    assert len(filters) < len([channel for channel in CHANNELS if Party.PAGE in channel.subscribers])


def test_it_asks_nobody_else_and_never_reads_text_as_html():
    for path in SOURCES.iterdir():
        text = path.read_text().replace('"http://www.w3.org/2000/svg"', "")
        assert not re.search(
            r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text
        ), path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if BINARY is None:
        pytest.skip("no Chromium is installed; `make test` installs it where it can")
    if not AXE.exists():
        pytest.skip("needs axe-core: npm ci --ignore-scripts --prefix tests/node")
    folder = tmp_path_factory.mktemp("page") / "page"
    try:
        write_page(folder, page_dir(load()))
    except DownloadError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def broker(tmp_path: Path, folder: Path) -> Iterator[Mosquitto]:
    """A broker that serves the page itself, with the rules that we ship and a user who may say anything."""
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    for user in USERS:
        subprocess.run(["mosquitto_passwd", "-b", passwords, user, "pw"], check=True, capture_output=True)
    rules = tmp_path / "acl"
    rules.write_text(ACL.read_text() + "\nuser site\ntopic write edge/#\n")
    lines = ("allow_anonymous false", f"password_file {passwords}", f"acl_file {rules}")
    websockets = f"listener {free_port()}", "protocol websockets", f"http_dir {folder}"
    started = Mosquitto(tmp_path, lines=lines, listener=websockets).start()
    yield started
    started.stop()


def opened(chromium: Browser, broker: Mosquitto, **look: Any) -> Browser:
    """The page as somebody sees it who has logged in; at first with a wrong password, all by keyboard."""
    chromium.troubles.clear()
    chromium.look(**look)
    chromium.open(f"http://127.0.0.1:{broker.listener[0].split()[1]}/index.html")
    chromium.focused("user")
    chromium.press("Tab")
    for password, what in (("wrong", "The broker refuses"), ("pw", "")):
        chromium.focused("password")
        chromium.type(password)
        chromium.press("Enter")
        chromium.wait(what, "#login")
    chromium.wait("Connected", "#connection")
    return chromium


def say(broker: Mosquitto, leaf: str, told: dict[str, Any] | str, door: str = "hq/door-03") -> None:
    """Say something as a device: retained, unless it is a decision."""
    topic = f"edge/v1/{door}/{leaf}"
    anywhere = dict.fromkeys(PARAMETERS, "+")
    channel = next(each for each in CHANNELS if topic_matches_sub(each.topic(**anywhere), topic))
    if channel.plain:
        payload = str(told)
    else:
        payload = channel.payload.model_validate_json(json.dumps(told)).model_dump_json(by_alias=True)
    where: dict[str, Any] = {"hostname": "127.0.0.1", "port": broker.port}
    where["auth"] = {"username": "site", "password": "pw"}
    mqtt.single(topic, payload, 1, channel.retained, **where)


def stamp(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def info(device: str = "door-03", **changes: Any) -> dict[str, Any]:
    return {
        "schema": "edge.info/1",
        "site": "hq",
        "device": device,
        "version": "0.1.0",
        "boot_id": "b",
        "at": stamp(),
        "cameras": ["front"],
        "models": {"embedder": {"id": "sface-int8", "sha256": "0" * 64}},
        "execution_provider": "CPUExecutionProvider",
        "gallery_version": 57,
        "gallery_size": 812,
        "config_version": 5,
        "threshold": 0.49,
        "target_fpir": 0.001,
        "anonymous": False,
    } | changes


def health(step: int = 0, **changes: Any) -> dict[str, Any]:
    """A report of health; the figures move with the step."""
    return {
        "schema": "edge.health/1",
        "at": stamp(),
        "clock": "synced",
        "uptime_s": 60.0 * step,
        "rss_mb": 152.0 + step % 3,
        "temperature_c": 51.0 + step % 5,
        "late": [],
        "problems": [],
        "fps": {"front": 14.5 + 0.2 * (step % 4)},
        "frame_age_s": {"front": 0.1},
        "stages_ms": {"loop": {"p50": 8.0, "p95": 16.0 + 3 * (step % 4)}},
        "counters": {"events.reject": 7, "strangers.kept": 3},
        "outbox": {
            "depth": 0,
            "oldest_s": 0.0,
            "dropped": 0,
            "undeliverable": 0,
            "durable": True,
        },
        "mqtt": {"connected": True, "protocol": "5", "connects": 1},
    } | changes


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "schema": "edge.event/1",
        "event_type": "match",
        "event_id": f"0194b6a0-0000-7000-8000-{number:012d}",
        "seq": number,
        "boot_id": "b",
        "site": "hq",
        "device": "door-03",
        "camera": "front",
        "visit": f"v-{number}",
        "captured_at": stamp(),
        "clock": "synced",
        "monotonic_ms": 1000,
        "revises": None,
        "subject": {"id": "p-8f21", "label": "Alice Example", "groups": ["staff"]},
        "score": {
            "best": 0.71,
            "second": 0.24,
            "threshold": 0.49,
            "margin": 0.05,
            "target_fpir": 0.001,
            "gallery_size": 812,
        },
        "reason": None,
        "shots": {"used": 3, "seen": 5, "refused": {"blur": 2}},
        "quality": {"face_px": 112.0, "sharpness": 0.8, "yaw_deg": -4.0, "exposure": 0.7},
        "liveness": {"method": "none"},
        "bbox": [0.4, 0.2, 0.1, 0.2],
        "model": {"embedder": "sface-int8", "sha256": "0" * 64, "gallery_version": 57},
        "latency_ms": {"capture_to_decision": 41.0, "detect": 2.0, "embed": 9.0, "match": 0.1},
        "published_at": stamp(),
        "replayed": False,
    } | changes


def stranger(number: int, **changes: Any) -> dict[str, Any]:
    score = event(0)["score"] | {"best": 0.21}
    told = {"event_type": "reject", "reason": "below_threshold", "subject": None, "score": score}
    return event(number, **(told | changes))


def gallery(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "edge.gallery-reported/1",
        "at": stamp(),
        "scope": "hq-main",
        "status": "updated",
        "published": 57,
        "version": 57,
        "count": 812,
        "model_id": "sface-int8",
        "revoked_applied_at": stamp(minutes=20),
        "synchronised_at": stamp(minutes=19),
        "error": None,
    } | changes


def config(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "edge.config-reported/1",
        "at": stamp(),
        "status": "applied",
        "layer": "fleet",
        "version": 5,
        "keys": {},
        "error": None,
        "versions": {"fleet": 5},
        "effective": "0" * 64,
    } | changes


def pushed(version: int) -> dict[str, Any]:
    payload = base64.b64encode(json.dumps({"version": version}).encode()).decode()
    return {"payloadType": "application/vnd.edge.config+json", "payload": payload, "signatures": []}


def building(broker: Mosquitto) -> None:
    """What a building of four doors has said: well, in trouble, in privacy mode, offline."""
    say(broker, "config/desired", pushed(5), "hq/_fleet")
    for device in ("door-03", "door-04", "door-05", "gate"):
        door = f"hq/{device}"
        say(broker, "info", info(device, anonymous=device == "door-05"), door)
        say(broker, "config/reported", config(), door)
        say(broker, "gallery/desired", {"version": 57}, door)
        say(broker, "gallery/reported", gallery(), door)
        say(broker, "camera/front/status", "offline" if device == "gate" else "online", door)
        why = {"camera": "front", "status": "online", "why": "1280x720, 15 frames/s", "at": stamp(hours=3)}
        say(broker, "camera/front/info", {"schema": "edge.camera/1", **why}, door)
        say(broker, "health", health(), door)
        say(broker, "status", "offline" if device == "gate" else "online", door)
    alice = event(1)
    here = {key: alice[key] for key in ("visit", "event_id", "event_type", "subject")} | {"since": stamp()}
    last = {key: alice[key] for key in ("event_id", "event_type", "reason", "subject")} | {"at": stamp()}
    state = {"schema": "edge.state/1", "present": [here], "last": last, "since": stamp(), "until": None}
    say(broker, "camera/front/state", state)
    behind = gallery(status="refused", published=56, reason="server", error="the server answers 503")
    say(broker, "gallery/reported", behind, "hq/door-04")
    removed = gallery(status="refused", published=56, rights=57, reason="model", error="of another embedder")
    say(broker, "gallery/reported", removed, "hq/door-05")
    say(broker, "config/reported", config(status="pending", versions={"fleet": 4}), "hq/door-04")
    problems = [DoorProblem.DISK_REFUSED, DoorProblem.FRAMES_LATE]
    camera = {"looked_at_hz": 1.5, "delivered_hz": 15.0, "problems": [DoorProblem.FRAMES_LATE]}
    remedies = {each: each.remedy for each in problems}
    troubled = health(problems=problems, remedies=remedies, cameras={"front": camera})
    say(broker, "health", troubled, "hq/door-04")


LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {},
    "desktop-dark": {"dark": True},
    "phone": {"width": 390, "height": 844},
    "phone-dark": {"width": 390, "height": 844, "dark": True},
}


def violations(page: Browser) -> list[str]:
    """What axe-core finds in the page as it is now."""
    found = "violations.flatMap(({id, nodes}) => nodes.map((node) => `${id} ${node.html}`))"
    asked = f"axe.run().then(({{violations}}) => {found})"
    page.ask(AXE.read_text())
    return page.ask(asked)


def test_a_building_at_a_glance(chromium: Browser, broker: Mosquitto, tmp_path: Path):
    building(broker)
    page = opened(chromium, broker)
    page.wait("3 of 4 online", "#summary")
    for step in range(12):
        say(broker, "health", health(step))
    say(broker, "camera/front/event", stranger(1))
    page.wait("not alike enough to anybody enrolled", "#announcer")
    say(broker, "camera/front/event", event(2, revises=stranger(1)["event_id"]))
    page.wait("Match, Alice Example, at door-03, camera front", "#announcer")
    page.wait("replaced by a later look", "#decision-list > li:nth-child(2)")
    assert "score 0.21, threshold 0.49" in page.text("#decision-list > li:nth-child(2)")
    assert "score 0.71, threshold 0.49" in page.text("#decision-list > li:nth-child(1)")
    assert "shots refused: blur" in page.text("#decision-list > li:nth-child(1)")
    page.ask("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    well, troubled = (page.text(f"#door-list > :nth-child({place})") for place in (1, 2))
    for told in (
        "Online",
        "There now: Alice Example.",
        "Enrolled\n812",
        "Last removal in force\n",
        "fleet\t5\t5",
    ):
        assert told in well, well
    assert page.ask(
        "document.querySelector('[aria-label^=Temperature]').getAttribute('aria-label')"
    ).endswith("from 51 °C to 55 °C in 13 reports")
    for told in (
        *("The disk takes no decision", "make room, or replace the card", "when they are looked at: front"),
        *("Gallery refused: the server does not answer", "the server answers 503", "on trial", "not in step"),
        *("A removal may be missing: who was revoked since may still pass", "Wanted 57, in force 56."),
    ):
        assert told in troubled, troubled
    followed = page.text("#door-list > :nth-child(3)")
    assert "; who was removed is removed here" in followed
    assert "A removal may be missing" not in followed
    assert "on: no names, no boxes" in page.text("#door-list > :nth-child(3)")
    assert "The door is offline" in page.text("#door-list > :nth-child(4)")
    for name, look in LOOKS.items():
        page.look(**look)
        assert violations(page) == [], name
        page.picture(tmp_path / f"{name}.png")
        assert page.ask("document.documentElement.scrollWidth <= innerWidth"), f"{name} scrolls sideways"
    say(broker, "health", health(), "hq/door-04")
    page.wait("The disk takes no decision", gone=True)
    assert page.troubles == []


def test_whoever_logs_in_can_read_what_is_asked(chromium: Browser, broker: Mosquitto, tmp_path: Path):
    chromium.open(f"http://127.0.0.1:{broker.listener[0].split()[1]}/index.html")
    chromium.focused("user")
    for name, look in LOOKS.items():
        chromium.look(**look)
        assert violations(chromium) == [], name
        chromium.picture(tmp_path / f"{name}.png")


def test_what_others_say_is_text_and_nothing_else(chromium: Browser, broker: Mosquitto):
    building(broker)
    page = opened(chromium, broker)
    page.wait("3 of 4 online", "#summary")
    somebody = {"id": ATTACK, "label": ATTACK, "groups": [ATTACK]}
    say(broker, "camera/front/event", event(1, subject=somebody))
    say(broker, "gallery/reported", gallery(status="refused", reason=ATTACK, error=ATTACK, scope=ATTACK))
    say(broker, "config/reported", config(versions={ATTACK: 1, "__proto__": 2}, groups=[]))
    camera = {"schema": "edge.camera/1", "camera": "front", "status": "offline", "at": stamp()}
    say(broker, "camera/front/info", camera | {"why": ATTACK})
    say(broker, "info", info(version=ATTACK))
    where = {"port": broker.port, "auth": {"username": "site", "password": "pw"}}
    for topic in (f"edge/v1/hq/{ATTACK.replace('/', '')}/status", f"edge/v1/hq/gate/camera/{ATTACK}/status"):
        mqtt.single(topic, b"online", 1, True, **where)
    for payload in (
        b"{",
        b"[]",
        b"\xff",
        b"null",
        b'{"problems": {"__proto__": 1}, "fps": [1], "late": "x"}',
    ):
        mqtt.single("edge/v1/hq/odd/health", payload, 1, **where)
    mqtt.single("edge/v1/hq/odd/health", b'{"problems": ["constructor", "tilted_camera", 7]}', 1, **where)
    page.wait(ATTACK, "#decision-list")
    page.wait(f"Gallery refused: {ATTACK}", "#door-list")
    page.wait("tilted camera", "#door-list")
    page.wait("messages that cannot be read: 2, the last on edge/v1/hq/odd/health", "#connection")
    assert page.text("#door-list").count(ATTACK) >= 5
    assert page.ask("[window.harmed ?? null, document.querySelectorAll('img').length]") == [None, 0]


def test_by_keyboard_alone(chromium: Browser, broker: Mosquitto):
    building(broker)
    page = opened(chromium, broker, width=390, height=844)
    page.wait("3 of 4 online", "#summary")
    named = "document.activeElement.closest('article')?.querySelector('h3').innerText"
    where, walked = f"{named} ?? document.activeElement.innerText", []
    for _ in range(6):
        page.press("Tab")
        walked.append(page.ask(where))
    assert walked == ["Doors", "Decisions", "door-03 hq", "door-04 hq", "door-05 hq", "gate hq"]
    page.press("Enter")
    assert page.ask("document.activeElement.parentElement.open") is True
    say(broker, "health", health(problems=["disk_refused"]), "hq/gate")
    page.wait("The disk takes no decision", "#door-list > :nth-child(4)")
    assert page.ask("[document.activeElement.tagName, document.activeElement.parentElement.open]") == [
        "SUMMARY",
        True,
    ]
    page.ask("document.querySelector('nav a:last-child').focus()")
    page.press("Enter")
    page.focused("decisions")
    say(broker, "camera/front/event", event(1))
    page.wait("Alice Example", "#decision-list")
    page.focused("decisions")
    moves = "getComputedStyle(document.querySelector('#decision-list > li')).animationName"
    assert page.ask(moves) == "none"
    page.look(still=False)
    assert page.ask(moves) == "arrive"


def test_privacy_mode_hides_what_was_said_before_it(chromium: Browser, broker: Mosquitto):
    building(broker)
    page = opened(chromium, broker)
    say(broker, "camera/front/event", event(1))
    page.wait("Alice Example", "#decision-list")
    page.wait("There now: Alice Example.", "#door-list")
    say(broker, "info", info(anonymous=True))
    page.wait("There now: p-8f21.", "#door-list")
    assert "Alice" not in page.ask("document.documentElement.outerHTML")
    say(broker, "camera/front/event", event(2))
    page.wait("p-8f21", "#announcer")
    assert "Alice" not in page.ask("document.documentElement.outerHTML")


def test_a_real_door(
    chromium: Browser, broker: Mosquitto, tmp_path: Path, models_dir: Path, enrolled_state: Path, media: Path
):
    (tmp_path / "password").write_text("pw")
    login = ('mqtt.username = "test/door"', f'mqtt.password_file = "{tmp_path / "password"}"')
    settings = (*login, "decision.cooldown_s = 0.5")
    visits = tmp_path / "visits"
    visits.mkdir()
    (visits / "0.mp4").symlink_to(media / "single_face.mp4")
    make_pause(media, visits / "1.avi", seconds=1.5)
    camera = f'source = "{visits}"\nloop = true'
    door = Device(tmp_path / "door", models_dir, broker.port, {"front": camera}, settings)
    door.directory.mkdir()
    shutil.copytree(enrolled_state, door.state, symlinks=True)
    (door.state / "denials.sealed").write_bytes(b"torn")
    page = opened(chromium, broker)
    try:
        door.start()
        page.wait("The denials of look-alikes are lost", "#door-list")
        page.wait("restore them, or run edge gallery deny --forget-lost", "#door-list")
        page.wait("too alike to two of the enrolled", "#decision-list")
        assert re.search(r"score 0\.[5-9]\d, threshold 0\.\d\d", page.text("#decision-list"))

        broker.kill()
        page.wait("No connection", "#connection")
        broker.start()
        page.wait("Connected", "#connection")
        assert door.edge("gallery", "deny", "--forget-lost").returncode == 0
        page.wait(NAME, "#decision-list > li:first-child")

        door.stop()
        page.wait("The door is offline", "#door-list")
        door.settings = (*settings, "privacy.anonymous = true")
        door.start()
        page.wait("The denials of look-alikes are lost", gone=True)
        page.wait("p-man", "#decision-list")
        page.wait(NAME, gone=True)

        assert "Last removal" not in page.text("#door-list")
        assert door.edge("subjects", "remove", "p-man").returncode == 0
        page.wait("Last removal in force", "#door-list")
        page.wait("not alike enough", "#decision-list > li:first-child")
        assert [each for each in page.troubles if "WebSocket connection to" not in each] == []
    finally:
        door.stop(9)
