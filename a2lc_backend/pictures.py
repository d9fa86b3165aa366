"""Pictures of single masks: what stands around them, and where they end."""

from __future__ import annotations

from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MARGIN = 0.4
"""Of the mask's longer side, shown on each side of it: a mask is judged by what it lies in."""

_LEAST = 64
"""Pixels of the image that are shown at least, each way."""

_INSIDE, _AROUND = (255, 255, 255), (20, 20, 20)


def mask_picture(image: NDArray[np.uint8], mask: NDArray[np.bool_], side: int = 320) -> bytes:
    """A JPEG of a mask in its surroundings, outlined in white on black, so that it is seen on any ground.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool with at least one pixel.
        side: longer side of the picture in pixels, at most; small masks are enlarged up to four times.

    Raises:
        ValueError: for a mask without pixels, or of another size.
    """
    if mask.shape != image.shape[:2] or not mask.any():
        raise ValueError(f"the mask is {mask.shape} with {int(mask.sum())} pixels, the image {image.shape[:2]}")
    rows, columns = _window(mask)
    part = image[rows, columns]
    scale = min(side / max(part.shape[:2]), 4.0)
    size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
    shown = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    where = cv2.resize(mask[rows, columns].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(where, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for colour, width in ((_AROUND, 4), (_INSIDE, 2)):
        cv2.drawContours(shown, outlines, -1, colour, width)
    buffer = BytesIO()
    Image.fromarray(shown).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns to show, within the image."""
    ends = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
    margin = _MARGIN * max(int(found[-1] - found[0]) + 1 for found in ends)
    parts = []
    for found, length in zip(ends, mask.shape, strict=True):
        middle, reach = (found[0] + found[-1] + 1) / 2, (found[-1] - found[0] + 1) / 2 + margin
        reach = max(reach, _LEAST / 2)
        parts.append(slice(max(round(middle - reach), 0), min(round(middle + reach), length)))
    return parts[0], parts[1]
