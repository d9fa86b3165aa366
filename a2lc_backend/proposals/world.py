"""Masks and first labels of a world folder: what a foundation model said, read from disk."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from a2lc_backend.masks import IGNORE, MAX_MASKS, MaskSet, keep_masks
from a2lc_backend.proposals import Picture, ProposalError

UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""Label Studio puts this before the name of an uploaded file."""

_ID_MODES = ("L", "P", "I;16", "I;16B", "I")


class WorldMasks:
    """Proposes the masks of `pool/masks/NAME.png` with the labels of `pool/pseudo_labels.json`.

    The labels are ids of the classes in the folder's `classes.json`; the project may list the same classes in another
    order.

    Args:
        folder: the world folder.

    Raises:
        ProposalError: if `pool/pseudo_labels.json` or `classes.json` is missing or not what it should be.
    """

    name = "world"

    def __init__(self, folder: Path) -> None:
        self._masks = folder / "pool" / "masks"
        self._labels_file = folder / "pool" / "pseudo_labels.json"
        self._labels = _read_json(self._labels_file)
        classes = _read_json(folder / "classes.json")
        if not isinstance(classes.get("names"), list):
            raise ProposalError(
                f'{folder / "classes.json"} has no list "names"; write the class names there in id order'
            )
        self._names: list[str] = classes["names"]
        self._ignore = {IGNORE, classes.get("ignore", IGNORE)}

    def propose(self, picture: Picture) -> MaskSet:
        """Read the masks of a picture, found by its name, or by its name without Label Studio's upload prefix.

        Args:
            picture: its size must be that of the masks.

        Returns:
            Masks named `t<task id>m<k>`, k = the id in the file; an id that has a label but no pixel is left out.

        Raises:
            ProposalError: if the folder does not know the picture, knows it at another size, or labels it with a class
                that the project does not have.
        """
        name = self._find(picture.key)
        ids = self._read_ids(name)
        if ids.shape != picture.size:
            raise ProposalError(
                f"{self._masks / name}.png is {ids.shape} but the image of task {picture.task_id} is {picture.size} "
                "(height, width); give the task the image of the world folder"
            )
        labels = self._first_labels(name, picture.classes)
        if int(ids.max(initial=0)) > len(labels):
            raise ProposalError(
                f"{self._masks / name}.png has a mask {ids.max()} but {self._labels_file} has {len(labels)} labels for "
                "it; write one label a mask"
            )
        present = np.bincount(ids.ravel(), minlength=len(labels) + 1)[1:] > 0
        return MaskSet(
            mask_ids=keep_masks(ids, present),
            region_ids=tuple(f"t{picture.task_id}m{index + 1}" for index in np.flatnonzero(present)),
            first_labels=labels[present],
            rings={},
        )

    def _find(self, key: str) -> str:
        for name in (key, UPLOAD_PREFIX.sub("", key)):
            if name in self._labels:
                return name
        raise ProposalError(
            f"{self._labels_file} has no image {key!r}; import the images of its pool under their own names, "
            "or choose other proposals"
        )

    def _read_ids(self, name: str) -> NDArray[np.uint16]:
        path = self._masks / f"{name}.png"
        try:
            with Image.open(path) as file:
                mode, ids = file.mode, np.array(file)
        except (OSError, SyntaxError) as error:
            raise ProposalError(f"{path} cannot be read ({error}); restore it from the world's source") from error
        if mode not in _ID_MODES or ids.min(initial=0) < 0 or ids.max(initial=0) > MAX_MASKS:
            raise ProposalError(f"{path} is no PNG of mask ids (mode {mode}); save the ids as 8 or 16 bit grey scale")
        return ids.astype(np.uint16)

    def _first_labels(self, name: str, classes: tuple[str, ...]) -> NDArray[np.int64]:
        """First labels of an image as ids of the project's classes, (K,)."""
        place = {label: classes.index(own) for label, own in enumerate(self._names) if own in classes}
        place |= dict.fromkeys(self._ignore, IGNORE)
        labels = self._labels[name]
        strange = [label for label in labels if label not in place]
        if strange:
            known = 0 <= strange[0] < len(self._names)
            raise ProposalError(
                f"{self._labels_file} gives a mask of {name} the label {strange[0]}"
                + (f" ({self._names[strange[0]]}), which is no class of the project; " if known else ", no class; ")
                + "give the label config the names of the world's classes.json"
            )
        return np.array([place[label] for label in labels], np.int64)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or "unreadable"
        raise ProposalError(f"{path}: {reason}; set A2LC_WORLD to the path of a world folder") from error
    except ValueError as error:
        raise ProposalError(f"{path} is not valid JSON ({error}); rewrite it") from error
    if not isinstance(content, dict):
        raise ProposalError(f"{path} must hold a JSON object; rewrite it as docs/data-sets.md says")
    return content
