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

_STROKES = (((20, 20, 20), 4), ((255, 255, 255), 2))
"""Colour and width, the lower first: white on black is seen on any ground."""


def mask_picture(image: NDArray[np.uint8], mask: NDArray[np.bool_], side: int = 320) -> bytes:
    """A JPEG of a mask in its surroundings, outlined in white on black, so that it is seen on any ground.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool with at least one pixel.
        side: longer side of the picture in pixels, at most; small masks are enlarged up to four times.

    Raises:
        ValueError: for a mask without pixels, or of another size.
    """
    _see_sizes(image, mask)
    rows, columns = _window(mask)
    return _jpeg(_outlined(image[rows, columns], mask[rows, columns], side, 4.0))


def image_picture(image: NDArray[np.uint8], mask: NDArray[np.bool_], side: int = 320) -> bytes:
    """A JPEG of a whole image: the mask outlined, and a frame around what `mask_picture` shows.

    For the arguments and errors see there. A small mask is found by its frame.
    """
    _see_sizes(image, mask)
    shown = _outlined(image, mask, side, 1.0)
    scale = shown.shape[0] / image.shape[0]
    (top, bottom), (left, right) = ((round(part.start * scale), round(part.stop * scale)) for part in _window(mask))
    for colour, width in _STROKES:
        cv2.rectangle(shown, (left, top), (right - 1, bottom - 1), colour, width)
    return _jpeg(shown)


def _see_sizes(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    if mask.shape != image.shape[:2] or not mask.any():
        raise ValueError(f"the mask is {mask.shape} with {int(mask.sum())} pixels, the image {image.shape[:2]}")


def _outlined(part: NDArray[np.uint8], mask: NDArray[np.bool_], side: int, largest: float) -> NDArray[np.uint8]:
    """A part of an image with the outline of a mask, scaled to a longer side but enlarged only so far."""
    scale = min(side / max(part.shape[:2]), largest)
    size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
    shown = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    # By area, so that a mask smaller than a pixel of the picture still leaves a mark.
    where = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    filled = (where >= min(0.5, float(where.max()))).astype(np.uint8)
    outlines, _ = cv2.findContours(filled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for colour, width in _STROKES:
        cv2.drawContours(shown, outlines, -1, colour, width)
    return np.asarray(shown, np.uint8)


def _jpeg(shown: NDArray[np.uint8]) -> bytes:
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
