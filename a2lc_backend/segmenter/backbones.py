"""Frozen feature extractors: an exported program, or a torchvision ResNet from a file of weights."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export.passes import move_to_device_pass
from torch.nn import functional

from a2lc_backend.segmenter import SegmenterError

MAX_CELLS = 128
"""Longest side of a feature map in cells; finer maps are averaged.

`camvid`'s 180×240 cells at 90×120 take a quarter of the disk and time and cost 0.4 mIoU; 45×60 would cost 3.
"""

_RESNET_SIDE = 512
_RESNET_STEP = 32
_RESNET_CHANNELS = 32
"""Channels kept of each of a ResNet's four stages, by a fixed random projection: all 3,840 of a ResNet-50 would take
94 MB an image."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(Protocol):
    """A frozen network that turns images into features."""

    @property
    def fingerprint(self) -> str:
        """Name of the weights and of what else decides the features."""
        ...

    def features(self, image: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Features (D, h, w) float16 of an image (H, W, 3) uint8; the longer of h and w is `MAX_CELLS` at most.

        Raises:
            SegmenterError: if the file of weights cannot be used.
        """
        ...


def open_backbone(path: Path, device: torch.device) -> Backbone:
    """Open a backbone by its file; its weights are read when the first image comes.

    Args:
        path: a `torch.export` file if its suffix is .pt2, else a state dict of a torchvision ResNet.
        device: to run it on.

    Raises:
        SegmenterError: if there is no such file.
    """
    if not path.is_file():
        raise SegmenterError(f"there is no backbone {path}; set A2LC_BACKBONE to a .pt2 or .pth file")
    return ExportedBackbone(path, device) if path.suffix == ".pt2" else ResNetBackbone(path, device)


class ExportedBackbone:
    """A program written by `torch.export.save`: one image batch in, features or a tuple that starts with them out.

    The input is (N, 3, height, width) float in [0, 1], its height and width fixed by the file; images are resized to
    them.

    Args:
        path: of the file.
        device: to run it on.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._device = device

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the file."""
        return f"exported-{_digest(self._path)}-{MAX_CELLS}"

    @cached_property
    def _program(self) -> tuple[nn.Module, tuple[int, int]]:
        """The network and the height and width of its input."""
        try:
            exported = torch.export.load(str(self._path))
        except Exception as error:  # a file that is none fails in ways that torch does not document
            raise SegmenterError(
                f"{self._path} is no program of torch.export ({error}); write it with torch.export.save"
            ) from error
        inputs = set(exported.graph_signature.user_inputs)
        shapes = [node.meta["val"].shape for node in exported.graph.nodes if node.name in inputs]
        if len(shapes) != 1 or len(shapes[0]) != 4 or not all(isinstance(side, int) for side in shapes[0][1:]):
            raise SegmenterError(
                f"{self._path} takes {[tuple(shape) for shape in shapes]}; export it with one input (N, 3, height, "
                "width) of fixed height and width"
            )
        if self._device.type != "cpu":  # constants and devices named inside the program move too
            exported = move_to_device_pass(exported, str(self._device))
        program: nn.Module = exported.module()
        return program, (shapes[0][2], shapes[0][3])

    def features(self, image: NDArray[np.uint8]) -> NDArray[np.float16]:
        """See `Backbone.features`."""
        program, size = self._program
        with torch.inference_mode():
            found = program(_batch(image, size, self._device))
            return _store(found[0] if isinstance(found, tuple | list) else found)


class ResNetBackbone:
    """A ResNet, ResNeXt or Wide ResNet of torchvision; the state dict says which.

    Images go in with a longer side of 512 pixels at most. The four stages are projected to 32 channels each and brought
    to the first one's resolution, a quarter of the image's.

    Args:
        path: a state dict, as `torch.save(model.state_dict(), path)` writes it.
        device: to run it on.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._device = device

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the file."""
        return f"resnet-{_digest(self._path)}-{_RESNET_SIDE}-{_RESNET_CHANNELS}"

    @cached_property
    def _stages(self) -> list[tuple[nn.Module, nn.Module]]:
        """Four stages with their projections; the first one includes the stem."""
        network = read_resnet(self._path)
        stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        stages: list[tuple[nn.Module, nn.Module]] = []
        for number, stage in enumerate((network.layer1, network.layer2, network.layer3, network.layer4)):
            channels = [module for module in stage[-1].modules() if isinstance(module, nn.Conv2d)][-1].out_channels
            projection = nn.Conv2d(channels, _RESNET_CHANNELS, 1, bias=False)
            noise = np.random.default_rng(number).standard_normal((_RESNET_CHANNELS, channels, 1, 1))
            projection.weight.data = torch.from_numpy((noise / np.sqrt(channels)).astype(np.float32))
            whole = nn.Sequential(stem, stage) if number == 0 else stage
            stages.append((whole.eval().to(self._device), projection.to(self._device)))
        return stages

    def features(self, image: NDArray[np.uint8]) -> NDArray[np.float16]:
        """See `Backbone.features`."""
        scale = min(_RESNET_SIDE / max(image.shape[:2]), 1)
        height, width = (max(round(side * scale / _RESNET_STEP), 1) * _RESNET_STEP for side in image.shape[:2])
        mean, std = (
            torch.tensor(values, device=self._device).view(1, 3, 1, 1) for values in (_IMAGENET_MEAN, _IMAGENET_STD)
        )
        with torch.inference_mode():
            current = (_batch(image, (height, width), self._device) - mean) / std
            found: list[torch.Tensor] = []
            for stage, projection in self._stages:
                current = stage(current)
                found.append(projection(current))
            grid = found[0].shape[2:]
            fine = [functional.interpolate(level, grid, mode="bilinear", align_corners=False) for level in found]
            return _store(torch.cat(fine, dim=1))


def read_resnet(path: Path) -> Any:
    """Build the ResNet that a state dict is of, without its last layer.

    Args:
        path: a state dict of a torchvision ResNet, ResNeXt or Wide ResNet.

    Raises:
        SegmenterError: if it is none.
    """
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet  # noqa: PLC0415 - seconds to load

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        state = {name.removeprefix("module."): value for name, value in state.items() if ".fc." not in f".{name}"}
        depths = [sum(f"layer{stage}.{block}.conv1.weight" in state for block in range(200)) for stage in (1, 2, 3, 4)]
        width, grouped = state["layer1.0.conv2.weight"].shape[:2]
        bottleneck = "layer1.0.conv3.weight" in state
        groups = width // grouped
        network = ResNet(
            Bottleneck if bottleneck else BasicBlock, depths, groups=groups, width_per_group=width // groups
        )
        network.fc = nn.Identity()
        network.load_state_dict(state)
    except (RuntimeError, UnpicklingError, EOFError, AttributeError, KeyError, ValueError, TypeError) as error:
        raise SegmenterError(
            f"{path} is no state dict of a torchvision ResNet ({str(error).splitlines()[0]}); write one with "
            "torch.save(model.state_dict(), path)"
        ) from error
    return network


def _batch(image: NDArray[np.uint8], size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """An image as (1, 3, *size) float in [0, 1]."""
    shrinks = size[0] < image.shape[0] or size[1] < image.shape[1]
    resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return torch.from_numpy(resized).to(device).permute(2, 0, 1)[None].float() / 255


def _store(features: torch.Tensor) -> NDArray[np.float16]:
    """Features (1, D, h, w) as they are stored: (D, h, w) float16, `MAX_CELLS` at most."""
    height, width = features.shape[2:]
    factor = max(-(-max(height, width) // MAX_CELLS), 1)
    if factor > 1:
        features = functional.adaptive_avg_pool2d(features, (-(-height // factor), -(-width // factor)))
    limit = float(np.finfo(np.float16).max)
    return np.asarray(features[0].clamp(-limit, limit).half().cpu().numpy(), np.float16)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
