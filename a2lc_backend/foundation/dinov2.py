"""DINOv2 (Oquab et al., TMLR 2024), with or without register tokens, and DINOv3, by transformers as published."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from a2lc_backend.foundation.memory import in_batches
from a2lc_backend.foundation.pretrained import read_model, read_processor, weights_digest

_SIDE = 518
"""Longer side of an image as the model sees it, at most, in pixels: 37 patches of 14, the size of its training."""

_NAME = "dinov2-small"


class DinoV2:
    """DINOv2 behind `DenseModel`; its weights are read when they are first needed.

    Args:
        folder: a Dinov2Model, Dinov2WithRegistersModel or DINOv3ViTModel with its image processor, as
            `save_pretrained` writes them.
        device: to run on.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._lock = threading.Lock()

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the weights and their settings, and the side."""
        return f"dinov2-{weights_digest(self._folder, _NAME)}-{_SIDE}"

    @cached_property
    def _model(self) -> Any:
        from transformers import (  # noqa: PLC0415 - seconds to load
            Dinov2Model,
            Dinov2WithRegistersModel,
            DINOv3ViTModel,
        )

        families = {
            "dinov2": Dinov2Model, "dinov2_with_registers": Dinov2WithRegistersModel, "dinov3_vit": DINOv3ViTModel
        }  # fmt: skip
        return read_model(self._folder, families, _NAME, self._device)

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoImageProcessor  # noqa: PLC0415 - seconds to load

        return read_processor(self._folder, AutoImageProcessor, _NAME)

    def dense(self, image: NDArray[np.uint8]) -> NDArray[np.float16]:
        """See `DenseModel.dense`; one cell a patch, the tokens of the whole image and the registers left out.

        An image is shrunk to a longer side of 518 pixels, never enlarged, and both sides become multiples of the patch.
        """

        def see(images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float16]]:
            patch = int(self._model.config.patch_size)
            rows, columns = _grid(images[0].shape[:2], patch)
            pixels = self._processor(
                _resized(images[0], (rows * patch, columns * patch)), do_resize=False, do_center_crop=False,
                input_data_format="channels_last", return_tensors="pt",
            )["pixel_values"]  # fmt: skip
            with torch.inference_mode():
                states = self._model(pixels.to(self._device)).last_hidden_state[0, -rows * columns :]
            limit = float(np.finfo(np.float16).max)
            grid = states.float().T.reshape(-1, rows, columns).clamp(-limit, limit).half()
            return [grid.cpu().contiguous().numpy()]

        with self._lock:  # of several images at once each would take as many times as long, and as much memory
            (features,) = in_batches([image], see, 1, "DINOv2")
        return features


def _grid(size: tuple[int, ...], patch: int) -> tuple[int, int]:
    """Rows and columns of patches that stand for an image of some height and width."""
    scale = min(_SIDE / max(size), 1)
    rows, columns = (min(max(round(side * scale / patch), 1), _SIDE // patch) for side in size)
    return rows, columns


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    shrinks = size[0] < image.shape[0] or size[1] < image.shape[1]
    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(small, np.uint8)
