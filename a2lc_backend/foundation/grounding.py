"""Grounding DINO (Liu et al., ECCV 2024) by transformers: boxes of what phrases name."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from a2lc_backend.foundation import Boxes, FoundationError
from a2lc_backend.foundation.memory import in_batches
from a2lc_backend.foundation.pretrained import read_model, read_processor, weights_digest

_NAME = "grounding-dino-tiny"

_LONGEST = 16
"""Longer side of an image by its shorter one, at most: a thinner image is padded, because it would hold fewer cells
than the model has queries."""

_STOP = " ."
_FRAME = 2
"""Tokens of a caption beside the phrases and their stops: one begins it, one ends it."""


@dataclass(frozen=True)
class Caption:
    """Phrases that the model reads together.

    Attributes:
        text: "car . traffic light .".
        spans: first token of each phrase, and the one after its last.
        phrases: index of each phrase among all that were asked for.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    phrases: tuple[int, ...]


class GroundingDino:
    """Grounding DINO behind `Detector`; its weights are read when they are first needed.

    Args:
        folder: a GroundingDinoForObjectDetection with its processor, as `save_pretrained` writes them.
        device: to run on.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._lock = threading.Lock()

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the weights and their settings."""
        return f"grounding-dino-{weights_digest(self._folder, _NAME)}"

    @cached_property
    def _model(self) -> Any:
        from transformers import GroundingDinoForObjectDetection  # noqa: PLC0415 - seconds to load

        families = {"grounding-dino": GroundingDinoForObjectDetection}
        return read_model(self._folder, families, _NAME, self._device)

    @cached_property
    def _processor(self) -> Any:
        from transformers import GroundingDinoProcessor  # noqa: PLC0415 - seconds to load

        return read_processor(self._folder, GroundingDinoProcessor, _NAME)

    def detect(self, image: NDArray[np.uint8], phrases: Sequence[str], threshold: float) -> Boxes:
        """See `Detector.detect`.

        Phrases become one caption; those that the text model cannot read at once become several, and the whole model
        runs once a caption, its image encoder too. A box's score is the highest probability of any token, as the
        library's own post-processing has it, and lies above the threshold. The box answers the phrase with the
        likeliest token: labels put together from all likely tokens may name no phrase at all ("traffic light car").

        Args:
            image: (H, W, 3) uint8, RGB.
            phrases: one or more; they are written in lower case.
            threshold: what the score of a box must exceed.

        Returns:
            Boxes caption by caption, their edges between 0 and the width or height of the image; there may be none.

        Raises:
            FoundationError: for no phrase, an empty one, one with a full stop or one too long for the text model; if
                the weights cannot be used, or the device has too little memory.
        """
        _check(phrases)

        def find(captions: Sequence[Caption]) -> list[Boxes]:
            return [self._find(image, captions[0], threshold)]

        with self._lock:  # the tokenizer is for one thread, and of several images each would take as much memory
            found = in_batches(self._captions(phrases), find, 1, "Grounding DINO")
        return Boxes(
            np.concatenate([part.boxes for part in found]),
            np.concatenate([part.scores for part in found]),
            np.concatenate([part.phrases for part in found]),
        )

    def _captions(self, phrases: Sequence[str]) -> list[Caption]:
        """As few captions of whole phrases as hold them all in their order."""
        room = int(self._model.config.max_text_len) - _FRAME
        texts = [phrase.strip().lower() for phrase in phrases]
        lengths = [len(ids) for ids in self._processor.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        captions: list[list[int]] = []
        taken = room + 1
        for place, length in enumerate(lengths):
            if not 0 < length < room:
                raise FoundationError(
                    f"the phrase {texts[place][:40]!r} has {length} tokens, the model reads 1 to {room - 1}; use other "
                    "words"
                )
            if taken + length + 1 > room:
                captions.append([])
                taken = 0
            captions[-1].append(place)
            taken += length + 1
        return [_caption(texts, lengths, places) for places in captions]

    def _find(self, image: NDArray[np.uint8], caption: Caption, threshold: float) -> Boxes:
        height, width = image.shape[:2]
        seen = _padded(image)
        inputs = self._processor(
            images=seen, text=caption.text, input_data_format="channels_last", return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            output = self._model(**inputs)
            tokens = output.logits[0].float().sigmoid()  # (queries, max_text_len)
            scores = tokens.amax(dim=1)
            spans = torch.stack([tokens[:, start:end].amax(dim=1) for start, end in caption.spans], dim=1)
            centres, sizes = output.pred_boxes[0].float().split(2, dim=1)
            scale = torch.tensor([seen.shape[1], seen.shape[0]] * 2, device=self._device)
            boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1) * scale
        corners = np.clip(boxes.cpu().numpy().astype(np.float64), 0, [width, height, width, height])
        inside = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        kept = (scores > threshold).cpu().numpy() & inside
        answers = np.array(caption.phrases, np.int64)[spans.argmax(dim=1).cpu().numpy()]
        return Boxes(corners[kept], scores.cpu().numpy().astype(np.float64)[kept], answers[kept])


def _check(phrases: Sequence[str]) -> None:
    if not phrases:
        raise FoundationError("there are no words to look for; give one phrase or more")
    for phrase in phrases:
        if not phrase.strip():
            raise FoundationError("a phrase is empty; give each class words that can be seen")
        if "." in phrase:
            raise FoundationError(f"the phrase {phrase[:40]!r} has a full stop, which ends a phrase; leave it out")


def _caption(texts: Sequence[str], lengths: Sequence[int], places: Sequence[int]) -> Caption:
    spans: list[tuple[int, int]] = []
    start = 1
    for place in places:
        spans.append((start, start + lengths[place]))
        start += lengths[place] + 1
    return Caption(" ".join(texts[place] + _STOP for place in places), tuple(spans), tuple(places))


def _padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image that is not too thin, black below or to the right of what was there; torch may write to it."""
    height, width = image.shape[:2]
    below, right = max(-(-width // _LONGEST) - height, 0), max(-(-height // _LONGEST) - width, 0)
    if not below and not right:
        return np.require(image, requirements=["C", "W"])
    return np.pad(image, ((0, below), (0, right), (0, 0)))
