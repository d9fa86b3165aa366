"""How much a person's look at a mask is worth: A²LC's adaptively balanced confidence (ABC)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = Union[NDArray[np.generic], "Tensor"]
"""An array of numpy or of torch."""


def adaptive_class_weights(pixel_counts: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Weigh rare classes up, and the more so the further the counts are from uniform.

    ŵ(c) = min count / count(c); KL = Σ P(c) log(P(c) / U(c)); w(c) = ŵ(c)^(KL³), all over the classes present
    (A²LC, section on ABC).

    Args:
        pixel_counts: (C,) pixels of each class among the masks no person has corrected.

    Returns:
        (C,) float64 in [0, 1]; 1 for the rarest class present, 0 for an absent class.

    Raises:
        ValueError: for a negative count.
    """
    counts = np.asarray(pixel_counts, np.float64)
    if (counts < 0).any():
        raise ValueError("pixel_counts holds a negative count; counts come from numpy.bincount of the labels")
    present = counts > 0
    weights = np.zeros(counts.shape, np.float64)
    if present.any():
        base = counts[present].min() / counts[present]
        weights[present] = base ** (kl_from_uniform(counts) ** 3)
    return weights


def kl_from_uniform(pixel_counts: NDArray[np.int64] | NDArray[np.float64]) -> float:
    """Kullback-Leibler divergence, in nats, of the classes present from the uniform distribution over them.

    Args:
        pixel_counts: (C,) counts, at least one above 0.
    """
    counts = np.asarray(pixel_counts, np.float64)
    shares = counts[counts > 0] / counts.sum()
    return float((shares * np.log(shares * len(shares))).sum())


def mask_acquisition(
    soft_labels: Array,
    mask_ids: Array,
    labels: Array,
    class_weights: NDArray[np.float64],
    ignore: int = IGNORE,
) -> NDArray[np.float64]:
    """Acquisition of every mask of one image.

    a(m) = Σ_{x∈m} cos(f(x), f(m′)) · w(ŷ(x)) · (1 − f(ŷ(x); x)), where f(m′) is the mean soft label over the mask's
    pixels whose argmax is the mask's dominant argmax. A pixel labelled `ignore` takes its own argmax as label.

    The arrays may be numpy's or torch's; where the soft labels lie on a CUDA device, the work is done there. The first
    call on a CPU compiles the loops, a few seconds once on each machine.

    Args:
        soft_labels: (C, H, W) class probabilities, sum to 1 over C.
        mask_ids: (H, W) integers, 0 = no mask, 1..K.
        labels: (H, W) integers, class ids or `ignore`.
        class_weights: (C,) from `adaptive_class_weights`; all ones give the unweighted score (CIL with similarity).
        ignore: the label that means none.

    Returns:
        (K + 1,) float64, K the highest id in `mask_ids`; index = mask id, 0 for id 0. Higher = ask a person sooner.

    Raises:
        ValueError: for shapes that do not agree, a negative id, or a label that is no class.
    """
    _check_shapes(soft_labels, mask_ids, labels)
    engine, (soft, ids, held) = _engine(soft_labels, mask_ids, labels)
    masks = int(ids.max()) if math.prod(ids.shape) else 0
    _check_range("mask_ids", ids, masks + 1)
    outside = (held < 0) | (held >= len(soft))
    if (outside & (held != ignore)).any():
        _check_range("labels", held[held != ignore], len(soft))
    weights = np.asarray(class_weights, np.float64)
    scores: NDArray[np.float64] = engine.mask_acquisition(soft, ids, held, weights, ignore, masks)
    scores[0] = 0.0
    return scores


