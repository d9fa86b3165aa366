"""What can be put around any source of masks: a background class, and tiles of very large images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE, MAX_MASKS, MaskSet
from a2lc_backend.proposals import NothingFoundError, Picture, ProposalError, Proposals
from a2lc_backend.proposals.grounded import named


@dataclass(frozen=True)
class WithBackground:
    """Another source, and one mask of all pixels that it leaves without one.

    Attributes:
        source: of the other masks.
        background: class name of that mask.
    """

    source: Proposals
    background: str

    @property
    def name(self) -> str:
        """That of the source."""
        return self.source.name

    def propose(self, picture: Picture) -> MaskSet:
        """See `Proposals.propose`; the mask of the background is named `t<task id>background`.

        Raises:
            ProposalError: if the background is no class of the project, or the source has nothing but errors.
        """
        if self.background not in picture.classes:
            raise ProposalError(
                f"the background {self.background!r} is no class of the project ({', '.join(picture.classes)}); "
                "set background to one of them, or to nothing"
            )
        label = picture.classes.index(self.background)
        try:
            masks = self.source.propose(picture)
        except NothingFoundError:
            masks = MaskSet(np.zeros(picture.size, np.uint16), (), np.empty(0, np.int64), {})
        rest = masks.mask_ids == 0
        if not rest.any() or len(masks) == MAX_MASKS:
            return masks
        mask_ids = masks.mask_ids.copy()
        mask_ids[rest] = len(masks) + 1
        names = (*masks.region_ids, f"t{picture.task_id}background")
        return MaskSet(mask_ids, names, np.append(masks.first_labels, label), masks.rings)


@dataclass(frozen=True)
class InTiles:
    """Another source, asked tile by tile where an image is larger than models can see whole.

    Masks of one label that meet at a seam along half of the shorter one's edge there become one mask.

    Attributes:
        source: of the masks.
        most_pixels: larger images are cut into tiles of fewer pixels.
    """

    source: Proposals
    most_pixels: int

    @property
    def name(self) -> str:
        """That of the source."""
        return self.source.name

    def propose(self, picture: Picture) -> MaskSet:
        """See `Proposals.propose`.

        Raises:
            NothingFoundError: if no tile has masks.
            ProposalError: if the source fails, or the tiles have more masks than an image can hold.
        """
        if picture.image.shape[0] * picture.image.shape[1] <= self.most_pixels:
            return self.source.propose(picture)
        mask_ids: NDArray[np.int32] = np.zeros(picture.size, np.int32)
        labels: list[NDArray[np.int64]] = []
        count = 0
        for rows, columns in tiles(picture.size, self.most_pixels):
            try:
                found = self.source.propose(_crop(picture, rows, columns))
            except NothingFoundError:
                continue
            part = found.mask_ids.astype(np.int32)
            mask_ids[rows, columns] = np.where(part > 0, part + count, 0)
            labels.append(found.first_labels)
            count += len(found)
        if not count:
            raise NothingFoundError(f"no tile of task {picture.task_id} has masks; choose other proposals")
        first_labels = np.concatenate(labels)
        mask_ids = _join_seams(mask_ids, first_labels, picture.size, self.most_pixels)
        found_ids = np.flatnonzero(np.bincount(mask_ids.ravel(), minlength=count + 1)[1:]) + 1
        if len(found_ids) > MAX_MASKS:
            raise ProposalError(
                f"the tiles of task {picture.task_id} have {len(found_ids)} masks, {MAX_MASKS} are the most; cut the "
                "image up"
            )
        new_ids = np.zeros(count + 1, np.uint16)
        new_ids[found_ids] = np.arange(1, len(found_ids) + 1)
        return named(new_ids[mask_ids], first_labels[found_ids - 1], picture.task_id)


def tiles(size: tuple[int, int], most_pixels: int) -> list[tuple[slice, slice]]:
    """Cut an image into tiles of like size.

    Args:
        size: height and width in pixels.
        most_pixels: of a tile.

    Returns:
        Rows and columns of each tile, in reading order; together they cover the image once.
    """
    side = max(int(most_pixels**0.5), 1)
    return [(rows, columns) for rows, columns in product(*(_divide(length, -(-length // side)) for length in size))]


def _divide(length: int, parts: int) -> list[slice]:
    ends = [length * part // parts for part in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def _crop(picture: Picture, rows: slice, columns: slice) -> Picture:
    place = f"{rows.start}-{columns.start}-{rows.stop}-{columns.stop}"
    return replace(
        picture,
        image=np.ascontiguousarray(picture.image[rows, columns]),
        image_key=f"{picture.image_key}-{place}" if picture.image_key else "",
        regions=tuple(
            replace(region, mask=region.mask[rows, columns], ring=None)
            for region in picture.regions
            if region.mask[rows, columns].any()
        ),
    )


def _join_seams(
    mask_ids: NDArray[np.int32], labels: NDArray[np.int64], size: tuple[int, int], most_pixels: int
) -> NDArray[np.int32]:
    """Give masks of one label that lie on both sides of a seam one id, the smaller."""
    parts = tiles(size, most_pixels)
    rows = sorted({part[0].start for part in parts} - {0})
    columns = sorted({part[1].start for part in parts} - {0})
    leader = np.arange(len(labels) + 1)
    for before, after in [
        *((mask_ids[row - 1], mask_ids[row]) for row in rows),
        *((mask_ids[:, column - 1], mask_ids[:, column]) for column in columns),
    ]:
        _lead(leader, before, after, labels)
    joined: NDArray[np.int32] = np.array([_top(leader, index) for index in range(len(leader))], np.int32)[mask_ids]
    return joined


def _lead(
    leader: NDArray[np.int64], before: NDArray[np.int32], after: NDArray[np.int32], labels: NDArray[np.int64]
) -> None:
    pairs, lengths = np.unique(np.stack([before, after]), axis=1, return_counts=True)
    for (one, other), length in zip(pairs.T, lengths, strict=True):
        if not one or not other or labels[one - 1] != labels[other - 1] or labels[one - 1] == IGNORE:
            continue
        if 2 * length >= min((before == one).sum(), (after == other).sum()):
            first, second = sorted((_top(leader, one), _top(leader, other)))
            leader[second] = first


def _top(leader: NDArray[np.int64], index: int) -> int:
    while leader[index] != index:
        index = int(leader[index])
    return int(index)
