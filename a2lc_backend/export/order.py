"""What every format is told of an export."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from a2lc_backend.export.labels import ImageLabels
from a2lc_backend.label_studio import LabelStudioProject

Role = Literal["predictions", "annotations"]
"""What the labels shall be where they are imported."""


@dataclass(frozen=True)
class Order:
    """An export as it was asked for.

    Attributes:
        project_id: of the project.
        title: of the project.
        version: of the model, in Label Studio.
        classes: names in id order.
        with_images: the files of the images too.
        role: of the labels; only the format of Label Studio heeds it.
        platform: gives the project in Label Studio to formats that need it.
    """

    project_id: int
    title: str
    version: str
    classes: tuple[str, ...]
    with_images: bool
    role: Role
    platform: Callable[[], LabelStudioProject]


Write: TypeAlias = Callable[[Iterable[ImageLabels], Path, Order], None]
"""Writes images as they come, holding one at a time, into an empty folder; the manifest is none of its work."""
