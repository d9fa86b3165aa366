"""Small models of masks by prompt with random weights, saved in the official formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from segment_anything.build_sam import _build_sam
from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2Processor, Sam2VideoConfig, Sam2VideoModel

SAM2_SIDE = 128
"""Side of the square that a small SAM 2 sees, in pixels; the official ones see 1024."""


def write_sam(path: Path, seed: int = 0) -> Path:
    """A checkpoint as segment_anything's own: an encoder of two blocks, the decoder at its real size.

    Its masks are patches of 16 pixels of the 1024, not dust: what Label Studio is sent of a real mask is small too.
    """
    torch.manual_seed(seed)
    model = _build_sam(
        encoder_embed_dim=32, encoder_depth=2, encoder_num_heads=2, encoder_global_attn_indexes=[1], checkpoint=None
    )
    with torch.no_grad():
        for layer in (model.mask_decoder.output_upscaling[0], model.mask_decoder.output_upscaling[3]):
            layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return path


def write_sam2(folder: Path, video: bool = False, seed: int = 0) -> Path:
    """SAM 2 with every part that the official one has, as small as it can be.

    Args:
        folder: to write to.
        video: as the official folders are: of the model of videos, settings of images in a file of their own, named as
            transformers 4 named them. The weights that images need are those of the other folder of the same seed.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    image_model = Sam2Model(Sam2Config(**_parts()))
    with torch.no_grad():
        for parameter in [*image_model.parameters(), *image_model.buffers()]:
            spread = 1.0 if parameter.ndim < 2 else 1.5 / parameter[0].numel() ** 0.5
            parameter.add_(torch.randn_like(parameter) * min(spread, 0.3))
        for name, parameter in image_model.mask_decoder.named_parameters():  # what is pointed at counts, to the pixel
            if name.startswith("transformer.") and parameter.ndim == 2:
                parameter.mul_(2)
            elif name.startswith(("conv_s", "mask_tokens", "iou_token")):
                parameter.mul_(0.2)
    images = Sam2ImageProcessor(size={"height": SAM2_SIDE, "width": SAM2_SIDE})
    if not video:
        image_model.save_pretrained(folder)
        Sam2Processor(images).save_pretrained(folder)
        return folder
    small = {
        f"memory_{name}": 32
        for name in (
            "attention_hidden_size", "attention_feed_forward_hidden_size", "encoder_hidden_size", "fuser_embed_dim",
            "fuser_intermediate_dim",
        )
    }  # fmt: skip
    config = Sam2VideoConfig(
        **_parts(), **small, image_size=SAM2_SIDE, memory_attention_num_layers=1, memory_fuser_num_layers=1,
        memory_attention_rope_feat_sizes=[8, 8], memory_encoder_output_channels=16, mask_downsampler_embed_dim=32,
    )  # fmt: skip
    video_model = Sam2VideoModel(config)
    video_model.load_state_dict(image_model.state_dict(), strict=False)
    video_model.save_pretrained(folder)
    settings = {**images.to_dict(), "image_processor_type": "Sam2ImageProcessorFast"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, default=dict))
    names = {"processor_class": "Sam2VideoProcessor", "target_size": SAM2_SIDE, "point_pad_value": -10}
    (folder / "processor_config.json").write_text(json.dumps(names))
    return folder


def _parts() -> dict[str, Any]:
    """Settings of the parts that the models of images and of videos share."""
    return {
        "vision_config": {
            "model_type": "sam2_vision_model",
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [SAM2_SIDE, SAM2_SIDE],
                "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [8, 4, 4, 4],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[SAM2_SIDE // step] * 2 for step in (4, 8, 16)],
        },
        "prompt_encoder_config": {"hidden_size": 32, "image_size": SAM2_SIDE},
        "mask_decoder_config": {
            "hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32
        },
    }  # fmt: skip
