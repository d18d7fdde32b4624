"""The labels of clips: who is enrolled from which photos, and who really comes to the door, and when.

Labels are a TOML file that an operator writes while watching the clips; `deploy/clips.example.toml` explains
it. Knows what should happen; runs nothing and looks into no photo or clip.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge.core.errors import ConfigError, GalleryError
from edge.core.files import read_toml
from edge.core.text import Problem, key_problems
from edge.core.types import EventType, Subject
from edge.gallery.gallery import check_subject

STRANGER = "stranger"
"""The subject of a visit by somebody who is not enrolled."""

MAX_BYTES = 4 * 1024 * 1024
"""Some 20,000 labelled visits; more is no labels file."""

TOLERANCE_S = 0.5
"""Labels are read off a player by eye, to about half a second."""

Expected = Literal["match", "reject", "no_decision", "spoof"]


class LabelTable(BaseModel):
    """A table of the labels: unknown keys, texts for numbers, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Still(LabelTable):
    """A frame of a clip to enrol from: the first one at or after `at_s` seconds of the clip."""

    clip: Path
    at_s: float = Field(0.0, ge=0, strict=True)


class LabelledSubject(LabelTable):
    """The pictures of one subject; each shows one face."""

    photos: tuple[Path, ...] = ()
    stills: tuple[Still, ...] = ()

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.photos and not self.stills:
            raise ValueError("give photos, or stills of a clip, to enrol from")
        return self


class VisitLabel(LabelTable):
    """One stay of one face before the camera, in seconds of the clip, and what the door should say.

    Without `until_s` it lasts to the end of the clip; without `expect` somebody enrolled should be a match
    and a stranger a reject.
    """

    subject: str = Field(min_length=1)
    from_s: float = Field(ge=0, strict=True)
    until_s: float | None = Field(None, gt=0, strict=True)
    expect: Expected | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.until_s is not None and self.until_s <= self.from_s:
            raise ValueError("until_s must be later than from_s")
        if self.subject == STRANGER and self.expect == "match":
            raise ValueError("a stranger cannot be a match; name the subject, or expect a reject")
        return self


class ClipLabel(LabelTable):
    """A clip, or a folder of images or clips, and all visits in it; `visits = []` where nobody comes.

    `without` names enrolled subjects whom this clip's gallery lacks: a visit of theirs is a stranger's.
    """

    file: Path
    visits: tuple[VisitLabel, ...]
    without: tuple[str, ...] = ()
    fps: float | None = Field(None, gt=0, le=1000, strict=True)


class Labels(LabelTable):
    """All labels of one file. Paths are absolute. `tolerance_s` widens every labelled visit at both ends."""

    tolerance_s: float = Field(TOLERANCE_S, ge=0, le=10, strict=True)
    subjects: dict[str, LabelledSubject] = {}
    clips: tuple[ClipLabel, ...] = Field(min_length=1)

    @field_validator("subjects")
    @classmethod
    def _names(cls, subjects: dict[str, LabelledSubject]) -> dict[str, LabelledSubject]:
        for name in subjects:
            try:
                check_subject(Subject(name, name))
            except GalleryError as error:
                raise ValueError(str(error)) from None
            if name == STRANGER:
                raise ValueError(f"{STRANGER!r} is who is not enrolled; call the subject otherwise")
        return subjects


@dataclass(frozen=True, slots=True)
class Truth:
    """One labelled visit as it is judged: `subject` is None for a stranger; `until_s` may be infinite."""

    subject: str | None
    from_s: float
    until_s: float
    expected: EventType


def read_labels(path: Path, base: Path | None = None) -> Labels:
    """Read labels; relative paths in them start from `base`, by default the folder of the file itself.

    Raises:
        ConfigError: One line that names the file and every wrong key, or every file that is not there.
    """
    values = read_toml(path, MAX_BYTES, "labels", ConfigError)
    try:
        labels = Labels(**values)
    except ValidationError as error:
        raise _refused(
            path, [_explain(problem) for problem in key_problems(error, "labels", Labels)]
        ) from None
    found = _resolved(labels, (base or path.parent).absolute())
    absent = [f"{key}: {file}: no such file" for key, file in _files(found) if not _is_there(key, file)]
    if absent:
        raise _refused(path, absent)
    return found


def check_subjects(path: Path, labels: Labels, enrolled: Callable[[str], bool]) -> None:
    """Refuse labels that name subjects who are not `enrolled`; `path` is how the error calls the file.

    Raises:
        ConfigError: One line that names every such key.
    """
    unknown = []
    for number, clip in enumerate(labels.clips):
        if len(set(clip.without)) != len(clip.without):
            unknown.append(f"clips.{number}.without: a subject is named twice; name each once")
        named = [(f"visits.{i}.subject", visit.subject) for i, visit in enumerate(clip.visits)]
        for key, name in [*named, *((f"without.{i}", name) for i, name in enumerate(clip.without))]:
            if (name != STRANGER or key.startswith("without")) and not enrolled(name):
                unknown.append(f'clips.{number}.{key}: {name!r} is not enrolled; add [subjects."{name}"]')
        for i, visit in enumerate(clip.visits):
            if visit.expect == "match" and visit.subject in clip.without:
                unknown.append(
                    f"clips.{number}.visits.{i}.expect: {visit.subject!r} is in `without`: no match"
                )
    if unknown:
        raise _refused(path, unknown)


def truths(clip: ClipLabel) -> list[Truth]:
    """Return the visits of a clip as they are judged, in the order of their arrival."""
    told = []
    for visit in clip.visits:
        known = visit.subject != STRANGER and visit.subject not in clip.without
        expected = EventType(visit.expect or ("match" if known else "reject"))
        until_s = float("inf") if visit.until_s is None else visit.until_s
        told.append(Truth(visit.subject if known else None, visit.from_s, until_s, expected))
    return sorted(told, key=lambda truth: (truth.from_s, truth.until_s))


def _explain(problem: Problem) -> str:
    """Say what is wrong with one value as `clips.0.visits.1.from_s: what`."""
    if problem.kind == "missing":
        nobody = problem.where.endswith("visits")
        what = "missing; write `visits = []` where nobody comes" if nobody else "missing"
        return str(problem._replace(what=what))
    return str(problem)


def _refused(path: Path, problems: list[str]) -> ConfigError:
    return ConfigError(f"{path}: " + "; ".join(problems))


def _resolved(labels: Labels, base: Path) -> Labels:
    place = partial(_place, base)
    subjects = {
        name: LabelledSubject(
            photos=tuple(map(place, those.photos)),
            stills=tuple(Still(clip=place(still.clip), at_s=still.at_s) for still in those.stills),
        )
        for name, those in labels.subjects.items()
    }
    clips = tuple(clip.model_copy(update={"file": place(clip.file)}) for clip in labels.clips)
    return labels.model_copy(update={"subjects": subjects, "clips": clips})


def _place(base: Path, path: Path) -> Path:
    return base / (path.expanduser() if path.parts[:1] == ("~",) else path)


def _is_there(key: str, path: Path) -> bool:
    """Say whether a path can be used; only a clip may be a folder."""
    try:
        return path.is_file() or (path.is_dir() and key.endswith(".file"))
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def _files(labels: Labels) -> list[tuple[str, Path]]:
    files = [(f"clips.{number}.file", clip.file) for number, clip in enumerate(labels.clips)]
    for name, those in labels.subjects.items():
        files += [(f"subjects.{name}.photos.{i}", photo) for i, photo in enumerate(those.photos)]
        files += [(f"subjects.{name}.stills.{i}.clip", still.clip) for i, still in enumerate(those.stills)]
    return files
