"""Audits: what blind random samples say of automatic corrections, and which of them are applied.

Three samples go into a queue, from its budget, and nothing there tells them from the other masks. *Deciding* masks are
drawn from what the corrector proposed, by stratum; pooled over rounds they say where a correction is likely to gain.
*Stating* masks are drawn from the labels that were applied; they decide nothing, so the share of right labels, and its
interval, are stated from them alone (an estimate from the deciding answers is too high: they were chosen among).
*Random* masks are drawn from all the others; with the stating ones they say how many masks are still wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from a2lc_backend.masks import IGNORE

Policy = Literal["gain", "precision", "manual"]

LEVEL = 0.95
"""Of every interval that is stated."""

LEAST_SAMPLE = 20
"""Masks of an audit, where the budget is 100 or more."""

HARM = 0.2
"""A seconded stratum is held back where its gain is less probable than this."""

RELEASE = 0.8
"""A stratum that is not seconded is applied where its gain is at least as probable as this."""

_DRAWS = 20_000

_LITTLE = 1e-9
_DRIFT = 4.0
_EXPECTED_WEIGHT = 10.0


@dataclass(frozen=True)
class Stratum:
    """Proposals that are judged together.

    Attributes:
        seconded: the corrector stands by them; applied unless audits speak against it. Others are held back unless
            audits speak for them.
        low: least margin P(new) − P(base).
        high: margins lie below this.
    """

    seconded: bool
    low: float
    high: float

    @property
    def name(self) -> str:
        """In words, for reports."""
        return f"{'seconded' if self.seconded else 'not seconded'}, margin {self.low:g}–{min(self.high, 1.0):g}"


_EDGES = (0.0, 0.5, 0.85, 1.01)

STRATA: tuple[Stratum, ...] = tuple(
    Stratum(seconded, low, high) for seconded in (False, True) for low, high in itertools.pairwise(_EDGES)
)
"""From those least likely to gain to those most likely."""


def stratify(
    proposed: NDArray[np.bool_], margin: NDArray[np.float64], seconded: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The stratum of every proposal.

    Args:
        proposed: (N,) where the corrector proposes another label.
        margin: (N,) P(new) − P(base), −1 to 1.
        seconded: (N,) where the corrector stands by its proposal.

    Returns:
        (N,) int64 indices into `STRATA`, −1 where nothing is proposed.
    """
    step = np.clip(np.searchsorted(_EDGES, margin, side="right") - 1, 0, len(_EDGES) - 2)
    return np.where(proposed, step + (len(_EDGES) - 1) * seconded, -1).astype(np.int64)


def in_strata(strata: NDArray[np.int64], chosen: Sequence[bool]) -> NDArray[np.bool_]:
    """Whether each mask lies in a chosen stratum, (N,) bool; one without a proposal lies in none.

    Args:
        strata: (N,) from `stratify`.
        chosen: one bool for each of `STRATA`.
    """
    return np.array([*chosen, False], np.bool_)[strata]  # −1 finds the last


@dataclass(frozen=True)
class Evidence:
    """What the answers to a random sample of proposals say.

    Attributes:
        audited: masks that people answered.
        right: the proposed label is the answer.
        broken: the label before is the answer.
    """

    audited: int = 0
    right: int = 0
    broken: int = 0

    @classmethod
    def count(cls, before: NDArray[np.int64], after: NDArray[np.int64], answers: NDArray[np.int64]) -> Evidence:
        """Compare labels (n,) before and after with people's answers (n,)."""
        given = answers != IGNORE  # a mask that was deleted had no right label
        right, broken = given & (after == answers), given & (before == answers) & (before != after)
        return cls(len(answers), int(right.sum()), int(broken.sum()))

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(self.audited + other.audited, self.right + other.right, self.broken + other.broken)

    @property
    def gain_probability(self) -> float:
        """P(more become right than break), under a uniform prior; 0.5 without answers."""
        return float(stats.beta.sf(0.5, 1 + self.right, 1 + self.broken))

    @property
    def least_right(self) -> float:
        """One-sided 95 % lower bound (Clopper–Pearson) of the share right after; 0 without answers."""
        return share_interval(self.right, self.audited, sided="greater").low


