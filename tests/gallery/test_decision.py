import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge.core.errors import ConfigError, ModelError
from edge.core.types import Barred, EventType, Match, Reason, ScoredSubject, Subject
from edge.gallery.decision import Calibration, DecisionRule, GalleryShift

ALICE, BOB = Subject("a", "Alice"), Subject("b", "Bob")
TABLE = Calibration((0.3, 0.4, 0.5), (1e-2, 1e-3, 1e-4))
MEASURED = Calibration((0.289, 0.357, 0.414, 0.464), (1e-2, 1e-3, 1e-4, 1e-5))


def match_of(best: float | None, second: float | None = None, size: int = 2) -> Match:
    return Match(
        None if best is None else ScoredSubject(ALICE, best),
        None if second is None else ScoredSubject(BOB, second),
        size,
        size,
    )


@pytest.mark.parametrize(
    ("best", "second", "event_type", "reason"),
    [
        pytest.param(0.61, 0.39, EventType.MATCH, None, id="clear match"),
        pytest.param(0.50, None, EventType.MATCH, None, id="exactly the threshold, gallery of one"),
        pytest.param(0.75, 0.625, EventType.MATCH, None, id="exactly the margin"),
        pytest.param(0.4999, 0.1, EventType.REJECT, Reason.BELOW_THRESHOLD, id="just below"),
        pytest.param(-0.2, -0.3, EventType.REJECT, Reason.BELOW_THRESHOLD, id="nobody alike"),
        pytest.param(0.70, 0.60, EventType.REJECT, Reason.AMBIGUOUS, id="look-alikes"),
        pytest.param(0.45, 0.44, EventType.REJECT, Reason.BELOW_THRESHOLD, id="strangers first, then twins"),
        pytest.param(None, None, EventType.REJECT, Reason.GALLERY_EMPTY, id="empty gallery"),
        pytest.param(math.nan, 0.1, EventType.REJECT, Reason.BELOW_THRESHOLD, id="NaN"),
        pytest.param(0.9, math.nan, EventType.REJECT, Reason.AMBIGUOUS, id="second NaN"),
    ],
)
def test_a_decision_follows_from_its_scores(best, second, event_type, reason):
    decision = DecisionRule(None, 0.5, 0.125, None).decide(match_of(best, second))
    assert (decision.event_type, decision.reason) == (event_type, reason)
    assert decision.subject == (ALICE if event_type == EventType.MATCH else None)


@pytest.mark.parametrize("other", [None, 0.99])
def test_by_a_stale_gallery_nobody_is_recognised(other: float | None):
    match = replace(match_of(0.99, 0.1), stale=True, barred=None if other is None else barred(other))
    decision = DecisionRule(None, 0.5, 0.125, None).decide(match)
    assert (decision.event_type, decision.reason) == (EventType.REJECT, Reason.GALLERY_STALE)
    assert decision.subject is None
    assert decision.score is not None
    assert decision.score.best == 0.99


def barred(score: float, reason: Reason = Reason.EXPIRED, comparisons: float = 2) -> Barred:
    return Barred(ScoredSubject(BOB, score), reason, comparisons)


@pytest.mark.parametrize(
    ("best", "other", "event_type", "reason", "subject"),
    [
        pytest.param(None, 0.7, EventType.REJECT, Reason.EXPIRED, BOB, id="recognised, but expired"),
        pytest.param(0.3, 0.7, EventType.REJECT, Reason.EXPIRED, BOB, id="recognised beside a stranger"),
        pytest.param(0.65, 0.7, EventType.REJECT, Reason.AMBIGUOUS, None, id="too like somebody who may"),
        pytest.param(0.7, 0.65, EventType.REJECT, Reason.AMBIGUOUS, None, id="too like somebody who may not"),
        pytest.param(0.8, 0.6, EventType.MATCH, None, ALICE, id="clearly somebody who may"),
        pytest.param(0.55, 0.58, EventType.REJECT, Reason.AMBIGUOUS, None, id="nobody passes as the second"),
        pytest.param(0.3, 0.4, EventType.REJECT, Reason.BELOW_THRESHOLD, None, id="a stranger to both"),
        pytest.param(None, 0.4, EventType.REJECT, Reason.BELOW_THRESHOLD, None, id="nobody may pass now"),
        pytest.param(None, math.nan, EventType.REJECT, Reason.BELOW_THRESHOLD, None, id="NaN"),
        pytest.param(math.nan, math.nan, EventType.REJECT, Reason.BELOW_THRESHOLD, None, id="NaN twice"),
    ],
)
def test_who_may_not_pass_is_rejected_with_the_reason_or_stands_in_the_way(
    best, other, event_type, reason, subject
):
    match = replace(match_of(best), barred=barred(other))
    decision = DecisionRule(None, 0.5, 0.125, None).decide(match)
    assert (decision.event_type, decision.reason, decision.subject) == (event_type, reason, subject)


