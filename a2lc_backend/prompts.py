"""What a person points at with Label Studio's smart tools, as prompts for a model of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from a2lc_backend.foundation import Prompts
from a2lc_backend.images import ImageError, decode_mask_rle

_STROKE_POINTS = 8
"""Points that stand for a stroke of the brush beside the stroke itself."""

_MOST_PROMPTS = 100

_LABEL_KEYS = ("keypointlabels", "rectanglelabels", "brushlabels", "labels")


class PromptError(ValueError):
    """What a smart tool sent cannot be used; the message says why."""


def parse_prompts(items: Sequence[Any], size: tuple[int, int]) -> tuple[Prompts, str | None]:
    """Read what smart tools sent.

    A keypoint is a point, a rectangle the box (of several the last one), a stroke of the brush a rough mask with some
    points on it; what is not positive is a point where the mask must not be.

    Args:
        items: `context.result` of the request.
        size: height and width of the image in pixels.

    Returns:
        The prompts in pixels, and the label that was armed; None if there was none.

    Raises:
        PromptError: for items that are no such regions or measured on another image size, for too many of them, and if
            nothing is positive.
    """
    if len(items) > _MOST_PROMPTS:
        raise PromptError(f"there are {len(items)} prompts, {_MOST_PROMPTS} are the most")
    points: list[tuple[float, float]] = []
    positive: list[bool] = []
    box: NDArray[np.float64] | None = None
    mask: NDArray[np.bool_] | None = None
    label: str | None = None
    for item in items:
        kind, value, wanted = _read(item, size)
        label = _label(value) or label
        if kind.startswith("keypoint"):
            points.append(_pixel(value, size))
            positive.append(wanted)
        elif kind.startswith("rectangle"):
            if wanted:
                box = _corners(value, size)
            else:
                middle = {"x": _middle(value, "x", "width"), "y": _middle(value, "y", "height")}
                points.append(_pixel(middle, size))
                positive.append(False)
        elif kind.startswith("brush"):
            stroke = _stroke(value, size)
            found = _on_stroke(stroke)
            points += found
            positive += [wanted] * len(found)
            if wanted:
                mask = stroke if mask is None else mask | stroke
        else:
            raise PromptError(f"a {kind} is no prompt; use smart keypoints, rectangles or brushes")
    if box is None and mask is None and not any(positive):
        raise PromptError("nothing says where the mask is; point at it before pointing at what it is not")
    return Prompts(np.array(points, np.float64).reshape(-1, 2), np.array(positive, np.bool_), box, mask), label


def _read(item: Any, size: tuple[int, int]) -> tuple[str, Mapping[str, Any], bool]:
    if not isinstance(item, Mapping) or not isinstance(item.get("value"), Mapping):
        raise PromptError("a prompt has no value")
    if (item.get("original_height"), item.get("original_width")) != size:
        raise PromptError(
            f"the prompt was made on {item.get('original_width')} x {item.get('original_height')} pixels, the image "
            f"has {size[1]} x {size[0]}; load the page anew"
        )
    if (item.get("image_rotation") or 0) != 0:
        raise PromptError("the image is turned; turn it back in Label Studio")
    # Label Studio writes is_positive into the item or into its value, as the tool likes.
    wanted = item.get("is_positive", item["value"].get("is_positive", True))
    return str(item.get("type", "")), item["value"], wanted is not False


def _label(value: Mapping[str, Any]) -> str | None:
    for key in _LABEL_KEYS:
        names = value.get(key)
        if isinstance(names, list) and names and isinstance(names[0], str):
            return names[0]
    return None


def _number(value: Mapping[str, Any], key: str) -> float:
    number = value.get(key)
    if not isinstance(number, int | float) or isinstance(number, bool) or not -1000 < number < 1000:
        raise PromptError(f"its {key} is {str(number)[:40]}, not a percentage")
    return float(number)


def _pixel(value: Mapping[str, Any], size: tuple[int, int]) -> tuple[float, float]:
    """Percent of the image to pixels whose centres are whole numbers."""
    x, y = _number(value, "x") / 100 * size[1] - 0.5, _number(value, "y") / 100 * size[0] - 0.5
    return min(max(x, 0.0), size[1] - 1.0), min(max(y, 0.0), size[0] - 1.0)


def _middle(value: Mapping[str, Any], start: str, length: str) -> float:
    return _number(value, start) + _number(value, length) / 2


def _corners(value: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.float64]:
    left, top = _number(value, "x"), _number(value, "y")
    right, bottom = left + _number(value, "width"), top + _number(value, "height")
    if (_number(value, "rotation") if "rotation" in value else 0.0) != 0:
        raise PromptError("the rectangle is turned; draw it upright")
    ends = [_pixel({"x": x, "y": y}, size) for x, y in ((left, top), (right, bottom))]
    return np.array([*np.min(ends, axis=0), *np.max(ends, axis=0)])


def _stroke(value: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        stroke = decode_mask_rle(value.get("rle"), size)
    except ImageError as error:
        raise PromptError(f"the stroke of the brush cannot be read: {error}") from error
    if not stroke.any():
        raise PromptError("the stroke of the brush is empty")
    return stroke


def _on_stroke(stroke: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Points deep inside a stroke, spread over it: each the deepest that is not near an earlier one."""
    depth = ndimage.distance_transform_edt(stroke)
    rows, columns = np.nonzero(stroke)
    order = np.argsort(-depth[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    apart = max(np.sqrt(len(rows) / _STROKE_POINTS), 1.0)
    found: list[tuple[float, float]] = []
    free = np.ones(len(rows), np.bool_)
    while free.any() and len(found) < _STROKE_POINTS:
        place = int(free.argmax())
        found.append((float(columns[place]), float(rows[place])))
        free &= (rows - rows[place]) ** 2 + (columns - columns[place]) ** 2 > apart**2
    return found
