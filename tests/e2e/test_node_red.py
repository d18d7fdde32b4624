"""The flow for Node-RED: what it listens to exists; in a real Node-RED, where there is one, doors open."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.publish as mqtt
import pytest

from edge.core.types import EventType
from edge.mqtt.contract.messages import EventPayload
from edge.mqtt.contract.topics import CHANNELS
from tests.support.broker import Mosquitto, subscriber
from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.waits import LIMIT_S, wait_until

FLOW = ROOT / "deploy" / "node-red" / "flow.json"
PAGE = FLOW.with_name("dashboard.json")
NODE_RED = os.environ.get("NODE_RED") or shutil.which("node-red")


@pytest.fixture
def flow() -> list[dict[str, Any]]:
    return json.loads(FLOW.read_text())


@pytest.fixture
def page() -> list[dict[str, Any]]:
    return json.loads(PAGE.read_text())


def test_the_page_shows_what_doors_send_at_the_broker_of_the_flow(
    flow: list[dict[str, Any]], page: list[dict[str, Any]]
):
    test_every_node_is_wired_to_one_that_exists(page)
    assert [node for node in flow if node["id"] == "edge-broker"] == [
        node for node in page if node["id"] == "edge-broker"
    ]
    assert {node["id"] for node in flow} & {node["id"] for node in page} == {"edge-broker"}
    assert {node["topic"] for node in page if node["type"] == "mqtt in"} <= described_topics()


def test_every_node_is_wired_to_one_that_exists(flow: list[dict[str, Any]]):
    ids = {node["id"] for node in flow}
    assert len(ids) == len(flow)
    wired = {target for node in flow for output in node.get("wires", ()) for target in output}
    assert wired <= ids
    assert {node["broker"] for node in flow if node["type"].startswith("mqtt ")} == {"edge-broker"}


def described_topics() -> set[str]:
    return {re.sub(r"\{\w+\}", "+", channel.address) for channel in CHANNELS}


def test_what_it_listens_to_is_described(flow: list[dict[str, Any]]):
    listened = {node["topic"] for node in flow if node["type"] == "mqtt in"}
    assert len(listened) == 4
    assert listened <= described_topics()


def test_what_it_reads_of_an_event_is_there(flow: list[dict[str, Any]]):
    code = next(node["func"] for node in flow if node["id"] == "edge-judge")
    read = set(re.findall(r"event\.(\w+)", code)) - {"subject"}
    assert read <= set(EventPayload.model_fields)
    assert set(re.findall(r'event_type === "(\w+)"', code)) <= {kind.value for kind in EventType}


def event(kind: str, **changes: Any) -> bytes:
    at = datetime.now(UTC).isoformat()
    told = {
        "event_type": kind,
        "captured_at": at,
        "replayed": False,
        "site": "hq",
        "device": "door",
        "camera": "front",
    }
    return json.dumps(told | {"event_id": kind, "reason": None, "subject": {"id": "p-1"}} | changes).encode()


@pytest.mark.skipif(NODE_RED is None, reason="needs node-red on the path, or its path in NODE_RED")
def test_doors_open_in_a_real_node_red(tmp_path: Path):
    broker, port = Mosquitto(tmp_path).start(), free_port()
    home = tmp_path / "node-red"
    home.mkdir()
    nodes = json.loads(FLOW.read_text())
    modules = Path(str(NODE_RED)).parent.parent
    page = (modules / "@flowfuse").is_dir()
    if page:
        (home / "node_modules").symlink_to(modules)
        (home / "package.json").write_text('{"dependencies": {"@flowfuse/node-red-dashboard": "*"}}')
        nodes += [node for node in json.loads(PAGE.read_text()) if node["id"] != "edge-broker"]
    (home / "flows.json").write_text(json.dumps(nodes))
    environment = os.environ | {"EDGE_MQTT_HOST": "127.0.0.1", "EDGE_MQTT_PORT": str(broker.port)}
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            [str(NODE_RED), "--userDir", str(home), "--port", str(port), "flows.json"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    where: dict[str, Any] = {"hostname": "127.0.0.1", "port": broker.port}
    old = (datetime.now(UTC) - timedelta(seconds=40)).isoformat()
    try:
        with subscriber(broker.port, "building/#") as heard:
            wait_until(lambda: "Connected to broker" in (tmp_path / "log").read_text(), "Node-RED")
            time.sleep(0.5)
            for payload in (
                event("match", captured_at=old),
                event("match", replayed=True),
                event("no_decision"),
                event("left"),
                event("match"),
                event("reject", reason="below_threshold"),
            ):
                mqtt.single("edge/v1/hq/door/camera/front/event", payload, 1, **where)
            mqtt.single("edge/v1/hq/door/status", b"offline", 1, **where)
            for dropped in (2, 5, 5):
                mqtt.single("edge/v1/hq/door/outbox_dropped", json.dumps({"dropped": dropped}), 1, **where)
            heard.wait(lambda: len(heard.seen) >= 4)
            time.sleep(0.5)
            if page:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/dashboard/doors", timeout=LIMIT_S
                ) as shown:
                    assert shown.status == 200
        told = [(message.topic, json.loads(message.payload)) for message in heard.seen]
        assert [topic for topic, _ in told] == ["building/door/door/open"] + ["building/alert"] * 3
        assert told[0][1]["subject"] == "p-1"
        reasons = [payload["reason"] for _, payload in told[1:]]
        assert reasons == ["below_threshold", "offline", "decisions_lost"]
        assert told[3][1]["dropped"] == 3
        assert "missing types" not in (tmp_path / "log").read_text()
    finally:
        running.terminate()
        running.wait(LIMIT_S)
        broker.stop()
