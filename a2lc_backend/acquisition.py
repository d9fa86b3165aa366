"""How much a person's look at a mask is worth: A²LC's adaptively balanced confidence (ABC)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE


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
    soft_labels: NDArray[np.float32],
    mask_ids: NDArray[np.integer],
    labels: NDArray[np.integer],
    class_weights: NDArray[np.float64],
    ignore: int = IGNORE,
) -> NDArray[np.float64]:
    """Acquisition of every mask of one image.

    a(m) = Σ_{x∈m} cos(f(x), f(m′)) · w(ŷ(x)) · (1 − f(ŷ(x); x)), where f(m′) is the mean soft label over the mask's
    pixels whose argmax is the mask's dominant argmax. A pixel labelled `ignore` takes its own argmax as label.

    Args:
        soft_labels: (C, H, W) class probabilities, sum to 1 over C.
        mask_ids: (H, W) integers, 0 = no mask, 1..K.
        labels: (H, W) integers, class ids or `ignore`.
        class_weights: (C,) from `adaptive_class_weights`; all ones give the unweighted score (CIL with similarity).
        ignore: the label that means none.

    Returns:
        (K + 1,) float64, K the highest id in `mask_ids`; index = mask id, 0 for id 0. Higher = ask a person sooner.

    Raises:
        ValueError: for shapes that do not agree.
    """
    _check_shapes(soft_labels, mask_ids, labels)
    classes = soft_labels.shape[0]
    ids = mask_ids.ravel()
    soft = soft_labels.reshape(classes, -1)
    flat_labels = labels.ravel()
    argmax = soft.argmax(0)
    pixel_labels = np.where(flat_labels == ignore, argmax, flat_labels)
    confidence = np.take_along_axis(soft, pixel_labels[None], 0)[0].astype(np.float64)
    value = _similarity(soft, ids, argmax) * np.asarray(class_weights)[pixel_labels] * (1.0 - confidence)
    scores = np.bincount(ids, weights=value, minlength=int(ids.max(initial=0)) + 1).astype(np.float64)
    scores[0] = 0.0
    return scores


def acquisition_rows(
    soft_labels: NDArray[np.float32], mask_ids: NDArray[np.integer], masks: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """What ranking needs of one image, whatever labels its masks get later.

    All labels in a mask being equal, Σ_x cos · (1 − f(c; x)) for every class c replaces the pixels: a relabelling or
    new class statistics re-rank every mask with `rank_masks`, without the segmenter.

    Args:
        soft_labels: (C, H, W) class probabilities.
        mask_ids: (H, W) integers, 0 = no mask, 1..K.
        masks: K.

    Returns:
        rows (K, C) float64, mean soft labels (K, C) float64, and dominant argmax (K,) int64. A mask without pixels
        has a row of zeros.
    """
    _check_shapes(soft_labels, mask_ids, mask_ids)
    classes = soft_labels.shape[0]
    ids = mask_ids.ravel()
    soft = soft_labels.reshape(classes, -1)
    argmax = soft.argmax(0)
    similarity = _similarity(soft, ids, argmax)
    areas = np.maximum(np.bincount(ids, minlength=masks + 1)[1:], 1)
    total = np.bincount(ids, weights=similarity, minlength=masks + 1)[1:]
    rows = np.empty((masks, classes))
    means = np.empty((masks, classes))
    for c in range(classes):
        rows[:, c] = total - np.bincount(ids, weights=similarity * soft[c], minlength=masks + 1)[1:]
        means[:, c] = np.bincount(ids, weights=soft[c], minlength=masks + 1)[1:] / areas
    return rows, means, _dominant(ids, argmax, masks + 1, classes)[1:]


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
    return np.asarray(np.take_along_axis(rows, effective[:, None], 1)[:, 0] * class_weights[effective], np.float64)


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
    order = np.argsort(-values[candidates], kind="stable")
    return candidates[order[:budget]].astype(np.int64)


def _check_shapes(soft_labels: NDArray[np.float32], mask_ids: NDArray[np.integer], labels: NDArray[np.integer]) -> None:
    if soft_labels.ndim != 3 or soft_labels.shape[1:] != mask_ids.shape or mask_ids.shape != labels.shape:
        raise ValueError(
            f"soft_labels {soft_labels.shape}, mask_ids {mask_ids.shape} and labels {labels.shape} do not agree; "
            "they are (C, H, W), (H, W), (H, W): enlarge the soft labels to the image first"
        )


def _dominant(ids: NDArray[np.integer], argmax: NDArray[np.int64], rows: int, classes: int) -> NDArray[np.int64]:
    """The most frequent argmax of each mask id, (rows,); ties go to the lower class."""
    votes = np.bincount(ids.astype(np.int64) * classes + argmax, minlength=rows * classes)
    return np.asarray(votes.reshape(rows, classes).argmax(1), np.int64)


def _similarity(soft: NDArray[np.float32], ids: NDArray[np.integer], argmax: NDArray[np.int64]) -> NDArray[np.float64]:
    """cos(f(x), f(m′)) of every pixel with its own mask's representative, (P,) float64."""
    classes = soft.shape[0]
    rows = int(ids.max(initial=0)) + 1
    agrees = argmax == _dominant(ids, argmax, rows, classes)[ids]
    kept_ids = ids[agrees]
    dot = np.zeros(ids.shape)
    square = np.zeros(ids.shape)
    representative_square = np.zeros(rows)
    for c in range(classes):
        plane = soft[c].astype(np.float64)
        representative = np.bincount(kept_ids, weights=plane[agrees], minlength=rows)
        representative_square += representative**2
        dot += plane * representative[ids]
        square += plane**2
    # The representative's length cancels in the cosine, so the sum stands for the mean.
    scale = np.sqrt(square * representative_square[ids])
    similarity: NDArray[np.float64] = np.divide(dot, scale, out=np.zeros_like(dot), where=scale > math.ulp(0.0))
    return similarity


def explore_masks(chosen: NDArray[np.int64], askable: NDArray[np.bool_], share: float, seed: int) -> NDArray[np.int64]:
    """Give the last places of a queue to masks drawn at random.

    People then also see masks that no ranking asks about, and the corrector learns what most of the pool looks like.

    Args:
        chosen: (n,) the queue, most valuable first.
        askable: (N,) as in `rank_masks`.
        share: of the queue, 0 to 1, rounded down.
        seed: of the draw.

    Returns:
        (n,) int64, the best masks, then the drawn ones.
    """
    drawn = int(share * len(chosen))
    kept = chosen[: len(chosen) - drawn]
    others = np.setdiff1d(np.flatnonzero(askable), kept)
    random = np.random.default_rng(seed)
    return np.asarray(np.concatenate([kept, random.choice(others, drawn, replace=False)]), np.int64)
