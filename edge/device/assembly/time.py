"""The clock of one device: never earlier than what it has known, and whether that is the time of the day."""

from collections.abc import Callable

from edge.core.clock import Clock, FloorClock, SystemClock
from edge.core.process import clock_synced
from edge.device.settings.load import Settings
from edge.device.sync.floors import BUILT_AT, FILE_NAME, trusted_at

TIME_FILE = "clock.json"
"""The latest time that was known, in the state directory."""


def device_clock(settings: Settings, clock: Clock | None = None) -> FloorClock:
    """Return this device's clock, by what the daemon and synchronisations have left; None: the system's."""
    path = settings.state_dir / TIME_FILE
    found = FloorClock(clock or SystemClock(), path, built_at=BUILT_AT, synced=lambda: bool(clock_synced()))
    follow_sync(found, settings)
    return found


def follow_sync(clock: FloorClock, settings: Settings) -> None:
    """Let a clock know when a synchronisation last found something trusted."""
    clock.prove(trusted_at(settings.sync_path / FILE_NAME))


def time_known(clock: FloorClock, settings: Callable[[], Settings]) -> Callable[[], bool]:
    """Return what says whether windows and commands may go by this clock now, by the settings of now."""
    return lambda: settings().access.clock_behind == "open" or clock.known
