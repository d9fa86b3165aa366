"""What a mask looks like, in numbers: the corrector's view of a mask besides its soft label."""

from __future__ import annotations

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


EMBEDDED = 48
"""Columns that stand for a foundation model's view of a mask. A fixed random projection keeps the distances of 256 to
1,024 dimensions well enough, and needs to know no other image."""


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
    ids = masks.mask_ids.ravel()
    rows = len(masks) + 1
    areas = np.bincount(ids, minlength=rows)
    safe = np.maximum(areas, 1)
    lab = color.rgb2lab(image)
    planes = [lab[..., 0], lab[..., 1], lab[..., 2], filters.sobel(lab[..., 0])]
    columns: list[NDArray[np.float64]] = []
    for plane in planes:
        flat = plane.ravel()
        mean = np.bincount(ids, weights=flat, minlength=rows) / safe
        square = np.bincount(ids, weights=flat * flat, minlength=rows) / safe
        columns += [mean, np.sqrt(np.maximum(square - mean**2, 0.0))]
    columns += _place_and_shape(masks.mask_ids, areas)
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
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    cells = (row[:, None] * columns + column[None, :]).ravel()
    ids = masks.mask_ids.ravel()
    inside = ids > 0
    shape = (len(masks), rows * columns)
    shares = sparse.coo_matrix((np.ones(int(inside.sum()), np.float32), (ids[inside] - 1, cells[inside])), shape)
    sums = shares.tocsr() @ dense.reshape(len(dense), -1).T.astype(np.float32)
    pooled: NDArray[np.float32] = sums / np.maximum(masks.areas(), 1)[:, None].astype(np.float32)
    return pooled


@cache
def _projection(dimensions: int) -> NDArray[np.float32]:
    """(D, EMBEDDED), the same for all images and machines."""
    noise = np.random.default_rng(0).standard_normal((dimensions, EMBEDDED))
    return noise.astype(np.float32)


def _place_and_shape(mask_ids: NDArray[np.uint16], areas: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    height, width = mask_ids.shape
    rows = len(areas)
    safe = np.maximum(areas, 1)
    ys, xs = np.divmod(np.arange(mask_ids.size), width)
    ids = mask_ids.ravel()
    low_x, high_x = np.full(rows, width), np.full(rows, -1)
    low_y, high_y = np.full(rows, height), np.full(rows, -1)
    np.minimum.at(low_x, ids, xs)
    np.maximum.at(high_x, ids, xs)
    np.minimum.at(low_y, ids, ys)
    np.maximum.at(high_y, ids, ys)
    box_width = np.maximum(high_x - low_x + 1, 1)
    box_height = np.maximum(high_y - low_y + 1, 1)
    return [
        np.bincount(ids, weights=xs, minlength=rows) / safe / width,
        np.bincount(ids, weights=ys, minlength=rows) / safe / height,
        box_width / width,
        box_height / height,
        np.log(safe / mask_ids.size),
        areas / (box_width * box_height),
        low_y / height,
        (high_y + 1) / height,
    ]
