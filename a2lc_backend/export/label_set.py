"""The labels of a project as one round has them: images one at a time, by index."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from functools import partial

import numpy as np

from a2lc_backend.export.filters import Filters, audited_masks, finished_tasks, measure
from a2lc_backend.export.labels import ImageLabels, RegionLabel, Voice
from a2lc_backend.export.names import file_names
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.publish import certainty_of
from a2lc_backend.rounds.reading import settled, verdicts
from a2lc_backend.rounds.report import NotThereError, find_round
from a2lc_backend.rounds.undo import labels_of
from a2lc_backend.rounds.workspace import SOURCES, Workspace
from a2lc_backend.store import Artifacts, Correction, Ledger, Project, Round, TaskState

Fetch = Callable[[int, str], bytes]
"""Reads the file of an image, by task id and address."""


def _no_pictures(_task_id: int, _address: str) -> bytes:
    raise ValueError("these labels were opened without a way to their images")


class LabelSet:
    """What people, the corrector and the foundation model say of every image, the former over the latter.

    A sequence: `len`, an index, iteration. Masks are read when an image is asked for, so that one image is held at a
    time beside about 250 bytes a mask. The ledger is read once, so that processes may be forked off afterwards.

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
        said = [item for item in ledger.corrections(project_id) if item.round <= self._number]
        self._said = _by_mask(said)
        self._verdicts = verdicts(said)
        answers = settled(self._verdicts)
        audits = ledger.audits(project_id)
        self.measured = measure(audits, answers, self._number)
        self._passes = self.filters.of_labels(self._labels, self.project.classes, self.measured)
        self._changed = _changed(ledger, project_id, self._number)
        self._audited = audited_masks(audits, answers, self._number)
        keys = dict(zip(self._labels.task_ids.tolist(), self._labels.mask_keys, strict=True))
        states = _still_there(ledger.tasks(project_id), keys)
        self._names = file_names({task_id: state.image for task_id, state in states.items()})
        self._addresses = {task_id: state.image for task_id, state in states.items()}
        finished = None
        if self.filters.finished:
            asked = [
                query for one in ledger.finished(project_id) if one.number < self._number
                for query in ledger.queries(project_id, one.number)
            ]  # fmt: skip
            finished = finished_tasks(asked, answers)
        self._places = [
            place
            for place, task_id in enumerate(self._labels.task_ids.tolist())
            if task_id in states and (finished is None or task_id in finished) and self._holds_some(place, task_id)
        ]
        self.state = self._digest(said)

    def _holds_some(self, place: int, task_id: int) -> bool:
        """Whether an image has labels that pass the filters, if there are any."""
        if self.filters.audited and task_id not in self._audited:
            return False
        span = self._labels.span(place)
        return bool(self._passes[span].any()) or span.start == span.stop

    def _digest(self, said: Sequence[Correction]) -> str:
        found = hashlib.sha256()
        for array in (self._labels.task_ids, self._labels.labels, self._labels.sources, self._labels.confidence):
            found.update(array.tobytes())
        for row in (*self._labels.mask_keys, sorted(self._addresses.items()), *map(astuple, self.measured)):
            found.update(f"{row}\n".encode())
        for item in said:
            found.update(f"{astuple(item)}\n".encode())
        found.update(f"{sorted(self._changed.items())}".encode())
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
        regions = []
        for row in np.flatnonzero(kept).tolist():
            region_id, source = masks.region_ids[row], SOURCES[sources[row]]
            key = (task_id, region_id)
            regions.append(
                RegionLabel(
                    row + 1, region_id, self._name(labels[row]), labels[row], source,
                    self._round_of(key, labels[row], source), round(float(scores[row]), 4),
                    self._name(int(masks.first_labels[row])), int(areas[row]),
                    tuple(self._voice(item) for item in self._said.get(key, ())),
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

    def _round_of(self, key: tuple[int, str], label: int, source: str) -> int:
        """The round that gave a mask its label, 0 for a first label."""
        if source == "human":
            return self._verdicts[key].round if key in self._verdicts else self._number
        if source == "corrector":
            since = [number for number, after in self._changed.get(key, ()) if after == label]
            return since[-1] if since else self._number
        return 0

    def _voice(self, item: Correction) -> Voice:
        return Voice(item.annotator, item.kind, self._name(item.label), item.round)


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


def _by_mask(said: Sequence[Correction]) -> Mapping[tuple[int, str], list[Correction]]:
    found: dict[tuple[int, str], list[Correction]] = defaultdict(list)
    for item in said:
        found[item.task_id, item.region_id].append(item)
    return dict(found)


def _changed(ledger: Ledger, project_id: int, number: int) -> Mapping[tuple[int, str], list[tuple[int, int]]]:
    """When masks changed without a person, and to what: (round, class id), the oldest first."""
    found: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for record in ledger.finished(project_id):
        if record.number <= number:
            for item in ledger.auto_corrections(project_id, record.number):
                found[item.task_id, item.region_id].append((record.number, item.after))
    return dict(found)


def _still_there(states: Sequence[TaskState], keys: Mapping[int, str]) -> dict[int, TaskState]:
    """Tasks of a round that are there and show the picture that the round's masks are of."""

    def folder(key: str) -> str:
        return key.rsplit("/", 1)[0]

    return {
        state.task_id: state
        for state in states
        if state.task_id in keys and folder(state.mask_key) == folder(keys[state.task_id])
    }
