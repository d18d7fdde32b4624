"""The service manager's socket, and what the process knows of itself."""

import os
import socket
from pathlib import Path

import pytest

from edge.core.process import boot_id, rss_mb, sd_notify, watchdog_interval_s


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
