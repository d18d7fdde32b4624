"""One visit, one person: what the door says when a face takes the place of another one, from photos.

Every photo is looked at once. Then clips of these looks run through the product's own pipeline: one shot of
a subject and then a stranger on the same track, without and with a gap; a stranger in the place of a subject
who was matched, and the other way round; and visits of one subject alone, which must be decided as soon as
before. Faces stand still and in one place, which is the worst case for whoever has to notice a change.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from itertools import count, permutations
from pathlib import Path
from typing import Any

import numpy as np

from edge.core.errors import MediaError
from edge.core.types import (
    AlignedFace,
    Decision,
    Detection,
    EventType,
    FaceEvent,
    Frame,
    Image,
    Probe,
    Subject,
    Template,
)
from edge.gallery.gallery import Gallery
from edge.lab.photos.shots import Shot
from edge.recognition.pipeline import Pipeline
from edge.recognition.recognizer import Recognizer

MIN_PHOTOS = 4
"""Photos of a subject: one to enrol, one to be seen, and two to take somebody's place."""

MAX_PHOTOS = 10
"""Photos of a subject that are used."""

MAX_PAIRS = 1600
"""Ordered pairs of subjects: all of 40. Of more subjects so many are drawn."""

DRAW_SEED = 20261129

FPS = 10.0
SLOW_FPS = 3.0
"""Frames a second of the clips in which a place is taken."""

GAP_S = 0.5
"""How long nobody is in sight in clips with a gap: shorter than a track waits."""

BEFORE_S, AFTER_S = 5.0, 6.0
"""How long the first and the second face stand there, where the first is decided before the second comes."""

VISIT_S = 2.5
"""How long a stranger stands after the one shot of a subject, and how long a visit of one subject lasts."""

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
BOX = np.array([100, 100, 200, 200], np.float32)
PLACES = np.array([[130, 135], [170, 135], [150, 155], [135, 175], [165, 175]], np.float32)

Looks = Mapping[str, Sequence[Shot]]
"""The shots of each subject's photos; the first is enrolled."""

Clip = Sequence[Shot | None]
"""What every frame shows: a face, or nobody."""


@dataclass(frozen=True, slots=True, eq=False)
class PhotoRecognizer(Recognizer):
    """A recognizer that has looked at its faces before: a frame is the number of a shot, 0 shows nobody.

    `together` lets a match stand when the shots reach the threshold together, as before each had to agree.
    """

    shown: Sequence[Shot] = ()
    together: bool = False

    def detect(self, image: Image) -> list[Detection]:
        """Find the one face of a frame."""
        return [Detection(BOX, PLACES, 0.95)] if _number(image) else []

    def align(self, image: Image, detection: Detection) -> AlignedFace:
        """Return the face as it was measured in its photo."""
        return AlignedFace(image, self.shown[_number(image) - 1].quality, detection)

    def embed(self, face: AlignedFace, liveness: float | None = None) -> Probe:
        """Return the embedding that the face had in its photo."""
        shot = self.shown[_number(face.image) - 1]
        return Probe(shot.embedding, self.embedder.model_id, shot.quality, liveness)

    def agreeing(self, shots: Sequence[Probe], match: Decision) -> int:
        """See `Recognizer.agreeing`."""
        return len(shots) if self.together else Recognizer.agreeing(self, shots, match)