@pytest.mark.parametrize("best", [None, 0.2, 0.41, 0.43, 0.47, 0.5, 0.6])
@pytest.mark.parametrize("second", [None, 0.1, 0.42, 0.46])
@pytest.mark.parametrize("other", [None, 0.2, 0.42, 0.44, 0.46, 0.48, 0.55])
@pytest.mark.parametrize("margin", [0, 0.05])
def test_the_numbers_of_a_decision_agree_with_it(best, second, other, margin):
    rule = DecisionRule(0.001, None, margin, TABLE)
    second = None if best is None or second is None or second > best else second
    match = match_of(best, second) if best is not None else Match(None, None, 0, 0)
    decision = rule.decide(match if other is None else replace(match, barred=barred(other, comparisons=20)))
    score = decision.score
    assert score is not None
    known = sorted((each for each in (best, second, other) if each is not None), reverse=True)
    assert score.best == (known[0] if known else None)
    assert score.second is None or score.second == known[1]
    clear = score.best is not None and score.best >= score.threshold
    ahead = score.second is None or (clear and score.best - score.second >= margin)
    if decision.event_type == EventType.MATCH or decision.reason == Reason.EXPIRED:
        assert clear
        assert ahead
    elif decision.reason == Reason.AMBIGUOUS:
        assert clear
        assert not ahead or margin == 0
    else:
        assert not clear


def test_to_be_recognised_among_everybody_takes_the_threshold_for_everybody():
    rule = DecisionRule(0.001, None, 0.05, TABLE)
    match = Match(None, None, 0, 0, barred(0.45, comparisons=1))
    assert rule.decide(match).reason == Reason.EXPIRED
    crowd = replace(match, barred=barred(0.45, comparisons=1000))
    decision = rule.decide(crowd)
    assert (decision.reason, decision.subject) == (Reason.BELOW_THRESHOLD, None)
    assert decision.score is not None
    assert (decision.score.best, decision.score.second) == (0.45, None)
    assert decision.score.threshold == rule.threshold_for(1000) > 0.45


def test_a_decision_tells_its_numbers():
    score = DecisionRule(0.001, None, 0.05, TABLE).decide(match_of(0.61, 0.39, size=1)).score
    assert score is not None
    assert (score.best, score.second, score.margin, score.target_fpir, score.gallery_size) == (
        0.61,
        0.39,
        0.05,
        0.001,
        1,
    )
    assert score.threshold == pytest.approx(0.4)


def test_a_score_that_is_not_a_number_is_told_as_none():
    score = DecisionRule(None, 0.5, 0.05, None).decide(match_of(math.nan, math.nan)).score
    assert score is not None
    assert (score.best, score.second) == (None, None)


def test_a_raw_threshold_goes_before_the_target_and_does_not_move():
    rule = DecisionRule(0.001, 0.44, 0.05, TABLE)
    assert {rule.threshold_for(size) for size in (0, 1, 10, 100_000)} == {0.44}
    score = rule.decide(match_of(0.6)).score
    assert score is not None
    assert score.target_fpir is None


@pytest.mark.parametrize(
    ("target_fpir", "size", "threshold"),
    [
        pytest.param(1e-3, 1, 0.4, id="an entry of the table"),
        pytest.param(10**-3.5, 1, 0.45, id="half way on the logarithm"),
        pytest.param(1 - (1 - 1e-3) ** 100, 100, 0.4, id="a hundred subjects share the target"),
        pytest.param(0.5, 1, 0.3, id="never below the table"),
        pytest.param(1e-5, 1, 0.6, id="continued beyond the table"),
        pytest.param(1e-3, 1000, 0.6, id="continued for a large gallery (FMR 1.0005e-6 is at .69998)"),
        pytest.param(1e-3, 0, 0.4, id="nobody enrolled counts as one"),
        pytest.param(1e-15, 1000, 1.0, id="clipped to 1"),
    ],
)
def test_the_threshold_meets_the_target_for_the_gallery(target_fpir: float, size: int, threshold: float):
    if target_fpir == 1e-3 and size == 1000:
        threshold = 0.5 + 0.1 * math.log10(1e-4 / -math.expm1(math.log1p(-1e-3) / 1000))
    assert DecisionRule(target_fpir, None, 0, TABLE).threshold_for(size) == pytest.approx(threshold, abs=1e-9)


