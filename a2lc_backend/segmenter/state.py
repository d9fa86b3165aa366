"""What all segmenters share: the device, labels checked and brought to the model's grid, and state as bytes."""

from __future__ import annotations

import io
from pickle import UnpicklingError

import numpy as np
import torch
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE
from a2lc_backend.segmenter import SegmenterError

BALANCE = 0.25
"""A class weighs as its pixel count to the power of minus this.

On `camvid` (first labels, 5 rounds at B 400, two seeds): 0 gives labels of 63.9 mIoU and a model of 45.2, 1/4 gives
63.7 and 46.9, 1/2 gives 63.4 and 48.5. Soft labels of rare classes gain, but their masks fill the queue.
"""


def choose_device(name: str | None) -> torch.device:
    """The device of a name, CUDA if there is any when the name is None.

    Raises:
        SegmenterError: for a name that torch does not know, or CUDA where there is none.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SegmenterError(f"torch knows no device {name!r}; set A2LC_DEVICE to cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SegmenterError(f"there is no CUDA for the device {name!r}; set A2LC_DEVICE to cpu or leave it empty")
    return device


def grid_labels(labels: NDArray[np.uint8], grid: tuple[int, int], classes: int) -> NDArray[np.uint8]:
    """The label under the centre of each cell of a model's grid.

    Args:
        labels: (H, W) uint8 class ids, or `IGNORE`.
        grid: height h and width w in cells.
        classes: C.

    Returns:
        (h, w) uint8.

    Raises:
        SegmenterError: for a label that is neither a class nor `IGNORE`.
    """
    rows, columns = (
        (2 * np.arange(cells) + 1) * side // (2 * cells) for cells, side in zip(grid, labels.shape, strict=True)
    )
    cells: NDArray[np.uint8] = labels[rows[:, None], columns[None, :]]
    check_labels(cells, classes)
    return cells


def check_labels(labels: NDArray[np.uint8], classes: int) -> None:
    """Raise SegmenterError for a label that is neither one of C classes nor `IGNORE`."""
    strange = labels[(labels >= classes) & (labels != IGNORE)]
    if len(strange):
        raise SegmenterError(
            f"a pixel has the label {strange[0]}, but there are {classes} classes; use 0 to {classes - 1}, "
            f"or {IGNORE} for no label"
        )


def uniform(classes: int, grid: tuple[int, int]) -> NDArray[np.float32]:
    """Soft labels of a model that knows nothing, (C, h, w)."""
    return np.full((classes, *grid), 1 / classes, np.float32)


def pad_classes(soft_labels: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """Give classes that a model was not trained for the probability 0, to (classes, h, w)."""
    return np.pad(soft_labels, ((0, classes - len(soft_labels)), (0, 0), (0, 0)))


def write_state(kind: str, classes: int, fingerprint: str, model: torch.nn.Module | None) -> bytes:
    """Spell out what was learned.

    Args:
        kind: of segmenter.
        classes: C at the time of training.
        fingerprint: of the segmenter's `prepare`.
        model: that learned it, None if there is none yet.
    """
    weights = None if model is None else model.state_dict()
    buffer = io.BytesIO()
    torch.save({"kind": kind, "classes": classes, "fingerprint": fingerprint, "weights": weights}, buffer)
    return buffer.getvalue()


def read_state(state: bytes, kind: str, classes: int, fingerprint: str) -> tuple[int, dict[str, torch.Tensor] | None]:
    """Read what `write_state` wrote.

    Args:
        state: the bytes.
        kind: expected.
        classes: at least as many as at the time of training.
        fingerprint: expected.

    Returns:
        The number of classes the model was trained for, and its state dict on the CPU.

    Raises:
        SegmenterError: for bytes of another kind, fingerprint or larger number of classes.
    """
    try:
        content = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        found, trained, prepared, weights = (content[key] for key in ("kind", "classes", "fingerprint", "weights"))
    except (RuntimeError, UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise SegmenterError(
            "the stored state of the segmenter cannot be read; run the round's training again"
        ) from error
    if (found, prepared) != (kind, fingerprint) or trained > classes:
        raise SegmenterError(
            f"the stored state is of a {found} segmenter ({prepared}) for {trained} classes, but this is a {kind} "
            f"({fingerprint}) for {classes}; start a new round, or put segmenter, backbone and label config back"
        )
    return trained, weights
