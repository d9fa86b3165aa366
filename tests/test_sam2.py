"""SAM 2: the same masks as its model and processor in transformers give, from many threads, in little memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import Sam2Model, Sam2Processor, pipeline
from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder
from transformers.utils import logging as transformers_logging

from a2lc_backend.foundation import Embedding, FoundationError, Prompts, sam2
from a2lc_backend.foundation.sam2 import Sam2
from tests.tiny_sam import write_sam2

CPU = torch.device("cpu")
SIZES = [(60, 90), (130, 75), (61, 61)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sam2(tmp_path_factory.mktemp("weights") / "sam2", seed=1)


@pytest.fixture(scope="module")
def model(folder: Path) -> Sam2:
    return Sam2(folder, CPU)


@pytest.fixture(scope="module")
def direct(folder: Path) -> Direct:
    return Direct(folder)


class Direct:
    """The library's own model and processor, asked as its documentation does."""

    def __init__(self, folder: Path) -> None:
        self.model = Sam2Model.from_pretrained(folder).eval()
        self.processor = Sam2Processor.from_pretrained(folder)

    def ask(
        self, image: NDArray[np.uint8], several: bool, begin: torch.Tensor | None = None, **prompts: Any
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32], torch.Tensor]:
        """Masks (N, M, H, W), estimated IoUs (N, M) and logits (N, M, h, w)."""
        inputs = self.processor(images=image, return_tensors="pt", **prompts)
        sizes = inputs.pop("original_sizes")
        with torch.no_grad():
            found = self.model(**inputs, input_masks=begin, multimask_output=several)
        masks = self.processor.post_process_masks(found.pred_masks, sizes)[0]
        return masks.numpy(), found.iou_scores[0].numpy(), found.pred_masks[0]

    def embedding(self, model: Sam2, image: NDArray[np.uint8]) -> Embedding:
        """What the encoder gives, in full precision."""
        pixels = self.processor(images=image, return_tensors="pt")["pixel_values"]
        arrays: Any = {f"level{n}": level.numpy() for n, level in enumerate(self.model.get_image_embeddings(pixels))}
        return replace(model.embed(image), arrays=arrays)


