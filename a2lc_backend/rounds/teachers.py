"""The answers of people that an automatic correction rests on: those nearest to its mask, as the corrector sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.correction import MaskTable
from a2lc_backend.features import EMBEDDED, FEATURE_NAMES
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.correct import soft_labels_before
from a2lc_backend.rounds.reading import settled, verdicts
from a2lc_backend.rounds.report import NotThereError, class_name, find_round
from a2lc_backend.rounds.workspace import Catalog, Labels, Workspace
from a2lc_backend.store import Ledger, TaskState

SHOWN = 5
"""Teaching masks that are named."""

NEAREST = 20
"""Answers that are asked whether they agree."""

Owner = tuple[int, str]


@dataclass(frozen=True)
class Teacher:
    """A mask that a person answered, from which the corrector learned.

    Attributes:
        task_id: the image.
        region_id: the mask.
        before: class name of its first label, "none" for no label.
        label: class name that people gave it.
        round: that collected the answer.
        distance: to the mask that was corrected, 0 = alike; the median of any two answers is 1.
    """

    task_id: int
    region_id: str
    before: str
    label: str
    round: int
    distance: float


@dataclass(frozen=True)
class Teaching:
    """What people's answers say of one correction.

    Attributes:
        round: whose corrector is explained.
        label: class name it proposed.
        teachers: the nearest answers with that class, nearest first.
        agreeing: of the nearest answers of any class, those with that class.
        nearest: how many those are.
    """

    round: int
    label: str
    teachers: tuple[Teacher, ...]
    agreeing: int
    nearest: int


@dataclass(frozen=True)
class Lessons:
    """All that a round's corrector learned from people, in its own feature space.

    Each column of `correction.boosted.corrector_inputs` (colour, texture, place, shape, looks, mean soft label, first
    label) is divided by its spread over the answers, as the corrector's linear model does.

    Attributes:
        number: of the round.
        owners: (n,) task and region of each mask that people answered.
        before: (n,) int64 first labels.
        labels: (n,) int64 labels people gave.
        rounds: (n,) int64 rounds that collected them.
        inputs: (n, F) float32, scaled.
        spread: (F,) float32 that the inputs were divided by.
        seen_by: name of the model whose looks are compared, "" for none.
        unit: median distance of two answers.
    """

    number: int
    owners: tuple[Owner, ...]
    before: NDArray[np.int64]
    labels: NDArray[np.int64]
    rounds: NDArray[np.int64]
    inputs: NDArray[np.float32]
    spread: NDArray[np.float32]
    seen_by: str
    unit: float


def read_lessons(ledger: Ledger, workspace: Workspace, project_id: int, number: int) -> Lessons:
    """Read what the corrector of a finished round learned from: every image with an answer is looked at once.

    Raises:
        NotThereError: if there is no such round, or it has no labels.
    """
    view = _RoundSight(ledger, workspace, project_id, number)
    said = verdicts(item for item in ledger.corrections(project_id) if item.round <= number)
    wanted = {owner: label for owner, label in settled(said).items() if label != IGNORE}
    looks = {task_id: view.look(task_id) for task_id in sorted({task_id for task_id, _ in wanted})}
    models = [look.catalog.seen_by for look in looks.values() if look]
    seen_by = max(sorted(set(models)), key=models.count, default="")
    owners, rows, first = [], [], []
    for owner in wanted:
        look = looks[owner[0]]
        place = look.place(owner[1]) if look else None
        if look is not None and place is not None:
            owners.append(owner)
            rows.append(look.row(place, seen_by))
            first.append(int(look.catalog.first_labels[place]))
    labels, rounds = [wanted[owner] for owner in owners], [said[owner].round for owner in owners]
    inputs = np.stack(rows) if rows else np.empty((0, 0), np.float32)
    found = inputs.std(axis=0) if rows else np.empty(0, np.float32)
    spread = np.where(found > 0, found, 1.0).astype(np.float32)
    scaled = inputs / spread
    return Lessons(
        number, tuple(owners), np.array(first, np.int64), np.array(labels, np.int64), np.array(rounds, np.int64),
        scaled, spread, seen_by, _median_distance(scaled),
    )  # fmt: skip


def teaching(
    ledger: Ledger, workspace: Workspace, project_id: int, lessons: Lessons, task_id: int, region_id: str
) -> Teaching | None:
    """The answers nearest to a mask among those that taught the corrector the class it proposed.

    Args:
        ledger: what the program remembers.
        workspace: the project's artifacts.
        project_id: of the project.
        lessons: of the round whose corrector is explained.
        task_id: the image.
        region_id: the mask.

    Returns:
        None where that round's corrector proposed nothing for the mask.
    """
    view = _RoundSight(ledger, workspace, project_id, lessons.number)
    look = view.look(task_id)
    place = look.place(region_id) if look else None
    if look is None or place is None or not len(lessons.labels):
        return None
    index = view.labels.span(look.image).start + place
    if view.labels.strata[index] < 0:
        return None
    label = int(view.labels.proposals[index])
    distances = np.linalg.norm(lessons.inputs - look.row(place, lessons.seen_by) / lessons.spread, axis=1)
    order = np.argsort(distances, kind="stable")
    same = order[lessons.labels[order] == label][:SHOWN]
    names = view.names
    teachers = tuple(
        Teacher(
            *lessons.owners[int(one)], class_name(names, int(lessons.before[one])), class_name(names, label),
            int(lessons.rounds[one]), float(distances[one] / lessons.unit),
        )
        for one in same
    )  # fmt: skip
    nearest = order[:NEAREST]
    agreeing = int((lessons.labels[nearest] == label).sum())
    return Teaching(lessons.number, class_name(names, label), teachers, agreeing, len(nearest))


@dataclass(frozen=True)
class _Look:
    """An image's masks as a round's corrector saw them.

    Attributes:
        image: its place in the round's labels.
        catalog: its masks.
        soft_labels: (K, C) float64, zeros where θ had not seen the mask.
    """

    image: int
    catalog: Catalog
    soft_labels: NDArray[np.float64]

    def place(self, region_id: str) -> int | None:
        """Which of the image's masks this is, None if it has no such mask."""
        names = self.catalog.region_ids
        return names.index(region_id) if region_id in names else None

    def row(self, place: int, seen_by: str) -> NDArray[np.float32]:
        """The corrector's inputs of a mask, (F,); looks of another model than `seen_by` count as unknown."""
        from a2lc_backend.correction.boosted import corrector_inputs  # noqa: PLC0415 - scikit-learn is slow to load

        known = len(FEATURE_NAMES) + (EMBEDDED if seen_by and self.catalog.seen_by == seen_by else 0)
        features = np.zeros((1, len(FEATURE_NAMES) + (EMBEDDED if seen_by else 0)), np.float32)
        features[0, :known] = self.catalog.features[place, :known]
        first = self.catalog.first_labels[place : place + 1]
        soft = self.soft_labels[place : place + 1]
        nobody, no = np.full(1, IGNORE, np.int64), np.zeros(1, np.bool_)
        table = MaskTable(features, soft, first, first, nobody, no)
        inputs: NDArray[np.float32] = corrector_inputs(table, soft.shape[1])[0]
        return inputs


