"""An image with the labels that hold, and where each of them comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.images import decode_image
from a2lc_backend.masks import IGNORE, Source
from a2lc_backend.store import CorrectionKind

MOST_PIXELS = 178_000_000
"""Of an image, where Pillow itself stops: a round has read the image before, within its own limit."""


@dataclass(frozen=True)
class Voice:
    """What one person said of a mask.

    Attributes:
        annotator: user id in Label Studio.
        kind: `label` (given or confirmed), `shape` (pixels edited too), `new` (drawn).
        label: class name; None for a mask that the person deleted while others kept it.
        round: that collected it.
    """

    annotator: int
    kind: CorrectionKind
    label: str | None
    round: int


@dataclass(frozen=True)
class RegionLabel:
    """A mask with the label that holds, and its lineage.

    Attributes:
        number: its pixels in `ImageLabels.mask_ids`; the same in every export of a round.
        id: of the region in Label Studio.
        label: class name; None where the mask has no label yet.
        class_id: place of the class in the project's label config; `IGNORE` for none.
        source: `human`, `corrector`, or `foundation` and `imported` for first labels.
        round: that gave the label; 0 for a first label.
        score: how sure the source is, 0 to 1; 1 for a person.
        first: class name of the mask's first label, None if it had none.
        pixels: of the mask.
        answers: what people said of it, oldest first.
    """

    number: int
    id: str
    label: str | None
    class_id: int
    source: Source
    round: int
    score: float
    first: str | None
    pixels: int
    answers: tuple[Voice, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return asdict(self) | {"answers": [asdict(voice) for voice in self.answers]}


@dataclass(frozen=True)
class ImageLabels:
    """An image with its masks and their labels.

    Attributes:
        task_id: of the image's first task in Label Studio.
        address: of the image, as the task has it.
        name: of the image's files in an export, without suffix; no other image of the project has it.
        mask_ids: (H, W) uint16; 0 = no mask, else the `number` of a region.
        regions: the masks that have pixels, by number.
        rings: polygons of masks that were drawn as such, by region id.
        fetch: reads the image's file from where Label Studio has it.
    """

    task_id: int
    address: str
    name: str
    mask_ids: NDArray[np.uint16]
    regions: tuple[RegionLabel, ...]
    rings: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    fetch: Callable[[], bytes] = field(default=bytes, repr=False, compare=False)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.mask_ids.shape[0], self.mask_ids.shape[1]

    @cached_property
    def label_map(self) -> NDArray[np.uint8]:
        """(H, W) uint8 class ids, `IGNORE` (255) where there is no label."""
        lookup = np.full(int(self.mask_ids.max(initial=0)) + 1, IGNORE, np.uint8)
        for region in self.regions:
            lookup[region.number] = region.class_id
        return lookup[self.mask_ids]

    def mask(self, region: RegionLabel) -> NDArray[np.bool_]:
        """Pixels of a region, (H, W) bool."""
        return np.asarray(self.mask_ids == region.number, np.bool_)

    def file(self) -> bytes:
        """The file of the image, as it lies where Label Studio has it; raises TaskError or PlatformError."""
        return self.fetch()

    def pixels(self) -> NDArray[np.uint8]:
        """The image as people see it, (H, W, 3) uint8 RGB; raises TaskError, PlatformError or ImageError."""
        return decode_image(self.file(), MOST_PIXELS)

    def as_json(self) -> dict[str, Any]:
        """All but pixels, as JSON values."""
        height, width = self.size
        return {
            "name": self.name, "task": self.task_id, "image": self.address, "width": width, "height": height,
            "regions": [region.as_json() for region in self.regions],
        }  # fmt: skip
