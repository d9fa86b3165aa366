"""What models of masks by prompt have in common."""

from __future__ import annotations

import torch

from a2lc_backend.foundation import Embedding, FoundationError, Prompts

CERTAIN = 8.0
"""Logit of the pixels of a rough mask, the others have its negative: the decoder learned from its own logits, not from
zeros and ones, and a sigmoid of 8 is within 0.0004 of 1."""

_BATCH = 64
_BATCH_ON_CPU = 4


def batch_size(device: torch.device) -> int:
    """Boxes or points to decode at once.

    64 boxes of an image of 2 megapixels took 6 s by 4 and 10 s by 64 on one core, and 1.4 GB more of memory, for which
    the system ends a process where a graphics card would raise an error.
    """
    return _BATCH_ON_CPU if device.type == "cpu" else _BATCH


def check_embedding(embedding: Embedding, fingerprint: str) -> None:
    """Raise FoundationError unless an embedding is of the model with this fingerprint."""
    if embedding.fingerprint != fingerprint:
        raise FoundationError(f"the embedding is of {embedding.fingerprint}, the model is {fingerprint}")


def check_prompts(prompts: Prompts, size: tuple[int, int]) -> None:
    """Raise FoundationError for no prompt at all, or a rough mask of another size than the image's."""
    if not len(prompts.points) and prompts.box is None and prompts.mask is None:
        raise FoundationError("a mask needs a point, a box or a rough mask to be found by")
    if prompts.mask is not None and prompts.mask.shape != size:
        raise FoundationError(f"the rough mask is {prompts.mask.shape}, the image {size}; make them alike")
