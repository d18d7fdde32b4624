"""What Prometheus is told of doors: the exporter reads `health`, and rules and dashboard what it gives.

With Debian's packages prometheus-mqtt-exporter and prometheus the real programs read them, too.
"""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.publish as mqtt
import pytest
import yaml

from edge.core.types import EventType
from edge.mqtt.contract.encode import encode
from edge.mqtt.contract.examples import EXAMPLES
from edge.mqtt.contract.messages import HealthPayload
from edge.mqtt.contract.problems import DoorProblem
from edge.mqtt.contract.topics import HEALTH
from tests.support.broker import Mosquitto
from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.waits import LIMIT_S, wait_until

FOLDER = ROOT / "deploy" / "prometheus"
EXPORTER = shutil.which("prometheus-mqtt-exporter")
PROMTOOL = shutil.which("promtool")
SETTINGS = yaml.safe_load((FOLDER / "mqtt-exporter.yaml").read_text())
RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"][0]["rules"]
EXPORTED = {each["prom_name"] for each in SETTINGS["metrics"]}
RECORDED = {each["record"] for each in RULES if "record" in each}


def everything() -> dict[str, Any]:
    """Return a `health` that has all that there may be."""
    [health] = EXAMPLES[HealthPayload]
    told: dict[str, Any] = json.loads(encode(health))  # type: ignore[arg-type]
    return told | {
        "late": ["inference"],
        "problems": list(DoorProblem),
        "remedies": {each.value: each.remedy for each in DoorProblem},
        "counters": {f"events.{kind}": 3 for kind in EventType},
        "stages_ms": {each: {"p50": 2.0, "p95": 3.0} for each in ("detect", "embed", "capture_to_decision")},
        "cameras": {"front": {"looked_at_hz": 14.0, "delivered_hz": 15.0, "problems": []}},
        "device": {"throttled": False, "throttled_by": []},
    }


def test_every_metric_is_a_field_of_health_and_every_problem_has_one():
    told = everything()
    HealthPayload.model_validate(told)
    for metric in SETTINGS["metrics"]:
        at: Any = told
        for part in metric["mqtt_name"].split("->"):
            at = at[0] if part == "[0]" else at[part]
        assert isinstance(at, str) is ("string_value_mapping" in metric), metric["mqtt_name"]
    problems = [each for each in SETTINGS["metrics"] if each["prom_name"] == "edge_problem"]
    named = {each["const_labels"]["problem"] for each in problems}
    assert named == set(DoorProblem), "each problem has a line in deploy/prometheus/mqtt-exporter.yaml"
    assert SETTINGS["mqtt"]["topic_path"] == HEALTH.topic(site="+", device="+")


def test_rules_and_dashboard_ask_for_nothing_that_the_exporter_does_not_give():
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    queries = [each["expr"] for each in RULES]
    queries += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [each["query"] for each in dashboard["templating"]["list"]]
    asked = {
        name for query in queries for name in re.findall(r"\b(?:edge|mqtt2prometheus)[a-z0-9_:]*", query)
    }
    assert asked <= EXPORTED | RECORDED | {"mqtt2prometheus_connected"}
    assert asked >= RECORDED | {"edge_problem", "edge_uptime_seconds", "edge_decisions_total"}


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[tuple[Mosquitto, int]]:
    """The real exporter with the settings that we ship, but for the port of the broker."""
    if EXPORTER is None:
        pytest.skip("needs Debian's prometheus-mqtt-exporter")
    broker, port, settings = Mosquitto(tmp_path).start(), free_port(), tmp_path / "mqtt-exporter.yaml"
    settings.write_text((FOLDER / "mqtt-exporter.yaml").read_text().replace(":1883", f":{broker.port}"))
    command = [EXPORTER, "-config", settings, "-listen-address", "127.0.0.1", "-listen-port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        yield broker, port
        process.kill()
    broker.stop()


def test_the_real_exporter_gives_every_metric(exporter: tuple[Mosquitto, int]):
    broker, port = exporter
    told, topic = json.dumps(everything()), HEALTH.topic(site="hq", device="door-03")
    mqtt.single(topic, told, 1, True, hostname="127.0.0.1", port=broker.port)

    def samples() -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT_S) as page:
                lines = page.read().decode().splitlines()
        except OSError:
            return {}
        found = (line.rsplit(" ", 2) for line in lines if line.startswith("edge_"))
        return {name: float(value) for name, value, _ in found}

    wait_until(lambda: len(samples()) == len(SETTINGS["metrics"]))
    given = samples()
    assert {name.partition("{")[0] for name in given} == EXPORTED
    assert all('sensor="hq/door-03"' in name for name in given)
    assert [value for name, value in given.items() if name.startswith("edge_problem")] == [1.0] * len(
        DoorProblem
    )


RULE_TESTS = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'edge_uptime_seconds{{sensor="hq/a"}}', values: '0+60x60'}}
      - {{series: 'edge_uptime_seconds{{sensor="hq/b"}}', values: '0+60x10'}}
      - {{series: 'edge_problem{{sensor="hq/a", problem="disk_refused"}}', values: '1x60'}}
      - {{series: 'edge_problem{{sensor="hq/a", problem="live_late"}}', values: '1x57'}}
      - {{series: 'edge_outbox_oldest_seconds{{sensor="hq/a"}}', values: '0+60x60'}}
      - {{series: 'edge_outbox_oldest_seconds{{sensor="hq/c"}}', values: '0+60x60'}}
      - {{series: 'edge_outbox_unclaimed{{sensor="hq/c"}}', values: '1x60'}}
    promql_expr_test:
      - expr: edge:problem
        eval_time: 59m
        exp_samples: [{{labels: 'edge:problem{{sensor="hq/a", problem="disk_refused"}}', value: 1}}]
      - expr: count by (alertname, sensor) (ALERTS{{alertstate="firing"}})
        eval_time: 59m
        exp_samples:
          - {{labels: '{{alertname="EdgeDoorProblem", sensor="hq/a"}}', value: 1}}
          - {{labels: '{{alertname="EdgeDoorSilent", sensor="hq/b"}}', value: 1}}
          - {{labels: '{{alertname="EdgeDecisionsWait", sensor="hq/a"}}', value: 1}}
"""


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool of Debian's prometheus")
def test_the_rules_tell_what_is_wrong_now_and_nothing_else(tmp_path: Path):
    (tmp_path / "tests.yaml").write_text(RULE_TESTS.format(rules=FOLDER / "rules.yaml"))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
