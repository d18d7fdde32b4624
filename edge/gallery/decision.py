"""Whose face is it, if anybody's: a threshold that follows the gallery's size, a margin, and the reasons.

Decides about one probe; how often a visit is looked at before it is concluded is `presence`'s business.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from edge.core.errors import ConfigError, ModelError
from edge.core.types import Barred, Decision, EventType, Match, Reason, Score, ScoredSubject

AGREEING_FMR = 1e-4
"""False match rate of single shots from which one agrees with a face.

Measured with sface-int8 (cosine .4135): on ORL, one photo enrolled, it loses none of 360 genuine photos and
lets .026 % of 14,040 impostors stay; at an FMR of 3e-4 (.388) .096 % stay.
"""


@dataclass(frozen=True, slots=True)
class Calibration:
    """False match rate over threshold of one embedder: `fmr[i]` of impostor pairs score >= `thresholds[i]`.

    Raises:
        ModelError: Thresholds in [-1, 1] must rise, rates in (0, 1] must fall.
    """

    thresholds: Sequence[float]
    fmr: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.thresholds) != len(self.fmr) or len(self.fmr) < 2:
            raise ModelError("calibration: thresholds and fmr must be equally long, two or more")
        rising = all(a < b for a, b in pairwise(self.thresholds))
        if not (rising and all(-1 <= threshold <= 1 for threshold in self.thresholds)):
            raise ModelError("calibration: thresholds must rise and lie in [-1, 1]")
        falling = all(a >= b for a, b in pairwise(self.fmr)) and self.fmr[0] > self.fmr[-1]
        if not (falling and all(0 < rate <= 1 for rate in self.fmr)):
            raise ModelError("calibration: fmr must fall and lie in (0, 1]")

    def threshold_at(self, fmr: float) -> float:
        """Return the lowest threshold whose false match rate is at most `fmr`, in (0, 1).

        Between two entries the logarithm of the rate is a straight line. Above the first rate the first
        threshold is returned, never a lower one. Below the last rate the line through the last decade of
        the table (all of it where it is shorter) is continued: impostor tails bend downwards on this scale
        (measured: .068, .057, .050 per decade), so that the line lies above the true rate and the
        threshold is rather too high. It is clipped to 1, which only the enrolled photo itself reaches.
        """
        at = bisect_left(self.fmr, -fmr, key=lambda rate: -rate)  # the first entry with a rate <= fmr
        if at == 0:
            return self.thresholds[0]
        if at < len(self.fmr):
            return self._on_line(at - 1, at, fmr)
        return min(1.0, self._on_line(*self._last_decade(), fmr))

    def fmr_at(self, threshold: float) -> float:
        """Return the false match rate at a threshold: the inverse of `threshold_at`, up to its first rate."""
        if threshold <= self.thresholds[0]:
            return self.fmr[0]
        at = bisect_left(self.thresholds, threshold)
        first, last = (at - 1, at) if at < len(self.thresholds) else self._last_decade()
        share = (threshold - self.thresholds[first]) / (self.thresholds[last] - self.thresholds[first])
        return float(self.fmr[first] * math.pow(self.fmr[last] / self.fmr[first], share))

    def _last_decade(self) -> tuple[int, int]:
        last = len(self.fmr) - 1
        return max((i for i, rate in enumerate(self.fmr) if rate >= 10 * self.fmr[last]), default=0), last

    def _on_line(self, first: int, last: int, fmr: float) -> float:
        share = math.log(self.fmr[first] / fmr) / math.log(self.fmr[first] / self.fmr[last])
        return self.thresholds[first] + share * (self.thresholds[last] - self.thresholds[first])


LEAST_FMR = 1e-300
"""A false match rate that every threshold below 1 exceeds; divisions by what is smaller overflow."""

LEAST_SHIFT = -0.1
"""Of a site's shift, as a cosine. The built-in tables rise by .06 a decade of the rate: with it, 1e-3
becomes 3e-2."""


VERY_ALIKE = 0.15
"""A gallery's shift, a cosine, from which many of the enrolled are rejected.

