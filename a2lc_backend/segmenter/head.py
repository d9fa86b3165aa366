"""A small head on the features of a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from a2lc_backend.masks import IGNORE
from a2lc_backend.segmenter import Array, Samples
from a2lc_backend.segmenter.backbones import open_backbone
from a2lc_backend.segmenter.training import choose_device, from_bytes, labels_at, to_bytes

_HIDDEN = 128
_PIXELS_AN_IMAGE = 1000
_EPOCHS = 3
_BATCH = 1024
_RATE = 3e-3
_BALANCE = 0.5
"""Pixels are drawn with weight count(class in the image)^-0.5: between as they come (0) and class by class (1)."""


class HeadSegmenter:
    """An MLP of one hidden layer on every feature vector; see `Segmenter`.

    Args:
        classes: C.
        backbone: file of the frozen feature extractor; opened when the first image is prepared.
        device: `cuda`, `cpu` or None.
        seed: of weights and sampling.
    """

    def __init__(self, classes: int, backbone: Path, device: str | None, seed: int) -> None:
        self._classes = classes
        self._seed = seed
        self._device = choose_device(device)
        self._backbone_file = backbone
        self._backbone: Callable[[NDArray[np.uint8]], NDArray[np.float16]] | None = None
        self._state: dict[str, Any] | None = None
        self._network: nn.Module | None = None

    def prepare(self, image: NDArray[np.uint8]) -> Array:
        """Frozen features of an image, (D, h, w) float16."""
        if self._backbone is None:
            self._backbone = open_backbone(self._backbone_file, self._device)
        return self._backbone(image)

    def fit(self, samples: Samples, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Train on a sample of the labelled pixels of each image, cross-entropy, one-cycle Adam."""
        self._network = self._state = None
        features, labels = self._sample(samples)
        if len(labels) == 0:
            return
        mean, spread = features.mean(0), features.std(0) + 1e-5
        features = (features - mean) / spread
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            network = self._build(features.shape[1]).to(self._device)
            steps = _EPOCHS * ((len(labels) + _BATCH - 1) // _BATCH)
            optimizer = torch.optim.Adam(network.parameters(), lr=_RATE, weight_decay=1e-4)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
            done = 0
            for _ in range(_EPOCHS):
                for batch in torch.split(torch.randperm(len(labels)), _BATCH):
                    rows = batch.to(self._device)
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(network(features[rows]), labels[rows])
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
                    done += 1
                    progress(done, steps)
        self._state = {"mean": mean, "spread": spread, "weights": network.state_dict()}
        self._network = network.eval()

    def _sample(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        random = np.random.default_rng(self._seed)
        chosen_features: list[Array] = []
        chosen_labels: list[Array] = []
        for prepared, labels in samples():
            depth, height, width = prepared.shape
            targets = labels_at(labels, (height, width)).ravel()
            known = np.flatnonzero(targets != IGNORE)
            if len(known) == 0:
                continue
            counts = np.bincount(targets[known], minlength=self._classes)
            weights = (1.0 / np.maximum(counts, 1) ** _BALANCE)[targets[known]]
            count = min(_PIXELS_AN_IMAGE, len(known))
            pixels = np.sort(random.choice(known, count, replace=False, p=weights / weights.sum()))
            chosen_features.append(prepared.reshape(depth, -1)[:, pixels].T)
            chosen_labels.append(targets[pixels])
        if not chosen_labels:
            return torch.empty((0, 0)), torch.empty(0, dtype=torch.long)
        features = torch.from_numpy(np.concatenate(chosen_features)).to(self._device, torch.float32)
        return features, torch.from_numpy(np.concatenate(chosen_labels)).to(self._device, torch.long)

    def _build(self, depth: int) -> nn.Module:
        return nn.Sequential(nn.Linear(depth, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, self._classes))

    def soft_labels(self, prepared: Array) -> NDArray[np.float32]:
        """See `Segmenter.soft_labels`."""
        depth, height, width = prepared.shape
        if self._network is None or self._state is None:
            return np.full((self._classes, height, width), 1.0 / self._classes, np.float32)
        with torch.inference_mode():
            rows = torch.from_numpy(prepared.reshape(depth, -1)).to(self._device).float().T
            rows = (rows - self._state["mean"]) / self._state["spread"]
            soft = torch.softmax(self._network(rows), 1).T.reshape(self._classes, height, width)
        return np.ascontiguousarray(soft.cpu().numpy())

    def state(self) -> bytes:
        """See `Segmenter.state`."""
        return to_bytes({"trained": self._state})

    def load(self, state: bytes) -> None:
        """See `Segmenter.load`."""
        self._state, self._network = from_bytes(state, self._device)["trained"], None
        if self._state is not None:
            network = self._build(len(self._state["mean"])).to(self._device)
            network.load_state_dict(self._state["weights"])
            self._network = network.eval()