def photo(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def at(*points: Sequence[float], but: int | None = None) -> Prompts:
    """Points, positive all but one."""
    return Prompts(np.array(points, np.float64), np.arange(len(points)) != (-1 if but is None else but))


def same(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Of two masks no more differs than the rounding of a logit that is nearly 0."""
    return one.dtype == other.dtype == np.bool_ and one.shape == other.shape and float((one != other).mean()) < 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_the_encoder_gives_what_the_library_gives(model: Sam2, direct: Direct, size: tuple[int, int]) -> None:
    image = photo(size)
    embedding, exact = model.embed(image), direct.embedding(model, image)
    assert embedding.size == size
    assert embedding.arrays.keys() == exact.arrays.keys() == {"level0", "level1", "level2"}
    for name, level in embedding.arrays.items():
        assert level.dtype == np.float16
        assert np.array_equal(level, exact.arrays[name].astype(np.float16))
    assert np.array_equal(model.dense(embedding), embedding.arrays["level2"][0])


@pytest.mark.parametrize("size", SIZES)
def test_masks_are_those_of_the_library(model: Sam2, direct: Direct, size: tuple[int, int]) -> None:
    image = photo(size)
    embedding = direct.embedding(model, image)
    height, width = size
    point = [width * 0.3, height * 0.6]

    masks, quality, logits = direct.ask(image, True, input_points=[[[point]]], input_labels=[[[1]]])
    best = int(quality[0].argmax())
    mask, score = model.mask(embedding, at(point))
    assert 0.02 < mask.mean() < 0.98, "the random decoder must say something"
    assert same(mask, masks[0, best])
    assert score == pytest.approx(quality[0, best], abs=1e-6)

    points = [[width * 0.2, height * 0.2], point, [width - 1.0, 0.0]]
    _, sure, logits = direct.ask(image, True, input_points=[[[point]]], input_labels=[[[1]]])
    masks, quality, _ = direct.ask(
        image, False, logits[:, sure[0].argmax()][:, None], input_points=[[points]], input_labels=[[[0, 1, 1]]]
    )
    mask, score = model.mask(embedding, at(*points, but=0))
    assert same(mask, masks[0, 0])
    assert score == pytest.approx(quality[0, 0], abs=1e-6)

    box = [width * 0.1, height * 0.2, width * 0.7, height * 0.9]
    masks, quality, _ = direct.ask(image, False, input_boxes=[[box]])
    mask, score = model.mask(embedding, Prompts(box=np.array(box)))
    assert same(mask, masks[0, 0])
    assert score == pytest.approx(quality[0, 0], abs=1e-6)
    masks, quality, _ = direct.ask(image, False, input_points=[[[point]]], input_labels=[[[0]]], input_boxes=[[box]])
    mask, score = model.mask(embedding, replace(at(point, but=0), box=np.array(box)))
    assert same(mask, masks[0, 0])
    assert score == pytest.approx(quality[0, 0], abs=1e-6)

    boxes = [box, [0.0, 0.0, width / 3, height / 3], [width / 2, 1.0, width - 1.0, height - 1.0]]
    masks, _, _ = direct.ask(image, False, input_boxes=[boxes])
    found = model.box_masks(embedding, np.array(boxes))
    assert all(same(one, other) for one, other in zip(found, masks[:, 0], strict=True))
    assert model.box_masks(embedding, np.empty((0, 4))).shape == (0, height, width)

    rough = np.zeros(size, bool)
    rough[: height // 2, : width // 3] = True
    begin = torch.where(torch.from_numpy(rough), 8.0, -8.0)[None, None]
    masks, quality, _ = direct.ask(image, False, begin)
    mask, score = model.mask(embedding, Prompts(mask=rough))
    assert same(mask, masks[0, 0])
    assert score == pytest.approx(quality[0, 0], abs=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_half_a_pixel_matters(model: Sam2, direct: Direct, size: tuple[int, int]) -> None:
    image = photo(size)
    levels = [torch.from_numpy(level) for level in direct.embedding(model, image).arrays.values()]
    seen = []
    for point in ([20.0, 30.0], [20.5, 30.0], [20.0, 30.5]):
        _, _, expected = direct.ask(image, True, input_points=[[[point]]], input_labels=[[[1]]])
        places = model._places(np.array([[point]]), size)
        logits, _ = model._decode(levels, True, places, torch.ones(1, 1, dtype=torch.int64))
        assert torch.allclose(logits, expected, atol=1e-5)
        seen.append(logits)
    assert all((seen[0] - other).abs().max() > 0.01 for other in seen[1:])


def test_what_is_kept_in_half_precision_gives_the_same_masks(model: Sam2, direct: Direct) -> None:
    for seed in range(4):
        image = photo((60, 90), seed)
        exact, half = direct.embedding(model, image), model.embed(image)
        one, other = (model.mask(embedding, at([20, 30]))[0] for embedding in (exact, half))
        assert (one & other).sum() / (one | other).sum() > 0.98


def test_threads_with_different_images_never_mix(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, read = [], sam2.read_model
    monkeypatch.setattr(sam2, "read_model", lambda *asked: (opened.append(asked), read(*asked))[1])
    model, images = Sam2(folder, CPU), [photo(size, seed) for seed, size in enumerate(SIZES)]
    prompts = [at([10.0 + turn, 20.0]) for turn in range(4)]
    together = threading.Barrier(6)

    def see(thread: int) -> Embedding:
        together.wait()
        return model.embed(images[thread % 3])

    with ThreadPoolExecutor(6) as pool:
        embeddings = list(pool.map(see, range(6)))
    assert len(opened) == 1
    for embedding, image in zip(embeddings, images * 2, strict=True):
        alone = model.embed(image)
        assert all(np.array_equal(embedding.arrays[name], level) for name, level in alone.arrays.items())
    answers = [[model.mask(embedding, prompt)[0] for prompt in prompts] for embedding in embeddings[:3]]

    def ask(thread: int) -> bool:
        together.wait()
        turns = [((thread + turn) % 3, turn % 4) for turn in range(12)]
        return all(
            np.array_equal(model.mask(embeddings[image], prompts[prompt])[0], answers[image][prompt])
            for image, prompt in turns
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(6)))


@pytest.fixture
def discs(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A decoder whose masks are discs about its surest cell, a coarse grid, and limits that some of them pass."""
    decode = Sam2MaskDecoder.forward

    def draw(self: Any, **inputs: Any) -> Any:
        logits, quality, *more = decode(self, **inputs)
        height, width = logits.shape[-2:]
        peaks = logits.flatten(-2).argmax(-1)[..., None, None]
        rows, columns = torch.arange(height)[:, None] - peaks // width, torch.arange(width) - peaks % width
        away = (rows**2 + columns**2).sqrt()
        steep = torch.tensor([4.0, 2.0, 1.0])[: quality.shape[-1], None, None]
        return steep * (3 + 6 * quality[..., None, None] - away), quality, *more

    monkeypatch.setattr(Sam2MaskDecoder, "forward", draw)
    limits = {"pred_iou_thresh": 0.4, "stability_score_thresh": 0.65, "crops_nms_thresh": 0.7}
    for name, value in zip(("_LEAST_IOU", "_LEAST_STABILITY", "_MOST_OVERLAP"), limits.values(), strict=True):
        monkeypatch.setattr(sam2, name, value)
    monkeypatch.setattr(sam2, "_POINTS_A_SIDE", 6)
    return limits


def test_everything_is_what_the_library_finds_in_a_square(direct: Direct, model: Sam2, discs: dict[str, float]) -> None:
    whole = pipeline("mask-generation", model=direct.model, image_processor=direct.processor.image_processor)
    numbers = []
    for limits in (discs, {**discs, "pred_iou_thresh": 0.0}, {**discs, "stability_score_thresh": 0.0}):
        for name, value in zip(("_LEAST_IOU", "_LEAST_STABILITY"), limits.values(), strict=False):
            setattr(sam2, name, value)  # `discs` puts them back
        image = photo((80, 80), 3)
        expected = whole(Image.fromarray(image), points_per_crop=6, points_per_batch=64, **limits)["masks"]
        found = list(model.everything(direct.embedding(model, image)))
        assert all(same(one, other.numpy()) for one, other in zip(found, expected, strict=True))
        numbers.append(len(found))
    assert 3 <= numbers[0] < min(numbers[1:]), "each limit leaves something out"


@pytest.mark.usefixtures("discs")
def test_everything_looks_at_the_whole_image(model: Sam2, direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam2, "_MOST_OVERLAP", 1.0)
    image = photo((60, 120), 3)
    places = [[(column + 0.5) * 20, (row + 0.5) * 10] for row in range(6) for column in range(6)]
    masks, quality, logits = direct.ask(
        image, True, input_points=[[[place] for place in places]], input_labels=[[[1]] * 36]
    )
    large = functional.interpolate(logits, (60, 120), mode="bilinear", align_corners=False)
    stable = (large > 1).sum((2, 3)) >= 0.65 * (large > -1).sum((2, 3))
    kept = np.flatnonzero((quality > 0.4).ravel() & stable.numpy().ravel())
    kept = kept[np.argsort(-quality.ravel()[kept], kind="stable")]
    found = list(model.everything(direct.embedding(model, image)))
    assert len(found) > 10
    assert all(same(one, masks.reshape(-1, 60, 120)[place]) for one, place in zip(found, kept, strict=True))


def test_nothing_is_found_where_the_decoder_is_unsure(model: Sam2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam2, "_POINTS_A_SIDE", 2)
    monkeypatch.setattr(sam2, "_LEAST_IOU", 1.0)
    assert list(model.everything(model.embed(photo((20, 30))))) == []


@pytest.mark.usefixtures("discs")
def test_with_too_little_memory_batches_shrink(model: Sam2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_batch", 64)
    image = photo((61, 61))
    embedding = model.embed(image)
    boxes = np.random.default_rng(1).uniform(0, 30, (9, 4)) + np.array([0, 0, 30, 30])
    expected, everything = model.box_masks(embedding, boxes), list(model.everything(embedding))
    decode, sizes = Sam2MaskDecoder.forward, []

    def starved(self: Any, **inputs: Any) -> Any:
        sizes.append(inputs["sparse_prompt_embeddings"].shape[1])
        if sizes[-1] > 5:
            raise torch.OutOfMemoryError("too much")
        return decode(self, **inputs)

    monkeypatch.setattr(Sam2MaskDecoder, "forward", starved)
    found = model.box_masks(embedding, boxes)
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))
    assert sizes == [9, 4, 4, 1]
    sizes.clear()
    again = list(model.everything(embedding))
    assert all(same(one, other) for one, other in zip(again, everything, strict=True))
    assert sizes == [36, 18, 9, *[4] * 9]

    def broken(*_args: Any, **_inputs: Any) -> Any:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(Sam2MaskDecoder, "forward", broken)
    for ask in (
        lambda: model.box_masks(embedding, boxes),
        lambda: model.mask(embedding, at([5, 5])),
        lambda: model.everything(embedding),
    ):
        with pytest.raises(FoundationError, match="too little memory for the decoder of SAM 2"):
            ask()
    monkeypatch.setattr(type(model._model), "get_image_embeddings", broken)
    with pytest.raises(FoundationError, match="too little memory for the encoder of SAM 2"):
        model.embed(image)


def test_folders_of_the_model_of_videos_as_the_official_ones_are(
    model: Sam2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    video = Sam2(write_sam2(tmp_path / "video", video=True, seed=1), CPU)
    monkeypatch.setattr(transformers_logging.get_logger("transformers"), "propagate", True)  # caplog is at the root
    image = photo((60, 90))
    with caplog.at_level(logging.WARNING):
        embedding = video.embed(image)
    assert "sam2_video" not in caplog.text
    expected = model.embed(image)
    assert all(np.array_equal(embedding.arrays[name], level) for name, level in expected.arrays.items())
    assert embedding.fingerprint != expected.fingerprint
    assert np.array_equal(video.mask(embedding, at([20, 30]))[0], model.mask(expected, at([20, 30]))[0])


def test_the_fingerprint_follows_weights_and_settings_and_is_made_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, digest = [], sam2.weights_digest
    monkeypatch.setattr(sam2, "weights_digest", lambda *asked: (made.append(asked), digest(*asked))[1])
    model = Sam2(folder, CPU)
    with ThreadPoolExecutor(4) as pool:
        (name,) = set(pool.map(lambda _: model.fingerprint, range(8)))
    assert len(made) == 1
    assert Sam2(write_sam2(tmp_path / "other", seed=2), CPU).fingerprint != name
    again = write_sam2(tmp_path / "again", seed=1)
    assert Sam2(again, CPU).fingerprint == name
    settings = again / "processor_config.json"
    settings.write_text(settings.read_text().replace("0.485", "0.5"))
    assert Sam2(again, CPU).fingerprint != name


def test_what_cannot_be_used_is_said(model: Sam2, tmp_path: Path) -> None:
    for absent in (
        lambda: Sam2(tmp_path / "absent", CPU).fingerprint,
        lambda: Sam2(tmp_path / "absent", CPU).embed(photo((8, 8))),
    ):
        with pytest.raises(FoundationError, match="a2lc weights fetch sam2"):
            absent()
    part = write_sam2(tmp_path / "part")
    weights = load_file(part / "model.safetensors")
    del weights["mask_decoder.conv_s0.weight"]
    save_file(weights, part / "model.safetensors", {"format": "pt"})
    with pytest.raises(FoundationError, match=r"lacks 1 weights, mask_decoder\.conv_s0\.weight"):
        Sam2(part, CPU).embed(photo((8, 8)))
    (part / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(FoundationError, match="a2lc weights check"):
        Sam2(part, CPU).embed(photo((8, 8)))
    (part / "processor_config.json").unlink()
    (part / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(FoundationError, match="is a bert, not a sam2"):
        Sam2(part, CPU).embed(photo((8, 8)))
    embedding = model.embed(photo((61, 61)))
    with pytest.raises(FoundationError, match="needs a point"):
        model.mask(embedding, Prompts())
    with pytest.raises(FoundationError, match="make them alike"):
        model.mask(embedding, Prompts(mask=np.ones((61, 60), bool)))
    other = replace(embedding, fingerprint="other")
    for ask in (
        lambda: model.mask(other, at([5, 5])),
        lambda: model.box_masks(other, np.ones((1, 4))),
        lambda: model.dense(other),
    ):
        with pytest.raises(FoundationError, match="the embedding is of other"):
            ask()
