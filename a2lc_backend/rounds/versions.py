"""What an image was shown with, round after round, as far as the platform still holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE, SAME, MaskSet, Region, make_disjoint
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.platform import History, Published, Task, TaskError
from a2lc_backend.rounds.publish import read_note
from a2lc_backend.rounds.reading import Shown
from a2lc_backend.rounds.workspace import SOURCES
from a2lc_backend.store import Query


@dataclass(frozen=True)
class Version:
    """An image in one round: K masks in the order of their ids, and what each was shown with.

    Attributes:
        round: that published it.
        made_at: when it was written.
        masks: as shown, with their first labels.
        labels: (K,) int64 class ids or `IGNORE`.
        sources: (K,) int64 indices into `SOURCES`.
        confidence: (K,) float64 scores; 0 where none was shown.
        proposals: (K,) int64 `labels` with what was proposed and held back.
        queries: those masks that were queued.
        hidden: ids of regions that were kept off the page.
    """

    round: int
    made_at: datetime
    masks: MaskSet
    labels: NDArray[np.int64]
    sources: NDArray[np.int64]
    confidence: NDArray[np.float64]
    proposals: NDArray[np.int64]
    queries: tuple[Query, ...]
    hidden: frozenset[str]

    @property
    def shown(self) -> Shown:
        """The same as a person saw it."""
        asked = frozenset(query.region_id for query in self.queries)
        return Shown(self.masks, self.labels, asked, hidden=self.hidden)

    @property
    def human(self) -> dict[str, int]:
        """Labels that are a person's, by region id."""
        held = zip(self.masks.region_ids, self.labels.tolist(), self.sources.tolist(), strict=True)
        return {region_id: label for region_id, label, source in held if source == SOURCES.index("human")}


def read_versions(context: Context, history: History, task: Task) -> list[Version]:
    """What an image was shown with, the newest round first, with the first labels that the oldest one tells."""
    found: list[Version] = []
    oldest: dict[str, str | None] = {}
    told: dict[str, str | None] = {}
    classes = {name: index for index, name in enumerate(context.project().classes)}
    try:
        for published in history.published(task):
            for message in published.problems:
                context.note("rebuild", task.id, message)
            if published.regions:
                found.append(_version(task.id, published, classes))
                regions = published.regions + published.rest
                oldest |= {region.id: region.label for region in regions}
                told |= {region.id: region.first for region in regions if region.first != SAME}
    except TaskError as error:
        context.note("rebuild", task.id, f"task {task.id}: {error}")
        return []
    # Versions from before first labels were written show them in the oldest round.
    first = {region_id: IGNORE if name is None else classes[name] for region_id, name in (oldest | told).items()}
    return [
        replace(version, masks=replace(version.masks, first_labels=_lookup(version.masks.region_ids, first)))
        for version in found
    ]


def _version(task_id: int, published: Published, classes: Mapping[str, int]) -> Version:
    regions = sorted(published.regions + published.rest, key=lambda region: region.id)
    queued = sum(region.rank is not None for region in regions)

    def class_id(name: str | None) -> int:
        return IGNORE if name is None else classes[name]

    labels = np.array([class_id(region.label) for region in regions], np.int64)
    masks = MaskSet(
        make_disjoint([region.mask for region in regions], (regions[0].mask.shape[0], regions[0].mask.shape[1])),
        tuple(region.id for region in regions),
        labels,
        {region.id: region.ring for region in regions if region.ring is not None},
    )
    notes = {region.id: read_note(region.note) for region in regions}
    queries = tuple(
        Query(
            published.round, region.rank, task_id, region.id, class_id(region.label),
            classes.get(notes[region.id].guess, IGNORE),
            published.score / queued,  # only the sum over an image is shown
            notes[region.id].certainty, notes[region.id].why,
        )
        for region in regions
        if region.rank is not None
    )  # fmt: skip
    return Version(
        published.round, published.made_at, masks, labels,
        np.array([SOURCES.index(region.source) for region in regions], np.int64),
        np.array([_confidence(region) for region in regions], np.float64),
        np.array([class_id(region.proposal or region.label) for region in regions], np.int64),
        queries, frozenset(region.id for region in published.rest),
    )  # fmt: skip


def _confidence(region: Region) -> float:
    if region.source == "human":
        return 1.0
    return region.score or 0.0


def _lookup(region_ids: Iterable[str], labels: Mapping[str, int]) -> NDArray[np.int64]:
    return np.array([labels[region_id] for region_id in region_ids], np.int64)


def held_by_round(versions: Sequence[Version], number: int) -> list[int]:
    """For each round 0..number the index of the version that was shown in it, as far as that is known."""
    found = []
    for wanted in range(number + 1):
        later = [index for index, version in enumerate(versions) if version.round >= wanted]
        found.append(later[-1] if later else 0)  # an image the last rounds could not publish holds what it had
    return found


def same_masks(one: MaskSet, other: MaskSet) -> bool:
    """Whether two sets hold the same masks, under the same ids and first labels."""
    return (
        one.region_ids == other.region_ids
        and np.array_equal(one.mask_ids, other.mask_ids)
        and np.array_equal(one.first_labels, other.first_labels)
        and one.rings.keys() == other.rings.keys()
        and all(np.array_equal(ring, other.rings[name]) for name, ring in one.rings.items())
    )
