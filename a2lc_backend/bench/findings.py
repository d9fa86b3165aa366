"""What a benchmark finds: rounds held against the truth, runs of rounds, and all runs together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE

BINS = 10
"""Equal bins of the corrector's confidence."""


@dataclass(frozen=True)
class Changes:
    """Labels that the corrector changed: a fixed one became right, a broken one had been right."""

    changed: int = 0
    fixed: int = 0
    broken: int = 0

    def __add__(self, other: Changes) -> Changes:
        return Changes(self.changed + other.changed, self.fixed + other.fixed, self.broken + other.broken)

    @classmethod
    def count(cls, before: NDArray[np.int64], after: NDArray[np.int64], true: NDArray[np.int64]) -> Changes:
        """Compare labels (N,) with the true ones, of which `IGNORE` says neither right nor wrong."""
        moved, known = before != after, true != IGNORE
        fixed, broken = moved & known & (after == true), moved & known & (before == true)
        return cls(int(moved.sum()), int(fixed.sum()), int(broken.sum()))


@dataclass(frozen=True)
class Check:
    """A number that a round stated, beside the truth.

    Attributes:
        true: by the truth; a mask whose truth is void counts as right, as the annotator says.
        stated: the estimate, None where nothing was stated.
        low: of its 95 % interval.
        high: of its 95 % interval.
    """

    true: float
    stated: float | None = None
    low: float = 0.0
    high: float = 0.0

    @property
    def covered(self) -> bool:
        """The interval holds the true number."""
        return self.stated is not None and self.low <= self.true <= self.high


@dataclass(frozen=True)
class RoundResult:
    """One round of one run, measured against the truth; IoUs in percent, None for what is not there to measure.

    Attributes:
        data_miou: of the pseudo-labels over the pool.
        data_iou: of each class.
        model_miou: of θ over the validation images; None without them, or where their truth says nothing.
        model_iou: of each class.
        queries: masks that people answered for this round, by the class they gave.
        changes: made by the corrector in this round, against the round before.
        standing: labels that come from the corrector after this round, against the first labels.
        seconds: by phase.
        checks: what the round stated, by name: `right_after` and `right_before`, shares in percent of the corrector's
            labels of the round before; `still_wrong` and `next_fixes`, masks.
        reliability: of the standing labels by confidence, `BINS` rows of (masks, sum of confidence, right ones).
    """

    data_miou: float
    data_iou: tuple[float | None, ...]
    model_miou: float | None
    model_iou: tuple[float | None, ...]
    queries: tuple[int, ...]
    changes: Changes
    standing: Changes
    seconds: dict[str, float]
    checks: dict[str, Check]
    reliability: tuple[tuple[int, float, int], ...]

    @classmethod
    def read(cls, stored: dict[str, Any]) -> RoundResult:
        """Take back what `dataclasses.asdict` made and JSON kept."""
        lists = {name: tuple(stored[name]) for name in ("data_iou", "model_iou", "queries")}
        changes = {name: Changes(**stored[name]) for name in ("changes", "standing")}
        reliability = tuple(tuple(row) for row in stored["reliability"])
        checks = {name: Check(**check) for name, check in stored["checks"].items()}
        return cls(**{**stored, **lists, **changes, "checks": checks, "reliability": reliability})


@dataclass(frozen=True)
class RunResult:
    """One method with one seed, round 0 to the last."""

    method: str
    seed: int
    rounds: tuple[RoundResult, ...]


@dataclass(frozen=True)
class Findings:
    """A whole benchmark.

    Attributes:
        data: name of the data set.
        classes: names in id order.
        true_masks: masks of each class by the truth, which puts the classes in order from tail to head.
        images: in the pool.
        val_images: for the model's mIoU.
        proposals: where masks and first labels come from.
        budget: masks a round.
        rounds: R.
        methods: name and meaning, in order.
        seeds: of each method.
        initial_data_miou: of the first labels.
        ceiling_data_miou: of the masks with their true labels.
        runs: every method with every seed.
    """

    data: str
    classes: tuple[str, ...]
    true_masks: tuple[int, ...]
    images: int
    val_images: int
    proposals: str
    budget: int
    rounds: int
    methods: dict[str, str]
    seeds: tuple[int, ...]
    initial_data_miou: float
    ceiling_data_miou: float
    runs: tuple[RunResult, ...]

    def of(self, method: str) -> list[RunResult]:
        """The runs of a method, by seed."""
        return [run for run in self.runs if run.method == method]

    def tail_to_head(self) -> list[int]:
        """Class ids, the rarest first."""
        return [int(label) for label in np.argsort(self.true_masks, kind="stable")]

    def values(self, method: str, read: Callable[[RoundResult], float | None]) -> NDArray[np.float64]:
        """One number of each round of each run of a method, (S, R + 1), NaN where there is none."""
        rows = [
            [math.nan if (value := read(item)) is None else value for item in run.rounds] for run in self.of(method)
        ]
        return np.array(rows, np.float64)

    def mean_queries(self, method: str) -> NDArray[np.float64]:
        """Masks of each class that people answered in all rounds, (C,), mean over seeds."""
        counts = [np.sum([item.queries for item in run.rounds], axis=0) for run in self.of(method)]
        return np.asarray(np.mean(counts, axis=0), np.float64)
