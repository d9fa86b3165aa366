"""Frozen feature extractors out of local files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from a2lc_backend.segmenter import SegmenterError

Backbone = Callable[[NDArray[np.uint8]], NDArray[np.float16]]
"""An image (H, W, 3) uint8 in, features (D, h, w) float16 out."""

_IMAGE_MEAN, _IMAGE_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LONG_SIDE = 512


def open_backbone(file: Path, device: torch.device) -> Backbone:
    """Open a backbone.

    Args:
        file: a `torch.export` program (.pt2) that takes (N, 3, h, w) float in [0, 1] and returns features
            (N, D, h, w) first, or a state dict of a torchvision ResNet (.pth, .pt).
        device: where it runs.

    Raises:
        SegmenterError: for a file that is missing or is neither.
    """
    if not file.exists():
        raise SegmenterError(f"there is no backbone {file}; set A2LC_BACKBONE to its place, or the segmenter to `unet`")
    try:
        return _exported(file, device) if file.suffix == ".pt2" else _resnet(file, device)
    except SegmenterError:
        raise
    except Exception as error:
        raise SegmenterError(f"backbone {file} cannot be read ({error}); it is a .pt2 program or a ResNet") from error


def _exported(file: Path, device: torch.device) -> Backbone:
    program = torch.export.load(file)
    example = program.example_inputs
    shape = example[0][0].shape if example else _input_shape(program)
    network = program.module().to(device)
    size = (int(shape[-2]), int(shape[-1]))

    def extract(image: NDArray[np.uint8]) -> NDArray[np.float16]:
        resized = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
        pixels = torch.from_numpy(resized).permute(2, 0, 1)[None].float().to(device) / 255
        with torch.inference_mode():
            outputs = network(pixels)
        features = outputs[0] if isinstance(outputs, tuple | list) else outputs
        return np.asarray(features[0].cpu().numpy(), np.float16)

    return extract


def _input_shape(program: torch.export.ExportedProgram) -> torch.Size:
    """Shape of the first input that the user gives, from the program's graph."""
    name = program.graph_signature.user_inputs[0]
    node = next(node for node in program.graph.nodes if node.name == name)
    shape: torch.Size = node.meta["val"].shape
    return shape


def _resnet(file: Path, device: torch.device) -> Backbone:
    state = torch.load(file, map_location="cpu", weights_only=True)
    name = _resnet_name(state, file)
    network = getattr(torchvision.models, name)(weights=None)
    network.load_state_dict(state)
    stages = IntermediateLayerGetter(network, {f"layer{stage}": str(stage) for stage in (1, 2, 3)}).eval().to(device)
    mean = torch.tensor(_IMAGE_MEAN, device=device).view(1, 3, 1, 1)
    spread = torch.tensor(_IMAGE_SPREAD, device=device).view(1, 3, 1, 1)

    def extract(image: NDArray[np.uint8]) -> NDArray[np.float16]:
        scale = min(1.0, _LONG_SIDE / max(image.shape[:2]))
        size = (max(32, round(image.shape[1] * scale)), max(32, round(image.shape[0] * scale)))
        resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        pixels = torch.from_numpy(resized).permute(2, 0, 1)[None].float().to(device) / 255
        with torch.inference_mode():
            maps = list(stages((pixels - mean) / spread).values())
            joined = [nn.functional.interpolate(one, maps[0].shape[2:], mode="bilinear") for one in maps]
        return np.asarray(torch.cat(joined, 1)[0].cpu().numpy(), np.float16)

    return extract


def _resnet_name(state: object, file: Path) -> str:
    """Which ResNet a state dict belongs to, by its blocks."""
    if isinstance(state, dict) and "layer3.0.conv1.weight" in state:
        deep = "layer1.0.conv3.weight" in state
        blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("layer3."))
        sizes = {(False, 2): "resnet18", (False, 6): "resnet34", (True, 6): "resnet50", (True, 23): "resnet101"}
        if (deep, blocks) in sizes:
            return sizes[deep, blocks]
    raise SegmenterError(f"{file} is no state dict of a torchvision ResNet (18, 34, 50 or 101)")
