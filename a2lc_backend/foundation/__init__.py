"""Foundation models: masks by prompt, boxes by text, dense features; images in, arrays out.

Coordinates are x, y in pixels of the image, the centre of the first pixel at (0, 0), as segment-anything counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class FoundationError(RuntimeError):
    """A foundation model cannot be used; the message says why and what mends it."""


class ModelUnusableError(FoundationError):
    """A model's weights are missing, damaged, or too large for the device: it can be asked about no image."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """What a model of masks by prompt keeps of an image, so that prompts are answered without its encoder.

    Attributes:
        arrays: by name, float16; only the model that made them knows what is in them.
        size: height and width of the image in pixels.
        fingerprint: of the model that made it.
    """

    arrays: Mapping[str, NDArray[np.float16]]
    size: tuple[int, int]
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Prompts:
    """What points at one mask of an image.

    Attributes:
        points: (N, 2) float64, x and y.
        positive: (N,) bool; False where the mask must not be.
        box: (4,) float64: left, top, right, bottom; None for none.
        mask: (H, W) bool, a rough mask to begin with; None for none.
    """

    points: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    positive: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    box: NDArray[np.float64] | None = None
    mask: NDArray[np.bool_] | None = None


class PromptedModel(Protocol):
    """A model of masks by prompt: an encoder that sees an image once, and a decoder that is asked often.

    An instance may be used from many threads at once, also for different images.
    """

    @property
    def fingerprint(self) -> str:
        """Name of the weights and of what else decides an embedding, short enough for a key."""
        ...

    def warm(self) -> None:
        """Read the weights now, so that nobody waits for them later.

        Raises:
            FoundationError: if they cannot be used.
        """
        ...

    def embed(self, image: NDArray[np.uint8]) -> Embedding:
        """Run the encoder.

        Args:
            image: (H, W, 3) uint8, RGB.

        Raises:
            FoundationError: if the weights cannot be used, or the device has too little memory for one image.
        """
        ...

    def mask(self, embedding: Embedding, prompts: Prompts) -> tuple[NDArray[np.bool_], float]:
        """The mask that prompts point at.

        One lone point is ambiguous: of the three masks that the model then offers, the one it thinks best.

        Args:
            embedding: of the image, from `embed` of a model of the same fingerprint.
            prompts: at least one point, a box or a mask.

        Returns:
            (H, W) bool, and the model's estimate of its IoU, higher = better.

        Raises:
            FoundationError: for an embedding of another model, or no prompt at all.
        """
        ...

    def box_masks(self, embedding: Embedding, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """One mask a box, many boxes at a time.

        Args:
            embedding: of the image.
            boxes: (N, 4) left, top, right, bottom.

        Returns:
            (N, H, W) bool.
        """
        ...

    def everything(self, embedding: Embedding) -> Iterator[NDArray[np.bool_]]:
        """All masks found without a prompt, (H, W) bool each, one at a time; they may overlap.

        Args:
            embedding: of the image.

        Raises:
            FoundationError: for an embedding of another model, or if the device has too little memory even for the
                smallest batch.
        """
        ...

    def dense(self, embedding: Embedding) -> NDArray[np.float16]:
        """The features of an image, (D, h, w) float16, padding cut away: the grid covers the image, no more."""
        ...


@dataclass(frozen=True, eq=False)
class Boxes:
    """What a detector found in an image.

    Attributes:
        boxes: (N, 4) float64: left, top, right, bottom; edges from 0 to the image's width and height, as detectors give
            them and SAM takes them, while points count from the centre of the first pixel.
        scores: (N,) float64 in 0–1, higher = surer.
        phrases: (N,) int64, index of the phrase that each box answers.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    phrases: NDArray[np.int64]


class Detector(Protocol):
    """A model of boxes by text."""

    @property
    def fingerprint(self) -> str:
        """Name of the weights."""
        ...

    def detect(self, image: NDArray[np.uint8], phrases: Sequence[str], threshold: float) -> Boxes:
        """Find what phrases name.

        Args:
            image: (H, W, 3) uint8, RGB.
            phrases: words such as "traffic light", one or more; no phrase contains a full stop.
            threshold: least score of a box.

        Raises:
            FoundationError: if the weights cannot be used, or the device has too little memory.
        """
        ...


class DenseModel(Protocol):
    """A model of features by patch."""

    @property
    def fingerprint(self) -> str:
        """Name of the weights and of what else decides the features."""
        ...

    def dense(self, image: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Features (D, h, w) float16 of an image (H, W, 3) uint8 RGB; the grid covers the image, no more.

        Raises:
            FoundationError: if the weights cannot be used, or the device has too little memory.
        """
        ...
