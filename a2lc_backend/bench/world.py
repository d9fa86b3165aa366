"""World folders: images, truth, mask proposals, noisy first labels, read from disk and checked (docs/data-sets.md).

- `pool/images/NAME.jpg` or `.png`: the images
- `pool/labels/NAME.png`: the truth, a palette PNG of class ids
- `pool/masks/NAME.png`: mask ids 1 to K, 0 = none
- `pool/pseudo_labels.json`: the first label of each mask, `{NAME: [label of mask 1, label of mask 2, …]}`
- `classes.json`: `{"names": [class names in id order], "ignore": id}`
- `val/images`, `val/labels`, `backbone.pt2`: optional
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.bench.files import IMAGE_SUFFIXES, DataSetError, look_up, read_ids, read_image
from a2lc_backend.masks import IGNORE, MaskSet

MASK_MODES = ("L", "P", "I;16", "I;16B", "I")


@dataclass(frozen=True)
class World:
    """A world folder whose files are all there; what is inside them is checked when an image is read.

    Attributes:
        root: the folder.
        classes: class names in id order, C of them.
        ignore: the class id that the label files use for "no class"; arrays from here hold `IGNORE` instead.
        names: the pool images, file names without suffix, sorted.
        val_names: the validation images in the same way; empty where the folder has none.
        pseudo_labels: the first label of each mask, by image name, as in the file.
    """

    root: Path
    classes: tuple[str, ...]
    ignore: int
    names: tuple[str, ...]
    val_names: tuple[str, ...] = ()
    pseudo_labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    _images: Mapping[str, Path] = field(default_factory=dict, repr=False, compare=False)
    _val_images: Mapping[str, Path] = field(default_factory=dict, repr=False, compare=False)

    budget = 400
    """Masks a round where nobody says otherwise."""

    proposals = "world"
    """The masks and first labels of the folder itself."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.resolve().name

    @property
    def world_folder(self) -> Path | None:
        """The folder itself."""
        return self.root

    @property
    def backbone_path(self) -> Path | None:
        """The exported vision backbone, or None where the folder has none."""
        path = self.root / "backbone.pt2"
        return path if path.is_file() else None

    def image_path(self, name: str) -> Path:
        """Where the pool image lies.

        Raises:
            DataSetError: for a name that is not in `names`.
        """
        return look_up(self._images, name, "pool image", self.root)

    def image(self, name: str) -> NDArray[np.uint8]:
        """The pool image, (H, W, 3) uint8 RGB.

        Raises:
            DataSetError: for a name that is not in `names`, or a file that cannot be read.
        """
        return read_image(self.image_path(name))

    def truth(self, name: str) -> NDArray[np.uint8]:
        """The truth of a pool image, (H, W) uint8 class ids, `IGNORE` where it has none.

        Raises:
            DataSetError: for a label file that cannot be read, has another size than its image, or holds an id that is
                neither a class nor the ignore id.
        """
        return self._read_truth(self.root / "pool" / "labels" / f"{name}.png", self.image_path(name))

    def mask_set(self, name: str) -> MaskSet:
        """The masks of a pool image with their first labels; region ids are `NAME-001`, `NAME-002`, ….

        Raises:
            DataSetError: for a mask file that cannot be read or has another size than its image, or a mask without a
                first label.
        """
        path = self.root / "pool" / "masks" / f"{name}.png"
        ids = read_ids(path, self.image_path(name), MASK_MODES)
        labels = np.array(self.pseudo_labels[name], np.int64)
        highest = int(ids.max(initial=0))
        if highest > len(labels) or int(ids.min(initial=0)) < 0:
            raise DataSetError(
                f"{path}: mask id {highest} has no label, {len(labels)} labels stand in pool/pseudo_labels.json under "
                f"{name!r}; list one label for each mask id from 1 on"
            )
        return MaskSet(
            mask_ids=ids.astype(np.uint16),
            region_ids=tuple(f"{name}-{number:03d}" for number in range(1, len(labels) + 1)),
            first_labels=np.where(labels == self.ignore, IGNORE, labels),
            rings={},
        )

    def val_image(self, name: str) -> NDArray[np.uint8]:
        """The validation image, (H, W, 3) uint8 RGB.

        Raises:
            DataSetError: for a name that is not in `val_names`, or a file that cannot be read.
        """
        return read_image(look_up(self._val_images, name, "validation image", self.root))

    def val_truth(self, name: str) -> NDArray[np.uint8]:
        """The truth of a validation image, as `truth`."""
        image = look_up(self._val_images, name, "validation image", self.root)
        return self._read_truth(self.root / "val" / "labels" / f"{name}.png", image)

    def digest(self) -> str:
        """Name of what is in the folder: its classes, first labels, masks and truth, and its images by size."""
        digest = hashlib.sha256(json.dumps([self.classes, self.ignore, dict(self.pseudo_labels)]).encode())
        for name in self.names:
            digest.update(f"{name} {self.image_path(name).stat().st_size}".encode())
            for folder in ("masks", "labels"):
                digest.update((self.root / "pool" / folder / f"{name}.png").read_bytes())
        for name in self.val_names:
            digest.update(name.encode())
            digest.update((self.root / "val" / "labels" / f"{name}.png").read_bytes())
        return digest.hexdigest()[:16]

    def _read_truth(self, path: Path, image_path: Path) -> NDArray[np.uint8]:
        ids = read_ids(path, image_path)
        void = ids == self.ignore
        unknown = ~void & (ids >= len(self.classes))
        if unknown.any():
            raise DataSetError(
                f"{path}: holds the class id {int(ids[unknown][0])}; classes.json knows 0 to {len(self.classes) - 1} "
                f"and {self.ignore} to ignore: add the class there or repaint those pixels"
            )
        return np.where(void, IGNORE, ids).astype(np.uint8)


