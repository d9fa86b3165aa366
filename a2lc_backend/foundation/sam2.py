"""SAM 2 (Ravi et al., ICLR 2025) on single images by transformers, as it is published."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from a2lc_backend.foundation import Embedding, Prompts
from a2lc_backend.foundation.memory import in_batches
from a2lc_backend.foundation.pretrained import read_model, read_processor, weights_digest
from a2lc_backend.foundation.prompting import CERTAIN, batch_size, check_embedding, check_prompts

_NAME = "sam2.1-hiera-small"

# Without a prompt: what the authors' own generator of masks takes where nobody says otherwise.
_POINTS_A_SIDE = 32
_LEAST_IOU = 0.8
_LEAST_STABILITY = 0.95
_STABILITY_STEP = 1.0
_MOST_OVERLAP = 0.7


@dataclass(frozen=True, eq=False)
class _Found:
    """A mask that was found without a prompt: its bits in rows, its box (4,), and the model's estimate of its IoU."""

    bits: NDArray[np.uint8]
    box: list[int]
    quality: float


class Sam2:
    """SAM 2 behind `PromptedModel`; its weights are read when they are first needed.

    Args:
        folder: a Sam2Model, or a Sam2VideoModel as the official ones are, with its processor, as `save_pretrained`
            writes them.
        device: to run on; the encoder in mixed precision on CUDA.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._lock = threading.Lock()
        self._encoding = threading.Lock()
        self._batch = batch_size(device)

    @property
    def fingerprint(self) -> str:
        """Digest of the weights and their settings."""
        with self._lock:
            return self._digest

    @cached_property
    def _digest(self) -> str:
        return f"sam2-{weights_digest(self._folder, _NAME)}"

    @property
    def _model(self) -> Any:
        with self._lock:
            return self._loaded[0]

    @property
    def _processor(self) -> Any:
        with self._lock:
            return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The network and what prepares images for it."""
        from transformers import Sam2Model, Sam2Processor  # noqa: PLC0415 - seconds to load

        with _without_the_warning_of_a_video_model():
            model = read_model(self._folder, {"sam2": Sam2Model, "sam2_video": Sam2Model}, _NAME, self._device)
        return model, read_processor(self._folder, Sam2Processor, _NAME)

    def warm(self) -> None:
        """See `PromptedModel.warm`."""
        _ = self._model, self.fingerprint

    def embed(self, image: NDArray[np.uint8]) -> Embedding:
        """See `PromptedModel.embed`; all levels of features that the decoder looks at, finest first."""
        model, processor = self._model, self._processor
        limit = float(np.finfo(np.float16).max)

        def see(images: Sequence[NDArray[np.uint8]]) -> list[list[NDArray[np.float16]]]:
            pixels = processor(images=images[0], input_data_format="channels_last", return_tensors="pt")["pixel_values"]
            # The model was trained in bfloat16; float16 could overflow in its encoder.
            mixed = self._device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=mixed):
                levels = model.get_image_embeddings(pixels.to(self._device))
            return [[level.float().clamp(-limit, limit).half().cpu().numpy() for level in levels]]

        with self._encoding:  # of several images at once each would take as many times as long, and as much memory
            (levels,) = in_batches([image], see, 1, "the encoder of SAM 2")
        arrays = {f"level{number}": level for number, level in enumerate(levels)}
        return Embedding(arrays, (image.shape[0], image.shape[1]), self.fingerprint)

    def mask(self, embedding: Embedding, prompts: Prompts) -> tuple[NDArray[np.bool_], float]:
        """See `PromptedModel.mask`.

        Of several points the first positive one is decoded alone, and its logits go in with all of them, as a person's
        second click corrects the mask of the first.
        """
        check_embedding(embedding, self.fingerprint)
        check_prompts(prompts, embedding.size)
        with torch.inference_mode():
            levels = self._levels(embedding)

            def answer(asked: Sequence[Prompts]) -> list[tuple[NDArray[np.bool_], float]]:
                return [self._answer(levels, asked[0], embedding.size)]

            (answered,) = in_batches([prompts], answer, 1, "the decoder of SAM 2")
        return answered

    def box_masks(self, embedding: Embedding, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """See `PromptedModel.box_masks`."""
        check_embedding(embedding, self.fingerprint)
        with torch.inference_mode():
            levels = self._levels(embedding)

            def decode(part: Sequence[NDArray[np.float64]]) -> list[NDArray[np.bool_]]:
                corners = self._places(np.stack(part).reshape(-1, 2, 2), embedding.size).reshape(-1, 4)
                logits, _ = self._decode(levels, False, boxes=corners)
                return [self._enlarged(one[0], embedding.size).cpu().numpy() > 0 for one in logits]

            masks = in_batches(list(boxes), decode, self._batch, "the decoder of SAM 2")
        return np.stack(masks) if masks else np.empty((0, *embedding.size), np.bool_)

    def everything(self, embedding: Embedding) -> Iterator[NDArray[np.bool_]]:
        """See `PromptedModel.everything`; the surest come first.

        A grid of points is asked, what the decoder doubts or what hangs on the cut-off is left out, and of masks in
        nearly the same box the surest is kept. The mask-generation of transformers 5.23 is of no use here: it spreads
        its points as if the shorter side were padded, while SAM 2 stretches it, and so leaves out a part of the image.
        """
        from torchvision.ops import nms  # noqa: PLC0415 - the model loads it

        check_embedding(embedding, self.fingerprint)
        size, levels = embedding.size, self._levels(embedding)
        steps = (np.arange(_POINTS_A_SIDE) + 0.5) / _POINTS_A_SIDE
        grid = np.stack(np.meshgrid(steps * size[1], steps * size[0]), axis=-1).reshape(-1, 2)
        with torch.inference_mode():
            looked = in_batches(
                list(grid), lambda part: self._look(levels, np.stack(part), size), self._batch, "the decoder of SAM 2"
            )
        found = [item for items in looked for item in items]
        boxes = torch.tensor([item.box for item in found], dtype=torch.float32).reshape(-1, 4)
        kept = nms(boxes, torch.tensor([item.quality for item in found], dtype=torch.float32), _MOST_OVERLAP)
        return (np.unpackbits(found[place].bits, axis=1, count=size[1]).astype(np.bool_) for place in kept.tolist())

    def dense(self, embedding: Embedding) -> NDArray[np.float16]:
        """See `PromptedModel.dense`; the coarsest level, (256, 64, 64): images are stretched, none is padded."""
        check_embedding(embedding, self.fingerprint)
        return np.asarray(embedding.arrays[f"level{len(embedding.arrays) - 1}"][0], np.float16)

    def _levels(self, embedding: Embedding) -> list[torch.Tensor]:
        """Features (1, D, h, w) float32 on the device, finest first."""
        arrays = [embedding.arrays[f"level{number}"] for number in range(len(embedding.arrays))]
        return [torch.from_numpy(level).to(self._device).float() for level in arrays]

    def _places(self, places: NDArray[np.float64], size: tuple[int, int]) -> torch.Tensor:
        """Coordinates (..., 2) of an image as coordinates of the square that the encoder saw."""
        side = self._processor.target_size
        scale = torch.tensor([side / size[1], side / size[0]], device=self._device)
        return torch.from_numpy(places).to(self._device, torch.float32) * scale

    def _decode(
        self,
        levels: list[torch.Tensor],
        several: bool,
        points: torch.Tensor | None = None,
        positive: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        begin: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ask the decoder for N things.

        Args:
            levels: features of the image.
            several: three masks a thing, or one.
            points: (N, P, 2) as the encoder saw them.
            positive: (N, P) int64, 1 for a positive point, 0 for a negative one.
            boxes: (N, 4) as the encoder saw them.
            begin: (1, 1, h, w) logits to begin with, N being 1.

        Returns:
            Logits (N, M, h, w) and estimated IoUs (N, M) of M masks each.
        """
        model = self._model
        if points is None and boxes is None:  # a point that is none, as Sam2Model itself says it
            points = torch.zeros(1, 1, 2, device=self._device)
            positive = torch.full((1, 1), -1, device=self._device)
        sparse, dense = model.prompt_encoder(
            input_points=None if points is None else points[None],
            input_labels=None if positive is None else positive[None],
            input_boxes=None if boxes is None else boxes[None],
            input_masks=begin,
        )
        logits, quality, _, _ = model.mask_decoder(
            image_embeddings=levels[-1],
            image_positional_embeddings=model.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            high_resolution_features=levels[:-1],
        )
        return logits[0], quality[0]

    def _answer(
        self, levels: list[torch.Tensor], prompts: Prompts, size: tuple[int, int]
    ) -> tuple[NDArray[np.bool_], float]:
        """See `mask`."""
        points = positive = box = begin = None
        count = len(prompts.points)
        if count:
            points = self._places(prompts.points, size)[None]
            positive = torch.from_numpy(prompts.positive.astype(np.int64)).to(self._device)[None]
        if prompts.box is not None:
            box = self._places(prompts.box.reshape(1, 2, 2), size).reshape(1, 4)
        if prompts.mask is not None:
            begin = self._rough(prompts.mask)
        elif box is None and count > 1 and points is not None and positive is not None and prompts.positive.any():
            first = int(prompts.positive.argmax())
            alone, sure = self._decode(levels, True, points[:, first : first + 1], positive[:, first : first + 1])
            begin = alone[:, sure[0].argmax()][:, None]
        lone = count == 1 and box is None and begin is None
        logits, quality = self._decode(levels, lone, points, positive, box, begin)
        best = int(quality[0].argmax())
        mask: NDArray[np.bool_] = (self._enlarged(logits[0, best], size) > 0).cpu().numpy()
        return mask, float(quality[0, best])

    def _look(
        self, levels: list[torch.Tensor], points: NDArray[np.float64], size: tuple[int, int]
    ) -> list[list[_Found]]:
        """What points (N, 2) show, each for itself, without what the decoder doubts or what hangs on the cut-off."""
        places = self._places(points, size)[:, None]
        ones = torch.ones(places.shape[:2], dtype=torch.int64, device=self._device)
        logits, quality = self._decode(levels, True, places, ones)
        found: list[list[_Found]] = [[] for _ in points]
        for point, kind in (quality > _LEAST_IOU).nonzero().tolist():
            large = self._enlarged(logits[point, kind], size)
            least, most = ((large > step).sum().item() for step in (_STABILITY_STEP, -_STABILITY_STEP))
            if least and least >= _LEAST_STABILITY * most:
                mask = (large > 0).cpu().numpy()
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                box = [int(end) for end in (columns[0], rows[0], columns[-1], rows[-1])]
                found[point].append(_Found(np.packbits(mask, axis=1), box, quality[point, kind].item()))
        return found

    def _enlarged(self, logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Logits (h, w) as large as the image, (H, W)."""
        large: torch.Tensor = self._processor.post_process_masks([logits[None, None]], [size], binarize=False)[0][0, 0]
        return large

    def _rough(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        """A rough mask as logits (1, 1, h, w), laid out as the decoder's own."""
        pixels = torch.from_numpy(mask.astype(np.float32)).to(self._device)[None, None]
        side = self._model.prompt_encoder.mask_input_size
        small = functional.interpolate(pixels, side, mode="bilinear", align_corners=False, antialias=True)
        return (2 * small - 1) * CERTAIN


@contextmanager
def _without_the_warning_of_a_video_model() -> Iterator[None]:
    """The official weights are of the model of videos, which holds that of images: transformers warns of what is meant.

    Its log says so each time that a `sam2_video` is opened as a Sam2Model.
    """
    source = logging.getLogger("transformers.configuration_utils")

    def other(record: logging.LogRecord) -> bool:
        return "type `sam2_video` to instantiate a model of type `sam2`" not in record.getMessage()

    source.addFilter(other)
    try:
        yield
    finally:
        source.removeFilter(other)
