"""How worn the disk is that a directory lies on: what an eMMC tells the kernel, and other disks smartctl.

An SD card tells nothing, nor does a disk that smartctl does not know or may not ask.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from edge.core import files
from edge.device.checkup.finding import Finding, green, red, yellow

WORN, NEARLY_WORN = 100, 80
"""Percent of its life that a disk says to have used."""

SPENT, NEARLY_SPENT = 3, 2
"""What an eMMC says where 90 % of its spare blocks are used, or 80. Source: JEDEC eMMC 5.0, PRE_EOL_INFO."""

FAILING_BITS = 0b1101
"""Of an NVMe disk's warnings: few spare blocks, unreliable, read-only. Heat is another one.

Source: NVM Express base specification, SMART / Health Information, Critical Warning.
"""

SMARTCTL = ("smartctl", "--json", "--health", "--attributes", "--log=ssd")

PLACES = f"{os.defpath}:/usr/sbin:/sbin"
"""Where programs are: Debian has smartctl where only root looks for it."""

ATA_USED = "Percentage Used Endurance Indicator"
"""The line of an ATA disk's statistics that tells what is used. Source: ACS-3, A.5.8."""

SMARTCTL_S = 10.0
"""How long smartctl may take; it answers in less than a second."""


class SmartStatus(BaseModel):
    """Whether a disk passes its own test."""

    passed: bool


class NvmeLog(BaseModel):
    """SMART / Health Information of NVMe."""

    critical_warning: int = 0
    percentage_used: int | None = None


class AtaLine(BaseModel):
    """A line of the device statistics of ATA."""

    name: str
    value: int = 0


class AtaPage(BaseModel):
    """A page of them."""

    table: tuple[AtaLine, ...] = ()


class AtaStatistics(BaseModel):
    """All of them."""

    pages: tuple[AtaPage, ...] = ()


class Smart(BaseModel):
    """What smartctl tells of a disk, as JSON; all else is passed over. Source: releases 7.0 to 7.5."""

    smart_status: SmartStatus | None = None
    nvme: NvmeLog = Field(NvmeLog(), alias="nvme_smart_health_information_log")
    ata: AtaStatistics = Field(AtaStatistics(), alias="ata_device_statistics")

    @property
    def used(self) -> int | None:
        """Percent of its life that it has used."""
        lines = [line for page in self.ata.pages for line in page.table if line.name == ATA_USED]
        return lines[0].value if lines else self.nvme.percentage_used


@dataclass(frozen=True, slots=True)
class Wear:
    """What a disk says: percent of its life that is used, why it is to be replaced now, and why soon."""

    used: int | None
    failing: str = ""
    nearly: str = ""

    def finding(self, disk: str) -> Finding:
        """Return the line about the disk of this name."""
        used = 0 if self.used is None else self.used
        parts = [f"has used up to {used} % of its life"] if self.used is not None else []
        parts += [each for each in (self.failing, self.nearly) if each]
        told = f"{disk} {'; '.join(parts) or 'says that it is well'}"
        if self.failing or used >= WORN:
            return red("disk: wear", told, "copy state_dir, and replace the disk now")
        if self.nearly or used >= NEARLY_WORN:
            return yellow("disk: wear", told, "replace the disk soon")
        return green("disk: wear", told)


def wear(place: Path, sys_root: Path) -> Iterator[Finding]:
    """Say how worn the disks are on which a directory lies, of each that tells."""
    for disk in _disks(place, sys_root):
        found = _of_emmc(disk / "device") or _of_smartctl(disk.name)
        if found is not None:
            yield found.finding(disk.name)


def _disks(place: Path, sys_root: Path) -> Iterator[Path]:
    """Yield the kernel's folder of each whole disk: of a partition, and of all that a volume is made of.

    Source: kernel, ABI/stable/sysfs-block.
    """
    number = place.stat().st_dev
    waiting = [(sys_root / f"dev/block/{os.major(number)}:{os.minor(number)}").resolve()]
    while waiting:
        block = waiting.pop()
        if below := sorted(each.resolve() for each in block.glob("slaves/*")):
            waiting += below
        elif (block / "partition").exists():
            waiting.append(block.parent)
        elif block.is_dir():
            yield block


def _of_emmc(device: Path) -> Wear | None:
    """Return what the kernel knows of an eMMC; None of others, and of one that does not say.

    Source: kernel, driver-api/mmc/mmc-dev-attrs.rst: life_time of types A and B in tenths, 11: beyond it, and
    pre_eol_info; 0 where it is not defined.
    """
    tenths = max(_hex(device / "life_time"), default=0)
    spent = max(_hex(device / "pre_eol_info"), default=0)
    if not tenths and not spent:
        return None
    return Wear(
        10 * tenths if tenths else None,
        "its spare blocks are nearly used up" if spent >= SPENT else "",
        "four fifths of its spare blocks are used" if spent == NEARLY_SPENT else "",
    )


def _hex(path: Path) -> list[int]:
    try:
        return [int(each, 16) for each in files.read_regular(path).split()]
    except (OSError, ValueError):
        return []


def _of_smartctl(disk: str) -> Wear | None:
    """Return what smartctl says of a disk; None where it is not installed, or may not or cannot read it."""
    try:
        asked = subprocess.run(
            [*SMARTCTL, f"/dev/{disk}"],
            env={"PATH": PLACES},
            capture_output=True,
            timeout=SMARTCTL_S,
            check=False,
        )
        told = Smart.model_validate_json(asked.stdout)
    except (OSError, subprocess.TimeoutExpired, ValidationError):
        return None
    if told.smart_status is None:
        return None
    failing = not told.smart_status.passed or told.nvme.critical_warning & FAILING_BITS
    return Wear(told.used, "says itself that it fails" if failing else "")
