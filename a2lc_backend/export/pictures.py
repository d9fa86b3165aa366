"""Images and label maps as the files of an export."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from a2lc_backend.export.folder import ExportError
from a2lc_backend.export.labels import MOST_PIXELS, ImageLabels
from a2lc_backend.images import ImageError, decode_image, is_plain
from a2lc_backend.label_configs import PRESETS, own_colours
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.platform import TaskError

_VOID = (224, 224, 192)
"""Colour of pixels without label, as PASCAL VOC shows them."""

Colour = tuple[int, int, int]


def colours_of(classes: Sequence[str]) -> list[Colour]:
    """A colour for each class: the well-known one where all are of a well-known data set."""
    known = (dict(preset) for preset in PRESETS.values())
    found = next((preset for preset in known if preset.keys() >= set(classes)), dict(own_colours(classes)))
    return [_rgb(found[name]) for name in classes]


def _rgb(colour: str) -> Colour:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def class_list(classes: Sequence[str], ids: Sequence[int]) -> list[dict[str, object]]:
    """Id, name and colour of each class, as JSON values."""
    return [
        {"id": number, "name": name, "color": "#{:02x}{:02x}{:02x}".format(*colour)}
        for number, name, colour in zip(ids, classes, colours_of(classes), strict=True)
    ]


def palette_of(classes: Sequence[str], ids: Sequence[int]) -> list[int]:
    """768 numbers: red, green and blue of each id of a label map."""
    palette = np.zeros((256, 3), np.uint8)
    palette[IGNORE] = _VOID
    for number, colour in zip(ids, colours_of(classes), strict=True):
        palette[number] = colour
    return [int(value) for value in palette.ravel()]


def png(array: NDArray[np.uint8] | NDArray[np.uint16], palette: Sequence[int] | None = None) -> bytes:
    """A PNG of ids (H, W), or of colours (H, W, 3); the same array makes the same bytes."""
    picture = Image.fromarray(array)
    if palette is not None:
        picture.putpalette(list(palette))
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def image_file(image: ImageLabels, *kinds: str) -> tuple[bytes, str]:
    """The file of an image and its suffix, such that every reader sees the pixels that the masks lie on.

    The file as it is where it will do; else it is saved anew, turned as people see it.

    Args:
        image: whose.
        kinds: `JPEG` or `PNG`, what the file may be; what is saved anew is the last of them.

    Raises:
        ExportError: for an image that cannot be had, is none or has another size than its masks.
        PlatformError: if Label Studio cannot be used.
    """
    try:
        data = image.file()
        pixels = decode_image(data, MOST_PIXELS)
    except TaskError as error:
        raise ExportError(f"task {image.task_id}: {error}; or leave the images out with --no-images") from error
    except ImageError as error:
        raise ExportError(f"task {image.task_id}, image {image.address}: {error}") from error
    if pixels.shape[:2] != image.size:
        (height, width), (had, wide) = image.size, pixels.shape[:2]
        raise ExportError(
            f"task {image.task_id}: image {image.address} is {wide} x {had} now, its masks are {width} x {height}; "
            "put the first image back, or run a round"
        )
    for kind in kinds:
        if is_plain(data, kind):
            return data, _SUFFIXES[kind]
    if kinds[-1] == "PNG":
        return png(pixels), ".png"
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue(), ".jpg"


_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png"}
