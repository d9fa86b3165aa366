"""SAM (Kirillov et al., ICCV 2023) by segment_anything, from an official checkpoint of any size."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import cv2
import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from a2lc_backend.foundation import Embedding, FoundationError, ModelUnusableError, Prompts
from a2lc_backend.foundation.files import file_digest
from a2lc_backend.foundation.memory import in_batches, is_out_of_memory
from a2lc_backend.foundation.prompting import CERTAIN, batch_size, check_embedding, check_prompts

_SIDE = 1024
"""Longer side of an image as the encoder sees it, in pixels."""

_GRID = 256
"""Side of the logits that the decoder gives, and takes as a mask to begin with."""

log = structlog.get_logger()


class Sam:
    """SAM behind `PromptedModel`; its weights are read when they are first needed.

    Args:
        path: a checkpoint (.pth) of vit_b, vit_l or vit_h: its own shapes say which.
        device: to run on; the encoder in mixed precision on CUDA.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._device = path, device
        self._lock = threading.Lock()
        self._encoding = threading.Lock()
        self._batch = batch_size(device)

    @property
    def fingerprint(self) -> str:
        """Digest of the file, and the side of what the encoder sees."""
        with self._lock:
            return f"sam-{self._digest}-{_SIDE}"

    @cached_property
    def _digest(self) -> str:
        _see_file(self._path)
        return file_digest(self._path)

    @property
    def _model(self) -> Any:
        with self._lock:
            return self._loaded

    @cached_property
    def _loaded(self) -> Any:
        model = _read(self._path).eval().requires_grad_(requires_grad=False)
        try:
            return model.to(self._device)
        except torch.OutOfMemoryError as error:
            raise ModelUnusableError(
                f"the device has too little memory for the weights of {self._path}; choose sam-vit-b, or set "
                "A2LC_DEVICE to cpu"
            ) from error

    def warm(self) -> None:
        """See `PromptedModel.warm`."""
        _ = self._model, self.fingerprint

    def embed(self, image: NDArray[np.uint8]) -> Embedding:
        """See `PromptedModel.embed`."""
        from segment_anything.utils.transforms import ResizeLongestSide  # noqa: PLC0415 - the model loads it

        model = self._model

        def encode(images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float16]]:
            small = torch.from_numpy(ResizeLongestSide(_SIDE).apply_image(images[0])).to(self._device)
            half = self._device.type == "cuda"
            with torch.inference_mode(), torch.autocast(self._device.type, torch.float16, enabled=half):
                found = model.image_encoder(model.preprocess(small.permute(2, 0, 1)[None].float()))
            return [found.half().cpu().numpy()]

        with self._encoding:  # of several images at once each would take as many times as long, and as much memory
            (features,) = in_batches([image], encode, 1, "the encoder of SAM")
        return Embedding({"features": features}, (image.shape[0], image.shape[1]), self.fingerprint)

    def mask(self, embedding: Embedding, prompts: Prompts) -> tuple[NDArray[np.bool_], float]:
        """See `PromptedModel.mask`.

        Of several points the first positive one is decoded alone, and its logits go in with all of them: this is how
        the model was trained to be corrected (section 3 of the paper).
        """
        check_embedding(embedding, self.fingerprint)
        check_prompts(prompts, embedding.size)
        with torch.inference_mode():
            features = self._features(embedding)

            def answer(asked: Sequence[Prompts]) -> list[tuple[NDArray[np.bool_], float]]:
                return [self._answer(features, asked[0], embedding.size)]

            (answered,) = in_batches([prompts], answer, 1, "the decoder of SAM")
        return answered

    def box_masks(self, embedding: Embedding, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """See `PromptedModel.box_masks`."""
        check_embedding(embedding, self.fingerprint)
        model = self._model
        with torch.inference_mode():
            features = self._features(embedding)
            scaled = boxes.reshape(-1, 2, 2) * self._scale(embedding.size)

            def decode(part: Sequence[NDArray[np.float64]]) -> list[NDArray[np.bool_]]:
                corners = torch.from_numpy(np.stack(part)).float().to(self._device).reshape(-1, 4)
                sparse, dense = model.prompt_encoder(points=None, boxes=corners, masks=None)
                logits, _ = model.mask_decoder(
                    image_embeddings=features, image_pe=model.prompt_encoder.get_dense_pe(),
                    sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=False,
                )  # fmt: skip
                return [self._enlarge(one[None], embedding.size)[0] for one in logits]  # not all at once: large images

            masks = in_batches(list(scaled), decode, self._batch, "the decoder of SAM")
        return np.stack(masks) if masks else np.empty((0, *embedding.size), np.bool_)

    def everything(self, embedding: Embedding) -> Iterator[NDArray[np.bool_]]:
        """See `PromptedModel.everything`; by SamAutomaticMaskGenerator with its own defaults."""
        from segment_anything import SamAutomaticMaskGenerator  # noqa: PLC0415 - the model loads it
        from segment_anything.utils.amg import rle_to_mask  # noqa: PLC0415

        check_embedding(embedding, self.fingerprint)
        model, features = self._model, self._features(embedding)
        unseen = np.broadcast_to(np.uint8(0), (*embedding.size, 3))  # the generator asks an image for its size alone
        while True:
            try:
                generator = SamAutomaticMaskGenerator(
                    model, points_per_batch=self._batch, output_mode="uncompressed_rle"
                )
                generator.predictor = _has_seen(model, features)
                found = generator.generate(unseen)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self._batch == 1:
                    raise FoundationError(
                        "the device has too little memory for SAM; choose sam-vit-b, or set A2LC_DEVICE to cpu"
                    ) from error
                self._batch = max(self._batch // 2, 1)  # and so for all images that follow
                log.warning("out of memory; SAM looks at fewer points at once", points=self._batch)
            else:
                return (rle_to_mask(item["segmentation"]) for item in found)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # after the exception, whose frames hold what filled the memory

    def dense(self, embedding: Embedding) -> NDArray[np.float16]:
        """See `PromptedModel.dense`; (256, h, w), the longer of h and w 64."""
        check_embedding(embedding, self.fingerprint)
        features = embedding.arrays["features"][0]
        rows, columns = (max(round(side * features.shape[1] / _SIDE), 1) for side in _input_size(embedding.size))
        return np.asarray(features[:, :rows, :columns], np.float16)

    def _features(self, embedding: Embedding) -> torch.Tensor:
        return torch.from_numpy(embedding.arrays["features"]).to(self._device).float()

    def _scale(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """Factors of x and y from the image to what the encoder saw."""
        height, width = _input_size(size)
        return np.array([width / size[1], height / size[0]])

    def _answer(
        self, features: torch.Tensor, prompts: Prompts, size: tuple[int, int]
    ) -> tuple[NDArray[np.bool_], float]:
        """See `mask`."""
        begin, count = None, len(prompts.points)
        if prompts.mask is not None:
            begin = self._rough(prompts.mask)
        elif prompts.box is None and count > 1 and prompts.positive.any():
            first = int(prompts.positive.argmax())
            alone = Prompts(prompts.points[first : first + 1], prompts.positive[first : first + 1])
            logits, quality = self._decode(features, alone, size, None, several=True)
            begin = logits[:, quality[0].argmax()][:, None]
        lone = count == 1 and prompts.box is None and begin is None
        logits, quality = self._decode(features, prompts, size, begin, several=lone)
        best = int(quality[0].argmax())
        return self._enlarge(logits[:, best : best + 1], size)[0], float(quality[0, best])

    def _decode(
        self,
        features: torch.Tensor,
        prompts: Prompts,
        size: tuple[int, int],
        begin: torch.Tensor | None,
        several: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (1, M, 256, 256) and estimated IoUs (1, M) of M = 3 masks, or of one."""
        model, scale = self._model, self._scale(size)
        points = box = None
        if len(prompts.points):
            places = torch.from_numpy(prompts.points * scale).float().to(self._device)[None]
            points = places, torch.from_numpy(prompts.positive.astype(np.int64)).to(self._device)[None]
        if prompts.box is not None:
            corners = (prompts.box.reshape(2, 2) * scale).reshape(1, 4)
            box = torch.from_numpy(corners).float().to(self._device)
        sparse, dense = model.prompt_encoder(points=points, boxes=box, masks=begin)
        logits, quality = model.mask_decoder(
            image_embeddings=features, image_pe=model.prompt_encoder.get_dense_pe(), sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense, multimask_output=several,
        )  # fmt: skip
        return logits, quality

    def _enlarge(self, logits: torch.Tensor, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Masks (N, H, W) of logits (N, 1, 256, 256), cut off at 0 after they were enlarged."""
        model = self._model
        large = model.postprocess_masks(logits, _input_size(size), size)
        masks: NDArray[np.bool_] = (large[:, 0] > model.mask_threshold).cpu().numpy()
        return masks

    def _rough(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        """A rough mask as logits (1, 1, 256, 256), laid out as the decoder's own."""
        height, width = (max(round(side * _GRID / _SIDE), 1) for side in _input_size(mask.shape))
        small = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        logits = np.full((_GRID, _GRID), -CERTAIN, np.float32)
        logits[:height, :width] = (2 * small - 1) * CERTAIN
        return torch.from_numpy(logits).to(self._device)[None, None]


def _input_size(size: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of an image as the encoder sees it."""
    scale = _SIDE / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def _has_seen(model: Any, features: torch.Tensor) -> Any:
    """The predictor of segment_anything, with features where it would run the encoder."""
    from segment_anything import SamPredictor  # noqa: PLC0415 - the model loads it

    class Predictor(SamPredictor):  # type: ignore[misc]
        def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
            self.original_size = image.shape[:2]
            self.input_size = _input_size(image.shape)
            self.features = features
            self.is_image_set = True

    return Predictor(model)


def _see_file(path: Path) -> None:
    if not path.is_file():
        raise ModelUnusableError(f"there is no {path}; get it with: a2lc weights fetch sam-vit-b")


def _read(path: Path) -> Any:
    """The model of a checkpoint, built by segment_anything in the size that its weights have."""
    from segment_anything.build_sam import _build_sam  # noqa: PLC0415 - the model loads it

    _see_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = _build_sam(**_shape(state))
        model.load_state_dict(state)
    except (
        RuntimeError,
        UnpicklingError,
        EOFError,
        LookupError,
        AttributeError,
        ValueError,
        TypeError,
        OSError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ModelUnusableError(f"{path} is no checkpoint of SAM ({reason}); see: a2lc weights check") from error
    return model


def _shape(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What `_build_sam` has to know, read from the weights' own shapes."""
    cells, dimension = state["image_encoder.pos_embed"].shape[2:]
    depth = sum(f"image_encoder.blocks.{index}.norm1.weight" in state for index in range(200))
    spans = [state[f"image_encoder.blocks.{index}.attn.rel_pos_h"].shape for index in range(depth)]
    return {
        "encoder_embed_dim": dimension,
        "encoder_depth": depth,
        "encoder_num_heads": dimension // spans[0][1],
        "encoder_global_attn_indexes": [index for index, span in enumerate(spans) if span[0] == 2 * cells - 1],
    }
