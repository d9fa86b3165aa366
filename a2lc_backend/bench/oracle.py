"""Annotators who know the truth, in Label Studio's place, and the truth of masks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.bench.dataset import LabelledImages
from a2lc_backend.masks import IGNORE, MaskSet, Region
from a2lc_backend.rounds.platform import (
    Annotation,
    AnnotationStamp,
    Asked,
    Prediction,
    ProjectInfo,
    Question,
    Target,
    Task,
    TaskProblem,
)
from a2lc_backend.segmenter import enlarge

_EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Answers(MutableMapping[int, Annotation]):
    """Annotations by id, with their masks packed: ten thousand masks of 2048×1024 pixels would take 20 GB."""

    def __init__(self) -> None:
        self._annotations: dict[int, Annotation] = {}
        self._masks: dict[int, tuple[_PackedMask, ...]] = {}

    def __getitem__(self, number: int) -> Annotation:
        annotation = self._annotations[number]
        masks = self._masks[number]
        regions = (
            replace(region, mask=packed.unpack()) for region, packed in zip(annotation.regions, masks, strict=True)
        )
        return replace(annotation, regions=tuple(regions))

    def __setitem__(self, number: int, annotation: Annotation) -> None:
        self._masks[number] = tuple(_PackedMask.pack(region.mask) for region in annotation.regions)
        bare = tuple(replace(region, mask=np.empty((0, 0), np.bool_)) for region in annotation.regions)
        self._annotations[number] = replace(annotation, regions=bare)

    def __delitem__(self, number: int) -> None:
        del self._annotations[number], self._masks[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._annotations)

    def __len__(self) -> int:
        return len(self._annotations)

    def stamps(self) -> list[AnnotationStamp]:
        """Every annotation without its content."""
        return [AnnotationStamp(item.id, item.task_id, item.made_at.isoformat()) for item in self._annotations.values()]


@dataclass(frozen=True)
class _PackedMask:
    bits: bytes
    size: tuple[int, int]

    @classmethod
    def pack(cls, mask: NDArray[np.bool_]) -> _PackedMask:
        return cls(zlib.compress(np.packbits(mask).tobytes(), 1), (mask.shape[0], mask.shape[1]))

    def unpack(self) -> NDArray[np.bool_]:
        bits = np.frombuffer(zlib.decompress(self.bits), np.uint8)
        return np.unpackbits(bits, count=self.size[0] * self.size[1]).reshape(self.size).astype(np.bool_)


class OraclePlatform:
    """A data set as a `Platform`: each published queue is answered at once from the truth.

    Args:
        data: images and their truth.
    """

    single_ring = False

    def __init__(self, data: LabelledImages) -> None:
        self._data = data
        self.answers = Answers()
        self.versions: list[str] = []
        self._answered: set[tuple[str, int]] = set()

    def project(self) -> ProjectInfo:
        """The data set's name and classes."""
        return ProjectInfo(self._data.name, self._data.classes)

    def tasks(self) -> list[Task]:
        """Every image of the pool; ids count from 1."""
        return [Task(index + 1, f"{name}.png") for index, name in enumerate(self._data.names)]

    def has_task(self, task_id: int) -> bool:
        """Whether the pool has so many images."""
        return any(task.id == task_id for task in self.tasks())

    def is_submitted(self, annotation_id: int) -> bool:
        """Whether an answer stands."""
        return any(stamp.id == annotation_id for stamp in self.annotation_stamps())

    def name(self, task_id: int) -> str:
        """Name of a task's image in the data set."""
        return self._data.names[task_id - 1]

    def image(self, task: Task) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8."""
        return self._data.image(self.name(task.id))

    def regions(self, task: Task, size: tuple[int, int]) -> tuple[tuple[Region, ...], tuple[str, ...]]:
        """Nothing is labelled beforehand."""
        return (), ()

    def annotation_stamps(self) -> list[AnnotationStamp]:
        """Every answer given so far."""
        return self.answers.stamps()

    def annotation(self, stamp: AnnotationStamp, size: tuple[int, int]) -> Annotation | None:
        """One answer."""
        return self.answers.get(stamp.id)

    def shown_mask(self, mask: NDArray[np.bool_], ring: NDArray[np.float64] | None) -> NDArray[np.bool_]:
        """Masks are shown as they are."""
        return mask

    def prepare(
        self, tasks: Sequence[int], queued: Collection[int], repeats: bool = True
    ) -> tuple[list[Target], list[TaskProblem]]:
        """Every image is a target of its own."""
        return [Target(task_id, task_id, task_id in queued) for task_id in tasks], []

    def write(
        self,
        version: str,
        targets: Sequence[Target],
        predict: Callable[[int], Prediction],
        progress: Callable[[int, int], None],
    ) -> list[TaskProblem]:
        """Answer every queued mask with its true class.

        A mask of which the truth says nothing keeps its label; where it has none, it is deleted, as a person deletes a
        mask that is no class: left without a label it would be asked about for ever. Only the last mask of an image
        cannot be deleted.
        """
        queued = sorted(target.source_id for target in targets if target.serves_queue)
        for done, task_id in enumerate(queued):
            progress(done, len(queued))
            if (version, task_id) not in self._answered:
                self._answer_task(task_id, predict(task_id).regions)
                self._answered.add((version, task_id))
        progress(len(queued), len(queued))
        return []

    def _answer_task(self, task_id: int, shown: Sequence[Region]) -> None:
        asked = tuple(region for region in shown if region.rank is not None)
        answered = self._look(task_id, asked)
        named = tuple(region for region in answered if region.label is not None)
        number = len(self.answers) + 1
        made_at = _EPOCH + timedelta(seconds=number)
        answer = Annotation(number, task_id, 1, made_at, named)
        if len(named) < len(answered):  # only an annotation of the whole image can say that a region is gone
            others = tuple(region for region in shown if region.rank is None)
            # An annotation without regions passes for a mistake, so the last one stays, unlabelled as it is.
            answer = replace(answer, regions=named + others or answered[:1], whole=True)
        self.answers[number] = answer

    def show(self, version: str, targets: Sequence[Target]) -> list[TaskProblem]:
        """The answers are there already."""
        if version not in self.versions:
            self.versions.append(version)
        return []

    def ask(self, number: int, questions: Sequence[Question]) -> Asked:
        """The queue is answered already."""
        return Asked(None, {})

    def share(self, targets: Sequence[Target], annotators: Sequence[str]) -> None:
        """The oracle is alone."""

    def tidy(self, version: str) -> int:
        """Nothing is ever doubled."""
        return 0

    def prune(self, keep: int) -> None:
        """Nothing is kept but answers."""

    def drop(self, version: str, instead: str) -> None:
        """Forget that a version was shown; what was answered stays answered."""
        self.versions = [other for other in self.versions if other != version]

    def _look(self, task_id: int, asked: Sequence[Region]) -> tuple[Region, ...]:
        """The regions that an annotator was asked about, with the commonest true class of their pixels."""
        truth = self._data.truth(self.name(task_id))
        return tuple(self._answer(region, majority(truth, region.mask, len(self._data.classes))) for region in asked)

    def _answer(self, region: Region, label: int) -> Region:
        name = region.label if label == IGNORE else self._data.classes[label]
        return Region(region.id, name, region.mask, round=region.round, rank=region.rank)


SoftLabels = Callable[[int, int], NDArray[np.float32]]
"""Soft labels (C, h, w) of θ by round and task id."""


class PixelOracle(OraclePlatform):
    """An annotator who sees only the representative pixel of a queued mask; its class goes to the whole mask.

    Args:
        data: images and their truth.
        soft_labels: what θ said in a round of an image; decides which pixel represents a mask.
    """

    def __init__(self, data: LabelledImages, soft_labels: SoftLabels) -> None:
        super().__init__(data)
        self._soft_labels = soft_labels

    def _look(self, task_id: int, asked: Sequence[Region]) -> tuple[Region, ...]:
        truth = self._data.truth(self.name(task_id))
        soft = enlarge(self._soft_labels(asked[0].round or 0, task_id), (truth.shape[0], truth.shape[1]))
        return tuple(self._answer(region, int(truth[representative_pixel(soft, region.mask)])) for region in asked)


def representative_pixel(soft_labels: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel of a mask that is most like its mean soft label.

    The mean is over the pixels whose argmax is the mask's dominant argmax; likeness is the cosine, and of equals the
    first pixel in reading order is taken.

    Args:
        soft_labels: (C, H, W) class probabilities.
        mask: (H, W) bool, at least one pixel.

    Returns:
        Row and column.
    """
    rows, columns = np.nonzero(mask)
    soft = soft_labels[:, rows, columns].astype(np.float64)
    argmax = soft.argmax(0)
    mean = soft[:, argmax == np.bincount(argmax).argmax()].mean(1)
    best = int((mean @ soft / np.linalg.norm(soft, axis=0)).argmax())
    return int(rows[best]), int(columns[best])


