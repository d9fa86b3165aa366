"""The folders of Cityscapes: `leftImg8bit/train/CITY/`, `gtFine/train/CITY/`.

Where all classes are of Cityscapes, `labelIds` and `labelTrainIds` hold its own ids; else both hold the project's class
ids. 255 in `labelTrainIds` is no label, in `labelIds` it is 0, "unlabeled", with Cityscapes' classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from a2lc_backend.export.folder import compact, write_json
from a2lc_backend.export.labels import ImageLabels
from a2lc_backend.export.order import Order
from a2lc_backend.export.pictures import class_list, colours_of, image_file, png
from a2lc_backend.label_configs import CITYSCAPES_IDS, PRESETS
from a2lc_backend.masks import IGNORE

_OWN_NAME = re.compile(r"^([A-Za-z]+)_\d{6}_\d{6}$")
_TRAIN_IDS = {name: number for number, (name, _) in enumerate(PRESETS["cityscapes"])}
_LABEL_IDS = dict(zip(_TRAIN_IDS, CITYSCAPES_IDS, strict=True))


def write(images: Iterable[ImageLabels], folder: Path, order: Order) -> None:
    """See `order.Write`."""
    own = _TRAIN_IDS.keys() >= set(order.classes)
    ids = range(len(order.classes))
    train_ids = [_TRAIN_IDS[name] for name in order.classes] if own else ids
    label_ids = [_LABEL_IDS[name] for name in order.classes] if own else ids
    tables = {
        "labelTrainIds": table_of(train_ids, IGNORE),
        "labelIds": table_of(label_ids, 0 if own else IGNORE),
    }
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(order.classes)] = colours_of(order.classes)
    write_json(folder / "classes.json", class_list(order.classes, train_ids))
    with (folder / "regions.jsonl").open("w", encoding="utf-8") as lines:
        for image in images:
            city, stem = _place(image, order.project_id)
            truth = folder / "gtFine" / "train" / city
            truth.mkdir(parents=True, exist_ok=True)
            for kind, table in tables.items():
                (truth / f"{stem}_gtFine_{kind}.png").write_bytes(png(table[image.label_map]))
            (truth / f"{stem}_gtFine_color.png").write_bytes(png(colours[image.label_map]))
            if order.with_images:
                pictures = folder / "leftImg8bit" / "train" / city
                pictures.mkdir(parents=True, exist_ok=True)
                (pictures / f"{stem}_leftImg8bit.png").write_bytes(image_file(image, "PNG")[0])
            lines.write(compact({**image.as_json(), "name": stem}) + "\n")


def table_of(ids: Sequence[int], void: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """What each class id of the project becomes, (256,)."""
    table = np.full(256, void, np.uint8)
    table[: len(ids)] = ids
    return table


def _place(image: ImageLabels, project_id: int) -> tuple[str, str]:
    """City and name of an image: its own where it is called as Cityscapes' are, else the project and the task."""
    own = _OWN_NAME.match(image.name)
    if own:
        return own[1], image.name
    return f"project{project_id}", f"project{project_id}_{image.task_id:06d}_000000"
