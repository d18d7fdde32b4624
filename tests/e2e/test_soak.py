"""A door that runs for long holds no more than after its first minutes; the long form is `make soak`."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.device import Device
from tests.e2e.soak import SAMPLE_S, Sample, plot, soak
from tests.e2e.test_fleet import Operator, office_models, operator, playlist, server
from tests.support.broker import Mosquitto, subscriber
from tests.support.fleets import StaticServer

pytestmark = pytest.mark.e2e

__all__ = ["office_models", "operator", "playlist", "server"]

PAUSE_S = {"short": 1.0, "long": 15.0}
MOST_GROWN_MB = {"short": 40, "long": 20}
"""A recognizer is 25 MB, given back some time after it was replaced; in the short form four are replaced."""


def test_it_holds_no_more_than_at_first(
    operator: Operator,
    server: StaticServer,
    mosquitto: Mosquitto,
    make_device: Callable[..., Device],
    playlist: str,
    pytestconfig: pytest.Config,
    capsys: pytest.CaptureFixture[str],
):
    minutes: float = pytestconfig.getoption("--soak-minutes")
    long = minutes >= 5

    def tell(now: Sample) -> None:
        if long and now.at_s % 60 < SAMPLE_S:
            with capsys.disabled():
                print(f"{now.at_s / 60:5.0f} min {now.rss_mb:6.1f} MB {now.fds} files {now.threads} threads")

    device = make_device(
        mosquitto.port,
        enrolled=False,
        name="front-door",
        settings=operator.settings("front", server.url),
        cameras={"front": playlist, "back": playlist},
    )
    with subscriber(mosquitto.port, "edge/v1/test/front-door/camera/+/journal") as heard:
        device.start()
        operator.publish("front", "--nudge")
        run = soak(
            device,
            mosquitto,
            operator,
            seconds=60 * minutes,
            pause_s=PAUSE_S["long" if long else "short"],
            tell=tell,
        )
        decided = {line["event_id"] for line in device.decided()}
    report = run.report()
    out = Path("out") if long else operator.photos
    out.mkdir(exist_ok=True)
    (out / "soak.json").write_text(json.dumps(report | {"decided": len(decided)}, indent=1) + "\n")
    plot(run, out / "soak.png")
    assert all(run.disturbed.values())
    assert heard.seen
    assert report["fds"]["grown"] <= 2
    assert report["threads"]["grown"] <= 1
    assert report["rss_mb"]["grown"] <= MOST_GROWN_MB["long" if long else "short"], os.fspath(out)
