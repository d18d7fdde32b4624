"""The service manager's socket, and what the process knows of itself."""

import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.core.process import (
    HumanFormatter,
    JsonFormatter,
    PlainFormatter,
    boot_id,
    rss_mb,
    sd_notify,
    throttled_by,
    watchdog_interval_s,
)


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_hears_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool):
    name = f"edge-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        assert sd_notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_no_manager_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not sd_notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not sd_notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [("30000000", "", 15.0), ("", "", None), ("soon", "", None), ("30000000", "1", None)],
)
def test_the_watchdog_is_fed_twice_per_limit(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, expected: float | None
):
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert watchdog_interval_s() == expected


def test_vitals_are_plausible():
    assert 5 < rss_mb() < 10_000
    assert len(boot_id()) == 36


def test_no_socket_left_is_no_reason_to_die(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setattr("socket.socket", refuse)
    assert sd_notify("WATCHDOG=1") is False


HOSTILE = "door\n12:00:00 INFO    decision event_type=match\r\x1b[2J\x9b31m\u2028\u202e\ud800"
"""Begins a line of its own, clears a terminal, colours it, turns the text around, and is half a character."""


def record(where: str) -> logging.LogRecord:
    """Return a record that has `HOSTILE` in one of its parts."""
    values: dict[str, Any] = {"message": "%s", "args": ("fine",), "extra": {}, "exc_info": None}
    if where == "message":
        values["message"], values["args"] = HOSTILE, ()
    elif where == "argument":
        values["args"] = (HOSTILE,)
    elif where == "extra":
        values["extra"] = {"verb": HOSTILE, "all": [HOSTILE]}
    else:
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            values["exc_info"] = sys.exc_info()
    made = logging.LogRecord(
        "edge", logging.ERROR, __file__, 1, values["message"], values["args"], values["exc_info"]
    )
    vars(made).update(values["extra"])
    return made


@pytest.mark.parametrize("formatter", [HumanFormatter, PlainFormatter, JsonFormatter])
@pytest.mark.parametrize("where", ["message", "argument", "extra", "exception"])
def test_nothing_from_outside_reaches_a_log_raw(formatter: type[logging.Formatter], where: str):
    first, *rest = formatter().format(record(where)).split("\n")
    assert first.isprintable()
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert (rest == []) == (where != "exception" or formatter is JsonFormatter)


def test_a_json_log_gives_back_what_was_said():
    assert json.loads(JsonFormatter().format(record("message")))["message"] == HOSTILE
    assert "Zoë 😀" in JsonFormatter().format(logging.LogRecord("e", 20, "", 1, "Zoë 😀", (), None))


def test_an_ordinary_record_is_shown_as_it_is():
    told = logging.LogRecord("e", logging.INFO, "", 1, "camera %s", ("online",), None)
    told.camera = "Tür"
    assert HumanFormatter().format(told).endswith(" INFO    camera online camera=Tür")
    assert PlainFormatter().format(told) == "camera online"


def board(root: Path, files: dict[str, str]) -> Path:
    """Return a /sys that holds these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


FIRMWARE = "devices/platform/soc/soc:firmware/get_throttled"
ZONE = "class/thermal/thermal_zone0"
POLICY = "devices/system/cpu/cpufreq/policy0"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        pytest.param({}, None, id="a board that does not say"),
        pytest.param({FIRMWARE: "0"}, (), id="firmware: well"),
        pytest.param({FIRMWARE: "50000"}, (), id="firmware: it was so once"),
        pytest.param({FIRMWARE: "50005"}, ("under_voltage", "temperature"), id="firmware: weak and hot"),
        pytest.param({FIRMWARE: "2"}, ("frequency_capped",), id="firmware: capped"),
        pytest.param({FIRMWARE: "nonsense"}, None, id="firmware: nonsense"),
        pytest.param(
            {
                f"{ZONE}/temp": "84000",
                f"{ZONE}/trip_point_0_type": "passive",
                f"{ZONE}/trip_point_0_temp": "85000",
            },
            (),
            id="below the trip point",
        ),
        pytest.param(
            {
                f"{ZONE}/temp": "85000",
                f"{ZONE}/trip_point_0_type": "passive",
                f"{ZONE}/trip_point_0_temp": "85000",
            },
            ("temperature",),
            id="at the trip point",
        ),
        pytest.param(
            {
                f"{ZONE}/temp": "70000",
                f"{ZONE}/trip_point_1_type": "active",
                f"{ZONE}/trip_point_1_temp": "60000",
            },
            None,
            id="only a fan runs",
        ),
        pytest.param(
            {f"{POLICY}/scaling_cur_freq": "600000", f"{POLICY}/cpuinfo_max_freq": "1800000"},
            ("frequency",),
            id="slow under load",
        ),
        pytest.param(
            {f"{POLICY}/scaling_cur_freq": "1800000", f"{POLICY}/cpuinfo_max_freq": "1800000"},
            (),
            id="fast under load",
        ),
        pytest.param(
            {
                f"{POLICY}/scaling_cur_freq": "2400000",
                f"{POLICY}/cpuinfo_max_freq": "4600000",
                f"{POLICY}/base_frequency": "1800000",
            },
            (),
            id="a turbo that does not last",
        ),
    ],
)
def test_a_board_says_why_it_makes_itself_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], says: tuple[str, ...] | None
):
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    assert throttled_by(board(tmp_path, files), firmware="no-such-program") == says


def test_a_board_with_little_to_do_runs_slowly_and_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    slow = {f"{POLICY}/scaling_cur_freq": "600000", f"{POLICY}/cpuinfo_max_freq": "1800000"}
    assert throttled_by(board(tmp_path, slow), firmware="no-such-program") == ()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo throttled=0x50004", ("temperature",)),
        ("echo throttled=0x0", ()),
        ("echo VCHI initialization failed; exit 1", None),
    ],
)
def test_the_firmware_s_program_is_asked_where_the_kernel_does_not_say(
    tmp_path: Path, script: str, says: tuple[str, ...] | None
):
    program = tmp_path / "vcgencmd"
    program.write_text(f'#!/bin/sh\n[ "$1" = get_throttled ] || exit 9\n{script}\n')
    program.chmod(0o755)
    assert throttled_by(tmp_path, firmware=str(program)) == says
