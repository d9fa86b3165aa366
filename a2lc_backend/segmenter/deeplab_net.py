"""The layers of DeepLabV3+ and what goes into them.

They are those of segmentation_models_pytorch, set as the network of the paper's published code is: rates 6, 12 and 18
at output stride 16, full convolutions, dropout 0.1, bilinear between cell centres. Two things differ: the decoder has a
separable convolution between the pyramid and the fine features, and the one after them is separable too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray
from torch import nn

from a2lc_backend.segmenter import SegmenterError
from a2lc_backend.segmenter.backbones import read_resnet
from a2lc_backend.segmenter.crops import STRIDE

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_LUMA = (0.299, 0.587, 0.114)

_ENCODER_MOMENTUM = 0.01
"""Of batch statistics, so that ImageNet's last; without its weights they start from nothing, and torch's 0.1 stays."""


def build_network(encoder: str, classes: int, backbone: Path | None, seed: int) -> Any:
    """Build the network on the CPU; nothing is downloaded.

    Args:
        encoder: one of `ENCODERS`.
        classes: C.
        backbone: a state dict of that encoder by torchvision, None for random weights.
        seed: of the random weights.

    Raises:
        SegmenterError: if the file is no such state dict.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = smp.DeepLabV3Plus(
            encoder, encoder_weights=None, encoder_output_stride=STRIDE, decoder_atrous_rates=(6, 12, 18),
            decoder_aspp_separable=False, decoder_aspp_dropout=0.1, classes=classes, upsampling=1,
        )  # fmt: skip
        weights = None if backbone is None else read_resnet(backbone).state_dict()
    network.decoder.up.align_corners = False
    if weights is not None:
        try:
            network.encoder.load_state_dict(weights)
        except RuntimeError as error:
            raise SegmenterError(
                f"{backbone} does not hold the weights of a {encoder}; set A2LC_ENCODER to the network that it is of"
            ) from error
        for module in network.encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = _ENCODER_MOMENTUM
    return network


def network_input(
    images: NDArray[np.uint8], device: torch.device, jitter: NDArray[np.float32] | None = None
) -> torch.Tensor:
    """Put images on the device as the network reads them.

    Args:
        images: (N, h, w, 3) uint8, RGB.
        device: of the network.
        jitter: (N, 3) float32 factors of brightness, contrast and saturation, applied in this order.

    Returns:
        (N, 3, h, w) float32, in torch's channels_last order.
    """
    x = torch.from_numpy(images).to(device).float() / 255
    mean, std, luma = (torch.tensor(values, device=device) for values in (_IMAGENET_MEAN, _IMAGENET_STD, _LUMA))
    if jitter is not None:
        brightness, contrast, saturation = torch.from_numpy(jitter).to(device).view(-1, 3, 1, 1, 1).unbind(1)
        x = (x * brightness).clamp(0, 1)
        middle = (x * luma).sum(3, keepdim=True).mean((1, 2), keepdim=True)
        x = (middle + contrast * (x - middle)).clamp(0, 1)
        grey = (x * luma).sum(3, keepdim=True)
        x = (grey + saturation * (x - grey)).clamp(0, 1)
    return ((x - mean) / std).permute(0, 3, 1, 2)


def half_type(device: torch.device) -> torch.dtype | None:
    """What the layers count in on CUDA: bfloat16, or float16 where the GPU has none; None on other devices."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def logits(network: Any, x: torch.Tensor) -> torch.Tensor:
    """Logits (N, C, h/4, w/4) float32 of `network_input`, h and w multiples of `STRIDE`.

    The last layer counts in float32 everywhere: a logit of 10 in bfloat16 is off by 0.03, a probability by as much.
    """
    half = half_type(x.device)
    context: AbstractContextManager[object] = torch.autocast(x.device.type, half, enabled=half is not None)
    with context:
        features = network.decoder(network.encoder(x))
    result: torch.Tensor = network.segmentation_head(features.float())
    return result


def pooled_norm(network: Any) -> nn.BatchNorm2d:
    """The one normalisation that sees a single value an image and channel, and so cannot train on one image."""
    found: nn.BatchNorm2d = network.decoder.aspp[0].convs[-1][2]
    return found
