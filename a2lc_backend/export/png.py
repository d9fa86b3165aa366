"""Label maps as palette PNGs, with masks and lineage beside them.

`labels/NAME.png` holds class ids (255: no label), `masks/NAME.png` the number of each pixel's mask in 16 bits (0:
none), `regions.jsonl` a line for each image with all that is known of its masks, by that number.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from a2lc_backend.export.folder import compact, write_json
from a2lc_backend.export.labels import ImageLabels
from a2lc_backend.export.order import Order
from a2lc_backend.export.pictures import class_list, image_file, palette_of, png


def write(images: Iterable[ImageLabels], folder: Path, order: Order) -> None:
    """See `order.Write`."""
    ids = range(len(order.classes))
    palette = palette_of(order.classes, ids)
    write_json(folder / "classes.json", class_list(order.classes, ids))
    for name in ("labels", "masks", "images") if order.with_images else ("labels", "masks"):
        (folder / name).mkdir()
    with (folder / "regions.jsonl").open("w", encoding="utf-8") as lines:
        for image in images:
            (folder / "labels" / f"{image.name}.png").write_bytes(png(image.label_map, palette))
            (folder / "masks" / f"{image.name}.png").write_bytes(png(image.mask_ids))
            if order.with_images:
                data, suffix = image_file(image, "JPEG", "PNG")
                (folder / "images" / f"{image.name}{suffix}").write_bytes(data)
            lines.write(compact(image.as_json()) + "\n")