def decide(evidence: Sequence[Evidence], policy: Policy, target: float) -> tuple[bool, ...]:
    """Choose the strata whose proposals are applied.

    `gain` and `manual` hold a seconded stratum back where a gain is improbable, and release another where a gain is
    probable. `precision` takes a stratum where the lower bound of its own share right reaches the target.

    Args:
        evidence: of each of `STRATA`.
        policy: of the project.
        target: least share right after, of `precision`.

    Returns:
        One bool a stratum.
    """
    if policy == "precision":
        return tuple(found.least_right >= target for found in evidence)
    return tuple(
        found.gain_probability >= (HARM if stratum.seconded else RELEASE)
        for stratum, found in zip(STRATA, evidence, strict=True)
    )


# Drawing


def sample_size(budget: int, share: float) -> int:
    """Masks of one audit: a share of the budget, at least `LEAST_SAMPLE`, at most a fifth; 0 for a share of 0."""
    return min(max(LEAST_SAMPLE, round(share * budget)), budget // 5) if share > 0 else 0


def draw(candidates: NDArray[np.int64], size: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw masks without replacement, all alike.

    Args:
        candidates: (n,) indices.
        size: masks to draw; all of them where there are fewer.
        random: source of randomness.

    Returns:
        (min(n, size),) int64 indices, in random order.
    """
    return random.choice(candidates, min(size, len(candidates)), replace=False).astype(np.int64)


def draw_by_stratum(
    strata: NDArray[np.int64], candidates: NDArray[np.int64], size: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw proposals, as nearly as possible the same number from each stratum.

    Args:
        strata: (N,) from `stratify`.
        candidates: (n,) indices of masks that may be drawn; those without a proposal are passed over.
        size: masks to draw; all of them where there are fewer.
        random: source of randomness.

    Returns:
        int64 indices.
    """
    pools = [random.permutation(candidates[strata[candidates] == index]) for index in range(len(STRATA))]
    depth = np.concatenate([np.arange(len(pool)) for pool in pools])
    # The n-th of every stratum comes before the n+1st of any; equals are shuffled.
    order = np.lexsort((random.permutation(len(depth)), depth))
    return np.asarray(np.concatenate(pools)[order[:size]], np.int64)


# Stating


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, both included."""

    low: float
    high: float


def share_interval(
    right: int, audited: int, level: float = LEVEL, sided: Literal["two-sided", "greater"] = "two-sided"
) -> Interval:
    """Clopper–Pearson interval of a share; 0 to 1 without answers.

    Args:
        right: answers that count.
        audited: answers.
        level: of confidence.
        sided: `greater` puts all the error on the lower end.
    """
    if audited == 0:
        return Interval(0.0, 1.0)
    found = stats.binomtest(right, audited, alternative=sided).proportion_ci(level, "exact")
    return Interval(float(found.low), float(found.high))


@dataclass(frozen=True)
class Statement:
    """How right applied labels are, from a random sample of them that decided nothing.

    Attributes:
        evidence: the answers.
        after: 95 % interval of the share right.
        before: 95 % interval of the share that would be right without the corrector.
    """

    evidence: Evidence
    after: Interval
    before: Interval

    @classmethod
    def of(cls, evidence: Evidence) -> Statement:
        """State what the answers say."""
        return cls(
            evidence,
            share_interval(evidence.right, evidence.audited),
            share_interval(evidence.broken, evidence.audited),
        )


# When to stop


@dataclass(frozen=True)
class Estimate:
    """A number of masks with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Survey:
    """What the random samples of one round found.

    The masks nobody had answered when it was published fall into those with a label of the corrector (`applied`) and
    the others (`rest`), which keep their first label.

    Attributes:
        applied: masks.
        stating: answers to the sample of the applied ones.
        rest: masks.
        looked: answers to the sample of the rest.
        wrong: of those, the first label is not the answer.
        known: masks answered since then, in any way, whose first label was wrong.
        answered: masks answered since then.
    """

    applied: int
    stating: Evidence
    rest: int
    looked: int
    wrong: int
    known: int
    answered: int


def still_wrong(surveys: Sequence[Survey], applied: int, open_masks: int, seed: int = 0) -> Estimate | None:
    """Estimate how many masks that nobody has answered hold a wrong label.

    A first label stays right or wrong whatever happens later, so the samples of all rounds say together how many first
    labels are wrong; those that people have answered since are known. What the corrector has applied today then mends
    as many as the stating samples say. Masks that were added since count as the others do. The interval comes from
    draws of every share, at the ends that Clopper and Pearson give it.

    Args:
        surveys: of the rounds that were answered.
        applied: masks that hold a label of the corrector now.
        open_masks: masks nobody has answered now.
        seed: of the draws.

    Returns:
        The estimate; None without an answer to a random sample.
    """
    used = [survey for survey in surveys if survey.looked > 0]
    if not used:
        return None
    random = np.random.default_rng(seed)
    stating = sum((survey.stating for survey in surveys), Evidence())
    neither = stating.audited - stating.right - stating.broken
    right, broken, _ = random.dirichlet([stating.right + 0.5, stating.broken + 0.5, neither + 0.5], _DRAWS).T
    looked = sum(survey.looked for survey in used)

    def draw_wrong(more_wrong: float, more_right: float) -> NDArray[np.float64]:
        wrong = np.zeros(_DRAWS)
        for survey in used:
            share = random.beta(survey.wrong + more_wrong, survey.looked - survey.wrong + more_right, _DRAWS)
            first = survey.rest * share + survey.applied * (1 - broken) - survey.known
            grown = open_masks / max(survey.applied + survey.rest - survey.answered, 1)
            wrong += first * grown * survey.looked / looked
        return np.asarray(np.clip(wrong - applied * (right - broken), 0, open_masks), np.float64)

    # Clopper and Pearson's ends of a share are quantiles of Beta(k, n − k + 1) and Beta(k + 1, n − k).
    low = np.quantile(draw_wrong(_LITTLE, 1.0), (1 - LEVEL) / 2)
    high = np.quantile(draw_wrong(1.0, _LITTLE), (1 + LEVEL) / 2)
    return Estimate(float(draw_wrong(0.5, 0.5).mean()), float(low), float(high))


def next_fixes(
    hits: float, answered: int, queries: int, expected: float, wrong: Estimate | None = None, seed: int = 0
) -> Estimate:
    """Predict how many of the next queries hold a wrong label.

    The hit rate drifts from one queue to the next, so an answer counts a quarter of one (a power prior); what θ expects
    counts as much as `_EXPECTED_WEIGHT` answers, which is all there is to say of a queue that is ranked in a new way.
    No queue mends more masks than are wrong: towards the end of a project that says more than the rates do.

    Args:
        hits: answers of the last queue that changed the label; 0 if it was ranked in another way.
        answered: answers of the last queue; 0 if it was ranked in another way.
        queries: masks in the queue now.
        expected: share of them that θ takes for wrong: the mean of 1 − f(label held), 0 to 1.
        wrong: masks that are still wrong, of all that may be asked about; None where nobody knows.
        seed: of the draws.

    Returns:
        The prediction.
    """
    random = np.random.default_rng(seed)
    right = _EXPECTED_WEIGHT * (1 - expected) + (answered - hits) / _DRIFT
    rate = random.beta(_EXPECTED_WEIGHT * expected + hits / _DRIFT + 0.5, right + 0.5, _DRAWS)
    fixes = random.binomial(queries, rate).astype(np.float64)
    return _estimate(fixes if wrong is None else np.minimum(fixes, _draws_of(wrong, random)))


def _draws_of(estimate: Estimate, random: np.random.Generator) -> NDArray[np.float64]:
    """Draws of two halves of a normal distribution, each as wide as its side of the interval, not below 0."""
    deviation = random.standard_normal(_DRAWS) / stats.norm.ppf((1 + LEVEL) / 2)
    below, above = estimate.value - estimate.low, estimate.high - estimate.value
    found = estimate.value + np.where(deviation < 0, below, above) * deviation
    return np.asarray(np.clip(found, 0.0, None), np.float64)


def _estimate(draws: NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(draws.mean()), float(low), float(high))
