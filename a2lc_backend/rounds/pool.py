"""Every mask of a project as arrays, with what people say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.reading import settled, verdicts
from a2lc_backend.rounds.workspace import Catalog, Labels
from a2lc_backend.store import TaskState

Answers = Mapping[tuple[int, str], int]
"""The label people agree on, by task id and region id; `IGNORE` for a mask that was deleted."""


@dataclass(frozen=True)
class Pool:
    """Every image with masks, in task order, with what people say of its masks.

    Attributes:
        states: (T,) the images.
        catalogs: (T,) their masks.
        human: (N,) int64 labels people agree on, `IGNORE` where there is none.
        answered: (N,) int64 round that collected the label, or that the mask was deleted; −1 where nothing is settled.
        first_answered: (N,) int64 round that collected the first word on the mask, −1 where nothing is settled.
        disputed: (N,) bool, people disagree.
        live: (N,) bool, the mask has pixels.
        answers: what people agree on, also of masks that are no longer there.
    """

    states: tuple[TaskState, ...]
    catalogs: tuple[Catalog, ...]
    human: NDArray[np.int64]
    answered: NDArray[np.int64]
    first_answered: NDArray[np.int64]
    disputed: NDArray[np.bool_]
    live: NDArray[np.bool_]
    answers: Answers

    @property
    def first(self) -> NDArray[np.int64]:
        """(N,) first labels."""
        return _join([catalog.first_labels for catalog in self.catalogs])

    @property
    def areas(self) -> NDArray[np.int64]:
        """(N,) pixels."""
        return _join([catalog.areas for catalog in self.catalogs])

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        counts = [0, *(len(catalog.region_ids) for catalog in self.catalogs)]
        return np.cumsum(np.array(counts, np.int64))[:-1]

    def owner(self, index: int) -> tuple[int, str]:
        """Task id and region id of the mask at a place in the (N,) arrays."""
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.states[place].task_id, self.catalogs[place].region_ids[index - int(self._starts[place])]

    def spans(self) -> Iterator[tuple[TaskState, Catalog, slice]]:
        """Each image with the place of its masks in the (N,) arrays."""
        start = 0
        for state, catalog in zip(self.states, self.catalogs, strict=True):
            yield state, catalog, slice(start, start + len(catalog.region_ids))
            start += len(catalog.region_ids)


def load_pool(context: Context, labels: Labels | None = None, states: tuple[TaskState, ...] | None = None) -> Pool:
    """Read the catalogs of images and join what people said.

    Args:
        context: of the round.
        labels: of the round, once they are fixed: then their images and masks are read, whatever is proposed meanwhile;
            every image that is ready if None.
        states: images to read instead of the ledger's.
    """
    if labels is not None:
        fixed = zip(labels.task_ids.tolist(), labels.mask_keys, strict=True)
        states = tuple(TaskState(task_id, "", ready=True, mask_key=key) for task_id, key in fixed)
    elif states is None:
        states = tuple(state for state in context.ledger.tasks(context.project_id) if state.ready)
    catalogs = tuple(context.workspace.catalog(state.mask_key) for state in states)
    said = verdicts(context.ledger.corrections(context.project_id))
    answers = settled(said)
    areas = _join([catalog.areas for catalog in catalogs])
    count = len(areas)
    pool = Pool(
        states, catalogs, np.full(count, IGNORE, np.int64), np.full(count, -1, np.int64),
        np.full(count, -1, np.int64), np.zeros(count, np.bool_), areas > 0, answers,
    )  # fmt: skip
    spoken_of = {task_id for task_id, _ in said}  # of few images, and of few of their masks
    for state, catalog, span in pool.spans():
        if state.task_id not in spoken_of:
            continue
        for index, region_id in enumerate(catalog.region_ids, start=span.start):
            verdict = said.get((state.task_id, region_id))
            if verdict is None:
                continue
            if verdict.disputed:
                pool.disputed[index] = True
                continue
            pool.human[index], pool.answered[index] = verdict.label, verdict.round
            pool.first_answered[index] = verdict.first_round
    return pool


def _join(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
