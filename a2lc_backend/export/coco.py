"""COCO: every labelled mask an instance (RLE), or a segment of a panoptic PNG.

Masks without label are left out. Category ids are class ids + 1, as COCO's begin with 1. Each annotation and segment
also says `region`, `source`, `round` and `score`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from a2lc_backend.export.folder import compact
from a2lc_backend.export.labels import ImageLabels, RegionLabel
from a2lc_backend.export.order import Order
from a2lc_backend.export.pictures import class_list, image_file, png


def write_instances(images: Iterable[ImageLabels], folder: Path, order: Order) -> None:
    """See `order.Write`: `instances.json`, and `images/` if they are asked for."""
    from pycocotools import mask as coco_mask  # noqa: PLC0415

    number = 0
    with _CocoFile(folder, "instances.json", order) as file:
        for image in images:
            file.add_image(image)
            for region, box in _labelled(image):
                number += 1
                rle = coco_mask.encode(np.asfortranarray(image.mask(region), np.uint8))
                file.add_annotation(
                    {
                        "id": number, "image_id": image.task_id, **_facts(region), "area": region.pixels, "bbox": box,
                        "iscrowd": 0,
                        "segmentation": {"size": list(image.size), "counts": rle["counts"].decode("ascii")},
                    }
                )  # fmt: skip


def write_panoptic(images: Iterable[ImageLabels], folder: Path, order: Order) -> None:
    """See `order.Write`: `panoptic.json`, a PNG an image in `panoptic/`, and `images/` if they are asked for."""
    (folder / "panoptic").mkdir()
    with _CocoFile(folder, "panoptic.json", order) as file:
        for image in images:
            file.add_image(image)
            labelled = list(_labelled(image))
            segments = [
                {"id": region.number, **_facts(region), "area": region.pixels, "bbox": box, "iscrowd": 0}
                for region, box in labelled
            ]
            name = f"{image.name}.png"
            ids = np.where(np.isin(image.mask_ids, [region.number for region, _ in labelled]), image.mask_ids, 0)
            (folder / "panoptic" / name).write_bytes(png(segment_colours(ids)))
            file.add_annotation({"image_id": image.task_id, "file_name": name, "segments_info": segments})


def segment_colours(ids: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Segment ids (H, W) as COCO writes them into colours (H, W, 3): red + 256 green + 256² blue."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


def _labelled(image: ImageLabels) -> Iterator[tuple[RegionLabel, list[int]]]:
    """Regions with a label, and the box of each: left, top, width, height."""
    boxes = ndimage.find_objects(image.mask_ids)
    for region in image.regions:
        if region.label is not None:
            rows, columns = boxes[region.number - 1]
            yield region, [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]


def _facts(region: RegionLabel) -> dict[str, Any]:
    return {
        "category_id": region.class_id + 1, "region": region.id, "source": region.source, "round": region.round,
        "score": region.score,
    }  # fmt: skip


class _CocoFile:
    """A COCO file written as images come: its lists of images and annotations are joined at the end."""

    def __init__(self, folder: Path, name: str, order: Order) -> None:
        self._folder, self._path, self._order = folder, folder / name, order
        self._lists = {kind: folder / f"{kind}.part" for kind in ("images", "annotations")}

    def __enter__(self) -> _CocoFile:
        if self._order.with_images:
            (self._folder / "images").mkdir()
        self._files = {kind: path.open("w", encoding="utf-8") for kind, path in self._lists.items()}
        self._empty = dict.fromkeys(self._lists, True)
        return self

    def add_image(self, image: ImageLabels) -> None:
        file_name = f"{image.name}.jpg"
        if self._order.with_images:
            data, suffix = image_file(image, "JPEG", "PNG")
            file_name = f"{image.name}{suffix}"
            (self._folder / "images" / file_name).write_bytes(data)
        height, width = image.size
        self._add(
            "images",
            {"id": image.task_id, "file_name": file_name, "width": width, "height": height, "coco_url": image.address},
        )

    def add_annotation(self, annotation: dict[str, Any]) -> None:
        self._add("annotations", annotation)

    def _add(self, kind: str, item: dict[str, Any]) -> None:
        self._files[kind].write(("\n" if self._empty[kind] else ",\n") + compact(item))
        self._empty[kind] = False

    def __exit__(self, kind: object, *_: object) -> None:
        for file in self._files.values():
            file.close()
        if kind is not None:
            return
        categories = [
            {"id": one["id"], "name": one["name"], "supercategory": "", "isthing": 1, "color": _rgb(str(one["color"]))}
            for one in class_list(self._order.classes, range(1, len(self._order.classes) + 1))
        ]
        info = {"description": self._order.title, "version": self._order.version}
        with self._path.open("w", encoding="utf-8") as file:
            file.write(f'{{"info":{compact(info)},"licenses":[],"categories":{compact(categories)}')
            for name, path in self._lists.items():
                file.write(f',\n"{name}":[')
                with path.open(encoding="utf-8") as part:
                    shutil.copyfileobj(part, file)
                file.write("]")
                path.unlink()
            file.write("}\n")


def _rgb(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
