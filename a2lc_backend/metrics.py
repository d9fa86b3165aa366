"""How well labels agree with the truth: confusion matrix, IoU, mean IoU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE


def confusion_matrix(
    truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], classes: int, ignore: int = IGNORE
) -> NDArray[np.int64]:
    """Count pixels by their true and their predicted class.

    Pixels whose truth is `ignore` count nowhere. A pixel predicted `ignore` (no mask lies there, or its mask has no
    label) is a miss: it lands in the last column, so that its true class loses IoU and no other class does. Matrices
    of several images add up; the data mIoU is taken from the sum over the pool.

    Args:
        truth: class ids of any shape, 0 to classes − 1 or `ignore`.
        predicted: class ids of the same shape, 0 to classes − 1 or `ignore`.
        classes: the number of classes C.
        ignore: the id of "no label"; not itself a class.

    Returns:
        (C, C + 1) int64 pixel counts; row = truth, column = prediction, column C = predicted `ignore`.

    Raises:
        ValueError: for shapes that differ, or an id that is neither a class nor `ignore`.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth is {truth.shape}, prediction is {predicted.shape}; resize the prediction to the truth")
    counted = truth != ignore
    rows = truth[counted].astype(np.int64)
    columns = predicted[counted].astype(np.int64)
    columns[columns == ignore] = classes
    for name, ids, end in (("truth", rows, classes), ("prediction", columns, classes + 1)):
        if ids.size and (ids.min() < 0 or ids.max() >= end):
            wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
            raise ValueError(f"{name} holds {wrong}; use class ids 0 to {classes - 1}, or {ignore} for no label")
    counts = np.bincount(rows * (classes + 1) + columns, minlength=classes * (classes + 1))
    return counts.reshape(classes, classes + 1).astype(np.int64)


def iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class.

    Args:
        confusion: (C, C + 1) pixel counts as `confusion_matrix` gives them, or a plain (C, C).

    Returns:
        (C,) float64 in [0, 1]; NaN for a class that is neither in the truth nor predicted.

    Raises:
        ValueError: for an array that is not a confusion matrix.
    """
    classes = confusion.shape[0]
    if confusion.ndim != 2 or confusion.shape[1] not in (classes, classes + 1):
        raise ValueError(f"a confusion matrix is (C, C) or (C, C + 1), not {confusion.shape}; see confusion_matrix()")
    square = confusion[:, :classes]
    both = np.diagonal(square).astype(np.float64)
    either = confusion.sum(axis=1) + square.sum(axis=0) - both
    values = np.full(classes, np.nan)
    np.divide(both, either, out=values, where=either > 0)
    return values


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """Mean IoU over the classes that are in the truth or predicted.

    Args:
        confusion: as in `iou`.

    Returns:
        The mean in [0, 1]; NaN when no pixel was counted.
    """
    values = iou(confusion)
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
