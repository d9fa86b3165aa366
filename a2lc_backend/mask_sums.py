"""Sums over the pixels of every mask of an image; what acquisition is made of.

An image's soft labels are far larger than a cache, so they are read a few rows at a time, all steps of a pass while the
rows are at hand. On a CPU each thread takes rows of its own: threads that share every small step wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

STRIP = 16
"""Rows that are summed before masks are told apart, in each column where they lie in one mask."""

CPU_PIXELS = 32_768
"""Read at a time; 19 classes of them take 2.5 MB."""

GPU_PIXELS = 4_194_304


class Winners(NamedTuple):
    """The most probable class of every pixel and of every mask; ties go to the lower class.

    Attributes:
        argmax: (H, W) int64.
        dominant: (K + 1,) int64 the most frequent argmax of each mask id.
    """

    argmax: Tensor
    dominant: Tensor


class MaskSums:
    """Soft labels and masks of one image, on the device where they lie.

    Args:
        soft: (C, H, W) floats.
        ids: (H, W) int64, 0 = no mask, 1..K.
        masks: K.
    """

    def __init__(self, soft: Tensor, ids: Tensor, masks: int) -> None:
        self._soft = soft
        self._ids = ids
        self._masks = masks
        self._strips: dict[int, _Strips] = {}

    def find_winners(self, values: Callable[[slice, Tensor], Tensor]) -> tuple[Winners, Tensor]:
        """Find argmax and dominant argmax, and sum something on the way.

        Args:
            values: of a slice of rows and their argmax (h, W): what to sum, (C, h, W).

        Returns:
            The winners, and the sums of the values (C, K + 1) float64; here as below the sum of id 0 means nothing.
        """
        classes = len(self._soft)
        argmax = torch.empty_like(self._ids)
        codes = torch.arange(classes, 0, -1, dtype=self._soft.dtype, device=self._soft.device)[:, None, None]

        def look(rows: slice) -> tuple[Tensor, Tensor]:
            here = self._soft[:, rows]
            is_best = torch.empty_like(here)
            torch.eq(here, here.amax(0), out=is_best)  # bool would take three times as long
            best = argmax[rows].copy_(classes - is_best.mul_(codes).amax(0))
            votes = torch.bincount((self._ids[rows] * classes + best).flatten(), minlength=(self._masks + 1) * classes)
            return votes, self._sum(rows, values(rows, best))

        votes, sums = self._over_rows(look)
        return Winners(argmax, votes.view(self._masks + 1, classes).argmax(1)), sums

    def representatives(self, winners: Winners) -> Tensor:
        """f(m′) of every mask, the mean of the pixels whose argmax is the dominant one, brought to length 1.

        Returns:
            (C, K + 1) float64.
        """

        def look(rows: slice) -> tuple[Tensor]:
            agrees = look_up(winners.dominant, self._ids[rows]) == winners.argmax[rows]
            return (self._sum(rows, self._soft[:, rows] * agrees.to(self._soft.dtype)),)

        return normalize(self._over_rows(look)[0], dim=0)

    def sum_doubt(self, towards: Tensor) -> Tensor:
        """Σ_x cos(f(x), f(m′)) · (1 − f(c; x)) of every class and mask.

        Args:
            towards: (C, K + 1) float64 from `representatives`.

        Returns:
            (C, K + 1) float64.
        """
        towards = towards.to(self._soft.dtype)

        def look(rows: slice) -> tuple[Tensor]:
            here = self._soft[:, rows]
            work = towards.index_select(1, self._ids[rows].flatten()).view(here.shape)
            similarity = work.mul_(here).sum(0) * inverse_length(here)
            return (self._sum(rows, torch.sub(1, here, out=work).mul_(similarity)),)

        return self._over_rows(look)[0]

    def _over_rows(self, look: Callable[[slice], tuple[Tensor, ...]]) -> list[Tensor]:
        """Look at all rows, a few at a time, and add up the tuples that come back, always in the same order."""
        height, width = self._ids.shape
        on_cpu = self._ids.device.type == "cpu"
        step = max((CPU_PIXELS if on_cpu else GPU_PIXELS) // (STRIP * width), 1) * STRIP
        whole = height // STRIP * STRIP
        bounds = [*range(0, whole, step), whole, height]
        slices = [slice(start, stop) for start, stop in pairwise(bounds) if start < stop]
        parts = _in_threads(look, slices) if on_cpu else [look(rows) for rows in slices]
        return [torch.stack(items).sum(0) for items in zip(*parts, strict=True)]

    def _sum(self, rows: slice, values: Tensor) -> Tensor:
        """Sum values (C, h, W) over the pixels of each mask, (C, K + 1) float64."""
        if rows.start not in self._strips:
            self._strips[rows.start] = _find_strips(self._ids[rows])
        strips = self._strips[rows.start]
        classes = len(values)
        sums = values.new_zeros(classes, self._masks + 1)
        if strips.whole:
            columns = values.reshape(classes, -1, strips.depth, values.shape[2]).sum(2).view(classes, -1)
            sums.scatter_add_(1, strips.owners.expand(classes, -1), columns)
        pixels = values.reshape(classes, -1)
        if len(strips.rest) < pixels.shape[1]:
            pixels = pixels.index_select(1, strips.rest)
        return sums.scatter_add_(1, strips.rest_ids.expand(classes, -1), pixels).double()


def _in_threads(look: Callable[[slice], tuple[Tensor, ...]], slices: list[slice]) -> list[tuple[Tensor, ...]]:
    """Look in as many threads as torch would use, each of which then is a single one for torch."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(look, slices))
    finally:
        torch.set_num_threads(threads)  # the 1 was for those threads, but threads to come would start with it


class _Strips(NamedTuple):
    """Some rows cut into strips: additions to one place wait for each other, so columns in one mask are summed first.

    Attributes:
        depth: d, rows of a strip.
        whole: whether there are columns that lie in one mask.
        owners: (h / d · W,) int64, the mask of each column of a strip; 0 where it lies in several.
        rest: (R,) int64, the pixels of the latter columns.
        rest_ids: (R,) int64, their mask ids.
    """

    depth: int
    whole: bool
    owners: Tensor
    rest: Tensor
    rest_ids: Tensor


def _find_strips(ids: Tensor) -> _Strips:
    """Cut rows (h, W); fewer than a whole strip are one."""
    depth = STRIP if len(ids) % STRIP == 0 else len(ids)
    strips = ids.view(-1, depth, ids.shape[1])
    whole = (strips == strips[:, :1]).all(1)
    owners = torch.where(whole, strips[:, 0], 0).flatten()
    rest = (~whole)[:, None].expand(strips.shape).flatten().nonzero()[:, 0]
    return _Strips(depth, bool(whole.any()), owners, rest, look_up(ids.flatten(), rest))


def inverse_length(soft: Tensor) -> Tensor:
    """1 / |f(x)| of soft labels (C, h, W); 0 for a soft label of zeros, which is like no other."""
    return (soft * soft).sum(0).rsqrt_().nan_to_num_(posinf=0.0)


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """`table[index]` of a flat table, three to ten times as fast on a CPU."""
    return table.index_select(0, index.flatten()).view(index.shape)
