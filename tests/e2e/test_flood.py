"""Whoever may publish to a device floods it: it stays small, answers, and leaves in time."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.core.process import rss_mb
from tests.e2e.device import ROOT, Device
from tests.e2e.test_daemon import clip
from tests.e2e.test_mqtt_commands import sending, signed, started
from tests.support.broker import Mosquitto, subscriber
from tests.support.pushes import TRUSTED, push
from tests.support.waits import Stopwatch, wait_until

pytestmark = pytest.mark.e2e

SECONDS, PER_S = 4, 1000
SETTINGS = (
    f'commands.trusted_keys = ["{TRUSTED}"]',
    "commands.unsigned_reads = true",
    f'push.trusted_keys = ["{TRUSTED}"]',
    "homeassistant.discovery = true",
    'outbox.delivery = "consumer"',
)


def floods() -> dict[str, Callable[[int], bytes]]:
    """Return what is sent to each topic, by the number of the message."""
    return {
        f"{ROOT}/gallery/desired": lambda n: json.dumps({"version": n % 3}).encode() if n % 2 else b"{",
        f"{ROOT}/config/desired": lambda n: push(1 + n // 500) if n % 100 == 0 else b"x" * 2000,
        f"{ROOT}/command/subjects": lambda n: json.dumps({"transaction": f"t-{n}"}).encode(),
        f"{ROOT}/command/reload": lambda n: b'{"transaction": "no"}',
        f"{ROOT}/ack": lambda n: json.dumps({"event_ids": ["0" * 36, "no"]}).encode(),
        "homeassistant/status": lambda n: b"online",
    }


@pytest.fixture
def unlimited(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that passes on whatever it gets."""
    lines = ("allow_anonymous true", "max_queued_messages 0", "max_inflight_messages 0")
    broker = Mosquitto(tmp_path, lines).start()
    yield broker
    broker.stop()


def test_a_flood_of_every_kind_neither_swells_nor_holds_the_device(
    unlimited: Mosquitto, make_device: Callable[..., Device], media: Path
):
    cameras = {"front": clip(media, "no_face.mp4", loop=True)}
    device = make_device(unlimited.port, settings=SETTINGS, cameras=cameras)
    with subscriber(unlimited.port) as heard, sending(unlimited.port) as operator:
        started(device, heard)
        time.sleep(2)
        assert device.process is not None
        before_mb, kinds = rss_mb(device.process.pid), floods()
        began_s = time.monotonic()
        for number in range(SECONDS * PER_S):
            for topic, content in kinds.items():
                operator.client.publish(topic, content(number), 0)
            if number % 50 == 0:
                time.sleep(max(0.0, began_s + number / PER_S - time.monotonic()))
        assert rss_mb(device.process.pid) - before_mb < 64
        assert len(device.log()) < 1000

        def answered() -> bool:
            # Commands beyond the rate are dropped: whoever asks asks again.
            operator.send("gallery.sync", signed("gallery.sync", f"last-{time.monotonic_ns()}"))
            time.sleep(0.3)
            return any(b"last-" in answer for answer in heard.on(f"{ROOT}/response/gallery.sync"))

        wait_until(answered, "it still answers")
        for topic, content in kinds.items():
            for number in range(1000):
                operator.client.publish(topic, content(number), 0)
        watch = Stopwatch()
        assert device.stop() == 0
        assert watch.undisturbed_s <= 5
