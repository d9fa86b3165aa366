"""A small head on frozen features: trains in seconds, scores an image in milliseconds.

Measured on `camvid` (294 images with their first labels, mIoU of every fourth val image): linear 44.5, one hidden layer
of 64 45.5, of 128 45.9, of 256 46.3. Label smoothing .1 cost 1 mIoU of the model and 3 of the labels after 5 rounds,
because it levels the very doubts that ranking lives on; generalised cross-entropy changed neither by more than 1 and
tripled the calibration error.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from a2lc_backend.masks import IGNORE
from a2lc_backend.segmenter import Checkpoint, Prepared, Progress, Samples, SegmenterError
from a2lc_backend.segmenter.backbones import Backbone
from a2lc_backend.segmenter.state import BALANCE, grid_labels, pad_classes, read_state, uniform, write_state

HIDDEN = 128
PIXELS = 1000
"""Drawn from each image."""

MAX_PIXELS = 400_000
"""Held in memory; from larger projects fewer are drawn of each image."""

BATCH = 1024
EPOCHS = 4
MIN_STEPS, MAX_STEPS = 150, 800
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 1e-4
REPORT_EVERY = 20


class Head(nn.Module):
    """Standardisation and a perceptron with one hidden layer, for each cell by itself.

    Args:
        channels: D of the features.
        classes: C.
        seed: of the weights.
    """

    def __init__(self, channels: int, classes: int, seed: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.hidden = nn.Linear(channels, HIDDEN)
        self.out = nn.Linear(HIDDEN, classes)
        generator = torch.Generator().manual_seed(seed)
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="relu", generator=generator)
        nn.init.kaiming_normal_(self.out.weight, nonlinearity="linear", generator=generator)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.out.bias)

    def standardise(self, rows: torch.Tensor) -> None:
        """Take mean and spread from features (n, D); a channel that never varies is left out."""
        std, self.mean = torch.std_mean(rows.float(), dim=0, correction=0)
        self.scale = torch.where(std > 1e-4, 1 / std.clamp_min(1e-4), torch.zeros_like(std))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits (n, C) of features (n, D)."""
        logits: torch.Tensor = self.out(functional.relu(self.hidden((rows.float() - self.mean) * self.scale)))
        return logits


