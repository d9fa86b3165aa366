"""PASCAL VOC 2012 as its archive unpacks: `JPEGImages/`, `SegmentationClass/`, `ImageSets/Segmentation/`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from a2lc_backend.bench.files import DataSetError, read_list
from a2lc_backend.bench.labelled import UNKNOWN, LabelledImage, LabelledImages
from a2lc_backend.masks import IGNORE

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 21 classes in the order of their ids."""

BUDGET = 1_000
"""Masks a round in the A²LC paper."""

_INSIDE = ("", "VOC2012", "VOCdevkit/VOC2012")


def find_voc(root: Path) -> Path | None:
    """The folder of `JPEGImages` in a VOC2012 folder, a VOCdevkit or the folder of one; None if there is none."""
    return next((root / inside for inside in _INSIDE if (root / inside / "JPEGImages").is_dir()), None)


def load_voc(root: Path, split: str = "train") -> LabelledImages:
    """Open a PASCAL VOC 2012 folder.

    Args:
        root: the folder of `JPEGImages`.
        split: the list in `ImageSets/Segmentation` whose labels are corrected; the truth of one with `aug` in its name
            is read from `SegmentationClassAug`. The images of `val` measure the model, where that list is there.

    Raises:
        DataSetError: for a list, image or truth that is missing.
    """
    val = _read_split(root, "val") if _list(root, "val").is_file() else {}
    return LabelledImages(root, CLASSES, BUDGET, _read_split(root, split), val)


def _list(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"


def _read_split(root: Path, split: str) -> dict[str, LabelledImage]:
    truth = root / ("SegmentationClassAug" if "aug" in split else "SegmentationClass")
    found = {}
    for name in sorted(read_list(_list(root, split))):
        item = LabelledImage(root / "JPEGImages" / f"{name}.jpg", truth / f"{name}.png", _TABLE)
        for path in (item.image, item.truth):
            if not path.is_file():
                raise DataSetError(
                    f"{path} is missing, which {_list(root, split)} names; add it or take {name!r} out of the list"
                )
        found[name] = item
    return found


_TABLE = np.full(256, UNKNOWN, np.int64)
_TABLE[: len(CLASSES)] = np.arange(len(CLASSES))
_TABLE[IGNORE] = IGNORE