@settings(max_examples=200, deadline=None, database=None)
@given(exponent=st.floats(-4, -0.2), size=st.integers(1, 5000))
def test_the_false_positive_rate_at_the_threshold_is_the_target(exponent: float, size: int):
    target = 10**exponent
    fmr = 1 - (1 - target) ** (1 / size)
    if not 1e-5 <= fmr <= 1e-2:
        return
    threshold = DecisionRule(target, None, 0, MEASURED).threshold_for(size)
    read_off = math.exp(np.interp(threshold, MEASURED.thresholds, np.log(MEASURED.fmr)))
    assert 1 - (1 - read_off) ** size == pytest.approx(target, rel=1e-6)


def test_the_threshold_rises_with_the_gallery_and_with_caution():
    rule = DecisionRule(0.001, None, 0, MEASURED)
    moving = [rule.threshold_for(size) for size in (1, 2, 10, 100, 1000, 10_000, 1_000_000)]
    assert moving == sorted(moving)
    assert len(set(moving)) == len(moving)
    careful = [DecisionRule(t, None, 0, MEASURED).threshold_for(200) for t in (0.1, 0.01, 0.001, 0.0001)]
    assert careful == sorted(careful)
    assert len(set(careful)) == len(careful)


@settings(max_examples=100, deadline=None, database=None)
@given(rate=st.floats(1e-9, 1e-2), shift=st.floats(-0.1, 0.3))
def test_rate_and_threshold_are_each_other_s_inverse(rate: float, shift: float):
    assume(MEASURED.threshold_at(rate) + shift >= MEASURED.thresholds[0])
    assert MEASURED.fmr_at(MEASURED.threshold_at(rate)) == pytest.approx(rate, rel=1e-6)
    assert DecisionRule(rate, None, 0, MEASURED, shift).expected_fpir(1) == pytest.approx(rate, rel=1e-6)


def test_a_site_s_shift_moves_every_calibrated_threshold_and_no_raw_one():
    plain, shifted = (DecisionRule(1e-3, None, 0, TABLE, shift) for shift in (0.0, 0.05))
    for size in (1, 10, 1000):
        assert shifted.threshold_for(size) == pytest.approx(plain.threshold_for(size) + 0.05)
    assert DecisionRule(None, 0.44, 0, TABLE, 0.05).threshold_for(10) == 0.44
    with pytest.raises(ConfigError, match="site_shift"):
        DecisionRule(1e-3, None, 0, TABLE, 0.6)


LEARNED = GalleryShift(40, TABLE.thresholds, (0.02, 0.04, 0.06), (0.0, 0.01, 0.02), (0.05, 0.07, 0.1))


@pytest.mark.parametrize(
    ("site_shift", "learned", "shift"),
    [
        pytest.param(0.01, None, 0.01, id="of the site alone"),
        pytest.param(-0.05, None, 0.0, id="of the site, below 0"),
        pytest.param(0.0, LEARNED, 0.04, id="of the gallery"),
        pytest.param(-0.05, LEARNED, 0.04, id="of the gallery, the site's below 0"),
        pytest.param(0.01, LEARNED, 0.04, id="of the gallery, which is larger"),
        pytest.param(0.05, LEARNED, 0.05, id="of the site, which is larger"),
    ],
)
def test_the_larger_shift_is_in_force_and_none_below_0(
    site_shift: float, learned: GalleryShift | None, shift: float
):
    rule = DecisionRule(1e-3, None, 0, TABLE, site_shift, learned)
    assert rule.threshold_for(1) == pytest.approx(0.4 + shift)
    assert rule.shift_at(0.4) == pytest.approx(shift)
    assert rule.expected_fpir(1) == pytest.approx(1e-3)


