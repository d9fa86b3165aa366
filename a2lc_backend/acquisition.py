"""How much a person's look at a mask is worth: A²LC's adaptively balanced confidence (ABC)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE

if TYPE_CHECKING:
    import torch
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

    The arrays may be numpy's or torch's; the work is done on the device where the soft labels lie.

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
    import torch  # noqa: PLC0415 - the web process ranks without it

    from a2lc_backend.mask_sums import MaskSums, inverse_length, look_up  # noqa: PLC0415

    _check_shapes(soft_labels, mask_ids, labels)
    soft = _floats(soft_labels)
    ids = _integers(mask_ids, soft.device)
    held = _integers(labels, soft.device)
    masks = int(ids.max()) if ids.numel() else 0
    _check_range("mask_ids", ids, masks + 1)
    width = ids.shape[1]
    weights = torch.as_tensor(class_weights, dtype=soft.dtype, device=soft.device)

    def value(rows: slice, argmax: Tensor) -> Tensor:
        """The pixel's own value times f(x) / |f(x)|: their sum times f(m′) / |f(m′)| is a(m)."""
        label = torch.where(held[rows] == ignore, argmax, held[rows])
        _check_range("labels", label, len(soft))
        places = torch.arange(rows.start * width, rows.stop * width, device=soft.device).view(label.shape)
        confidence = torch.take(soft, label * ids.numel() + places)
        own = look_up(weights, label) * (1 - confidence)
        return soft[:, rows] * own.mul_(inverse_length(soft[:, rows]))

    image = MaskSums(soft, ids, masks)
    winners, sums = image.find_winners(value)
    scores: NDArray[np.float64] = (image.representatives(winners) * sums).sum(0).cpu().numpy()
    scores[0] = 0.0
    return scores


def acquisition_rows(
    soft_labels: Array, mask_ids: Array, masks: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """What ranking needs of one image, whatever labels its masks get later.

    All labels in a mask being equal, Σ_x cos · (1 − f(c; x)) for every class c replaces the pixels: a relabelling or
    new class statistics re-rank every mask with `rank_masks`, without the segmenter.

    The arrays may be numpy's or torch's; the work is done on the device where the soft labels lie.

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
    from a2lc_backend.mask_sums import MaskSums  # noqa: PLC0415 - the web process ranks without torch

    _check_shapes(soft_labels, mask_ids, mask_ids)
    soft = _floats(soft_labels)
    ids = _integers(mask_ids, soft.device)
    _check_range("mask_ids", ids, masks + 1)
    image = MaskSums(soft, ids, masks)
    winners, sums = image.find_winners(lambda rows, _: soft[:, rows])
    areas = ids.flatten().bincount(minlength=masks + 1).clamp_min(1)
    rows = image.sum_doubt(image.representatives(winners))
    return _of_masks(rows), _of_masks(sums / areas), winners.dominant[1:].cpu().numpy()


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


def _check_range(name: str, values: Tensor, end: int) -> None:
    if values.numel():
        least, most = (int(bound) for bound in values.aminmax())
        if least < 0 or most >= end:
            raise ValueError(f"{name} go from {least} to {most}; they are 0 to {end - 1} here")


def _floats(array: Array) -> Tensor:
    """Double precision stays, all else becomes single precision."""
    import torch  # noqa: PLC0415

    tensor = torch.as_tensor(np.require(array, requirements=["C", "W"])) if isinstance(array, np.ndarray) else array
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).contiguous()


def _integers(array: Array, device: torch.device) -> Tensor:
    import torch  # noqa: PLC0415

    wide = torch.from_numpy(array.astype(np.int64)) if isinstance(array, np.ndarray) else array.long()
    return wide.to(device)


def _of_masks(sums: Tensor) -> NDArray[np.float64]:
    """(C, K + 1) sums as (K, C) rows of numpy."""
    rows: NDArray[np.float64] = sums[:, 1:].T.cpu().numpy()
    return np.ascontiguousarray(rows)
