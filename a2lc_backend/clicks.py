"""Answers smart tools: a click, a box or a stroke in Label Studio becomes a region of the label that is armed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from a2lc_backend.foundation import Embedding, PromptedModel
from a2lc_backend.masks import Region
from a2lc_backend.prompts import PromptError, parse_prompts
from a2lc_backend.regions import LabelConfig, encode_region

VERSION = "a2lc-click"
"""Model version of suggestions; Label Studio stores none of them."""


def suggest(model: PromptedModel, seen: Embedding, config: LabelConfig, items: Sequence[Any]) -> dict[str, Any]:
    """One prediction with the region that prompts point at; without a region if they point at nothing.

    Args:
        model: of masks by prompt.
        seen: what its encoder saw in the image.
        config: the project's label config.
        items: what the smart tools sent.

    Raises:
        PromptError: for prompts that cannot be used, or a label that the segmentation control lacks.
        FoundationError: if the model cannot be used.
    """
    prompts, label = parse_prompts(items, seen.size)
    if label is not None and label not in config.classes:
        raise PromptError(
            f"the smart tool has the label {label!r}, which {config.from_name!r} lacks; give both the same labels"
        )
    mask, score = model.mask(seen, prompts)
    if not mask.any():
        return {"result": [], "score": 0.0, "model_version": VERSION}
    region = Region(uuid.uuid4().hex[:10], label, mask, score=round(min(max(score, 0.0), 1.0), 4), source="foundation")
    return {"result": [encode_region(region, config)], "score": region.score, "model_version": VERSION}