def test_a_gallery_s_shift_lies_between_its_entries_and_goes_on_beyond_them():
    assert LEARNED.at(0.35) == pytest.approx(0.03)
    assert (LEARNED.at(0.1), LEARNED.at(0.3), LEARNED.at(0.5), LEARNED.at(0.9)) == (0.02, 0.02, 0.06, 0.06)
    assert LEARNED.interval_at(0.45) == (pytest.approx(0.015), pytest.approx(0.085))


@given(site_shift=st.floats(0, 0.1), rate=st.floats(1e-7, 1e-2))
def test_a_shifted_threshold_is_traced_back(site_shift: float, rate: float):
    rule = DecisionRule(rate, None, 0, TABLE, site_shift, LEARNED)
    assert rule.expected_fpir(1) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(
    ("target_fpir", "threshold", "site_shift", "says"),
    [
        pytest.param(None, 0.2999, 0.0, r"decision.threshold: 0.2999 lies below 0.3, where", id="raw"),
        pytest.param(None, -0.5, 0.0, r"decision.threshold: -0.5 lies below", id="raw, of anybody"),
        pytest.param(
            1e-2, None, -0.01, r"decision.site_shift: -0.01 leads to .* 0.290, which lies", id="shift"
        ),
        pytest.param(0.5, None, -0.1, r"decision.site_shift: -0.1 leads to", id="shift and a loose target"),
        pytest.param(1e-3, None, -0.5, r"decision.site_shift: -0.5 must lie in", id="a shift of no site"),
    ],
)
def test_no_settings_together_let_anybody_pass(
    target_fpir: float | None, threshold: float | None, site_shift: float, says: str
):
    with pytest.raises(ConfigError, match=says):
        DecisionRule(target_fpir, threshold, 0, TABLE, site_shift)


@settings(max_examples=200, deadline=None, database=None)
@given(
    target=st.floats(0, 1, exclude_min=True, exclude_max=True),
    shift=st.floats(-0.5, 0.5),
    size=st.integers(1, 10**6),
)
def test_no_rule_has_a_threshold_that_the_calibration_does_not_know(target: float, shift: float, size: int):
    try:
        rule = DecisionRule(target, None, 0, MEASURED, shift)
    except ConfigError:
        return
    assert rule.threshold_for(size) >= MEASURED.thresholds[0]


def test_what_counts_for_more_than_one_comparison_raises_the_threshold():
    match = match_of(0.55, size=100)
    rule = DecisionRule(1e-2, None, 0, TABLE)
    assert rule.decide(match).event_type is EventType.MATCH
    score = rule.decide(replace(match, comparisons=200_000)).score
    assert score is not None
    assert (score.gallery_size, score.threshold) == (100, pytest.approx(rule.threshold_for(200_000)))
    assert rule.decide(replace(match, comparisons=200_000)).reason is Reason.BELOW_THRESHOLD


def test_beyond_the_table_the_threshold_is_rather_too_high():
    # A Gaussian tail bends downwards, as impostor scores do: the true rate is lower than the continued line.
    def fmr_at(t: float) -> float:
        return 0.5 * math.erfc((t - 0.05) / 0.1 / math.sqrt(2))

    thresholds = [0.05 + 0.02 * i for i in range(20)]
    calibration = Calibration(thresholds, [fmr_at(t) for t in thresholds])
    for rate in (1e-6, 1e-7, 1e-9):
        threshold = calibration.threshold_at(rate)
        assert threshold > thresholds[-1]
        assert fmr_at(threshold) < rate


def test_a_flat_stretch_of_the_table_is_left_at_its_lower_end():
    flat = Calibration((0.3, 0.4, 0.5, 0.6), (1e-2, 1e-3, 1e-3, 1e-4))
    assert flat.threshold_at(1e-3) == pytest.approx(0.4)
    assert flat.threshold_at(0.9e-3) > 0.5


