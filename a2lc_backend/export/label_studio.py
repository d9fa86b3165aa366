"""Label Studio's own JSON: tasks with the labels that hold, and with people's annotations, ready to be imported.

The labels are one prediction a task, beside the annotations as Label Studio holds them; or one annotation a task,
alone, if they are to be annotations where they are imported. Region ids are kept, and `meta.a2lc` has source, round and
first label. The files hold up to about 64 MB each: Label Studio takes 250 MB at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from a2lc_backend.export.folder import compact
from a2lc_backend.export.labels import ImageLabels
from a2lc_backend.export.order import Order
from a2lc_backend.label_studio import Original
from a2lc_backend.masks import Region
from a2lc_backend.regions import LabelConfig, encode_region

_LARGEST = 64 * 2**20


def write(images: Iterable[ImageLabels], folder: Path, order: Order) -> None:
    """See `order.Write`."""
    platform = order.platform()
    originals = platform.originals()
    (folder / "label_config.xml").write_text(platform.label_config, encoding="utf-8")
    with _TaskFiles(folder) as tasks:
        for image in images:
            # One that was deleted in Label Studio, which no round has noticed yet, has nothing but its image.
            gone = Original({platform.config.image_key: image.address}, [])
            original = originals.of(image.task_id) or gone
            result = regions_of(image, platform.config)
            task: dict[str, Any] = {"id": image.task_id, "data": original.data}
            if order.role == "annotations":
                task |= {"annotations": [{"result": result}], "predictions": []}
            else:
                task["annotations"] = original.annotations
                task["predictions"] = [{"model_version": order.version, "result": result}]
            tasks.add(compact(task))


def regions_of(image: ImageLabels, config: LabelConfig) -> list[dict[str, Any]]:
    """The regions of an image as Label Studio has them."""
    return [
        encode_region(
            Region(
                region.id, region.label, image.mask(region), region.score, region.source, region.round,
                first=region.first, ring=image.rings.get(region.id),
            ),
            config,
        )
        for region in image.regions
    ]  # fmt: skip


class _TaskFiles:
    """JSON lists in files of a size that Label Studio takes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count, self._size = folder, 0, 0
        self._begin()

    def __enter__(self) -> _TaskFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _begin(self) -> None:
        self._count += 1
        self._file = (self._folder / f"tasks-{self._count:05d}.json").open("w", encoding="utf-8")
        self._file.write("[")
        self._size = 0

    def add(self, task: str) -> None:
        if self._size and self._size + len(task) > _LARGEST:
            self._end()
            self._begin()
        self._file.write(("," if self._size else "") + "\n" + task)
        self._size += len(task)

    def _end(self) -> None:
        self._file.write("\n]\n")
        self._file.close()
