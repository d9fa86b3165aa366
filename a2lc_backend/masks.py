"""Masks of one image: disjoint sets of pixels, each holding one label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count as count_up
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

IGNORE = 255
"""The class id of "no label": such a pixel or mask teaches nothing and counts in no statistics."""

MAX_MASKS = np.iinfo(np.uint16).max

Purpose = Literal["deciding", "stating", "random"]
"""What a mask was drawn into a queue for; see `audit`."""

Source = Literal["foundation", "imported", "human", "corrector"]
"""Where a pseudo-label comes from."""


SAME = ""
"""In the place of a first label: the one that the mask holds. No class has an empty name."""


@dataclass(frozen=True)
class Region:
    """A mask as Label Studio holds it.

    Attributes:
        id: unique in its image, kept for ever.
        label: class name; None where the region has no label yet.
        mask: (H, W) bool, at the size of the image.
        score: how sure the source is of the label, 0 to 1; higher = surer.
        source: where the label comes from.
        round: the round that published the region; None for a region that this program did not publish.
        rank: place in the review queue, 1 = looked at first; None for a region that is not queued.
        note: what a person should know about the region, in words.
        proposal: class name that the corrector proposes and that is held back; None where there is none.
        first: class name of the mask's first label, None if it had none; `SAME` where that is `label`, or not known.
        ring: (N, 2) float64, the x and y in pixels of the polygon as it was drawn; None for brush and bitmask.
    """

    id: str
    label: str | None
    mask: NDArray[np.bool_]
    score: float | None = None
    source: Source = "imported"
    round: int | None = None
    rank: int | None = None
    note: str = ""
    proposal: str | None = None
    first: str | None = SAME
    ring: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class MaskSet:
    """The disjoint masks of one image and their first labels.

    Attributes:
        mask_ids: (H, W) uint16; 0 = no mask, k = the mask `region_ids[k - 1]`.
        region_ids: (K,) names of the masks, unique.
        first_labels: (K,) int64 class ids, `IGNORE` where the proposal gave none.
        rings: polygon of a mask as it was drawn, by region id; only masks that came as polygons have one.
    """

    mask_ids: NDArray[np.uint16]
    region_ids: tuple[str, ...]
    first_labels: NDArray[np.int64]
    rings: dict[str, NDArray[np.float64]]

    def __post_init__(self) -> None:
        """Check that ids, names and labels agree."""
        highest = int(self.mask_ids.max(initial=0))
        if highest > len(self.region_ids):
            raise ValueError(f"mask id {highest} has no label: {len(self.region_ids)} masks are named")
        if len(set(self.region_ids)) != len(self.region_ids):
            raise ValueError("two masks of one image share an id")
        if self.first_labels.shape != (len(self.region_ids),):
            raise ValueError(f"{len(self.region_ids)} masks but {self.first_labels.shape[0]} first labels")

    def __len__(self) -> int:
        return len(self.region_ids)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.mask_ids.shape[0], self.mask_ids.shape[1]

    def areas(self) -> NDArray[np.int64]:
        """Pixels of each mask, (K,)."""
        return np.bincount(self.mask_ids.ravel(), minlength=len(self) + 1)[1:]

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Pixels of the mask at `index` (0-based), (H, W) bool."""
        return np.asarray(self.mask_ids == index + 1, np.bool_)


def label_map(mask_ids: NDArray[np.uint16], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Spread one label a mask over its pixels.

    Args:
        mask_ids: (H, W) uint16, 0 = none.
        labels: (K,) int64 class ids.

    Returns:
        (H, W) uint8 class ids, `IGNORE` where no mask lies.
    """
    lookup = np.concatenate([[IGNORE], labels]).astype(np.uint8)
    return lookup[mask_ids]


def make_disjoint(masks: Iterable[NDArray[np.bool_]], size: tuple[int, int]) -> NDArray[np.uint16]:
    """Paint masks into one id map, smaller masks over larger ones, as the paper does; of two alike the later shows.

    Args:
        masks: K arrays (H, W) bool; each is looked at once, so that not all of them need lie in memory.
        size: height and width in pixels.

    Returns:
        (H, W) uint16: 0 where no mask lies, else 1 + the index of the smallest mask there.

    Raises:
        ValueError: for more masks than an id can name, or a mask of another size.
    """
    mask_ids = np.zeros(size, np.uint16)
    areas = np.full(size, np.iinfo(np.int32).max, np.int32)
    for index, mask in enumerate(masks):
        if index == MAX_MASKS:
            raise ValueError(f"more than {MAX_MASKS} masks in one image")
        if mask.shape != size:
            raise ValueError(f"mask {index} is {mask.shape}, its image is {size} (height, width)")
        area = int(mask.sum())
        shows = mask & (areas >= area)
        mask_ids[shows], areas[shows] = index + 1, area
    return mask_ids


def keep_masks(mask_ids: NDArray[np.uint16], keep: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Drop masks from an id map and number the kept ones 1..n in their old order.

    Args:
        mask_ids: (H, W) uint16.
        keep: (K,) bool.

    Returns:
        (H, W) uint16.
    """
    lookup = np.zeros(len(keep) + 1, np.uint16)
    lookup[1:][keep] = np.arange(1, int(keep.sum()) + 1)
    return lookup[mask_ids]


def split_pieces(masks: MaskSet, least_pixels: int = 16) -> MaskSet:
    """Make every mask one connected piece, for platforms that can hold only that.

    A mask in several pieces becomes several masks named `id`, `id.2`, `id.3`, … from the largest piece down; pieces
    below `least_pixels` lose their mask, unless they are their mask's largest.

    Args:
        masks: K masks.
        least_pixels: smallest piece kept beside the largest.
    """
    mask_ids = np.zeros_like(masks.mask_ids)
    names: list[str] = []
    taken = set(masks.region_ids)
    labels: list[int] = []
    for index, region_id in enumerate(masks.region_ids):
        pieces, count = ndimage.label(masks.mask(index))
        areas = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        if count == 0:  # a mask that lost every pixel keeps its place
            names.append(region_id)
            labels.append(int(masks.first_labels[index]))
        for rank, piece in enumerate(np.argsort(-areas, kind="stable")):
            if rank > 0 and areas[piece] < least_pixels:
                break
            free = (name for name in (f"{region_id}.{number}" for number in count_up(2)) if name not in taken)
            names.append(region_id if rank == 0 else next(free))
            taken.add(names[-1])
            labels.append(int(masks.first_labels[index]))
            mask_ids[pieces == piece + 1] = len(names)
    rings = {name: ring for name, ring in masks.rings.items() if name in names}
    return MaskSet(mask_ids, tuple(names), np.array(labels, np.int64), rings)
