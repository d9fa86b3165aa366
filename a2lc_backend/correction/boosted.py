"""The default corrector: boosting proposes, a linear model seconds; recomputed from base labels every round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from a2lc_backend.correction import LabelProposals, MaskTable, of_label
from a2lc_backend.masks import IGNORE

_ROWS_A_THREAD = 5_000

_ROWS_AT_ONCE = 10_000
"""Boosting passes over all rows for every tree: what stays in a cache takes less than half the time."""


@dataclass(frozen=True)
class BoostedCorrector:
    """Histogram gradient boosting on every mask people ever corrected, applied where a linear model agrees.

    The labels are recomputed each round from base labels (first labels under human ones), so a wrong automatic label
    of an earlier round heals. Anchors keep a young corrector from collapsing onto the few classes people have given:
    for each class the masks whose first label and soft label agree most confidently join the training at a small
    weight. Boosting alone breaks about as many labels as it mends while answers are few; the linear model, which errs
    elsewhere, turns that into three to one (docs/method.md).

    Attributes:
        margin: least P(new) − P(base) of boosting for a proposal.
        second_margin: least P(new) − P(base) of the linear model, whose first choice it must be too, to apply it.
        anchors: masks a class that join as weak examples.
        anchor_weight: their weight beside a person's 1.
        least_human: start-up guard; with fewer human masks than this nothing is corrected.
    """

    margin: float = 0.1
    second_margin: float = 0.1
    anchors: int = 20
    anchor_weight: float = 0.1
    least_human: int = 20

    def propose(self, table: MaskTable, classes: int, round_number: int, seed: int) -> LabelProposals:
        """Propose what boosting believes in, and second it where the linear model does too."""
        base = table.base_labels
        rows = np.flatnonzero(table.human)
        if len(rows) < self.least_human:
            note = f"{len(rows)} masks are corrected; the corrector starts at {self.least_human}"
            return LabelProposals.none(base, note)
        anchor_rows = self.anchor_rows(table, classes)
        train = np.concatenate([rows, anchor_rows])
        if len(np.unique(base[train])) < 2:
            return LabelProposals.none(base, "people have given a single class so far")
        weights = np.concatenate([np.ones(len(rows)), np.full(len(anchor_rows), self.anchor_weight)])
        boosting = HistGradientBoostingClassifier(
            learning_rate=0.1, max_iter=100, max_leaf_nodes=15, min_samples_leaf=5, l2_regularization=1.0,
            early_stopping=False, random_state=seed,
        )  # fmt: skip
        linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
        inputs = corrector_inputs(table, classes)
        # A few hundred rows are too few to share: a second OpenMP thread made the fit four times slower on busy cores.
        with threadpool_limits(1 if len(train) < _ROWS_A_THREAD else None, user_api="openmp"):
            boosting.fit(inputs[train], base[train], sample_weight=weights)
            proposing = _probabilities(boosting, inputs.__getitem__, len(inputs), classes)

        def log_inputs(part: NDArray[np.int64] | slice) -> NDArray[np.float64]:
            return _with_log_soft_labels(inputs[part], table.soft_labels[part], table.features.shape[1])

        linear.fit(log_inputs(train), base[train], logisticregression__sample_weight=weights)
        return self._join(table, proposing, _probabilities(linear, log_inputs, len(inputs), classes))

    def _join(self, table: MaskTable, proposing: NDArray[np.float64], seconding: NDArray[np.float64]) -> LabelProposals:
        base = table.base_labels
        guess = proposing.argmax(1).astype(np.int64)
        proposed = ~table.human & (guess != base) & (_gain(proposing, guess, base) >= self.margin)
        seconded = proposed & (seconding.argmax(1) == guess) & (_gain(seconding, guess, base) >= self.second_margin)
        labels = np.where(proposed, guess, base)
        belief = np.where(table.human, 1.0, of_label(proposing, labels))
        return LabelProposals(
            base, labels, guess, belief, np.where(table.human, 1.0, of_label(proposing, base)), proposing.max(1),
            seconded,
        )  # fmt: skip

    def anchor_rows(self, table: MaskTable, classes: int) -> NDArray[np.int64]:
        """Indices of the anchors, (n,) int64: of each class the `anchors` most confident ones."""
        agrees = ~table.human & (table.soft_labels.argmax(1) == table.first_labels)
        confidence = table.soft_labels.max(1)
        chosen: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        for label in range(classes):
            rows = np.flatnonzero(agrees & (table.first_labels == label)).astype(np.int64)
            chosen.append(rows[np.argsort(-confidence[rows], kind="stable")[: self.anchors]])
        return np.concatenate(chosen)


def corrector_inputs(table: MaskTable, classes: int) -> NDArray[np.float32]:
    """Features, mean soft label and the first label one-hot (none for an unlabelled mask), (N, F + 2C) float32."""
    start, end = table.features.shape[1], table.features.shape[1] + table.soft_labels.shape[1]
    inputs = np.zeros((len(table.first_labels), end + classes), np.float32)
    inputs[:, :start], inputs[:, start:end] = table.features, table.soft_labels
    known = np.flatnonzero(table.first_labels != IGNORE)
    inputs[known, end + table.first_labels[known]] = 1.0
    return inputs


def _with_log_soft_labels(
    inputs: NDArray[np.float32], soft_labels: NDArray[np.float64], start: int
) -> NDArray[np.float64]:
    """The inputs with the logarithm of the soft label (n, C), in which classes are closer to linear, from `start`."""
    logged = inputs.astype(np.float64)
    logged[:, start : start + soft_labels.shape[1]] = np.log(soft_labels + 1e-3)
    return logged


def _probabilities(model: Any, rows: Callable[[slice], NDArray[Any]], count: int, classes: int) -> NDArray[np.float64]:
    """(N, C) float64 for N rows, a part at a time; 0 for a class the model never saw."""
    probabilities = np.zeros((count, classes))
    for start in range(0, count, _ROWS_AT_ONCE):
        part = slice(start, min(start + _ROWS_AT_ONCE, count))
        probabilities[part, model.classes_] = model.predict_proba(rows(part))
    return probabilities


def _gain(probabilities: NDArray[np.float64], new: NDArray[np.int64], base: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(of_label(probabilities, new) - of_label(probabilities, base), np.float64)
