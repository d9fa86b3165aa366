"""θ, the segmenter: learns the pseudo-labels and gives soft labels, f_θ(x), per-pixel class probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Samples = Callable[[], Iterable[tuple[Array, NDArray[np.uint8]]]]
"""Gives each image's input (from `Segmenter.prepare`) and labels, (H, W) uint8, 255 = ignore; can be asked again."""

NAMES = ("head", "unet")


class SegmenterError(ValueError):
    """A segmenter cannot be built; the message names the mend."""


class Segmenter(Protocol):
    """A model of per-pixel classes. Deterministic for a seed on the CPU."""

    def prepare(self, image: NDArray[np.uint8]) -> Array:
        """What the model reads of an image, to be kept for all rounds: it does not depend on training.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        ...

    def fit(self, samples: Samples, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Train anew on the samples; without a single labelled pixel the soft labels stay uniform."""
        ...

    def soft_labels(self, prepared: Array) -> NDArray[np.float32]:
        """Class probabilities (C, h, w) float32 of an image, at the model's resolution; sum to 1 over C."""
        ...

    def state(self) -> bytes:
        """Everything that training changed."""
        ...

    def load(self, state: bytes) -> None:
        """Take over what `state` gave, so that the soft labels are the same to the bit."""
        ...


def make_segmenter(
    name: str, *, classes: int, device: str | None = None, backbone: Path | None = None, seed: int = 0
) -> Segmenter:
    """Build an untrained segmenter, importing torch only now.

    Args:
        name: `head`: a small head on frozen features; `unet`: a small U-Net from scratch.
        classes: C.
        device: `cuda` or `cpu`; what is there if None.
        backbone: of `head`: a `torch.export` file (.pt2) or the state dict of a torchvision ResNet (.pth).
        seed: of weights, samples and their order.

    Raises:
        SegmenterError: for an unknown name, or a backbone that is missing or cannot be read.
    """
    if name == "head":
        from a2lc_backend.segmenter.head import HeadSegmenter  # noqa: PLC0415

        if backbone is None:
            raise SegmenterError("the segmenter `head` needs a backbone; set A2LC_BACKBONE to its file, or use `unet`")
        return HeadSegmenter(classes, backbone, device, seed)
    if name == "unet":
        from a2lc_backend.segmenter.unet import UNetSegmenter  # noqa: PLC0415

        return UNetSegmenter(classes, device, seed)
    raise SegmenterError(f"no segmenter is named {name!r}; choose one of {', '.join(NAMES)}")


def enlarge(soft_labels: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bring soft labels to the size of their image: bilinear, pixel centres aligned, summing to 1 again.

    Args:
        soft_labels: (C, h, w) float32.
        size: height and width in pixels.

    Returns:
        (C, H, W) float32.
    """
    if soft_labels.shape[1:] == size:
        return soft_labels
    planes = [cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) for plane in soft_labels]
    enlarged = np.stack(planes).astype(np.float32)
    return np.asarray(enlarged / enlarged.sum(0, keepdims=True), np.float32)
