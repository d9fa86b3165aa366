"""What a mask looks like, in numbers: the corrector's view of a mask besides its soft label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from skimage import color, filters

from a2lc_backend.masks import MaskSet

FEATURE_NAMES = (
    *(f"{channel}_{statistic}" for channel in ("lightness", "a", "b", "gradient") for statistic in ("mean", "std")),
    "center_x",
    "center_y",
    "width",
    "height",
    "log_area",
    "fill",
    "top",
    "bottom",
)


_STRIP = 2**20
"""Pixels that are looked at together: a large image takes some 100 bytes a pixel on the way."""

EMBEDDED = 48
"""Columns that stand for a foundation model's view of a mask. A fixed random projection keeps the distances of 256 to
1,024 dimensions well enough, and needs to know no other image."""


@dataclass(frozen=True)
class Appearance:
    """A foundation model that tells the corrector how masks look, beside their colour and shape.

    Attributes:
        name: of its weights; features of two models are never compared.
        see: gives the dense features of an image by the image's key, see `mask_features`.
    """

    name: str
    see: Callable[[str, NDArray[np.uint8]], NDArray[np.float16]]


def mask_features(
    image: NDArray[np.uint8], masks: MaskSet, dense: NDArray[np.float16] | None = None
) -> NDArray[np.float32]:
    """Describe every mask by colour, texture, place and shape, and by what a foundation model sees in it.

    Colours are CIELAB; places and lengths are fractions of the image's sides; the area is the natural logarithm of
    the share of the image; fill is the share of its bounding box that the mask covers.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: K masks of that image.
        dense: (D, h, w) float16 features whose grid covers the image; None where there is no such model.

    Returns:
        (K, len(FEATURE_NAMES)) float32, with `EMBEDDED` more columns if there are dense features; zeros for a mask
        without pixels.

    Raises:
        ValueError: if image and masks differ in size.
    """
    if image.shape[:2] != masks.size:
        raise ValueError(f"the image is {image.shape[:2]}, its masks are {masks.size} (height, width)")
    areas = np.bincount(masks.mask_ids.ravel(), minlength=len(masks) + 1)
    columns = [*_colours(image, masks.mask_ids, areas), *_place_and_shape(masks.mask_ids, areas)]
    features = np.stack(columns, axis=1)
    features[areas == 0] = 0.0
    looks = features[1:].astype(np.float32)
    if dense is None:
        return looks
    pooled = pool_features(dense, masks)
    length = np.linalg.norm(pooled, axis=1, keepdims=True)
    return np.hstack([looks, pooled / np.maximum(length, 1e-6) @ _projection(len(dense))])


def pool_features(dense: NDArray[np.float16], masks: MaskSet) -> NDArray[np.float32]:
    """The mean feature of each mask's pixels; a pixel has the feature of the cell that it lies in.

    Args:
        dense: (D, h, w) float16, a grid that covers the image.
        masks: K masks.

    Returns:
        (K, D) float32; zeros for a mask without pixels.
    """
    (height, width), (rows, columns) = masks.size, dense.shape[1:]
    column = np.arange(width) * columns // width
    shape = (len(masks), rows * columns)
    shares = sparse.csr_matrix(shape, dtype=np.float32)
    for strip in _strips(masks.size):
        row = np.arange(strip.start, strip.stop) * rows // height
        cells = (row[:, None] * columns + column[None, :]).ravel()
        ids = masks.mask_ids[strip].ravel()
        inside = ids > 0
        ones = np.ones(int(inside.sum()), np.float32)
        shares += sparse.coo_matrix((ones, (ids[inside] - 1, cells[inside])), shape).tocsr()
    sums = shares @ dense.reshape(len(dense), -1).T.astype(np.float32)
    pooled: NDArray[np.float32] = sums / np.maximum(masks.areas(), 1)[:, None].astype(np.float32)
    return pooled


@cache
def _projection(dimensions: int) -> NDArray[np.float32]:
    """(D, EMBEDDED), the same for all images and machines."""
    noise = np.random.default_rng(0).standard_normal((dimensions, EMBEDDED))
    return noise.astype(np.float32)


def _colours(
    image: NDArray[np.uint8], mask_ids: NDArray[np.uint16], areas: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Mean and standard deviation of lightness, a, b and gradient, four pairs of columns."""
    sums = np.zeros((8, len(areas)))
    for rows in _strips(mask_ids.shape):
        low, high = max(rows.start - 1, 0), min(rows.stop + 1, len(image))  # the gradient looks one row further
        lab = color.rgb2lab(image[low:high])
        inner = slice(rows.start - low, rows.stop - low)
        ids = mask_ids[rows].ravel()
        for place, plane in enumerate([lab[..., 0], lab[..., 1], lab[..., 2], filters.sobel(lab[..., 0])]):
            flat = plane[inner].ravel()
            sums[2 * place] += np.bincount(ids, weights=flat, minlength=len(areas))
            sums[2 * place + 1] += np.bincount(ids, weights=flat * flat, minlength=len(areas))
    means = sums / np.maximum(areas, 1)
    return [
        column
        for mean, square in zip(means[::2], means[1::2], strict=True)
        for column in (mean, np.sqrt(np.maximum(square - mean**2, 0.0)))
    ]


def _strips(size: tuple[int, ...]) -> Iterator[slice]:
    """Rows of an image, as many at a time as lie in memory easily."""
    step = max(_STRIP // size[1], 1)
    for start in range(0, size[0], step):
        yield slice(start, min(start + step, size[0]))


def _place_and_shape(mask_ids: NDArray[np.uint16], areas: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    height, width = mask_ids.shape
    count = len(areas)
    safe = np.maximum(areas, 1)
    sum_x, sum_y = np.zeros(count), np.zeros(count)
    low_x, high_x = np.full(count, width), np.full(count, -1)
    low_y, high_y = np.full(count, height), np.full(count, -1)
    for rows in _strips(mask_ids.shape):
        ids = mask_ids[rows].ravel()
        ys, xs = np.divmod(np.arange(ids.size), width)
        ys += rows.start
        sum_x += np.bincount(ids, weights=xs, minlength=count)
        sum_y += np.bincount(ids, weights=ys, minlength=count)
        np.minimum.at(low_x, ids, xs)
        np.maximum.at(high_x, ids, xs)
        np.minimum.at(low_y, ids, ys)
        np.maximum.at(high_y, ids, ys)
    box_width = np.maximum(high_x - low_x + 1, 1)
    box_height = np.maximum(high_y - low_y + 1, 1)
    return [
        sum_x / safe / width,
        sum_y / safe / height,
        box_width / width,
        box_height / height,
        np.log(safe / mask_ids.size),
        areas / (box_width * box_height),
        low_y / height,
        (high_y + 1) / height,
    ]
