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
