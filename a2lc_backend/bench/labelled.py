"""Images with their truth in a file each, as the public segmentation sets have them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.bench.files import DataSetError, look_up, read_ids, read_image
from a2lc_backend.masks import IGNORE

UNKNOWN = -1
"""In a table of ids: no such id belongs into a file."""


@dataclass(frozen=True)
class LabelledImage:
    """Where one image and its truth lie.

    Attributes:
        image: its file.
        truth: a PNG of ids.
        table: (256,) int64, the class of each id in that PNG, `IGNORE` for no class, `UNKNOWN` for an id that must not
            be there.
    """

    image: Path
    truth: Path
    table: NDArray[np.int64] = field(repr=False, compare=False)


@dataclass(frozen=True)
class LabelledImages:
    """A `DataSet` of such images, without masks and first labels; the files are read when asked for.

    Attributes:
        root: its folder.
        classes: names in id order.
        budget: masks a round where nobody says otherwise.
        pool: images whose labels are corrected, by name.
        val: images for the model's mIoU, by name; may be empty.
    """

    root: Path
    classes: tuple[str, ...]
    budget: int
    pool: Mapping[str, LabelledImage] = field(repr=False)
    val: Mapping[str, LabelledImage] = field(repr=False)

    proposals = "superpixels"
    """Where masks come from where nobody says otherwise."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.resolve().name

    @property
    def names(self) -> tuple[str, ...]:
        """The pool images."""
        return tuple(self.pool)

    @property
    def val_names(self) -> tuple[str, ...]:
        """The validation images."""
        return tuple(self.val)

    @property
    def world_folder(self) -> Path | None:
        """It is no world folder."""
        return None

    @property
    def backbone_path(self) -> Path | None:
        """It has no backbone."""
        return None

    def image(self, name: str) -> NDArray[np.uint8]:
        """See `DataSet.image`."""
        return read_image(look_up(self.pool, name, "pool image", self.root).image)

    def truth(self, name: str) -> NDArray[np.uint8]:
        """See `DataSet.truth`."""
        return self._read_truth(look_up(self.pool, name, "pool image", self.root))

    def val_image(self, name: str) -> NDArray[np.uint8]:
        """See `DataSet.val_image`."""
        return read_image(look_up(self.val, name, "validation image", self.root).image)

    def val_truth(self, name: str) -> NDArray[np.uint8]:
        """See `DataSet.val_truth`."""
        return self._read_truth(look_up(self.val, name, "validation image", self.root))

    def digest(self) -> str:
        """See `DataSet.digest`."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for part in (self.pool, self.val):
            for name, item in part.items():
                digest.update(f"{name} {item.image.stat().st_size}".encode())
                digest.update(item.truth.read_bytes())
        return digest.hexdigest()[:16]

    def _read_truth(self, item: LabelledImage) -> NDArray[np.uint8]:
        ids = read_ids(item.truth, item.image)
        truth = item.table[ids]
        if (truth == UNKNOWN).any():
            raise DataSetError(
                f"{item.truth}: holds the id {int(ids[truth == UNKNOWN][0])}; the classes are 0 to "
                f"{len(self.classes) - 1}, and {IGNORE} is none: restore the file from its archive"
            )
        return truth.astype(np.uint8)
