"""DeepLabV3+, the network of the paper, trained whole: for those with a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch.nn import functional

from a2lc_backend.foundation import FoundationError
from a2lc_backend.foundation.memory import in_batches
from a2lc_backend.segmenter import ENCODERS, PAPER, Checkpoint, Prepared, Progress, Samples, SegmenterError, Training
from a2lc_backend.segmenter.crops import GREY, SIDE, STRIDE, checked
from a2lc_backend.segmenter.deeplab_net import build_network, logits, network_input
from a2lc_backend.segmenter.deeplab_training import Descent
from a2lc_backend.segmenter.state import pad_classes, read_state, uniform, write_state

CELL = 4
"""Pixels a side of a cell of the soft labels."""

MIN_TILE = 128
"""Least side in pixels of a part of an image that is scored by itself."""

TILES_AT_ONCE = 4

log = structlog.get_logger()


class DeepLabSegmenter:
    """DeepLabV3+; every `fit` starts anew from the encoder's weights, as the paper's rounds do.

    Args:
        classes: C.
        device: to train and score on; in mixed precision on CUDA.
        training: how it is built and trained.
        backbone: a state dict of the encoder by torchvision (.pth); random weights if None.
        seed: of weights, crops and dropout. The same seed gives the same network on the same CPU.

    Raises:
        SegmenterError: for an encoder that is not known, or a file that is not there or of another kind.
    """

    def __init__(
        self,
        classes: int,
        device: torch.device,
        training: Training = PAPER,
        backbone: Path | None = None,
        seed: int = 0,
    ) -> None:
        if training.encoder not in ENCODERS:
            raise SegmenterError(f"no encoder is named {training.encoder!r}; choose one of {', '.join(ENCODERS)}")
        if backbone is not None and (backbone.suffix == ".pt2" or not backbone.is_file()):
            raise SegmenterError(
                f"{backbone} cannot be the encoder of `deeplabv3plus`; set A2LC_BACKBONE to a .pth file, a state "
                f"dict of torchvision's {training.encoder}, or leave it empty"
            )
        self._classes, self._device, self._training = classes, device, training
        self._backbone, self._seed = backbone, seed
        self._kind = f"deeplabv3plus-{training.encoder}"
        self._net: Any = None
        self._trained = classes
        self._tile = SIDE

    @property
    def fingerprint(self) -> str:
        """See `Segmenter.fingerprint`."""
        return f"pixels-{SIDE}-{CELL}"

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """The image with a longer side of `SIDE` at most, (h, w, 3) uint8: 6.3 MB at 2048×1024.

        Both sides are whole cells, so that the soft labels' grid covers the image and no more.
        """
        scale = min(SIDE / max(image.shape[:2]), 1.0)
        height, width = (max(round(side * scale / CELL), 1) * CELL for side in image.shape[:2])
        if (height, width) == image.shape[:2]:
            return image
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)

    def fit(self, samples: Samples, progress: Progress | None = None, checkpoint: Checkpoint | None = None) -> None:
        """See `Segmenter.fit`; a training that was cut off ends as if it had not been, on the same CPU to the bit.

        Besides it raises SegmenterError if the encoder's weights cannot be read, or the device has too little memory.
        """
        descent = Descent(
            self._classes, self._device, self._training, self._backbone, self._seed, progress or _silent, checkpoint
        )
        self._net = descent.run(samples)
        self._trained = self._classes

    def soft_labels(self, prepared: Prepared) -> NDArray[np.float32]:
        """See `Segmenter.soft_labels`; (C, h/4, w/4) of the prepared image.

        With too little memory for the whole image it is scored in overlapping tiles, and so are all that follow; the
        network then sees less around each pixel. Raises SegmenterError if even the smallest tile does not fit.
        """
        image = checked(prepared)
        height, width = image.shape[:2]
        grid = (-(-height // CELL), -(-width // CELL))
        if self._net is None:
            return uniform(self._classes, grid)
        padded = np.full((_up(height), _up(width), 3), GREY, np.uint8)
        padded[:height, :width] = image
        soft = self._score(padded)[:, : grid[0], : grid[1]]
        return pad_classes(np.ascontiguousarray(soft), self._classes)

    def _score(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        while True:
            tops, lefts = (_starts(length, self._tile) for length in image.shape[:2])
            places = [(top, left) for top in tops for left in lefts]
            tiles = [image[top : top + self._tile, left : left + self._tile] for top, left in places]
            try:
                found = in_batches(tiles, self._forward, min(TILES_AT_ONCE, len(tiles)), "scoring with DeepLabV3+")
                return _joined(found, places, (image.shape[0] // CELL, image.shape[1] // CELL))
            except FoundationError as error:
                side = max(tiles[0].shape[:2])
                if side <= MIN_TILE:
                    raise SegmenterError(
                        f"the device has too little memory to score {side}×{side} pixels; set A2LC_ENCODER to a "
                        "smaller network, or A2LC_DEVICE to cpu"
                    ) from error
                self._tile = _up(side // 2)
                log.warning("out of memory; images are scored in tiles", pixels=self._tile)

    def _forward(self, tiles: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        with torch.inference_mode():
            found = logits(self._net, network_input(np.stack(tiles), self._device))
            return list(functional.softmax(found, dim=1).cpu().numpy())

    def state(self) -> bytes:
        """See `Segmenter.state`."""
        return write_state(self._kind, self._trained, self.fingerprint, self._net)

    def load(self, state: bytes) -> None:
        """See `Segmenter.load`."""
        trained, weights = read_state(state, self._kind, self._classes, self.fingerprint)
        net = None
        if weights is not None:
            net = build_network(self._training.encoder, trained, None, self._seed)
            net.load_state_dict(weights)
            net.eval()
            net.to(self._device, memory_format=torch.channels_last)
        self._net, self._trained = net, trained


def _up(side: int) -> int:
    """The next multiple of `STRIDE`."""
    return -(-side // STRIDE) * STRIDE


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin that cover a length and overlap by a quarter; all are multiples of `STRIDE`."""
    if length <= side:
        return [0]
    return [*range(0, length - side, _up(side * 3 // 4)), length - side]


def _joined(
    tiles: Sequence[NDArray[np.float32]], places: Sequence[tuple[int, int]], grid: tuple[int, int]
) -> NDArray[np.float32]:
    """Soft labels (C, h, w) of an image from those of its tiles; where tiles overlap, a cell's depth in each weighs.

    Args:
        tiles: (C, t, u) each.
        places: top and left of each in pixels.
        grid: h and w.
    """
    if len(tiles) == 1:
        return tiles[0]
    deep, wide = (np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)) for side in tiles[0].shape[1:])
    weight = np.outer(deep, wide).astype(np.float32)
    total = np.zeros((len(tiles[0]), *grid), np.float32)
    weights = np.zeros(grid, np.float32)
    for tile, (top, left) in zip(tiles, places, strict=True):
        inside = np.s_[top // CELL : top // CELL + weight.shape[0], left // CELL : left // CELL + weight.shape[1]]
        total[(slice(None), *inside)] += tile * weight
        weights[inside] += weight
    return total / weights


def _silent(done: int, total: int) -> None:
    pass
