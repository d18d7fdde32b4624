"""The board that a door runs on: clock, disk, heat, memory, who may read what, and the keys."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from edge.core import files
from edge.core.clock import FloorClock
from edge.core.errors import FileError, KeyFileError
from edge.core.process import clock_synced, temperature_c, throttled_by
from edge.device.assembly.stores import check_device_key
from edge.device.assembly.time import TIME_FILE
from edge.device.checkup.finding import Checkup, Finding, green, red, yellow
from edge.device.checkup.wear import wear
from edge.device.settings.load import Settings, credential_path
from edge.device.sync.floors import BUILT_AT
from edge.mqtt.contract.problems import DoorProblem

FULL_MB, TIGHT_MB = 64, 512
"""Free megabytes below which decisions may soon find no room, and below which somebody should know."""

IN_MEMORY = ("tmpfs", "ramfs")
"""File systems that are gone with the power."""

PROC, SYS = Path("/proc"), Path("/sys")

HOT_C = 80.0
"""Temperature at which boards begin to slow down. Source: Raspberry Pi documentation: from 80 degrees."""

LITTLE_MB = 150.0
"""Memory that a door with one camera takes. Source: README.md."""

MOST_RSS_MB = 400.0
"""Of a daemon; the unit ends it at 512 MB (MemoryMax)."""

MAX_FILES = 10_000
"""Files of the state directory whose rights are looked at."""


def clock(checkup: Checkup) -> Iterator[Finding]:
    """Say whether a time source sets the clock, and whether it shows a time that has passed already."""
    path = checkup.settings.state_dir / TIME_FILE
    known = FloorClock(checkup.clock, path, built_at=BUILT_AT, synced=lambda: bool(clock_synced()))
    shown = f"{checkup.clock.now():%Y-%m-%d %H:%M} UTC"
    if known.behind:
        told = f"shows {shown}, but it was {known.least():%Y-%m-%d %H:%M} already"
        yield red("clock", told, "set it, and let a time source keep it: timedatectl set-ntp true")
    elif not clock_synced():
        told = f"{shown}; no time source is known to set it"
        yield yellow("clock", told, "timedatectl set-ntp true, or see that chrony reaches its servers")
    else:
        yield green("clock", f"{shown}, set by a time source")


def disk(checkup: Checkup) -> Iterator[Finding]:
    """Say how much room there is for the state directory, how it is mounted, and how worn the disk is."""
    place = checkup.settings.state_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    yield _room(place, checkup.settings)
    yield from _mounted(place)
    yield from wear(place, SYS)


def _room(place: Path, settings: Settings) -> Finding:
    free_mb = shutil.disk_usage(place).free / 1e6
    told = f"{free_mb:,.0f} MB free in {place}"
    if not os.statvfs(place).f_favail and os.statvfs(place).f_files:
        return red(
            "disk",
            f"{told}, but no file can be made any more (inodes)",
            "delete files, or make a larger file system",
        )
    if free_mb < FULL_MB + settings.outbox.max_mb:
        return red("disk", told, "make room: decisions are lost with the power where they cannot be written")
    if free_mb < TIGHT_MB:
        return yellow("disk", told, "make room before it is full")
    return green("disk", told)


def _mounted(place: Path) -> Iterator[Finding]:
    """Say what is wrong with the mount of a directory. Source: proc(5), /proc/self/mounts."""
    mounts = [line.split() for line in _text(PROC / "self/mounts").splitlines()]
    above = [mount for mount in mounts if place.resolve().is_relative_to(mount[1])]
    if not above:
        return
    device, where, kind, options = max(above, key=lambda mount: len(mount[1]))[:4]
    given = options.split(",")
    if kind in IN_MEMORY:
        yield red(
            "disk: mount", f"{where} is {kind}: gone with the power", "set state_dir to a directory on a disk"
        )
    elif "ro" in given:
        yield red(
            "disk: mount", f"{where} ({device}) is read-only", "check the disk, then mount it read-write"
        )
    elif "sync" in given:
        yield yellow(
            "disk: mount",
            f"{where} writes everything at once (sync)",
            "mount it without sync: it wears cards out",
        )
    else:
        yield green("disk: mount", f"{where} ({kind}) is read-write")


def heat(checkup: Checkup) -> Iterator[Finding]:
    """Say how hot the board is, and whether it makes itself slower."""
    hottest, slowed = temperature_c(), throttled_by()
    told = "no sensor" if hottest is None else f"{hottest:.0f} degrees"
    if slowed:
        told = f"{told}; the board makes itself slower: {', '.join(slowed)}"
        yield red("temperature", told, DoorProblem.THROTTLED.remedy)
    elif hottest is not None and hottest >= HOT_C:
        yield yellow("temperature", told, "cool it: boards slow down from here on")
    else:
        yield green("temperature", told)


def memory(checkup: Checkup) -> Iterator[Finding]:
    """Say whether a daemon finds the memory that it needs, or how much it takes. Source: proc(5), meminfo."""
    lines = dict(line.split(":", 1) for line in _text(PROC / "meminfo").splitlines() if ":" in line)
    free_mb = int(lines["MemAvailable"].split()[0]) * 1024 / 1e6
    told = f"{free_mb:,.0f} MB available"
    if checkup.health is not None:
        told = f"the daemon takes {checkup.health.rss_mb:.0f} MB; {told}"
        if checkup.health.rss_mb > MOST_RSS_MB:
            yield yellow("memory", told, "give it fewer or smaller cameras; the unit ends it at 512 MB")
            return
    elif not checkup.running and free_mb < LITTLE_MB * max(1, len(checkup.settings.cameras)):
        yield red("memory", told, "end what else runs here: the daemon may be ended for want of memory")
        return
    yield green("memory", told)


def rights(checkup: Checkup) -> Iterator[Finding]:
    """Say who may read settings, state and keys, and whether the state is all of one user."""
    settings, wrong = checkup.settings, []
    if (
        checkup.config_file is not None
        and (found := _mode(checkup.config_file)) & 0o007
        and _has_secret(settings)
    ):
        mend = f"chmod 640 {checkup.config_file}, with the daemon's group"
        wrong.append(
            red("rights", f"everybody may read the secrets in {checkup.config_file} (mode {found:04o})", mend)
        )
    for path in (settings.mqtt.password_file, settings.mqtt.key_file, settings.remote.api_key_file):
        if path is not None and path.exists() and (found := _mode(path)) & 0o007:
            wrong.append(
                red(
                    "rights",
                    f"everybody may read {path} (mode {found:04o})",
                    f"chmod 640 {path}, with the daemon's group",
                )
            )
    if settings.state_dir.is_dir():
        wrong += _of_state(settings)
    yield from wrong or [green("rights", "settings, state and keys are the daemon's alone")]


def _has_secret(settings: Settings) -> bool:
    urls = [camera.source or "" for camera in settings.cameras.values()]
    return settings.mqtt.password is not None or any("@" in each for each in urls)


def _of_state(settings: Settings) -> Iterator[Finding]:
    """Say what others may read of the state, and what is not of the user that the state is of."""
    state, owner = settings.state_dir, settings.state_dir.stat().st_uid
    if others := stat.S_IMODE(state.stat().st_mode) & 0o077:
        for path in _private_files(settings):
            if (found := _mode(path)) & 0o077:
                told = f"others may read {path} (mode {found:04o})"
                yield red("rights", told, f"chmod 600 {path}; chmod 700 {state}")
                break
        else:
            told = f"others may enter {state} (mode {0o700 | others:04o}); the files in it are closed"
            yield yellow("rights", told, f"chmod 700 {state}")
    foreign = [path for path in _private_files(settings) if path.lstat().st_uid != owner]
    if foreign:
        told = f"{len(foreign)} file(s), such as {foreign[0]}, are not of the user that {state} is of"
        yield red("rights", told, f"chown -R --reference={state} {state}: the daemon cannot change them")


def _private_files(settings: Settings) -> Iterator[Path]:
    """Yield what lies in the state directory, without models and the lock, which anybody may read."""
    number = 0
    for folder, folders, names in os.walk(settings.state_dir):
        folders[:] = [each for each in folders if Path(folder) / each != settings.models_path]
        for name in names:
            number += 1
            if number > MAX_FILES:
                return
            if name != files.DAEMON_LOCK:
                yield Path(folder) / name


def credentials(checkup: Checkup) -> Iterator[Finding]:
    """Say whether the device's key and the fleet's are there, and what they are kept in."""
    settings = checkup.settings
    path, configured = settings.device_key_path, settings.gallery.device_key
    try:
        check_device_key(settings)
    except KeyFileError as error:
        yield red(
            "device key", str(error), "restore it from a backup; without it the gallery cannot be opened"
        )
    else:
        kept = (
            "a credential of systemd"
            if configured is not None and len(configured.parts) == 1
            else "a plain file"
        )
        made = "" if path.exists() else ", made at first use"
        yield green("device key", f"{path}, {kept}{made}")
    for name, key in (("sealing key", settings.sync.sealing_key), ("site secret", settings.remote.secret)):
        if key is None:
            continue
        try:
            files.read_keys(credential_path(key), 2)
        except FileError as error:
            yield red(name, str(error), "copy it from the operator's machine, with mode 0600")
        else:
            yield green(name, f"{key} holds a key")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _text(path: Path) -> str:
    """Return what the kernel says in a file; nothing where there is none."""
    try:
        return files.read_regular(path).decode(errors="replace")
    except OSError:
        return ""
