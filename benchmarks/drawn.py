"""A project of any size that takes no disk and no network: images, masks, labels and answers drawn when asked for.

Everything follows from a task's number, so a process that runs rounds on it holds nothing but the rounds' own data. The
neural networks are replaced by recorded outputs: `prepare` writes down soft labels that follow from an image's colours,
and `soft_labels` plays them back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from a2lc_backend.bench.oracle import OraclePlatform
from a2lc_backend.masks import IGNORE, MaskSet, Region
from a2lc_backend.proposals import Picture
from a2lc_backend.rounds.platform import Annotation, AnnotationStamp, Prediction, Target, TaskProblem
from a2lc_backend.segmenter import Checkpoint, Prepared, Progress, Samples

CLASSES = 19
SIDE = 128
MASKS = 40
CELLS = 16
_LAYOUTS = 32
_WRONG = 0.25
_EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class DrawnProject:
    """Images of `SIDE` × `SIDE` pixels with `MASKS` masks each; some classes are rare, a quarter of first labels wrong.

    Attributes:
        images: their number; task ids count from 1.
        seed: of all that is drawn.
        name: for people.
    """

    images: int
    seed: int = 0
    name: str = "drawn"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in id order."""
        return tuple(f"class-{index}" for index in range(CLASSES))

    @property
    def names(self) -> tuple[str, ...]:
        """The numbers of the tasks."""
        return tuple(str(number) for number in range(1, self.images + 1))

    @cached_property
    def _palette(self) -> NDArray[np.float64]:
        return np.random.default_rng(self.seed).uniform(40, 216, (CLASSES, 3))

    @cached_property
    def _layouts(self) -> list[NDArray[np.uint16]]:
        random = np.random.default_rng(self.seed)
        pixels = np.mgrid[:SIDE, :SIDE].reshape(2, -1).T
        return [
            (cKDTree(random.random((MASKS, 2)) * SIDE).query(pixels)[1] + 1).astype(np.uint16).reshape(SIDE, SIDE)
            for _ in range(_LAYOUTS)
        ]

    def mask_ids(self, task_id: int) -> NDArray[np.uint16]:
        """(SIDE, SIDE) ids 1..MASKS."""
        return self._layouts[task_id % _LAYOUTS]

    def true_classes(self, task_id: int) -> NDArray[np.int64]:
        """(MASKS,) true classes."""
        shares = 1 / np.arange(1, CLASSES + 1)
        return self._random(task_id, 0).choice(CLASSES, MASKS, p=shares / shares.sum())

    def first_labels(self, task_id: int) -> NDArray[np.int64]:
        """(MASKS,) what a foundation model might say: always the same mistakes."""
        truth = self.true_classes(task_id)
        wrong = self._random(task_id, 1).random(MASKS) < _WRONG
        return np.where(wrong, (truth + 1 + truth % 3) % CLASSES, truth)

    def picture(self, task_id: int) -> NDArray[np.uint8]:
        """(SIDE, SIDE, 3): each mask in the colour of its true class, more or less."""
        random = self._random(task_id, 2)
        shades = self._palette[self.true_classes(task_id)] + random.normal(0, 18, (MASKS, 3))
        noise = random.integers(-12, 13, (SIDE, SIDE, 3), np.int16)
        return np.asarray(np.clip(shades.astype(np.int16)[self.mask_ids(task_id) - 1] + noise, 0, 255), np.uint8)

    def image(self, name: str) -> NDArray[np.uint8]:
        """See `DataSet.image`; an image's name is its task's number."""
        return self.picture(int(name))

    def truth(self, name: str) -> NDArray[np.uint8]:
        """See `DataSet.truth`."""
        return self.true_classes(int(name)).astype(np.uint8)[self.mask_ids(int(name)) - 1]

    def recorded(self, image: NDArray[np.uint8]) -> NDArray[np.float16]:
        """(CLASSES, CELLS, CELLS): what a network might say of an image, by its colours."""
        step = SIDE // CELLS
        colours = image.reshape(CELLS, step, CELLS, step, 3).mean((1, 3))
        far = ((colours[None] - self._palette[:, None, None]) ** 2).sum(-1)
        odds = np.exp(-(far - far.min(0)) / 1500) + 1e-3
        return np.asarray(odds / odds.sum(0), np.float16)

    def _random(self, task_id: int, what: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, task_id, what))


