"""θ, the model trained on the pseudo-labels: its soft labels f_θ(x) are per-pixel class probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Prepared = NDArray[np.generic]
"""What a segmenter reads of an image; only the segmenter that made it knows what is in it."""

Samples = Callable[[], Iterable[tuple[Prepared, NDArray[np.uint8]]]]
"""Gives, every time it is called, each image as prepared with its labels: (H, W) uint8 class ids at the size of the
image, `IGNORE` where a pixel has none."""

Progress = Callable[[int, int], None]
"""Called with units done and their number; what it raises ends the training and leaves the segmenter as it was."""


class SegmenterError(ValueError):
    """A segmenter cannot be built, trained or restored; the message says why and what mends it."""


class Checkpoint(Protocol):
    """Where a long training keeps how far it is, so that it can be resumed after it was cut off."""

    def read(self) -> bytes | None:
        """What was written last, None if nothing was or it is lost."""
        ...

    def write(self, state: bytes) -> None:
        """Keep this, in place of what was written before."""
        ...


ENCODERS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d")
"""Networks of torchvision that `deeplabv3plus` can stand on."""


@dataclass(frozen=True)
class Training:
    """How `deeplabv3plus` is built and trained; what is not said is as the paper has it for Cityscapes.

    Attributes:
        encoder: one of `ENCODERS`.
        iterations: steps of a training.
        crop: side in pixels of the squares that are cut out of images.
        batch: crops a step.
        learning_rate: of the decoder at the first step; the encoder has a tenth of it.
    """

    encoder: str = "resnet101"
    iterations: int = 30_000
    crop: int = 768
    batch: int = 8
    learning_rate: float = 0.05


PAPER = Training()


class Segmenter(Protocol):
    """A model of soft labels."""

    @property
    def fingerprint(self) -> str:
        """Name of what `prepare` does, short enough for a key; arrays prepared under another name are of no use."""
        ...

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """Reduce an image to what training and scoring read of it, once and for all rounds.

        Args:
            image: (H, W, 3) uint8, RGB.

        Returns:
            A small array to be stored, a few MB at most.

        Raises:
            SegmenterError: if the backbone cannot be used.
        """
        ...

    def fit(self, samples: Samples, progress: Progress | None = None, checkpoint: Checkpoint | None = None) -> None:
        """Train on pseudo-labels; the same samples and seed give the same soft labels on the same CPU.

        Without a single labelled pixel the soft labels are uniform.

        Args:
            samples: the images.
            progress: told of every few steps; while images are read the number of units is not known yet, and it is
                called with 0 done.
            checkpoint: of this training, for one that takes hours; quick ones begin anew instead.

        Raises:
            SegmenterError: for a label that is no class, or an array that this segmenter did not prepare.
        """
        ...

    def soft_labels(self, prepared: Prepared) -> NDArray[np.float32]:
        """Class probabilities f_θ(x) at the resolution of the model; see `enlarge`.

        Args:
            prepared: an image.

        Returns:
            (C, h, w) float32, sums to 1 over C; all 1/C before the first `fit`.

        Raises:
            SegmenterError: for an array that this segmenter did not prepare.
        """
        ...

    def state(self) -> bytes:
        """What was learned, so that `load` restores it exactly."""
        ...

    def load(self, state: bytes) -> None:
        """Take over what another segmenter of the same kind learned.

        Classes that came after the state was written get the probability 0.

        Raises:
            SegmenterError: if the bytes are no such state.
        """
        ...


NAMES = ("head", "unet", "deeplabv3plus")


def make_segmenter(
    name: str,
    *,
    classes: int,
    device: str | None = None,
    backbone: Path | None = None,
    seed: int = 0,
    training: Training = PAPER,
) -> Segmenter:
    """Build an untrained segmenter; this is where torch is imported.

    Args:
        name: `head`: a small head on the frozen features of a backbone; `unet`: a small U-Net trained from scratch;
            `deeplabv3plus`: the paper's network, trained whole, for a GPU.
        classes: C, 1 to 255.
        device: `cpu`, `cuda` or `cuda:1`; CUDA if there is any when not set.
        backbone: of `head`: a `torch.export` file (.pt2), or a state dict of a torchvision ResNet (.pth); of
            `deeplabv3plus`: such a state dict, from which its encoder starts, or None.
        seed: of weights, drawn pixels and batches.
        training: of `deeplabv3plus`.

    Raises:
        SegmenterError: for an unknown name, a number of classes that cannot be, a device or a backbone that is not
            there.
    """
    if name not in NAMES:
        raise SegmenterError(f"no segmenter is named {name!r}; choose one of {', '.join(NAMES)}")
    if not 1 <= classes <= 255:
        raise SegmenterError(f"{classes} classes cannot be; give the label config 1 to 255 labels")
    from a2lc_backend.segmenter.state import choose_device  # noqa: PLC0415 - torch takes seconds to load

    if name == "unet":
        from a2lc_backend.segmenter.unet import UNetSegmenter  # noqa: PLC0415

        return UNetSegmenter(classes, choose_device(device), seed)
    if name == "deeplabv3plus":
        from a2lc_backend.segmenter.deeplab import DeepLabSegmenter  # noqa: PLC0415

        return DeepLabSegmenter(classes, choose_device(device), training, backbone, seed)
    if backbone is None:
        raise SegmenterError("the segmenter `head` needs a backbone; set A2LC_BACKBONE to its file or choose `unet`")
    from a2lc_backend.segmenter.backbones import open_backbone  # noqa: PLC0415
    from a2lc_backend.segmenter.head import HeadSegmenter  # noqa: PLC0415

    chosen = choose_device(device)
    return HeadSegmenter(open_backbone(backbone, chosen), classes, chosen, seed)


def enlarge(soft_labels: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bring soft labels to the size of their image, bilinearly between cell centres.

    Args:
        soft_labels: (C, h, w) float32, sums to 1 over C.
        size: height H and width W in pixels.

    Returns:
        (C, H, W) float32, sums to 1 over C.
    """
    large = np.empty((len(soft_labels), *size), np.float32)
    # Weights of neighbours sum to 1, so what is made to sum to 1 while it is small still does when it is large.
    for probability, target in zip(soft_labels / soft_labels.sum(axis=0), large, strict=True):
        cv2.resize(probability, size[::-1], dst=target, interpolation=cv2.INTER_LINEAR)
    return large
