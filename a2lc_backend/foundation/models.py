"""Foundation models by the name of their weights, each opened once a process and kept warm."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from a2lc_backend.foundation import DenseModel, Detector, FoundationError, PromptedModel

if TYPE_CHECKING:
    import torch

Model = TypeVar("Model")


class Models:
    """Opens models when they are first asked for; their weights are read when they are first used.

    Args:
        path: gives the file or folder of weights by name; raises FoundationError for what is not there.
        device: `cuda` or `cpu`; what is there if None.
    """

    def __init__(self, path: Callable[[str], Path], device: str | None = None) -> None:
        self._path, self._device = path, device
        self._lock = threading.Lock()
        self._open: dict[str, object] = {}

    def prompted(self, name: str) -> PromptedModel:
        """A model of masks by prompt: `sam-vit-…` or `sam2…`.

        Raises:
            FoundationError: if the name is no such model's, or its weights are not there.
        """
        if name.startswith("sam2"):
            from a2lc_backend.foundation.sam2 import Sam2  # noqa: PLC0415 - loads torch and transformers

            return self._once(name, lambda: Sam2(self._path(name), self._torch_device()))
        if name.startswith("sam-"):
            from a2lc_backend.foundation.sam import Sam  # noqa: PLC0415 - loads torch

            return self._once(name, lambda: Sam(self._path(name), self._torch_device()))
        raise FoundationError(f"{name!r} makes no masks by prompt; choose weights named sam-vit-… or sam2…")

    def detector(self, name: str) -> Detector:
        """A model of boxes by text: `grounding-dino-…`.

        Raises:
            FoundationError: if the name is no such model's, or its weights are not there.
        """
        if not name.startswith("grounding-dino"):
            raise FoundationError(f"{name!r} finds no boxes by text; choose weights named grounding-dino-…")
        from a2lc_backend.foundation.grounding import GroundingDino  # noqa: PLC0415 - loads torch and transformers

        return self._once(name, lambda: GroundingDino(self._path(name), self._torch_device()))

    def dense(self, name: str) -> DenseModel:
        """A model of features by patch: `dinov2-…` or `dinov3-…`.

        Raises:
            FoundationError: if the name is no such model's, or its weights are not there.
        """
        if not name.startswith(("dinov2", "dinov3")):
            raise FoundationError(f"{name!r} gives no features by patch; choose weights named dinov2-… or dinov3-…")
        from a2lc_backend.foundation.dinov2 import DinoV2  # noqa: PLC0415 - loads torch and transformers

        return self._once(name, lambda: DinoV2(self._path(name), self._torch_device()))

    def _once(self, name: str, make: Callable[[], Model]) -> Model:
        with self._lock:
            if name not in self._open:
                self._open[name] = make()
            return self._open[name]  # type: ignore[return-value]

    def _torch_device(self) -> torch.device:
        from a2lc_backend.segmenter.state import choose_device  # noqa: PLC0415 - loads torch

        return choose_device(self._device)
