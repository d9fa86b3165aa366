"""Small models of boxes by text and of features by patch with random weights, saved in the official formats."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    BitImageProcessor,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    SwinConfig,
)

WORDS = ("road", "car", "sky", "traffic", "light", "tree", "person", "van", "##s", "t", "shirt", "-", "a", "b")
MEAN, STD = (0.3, 0.5, 0.6), (0.2, 0.3, 0.4)


def vocabulary() -> dict[str, int]:
    """A vocabulary with the marks where BERT's own has them: the model knows where phrases end by these numbers."""
    marks = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    free = (number for number in range(1, 1030) if number not in marks.values())
    words = {word: 1030 + place for place, word in enumerate(WORDS)}
    fill = {f"[unused{number}]": number for number in free}
    return dict(sorted({**marks, **words, **fill}.items(), key=lambda entry: entry[1]))


def write_grounding_dino(folder: Path, max_text_len: int = 256, seed: int = 0, boxes: int = 60) -> Path:
    """Grounding DINO with every part that the official one has, as small as it can be.

    Args:
        folder: to write to.
        max_text_len: tokens a caption may have.
        seed: of the weights.
        boxes: how many it looks for.
    """
    torch.manual_seed(seed)
    words = vocabulary()
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
            out_indices=[2, 3, 4],
        ),
        text_config=BertConfig(
            vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ),
        d_model=32, num_queries=boxes, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        encoder_attention_heads=2, decoder_attention_heads=2, max_text_len=max_text_len,
    )  # fmt: skip
    model = GroundingDinoForObjectDetection(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bbox_embed" in name or "vision_param" in name or "text_param" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)  # zero to begin with, or nearly
        model.model.decoder.layer_norm.weight.mul_(0.2)  # else most scores are 1
    model.save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 100, "longest_edge": 200})
    GroundingDinoProcessor(images, BertTokenizer(vocab=words)).save_pretrained(folder)
    return folder


def write_dinov2(folder: Path, registers: int = 0, patch: int = 14, seed: int = 0) -> Path:
    """DINOv2 of two blocks, with or without register tokens.

    Args:
        folder: to write to.
        registers: how many; the family without them if 0.
        patch: side of a patch in pixels.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 4 * patch,
        "patch_size": patch,
    }  # fmt: skip
    model: Dinov2Model | Dinov2WithRegistersModel
    if registers:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=registers, **sizes))
    else:
        model = Dinov2Model(Dinov2Config(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    BitImageProcessor(image_mean=MEAN, image_std=STD).save_pretrained(folder)
    return folder
