"""The last `health` of a running daemon, left in memory of this machine for other programs of its user.

The file lies where systemd keeps what ends with the machine (RuntimeDirectory), so that no card wears out by
it. Where there is no such directory nothing is left.
"""

from pathlib import Path

from pydantic import ValidationError

from edge.core import files
from edge.core.errors import FileError
from edge.device.settings.load import Settings, runtime_dirs
from edge.mqtt.contract.encode import encode
from edge.mqtt.contract.messages import HealthPayload

MAX_BYTES = 256 * 1024


def leave_health(settings: Settings, health: HealthPayload) -> None:
    """Replace what was left.

    Raises:
        FileError: It cannot be written.
    """
    for directory in runtime_dirs()[:1]:
        files.make_private_directory(directory)
        files.write_whole(directory / _name(settings), encode(health))


def left_health(settings: Settings) -> HealthPayload | None:
    """Return what was left, None where there is nothing that can be read."""
    for directory in (*runtime_dirs(), Path("/run/edge")):
        try:
            data = files.read_bounded(directory / _name(settings), MAX_BYTES)
            if data is not None:
                return HealthPayload.model_validate_json(data)
        except (FileError, ValidationError):
            continue
    return None


def _name(settings: Settings) -> str:
    return f"{settings.site}.{settings.device}.health.json"