def load_world(root: Path, limit: int | None = None) -> World:
    """Open a world folder and check that its files are complete.

    Args:
        root: the folder.
        limit: use at most this many pool images, evenly spaced over the sorted names, so that a few of them still
            cover a whole drive; None = all.

    Returns:
        The world; images, truth and masks are read when asked for.

    Raises:
        DataSetError: for a folder that is not there or lacks a file, a `classes.json` or `pseudo_labels.json` that does
            not say what it should, or a limit below 1.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataSetError(f"{root} is not a folder; give the path of a world folder (pool/, classes.json)")
    if limit is not None and limit < 1:
        raise DataSetError(f"a limit of {limit} images leaves nothing to do; use 1 or more, or no limit")
    classes, ignore = _read_classes(root / "classes.json")
    images = _list_images(root / "pool" / "images")
    names = sorted(images)
    if limit is not None and limit < len(names):
        names = [names[(2 * i + 1) * len(names) // (2 * limit)] for i in range(limit)]
    _check_files(root / "pool" / "labels", names, "its truth as a palette PNG of class ids")
    _check_files(root / "pool" / "masks", names, "its masks as a PNG of mask ids, 0 = none")
    labels_path = root / "pool" / "pseudo_labels.json"
    pseudo_labels = _check_labels(labels_path, _read_json(labels_path), names, len(classes), ignore)
    val_images = _list_images(root / "val" / "images") if (root / "val" / "images").is_dir() else {}
    _check_files(root / "val" / "labels", sorted(val_images), "its truth as a palette PNG of class ids")
    return World(
        root=root,
        classes=classes,
        ignore=ignore,
        names=tuple(names),
        val_names=tuple(sorted(val_images)),
        pseudo_labels=pseudo_labels,
        _images={name: images[name] for name in names},
        _val_images=val_images,
    )


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise DataSetError(f"{path} is missing; write it as docs/data-sets.md says")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataSetError(f"{path} is not valid JSON ({error}); mend or rewrite it") from error


def _read_classes(path: Path) -> tuple[tuple[str, ...], int]:
    content = _read_json(path)
    names = content.get("names") if isinstance(content, dict) else None
    ignore = content.get("ignore", IGNORE) if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise DataSetError(f'{path}: "names" must be a list of class names, as in {{"names": ["Sky"], "ignore": 255}}')
    if len(set(names)) != len(names) or len(names) > IGNORE:
        raise DataSetError(f"{path}: class names must differ and be at most {IGNORE}; rename or merge classes")
    if not isinstance(ignore, int) or isinstance(ignore, bool) or not len(names) <= ignore <= IGNORE:
        raise DataSetError(f'{path}: "ignore" must be an unused class id; give a number from {len(names)} to {IGNORE}')
    return tuple(names), ignore


def _list_images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataSetError(f"{folder} is missing; put the images there as .jpg or .png")
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.stem in images:
            raise DataSetError(f"{path} and {images[path.stem].name} share a name; rename one of them")
        images[path.stem] = path
    if not images:
        raise DataSetError(f"{folder} holds no image; put the images there as .jpg or .png")
    return images


def _check_files(folder: Path, names: list[str], content: str) -> None:
    for name in names:
        path = folder / f"{name}.png"
        if not path.is_file():
            raise DataSetError(f"{path} is missing; image {name!r} needs {content} (or take the image out)")


def _check_labels(path: Path, content: Any, names: list[str], classes: int, ignore: int) -> dict[str, tuple[int, ...]]:
    if not isinstance(content, dict):
        raise DataSetError(f"{path} must be an object of lists, {{NAME: [label of mask 1, …]}}; rewrite it so")
    checked: dict[str, tuple[int, ...]] = {}
    for name in names:
        labels = content.get(name)
        if not isinstance(labels, list):
            raise DataSetError(f"{path} has no labels for image {name!r}; add a list with one class id a mask")
        for number, label in enumerate(labels, start=1):
            known = isinstance(label, int) and not isinstance(label, bool) and (0 <= label < classes or label == ignore)
            if not known:
                raise DataSetError(
                    f"{path}: mask {number} of {name!r} has the label {label!r}; use a class id from 0 to "
                    f"{classes - 1}, or {ignore} for no label"
                )
        checked[name] = tuple(labels)
    return checked