class HeadSegmenter:
    """A head that is trained anew on every `fit`; the backbone never changes.

    Args:
        backbone: makes the features that `prepare` returns.
        classes: C.
        device: to train and score on.
        seed: of weights, drawn pixels and batches.
    """

    def __init__(self, backbone: Backbone, classes: int, device: torch.device, seed: int = 0) -> None:
        self._backbone = backbone
        self._classes = classes
        self._device = device
        self._seed = seed
        self._head: Head | None = None
        self._trained = classes

    @property
    def fingerprint(self) -> str:
        """See `Segmenter.fingerprint`."""
        return self._backbone.fingerprint

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """Frozen features, (D, h, w) float16; 2.8 MB an image on `camvid`."""
        return self._backbone.features(image)

    def fit(self, samples: Samples, progress: Progress | None = None, checkpoint: Checkpoint | None = None) -> None:
        """See `Segmenter.fit`; pixels are drawn from every image and balanced half-way to the root over classes."""
        tell = progress or _silent
        drawn = PixelSample(self._classes, self._seed)
        for features, labels in samples():
            tell(0, MAX_STEPS)
            drawn.add(_checked(features), labels)
        rows, targets = drawn.rows()
        head = None if len(targets) == 0 else self._train(rows, targets, tell)
        self._head, self._trained = head, self._classes

    def _train(self, rows: NDArray[np.float16], targets: NDArray[np.int64], tell: Progress) -> Head:
        x, y = torch.from_numpy(rows).to(self._device), torch.from_numpy(targets).to(self._device)
        head = Head(x.shape[1], self._classes, self._seed).to(self._device)
        head.standardise(x)
        steps = min(max(EPOCHS * len(x) // BATCH, MIN_STEPS), MAX_STEPS)
        optimizer = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        generator = torch.Generator().manual_seed(self._seed)
        for step in range(steps):
            if step % REPORT_EVERY == 0:
                tell(step, steps)
            batch = torch.randint(len(x), (BATCH,), generator=generator).to(self._device)
            optimizer.zero_grad()
            functional.cross_entropy(head(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        tell(steps, steps)
        return head.eval()

    def soft_labels(self, prepared: Prepared) -> NDArray[np.float32]:
        """See `Segmenter.soft_labels`; (C, h, w) at the resolution of the features."""
        features = _checked(prepared)
        channels, *grid = features.shape
        if self._head is None:
            return uniform(self._classes, (grid[0], grid[1]))
        if channels != len(self._head.mean):
            raise SegmenterError(
                f"features of {channels} channels, but the head was trained on {len(self._head.mean)}; the backbone "
                "changed: prepare the images again"
            )
        with torch.inference_mode():
            cells = np.require(features.reshape(channels, -1), requirements="W")  # torch wants arrays it may write
            rows = torch.from_numpy(cells).to(self._device).float().T
            soft = functional.softmax(self._head(rows), dim=1).T.cpu().numpy()
        return pad_classes(np.ascontiguousarray(soft, np.float32).reshape(-1, *grid), self._classes)

    def state(self) -> bytes:
        """See `Segmenter.state`."""
        return write_state("head", self._trained, self.fingerprint, self._head)

    def load(self, state: bytes) -> None:
        """See `Segmenter.load`."""
        trained, weights = read_state(state, "head", self._classes, self.fingerprint)
        head = None
        if weights is not None:
            head = Head(len(weights["mean"]), trained, self._seed)
            head.load_state_dict(weights)
            head = head.to(self._device).eval()
        self._head, self._trained = head, trained


class PixelSample:
    """Labelled pixels drawn from image after image, with the memory bounded.

    Args:
        classes: C.
        seed: of what is drawn.
    """

    def __init__(self, classes: int, seed: int) -> None:
        self._classes = classes
        self._rng = np.random.default_rng(seed)
        self._share = PIXELS
        self._images = 1.0
        self._rows: list[NDArray[np.float16]] = []
        self._labels: list[NDArray[np.int64]] = []
        self._count = 0

    def add(self, features: NDArray[np.float16], labels: NDArray[np.uint8]) -> None:
        """Draw from one image.

        Args:
            features: (D, h, w).
            labels: (H, W) uint8 class ids, or `IGNORE`.

        Raises:
            SegmenterError: for a label that is no class, or features unlike those of the other images.
        """
        channels, *grid = features.shape
        if self._rows and channels != self._rows[0].shape[1]:
            raise SegmenterError(
                f"features of {channels} channels among features of {self._rows[0].shape[1]}; the backbone changed: "
                "prepare the images again"
            )
        cells = grid_labels(labels, (grid[0], grid[1]), self._classes).ravel()
        known = np.flatnonzero(cells != IGNORE)
        if len(known) == 0 or (self._images < 1 and self._rng.random() >= self._images):
            return
        weights = np.bincount(cells[known])[cells[known]] ** -BALANCE
        count = min(self._share, len(known))
        chosen = self._rng.choice(known, count, replace=False, p=weights / weights.sum())
        self._rows.append(np.ascontiguousarray(features.reshape(channels, -1)[:, chosen].T))
        self._labels.append(cells[chosen].astype(np.int64))
        self._count += count
        if self._count > MAX_PIXELS:
            self._thin()

    def _thin(self) -> None:
        """Keep every image's share, but halve it, now and for the images to come; at one pixel, halve the images."""
        if self._share == 1:
            self._images /= 2
            kept = np.flatnonzero(self._rng.random(len(self._rows)) < 0.5).tolist()
            self._rows, self._labels = [self._rows[image] for image in kept], [self._labels[image] for image in kept]
        self._share = max(self._share // 2, 1)
        # Each image's pixels lie in random order, so that its first ones are a fair choice.
        self._rows = [rows[: self._share].copy() for rows in self._rows]
        self._labels = [labels[: self._share] for labels in self._labels]
        self._count = sum(len(labels) for labels in self._labels)

    def rows(self) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        """What was drawn: features (n, D) and class ids (n,)."""
        if not self._rows:
            return np.empty((0, 0), np.float16), np.empty(0, np.int64)
        return np.concatenate(self._rows), np.concatenate(self._labels)


def _checked(prepared: Prepared) -> NDArray[np.float16]:
    if prepared.ndim != 3 or prepared.dtype != np.float16:
        raise SegmenterError(
            f"the head reads features (D, h, w) float16, not {prepared.shape} {prepared.dtype}; "
            "prepare the images again with this segmenter"
        )
    return prepared.astype(np.float16, copy=False)


def _silent(done: int, total: int) -> None:
    pass