def acquisition_rows(
    soft_labels: Array, mask_ids: Array, masks: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """What ranking needs of one image, whatever labels its masks get later.

    All labels in a mask being equal, Σ_x cos · (1 − f(c; x)) for every class c replaces the pixels: a relabelling or
    new class statistics re-rank every mask with `rank_masks`, without the segmenter.

    The arrays may be numpy's or torch's; where the soft labels lie on a CUDA device, the work is done there. The first
    call on a CPU compiles the loops, a few seconds once on each machine.

    Args:
        soft_labels: (C, H, W) class probabilities.
        mask_ids: (H, W) integers, 0 = no mask, 1..K.
        masks: K.

    Returns:
        rows (K, C) float64, mean soft labels (K, C) float64, and dominant argmax (K,) int64. A mask without pixels
        has a row of zeros.

    Raises:
        ValueError: for shapes that do not agree, or an id that is negative or above K.
    """
    _check_shapes(soft_labels, mask_ids, mask_ids)
    engine, (soft, ids) = _engine(soft_labels, mask_ids)
    _check_range("mask_ids", ids, masks + 1)
    rows, means, dominant = engine.acquisition_rows(soft, ids, masks)
    return rows[1:], means[1:], dominant[1:]


def mask_values(
    rows: NDArray[np.float64],
    labels: NDArray[np.int64],
    class_weights: NDArray[np.float64],
    dominant: NDArray[np.int64],
    ignore: int = IGNORE,
) -> NDArray[np.float64]:
    """Acquisition of masks from their stored rows: ABC, the paper's.

    An unlabelled mask counts as its dominant argmax.

    Args:
        rows: (N, C) from `acquisition_rows`.
        labels: (N,) class ids or `ignore`.
        class_weights: (C,); all ones give CIL with similarity.
        dominant: (N,) dominant argmax of each mask.
        ignore: the label that means none.

    Returns:
        (N,) float64, higher = ask a person sooner.
    """
    effective = np.where(labels == ignore, dominant, labels)
    return np.asarray(rows[np.arange(len(rows)), effective] * class_weights[effective], np.float64)


def doubtful_values(
    values: NDArray[np.float64], areas: NDArray[np.int64], doubt: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Acquisition that also heeds the corrector's own doubt: sqrt(a · area · doubt), before ABC's weight.

    Measured against ABC alone in docs/method.md.

    Args:
        values: (N,) from `mask_values` with all class weights 1.
        areas: (N,) pixels.
        doubt: (N,) 1 − the corrector's probability of the label, 0 to 1.

    Returns:
        (N,) float64, higher = ask a person sooner; to be multiplied by the label's class weight.
    """
    return np.asarray(np.sqrt(np.maximum(values * areas * doubt, 0.0)), np.float64)


def rank_masks(values: NDArray[np.float64], askable: NDArray[np.bool_], budget: int) -> NDArray[np.int64]:
    """Choose the masks to ask people about.

    Args:
        values: (N,) acquisition, higher = sooner.
        askable: (N,) False for a mask that a person has corrected: it is never queried again.
        budget: masks to choose; fewer are returned when fewer can be asked.

    Returns:
        (n,) int64 indices, most valuable first; ties in index order.

    Raises:
        ValueError: for a budget below 1.
    """
    if budget < 1:
        raise ValueError(f"budget is {budget}; ask for at least 1 mask a round")
    candidates = np.flatnonzero(askable)
    urgency = -values[candidates]
    if budget < len(candidates):  # only what may be chosen is sorted; a NaN comes last
        kept = np.flatnonzero(~(urgency > np.partition(urgency, budget - 1)[budget - 1]))
        candidates, urgency = candidates[kept], urgency[kept]
    order = np.argsort(urgency, kind="stable")
    return candidates[order[:budget]].astype(np.int64)


def _check_shapes(soft_labels: Array, mask_ids: Array, labels: Array) -> None:
    if soft_labels.ndim != 3 or soft_labels.shape[1:] != mask_ids.shape or mask_ids.shape != labels.shape:
        raise ValueError(
            f"soft_labels {soft_labels.shape}, mask_ids {mask_ids.shape} and labels {labels.shape} do not agree; "
            "they are (C, H, W), (H, W), (H, W): enlarge the soft labels to the image first"
        )


def _check_range(name: str, values: Array, end: int) -> None:
    if math.prod(values.shape):
        least, most = int(values.min()), int(values.max())
        if least < 0 or most >= end:
            raise ValueError(f"{name} go from {least} to {most}; they are 0 to {end - 1} here")


def _engine(soft_labels: Array, *integers: Array) -> tuple[Any, list[Any]]:
    """The module that computes, imported here as the web process ranks without it, and the arrays as it takes them.

    Double precision stays, all else becomes single precision.
    """
    if not isinstance(soft_labels, np.ndarray) and soft_labels.is_cuda:
        from a2lc_backend import acquisition_cuda  # noqa: PLC0415

        return acquisition_cuda, acquisition_cuda.place(soft_labels, *integers)
    from a2lc_backend import acquisition_cpu  # noqa: PLC0415

    soft = _numpy(soft_labels)
    precision = np.float64 if soft.dtype == np.float64 else np.float32
    return acquisition_cpu, [np.require(soft, precision, ["C", "W"]), *map(_numpy, integers)]


def _numpy(array: Array) -> NDArray[Any]:
    if isinstance(array, np.ndarray):
        return array
    here = array.detach().cpu()
    return np.asarray(here.float() if here.is_floating_point() and here.dtype.itemsize < 4 else here)
