"""The files that data sets are made of, read and checked: images, PNGs of ids, lists of names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Item = TypeVar("Item")

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LABEL_MODES = ("L", "P")
"""Pillow's names of 8 bit grey scale and palette, which the truth is saved as."""


class DataSetError(ValueError):
    """A data set that cannot be used; the message says where it is wrong and what would mend it."""


def look_up(items: Mapping[str, Item], name: str, kind: str, root: Path) -> Item:
    """What stands under the name of an image.

    Raises:
        DataSetError: for a name that is not there.
    """
    if name not in items:
        raise DataSetError(f"{root} has no {kind} {name!r} among the {len(items)} loaded; take a name from its list")
    return items[name]


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image, (H, W, 3) uint8 RGB.

    Raises:
        DataSetError: for a file that cannot be read.
    """
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"), np.uint8)
    except (OSError, SyntaxError) as error:
        raise DataSetError(f"{path} cannot be read as an image ({error}); save it again as JPEG or PNG") from error


def read_ids(path: Path, image_path: Path, modes: tuple[str, ...] = LABEL_MODES) -> NDArray[np.int64]:
    """The ids in a PNG, (H, W) int64.

    Args:
        path: of the PNG.
        image_path: the image that the ids lie on.
        modes: Pillow modes that the PNG may have.

    Raises:
        DataSetError: for a file that cannot be read, has another mode, or has another size than its image.
    """
    try:
        with Image.open(image_path) as image:
            size = image.size
    except (OSError, SyntaxError) as error:
        raise DataSetError(
            f"{image_path} cannot be read as an image ({error}); save it again as JPEG or PNG"
        ) from error
    try:
        with Image.open(path) as file:
            if file.mode not in modes:
                raise DataSetError(f"{path} is a {file.mode} image; save the ids as palette or grey-scale PNG")
            ids = np.array(file).astype(np.int64)
    except (OSError, SyntaxError) as error:
        raise DataSetError(f"{path} cannot be read as an image ({error}); save it again as PNG") from error
    if ids.shape != (size[1], size[0]):
        raise DataSetError(
            f"{path} is {ids.shape[1]}×{ids.shape[0]} pixels but {image_path.name} is {size[0]}×{size[1]}; "
            "make both the same size (nearest neighbour for ids)"
        )
    return ids


def read_list(path: Path) -> tuple[str, ...]:
    """The file names in a list of images, without folders and suffix.

    A line holds a name or a path, and may go on with the path of the truth after a space; empty lines say nothing.

    Raises:
        DataSetError: for a list that cannot be read or names nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataSetError(f"{path} cannot be read ({error}); write one image name a line") from error
    names = dict.fromkeys(PurePosixPath(line.split()[0].replace("\\", "/")).stem for line in lines if line.strip())
    if not names:
        raise DataSetError(f"{path} names no image; write one image name a line")
    return tuple(names)


def hash_file(path: Path) -> str:
    """SHA-256 of what is in a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
