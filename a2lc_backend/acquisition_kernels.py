"""The loops over pixels that acquisition is made of, compiled by numba.

Soft labels are far larger than a cache and their classes lie far apart, so a short block of a row is copied next to
each other while argmax and length are found, and all the rest reads the copy. Neighbouring pixels of one mask are
summed in the precision of the soft labels, a block at most; sums of these are double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

BLOCK = 256
"""Pixels of a row; 19 classes of them take 19 KB."""

SAFE_MATH = {"contract", "reassoc", "nsz", "arcp"}
"""Sums may be taken in any order; NaN and infinity stay what they are."""


def _compiled(function: Callable[..., Any]) -> Any:
    try:
        return numba.njit(nogil=True, cache=True, fastmath=SAFE_MATH)(function)
    except RuntimeError:  # there is no folder for the compiled code, so every process compiles
        return numba.njit(nogil=True, fastmath=SAFE_MATH)(function)


@_compiled
def look_at_values(soft, top, ids, labels, weights, masks, argmax):
    """Find argmax (h, W) and votes of some rows, and Σ f(x) / |f(x)| · w(ŷ) (1 − f(ŷ; x)), both (K + 1, C)."""
    classes, (height, width) = len(soft), ids.shape
    one = soft.dtype.type(1)
    votes, totals = np.zeros((masks + 1, classes), np.int64), np.zeros((masks + 1, classes))
    copy, value = np.empty((classes, BLOCK), soft.dtype), np.empty(BLOCK, soft.dtype)
    for y in range(height):
        for x in range(0, width, BLOCK):
            n = min(BLOCK, width - x)
            here, held, best = ids[y, x : x + n], labels[y, x : x + n], argmax[y, x : x + n]
            _read(soft, top + y, x, copy, best, value)
            for i in range(n):
                votes[here[i], best[i]] += 1
                label = held[i] if held[i] >= 0 else best[i]
                value[i] *= weights[label] * (one - copy[label, i])
            start = 0
            while start < n:
                stop = _end_of_run(here, start)
                for c in range(classes):
                    totals[here[start], c] += _dot(copy[c, start:stop], value[start:stop])
                start = stop
    return votes, totals


@_compiled
def look_at_votes(soft, top, ids, masks, argmax):
    """Find argmax (h, W) and votes (K + 1, C) of some rows."""
    classes, (height, width) = len(soft), ids.shape
    votes = np.zeros((masks + 1, classes), np.int64)
    copy, inverse = np.empty((classes, BLOCK), soft.dtype), np.empty(BLOCK, soft.dtype)
    for y in range(height):
        for x in range(0, width, BLOCK):
            n = min(BLOCK, width - x)
            here, best = ids[y, x : x + n], argmax[y, x : x + n]
            _read(soft, top + y, x, copy, best, inverse)
            for i in range(n):
                votes[here[i], best[i]] += 1
    return votes


@_compiled
def look_at_agreement(soft, top, ids, argmax, dominant):
    """Σ f(x) over the pixels of some rows whose argmax is the dominant one of their mask, (K + 1, C)."""
    classes, (height, width) = len(soft), ids.shape
    zero, one = soft.dtype.type(0), soft.dtype.type(1)
    totals = np.zeros((len(dominant), classes))
    agrees = np.empty(BLOCK, soft.dtype)
    for y in range(height):
        for x in range(0, width, BLOCK):
            n = min(BLOCK, width - x)
            here, best = ids[y, x : x + n], argmax[y, x : x + n]
            start = 0
            while start < n:
                stop = _end_of_run(here, start)
                mask = here[start]
                for i in range(start, stop):
                    agrees[i] = one if best[i] == dominant[mask] else zero
                for c in range(classes):
                    totals[mask, c] += _dot(soft[c, top + y, x + start : x + stop], agrees[start:stop])
                start = stop
    return totals


@_compiled
def look_at_doubt(soft, top, ids, towards):
    """Σ_x cos(f(x), f(m′)) · (1 − f(c; x)) of some rows for every mask and class, and Σ f(c; x), both (K + 1, C)."""
    classes, (height, width) = len(soft), ids.shape
    zero, one = soft.dtype.type(0), soft.dtype.type(1)
    totals, sums = np.zeros((len(towards), classes)), np.zeros((len(towards), classes))
    copy = np.empty((classes, BLOCK), soft.dtype)
    similarity, squares = np.empty(BLOCK, soft.dtype), np.empty(BLOCK, soft.dtype)
    for y in range(height):
        for x in range(0, width, BLOCK):
            here = ids[y, x : min(x + BLOCK, width)]
            start = 0
            while start < len(here):
                stop = _end_of_run(here, start)
                mask, n = here[start], stop - start
                similarity[:n] = zero
                squares[:n] = zero
                for c in range(classes):
                    row, kept, part = soft[c, top + y, x + start : x + stop], copy[c], towards[mask, c]
                    for i in range(n):
                        probability = row[i]
                        kept[i] = probability
                        similarity[i] += probability * part
                        squares[i] += probability * probability
                for i in range(n):
                    similarity[i] = zero if squares[i] == zero else similarity[i] / np.sqrt(squares[i])
                for c in range(classes):
                    kept, total, plain = copy[c], zero, zero
                    for i in range(n):
                        total += similarity[i] * (one - kept[i])
                        plain += kept[i]
                    totals[mask, c] += total
                    sums[mask, c] += plain
                start = stop
    return totals, sums


@_compiled
def _read(soft, y, x, copy, argmax, inverse):
    """Copy soft labels from (y, x) on, find their argmax (n,) and 1 / |f(x)|; that is 0 where a soft label is zeros."""
    n = len(argmax)
    zero, one = soft.dtype.type(0), soft.dtype.type(1)
    most = np.empty(n, soft.dtype)
    most[:] = -np.inf
    argmax[:] = 0
    inverse[:n] = zero
    for c in range(len(soft)):
        row, kept = soft[c, y, x : x + n], copy[c]
        for i in range(n):
            probability = row[i]
            more = probability > most[i]
            kept[i] = probability
            argmax[i] = c if more else argmax[i]
            most[i] = probability if more else most[i]
            inverse[i] += probability * probability
    for i in range(n):
        inverse[i] = zero if inverse[i] == zero else one / np.sqrt(inverse[i])


@_compiled
def _end_of_run(ids, start):
    stop = start + 1
    while stop < len(ids) and ids[stop] == ids[start]:
        stop += 1
    return stop


@_compiled
def _dot(one, other):
    total = one.dtype.type(0)
    for i in range(len(one)):
        total += one[i] * other[i]
    return total
