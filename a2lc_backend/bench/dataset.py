"""What a benchmark needs of a data set, and which kind of data set a folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.bench.cityscapes import load_cityscapes
from a2lc_backend.bench.files import DataSetError
from a2lc_backend.bench.voc import find_voc, load_voc
from a2lc_backend.bench.world import load_world

LAYOUTS = (
    "a world folder (classes.json, pool/), Cityscapes (leftImg8bit/, gtFine/) or PASCAL VOC 2012 (JPEGImages/, "
    "SegmentationClass/, ImageSets/Segmentation/)"
)


class LabelledImages(Protocol):
    """Images with their truth, whose labels are corrected."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in id order, C of them."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The pool images, unique, in a stable order; at least one."""
        ...

    def image(self, name: str) -> NDArray[np.uint8]:
        """A pool image, (H, W, 3) uint8 RGB; raises DataSetError."""
        ...

    def truth(self, name: str) -> NDArray[np.uint8]:
        """Its truth, (H, W) uint8 class ids, `IGNORE` where it has none; raises DataSetError."""
        ...


class DataSet(LabelledImages, Protocol):
    """A pool whose labels are corrected, and validation images for the model's mIoU."""

    @property
    def val_names(self) -> tuple[str, ...]:
        """The validation images, as `names`; may be empty."""
        ...

    @property
    def budget(self) -> int:
        """Masks a round where nobody says otherwise."""
        ...

    @property
    def proposals(self) -> str:
        """Name of the source of masks and first labels where nobody says otherwise."""
        ...

    @property
    def world_folder(self) -> Path | None:
        """What the proposals `world` read, None where there are none."""
        ...

    @property
    def backbone_path(self) -> Path | None:
        """Frozen features that come with the data set, None where there are none."""
        ...

    def val_image(self, name: str) -> NDArray[np.uint8]:
        """A validation image, as `image`."""
        ...

    def val_truth(self, name: str) -> NDArray[np.uint8]:
        """Its truth, as `truth`."""
        ...

    def digest(self) -> str:
        """Name of what is in the files, so that runs on other data are told apart: truth whole, images by size."""
        ...


def open_data(root: Path, split: str | None = None) -> DataSet:
    """Open a folder as the kind of data set that it is.

    Args:
        root: of a world, of Cityscapes, or of VOC 2012 (`VOCdevkit`, `VOC2012` or the folder above).
        split: whose labels are corrected, see `load_cityscapes` and `load_voc`; `train` if None.

    Raises:
        DataSetError: for a folder of none of these kinds, or one that cannot be used.
    """
    if not root.is_dir():
        raise DataSetError(f"{root} is not a folder; give {LAYOUTS}")
    if (root / "classes.json").is_file() or (root / "pool").is_dir():
        if split is not None:
            raise DataSetError(f"{root} is a world folder, which has one pool and no splits; leave --split out")
        return load_world(root)
    if (root / "leftImg8bit").is_dir():
        return load_cityscapes(root, split or "train")
    voc = find_voc(root)
    if voc is not None:
        return load_voc(voc, split or "train")
    raise DataSetError(f"{root} is no data set that is known here; give {LAYOUTS}")
