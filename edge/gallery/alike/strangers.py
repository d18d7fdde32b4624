"""How many strangers a door takes for somebody, and how sure that is: a sentence for who runs a building.

From the threshold in force, what the gallery shows of how alike people are here, and how sure the calibration
is. Measured on galleries of 40 and 100 people of lfw-dev and of groups of UTKFace: models/MEASURED.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.gallery.alike.shift import MIN_SUBJECTS
from edge.gallery.decision import DecisionRule

FOR_ADULTS = (
    "decision.target_fpir is promised for adults. Children look alike: where few are enrolled, strangers of "
    "their age pass more often; where many are, the enrolled ones are often rejected"
)
"""What has to be known wherever the threshold is told. Source: models/MEASURED.md."""

LESS_ALIKE = 0.03
"""How much less alike than in the calibration people may be where the gallery shows no excess, a cosine.

Measured: .04 in galleries of white adults of UTKFace, 0 in those of lfw-dev.
"""


@dataclass(frozen=True, slots=True)
class StrangersTaken:
    """The share of strangers that is taken for somebody, with the bounds of its 95 % interval.

    `low` and `high` are None where nothing says how alike people are here: the share is then what holds for
    people as unlike as those of the calibration.
    """

    share: float
    low: float | None
    high: float | None

    def sentence(self) -> str:
        """Return it in words."""
        count = 1000 * self.share
        verb = "is" if round(count) <= 1 else "are"
        about = "fewer than 1" if round(count) == 0 else f"about {round(count):,}"
        told = f"Of 1,000 strangers at this door {about} {verb} taken for somebody"
        if self.low is None or self.high is None:
            return (
                f"{told}, if people here are no more alike than in the embedder's calibration; a gallery of "
                f"{MIN_SUBJECTS} subjects or more tells whether they are."
            )
        return f"{told} (between {round(1000 * self.low):,} and {math.ceil(1000 * self.high):,})."


def strangers_taken(
    rule: DecisionRule, comparisons: float, low: Sequence[float], high: Sequence[float]
) -> StrangersTaken | None:
    """Return how many strangers are taken for somebody while a search is worth this many comparisons.

    Args:
        rule: With the shift of the gallery in force.
        comparisons: As for `DecisionRule.threshold_for`.
        low: The 95 % interval of each threshold of the calibration: its lower bound; empty: not known.
        high: Its upper bound.

    Returns:
        The share; None for an embedder without a calibration.
    """
    if rule.calibration is None:
        return None
    table, threshold = rule.calibration, rule.threshold_for(comparisons)
    calibrated = rule.calibrated(threshold)

    def share(excess: float) -> float:
        """Return the share where the scores of strangers lie this much above the calibration's."""
        fmr = table.fmr_at(threshold - excess)
        return -math.expm1(max(1, comparisons) * math.log1p(-fmr)) if fmr < 1 else 1.0

    if rule.gallery_shift is None:
        return StrangersTaken(share(max(0.0, rule.site_shift)), None, None)
    least, most = rule.gallery_shift.interval_at(calibrated)
    measured = (least + most) / 2
    if least <= 0:
        measured, least = 0.0, -max(most, LESS_ALIKE)
    of_table = 0.0
    if low:
        widths = (np.asarray(high) - np.asarray(low)) / 2
        of_table = float(np.interp(calibrated, table.thresholds, widths))
    measured, most = max(measured, rule.site_shift), max(most, rule.site_shift)
    below, above = (math.hypot(measured - least, of_table), math.hypot(most - measured, of_table))
    low_share, high_share = share(measured - below), share(measured + above)
    # The tails of look-alikes are heavier than the shift's line says: no fewer than the rule expects.
    expected = max(share(measured), rule.expected_fpir(comparisons) or 0.0)
    return StrangersTaken(min(expected, high_share), low_share, high_share)
