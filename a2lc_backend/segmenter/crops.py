"""Random crops of images, batch after batch without end; the same from any place on, so that a training can resume."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE
from a2lc_backend.segmenter import Prepared, Samples, SegmenterError, Training
from a2lc_backend.segmenter.state import check_labels

SIDE = 2048
"""Longer side of a stored image in pixels, at most: Cityscapes' 2048×1024 stay as they are and take 6.3 MB."""

STRIDE = 16
"""Sides of what the network reads are multiples of this."""

BUFFER = 256
"""Crops that are shuffled among each other; 2.4 MB each at the paper's 768 pixels."""

AHEAD = 4
"""Batches that are made while the network learns from an earlier one."""

JITTER = 0.5
"""Brightness, contrast and saturation of a crop become up to so much more or less."""

GREY = (124, 116, 104)
"""ImageNet's mean colour, put where an image is smaller than a crop."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Place:
    """Where in the endless row of crops a batch ends.

    Attributes:
        epoch: full passes over the images before.
        done: crops of this pass that were given.
    """

    epoch: int = 0
    done: int = 0


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops, padded at the right and below to multiples of `STRIDE`.

    Attributes:
        images: (N, S, S, 3) uint8, RGB.
        labels: (N, S, S) uint8 class ids, `IGNORE` where a pixel has none or is padding.
        jitter: (N, 3) float32 factors of brightness, contrast and saturation.
        end: where the next batch begins.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    jitter: NDArray[np.float32]
    end: Place


_Crop = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]


def checked(prepared: Prepared) -> NDArray[np.uint8]:
    """An image as `DeepLabSegmenter.prepare` makes it, (h, w, 3) uint8.

    Raises:
        SegmenterError: if it is none.
    """
    if prepared.ndim != 3 or prepared.shape[2] != 3 or prepared.dtype != np.uint8 or max(prepared.shape) > SIDE:
        raise SegmenterError(
            f"DeepLabV3+ reads images (h, w, 3) uint8 of {SIDE} pixels at most, not {prepared.shape} "
            f"{prepared.dtype}; prepare the images again with this segmenter"
        )
    return prepared.astype(np.uint8, copy=False)


def batches(samples: Samples, classes: int, training: Training, seed: int, start: Place) -> Generator[Batch]:
    """Give batches of random crops, one crop an image and pass, without end.

    Images are read one after the other and never kept; images without a label are left out. Every crop follows from
    the seed, the pass and the image's number in it, so that nothing but the place is needed to go on.

    Args:
        samples: the images.
        classes: C.
        training: says the side of a crop and the size of a batch.
        seed: of crops and their order.
        start: where to begin; the images of a begun pass are read again up to there.

    Yields:
        Batches; none at all if no image has a label.

    Raises:
        SegmenterError: for a label that is no class, or an array that is no image.
    """
    epoch, skip = start.epoch, start.done
    waiting: list[_Crop] = []
    while True:
        given = 0
        rng = np.random.default_rng((seed, epoch))
        for crop in _shuffled(_crops(samples, classes, training.crop, seed, epoch), rng):
            given += 1
            if given <= skip:
                continue
            waiting.append(crop)
            if len(waiting) == training.batch:
                images, labels, jitter = (np.stack(part) for part in zip(*waiting, strict=True))
                waiting.clear()
                yield Batch(images, labels, jitter, Place(epoch, given))
        if given == 0:
            return
        epoch, skip = epoch + 1, 0


def _crops(samples: Samples, classes: int, side: int, seed: int, epoch: int) -> Iterator[_Crop]:
    for number, (prepared, labels) in enumerate(samples()):
        image = checked(prepared)
        check_labels(labels, classes)
        if (labels != IGNORE).any():
            yield _crop(image, labels, side, np.random.default_rng((seed, epoch, number)))


def _crop(image: NDArray[np.uint8], labels: NDArray[np.uint8], side: int, rng: np.random.Generator) -> _Crop:
    height, width = (min(side, length) for length in image.shape[:2])
    top, left = (int(rng.integers(length - min(side, length) + 1)) for length in image.shape[:2])
    # The label under each pixel's centre; the image may have been shrunk, its labels never are.
    rows, columns = (
        (2 * np.arange(first, first + count) + 1) * full // (2 * small)
        for first, count, full, small in zip(
            (top, left), (height, width), labels.shape, image.shape[:2], strict=True
        )
    )  # fmt: skip
    padded = -(-side // STRIDE) * STRIDE
    pixels = np.full((padded, padded, 3), GREY, np.uint8)
    targets = np.full((padded, padded), IGNORE, np.uint8)
    step = -1 if rng.random() < 0.5 else 1
    pixels[:height, :width] = image[top : top + height, left : left + width][:, ::step]
    targets[:height, :width] = labels[rows[:, None], columns[None, ::step]]
    return pixels, targets, rng.uniform(1 - JITTER, 1 + JITTER, 3).astype(np.float32)


def _shuffled(items: Iterable[Item], rng: np.random.Generator) -> Iterator[Item]:
    """Shuffle items within a buffer of `BUFFER`."""
    buffer: list[Item] = []
    for item in items:
        if len(buffer) < BUFFER:
            buffer.append(item)
            continue
        place = int(rng.integers(BUFFER))
        yield buffer[place]
        buffer[place] = item
    for place in rng.permutation(len(buffer)).tolist():
        yield buffer[place]


def made_ahead(items: Generator[Item], tell: Callable[[], None]) -> Generator[Item]:
    """Give items in order while a thread makes the next ones.

    Args:
        items: made in the thread; closed at the end.
        tell: called about every second while the next item is not there; what it raises ends the work.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="a2lc-crops") as pool:
        waiting = deque(pool.submit(next, items, None) for _ in range(AHEAD))
        try:
            while True:
                coming = waiting.popleft()
                while not wait([coming], timeout=1).done:
                    tell()
                item = coming.result()
                if item is None:
                    return
                waiting.append(pool.submit(next, items, None))
                yield item
        finally:
            for coming in waiting:
                coming.cancel()
            pool.submit(items.close)