def test_a_flat_end_of_the_table_is_continued_by_its_last_decade():
    flat = Calibration((0.3, 0.4, 0.5), (1e-2, 1e-3, 1e-3))
    assert flat.threshold_at(1e-4) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("thresholds", "fmr"),
    [
        pytest.param((0.3,), (0.1,), id="one entry"),
        pytest.param((0.3, 0.4), (0.1,), id="different lengths"),
        pytest.param((0.4, 0.3), (0.1, 0.01), id="falling thresholds"),
        pytest.param((0.3, 0.3), (0.1, 0.01), id="equal thresholds"),
        pytest.param((0.3, 1.4), (0.1, 0.01), id="threshold above 1"),
        pytest.param((0.3, math.nan), (0.1, 0.01), id="NaN threshold"),
        pytest.param((0.3, 0.4), (0.01, 0.1), id="rising rates"),
        pytest.param((0.3, 0.4), (0.1, 0.1), id="constant rates"),
        pytest.param((0.3, 0.4), (0.1, 0.0), id="rate 0"),
        pytest.param((0.3, 0.4), (1.5, 0.1), id="rate above 1"),
        pytest.param((0.3, 0.4), (0.1, math.nan), id="NaN rate"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(thresholds, fmr):
    with pytest.raises(ModelError, match="calibration:"):
        Calibration(thresholds, fmr)


@pytest.mark.parametrize(
    ("target_fpir", "threshold", "margin", "calibration", "says"),
    [
        pytest.param(None, None, 0.05, TABLE, "set target_fpir or threshold", id="neither"),
        pytest.param(0.001, None, 0.05, None, "not calibrated", id="no calibration"),
        pytest.param(0.0, None, 0.05, TABLE, "target_fpir", id="target 0"),
        pytest.param(1.0, None, 0.05, TABLE, "target_fpir", id="target 1"),
        pytest.param(math.nan, None, 0.05, TABLE, "target_fpir", id="target NaN"),
        pytest.param(None, math.nan, 0.05, None, "threshold", id="threshold NaN"),
        pytest.param(None, 1.1, 0.05, None, "threshold", id="threshold above 1"),
        pytest.param(None, 0.4, -0.1, None, "margin", id="negative margin"),
        pytest.param(None, 0.4, math.nan, None, "margin", id="margin NaN"),
    ],
)
def test_a_rule_that_cannot_decide_is_refused(target_fpir, threshold, margin, calibration, says):
    with pytest.raises(ConfigError, match=says):
        DecisionRule(target_fpir, threshold, margin, calibration)


@pytest.mark.parametrize("told_there", [False, True])
def test_who_looks_like_several_others_needs_a_higher_score_and_the_event_tells_it(told_there: bool):
    rule = DecisionRule(1e-3, None, 0.05, TABLE, own_shifts={} if told_there else {"b": 0.2})
    bob = ScoredSubject(BOB, 0.61, 0.2 if told_there else 0.0)
    plain = rule.threshold_for(1)
    assert rule.threshold_for(1, ScoredSubject(ALICE, 0.6)) == plain == pytest.approx(0.4)
    alice = rule.decide(match_of(0.55, None, 1))
    assert (alice.event_type, alice.score and alice.score.threshold) == (EventType.MATCH, plain)
    passed = rule.decide(Match(bob, None, 1, 1))
    assert (passed.event_type, passed.score and passed.score.threshold) == (EventType.MATCH, plain + 0.2)
    nearly = rule.decide(Match(replace(bob, score=0.59), ScoredSubject(ALICE, 0.5), 1, 1))
    assert (nearly.reason, nearly.subject) == (Reason.BELOW_THRESHOLD, None), "Alice is not taken instead"
    kept_out = Barred(replace(bob, score=0.59), Reason.EXPIRED, 1)
    assert rule.decide(Match(None, None, 0, 0, kept_out)).reason == Reason.BELOW_THRESHOLD
    assert rule.decide(Match(None, None, 0, 0, replace(kept_out, nearest=bob))).reason == Reason.EXPIRED


def test_an_own_shift_below_that_of_the_gallery_changes_nothing_nor_does_one_with_a_raw_threshold():
    rule = DecisionRule(1e-3, None, 0, TABLE, 0.1, own_shifts={"b": 0.05})
    assert rule.threshold_for(1, ScoredSubject(BOB, 0.6)) == rule.threshold_for(1)
    assert (rule.agrees_with("b"), rule.agrees_with("a")) == (rule.agrees_from, rule.agrees_from)
    higher = replace(rule, own_shifts={"b": 0.15})
    assert higher.agrees_with("b") == pytest.approx(higher.agrees_from + 0.05)
    raw = DecisionRule(None, 0.5, 0, TABLE, own_shifts={"b": 0.15})
    assert raw.threshold_for(1, ScoredSubject(BOB, 0.6)) == 0.5
