"""Masks and first labels as weak foundation models would give them: mostly along the objects, wrong in known ways.

`propose_masks` stands in for a promptable segmenter: it over-splits large objects, merges neighbours that look alike,
lets masks leak over weak borders and misses small things. `guess_labels` stands in for a weak recogniser: what it takes
for what depends on how a mask looks (dark, small, low in the image …), so its mistakes can be learned from corrections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from a2lc_backend.bench.scene_canvas import (
    BUILDING,
    CAR,
    CLASSES,
    FENCE,
    LIGHT,
    PAVEMENT,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    SKY,
    TREE,
    fractal,
)

Cue = Literal["value", "saturation", "green", "row", "area"]

SMALLEST = 0.0004
"""Share of the image below which an object is not seen: it becomes part of its neighbour."""
LARGE = 0.035
"""Share of the image above which an object is at risk to be split."""
MOST_MASKS = 45


@dataclass(frozen=True)
class Confusion:
    """One thing the weak recogniser takes for another when a cue is strong enough.

    Attributes:
        truth: the class it is.
        mistaken: the class it is taken for.
        cue: what misleads; see `_cues`.
        sign: 1 = misled by a high value of the cue, −1 = by a low one.
        threshold: the value of the cue where half of such masks are mistaken.
        softness: standard deviation of the threshold from mask to mask.
    """

    truth: int
    mistaken: int
    cue: Cue
    sign: int
    threshold: float
    softness: float


CONFUSIONS = (
    Confusion(SIGN, LIGHT, "value", -1, 0.02, 0.05),
    Confusion(SIGN, BUILDING, "area", -1, -2.95, 0.12),
    Confusion(LIGHT, SIGN, "saturation", 1, 0.22, 0.04),
    Confusion(LIGHT, BUILDING, "area", -1, -2.95, 0.12),
    Confusion(POLE, BUILDING, "area", -1, -2.6, 0.15),
    Confusion(POLE, TREE, "value", -1, -0.14, 0.04),
    Confusion(FENCE, BUILDING, "value", 1, 0.01, 0.05),
    Confusion(FENCE, TREE, "green", 1, 0.025, 0.01),
    Confusion(PAVEMENT, ROAD, "value", -1, -0.04, 0.05),
    Confusion(PEDESTRIAN, CAR, "value", -1, -0.12, 0.05),
    Confusion(PEDESTRIAN, BUILDING, "area", -1, -2.95, 0.12),
    Confusion(CAR, BUILDING, "area", -1, -2.8, 0.15),
    Confusion(CAR, ROAD, "value", -1, -0.2, 0.04),
    Confusion(TREE, BUILDING, "green", -1, 0.016, 0.015),
    Confusion(TREE, FENCE, "row", 1, 0.505, 0.02),
    Confusion(BUILDING, FENCE, "row", 1, 0.56, 0.02),
    Confusion(BUILDING, CAR, "area", -1, -2.65, 0.15),
    Confusion(BUILDING, TREE, "value", -1, -0.17, 0.04),
    Confusion(SKY, BUILDING, "value", -1, -0.02, 0.04),
    Confusion(ROAD, PAVEMENT, "value", 1, 0.12, 0.04),
)
"""In order: the first that applies decides."""

STRAY_LABELS = 0.1
"""Share of the masks below `STRAY_AREA` that get any label for no reason."""
STRAY_AREA = 0.008
"""Share of the image."""


def propose_masks(
    rng: np.random.Generator, image: NDArray[np.uint8], objects: NDArray[np.int32], truth: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Cut an image into masks, with the faults of a promptable segmenter.

    Args:
        rng: where the chance comes from.
        image: (H, W, 3) uint8 RGB.
        objects: (H, W) int32, another number for each object.
        truth: (H, W) uint8 class ids; only says which merges are worth making (those across classes).

    Returns:
        (H, W) uint8 mask ids, 1..K in the order of their highest pixels, 0 where no mask lies.
    """
    smooth = cv2.GaussianBlur(image, (0, 0), 1.2).astype(np.float32)
    pieces = _absorb_small(_number(objects), SMALLEST * objects.size)
    pieces = _split_large(rng, pieces, smooth)
    pieces = _merge_alike(rng, pieces, smooth, truth)
    pieces = _leak(rng, _bend(rng, pieces), smooth)
    pieces = _absorb_small(_number(pieces), SMALLEST * objects.size)
    while pieces.max() >= MOST_MASKS:
        areas = np.bincount(pieces.ravel())
        pieces = _absorb_small(pieces, float(areas.min()) + 1)
    areas = np.bincount(pieces.ravel())
    missed = (areas < 0.004 * objects.size) & (rng.random(len(areas)) < 0.04)
    _, first = np.unique(pieces, return_index=True)
    ids = np.zeros(len(areas), np.uint8)
    order = np.argsort(first)
    ids[order[~missed[order]]] = np.arange(1, int((~missed).sum()) + 1)
    return ids[pieces]


