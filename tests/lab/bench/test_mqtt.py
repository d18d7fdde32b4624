"""`edge bench mqtt`: a real broker, a real subscriber, and figures that belong together."""

from pathlib import Path
from typing import Any

import pytest

from edge.lab.bench import mqtt
from tests.support.command_line import run_json


def check(report: dict[str, Any], rows: int) -> None:
    assert report["schema"] == "edge.bench-mqtt/1"
    for figures in (*report["decision_to_subscriber_ms"].values(), report["commit_ms"]):
        assert 0 < figures["p50"] <= figures["p95"] <= figures["p99"]
    assert set(report["drain"]) == {"puback", "consumer"}
    for drain in report["drain"].values():
        assert drain["seconds"] > 0
        assert drain["rows_per_s"] == pytest.approx(rows / drain["seconds"], rel=0.1)
    assert report["goal"]["met"] is True


def test_it_measures_over_mosquitto():
    [report] = run_json("bench", "mqtt", "--json", "--decisions", "20", "--rows", "300")
    assert report["broker"] == "mosquitto"
    assert report["rows"] == 300
    # A drained row was kept for a moment after the broker had taken it over.
    assert report["drain"]["puback"]["seconds"] > 0.5
    check(report, 300)


def test_it_measures_over_the_embedded_broker_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mqtt.shutil, "which", lambda _: str(Path("/nowhere/mosquitto")))
    report = mqtt.measure_mqtt(lambda *_: None, decisions=10, rows=100)
    assert report["broker"] == "embedded (amqtt)"
    check(report, 100)
    assert "embedded" in mqtt.as_text(report)
