"""What disks tell of their wear: trees as the kernel shows them, and what smartctl prints."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from edge.device.checkup import wear
from edge.device.checkup.finding import Finding, Light

RED, YELLOW, GREEN = Light.RED, Light.YELLOW, Light.GREEN


def disk(sys_root: Path, *names: str) -> Path:
    """Make the kernel's folder of a disk, or of a partition of one."""
    folder = sys_root.joinpath("devices", *names)
    (sys_root.joinpath("devices", names[0]) / "device").mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    if len(names) > 1:
        (folder / "partition").write_text("2\n")
    return folder


def holds(sys_root: Path, folder: Path) -> None:
    """Let the disk of this folder be the one that directories here lie on."""
    number = sys_root.stat().st_dev
    shown = sys_root / f"dev/block/{os.major(number)}:{os.minor(number)}"
    shown.parent.mkdir(parents=True)
    shown.symlink_to(folder)


def told(sys_root: Path) -> list[Finding]:
    found = list(wear.wear(sys_root, sys_root))
    assert all((each.remedy is None) == (each.light is GREEN) for each in found)
    return found


@pytest.fixture
def smartctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of smartctl, which prints what is written beside it."""
    program, said = tmp_path / "smartctl", tmp_path / "said.json"
    program.write_text(f"#!/bin/sh\ncat {shlex.quote(str(said))}\nexit 4\n")
    program.chmod(0o700)
    monkeypatch.setattr(wear, "SMARTCTL", (str(program), *wear.SMARTCTL[1:]))
    return said


@pytest.mark.parametrize(
    ("life", "spent", "light", "text"),
    [
        ("0x01 0x02", "0x01", GREEN, "mmcblk0 has used up to 20 % of its life"),
        ("0x08 0x01", "0x01", YELLOW, "has used up to 80 % of its life"),
        ("0x0b 0x0a", "0x01", RED, "has used up to 110 % of its life"),
        ("0x01 0x01", "0x02", YELLOW, "four fifths of its spare blocks are used"),
        ("0x01 0x01", "0x03", RED, "its spare blocks are nearly used up"),
        ("0x00 0x00", "0x01", GREEN, "mmcblk0 says that it is well"),
        ("0x00 0x00", "0x00", None, ""),
        ("none", "", None, ""),
    ],
)
@pytest.mark.parametrize("partition", [False, True])
def test_an_emmc_tells_the_kernel(
    tmp_path: Path, smartctl: Path, partition: bool, life: str, spent: str, light: Light | None, text: str
):
    folder = disk(tmp_path, "mmcblk0", *(["mmcblk0p2"] if partition else []))
    holds(tmp_path, folder)
    (tmp_path / "devices/mmcblk0/device/life_time").write_text(f"{life}\n")
    (tmp_path / "devices/mmcblk0/device/pre_eol_info").write_text(f"{spent}\n")
    found = told(tmp_path)
    assert [each.light for each in found] == ([light] if light else [])
    assert all(text in each.told for each in found)


PASSED = {"smart_status": {"passed": True}}


def nvme(used: int, warning: int = 0, *, passed: bool = True) -> dict[str, Any]:
    log = {"critical_warning": warning, "temperature": 41, "available_spare": 100, "percentage_used": used}
    return {"smart_status": {"passed": passed, "nvme": {}}, "nvme_smart_health_information_log": log}


def ata(used: int) -> dict[str, Any]:
    line = {"offset": 8, "name": "Percentage Used Endurance Indicator", "size": 1, "value": used}
    page = {"number": 7, "name": "Solid State Device Statistics (rev 1)", "table": [line]}
    return PASSED | {"ata_device_statistics": {"pages": [page]}}


@pytest.mark.parametrize(
    ("said", "light", "text"),
    [
        pytest.param(nvme(3), GREEN, "nvme0n1 has used up to 3 % of its life", id="NVMe"),
        pytest.param(nvme(85), YELLOW, "has used up to 85 %", id="NVMe, worn"),
        pytest.param(nvme(101), RED, "has used up to 101 %", id="NVMe, beyond its life"),
        pytest.param(nvme(3, 0b0010), GREEN, "3 %", id="NVMe, hot"),
        pytest.param(nvme(3, 0b1000, passed=False), RED, "says itself that it fails", id="NVMe, read-only"),
        pytest.param(ata(7), GREEN, "has used up to 7 %", id="SATA"),
        pytest.param(PASSED, GREEN, "says that it is well", id="tells no life"),
        pytest.param({"smart_status": {"passed": False}}, RED, "says itself that it fails", id="fails"),
        pytest.param({"smartctl": {"exit_status": 2}}, None, "", id="may not be opened"),
        pytest.param({"smart_status": "well"}, None, "", id="of another release"),
        pytest.param(None, None, "", id="prints nothing"),
    ],
)
def test_other_disks_tell_smartctl(
    tmp_path: Path, smartctl: Path, said: dict[str, Any] | None, light: Light | None, text: str
):
    holds(tmp_path, disk(tmp_path, "nvme0n1", "nvme0n1p2"))
    smartctl.write_text("" if said is None else json.dumps(said))
    found = told(tmp_path)
    assert [each.light for each in found] == ([light] if light else [])
    assert all(text in each.told for each in found)


def test_every_disk_of_a_volume_is_asked(tmp_path: Path, smartctl: Path):
    volume = tmp_path / "devices/dm-0"
    (volume / "slaves").mkdir(parents=True)
    for name in ("sda", "sdb"):
        (volume / "slaves" / name).symlink_to(disk(tmp_path, name, f"{name}1"))
    holds(tmp_path, volume)
    smartctl.write_text(json.dumps(PASSED))
    assert {each.told for each in told(tmp_path)} == {
        "sda says that it is well",
        "sdb says that it is well",
    }


def test_without_smartctl_and_a_disk_that_tells_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(wear, "SMARTCTL", ("no-such-program",))
    holds(tmp_path, disk(tmp_path, "sda"))
    assert told(tmp_path) == []


def test_the_disk_of_this_machine_is_asked_and_what_it_tells_is_one_line_a_disk(tmp_path: Path):
    found = list(wear.wear(tmp_path, Path("/sys")))
    assert len(found) == len({each.told.split()[0] for each in found})
