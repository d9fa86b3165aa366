"""A small U-Net trained from scratch, for projects without a backbone."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from a2lc_backend.masks import IGNORE
from a2lc_backend.segmenter import Array, Samples
from a2lc_backend.segmenter.training import choose_device, from_bytes, labels_at, to_bytes

_LONG_SIDE = 256
_STEPS = 200
_BATCH = 8
_RATE = 1e-2
_WIDTH = 16
_MULTIPLE = 16


class UNetSegmenter:
    """Four resolutions, output at half the input's; see `Segmenter`.

    Args:
        classes: C.
        device: `cuda`, `cpu` or None.
        seed: of weights, batches and flips.
    """

    def __init__(self, classes: int, device: str | None, seed: int) -> None:
        self._classes = classes
        self._seed = seed
        self._device = choose_device(device)
        self._network: nn.Module | None = None

    def prepare(self, image: NDArray[np.uint8]) -> Array:
        """The image with its long side at 256 pixels at most, (h, w, 3) uint8."""
        scale = min(1.0, _LONG_SIDE / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)

    def fit(self, samples: Samples, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Train on random batches of whole images with random mirroring, cross-entropy, one-cycle AdamW."""
        self._network = None
        inputs, targets = [], []
        for prepared, labels in samples():
            halved = (-(-prepared.shape[0] // 2), -(-prepared.shape[1] // 2))
            small = labels_at(labels, halved)
            if (small != IGNORE).any():
                inputs.append(prepared)
                targets.append(small)
        if not inputs:
            return
        random = np.random.default_rng(self._seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            network = self._build().train()
            optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-4)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS)
            for step in range(_STEPS):
                rows = random.choice(len(inputs), min(_BATCH, len(inputs)), replace=False)
                pixels, wanted = self._batch([inputs[row] for row in rows], [targets[row] for row in rows])
                if random.random() < 0.5:
                    pixels, wanted = pixels.flip(3), wanted.flip(2)
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(network(pixels), wanted, ignore_index=IGNORE)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                progress(step + 1, _STEPS)
        self._network = network.eval()

    def _build(self) -> _UNet:
        network = _UNet(self._classes).to(self._device)
        return network.to(memory_format=torch.channels_last)

    def _batch(self, images: list[Array], labels: list[Array]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images padded with black and labels padded with `IGNORE` to one size that the network can halve."""
        height = _rounded_up(max(image.shape[0] for image in images))
        width = _rounded_up(max(image.shape[1] for image in images))
        pixels = np.zeros((len(images), height, width, 3), np.uint8)
        targets = np.full((len(images), height // 2, width // 2), IGNORE, np.uint8)
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            pixels[row, : image.shape[0], : image.shape[1]] = image
            targets[row, : label.shape[0], : label.shape[1]] = label
        return self._tensor(pixels), torch.from_numpy(targets).to(self._device, torch.long)

    def _tensor(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        tensor = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
        return tensor.contiguous(memory_format=torch.channels_last)

    def soft_labels(self, prepared: Array) -> NDArray[np.float32]:
        """See `Segmenter.soft_labels`; half the size of `prepared`, rounded up."""
        height, width = -(-prepared.shape[0] // 2), -(-prepared.shape[1] // 2)
        if self._network is None:
            return np.full((self._classes, height, width), 1.0 / self._classes, np.float32)
        padded = np.zeros((1, _rounded_up(prepared.shape[0]), _rounded_up(prepared.shape[1]), 3), np.uint8)
        padded[0, : prepared.shape[0], : prepared.shape[1]] = prepared
        with torch.inference_mode():
            soft = torch.softmax(self._network(self._tensor(padded)), 1)[0, :, :height, :width]
        return np.ascontiguousarray(soft.cpu().numpy())

    def state(self) -> bytes:
        """See `Segmenter.state`."""
        return to_bytes({"weights": self._network.state_dict() if self._network is not None else None})

    def load(self, state: bytes) -> None:
        """See `Segmenter.load`."""
        weights = from_bytes(state, self._device)["weights"]
        self._network = None
        if weights is not None:
            network = self._build()
            network.load_state_dict(weights)
            self._network = network.eval()


def _rounded_up(side: int) -> int:
    return -(-side // _MULTIPLE) * _MULTIPLE


def _convolve(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _UNet(nn.Module):
    def __init__(self, classes: int, width: int = _WIDTH) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.down = nn.ModuleList(
            [
                _convolve(width, width),
                nn.Sequential(_convolve(width, 2 * width), _convolve(2 * width, 2 * width)),
                nn.Sequential(_convolve(2 * width, 4 * width), _convolve(4 * width, 4 * width)),
                nn.Sequential(_convolve(4 * width, 4 * width), _convolve(4 * width, 4 * width)),
            ]
        )
        self.up = nn.ModuleList(
            [_convolve(8 * width, 4 * width), _convolve(6 * width, 2 * width), _convolve(3 * width, 2 * width)]
        )
        self.out = nn.Conv2d(2 * width, classes, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits (N, C, h / 2, w / 2) of pixels (N, 3, h, w); both sides are multiples of 16."""
        level = self.stem(pixels)
        levels = []
        for index, block in enumerate(self.down):
            level = block(level if index == 0 else nn.functional.max_pool2d(level, 2))
            levels.append(level)
        for block, skip in zip(self.up, reversed(levels[:-1]), strict=True):
            grown = nn.functional.interpolate(level, size=skip.shape[2:], mode="bilinear", align_corners=False)
            level = block(torch.cat([grown, skip], 1))
        logits: torch.Tensor = self.out(level)
        return logits