def guess_labels(
    rng: np.random.Generator, image: NDArray[np.uint8], masks: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> list[int]:
    """Label each mask as a weak recogniser would.

    Args:
        rng: where the chance comes from.
        image: (H, W, 3) uint8 RGB.
        masks: (H, W) uint8 mask ids, 0 = none.
        truth: (H, W) uint8 class ids, all of them classes.

    Returns:
        A class id for each mask 1..K.
    """
    count = int(masks.max())
    votes = np.zeros((count + 1, len(CLASSES)), np.int64)
    np.add.at(votes, (masks.ravel(), truth.ravel()), 1)
    cues, areas = _cues(image, masks), votes.sum(axis=1)
    labels: list[int] = []
    for mask in range(1, count + 1):
        true = int(votes[mask].argmax())
        label = true
        for confusion in CONFUSIONS:
            if confusion.truth != true:
                continue
            excess = confusion.sign * (float(cues[confusion.cue][mask]) - confusion.threshold)
            if excess + confusion.softness * float(rng.standard_normal()) > 0:
                label = confusion.mistaken
                break
        if rng.random() < STRAY_LABELS and areas[mask] < STRAY_AREA * masks.size:
            label = int(rng.integers(len(CLASSES)))
        labels.append(label)
    return labels


def _cues(image: NDArray[np.uint8], masks: NDArray[np.uint8]) -> dict[Cue, NDArray[np.float64]]:
    """What the weak recogniser looks at, (K + 1,) each.

    `value` is brightness less the image's mean, `saturation` the strength of the colour, `green` how far that channel
    is above the mean of the others (1 = a full channel); `row` is the height of the mask's middle, 0 = top, 1 = bottom;
    `area` the logarithm to base 10 of its share of the image.
    """
    flat, colours = masks.ravel(), image.reshape(-1, 3).astype(np.float64) / 255
    areas = np.maximum(np.bincount(flat), 1).astype(np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(flat, values) / areas

    grey = colours.mean(axis=1)
    red, green, blue = (mean(colours[:, channel]) for channel in range(3))
    rows = np.repeat(np.arange(masks.shape[0], dtype=np.float64) / masks.shape[0], masks.shape[1])
    return {
        "value": mean(grey) - float(grey.mean()),
        "saturation": mean(colours.max(axis=1) - colours.min(axis=1)),
        "green": green - (red + blue) / 2,
        "row": mean(rows),
        "area": np.log10(areas / masks.size),
    }


def _number(pieces: NDArray[np.int32]) -> NDArray[np.int32]:
    """Renumber 0..n − 1."""
    return np.unique(pieces, return_inverse=True)[1].reshape(pieces.shape).astype(np.int32)


def _borders(pieces: NDArray[np.int32]) -> NDArray[np.int64]:
    """Pixels of border between each two pieces, (n, n)."""
    count = int(pieces.max()) + 1
    across = pieces[:, :-1].astype(np.int64) * count + pieces[:, 1:]
    down = pieces[:-1].astype(np.int64) * count + pieces[1:]
    pairs = np.concatenate([across.ravel(), down.ravel()])
    ordered = np.bincount(pairs, minlength=count * count).reshape(count, count)
    lengths: NDArray[np.int64] = (ordered + ordered.T).astype(np.int64)
    np.fill_diagonal(lengths, 0)
    return lengths


def _absorb_small(pieces: NDArray[np.int32], smallest: float) -> NDArray[np.int32]:
    """Give pieces below a number of pixels to the neighbour they share the longest border with; renumber."""
    lengths, areas = _borders(pieces), np.bincount(pieces.ravel()).astype(np.int64)
    target = np.arange(len(areas))
    for piece in np.argsort(areas, kind="stable"):
        if areas[piece] >= smallest or not lengths[piece].any():
            continue
        neighbour = int(lengths[piece].argmax())
        target[target == piece] = neighbour
        areas[neighbour] += areas[piece]
        lengths[neighbour] += lengths[piece]
        lengths[:, neighbour] += lengths[:, piece]
        lengths[piece], lengths[:, piece], lengths[neighbour, neighbour] = 0, 0, 0
    return _number(target[pieces].astype(np.int32))


def _split_large(rng: np.random.Generator, pieces: NDArray[np.int32], smooth: NDArray[np.float32]) -> NDArray[np.int32]:
    """Cut some large pieces in two or three, along colour and place."""
    pieces = pieces.copy()
    height, width = pieces.shape
    areas = np.bincount(pieces.ravel())
    for piece in np.flatnonzero(areas > LARGE * pieces.size).tolist():
        if rng.random() > 0.5:
            continue
        rows, columns = np.nonzero(pieces == piece)
        what = np.concatenate(
            [smooth[rows, columns] / 80, (rows / height * 4)[:, None], (columns / width * 4)[:, None]], 1
        )
        seeds = what[rng.choice(len(rows), int(rng.integers(2, 4)), replace=False)]
        part = ((what[:, None] - seeds[None]) ** 2).sum(axis=2).argmin(axis=1)
        pieces[rows, columns] = np.where(part == 0, piece, pieces.max() + part)
    return _number(pieces)


def _merge_alike(
    rng: np.random.Generator, pieces: NDArray[np.int32], smooth: NDArray[np.float32], truth: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """Join some neighbours of different classes, the likelier the more alike they look and the smaller one is."""
    flat = pieces.ravel()
    areas = np.bincount(flat)
    means = np.stack([np.bincount(flat, smooth[..., c].ravel()) / areas for c in range(3)], axis=1)
    classes = np.zeros((len(areas), len(CLASSES)), np.int64)
    np.add.at(classes, (flat, truth.ravel()), 1)
    kind = classes.argmax(axis=1)
    one, other = np.nonzero(np.triu(_borders(pieces)) > 4)
    likeness = np.exp(-np.linalg.norm(means[one] - means[other], axis=1) / 30)
    smaller = np.minimum(areas[one], areas[other]) / pieces.size
    chance = 0.2 * likeness * (smaller < 0.02) * (kind[one] != kind[other])
    target = np.arange(len(areas))
    for pair in np.flatnonzero(rng.random(len(one)) < chance):
        target[target == target[one[pair]]] = target[other[pair]]
    return _number(target[pieces].astype(np.int32))


def _bend(rng: np.random.Generator, pieces: NDArray[np.int32]) -> NDArray[np.int32]:
    """Move all borders a little, smoothly."""
    height, width = pieces.shape
    reach = 0.75 * height / 240
    rows, columns = np.mgrid[:height, :width]
    moved = []
    for axis, limit in ((rows, height), (columns, width)):
        shift = fractal(rng, (height, width), (height // 12, width // 12), 2) * reach
        moved.append(np.clip(np.rint(axis + shift).astype(np.int64), 0, limit - 1))
    return np.asarray(pieces[moved[0], moved[1]], np.int32)


def _leak(rng: np.random.Generator, pieces: NDArray[np.int32], smooth: NDArray[np.float32]) -> NDArray[np.int32]:
    """Let some pieces run over a border into pixels of their neighbour that look like the place of the leak."""
    pieces = pieces.copy()
    height, width = pieces.shape
    borders = np.argwhere(pieces[:, :-1] != pieces[:, 1:])
    rows, columns = np.ogrid[:height, :width]
    ragged = np.clip(1 + 0.4 * fractal(rng, (height, width), (height // 14, width // 14), 3), 0.2, 2)
    for row, column in borders[rng.choice(len(borders), 7, replace=False)]:
        grower, loser = pieces[row, column], pieces[row, column + 1]
        if rng.random() < 0.5:
            grower, loser = loser, grower
        radius = float(rng.uniform(0.025, 0.075)) * height
        near = (rows - row) ** 2 + (columns - column) ** 2 < (radius * ragged) ** 2
        alike = np.abs(smooth - smooth[row, column]).mean(axis=2) < 30
        pieces[near & alike & (pieces == loser)] = grower
    return pieces
