"""Cityscapes as its archives unpack: `leftImg8bit/SPLIT/CITY/` and `gtFine/SPLIT/CITY/`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from a2lc_backend.bench.files import DataSetError, read_list
from a2lc_backend.bench.labelled import LabelledImage, LabelledImages
from a2lc_backend.label_configs import CITYSCAPES_IDS
from a2lc_backend.masks import IGNORE

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""The 19 classes that are evaluated, in the order of their train ids."""

BUDGET = 10_000
"""Masks a round in the A²LC paper."""

_IMAGE = "_leftImg8bit"


def load_cityscapes(root: Path, split: str = "train") -> LabelledImages:
    """Open a Cityscapes folder.

    A file `SPLIT.txt` in it, one image path or name a line, restricts a split. Of the truth `labelTrainIds` files are
    taken where they have been made, else `labelIds`.

    Args:
        root: the folder of `leftImg8bit` and `gtFine`.
        split: whose labels are corrected; the images of `val` measure the model, where there are any.

    Raises:
        DataSetError: for a folder or file that is missing, or a list that names what is not there.
    """
    val = _read_split(root, "val") if (root / "leftImg8bit" / "val").is_dir() else {}
    return LabelledImages(root, CLASSES, BUDGET, _read_split(root, split), val)


def _read_split(root: Path, split: str) -> dict[str, LabelledImage]:
    folder = root / "leftImg8bit" / split
    if not folder.is_dir():
        raise DataSetError(f"{folder} is missing; unpack leftImg8bit_trainvaltest.zip into {root}")
    images = {path.stem.removesuffix(_IMAGE): path for path in sorted(folder.glob(f"*/*{_IMAGE}.png"))}
    if not images:
        raise DataSetError(f"{folder} holds no CITY/*{_IMAGE}.png; unpack leftImg8bit_trainvaltest.zip into {root}")
    names = sorted(images)
    chosen = root / f"{split}.txt"
    if chosen.is_file():
        names = sorted({name.removesuffix(_IMAGE) for name in read_list(chosen)})
        for name in names:
            if name not in images:
                raise DataSetError(f"{chosen} names {name!r}, which is not in {folder}; add it or take the line out")
    return {name: _with_truth(root, split, name, images[name]) for name in names}


def _with_truth(root: Path, split: str, name: str, image: Path) -> LabelledImage:
    stem = root / "gtFine" / split / image.parent.name / f"{name}_gtFine"
    for kind, table in (("labelTrainIds", _TRAIN_ID_TABLE), ("labelIds", _LABEL_ID_TABLE)):
        path = stem.with_name(f"{stem.name}_{kind}.png")
        if path.is_file():
            return LabelledImage(image, path, table)
    raise DataSetError(
        f"{stem}_labelIds.png is missing; unpack gtFine_trainvaltest.zip into {root}, or list the images to use in "
        f"{split}.txt there"
    )


# Ids that are no class in evaluation, such as lane lines or a licence plate (−1, which 8 bits hold as 255), are none.
_TRAIN_ID_TABLE = np.full(256, IGNORE, np.int64)
_TRAIN_ID_TABLE[: len(CLASSES)] = np.arange(len(CLASSES))
_LABEL_ID_TABLE = np.full(256, IGNORE, np.int64)
_LABEL_ID_TABLE[list(CITYSCAPES_IDS)] = np.arange(len(CLASSES))