@dataclass(frozen=True, eq=False)
class SwapStudy:
    """Clips of looks at a door where everybody is enrolled, or everybody but one.

    `make_pipeline` returns a fresh pipeline, without a motion gate, that names its visits by the function.
    """

    looks: Looks
    recognizer: Recognizer
    make_pipeline: Callable[[Callable[[], str]], Pipeline]

    def report(self) -> dict[str, Any]:
        """Return the figures of all clips.

        Raises:
            MediaError: Fewer than three subjects have MIN_PHOTOS usable photos.
        """
        if len(self.looks) < 3:
            raise MediaError(
                f"{len(self.looks)} subjects with {MIN_PHOTOS} usable photos; this needs three or more"
            )
        pairs = self._pairs()
        return {
            "subjects": len(self.looks),
            "pairs": len(pairs),
            "agrees_from": round(self.recognizer.rule.agrees_from, 4),
            "threshold": round(self.recognizer.rule.threshold_for(len(self.looks) - 1), 4),
            "stranger_alone": self._strangers(pairs),
            "one_shot": {
                kind: {
                    "together": self._one_shot(pairs, gap_s, together=True),
                    "each": self._one_shot(pairs, gap_s, together=False),
                }
                for kind, gap_s in (("no gap", 0.0), (f"gap of {GAP_S} s", GAP_S))
            },
            "place_taken": {
                f"{fps:g} frames/s": {
                    "a stranger after a subject": self._place_taken(pairs, fps, stranger_first=False),
                    "a subject after a stranger": self._place_taken(pairs, fps, stranger_first=True),
                }
                for fps in (FPS, SLOW_FPS)
            },
            "one_subject": {
                "together": self._alone(together=True),
                "each": self._alone(together=False),
            },
        }

    @cached_property
    def _gallery(self) -> Gallery:
        model_id = self.recognizer.embedder.model_id
        return Gallery.empty(model_id).with_subjects(
            [
                (Subject(name, name), [Template(each[0].embedding, model_id, each[0].quality, "photo", AT)])
                for name, each in self.looks.items()
            ]
        )

    @cached_property
    def _shown(self) -> list[Shot]:
        return [shot for each in self.looks.values() for shot in each]

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """The number that stands for a shot in a frame, by the shot's identity."""
        return {id(shot): number for number, shot in enumerate(self._shown, 1)}

    def _pairs(self) -> list[tuple[str, str]]:
        pairs = list(permutations(self.looks, 2))
        if len(pairs) > MAX_PAIRS:
            drawn = np.random.default_rng(DRAW_SEED).choice(len(pairs), MAX_PAIRS, replace=False)
            pairs = [pairs[index] for index in sorted(drawn)]
        return sorted(pairs, key=lambda pair: pair[1])

    def _door(self, without: str | None, *, together: bool) -> PhotoRecognizer:
        """Return a recognizer that knows everybody but one."""
        gallery = self._gallery if without is None else self._gallery.without_subject(without)
        known = self.recognizer.with_gallery(gallery)
        values = {each.name: getattr(known, each.name) for each in fields(Recognizer)}
        return PhotoRecognizer(**values, shown=self._shown, together=together)

    def _doors(
        self, pairs: Sequence[tuple[str, str]], *, together: bool
    ) -> Iterator[tuple[str, str, PhotoRecognizer]]:
        """Yield every pair of a subject and a stranger with a door that does not know the stranger."""
        known: PhotoRecognizer | None = None
        before: str | None = None
        for subject, stranger in pairs:
            if known is None or stranger != before:
                known, before = self._door(stranger, together=together), stranger
            yield subject, stranger, known

    def _run(self, clip: Clip, fps: float, recognizer: PhotoRecognizer) -> list[FaceEvent]:
        numbers = count(1)
        pipeline = self.make_pipeline(lambda: f"v{next(numbers)}")
        told: list[FaceEvent] = []
        for number, shot in enumerate(clip):
            at_s = number / fps
            frame = Frame("front", _picture(self._numbers[id(shot)] if shot else 0), AT, at_s, number)
            told += pipeline.process(frame, recognizer)
        told += pipeline.flush(recognizer)
        return [event for event in told if event.event_type != EventType.LEFT]

    def _one_shot(self, pairs: Sequence[tuple[str, str]], gap_s: float, *, together: bool) -> dict[str, Any]:
        """Show a subject for one shot and then a stranger on the same track: who is named?"""
        wrong = others = 0
        for subject, stranger, door in self._doors(pairs, together=together):
            seen, taker = self.looks[subject][1], self.looks[stranger]
            clip: list[Shot | None] = [seen] * 2 + [None] * round(gap_s * FPS)
            clip += _turns(taker, VISIT_S, FPS)
            named = {
                event.subject.subject_id
                for event in self._run(clip, FPS, door)
                if event.event_type == EventType.MATCH and event.subject
            }
            wrong += subject in named
            others += bool(named - {subject})
        return {"wrong_names": _share(wrong, len(pairs)), "other_names": _share(others, len(pairs))}

    def _strangers(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Show every stranger alone: whoever is named then is so by the threshold's own rate."""
        doors = {stranger: door for _, stranger, door in self._doors(pairs, together=False)}
        told = [self._run(_turns(self.looks[who], VISIT_S, FPS), FPS, door) for who, door in doors.items()]
        named = sum(any(event.event_type == EventType.MATCH for event in each) for each in told)
        return {"strangers": len(doors), "named": named}

    def _place_taken(
        self, pairs: Sequence[tuple[str, str]], fps: float, *, stranger_first: bool
    ) -> dict[str, Any]:
        """Let one face be decided, and show the other one in its place: is it noticed, and how soon?"""
        noticed: list[float] = []
        matched = tried = 0
        for subject, stranger, door in self._doors(pairs, together=False):
            who, next_one = self.looks[subject][1:], self.looks[stranger]
            if stranger_first:
                who, next_one = next_one, who
            first = _turns(who, BEFORE_S, fps)
            cut_s = len(first) / fps
            told = self._run([*first, *_turns(next_one, AFTER_S, fps)], fps, door)
            if not told or told[0].monotonic_s >= cut_s:
                continue  # the first face was not decided in time: nothing to be inherited
            tried += 1
            after = [event for event in told if event.monotonic_s >= cut_s]
            changed = [event for event in after if event.visit != told[0].visit]
            noticed += [changed[0].monotonic_s - cut_s] if changed else []
            matched += any(event.event_type == EventType.MATCH for event in after)
        return {
            "decided_first": tried,
            "noticed": _share(len(noticed), tried),
            "noticed_after_s": _percentiles(noticed),
            "matched_after": _share(matched, tried),
        }

    def _alone(self, *, together: bool) -> dict[str, Any]:
        """Show one subject, each photo first in turn: how many frames until the match?"""
        door = self._door(None, together=together)
        frames: list[float] = []
        visits = twice = 0
        for name, each in self.looks.items():
            rest = each[1:]
            for start in range(len(rest)):
                visits += 1
                told = self._run(_turns([*rest[start:], *rest[:start]], VISIT_S, FPS), FPS, door)
                matches = [event for event in told if event.event_type == EventType.MATCH]
                right = [event for event in matches if event.subject and event.subject.subject_id == name]
                frames += [right[0].monotonic_s * FPS + 1] if right else []
                twice += len(matches) > 1
        return {
            "visits": visits,
            "matched": _share(len(frames), visits),
            "matched_twice": _share(twice, visits),
            "frames_until_match": _percentiles(frames),
        }


def usable(shots: Mapping[Path, Shot | None], subjects: Mapping[str, Sequence[Path]]) -> Looks:
    """Return the usable shots of the subjects who have MIN_PHOTOS of them, MAX_PHOTOS at most."""
    looks = {
        name: [shot for path in photos if (shot := shots[path]) is not None and shot.quality.refused is None]
        for name, photos in subjects.items()
    }
    return {name: each[:MAX_PHOTOS] for name, each in looks.items() if len(each) >= MIN_PHOTOS}


def _picture(number: int) -> Image:
    return np.array([[[number & 255, number >> 8 & 255, number >> 16]]], np.uint8)


def _number(image: Image) -> int:
    blue, green, red = (int(value) for value in image[0, 0])
    return blue | green << 8 | red << 16


def _turns(shots: Sequence[Shot], seconds: float, fps: float) -> list[Shot | None]:
    """Return a clip that shows the photos in turn, one in each frame."""
    return [shots[number % len(shots)] for number in range(round(seconds * fps))]


def _share(number: int, of: int) -> float | None:
    return round(number / of, 5) if of else None


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "max": round(max(values), 2)}
