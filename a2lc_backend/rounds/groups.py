"""Proposals of the corrector by pair of classes and by how sure it is, and the choice of some of them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from a2lc_backend.rounds.report import ProposalReport, ProposalState
from a2lc_backend.rounds.undo import MaskName

_EDGES = (0.0, 0.5, 0.75, 0.9, 1.0)

BANDS: tuple[tuple[float, float], ...] = tuple(itertools.pairwise(_EDGES))
"""The corrector's probability of what it proposes, from least to below most; 1 lies in the last."""


@dataclass(frozen=True)
class Selection:
    """Some proposals of a round.

    Attributes:
        masks: exactly these; those of the pair and the band if None.
        before: class name of the first label, "none" for no label; any if empty.
        after: class name proposed; any if empty.
        least: the corrector's probability is at least this.
        most: and below this; 1 includes 1.
    """

    masks: frozenset[MaskName] | None = None
    before: str = ""
    after: str = ""
    least: float = 0.0
    most: float = 1.0

    def holds(self, item: ProposalReport) -> bool:
        """Whether a proposal is meant."""
        if self.masks is not None:
            return (item.task_id, item.region_id) in self.masks
        return (
            self.before in ("", item.before)
            and self.after in ("", item.after)
            and self.least <= item.belief
            and (item.belief < self.most or self.most >= 1)
        )


def select_masks(
    proposals: Iterable[ProposalReport], chosen: Selection, state: ProposalState
) -> dict[MaskName, ProposalReport]:
    """The proposals that are meant and of which that has become."""
    return {(item.task_id, item.region_id): item for item in proposals if item.state == state and chosen.holds(item)}


@dataclass(frozen=True)
class BandReport:
    """Proposals of one pair of classes that the corrector is about equally sure of.

    Attributes:
        before: class name of the first label, "none" for no label.
        after: class name proposed.
        least: see `BANDS`.
        most: see `BANDS`.
        applied: masks that hold it.
        held_back: masks that it was not given to.
        taken_back: masks that a person took it back from.
        approved: of those held back, approved mask by mask.
    """

    before: str
    after: str
    least: float
    most: float
    applied: int
    held_back: int
    taken_back: int
    approved: int


def band_reports(proposals: Iterable[ProposalReport]) -> list[BandReport]:
    """Count proposals by pair of classes and band, pair by pair, the surest band first."""
    counts: Counter[tuple[str, str, int, str]] = Counter()
    for item in proposals:
        band = sum(item.belief >= least for least in _EDGES[1:-1])
        counts[item.before, item.after, band, item.state] += 1
        counts[item.before, item.after, band, "approved"] += item.approved and item.state == "held back"
    places = sorted({(before, after, -band) for before, after, band, _ in counts})
    return [
        BandReport(
            before, after, *BANDS[-below],
            *(counts[before, after, -below, name] for name in ("applied", "held back", "taken back", "approved")),
        )
        for before, after, below in places
    ]  # fmt: skip
