"""An annotator who knows the truth, in Label Studio's place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.bench.world import World
from a2lc_backend.masks import IGNORE, MaskSet, Region
from a2lc_backend.rounds.platform import (
    Annotation,
    AnnotationStamp,
    Prediction,
    ProjectInfo,
    Task,
    TaskProblem,
)

_EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


class OraclePlatform:
    """A world folder as a `Platform`: each published queue is answered at once from the truth.

    Args:
        world: images, masks and truth.
    """

    single_ring = False

    def __init__(self, world: World) -> None:
        self._world = world
        self.answers: dict[int, Annotation] = {}
        self.versions: list[str] = []

    def project(self) -> ProjectInfo:
        """The world's name and classes."""
        return ProjectInfo(self._world.root.name, self._world.classes)

    def tasks(self) -> list[Task]:
        """Every image of the pool; ids count from 1."""
        return [Task(index + 1, f"{name}.png") for index, name in enumerate(self._world.names)]

    def name(self, task_id: int) -> str:
        """Name of a task's image in the world."""
        return self._world.names[task_id - 1]

    def image(self, task: Task) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8."""
        return self._world.image(self.name(task.id))

    def regions(self, task: Task, size: tuple[int, int]) -> tuple[tuple[Region, ...], tuple[str, ...]]:
        """Nothing is labelled beforehand."""
        return (), ()

    def annotation_stamps(self) -> list[AnnotationStamp]:
        """Every answer given so far."""
        return [AnnotationStamp(item.id, item.task_id, item.made_at.isoformat()) for item in self.answers.values()]

    def annotation(self, stamp: AnnotationStamp, size: tuple[int, int]) -> Annotation | None:
        """One answer."""
        return self.answers.get(stamp.id)

    def shown_mask(self, mask: NDArray[np.bool_], ring: NDArray[np.float64] | None) -> NDArray[np.bool_]:
        """Masks are shown as they are."""
        return mask

    def publish(
        self,
        version: str,
        tasks: Sequence[int],
        queued: Collection[int],
        predict: Callable[[int], Prediction],
        progress: Callable[[int, int], None],
    ) -> list[TaskProblem]:
        """Answer every queued mask with the commonest true class of its pixels; a void mask keeps its label."""
        if version in self.versions:
            return []
        for done, task_id in enumerate(sorted(queued)):
            progress(done, len(queued))
            truth = self._world.truth(self.name(task_id))
            answered = tuple(
                self._answer(region, truth) for region in predict(task_id).regions if region.rank is not None
            )
            number = len(self.answers) + 1
            made_at = _EPOCH + timedelta(seconds=number)
            self.answers[number] = Annotation(number, task_id, 1, made_at, answered)
        self.versions.append(version)
        progress(len(queued), len(queued))
        return []

    def _answer(self, region: Region, truth: NDArray[np.uint8]) -> Region:
        label = majority(truth, region.mask, len(self._world.classes))
        name = region.label if label == IGNORE else self._world.classes[label]
        return Region(region.id, name, region.mask, round=region.round, rank=region.rank)


def majority(truth: NDArray[np.uint8], mask: NDArray[np.bool_], classes: int) -> int:
    """The commonest true class among a mask's pixels, `IGNORE` where the truth says nothing."""
    counts = np.bincount(truth[mask], minlength=IGNORE + 1)[:classes]
    return int(counts.argmax()) if counts.any() else IGNORE


def true_labels(masks: MaskSet, truth: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """`majority` of every mask at once, (K,) int64."""
    known = truth < classes
    flat = masks.mask_ids[known].astype(np.int64) * classes + truth[known]
    counts = np.bincount(flat, minlength=(len(masks) + 1) * classes).reshape(-1, classes)[1:]
    return np.where(counts.any(1), counts.argmax(1), IGNORE)
