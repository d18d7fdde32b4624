"""The unit and the timer of `edge sync`: as hardened as the daemon's, and true about it."""

import re
import subprocess
from configparser import ConfigParser

import pytest

from edge.device.children.sync_runner import LIMIT_S
from edge.device.settings.tables import SyncSettings
from tests.support.places import ROOT

SYSTEMD = ROOT / "systemd"
MAX_EXPOSURE = 1.6


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(SYSTEMD / name)
    return parser


def test_the_sandbox_leaves_little_exposed():
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(SYSTEMD / "edge-sync.service")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    exposure = float(re.search(r"Overall exposure level for edge-sync.service: ([0-9.]+)", told)[1])
    assert exposure <= MAX_EXPOSURE


def test_it_runs_once_as_the_daemons_user_in_the_daemons_directory():
    daemon, sync = unit("edge.service")["Service"], unit("edge-sync.service")["Service"]
    assert sync["Type"] == "oneshot"
    assert sync["ExecStart"].endswith("edge sync --config /etc/edge/edge.toml")
    for key in ("User", "Group", "UMask", "StateDirectory", "StateDirectoryMode"):
        assert sync[key] == daemon[key]


@pytest.mark.parametrize("limit_s", [int(unit("edge-sync.service")["Service"]["TimeoutStartSec"]), LIMIT_S])
def test_who_starts_it_waits_longer_than_it_may_take(limit_s: float):
    longest_s = SyncSettings.model_fields["timeout_s"].metadata[1].le
    assert longest_s < limit_s


def test_the_timer_asks_again_after_minutes_and_not_all_doors_at_once():
    timer = unit("edge-sync.timer")["Timer"]
    assert timer["OnUnitInactiveSec"] == "5min"
    assert timer["RandomizedDelaySec"] == "60s"
    assert unit("edge-sync.timer")["Install"]["WantedBy"] == "timers.target"
