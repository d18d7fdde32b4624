"""Who is compared with whom: the verification and the open-set identification protocol on a folder of photos.

The folder is laid out as Labeled Faces in the Wild: `<Subject_Name>/<Subject_Name>_NNNN.jpg`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.camera.photo import SUFFIXES
from edge.core.errors import MediaError

FIRST_PROBE = 3
"""Probes come after the first three photos, so that enrolling 1, 2 or 3 asks the same questions."""

DEFAULT_FOLDS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of photos, whether they show one subject, and the indices of each fold."""

    first: tuple[Path, ...]
    second: tuple[Path, ...]
    same: NDArray[np.bool_]
    folds: tuple[NDArray[np.intp], ...]


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Photos to enrol by subject, genuine probes with their subject, and strangers."""

    gallery: dict[str, tuple[Path, ...]]
    genuine: tuple[tuple[str, Path], ...]
    strangers: tuple[Path, ...]

    @property
    def photos(self) -> list[Path]:
        """All photos, each once."""
        enrolled = [path for paths in self.gallery.values() for path in paths]
        return [*enrolled, *(path for _, path in self.genuine), *self.strangers]


def subjects(images: Path) -> dict[str, tuple[Path, ...]]:
    """Return the photos of every subject below `images`, sorted.

    Raises:
        MediaError: There are none, or they cannot be read.
    """
    if not images.is_dir():
        raise MediaError(
            f"{images}: no such directory; give a folder with one sub-folder of photos per subject"
        )
    try:
        found = {
            folder.name: tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES))
            for folder in sorted(images.iterdir())
            if folder.is_dir()
        }
    except OSError as error:
        raise MediaError(f"{error.filename}: cannot be read: {error.strerror}") from None
    found = {name: photos for name, photos in found.items() if photos}
    if not found:
        raise MediaError(f"{images}: no photos; expected one sub-folder of photos per subject")
    return found


def open_set(images: Path, *, enroll: int, min_images: int) -> OpenSet:
    """Return the open-set protocol: subjects with `min_images` are enrolled, single photos are strangers.

    Raises:
        MediaError: Nobody can be enrolled or probed, or there is no stranger.
    """
    everybody = subjects(images)
    first = max(enroll, FIRST_PROBE)
    known = {name: photos for name, photos in everybody.items() if len(photos) >= max(min_images, enroll)}
    genuine = tuple((name, path) for name, photos in known.items() for path in photos[first:])
    strangers = tuple(photos[0] for photos in everybody.values() if len(photos) == 1)
    if not genuine or not strangers:
        raise MediaError(
            f"{images}: {len(known)} subjects with {min_images} photos, {len(genuine)} probes, "
            f"{len(strangers)} strangers; all are needed (strangers are subjects with a single photo)"
        )
    return OpenSet({name: photos[:enroll] for name, photos in known.items()}, genuine, strangers)


def read_pairs(images: Path, pairs: Path) -> Pairs:
    """Read pairs in LFW's format: `name i j` for one subject, `name i other j` for two.

    A first line `folds pairs` (or just `pairs`) as LFW has it gives the folds; without one they are ten,
    each with every tenth pair.

    Raises:
        MediaError: The file cannot be read, or a line is not a pair of existing photos.
    """
    try:
        lines = [line.split("\t") for line in pairs.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"{pairs}: cannot read the pairs: {error}") from None
    folds = 0
    if lines and all(re.fullmatch(r"\d+", word) for word in lines[0]) and len(lines[0]) <= 2:
        header = lines.pop(0)
        folds = int(header[0]) if len(header) == 2 else 0
    first, second, same = [], [], []
    for number, words in enumerate(lines, start=1):
        if len(words) not in (3, 4) or not all(word.isdigit() for word in (words[1], words[-1])):
            raise MediaError(
                f"{pairs}: pair {number} is neither `name i j` nor `name i other j` (tab-separated)"
            )
        first.append(_photo(images, words[0], int(words[1])))
        second.append(_photo(images, words[-2] if len(words) == 4 else words[0], int(words[-1])))
        same.append(len(words) == 3)
    if not (any(same) and not all(same)):
        raise MediaError(f"{pairs}: pairs of one subject and pairs of two are both needed")
    return Pairs(tuple(first), tuple(second), np.array(same), _folds(len(same), folds))


def _folds(count: int, folds: int) -> tuple[NDArray[np.intp], ...]:
    if folds > 1:
        return tuple(np.array_split(np.arange(count), min(folds, count)))
    return tuple(np.arange(start, count, DEFAULT_FOLDS) for start in range(min(DEFAULT_FOLDS, count)))


def _photo(images: Path, name: str, number: int) -> Path:
    if "/" in name or name in (".", ".."):
        raise MediaError(f"{images}: {name!r} is not the name of a sub-folder")
    return images / name / f"{name}_{number:04}.jpg"
