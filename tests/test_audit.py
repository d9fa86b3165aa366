"""Audits: strata, decisions, samples, intervals and estimates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from a2lc_backend.audit import (
    STRATA,
    Estimate,
    Evidence,
    Statement,
    Survey,
    decide,
    draw,
    draw_by_stratum,
    next_fixes,
    sample_size,
    share_interval,
    still_wrong,
    stratify,
)
from a2lc_backend.masks import IGNORE


def evidence(**of_stratum: Evidence) -> list[Evidence]:
    """No answers but for the strata named `s0` to `s5`."""
    return [of_stratum.get(f"s{index}", Evidence()) for index in range(len(STRATA))]


def test_every_proposal_has_one_stratum() -> None:
    margin = np.array([0.1, 0.5, 0.849, 0.85, 1.0, 0.7, np.nan, 0.3])
    seconded = np.array([0, 0, 0, 0, 1, 1, 0, 1], bool)
    proposed = np.array([1, 1, 1, 1, 1, 1, 0, 0], bool)
    np.testing.assert_array_equal(stratify(proposed, margin, seconded), [0, 1, 1, 2, 5, 4, -1, -1])
    assert STRATA[5].seconded
    assert STRATA[5].name == "seconded, margin 0.85–1"


def test_evidence_counts_right_and_broken() -> None:
    before, after = np.array([0, 0, 0, IGNORE, 1, 2]), np.array([1, 1, 1, 1, 2, 2])
    answers = np.array([1, 0, 3, 1, IGNORE, 2])
    # The fifth was deleted: it had no right label. The sixth never changed, so nothing broke.
    assert Evidence.count(before, after, answers) == Evidence(6, 3, 1)


def test_without_answers_only_seconded_proposals_are_applied() -> None:
    for policy in ("gain", "manual"):
        assert decide(evidence(), policy, 0.9) == (False, False, False, True, True, True)  # type: ignore[arg-type]
    assert not any(decide(evidence(), "precision", 0.9))


def test_gain_holds_back_what_breaks_and_releases_what_mends() -> None:
    found = evidence(s5=Evidence(10, 2, 6), s2=Evidence(10, 8, 1), s1=Evidence(10, 4, 3))
    assert decide(found, "gain", 0.9) == (False, False, True, True, True, False)


def test_precision_takes_a_stratum_where_its_own_bound_holds() -> None:
    found = evidence(s5=Evidence(40, 40, 0), s4=Evidence(20, 19, 1), s3=Evidence(20, 5, 8))
    assert decide(found, "precision", 0.9) == (False, False, False, False, False, True)
    assert decide(found, "precision", 0.75) == (False, False, False, False, True, True)
    assert decide(found, "precision", 0.97) == (False,) * 6
    assert decide(evidence(s5=Evidence(60, 60, 0)), "precision", 0.9) == (False,) * 5 + (True,)
    assert decide(evidence(s5=Evidence(28, 28, 0)), "precision", 0.9) == (False,) * 6  # 28 of 28: above 0.899


@pytest.mark.parametrize(
    ("budget", "share", "size"),
    [(800, 0.05, 40), (400, 0.05, 20), (200, 0.05, 20), (50, 0.05, 10), (3, 0.05, 0), (400, 0, 0)],
)  # fmt: skip
def test_an_audit_takes_a_share_of_the_budget(budget: int, share: float, size: int) -> None:
    assert sample_size(budget, share) == size


def test_strata_are_drawn_from_alike() -> None:
    strata = np.repeat([0, 2, 5, -1], [500, 40, 3, 500])
    drawn = draw_by_stratum(strata, np.arange(len(strata)), 20, np.random.default_rng(0))
    assert len(np.unique(drawn)) == 20
    counts = np.bincount(strata[drawn], minlength=6)
    assert counts[5] == 3
    assert abs(int(counts[0]) - int(counts[2])) <= 1
    assert len(draw_by_stratum(strata, np.flatnonzero(strata < 0), 20, np.random.default_rng(0))) == 0


def test_every_candidate_is_drawn_as_often() -> None:
    random = np.random.default_rng(0)
    counts = np.bincount(np.concatenate([draw(np.arange(5), 2, random) for _ in range(4000)]), minlength=5)
    assert stats.chisquare(counts).pvalue > 0.001
    assert len(draw(np.arange(3), 9, random)) == 3


def test_intervals_are_clopper_and_pearsons() -> None:
    # 8 of 10: known values of the exact interval.
    found = share_interval(8, 10)
    assert (round(found.low, 4), round(found.high, 4)) == (0.4439, 0.9748)
    assert share_interval(0, 0).high == 1.0
    assert share_interval(0, 0).low == 0.0
    statement = Statement.of(Evidence(10, 8, 1))
    assert statement.after == found
    assert statement.before == share_interval(1, 10)


@given(st.integers(0, 30), st.integers(0, 30))
def test_more_right_answers_never_lower_the_bound(right: int, wrong: int) -> None:
    assert Evidence(right + wrong + 1, right + 1, 0).least_right >= Evidence(right + wrong, right, 0).least_right


def test_still_wrong_is_right_on_average_and_covers_the_truth() -> None:
    random = np.random.default_rng(0)
    applied, rest = 1000, 9000
    wrong_after, wrong_before, wrong_rest = 300, 900, 3600
    values, covered = [], 0
    for repetition in range(200):
        right = random.hypergeometric(applied - wrong_after, wrong_after, 20)
        broken = min(random.hypergeometric(applied - wrong_before, wrong_before, 20), 20 - right)
        wrong = random.hypergeometric(wrong_rest, rest - wrong_rest, 60)
        survey = Survey(applied, Evidence(20, right, broken), rest, 60, wrong, 0, 0)
        found = still_wrong([survey], applied, applied + rest, seed=repetition)
        assert found is not None
        values.append(found.value)
        covered += found.low <= wrong_after + wrong_rest <= found.high
    assert np.mean(values) == pytest.approx(wrong_after + wrong_rest, rel=0.03)
    assert covered >= 182  # 95 % less three standard deviations of 200


def test_still_wrong_knows_what_people_mended_and_what_was_added() -> None:
    early = Survey(0, Evidence(), 10_000, 5000, 2000, known=0, answered=0)
    late = Survey(0, Evidence(), 10_000, 5000, 2000, known=1500, answered=2000)
    before, after = still_wrong([early], 0, 10_000), still_wrong([late], 0, 8000)
    grown = still_wrong([early], 0, 20_000)
    assert before is not None
    assert after is not None
    assert grown is not None
    assert before.value == pytest.approx(4000, rel=0.02)
    assert after.value == pytest.approx(2500, rel=0.02)
    assert grown.value == pytest.approx(8000, rel=0.02)
    assert still_wrong([Survey(0, Evidence(), 10, 0, 0, 0, 0)], 0, 10) is None


def test_next_fixes_follow_the_hit_rate() -> None:
    found = next_fixes(200, 400, 200, expected=0.4)
    assert found.low < 85 < found.value < 105 < found.high
    surer = next_fixes(2000, 4000, 200, expected=0.5)
    assert surer.high - surer.low < found.high - found.low


def test_no_queue_mends_more_than_is_wrong() -> None:
    free = next_fixes(200, 400, 200, expected=0.4)
    assert next_fixes(200, 400, 200, 0.4, Estimate(2000, 1800, 2200)) == free, "far more is wrong than is asked"
    little = next_fixes(200, 400, 200, 0.4, Estimate(30, 10, 70))
    assert little.value == pytest.approx(32, abs=4)
    assert little.low == pytest.approx(10, abs=2)
    assert little.high == pytest.approx(70, abs=2)
    assert next_fixes(200, 400, 200, 0.4, Estimate(0, 0, 0)).high == 0


def test_without_answers_next_fixes_follow_the_segmenter() -> None:
    found = next_fixes(0, 0, 200, expected=0.3)
    assert found.value == pytest.approx(63, abs=4)  # drawn a little to the middle
    assert found.low < 25
    assert found.high > 100
    assert next_fixes(0, 0, 0, expected=0.0).high == 0
