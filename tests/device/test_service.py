"""The unit file: hardened, and true about what the daemon does."""

import re
import subprocess
from configparser import ConfigParser

import pytest

from edge.core.errors import EX_CONFIG, EX_USAGE
from tests.support.places import ROOT

UNIT = ROOT / "systemd" / "edge.service"
MAX_EXPOSURE = 1.6


@pytest.fixture(scope="module")
def service() -> dict[str, str]:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(UNIT)
    return dict(parser["Service"])


def test_the_sandbox_leaves_little_exposed():
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(UNIT)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    exposure = float(re.search(r"Overall exposure level for edge.service: ([0-9.]+)", told)[1])
    assert exposure <= MAX_EXPOSURE


def test_the_manager_waits_for_ready_and_feeds_on_progress(service: dict[str, str]):
    assert service["Type"] == "notify"
    assert 10 <= int(service["WatchdogSec"]) <= 15, "a door that hangs is back within 20 s"
    assert int(service["TimeoutStopSec"]) > 5
    assert service["ExecStart"].endswith("run --config /etc/edge/edge.toml")


def test_a_configuration_error_is_not_retried(service: dict[str, str]):
    assert service["RestartPreventExitStatus"].split() == [str(EX_USAGE), str(EX_CONFIG)]
    assert service["Restart"] == "always"


def test_onnxruntime_runs_without_writable_code(service: dict[str, str]):
    assert service["MemoryDenyWriteExecute"] == "yes"


def test_a_child_that_takes_too_much_memory_does_not_end_the_door(service: dict[str, str]):
    assert service["OOMPolicy"] == "continue"