def majority(truth: NDArray[np.uint8], mask: NDArray[np.bool_], classes: int) -> int:
    """The commonest true class among a mask's pixels, `IGNORE` where the truth says nothing."""
    counts = np.bincount(truth[mask], minlength=IGNORE + 1)[:classes]
    return int(counts.argmax()) if counts.any() else IGNORE


@dataclass(frozen=True)
class ImageTruth:
    """The truth of one image, mask by mask.

    Attributes:
        region_ids: (K,) names of the masks.
        first: (K,) int64 first labels.
        pixels: (K + 1, C) int64 pixels of each true class; row 0 lies outside every mask.
        true: (K,) int64 the commonest true class, `IGNORE` where the truth says nothing.
    """

    region_ids: tuple[str, ...]
    first: NDArray[np.int64]
    pixels: NDArray[np.int64]
    true: NDArray[np.int64]

    def confusion(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """`metrics.confusion_matrix` of the label map that these labels of the masks make, (C, C + 1)."""
        classes = self.pixels.shape[1]
        columns = np.concatenate([[classes], np.where(labels == IGNORE, classes, labels)])
        counts = np.zeros((classes + 1, classes), np.int64)
        np.add.at(counts, columns, self.pixels)
        return counts.T


def image_truth(masks: MaskSet, truth: NDArray[np.uint8], classes: int) -> ImageTruth:
    """Hold masks against the truth, (H, W) class ids or `IGNORE`."""
    known = truth < classes
    flat = masks.mask_ids[known].astype(np.int64) * classes + truth[known]
    pixels = np.bincount(flat, minlength=(len(masks) + 1) * classes).reshape(-1, classes)
    return ImageTruth(masks.region_ids, masks.first_labels, pixels, _commonest(pixels[1:]))


def true_labels(masks: MaskSet, truth: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """`majority` of every mask at once, (K,) int64."""
    return image_truth(masks, truth, classes).true


def _commonest(pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(pixels.any(1), pixels.argmax(1), IGNORE)
