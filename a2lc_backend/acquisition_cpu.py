"""Acquisition of one image on a CPU: bands of rows, in as many threads as there are cores, and their sums."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.acquisition_kernels import look_at_agreement, look_at_doubt, look_at_values, look_at_votes

BANDS = 16
"""Of rows, shared out among the cores: always as many, so that sums do not depend on the machine."""

ALONE_PIXELS = 1 << 18
"""An image of fewer pixels is looked at by one thread: handing 360×480 out to two takes longer, 4.1 for 2.5 ms."""

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]


def mask_acquisition(
    soft: Floats, ids: Integers, labels: Integers, weights: NDArray[np.float64], ignore: int, masks: int
) -> NDArray[np.float64]:
    """a(m) of `acquisition.mask_acquisition`: f(m′) / |f(m′)| · Σ_x f(x) / |f(x)| · w(ŷ) (1 − f(ŷ; x)).

    Args:
        soft: (C, H, W), single or double precision, contiguous.
        ids: (H, W), 0..K.
        labels: (H, W), class ids or `ignore`.
        weights: (C,).
        ignore: the label that means none.
        masks: K.

    Returns:
        (K + 1,); that of id 0 means nothing.
    """
    own = weights.astype(soft.dtype)
    argmax = np.empty(ids.shape, np.int32)

    def look(rows: slice) -> Any:
        held = np.where(labels[rows] == ignore, np.int32(-1), labels[rows].astype(np.int32))
        return look_at_values(soft, rows.start, ids[rows].astype(np.int32), held, own, masks, argmax[rows])

    votes, values = _over_bands(look, ids.shape)
    return np.asarray((_representatives(soft, ids, argmax, votes.argmax(1)) * values).sum(1))


def acquisition_rows(
    soft: Floats, ids: Integers, masks: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """What `acquisition.acquisition_rows` returns, with an entry for id 0 that means nothing.

    Args:
        soft: (C, H, W), single or double precision, contiguous.
        ids: (H, W), 0..K.
        masks: K.

    Returns:
        rows (K + 1, C), mean soft labels (K + 1, C), dominant argmax (K + 1,).
    """
    argmax = np.empty(ids.shape, np.int32)

    def look(rows: slice) -> Any:
        return (look_at_votes(soft, rows.start, ids[rows].astype(np.int32), masks, argmax[rows]),)

    def look_again(rows: slice) -> Any:
        return look_at_doubt(soft, rows.start, ids[rows].astype(np.int32), towards)

    (votes,) = _over_bands(look, ids.shape)
    dominant = votes.argmax(1)
    towards = _representatives(soft, ids, argmax, dominant).astype(soft.dtype)
    rows, sums = _over_bands(look_again, ids.shape)
    return rows, sums / np.maximum(votes.sum(1), 1)[:, None], dominant


def _representatives(
    soft: Floats, ids: Integers, argmax: NDArray[np.int32], dominant: NDArray[np.int64]
) -> NDArray[np.float64]:
    """f(m′) of every mask brought to length 1, (K + 1, C); zeros stay."""

    def look(rows: slice) -> Any:
        return (look_at_agreement(soft, rows.start, ids[rows].astype(np.int32), argmax[rows], dominant),)

    (sums,) = _over_bands(look, ids.shape)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.where(lengths == 0, 1, lengths))


def _over_bands(look: Callable[[slice], Any], size: tuple[int, ...]) -> list[NDArray[Any]]:
    """Look at all rows, band by band on as many threads as pay, and add up the tuples that come back, top to bottom."""
    height, width = size
    bounds = np.linspace(0, height, BANDS + 1).astype(int).tolist()
    bands = [slice(start, stop) for start, stop in pairwise(bounds) if start < stop] or [slice(0, 0)]
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if cores == 1 or height * width < ALONE_PIXELS:
        return _sum(map(look, bands))
    with ThreadPoolExecutor(min(cores, len(bands))) as pool:
        return _sum(pool.map(look, bands))


def _sum(bands: Iterable[Any]) -> list[NDArray[Any]]:
    return [np.sum(parts, axis=0) for parts in zip(*bands, strict=True)]
