"""How well the promise holds for groups of people: what share of strangers a door of one group lets in.

A group is what labels say: an age, a light, a kind of camera. People of the group are enrolled, with their
first photo, and all others of it are strangers, with all photos, in galleries drawn at random. That is the
hardest case: at most doors people are mixed. No quality gate judges the photos.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.camera.photo import SUFFIXES
from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.types import FloatArray
from edge.gallery.alike.own_shift import shifts_among
from edge.gallery.decision import DecisionRule
from edge.lab.photos.measure import Embeddings
from edge.lab.photos.plots import share_interval
from edge.lab.photos.rates import CONFIDENCE
from edge.recognition.enrolment.roster import csv_rows

PHOTO, SUBJECT = "photo", "subject"
"""Columns of the labels; every other one is a way to divide people into groups."""

EVERYBODY = "everybody"
"""Name of the group of all, where there are several groups."""

LEAST_STRANGERS = 5
"""People that a group needs besides those enrolled."""

UNIQUE = 0.632
"""Share of the people whom a sample with replacement holds: 1 - 1 / e."""

MOST_SUBJECTS = 2000
"""People of a group that are looked at, drawn at random: their pairs fit into memory."""

DRAWS = 100
"""Galleries over which the share of a group is the mean."""

ROUNDS, DRAWS_EACH = 200, 3
"""Bootstrap samples of the people of a group, and galleries drawn in each of them; a shift takes 12 ms."""

SEED = 20261129


@dataclass(frozen=True, slots=True)
class GroupLabels:
    """The photos of each subject, in the order of the labels, and the subjects of each group, by its name.

    `unlabelled` are photos of the folder that the labels do not name.
    """

    photos: Mapping[str, Sequence[Path]]
    groups: Mapping[str, Sequence[str]]
    unlabelled: Sequence[Path]


@dataclass(frozen=True, slots=True, eq=False)
class _People:
    """The first photo of each of the people, `rows` (n, D), and the cosines of all photos with these (m, n).

    `owners` (m,) says whose each photo is, `first` (m,) whether it is the first, which is enrolled, and
    `share` (m,) which part of its owner's photos it is.
    """

    rows: FloatArray
    scores: FloatArray
    owners: NDArray[np.intp]
    first: NDArray[np.bool_]
    share: NDArray[np.float64]


def read_labels(images: Path, path: Path) -> GroupLabels:
    """Read the labels of a folder of photos: a CSV file with a line for each photo.

    The column `photo` is a path below `images`. The column `subject` says whose photo it is; without it every
    photo is another person's. Each other column divides people into groups; an empty cell is in none of it.

    Raises:
        MediaError: It cannot be read, has no such columns, or names a photo that is not there; or a subject
            is in two groups of one column.
    """
    if not images.is_dir():
        raise MediaError(f"{images}: no such directory; give the folder that the labels' photos lie in")
    photos: dict[str, list[Path]] = {}
    cells: dict[tuple[str, str], str] = {}
    missing: list[str] = []
    columns: list[str] = []
    for number, row in csv_rows(path, (PHOTO,)):
        columns = [name for name in row if name not in (PHOTO, SUBJECT) and name]
        if not row[PHOTO] or not row.get(SUBJECT, row[PHOTO]):
            raise MediaError(
                f"{path}, line {number}: a row needs a photo, and a subject where that column is"
            )
        subject, photo = row.get(SUBJECT, row[PHOTO]), images / row[PHOTO]
        if not photo.is_file():
            missing.append(f"line {number}: {row[PHOTO]}")
        photos.setdefault(subject, []).append(photo)
        for column in columns:
            if cells.setdefault((column, subject), row[column]) != row[column]:
                raise MediaError(
                    f"{path}, line {number}: {column} is {row[column]!r} here and "
                    f"{cells[column, subject]!r} in an earlier line of the same subject; groups are of people"
                )
    if not columns:
        raise MediaError(
            f"{path}: no rows with groups; name a column besides {PHOTO} and {SUBJECT}, such as age, and "
            "write a line for each photo"
        )
    if missing:
        raise MediaError(f"{path}: {len(missing)} photos are not below {images}, first {missing[0]}")
    groups: dict[str, list[str]] = {}
    for column in columns:
        of_column = {subject: value for (name, subject), value in cells.items() if name == column and value}
        for value in sorted(set(of_column.values()), key=_in_order):
            groups[f"{column}: {value}"] = [who for who, group in of_column.items() if group == value]
    named = {photo for each in photos.values() for photo in each}
    found = (each for each in sorted(images.rglob("*")) if each.suffix.lower() in SUFFIXES)
    return GroupLabels(photos, groups, tuple(each for each in found if each not in named))


def _in_order(value: str) -> tuple[tuple[int, str], ...]:
    """Return what sorts `6-9` before `10-13`, and numbers before words."""
    return tuple(
        (int(part), "") if part.isdigit() else (1 << 62, part) for part in re.findall(r"\d+|\D+", value)
    )


def large_enough(labels: GroupLabels, enrolled: int) -> tuple[dict[str, Sequence[str]], dict[str, int]]:
    """Return the groups that can be tried with a gallery of that size, and how many people the others have.

    Where there are several, everybody together is one more.

    Raises:
        MediaError: No group has people enough.
    """
    least = enrolled + LEAST_STRANGERS
    usable = {name: who for name, who in labels.groups.items() if len(who) >= least}
    small = {name: len(who) for name, who in labels.groups.items() if len(who) < least}
    if not usable:
        largest = max(small, key=lambda name: small[name])
        raise MediaError(
            f"no group has {least} people ({enrolled} enrolled and {LEAST_STRANGERS} strangers); the "
            f"largest, {largest}, has {small[largest]}: label more people, or enrol fewer with --enrolled"
        )
    return ({EVERYBODY: list(labels.photos)} if len(labels.groups) > 1 else {}) | usable, small


def compare(
    photos: Mapping[str, Sequence[Path]],
    groups: Mapping[str, Sequence[str]],
    embeddings: Embeddings,
    rule: DecisionRule,
    targets: Sequence[float],
    enrolled: int,
    progress: Progress,
) -> dict[str, Any]:
    """Report each group: the share of strangers let in over the promise, and of subjects recognised.

    `rule` is tried without the shift that each gallery shows by itself, and with it, as doors have it.

    Raises:
        MediaError: Too few faces were found in the photos of a group.
    """
    report: dict[str, Any] = {}
    for done, (name, who) in enumerate(groups.items()):
        progress("groups", done, len(groups))
        generator = np.random.default_rng(SEED)
        if len(who) > MOST_SUBJECTS:
            who = [who[i] for i in sorted(generator.permutation(len(who))[:MOST_SUBJECTS])]
        people = _people([photos[each] for each in who], embeddings)
        if len(people.rows) < enrolled + LEAST_STRANGERS:
            raise MediaError(
                f"{name}: faces were found of {len(people.rows)} of {len(who)} people; {enrolled} enrolled "
                f"and {LEAST_STRANGERS} strangers are needed: give better photos, or enrol fewer with "
                "--enrolled"
            )
        report[name] = _group(people, rule, targets, enrolled, generator)
    progress("groups", len(groups), len(groups))
    return report


def _people(photos: Sequence[Sequence[Path]], embeddings: Embeddings) -> _People:
    found = [[row for path in each if (row := embeddings[path]) is not None] for each in photos]
    found = [rows for rows in found if rows]
    rows = np.stack([each[0] for each in found]) if found else np.zeros((0, 1), np.float32)
    counts = np.array([len(each) for each in found], np.intp)
    owners = np.repeat(np.arange(len(found)), counts)
    first = np.diff(owners, prepend=-1) > 0
    everything = np.concatenate([np.stack(each) for each in found]) if found else rows
    return _People(rows, everything @ rows.T, owners, first, 1 / counts[owners])


def _group(
    people: _People,
    rule: DecisionRule,
    targets: Sequence[float],
    enrolled: int,
    generator: np.random.Generator,
) -> dict[str, Any]:
    count = len(people.rows)
    rule = replace(rule, threshold=None, target_fpir=targets[0], gallery_shift=None)
    everybody = np.ones(count)

    def draw(weights: NDArray[np.float64]) -> NDArray[np.intp]:
        return generator.choice(count, enrolled, replace=False, p=weights / weights.sum())

    drawn = [_passed(people, draw(everybody), everybody, rule, targets) for _ in range(DRAWS)]
    sampled: list[NDArray[np.float64]] = []
    for _ in range(ROUNDS):
        if UNIQUE * count < enrolled + 2 * LEAST_STRANGERS:
            # Too few for a sample to hold a gallery: the gallery is of all, and strangers alone are sampled.
            galleries = [draw(everybody)]
            outside = np.setdiff1d(np.arange(count), galleries[0])
            weights = _times(generator.choice(outside, len(outside)), count)
            weights[galleries[0]] = 1
        else:
            weights = _times(generator.integers(0, count, count), count)
            while np.count_nonzero(weights) < enrolled + LEAST_STRANGERS:
                weights = _times(generator.integers(0, count, count), count)
            galleries = [draw(weights) for _ in range(DRAWS_EACH)]
        again = [_passed(people, inside, weights, rule, targets)[0] for inside in galleries]
        sampled.append(np.mean(again, axis=0))
    rates, shifts = np.array([each for each, _ in drawn]), np.array([each for _, each in drawn])
    bounds = np.array(((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    spread: NDArray[np.float64] = np.quantile(np.array(sampled), bounds, axis=0)
    several = len(people.owners) > count
    told: dict[str, Any] = {
        "subjects": count,
        "photos": len(people.owners),
    }
    for number, target in enumerate(targets):
        told[f"{target:g}"] = {"shift": _rounded(np.quantile(shifts[:, number], (0.5, 0.1, 0.9)))}
        for kind, name in enumerate(("without_shift", "with_shift")):
            share, (low, high) = float(rates[:, number, kind, 0].mean()), spread[:, number, kind, 0].tolist()
            if share == 0:
                high = share_interval(0.0, count)[1]
            genuine = rates[:, number, kind, 1]
            told[f"{target:g}"][name] = {
                "fpir": round(share, 6),
                "fpir_interval": _rounded((low, high)),
                "times_promised": round(share / target, 3),
                "times_interval": _rounded((low / target, high / target)),
                "times_of_galleries": _rounded(np.quantile(rates[:, number, kind, 0], (0.1, 0.9)) / target),
                "tpir": round(float(genuine.mean()), 5) if several else None,
                "tpir_interval": _rounded(spread[:, number, kind, 1]) if several else None,
            }
    return told


def _passed(
    people: _People,
    inside: NDArray[np.intp],
    weights: NDArray[np.float64],
    rule: DecisionRule,
    targets: Sequence[float],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Enrol those `inside`; return the shares of strangers' and subjects' photos that pass, and the shifts.

    `weights` (n,) is how often each of the people is there; who is enrolled is no stranger. The shares are
    (targets, without and with the shift, strangers and subjects), the shifts (targets,).
    """
    is_inside = np.zeros(len(weights), bool)
    is_inside[inside] = True
    counts = weights[people.owners] * people.share
    strangers = np.flatnonzero(~is_inside[people.owners] & (counts > 0))
    scores = people.scores[np.ix_(strangers, inside)]
    best, whom = scores.max(axis=1), scores.argmax(axis=1)
    genuine = np.flatnonzero(is_inside[people.owners] & ~people.first)
    own = people.scores[genuine, people.owners[genuine]]
    right = own >= people.scores[np.ix_(genuine, inside)].max(axis=1, initial=-1.0)
    place = np.empty(len(weights), np.intp)
    place[inside] = np.arange(len(inside))
    of_whom = place[people.owners[genuine]]
    shift = None if rule.calibration is None else shifts_among(people.rows[inside], rule.calibration)
    shares, shifts = np.empty((len(targets), 2, 2)), np.empty(len(targets))
    for number, target in enumerate(targets):
        aimed = replace(rule, target_fpir=target)
        plain = np.full(len(inside), aimed.threshold_for(len(inside)))
        learned = plain if shift is None else shift.thresholds(aimed, len(inside))
        for kind, each in enumerate((plain, learned)):
            passed = np.average(best >= each[whom], weights=counts[strangers])
            named = np.average(right & (own >= each[of_whom]), weights=counts[genuine]) if len(own) else 0.0
            shares[number, kind] = passed, named
        shifts[number] = np.median(learned - plain)
    return shares, shifts


def _times(sample: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """Return how often each of so many people is in a sample, (count,)."""
    return np.bincount(sample, minlength=count).astype(np.float64)


def _rounded(values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    return [round(float(value), 5) for value in values]
