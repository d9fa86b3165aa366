"""A small U-Net trained from scratch, for projects without a backbone.

Measured on 48 drawn scenes (240×320, first labels a third wrong, val mIoU of 24 others): 300 steps of 4 images reach 55
in 12 to 20 s on two cores; steps of 8 images take twice as long and are no better.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from a2lc_backend.masks import IGNORE
from a2lc_backend.segmenter import Checkpoint, Prepared, Progress, Samples, SegmenterError
from a2lc_backend.segmenter.state import BALANCE, grid_labels, pad_classes, read_state, uniform, write_state

SIDE = 256
"""Longer side of an image as the network sees it, in pixels, at most."""

PAD = 32
"""Batches are padded to multiples of this, so that the coarsest level has 2×2 cells at least."""

MAX_IMAGES = 4096
"""Held in memory; of larger projects as many are drawn."""

BATCH = 4
STEPS_PER_IMAGE = 3
MIN_STEPS, MAX_STEPS = 300, 3000
LEARNING_RATE = 1e-2
REPORT_EVERY = 5


class UNet(nn.Module):
    """Four levels, 16 to 64 channels; logits at half the resolution of the input.

    Args:
        classes: C.
        seed: of the weights.
    """

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_layer(3, 16, stride=2), *_layer(16, 16))
        self.down = nn.ModuleList(
            [nn.Sequential(*_layer(16, 32), *_layer(32, 32)), nn.Sequential(*_layer(32, 64), *_layer(64, 64)),
             nn.Sequential(*_layer(64, 64), *_layer(64, 64))]
        )  # fmt: skip
        self.up = nn.ModuleList([nn.Sequential(*_layer(64 + 64, 64)), nn.Sequential(*_layer(64 + 32, 32)),
                                 nn.Sequential(*_layer(32 + 16, 32))])  # fmt: skip
        self.out = nn.Conv2d(32, classes, 1)
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, C, h/2, w/2) of images (N, 3, h, w) in [-1, 1], h and w multiples of `PAD`."""
        levels = [self.stem(images)]
        for stage in self.down:
            levels.append(stage(functional.max_pool2d(levels[-1], 2)))
        current = levels.pop()
        for stage in self.up:
            fine = levels.pop()
            coarse = functional.interpolate(current, fine.shape[2:], mode="bilinear", align_corners=False)
            current = stage(torch.cat([coarse, fine], dim=1))
        logits: torch.Tensor = self.out(current)
        return logits


def _layer(channels_in: int, channels_out: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(
        channels_in, channels_out, 3 if stride == 1 else 5, stride, 1 if stride == 1 else 2, bias=False
    )
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]


