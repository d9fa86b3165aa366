"""ψ, the corrector: learns from the masks people corrected and proposes labels for the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE

CorrectorName = Literal["boosted", "paper", "none"]


@dataclass(frozen=True)
class MaskTable:
    """Every mask of a project that has a soft label, one row a mask.

    Attributes:
        features: (N, F) float32 from `features.mask_features`.
        soft_labels: (N, C) float64 mean soft label of each mask.
        first_labels: (N,) int64 label each mask was born with, `IGNORE` if none.
        current_labels: (N,) int64 label each mask holds before this correction, `IGNORE` if none.
        human_labels: (N,) int64 label a person gave, `IGNORE` for a mask no person has corrected.
        fresh: (N,) bool, True where a person gave the label this round.
    """

    features: NDArray[np.float32]
    soft_labels: NDArray[np.float64]
    first_labels: NDArray[np.int64]
    current_labels: NDArray[np.int64]
    human_labels: NDArray[np.int64]
    fresh: NDArray[np.bool_]

    @property
    def human(self) -> NDArray[np.bool_]:
        """(N,) bool, True for a mask that a person has corrected."""
        return np.asarray(self.human_labels != IGNORE, np.bool_)

    @property
    def base_labels(self) -> NDArray[np.int64]:
        """(N,) first labels under human labels: what holds when nothing is corrected automatically."""
        return np.where(self.human, self.human_labels, self.first_labels)


@dataclass(frozen=True)
class LabelProposals:
    """What a corrector proposes for a mask table; `audit.decide` says what of it is applied.

    Attributes:
        base: (N,) int64 label each mask holds where nothing is applied; a person's where there is one.
        labels: (N,) int64 label proposed for each mask, `base` where none is.
        guess: (N,) int64 the class the corrector believes in most, proposed or not; `IGNORE` without opinion.
        belief: (N,) float64 the corrector's probability of `labels`; 1 for a person's label, NaN without opinion.
        base_belief: (N,) float64 its probability of `base`.
        guess_belief: (N,) float64 its probability of `guess`; NaN without opinion.
        seconded: (N,) bool, the corrector stands by its proposal.
        note: why nothing is proposed, in words; empty when the corrector spoke.
    """

    base: NDArray[np.int64]
    labels: NDArray[np.int64]
    guess: NDArray[np.int64]
    belief: NDArray[np.float64]
    base_belief: NDArray[np.float64]
    guess_belief: NDArray[np.float64]
    seconded: NDArray[np.bool_]
    note: str = ""

    @property
    def proposed(self) -> NDArray[np.bool_]:
        """(N,) bool, True where another label is proposed."""
        return np.asarray(self.labels != self.base, np.bool_)

    @property
    def margin(self) -> NDArray[np.float64]:
        """(N,) P(new) − P(base), 0 where nothing is proposed; NaN without opinion."""
        return self.belief - self.base_belief

    @property
    def doubt(self) -> NDArray[np.float64]:
        """(N,) 1 − P(label proposed), higher = less sure; NaN without opinion."""
        return 1.0 - self.belief

    @classmethod
    def none(cls, base: NDArray[np.int64], note: str) -> LabelProposals:
        """What a corrector without opinion proposes."""
        count = len(base)
        unknown = np.full(count, np.nan)
        nothing = np.full(count, IGNORE, np.int64)
        return cls(base, base, nothing, unknown, unknown, unknown, np.zeros(count, np.bool_), note)


class Corrector(Protocol):
    """Learns from the human-corrected rows of a table and proposes labels for the others."""

    def propose(self, table: MaskTable, classes: int, round_number: int, seed: int) -> LabelProposals:
        """Propose labels for the masks that no person has corrected; deterministic for a seed."""
        ...


def select_corrections(
    probabilities: NDArray[np.float64],
    current_labels: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    human_corrected: NDArray[np.bool_],
    tau: float,
    alpha: float = 0.5,
) -> NDArray[np.int64]:
    """The paper's criteria for an automatic correction.

    J1: max_c ψ(c; m) ≥ τ. J2: the predicted class is not among the rarest share α (rounded down) of the classes people
    gave, and people gave it. J3: the present label is not the rarest class people gave.

    Args:
        probabilities: (N, C) output of the corrector, rows sum to 1.
        current_labels: (N,) class ids.
        class_counts: (C,) masks that people gave each class.
        human_corrected: (N,) bool, True where a person corrected the mask.
        tau: least probability, 0 to 1.
        alpha: share of rare classes left alone, 0 to 1.

    Returns:
        (n,) int64, ascending indices of masks that pass, were not corrected by a person and would change label.

    Raises:
        ValueError: for shapes that do not agree or a share outside 0 to 1.
    """
    if probabilities.shape != (len(current_labels), len(class_counts)) or len(human_corrected) != len(current_labels):
        raise ValueError(
            f"probabilities {probabilities.shape} do not fit {len(current_labels)} masks of {len(class_counts)} classes"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it is a share between 0 and 1")
    given = np.flatnonzero(class_counts > 0)
    if given.size == 0 or len(current_labels) == 0:
        return np.empty(0, np.int64)
    rarest_first = given[np.argsort(class_counts[given], kind="stable")]
    trusted = rarest_first[int(alpha * len(rarest_first)) :]
    predicted = probabilities.argmax(1)
    passes = (
        (probabilities.max(1) >= tau)
        & np.isin(predicted, trusted)
        & (current_labels != rarest_first[0])
        & (predicted != current_labels)
        & ~human_corrected
    )
    return np.flatnonzero(passes).astype(np.int64)


def of_label(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of each row's label, (N,) float64; 0 for `IGNORE`.

    Args:
        probabilities: (N, C).
        labels: (N,) class ids or `IGNORE`.
    """
    known = labels != IGNORE
    columns = np.where(known, labels, 0)[:, None]
    return np.where(known, np.take_along_axis(probabilities, columns, 1)[:, 0], 0.0)


class NoCorrector:
    """Leaves every label to people."""

    def propose(self, table: MaskTable, classes: int, round_number: int, seed: int) -> LabelProposals:
        """Propose nothing over the first labels under the human ones."""
        return LabelProposals.none(table.base_labels, "the project has no corrector")


def make_corrector(name: CorrectorName) -> Corrector:
    """Build a corrector by name, importing its library only now.

    Raises:
        ValueError: for an unknown name.
    """
    builders: dict[str, Callable[[], Corrector]] = {"boosted": _boosted, "paper": _paper, "none": NoCorrector}
    if name not in builders:
        raise ValueError(f"no corrector is called {name!r}; choose one of {', '.join(builders)}")
    return builders[name]()


def _boosted() -> Corrector:
    from a2lc_backend.correction.boosted import BoostedCorrector  # noqa: PLC0415

    return BoostedCorrector()


def _paper() -> Corrector:
    from a2lc_backend.correction.paper import PaperCorrector  # noqa: PLC0415

    return PaperCorrector()
