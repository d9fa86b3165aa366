"""The paper's label correction module (LCM)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from a2lc_backend.correction import LabelProposals, MaskTable, of_label, select_corrections

TAU_SCHEDULE = (0.99, 0.99, 0.999, 0.9999, 0.9999999)
"""Least confidence τ of an automatic correction in rounds 1, 2, …; the last holds from then on (A²LC)."""


@dataclass(frozen=True)
class PaperCorrector:
    """An MLP C→256→128→64→C on mean soft labels, trained on the masks people corrected this round.

    Class-balanced cross-entropy on logits, as in the paper.

    Attributes:
        alpha: share of rare classes left alone (J2).
        epochs: passes over the training masks.
        learning_rate: of Adam.
        softmax_twice: put a softmax before the cross-entropy, as the published code does, which flattens its gradient;
            for the comparison in docs/method.md.
    """

    alpha: float = 0.5
    epochs: int = 200
    learning_rate: float = 1e-3
    softmax_twice: bool = False

    def propose(self, table: MaskTable, classes: int, round_number: int, seed: int) -> LabelProposals:
        """Propose what J1–J3 let pass, over the current labels; earlier automatic corrections stay."""
        base = np.where(table.human, table.human_labels, table.current_labels)
        rows = np.flatnonzero(table.fresh)
        if len(rows) == 0:
            return LabelProposals.none(base, "no mask was corrected by a person this round")
        probabilities = self._fit_predict(table, rows, classes, seed)
        counts = np.bincount(table.human_labels[rows], minlength=classes)[:classes]
        tau = TAU_SCHEDULE[min(max(round_number, 1), len(TAU_SCHEDULE)) - 1]
        chosen = select_corrections(probabilities, base, counts, table.human, tau, self.alpha)
        guess = probabilities.argmax(1).astype(np.int64)
        labels = base.copy()
        labels[chosen] = guess[chosen]
        belief = np.where(table.human, 1.0, of_label(probabilities, labels))
        base_belief = np.where(table.human, 1.0, of_label(probabilities, base))
        return LabelProposals(base, labels, guess, belief, base_belief, probabilities.max(1), labels != base)

    def _fit_predict(self, table: MaskTable, rows: NDArray[np.int64], classes: int, seed: int) -> NDArray[np.float64]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = (classes, 256, 128, 64, classes)
            layers: list[nn.Module] = []
            for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
                layers += [nn.Linear(fan_in, fan_out)] + ([nn.ReLU()] if index < len(sizes) - 2 else [])
            model = nn.Sequential(*layers)
            inputs = torch.from_numpy(table.soft_labels.astype(np.float32))
            targets = torch.from_numpy(table.human_labels[rows])
            counts = torch.bincount(targets, minlength=classes).float()
            weight = torch.where(counts > 0, len(rows) / (counts.clamp(min=1) * (counts > 0).sum()), 0.0)
            loss_function = nn.CrossEntropyLoss(weight=weight)
            optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
            for _ in range(self.epochs):
                for batch in torch.split(torch.randperm(len(rows)), 64):
                    optimizer.zero_grad()
                    scores = model(inputs[rows][batch])
                    loss_function(scores.softmax(1) if self.softmax_twice else scores, targets[batch]).backward()
                    optimizer.step()
            with torch.no_grad():
                probabilities: NDArray[np.float64] = torch.softmax(model(inputs).double(), 1).numpy()
        return probabilities
