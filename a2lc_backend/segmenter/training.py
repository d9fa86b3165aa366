"""What the segmenters share: device, labels at the model's resolution, states as bytes."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from a2lc_backend.segmenter import SegmenterError


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the best there is.

    Raises:
        SegmenterError: for a device that is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SegmenterError(f"A2LC_DEVICE is {name!r}, but torch sees no GPU; set it to cpu or leave it empty")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise SegmenterError(f"A2LC_DEVICE is {name!r}; it is cuda or cpu") from error


def labels_at(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels (H, W) at another height and width: the label at each cell's centre."""
    resized = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, np.uint8)


def to_bytes(state: dict[str, Any]) -> bytes:
    """A dictionary of tensors and plain values as bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(state: bytes, device: torch.device) -> dict[str, Any]:
    """What `to_bytes` was given; nothing but tensors and plain values is loaded."""
    loaded: dict[str, Any] = torch.load(io.BytesIO(state), map_location=device, weights_only=True)
    return loaded