class _RoundSight:
    """What the corrector of a finished round saw."""

    def __init__(self, ledger: Ledger, workspace: Workspace, project_id: int, number: int) -> None:
        find_round(ledger, project_id, number)
        if not workspace.has_labels(number):
            raise NotThereError(f"round {number} of project {project_id} has no labels yet; wait for its end")
        project = ledger.project(project_id)
        self.names = project.classes if project else ()
        self.labels: Labels = workspace.labels(number)
        self._workspace = workspace
        earlier = [item.number for item in ledger.finished(project_id) if item.number < number]
        self._last = max(earlier, default=-1)
        self._previous = workspace.labels(self._last) if earlier and workspace.has_labels(self._last) else None

    def look(self, task_id: int) -> _Look | None:
        """An image's masks; None if the round did not know the image."""
        image = self.labels.find(task_id)
        if image is None:
            return None
        key = self.labels.mask_keys[image]
        catalog = self._workspace.catalog(key)
        state = TaskState(task_id, "", ready=True, mask_key=key)
        places, known = soft_labels_before(self._workspace, self._last, self._previous, state, catalog)
        soft = np.zeros((len(catalog.region_ids), len(self.names)))
        seen = places >= 0
        soft[seen, : known.shape[1]] = known[places[seen]]
        return _Look(image, catalog, soft)


def _median_distance(inputs: NDArray[np.float32], pairs: int = 2_000) -> float:
    """Median distance of two rows, from a sample of pairs; 1 for fewer than two rows."""
    if len(inputs) < 2:
        return 1.0
    random = np.random.default_rng(0)
    one = random.integers(len(inputs), size=pairs)
    other = (one + random.integers(1, len(inputs), size=pairs)) % len(inputs)
    return float(np.median(np.linalg.norm(inputs[one] - inputs[other], axis=1))) or 1.0
