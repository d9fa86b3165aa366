"""Acquisition of one image where its soft labels lie on a GPU; the sums of `acquisition_cpu` in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize


def place(soft: Tensor, *integers: NDArray[Any] | Tensor) -> list[Tensor]:
    """Bring integers, as int64, to where the soft labels lie; these become single precision unless they are double."""
    wide = [torch.from_numpy(part.astype(np.int64)) if isinstance(part, np.ndarray) else part for part in integers]
    floats = soft.detach() if soft.dtype == torch.float64 else soft.detach().float()
    return [floats, *(part.to(soft.device).long() for part in wide)]


def mask_acquisition(
    soft: Tensor, ids: Tensor, labels: Tensor, weights: NDArray[np.float64], ignore: int, masks: int
) -> NDArray[np.float64]:
    """a(m) of `acquisition.mask_acquisition`: f(m′) / |f(m′)| · Σ_x f(x) / |f(x)| · w(ŷ) (1 − f(ŷ; x)).

    Args:
        soft: (C, H, W), single or double precision.
        ids: (H, W) int64, 0..K.
        labels: (H, W) int64, class ids or `ignore`.
        weights: (C,).
        ignore: the label that means none.
        masks: K.

    Returns:
        (K + 1,); that of id 0 means nothing.
    """
    argmax = soft.argmax(0)
    label = torch.where(labels == ignore, argmax, labels)
    own = torch.as_tensor(weights, dtype=soft.dtype, device=soft.device)[label]
    value = own * (1 - soft.gather(0, label[None])[0]) * _inverse_length(soft)
    _, towards = _dominant(soft, ids, argmax, masks)
    return np.asarray((towards * _sum(soft, value, ids, masks)).sum(1).cpu())


def acquisition_rows(
    soft: Tensor, ids: Tensor, masks: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """What `acquisition.acquisition_rows` returns, with an entry for id 0 that means nothing.

    Args:
        soft: (C, H, W), single or double precision.
        ids: (H, W) int64, 0..K.
        masks: K.

    Returns:
        rows (K + 1, C), mean soft labels (K + 1, C), dominant argmax (K + 1,).
    """
    dominant, towards = _dominant(soft, ids, soft.argmax(0), masks)
    similarity = torch.zeros_like(soft[0])
    for probability, part in zip(soft, towards.T.to(soft.dtype), strict=True):
        similarity += probability * part[ids]
    similarity *= _inverse_length(soft)
    areas = ids.flatten().bincount(minlength=masks + 1).clamp_min(1)
    means = _sum(soft, torch.ones_like(similarity), ids, masks) / areas[:, None]
    rows = _sum(1 - soft, similarity, ids, masks)
    return np.asarray(rows.cpu()), np.asarray(means.cpu()), np.asarray(dominant.cpu())


def _dominant(soft: Tensor, ids: Tensor, argmax: Tensor, masks: int) -> tuple[Tensor, Tensor]:
    """Dominant argmax (K + 1,), ties to the lower class, and f(m′) brought to length 1 (K + 1, C)."""
    classes = len(soft)
    votes = (ids * classes + argmax).flatten().bincount(minlength=(masks + 1) * classes)
    dominant = votes.view(masks + 1, classes).argmax(1)
    agrees = (dominant[ids] == argmax).to(soft.dtype)
    return dominant, normalize(_sum(soft, agrees, ids, masks), dim=1)


def _inverse_length(soft: Tensor) -> Tensor:
    """1 / |f(x)| (H, W); 0 for a soft label of zeros, which is like no other."""
    squares = (soft * soft).sum(0)
    return torch.where(squares == 0, 0, squares.rsqrt())


def _sum(soft: Tensor, value: Tensor, ids: Tensor, masks: int) -> Tensor:
    """Σ f(x) · value(x) over the pixels of each mask, (K + 1, C) float64."""
    flat = ids.flatten()
    return torch.stack(
        [flat.bincount((probability * value).flatten().double(), minlength=masks + 1) for probability in soft], 1
    )
