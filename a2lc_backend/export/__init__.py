"""Labels out: the labels of a project, human over corrector over foundation, as files or as arrays."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from a2lc_backend import __version__
from a2lc_backend.export.filters import Filters
from a2lc_backend.export.folder import ExportError, holds_already, whole_folder, write_manifest
from a2lc_backend.export.label_set import Fetch, LabelSet
from a2lc_backend.export.labels import ImageLabels, RegionLabel, Voice
from a2lc_backend.export.open import Gateway, load_labels, open_labels
from a2lc_backend.export.order import Order, Role, Write
from a2lc_backend.label_studio import LabelStudioProject

__all__ = [
    "FORMATS",
    "IMAGES_BELONG",
    "ExportError",
    "Fetch",
    "Filters",
    "Gateway",
    "ImageLabels",
    "LabelSet",
    "RegionLabel",
    "Voice",
    "export_labels",
    "load_labels",
    "open_labels",
]

FORMATS: Mapping[str, tuple[str, str]] = {
    "png": ("png", "write"),
    "coco-panoptic": ("coco", "write_panoptic"),
    "coco-instances": ("coco", "write_instances"),
    "cityscapes": ("cityscapes", "write"),
    "voc": ("voc", "write"),
    "parquet": ("parquet", "write"),
    "label-studio": ("label_studio", "write"),
}
"""The function of a module of this package that writes each format, by the format's name; see `order.Write`."""

IMAGES_BELONG = frozenset({"cityscapes", "voc"})
"""Formats that are of little use without the images' files."""

_MADE_WITH = ("numpy", "pillow", "pyarrow", "pycocotools")


def export_labels(
    labels: LabelSet,
    name: str,
    target: Path,
    platform: Callable[[], LabelStudioProject],
    with_images: bool | None = None,
    role: Role = "predictions",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> bool:
    """Write labels into a folder, which is there when it is whole.

    Args:
        labels: what is written.
        name: of the format, one of `FORMATS`.
        target: a folder that is empty or not there, or holds this very export.
        platform: gives the project in Label Studio.
        with_images: the files of the images too; as the format wants it if None.
        role: of the labels where they are imported into Label Studio.
        progress: told of images written and their number.

    Returns:
        Whether it was written; False where it is there already.

    Raises:
        ExportError: if the folder holds other files or cannot be written, or an image cannot be had or has changed.
        PlatformError: if Label Studio cannot be used.
    """
    order = Order(
        labels.project.id, labels.project.title, labels.round.version, labels.classes,
        name in IMAGES_BELONG if with_images is None else with_images, role, platform,
    )  # fmt: skip
    about = _about(labels, name, order)
    # What people annotate meanwhile goes into this format, so that it is never known to be the same.
    if name == "label-studio" and target.exists() and any(target.iterdir()):
        raise ExportError(f"{target} holds files already; delete it or choose another folder")
    if holds_already(target, about):
        return False
    module, function = FORMATS[name]
    write: Write = getattr(import_module(f"a2lc_backend.export.{module}"), function)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    with whole_folder(target) as folder:
        write(_told(labels, counts, progress), folder, order)
        by_class = {label: dict(sorted(counts[label].items())) for label in (*labels.classes, "none")}
        regions = sum(sum(found.values()) for found in by_class.values())
        write_manifest(folder, about, {"images": len(labels), "regions": regions, "regions_by_class": by_class})
    return True


def _about(labels: LabelSet, name: str, order: Order) -> dict[str, Any]:
    """What an export is of, for its manifest: nothing that changes while the labels do not."""
    filters = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(labels.filters).items()}
    measured = [
        {"class": labels.classes[item.class_id], "source": "corrector" if item.automatic else "first labels"}
        | {key: value for key, value in asdict(item).items() if key in ("audited", "right", "least_right")}
        for item in labels.measured
    ]
    return {
        "program": {"a2lc-backend": __version__} | {package: version(package) for package in _MADE_WITH},
        "project": {"id": labels.project.id, "title": labels.project.title},
        "round": labels.round.number,
        "model_version": labels.round.version,
        "settings": {"format": name, "images": order.with_images, "as": order.role, **filters},
        "classes": list(labels.classes),
        "precision": measured,
        "labels_sha256": labels.state,
    }


def _told(
    labels: LabelSet, counts: Mapping[str, Counter[str]], progress: Callable[[int, int], None]
) -> Iterator[ImageLabels]:
    """Images one by one, counted."""
    progress(0, len(labels))
    for done, image in enumerate(labels, start=1):
        for region in image.regions:
            counts[region.label or "none"][region.source] += 1
        yield image
        progress(done, len(labels))