Measured with sface-int8: adult women of one region need .12, children from 6 to 9 .18. With 40 enrolled 4 %
of the genuine pairs of lfw-dev lie below the threshold; .08 higher 11 %, .15 higher 24 %, .30 higher 75 %.
"""

BISECTIONS = 60
"""Halvings that leave nothing of a double's 53 bits."""


@dataclass(frozen=True, slots=True)
class GalleryShift:
    """How much more alike the enrolled are among themselves than the calibration's faces (`alike.shift`).

    `shifts[i]`, a cosine >= 0, is added to the calibrated threshold `thresholds[i]`; `low` and `high` are the
    95 % interval of what was measured there. The sums rise. `subjects` were compared with each other, and
    with so many `strangers` who were kept.
    """

    subjects: int
    thresholds: Sequence[float]
    shifts: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    strangers: int = 0

    def at(self, threshold: float) -> float:
        """Return what is added to a calibrated threshold; outside the table, what is added at its end."""
        return self._between(self.shifts, threshold)

    def interval_at(self, threshold: float) -> tuple[float, float]:
        """Return the 95 % interval of what was measured at a calibrated threshold."""
        return self._between(self.low, threshold), self._between(self.high, threshold)

    def _between(self, values: Sequence[float], threshold: float) -> float:
        at = bisect_left(self.thresholds, threshold)
        if at in (0, len(self.thresholds)):
            return values[min(at, len(values) - 1)]
        first, last = self.thresholds[at - 1 : at + 1]
        share = (threshold - first) / (last - first)
        return values[at - 1] + share * (values[at] - values[at - 1])


