"""The labels of a project as one round has them: images one at a time, by index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from functools import partial

import numpy as np

from a2lc_backend.export.filters import Filters, audited_masks, measure
from a2lc_backend.export.labels import ImageLabels, RegionLabel, Voice
from a2lc_backend.export.lineage import MaskLineage, read_lineage
from a2lc_backend.export.names import file_names
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.publish import certainty_of
from a2lc_backend.rounds.report import NotThereError, find_round
from a2lc_backend.rounds.undo import labels_of
from a2lc_backend.rounds.workspace import SOURCES, Workspace
from a2lc_backend.store import Artifacts, Ledger, Project, Round, TaskState

_NOTHING = MaskLineage()

Fetch = Callable[[int, str], bytes]
"""Reads the file of an image, by task id and address."""


def _no_pictures(_task_id: int, _address: str) -> bytes:
    raise ValueError("these labels were opened without a way to their images")


class LabelSet:
    """What people, the corrector and the foundation model say of every image, the former over the latter.

    A sequence: `len`, an index, iteration. Masks are read when an image is asked for, so that one image is held at a
    time beside a few bytes a mask. The ledger is read once, so that processes may be forked off afterwards.

    Args:
        ledger: what the program remembers.
        artifacts: where masks lie.
        project_id: of the project.
        number: of a finished round; the last one if None.
        filters: what labels must be.
        fetch: reads images.

    Attributes:
        project: with its classes.
        round: whose labels these are.
        filters: what labels must be.
        measured: what audits say of labels by class, in that round.
        state: digest of all that the labels and their lineage follow from.

    Raises:
        NotThereError: for a project, round, class or source that is not there, or a round that is not finished.
        ValueError: for an impossible filter.
    """

    def __init__(
        self, ledger: Ledger, artifacts: Artifacts, project_id: int, number: int | None = None,
        filters: Filters | None = None, fetch: Fetch = _no_pictures,
    ) -> None:  # fmt: skip
        self.project = _project(ledger, project_id)
        self.round = _finished_round(ledger, project_id, number)
        self.filters = filters or Filters()
        self.filters.check(self.project.classes)
        self._fetch = fetch
        self._workspace = Workspace(artifacts, project_id)
        self._number = self.round.number
        self._labels = labels_of(ledger, self._workspace, project_id, self._number)
        audits = ledger.audits(project_id)
        drawn = frozenset((item.task_id, item.region_id) for item in audits)
        before = [one.number for one in ledger.finished(project_id) if one.number < self._number]
        asked = None
        if self.filters.finished:
            asked = (query for number in before for query in ledger.queries(project_id, number))
        spoken_of = {*self._labels.task_ids.tolist(), *(task_id for task_id, _ in drawn)}
        self._lineage = read_lineage(ledger, project_id, self._number, spoken_of, drawn, asked)
        self.measured = measure(audits, self._lineage.answers, self._number)
        self._passes = self.filters.of_labels(self._labels, self.project.classes, self.measured)
        self._audited = audited_masks(audits, self._lineage.answers, self._number)
        keys = dict(zip(self._labels.task_ids.tolist(), self._labels.mask_keys, strict=True))
        states = _still_there(ledger.tasks(project_id), keys)
        self._names = file_names({task_id: state.image for task_id, state in states.items()})
        self._addresses = {task_id: state.image for task_id, state in states.items()}
        finished = self._lineage.finished if self.filters.finished else states.keys()
        self._places = [
            place
            for place, task_id in enumerate(self._labels.task_ids.tolist())
            if task_id in states and task_id in finished and self._holds_some(place, task_id)
        ]
        self.state = self._digest()

    def _holds_some(self, place: int, task_id: int) -> bool:
        """Whether an image has labels that pass the filters, if there are any."""
        if self.filters.audited and task_id not in self._audited:
            return False
        span = self._labels.span(place)
        return bool(self._passes[span].any()) or span.start == span.stop

    def _digest(self) -> str:
        found = hashlib.sha256()
        for array in (self._labels.task_ids, self._labels.labels, self._labels.sources, self._labels.confidence):
            found.update(array.tobytes())
        for row in (*self._labels.mask_keys, sorted(self._addresses.items()), *map(astuple, self.measured)):
            found.update(f"{row}\n".encode())
        found.update(self._lineage.digest.encode())
        return found.hexdigest()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by class id."""
        return self.project.classes

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[ImageLabels]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> ImageLabels:
        """The labels of one image; raises IndexError."""
        place = self._places[index]
        task_id = int(self._labels.task_ids[place])
        masks = self._workspace.masks(self._labels.mask_keys[place])
        span = self._labels.span(place)
        labels, sources = self._labels.labels[span].tolist(), self._labels.sources[span].tolist()
        scores = certainty_of(self._workspace, self._labels, self._number, place)
        areas = masks.areas()
        kept = self._passes[span] & (areas > 0)
        if self.filters.audited:
            kept = kept & np.isin(masks.region_ids, list(self._audited[task_id]))
        lineage, regions = self._lineage.of_task(task_id), []
        for row in np.flatnonzero(kept).tolist():
            region_id, source = masks.region_ids[row], SOURCES[sources[row]]
            mine = lineage.get(region_id, _NOTHING)
            regions.append(
                RegionLabel(
                    row + 1, region_id, self._name(labels[row]), labels[row], source,
                    self._round_of(mine, labels[row], source), round(float(scores[row]), 4),
                    self._name(int(masks.first_labels[row])), int(areas[row]),
                    tuple(Voice(who, kind, self._name(label), number) for who, kind, label, number in mine.voices),
                )
            )  # fmt: skip
        shown = np.where(np.concatenate([[False], kept]), np.arange(len(kept) + 1), 0).astype(np.uint16)
        address = self._addresses[task_id]
        fetch = partial(self._fetch, task_id, address)
        return ImageLabels(
            task_id, address, self._names[task_id], shown[masks.mask_ids], tuple(regions), masks.rings, fetch
        )

    def _name(self, label: int) -> str | None:
        return None if label == IGNORE else self.classes[label]

    def _round_of(self, lineage: MaskLineage, label: int, source: str) -> int:
        """The round that gave a mask its label, 0 for a first label."""
        if source not in ("human", "corrector"):
            return 0
        found = lineage.answered if source == "human" else lineage.corrected(label)
        return self._number if found is None else found


def _project(ledger: Ledger, project_id: int) -> Project:
    found = ledger.project(project_id)
    if found is None:
        known = ", ".join(str(item.id) for item in ledger.projects()) or "none"
        raise NotThereError(
            f"this store does not hold project {project_id} (it holds {known}); point A2LC_DATA_DIR, or "
            "A2LC_DATABASE_URL and A2LC_ARTIFACTS_URL, to the backend's store, or begin the project's first round"
        )
    return found


def _finished_round(ledger: Ledger, project_id: int, number: int | None) -> Round:
    found = find_round(ledger, project_id, number)
    if found.status != "done":
        raise NotThereError(
            f"round {found.number} of project {project_id} is {found.status}; wait for its end "
            f"(a2lc rounds watch --project {project_id}), or name a finished one with --round"
        )
    return found


def _still_there(states: Sequence[TaskState], keys: Mapping[int, str]) -> dict[int, TaskState]:
    """Tasks of a round that are there and show the picture that the round's masks are of."""

    def folder(key: str) -> str:
        return key.rsplit("/", 1)[0]

    return {
        state.task_id: state
        for state in states
        if state.task_id in keys and folder(state.mask_key) == folder(keys[state.task_id])
    }
