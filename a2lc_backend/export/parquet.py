"""Parquet as Hugging Face `datasets` reads it: a row an image.

Columns: `name`, `task`, `address`, `width`, `height`, `image` (with the images' files; else the address is all there
is), `label_map` (PNG of class ids, 255 for none), `masks` (16-bit PNG, the number of each pixel's mask, 0 for none) and
`regions`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from a2lc_backend.export.folder import compact, write_json
from a2lc_backend.export.labels import ImageLabels
from a2lc_backend.export.order import Order
from a2lc_backend.export.pictures import class_list, image_file, palette_of, png

_ROWS = 64
_ROWS_BYTES = 64 * 2**20
_LARGEST = 512 * 2**20

_VOICE = {"annotator": "int64", "kind": "string", "label": "string", "round": "int64"}
_REGION = {
    "number": "int64", "id": "string", "label": "string", "class_id": "int64", "source": "string", "round": "int64",
    "score": "float64", "first": "string", "pixels": "int64",
}  # fmt: skip


def write(images: Iterable[ImageLabels], folder: Path, order: Order) -> None:
    """See `order.Write`: shards `data/train-NNNNN-of-NNNNN.parquet`, and `classes.json`."""
    import pyarrow as pa  # noqa: PLC0415

    ids = range(len(order.classes))
    palette = palette_of(order.classes, ids)
    write_json(folder / "classes.json", class_list(order.classes, ids))
    (folder / "data").mkdir()
    schema = _schema(order)
    rows: list[dict[str, Any]] = []
    held = 0
    with _Shards(folder / "data", schema) as shards:
        for image in images:
            row = image.as_json() | {"address": image.address}
            del row["image"]
            for name, data in (("label_map", png(image.label_map, palette)), ("masks", png(image.mask_ids))):
                row[name] = {"bytes": data, "path": f"{image.name}.png"}
                held += len(data)
            if order.with_images:
                data, suffix = image_file(image, "JPEG", "PNG")
                row["image"] = {"bytes": data, "path": f"{image.name}{suffix}"}
                held += len(data)
            rows.append(row)
            if len(rows) == _ROWS or held >= _ROWS_BYTES:
                shards.add(pa.Table.from_pylist(rows, schema))
                rows, held = [], 0
        if rows:
            shards.add(pa.Table.from_pylist(rows, schema))


def _schema(order: Order) -> Any:
    """Columns, and what `datasets` is told of them."""
    import pyarrow as pa  # noqa: PLC0415

    kinds = {"int64": pa.int64(), "string": pa.string(), "float64": pa.float64()}

    def plain(names: dict[str, str]) -> list[Any]:
        return [pa.field(name, kinds[kind]) for name, kind in names.items()]

    def values(names: dict[str, str]) -> dict[str, Any]:
        return {name: {"dtype": kind, "_type": "Value"} for name, kind in names.items()}

    image = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    pictures = ["image"] * order.with_images + ["label_map", "masks"]
    about = {"name": "string", "task": "int64", "address": "string", "width": "int64", "height": "int64"}
    region = pa.struct([*plain(_REGION), pa.field("answers", pa.list_(pa.struct(plain(_VOICE))))])
    features = values(about) | {name: {"_type": "Image"} for name in pictures}
    features["regions"] = {
        "_type": "List",
        "feature": values(_REGION) | {"answers": {"_type": "List", "feature": values(_VOICE)}},
    }
    return pa.schema(
        [*plain(about), *(pa.field(name, image) for name in pictures), pa.field("regions", pa.list_(region))],
        metadata={"huggingface": compact({"info": {"features": features}})},
    )


class _Shards:
    """Files of a size that is easily moved; what each is called says how many there are."""

    def __init__(self, folder: Path, schema: Any) -> None:
        self._folder, self._schema = folder, schema
        self._paths: list[Path] = []
        self._begin()

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        for path in self._paths:
            path.rename(path.with_name(f"{path.stem}-of-{len(self._paths):05d}.parquet"))

    def _begin(self) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415

        self._paths.append(self._folder / f"train-{len(self._paths):05d}.part")
        self._file = self._paths[-1].open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")

    def add(self, table: Any) -> None:
        if self._file.tell() >= _LARGEST:
            self._end()
            self._begin()
        self._writer.write_table(table)

    def _end(self) -> None:
        self._writer.close()
        self._file.close()
