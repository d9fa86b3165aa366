"""What a mask looks like, in numbers: the corrector's view of a mask besides its soft label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
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


def mask_features(image: NDArray[np.uint8], masks: MaskSet) -> NDArray[np.float32]:
    """Describe every mask by colour, texture, place and shape.

    Colours are CIELAB; places and lengths are fractions of the image's sides; the area is the natural logarithm of
    the share of the image; fill is the share of its bounding box that the mask covers.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: K masks of that image.

    Returns:
        (K, len(FEATURE_NAMES)) float32; zeros for a mask without pixels.

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
    return features[1:].astype(np.float32)


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