@dataclass(frozen=True, slots=True)
class ThresholdShift:
    """What is added to the calibrated threshold in force, a cosine, and what says so.

    `value` is the largest of `site` (`decision.site_shift`), of `gallery` and of 0. `gallery` is what the
    `compared` subjects and the kept `strangers` show, `low` and `high` its 95 % interval; None where they are
    too few. `look_alikes` subjects have a shift of their own that is higher, of up to `highest`.
    """

    value: float
    site: float
    gallery: float | None
    low: float | None
    high: float | None
    compared: int
    strangers: int = 0
    look_alikes: int = 0
    highest: float = 0.0


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """When a probe is a match.

    `target_fpir` in (0, 1) is the share of strangers that may be taken for a subject; it needs the
    embedder's `calibration`. A raw `threshold` in [-1, 1] takes its place where both are given. `margin` in
    [0, 2] is how far the best subject must be ahead of the second. The larger of `site_shift` in [-0.1, 0.5],
    of `gallery_shift` and of 0 is added to the calibrated thresholds: how much more alike strangers look at
    this site than in the calibration, as a cohort and as the enrolled themselves say. `own_shifts` are by
    subject id: so much is added at least to compare with this subject, who looks like several others.

    Raises:
        ConfigError: Neither a threshold nor a calibrated target, a value out of range, or together a
            threshold below all that the calibration knows.
    """

    target_fpir: float | None
    threshold: float | None
    margin: float
    calibration: Calibration | None
    site_shift: float = 0.0
    gallery_shift: GalleryShift | None = None
    own_shifts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 2:
            raise ConfigError(f"decision.margin: {self.margin} must lie in 0..2")
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise ConfigError(f"decision.threshold: {self.threshold} must lie in -1..1")
        if self.target_fpir is not None and not 0 < self.target_fpir < 1:
            raise ConfigError(f"decision.target_fpir: {self.target_fpir} must lie between 0 and 1")
        if not LEAST_SHIFT <= self.site_shift <= 0.5:
            raise ConfigError(f"decision.site_shift: {self.site_shift} must lie in {LEAST_SHIFT}..0.5")
        # Below 0 a shift is not in force; the settings are refused as if it were.
        below = min(0.0, self.site_shift) if self.threshold is None else 0.0
        self._check_lowest(self.threshold_for(1) + below)

    def _check_lowest(self, lowest: float) -> None:
        """Accept the threshold of one comparison, the lowest of all, where the calibration knows its rate."""
        if self.calibration is None or lowest >= self.calibration.thresholds[0]:
            return
        first, rate = self.calibration.thresholds[0], self.calibration.fmr[0]
        what = "threshold" if self.threshold is not None else "site_shift"
        value = self.site_shift if self.threshold is None else self.threshold
        leads = "" if self.threshold is not None else f"leads to the threshold {lowest:.3f}, which "
        raise ConfigError(
            f"decision.{what}: {value} {leads}lies below {first}, where the embedder's calibration begins: "
            f"{rate:.0%} of strangers pass for a given subject there already"
        )

    def threshold_for(self, comparisons: float, subject: ScoredSubject | None = None) -> float:
        """Return the threshold in force, a cosine, while a search is worth this many comparisons.

        It is that of `subject`, None: of subjects without a shift of their own.

        One stranger is compared with N subjects, so FPIR = 1 - (1 - FMR)^N, and FMR follows from the target.
        A subject with several templates, or one of several photos, counts for more (`Match.comparisons`).
        An empty gallery has the threshold of one subject.
        """
        if self.threshold is not None:
            return self.threshold
        own = 0.0
        if subject is not None:
            own = max(subject.own_shift, self.own_shifts.get(subject.subject.subject_id, 0.0))
        return self._shifted(self._calibrated_for(comparisons), own)

    def shift_for(self, comparisons: float) -> ThresholdShift | None:
        """Return what is added to the threshold for so many comparisons; None: it is a raw one."""
        if self.threshold is not None:
            return None
        threshold, found = self._calibrated_for(comparisons), self.gallery_shift
        value = self.shift_at(threshold)
        if found is None:
            return ThresholdShift(value, self.site_shift, None, None, None, 0)
        low, high = found.interval_at(threshold)
        higher = [own for own in self.own_shifts.values() if own > value]
        return ThresholdShift(
            value,
            self.site_shift,
            found.at(threshold),
            low,
            high,
            found.subjects,
            found.strangers,
            look_alikes=len(higher),
            highest=max(higher, default=0.0),
        )

    @property
    def very_alike(self) -> bool:
        """Whether the enrolled alone raise the threshold by `VERY_ALIKE` or more."""
        if self.gallery_shift is None or self.calibration is None or self.threshold is not None:
            return False
        return self.gallery_shift.at(self.calibration.threshold_at(AGREEING_FMR)) >= VERY_ALIKE

    def _calibrated_for(self, comparisons: float) -> float:
        if self.target_fpir is None:
            raise ConfigError("decision: set target_fpir or threshold")
        if self.calibration is None:
            raise ConfigError(
                "decision.target_fpir: the embedder is not calibrated; set decision.threshold instead"
            )
        fmr = max(LEAST_FMR, -math.expm1(math.log1p(-self.target_fpir) / max(1, comparisons)))
        return self.calibration.threshold_at(fmr)

    @property
    def agrees_from(self) -> float:
        """The cosine from which a single shot shows the same face as another, whatever the gallery's size.

        Without a calibration it is the raw threshold, the only cosine that is known of the embedder.
        """
        if self.calibration is None:
            return self.threshold_for(1)
        return self._shifted(self.calibration.threshold_at(AGREEING_FMR))

    def agrees_with(self, subject_id: str) -> float:
        """Return `agrees_from` for a face that is to be this subject's."""
        if self.calibration is None:
            return self.agrees_from
        own = self.own_shifts.get(subject_id, 0.0)
        return self._shifted(self.calibration.threshold_at(AGREEING_FMR), own)

    def shift_at(self, threshold: float) -> float:
        """Return what is added to a calibrated threshold here, a cosine >= 0; `own_shifts` are left out."""
        of_gallery = 0.0 if self.gallery_shift is None else self.gallery_shift.at(threshold)
        return max(0.0, self.site_shift, of_gallery)

    def _shifted(self, threshold: float, own: float = 0.0) -> float:
        return min(1.0, threshold + max(own, self.shift_at(threshold)))

    def calibrated(self, threshold: float) -> float:
        """Return the calibrated threshold that was shifted to this one: the inverse of the shift."""
        if self.gallery_shift is None:
            return threshold - self.shift_at(threshold)
        low, high = threshold - max(self.shift_at(t) for t in self.gallery_shift.thresholds), threshold
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if middle + self.shift_at(middle) < threshold else (low, middle)
        return high

    def expected_fpir(self, comparisons: float) -> float | None:
        """Return the share of strangers that the threshold in force lets pass; None without a calibration."""
        if self.calibration is None:
            return None
        fmr = self.calibration.fmr_at(self.calibrated(self.threshold_for(comparisons)))
        return -math.expm1(max(1, comparisons) * math.log1p(-fmr)) if fmr < 1 else 1.0

    def decide(self, match: Match) -> Decision:
        """Return MATCH with the best subject, or REJECT with the first reason against it.

        Nobody passes as the second most alike: a subject that may not pass here now stands against the best
        of those who may, as every other subject does. Where it is recognised itself, by the threshold for
        everybody enrolled, it is rejected with its own reason. By a stale gallery nobody is recognised.

        The score's `best` is that of the most alike subject of all, whether it may pass or not.
        """
        if match.stale:
            threshold = self.threshold_for(match.comparisons, match.best)
            score = self._score(match.best, match.second, threshold, match)
            return Decision(EventType.REJECT, Reason.GALLERY_STALE, None, score)
        barred = match.barred
        if barred is not None and self._recognised(barred, match.best):
            threshold = self.threshold_for(barred.comparisons, barred.nearest)
            score = self._score(barred.nearest, match.best, threshold, match)
            return Decision(EventType.REJECT, barred.reason, barred.nearest.subject, score)
        threshold = self.threshold_for(match.comparisons, match.best)
        rivals = [each for each in (match.second, barred and barred.nearest) if each]
        rival = max(rivals, key=lambda each: each.score, default=None)
        reason = self._objection(match.best, rival, threshold)
        if reason is None and match.best is not None and match.denied is not None:
            # As alike to a face that is said not to be this subject's as to its own: nobody can tell.
            if match.denied >= threshold and match.denied >= match.best.score:
                reason = Reason.AMBIGUOUS
        best = match.best
        if barred is not None and rival is barred.nearest and (best is None or rival.score > best.score):
            # Who is not let in is the most alike: told as that, beside the threshold that it did not pass.
            best, rival = rival, best
            if reason == Reason.BELOW_THRESHOLD:
                threshold = self.threshold_for(barred.comparisons, barred.nearest)
                reason = Reason.AMBIGUOUS if best.score >= threshold else reason
        score = self._score(best, rival, threshold, match)
        if reason is not None or match.best is None:
            return Decision(EventType.REJECT, reason, None, score)
        return Decision(EventType.MATCH, None, match.best.subject, score)

    def _recognised(self, barred: Barred, best: ScoredSubject | None) -> bool:
        """Return whether the probe is the barred subject's beyond doubt."""
        score = barred.nearest.score
        if not score >= self.threshold_for(barred.comparisons, barred.nearest):
            return False
        return best is None or not best.score > score - self.margin

    def _objection(
        self, best: ScoredSubject | None, rival: ScoredSubject | None, threshold: float
    ) -> Reason | None:
        """Return the first reason against the best subject of those who may pass."""
        if best is None:
            return Reason.GALLERY_EMPTY if rival is None else Reason.BELOW_THRESHOLD
        if not best.score >= threshold:  # so that NaN rejects
            return Reason.BELOW_THRESHOLD
        if rival is not None and not best.score - rival.score >= self.margin:
            return Reason.AMBIGUOUS
        return None

    def _score(
        self, best: ScoredSubject | None, second: ScoredSubject | None, threshold: float, match: Match
    ) -> Score:
        target = None if self.threshold is not None else self.target_fpir
        return Score(_told(best), _told(second), threshold, self.margin, target, match.gallery_size)


def _told(subject: ScoredSubject | None) -> float | None:
    """Return the score for an event; a score that is not a number is none."""
    return None if subject is None or math.isnan(subject.score) else subject.score