@dataclass(frozen=True)
class DrawnMasks:
    """The masks and first labels of a drawn project, as `Proposals`."""

    drawn: DrawnProject
    name: str = "drawn"

    def propose(self, picture: Picture) -> MaskSet:
        """See `Proposals.propose`."""
        names = tuple(f"mask-{number}" for number in range(1, MASKS + 1))
        task_id = picture.task_id
        return MaskSet(self.drawn.mask_ids(task_id), names, self.drawn.first_labels(task_id), {})


class RecordedSegmenter:
    """Soft labels as they were written down, as a `Segmenter`; training reads all that training reads, and counts.

    Args:
        drawn: what is recorded.
    """

    fingerprint = "recorded"

    def __init__(self, drawn: DrawnProject) -> None:
        self._drawn = drawn
        self._pixels = [0] * (IGNORE + 1)

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """See `Segmenter.prepare`."""
        return self._drawn.recorded(image)

    def fit(self, samples: Samples, progress: Progress | None = None, checkpoint: Checkpoint | None = None) -> None:
        """See `Segmenter.fit`."""
        counts = np.zeros(IGNORE + 1, np.int64)
        for _, labels in samples():
            counts += np.bincount(labels.ravel(), minlength=IGNORE + 1)
            if progress:
                progress(0, 1)
        self._pixels = counts.tolist()

    def soft_labels(self, prepared: Prepared) -> NDArray[np.float32]:
        """See `Segmenter.soft_labels`."""
        return prepared.astype(np.float32)

    def state(self) -> bytes:
        """See `Segmenter.state`."""
        return json.dumps(self._pixels).encode()

    def load(self, state: bytes) -> None:
        """See `Segmenter.load`."""
        self._pixels = json.loads(state)


class DrawnPlatform(OraclePlatform):
    """A drawn project as a `Platform` that remembers which masks were asked about, and draws the answers when read.

    Args:
        drawn: images and their truth.
    """

    def __init__(self, drawn: DrawnProject) -> None:
        super().__init__(drawn)
        self._drawn = drawn
        self._asked: list[tuple[int, int, tuple[str, ...]]] = []
        self.predictions: dict[str, list[int]] = {}
        """Tasks that were given a prediction, by version, in the order they were written."""

    def annotation_stamps(self) -> list[AnnotationStamp]:
        """See `Platform.annotation_stamps`."""
        return [AnnotationStamp(number, task_id, "once") for number, (task_id, *_) in enumerate(self._asked, 1)]

    def annotation(self, stamp: AnnotationStamp, size: tuple[int, int]) -> Annotation | None:
        """The queued masks of an image, each with its true class."""
        task_id, shown_round, names = self._asked[stamp.id - 1]
        ids, truth = self._drawn.mask_ids(task_id), self._drawn.true_classes(task_id)
        regions = []
        for name in names:
            number = int(name.removeprefix("mask-"))
            regions.append(Region(name, self._drawn.classes[truth[number - 1]], ids == number))
        made_at = _EPOCH + timedelta(seconds=stamp.id)
        return Annotation(stamp.id, task_id, 1, made_at, tuple(regions), shown_round=shown_round)

    def write(
        self,
        version: str,
        targets: Sequence[Target],
        predict: Callable[[int], Prediction],
        progress: Callable[[int, int], None],
    ) -> list[TaskProblem]:
        """See `Platform.write`; predictions are made, one a task, and not kept."""
        written = self.predictions.setdefault(version, [])
        for done, target in enumerate(targets):
            progress(done, len(targets))
            regions = predict(target.source_id).regions
            written.append(target.task_id)
            asked = tuple(region.id for region in regions if region.rank is not None)
            if asked:
                self._asked.append((target.task_id, regions[0].round or 0, asked))
        progress(len(targets), len(targets))
        return []
