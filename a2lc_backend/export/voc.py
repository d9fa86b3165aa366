"""The folders of PASCAL VOC: `JPEGImages/`, `SegmentationClass/`, `ImageSets/Segmentation/train.txt`.

Ids begin with the background, 0, whether the project has such a class or not; 255 is no label. Classes that are all
VOC's own have VOC's ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from a2lc_backend.export.cityscapes import table_of
from a2lc_backend.export.folder import ExportError, compact, write_json
from a2lc_backend.export.labels import ImageLabels
from a2lc_backend.export.order import Order
from a2lc_backend.export.pictures import class_list, image_file, palette_of, png
from a2lc_backend.label_configs import PRESETS
from a2lc_backend.masks import IGNORE

_VOC_IDS = {name: number for number, (name, _) in enumerate(PRESETS["voc"])}


def write(images: Iterable[ImageLabels], folder: Path, order: Order) -> None:
    """See `order.Write`."""
    ids = voc_ids(order.classes)
    table, palette = table_of(ids, IGNORE), palette_of(order.classes, ids)
    write_json(folder / "classes.json", class_list(order.classes, ids))
    for name in ("SegmentationClass", "ImageSets/Segmentation", "JPEGImages")[: 3 if order.with_images else 2]:
        (folder / name).mkdir(parents=True)
    split = folder / "ImageSets" / "Segmentation" / "train.txt"
    with split.open("w", encoding="utf-8") as names, (folder / "regions.jsonl").open("w", encoding="utf-8") as lines:
        for image in images:
            (folder / "SegmentationClass" / f"{image.name}.png").write_bytes(png(table[image.label_map], palette))
            if order.with_images:
                (folder / "JPEGImages" / f"{image.name}.jpg").write_bytes(image_file(image, "JPEG")[0])
            names.write(f"{image.name}\n")
            lines.write(compact(image.as_json()) + "\n")


def voc_ids(classes: tuple[str, ...]) -> list[int]:
    """The id of each class in VOC's files; raises ExportError for more than they have room for."""
    if _VOC_IDS.keys() >= set(classes):
        return [_VOC_IDS[name] for name in classes]
    others = [name for name in classes if name.lower() != "background"]
    if len(others) >= IGNORE:
        raise ExportError(f"VOC has room for {IGNORE - 1} classes beside the background; choose another format")
    return [0 if name.lower() == "background" else 1 + others.index(name) for name in classes]