class UNetSegmenter:
    """A U-Net; a `fit` after a `fit` or `load` starts from what was learned and takes half the steps.

    Args:
        classes: C.
        device: to train and score on.
        seed: of weights, batches and flips.
    """

    def __init__(self, classes: int, device: torch.device, seed: int = 0) -> None:
        self._classes = classes
        self._device = device
        self._seed = seed
        self._net: UNet | None = None
        self._trained = classes

    @property
    def fingerprint(self) -> str:
        """See `Segmenter.fingerprint`."""
        return f"pixels-{SIDE}"

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """The image with a longer side of `SIDE` at most, (h, w, 3) uint8."""
        scale = SIDE / max(image.shape[:2])
        if scale >= 1:
            return image
        height, width = (max(round(side * scale), 1) for side in image.shape[:2])
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def fit(self, samples: Samples, progress: Progress | None = None, checkpoint: Checkpoint | None = None) -> None:
        """See `Segmenter.fit`; images may differ in size."""
        tell = progress or _silent
        rng = np.random.default_rng(self._seed)
        kept = self._read(samples, rng, tell)
        net = self._train(kept, rng, tell) if kept else None
        self._net, self._trained = net, self._classes

    def _read(
        self, samples: Samples, rng: np.random.Generator, tell: Progress
    ) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Images that have a label, with their labels at the network's output, (⌈h/2⌉, ⌈w/2⌉)."""
        kept: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
        seen = 0
        for prepared, labels in samples():
            tell(0, MIN_STEPS)
            image = _checked(prepared)
            cells = grid_labels(labels, _half(image), self._classes)
            if (cells == IGNORE).all():
                continue
            seen += 1
            if len(kept) < MAX_IMAGES:
                kept.append((image, cells))
            elif (place := int(rng.integers(seen))) < MAX_IMAGES:
                kept[place] = (image, cells)
        return kept

    def _train(
        self, kept: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]], rng: np.random.Generator, tell: Progress
    ) -> UNet:
        net = UNet(self._classes, self._seed)
        steps, rate = min(max(STEPS_PER_IMAGE * len(kept), MIN_STEPS), MAX_STEPS), LEARNING_RATE
        if self._net is not None and self._trained == self._classes:
            net.load_state_dict(self._net.state_dict())
            steps, rate = steps // 2, rate / 2
        net.train()
        net.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = self._class_weights([cells for _, cells in kept])
        optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        for step in range(steps):
            if step % REPORT_EVERY == 0:
                tell(step, steps)
            chosen = rng.choice(len(kept), min(BATCH, len(kept)), replace=False)
            images, targets = self._batch([kept[index] for index in chosen])
            if rng.random() < 0.5:
                images, targets = images.flip(3), targets.flip(2)
            optimizer.zero_grad()
            loss = functional.cross_entropy(net(images), targets, weight=weights, ignore_index=IGNORE)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        tell(steps, steps)
        return net.eval()

    def _class_weights(self, labels: list[NDArray[np.uint8]]) -> torch.Tensor:
        counts = np.zeros(IGNORE + 1)
        for cells in labels:
            counts += np.bincount(cells.ravel(), minlength=IGNORE + 1)
        weights = np.where(counts > 0, np.maximum(counts, 1) ** -BALANCE, 0)[: self._classes]
        return torch.from_numpy((weights / weights.max()).astype(np.float32)).to(self._device)

    def _batch(self, pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (N, 3, h, w) in [-1, 1] and labels (N, h/2, w/2), padded with grey and `IGNORE`."""
        height, width = (-(-max(image.shape[axis] for image, _ in pairs) // PAD) * PAD for axis in (0, 1))
        images = np.zeros((len(pairs), height, width, 3), np.float32)
        targets = np.full((len(pairs), height // 2, width // 2), IGNORE, np.int64)
        for place, (image, cells) in enumerate(pairs):
            images[place, : image.shape[0], : image.shape[1]] = image / np.float32(127.5) - 1
            targets[place, : cells.shape[0], : cells.shape[1]] = cells
        # Permuted, not copied: this is torch's channels_last.
        x = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
        return x, torch.from_numpy(targets).to(self._device)

    def soft_labels(self, prepared: Prepared) -> NDArray[np.float32]:
        """See `Segmenter.soft_labels`; (C, ⌈h/2⌉, ⌈w/2⌉) of the prepared image."""
        image = _checked(prepared)
        height, width = _half(image)
        if self._net is None:
            return uniform(self._classes, (height, width))
        images, _ = self._batch([(image, np.empty((0, 0), np.uint8))])
        with torch.inference_mode():
            soft = functional.softmax(self._net(images), dim=1)[0, :, :height, :width].cpu().numpy()
        return pad_classes(np.ascontiguousarray(soft, np.float32), self._classes)

    def state(self) -> bytes:
        """See `Segmenter.state`."""
        return write_state("unet", self._trained, self.fingerprint, self._net)

    def load(self, state: bytes) -> None:
        """See `Segmenter.load`."""
        trained, weights = read_state(state, "unet", self._classes, self.fingerprint)
        net = None
        if weights is not None:
            net = UNet(trained, self._seed)
            net.load_state_dict(weights)
            net.eval()
            net.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._net, self._trained = net, trained


def _half(image: NDArray[np.uint8]) -> tuple[int, int]:
    return -(-image.shape[0] // 2), -(-image.shape[1] // 2)


def _checked(prepared: Prepared) -> NDArray[np.uint8]:
    if prepared.ndim != 3 or prepared.shape[2] != 3 or prepared.dtype != np.uint8 or max(prepared.shape) > SIDE:
        raise SegmenterError(
            f"the U-Net reads images (h, w, 3) uint8 of {SIDE} pixels at most, not {prepared.shape} {prepared.dtype}; "
            "prepare the images again with this segmenter"
        )
    return prepared.astype(np.uint8, copy=False)


def _silent(done: int, total: int) -> None:
    pass
