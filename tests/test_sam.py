"""SAM: the same masks as segment_anything's own predictor gives, from many threads, in little memory."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.build_sam import _build_sam

from a2lc_backend.foundation import Embedding, FoundationError, Prompts
from a2lc_backend.foundation import sam as sam_module
from a2lc_backend.foundation.sam import Sam
from tests.tiny_sam import write_sam

CPU = torch.device("cpu")
SIZES = [(96, 128), (130, 75), (61, 61)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sam(tmp_path_factory.mktemp("weights") / "sam.pth")


@pytest.fixture(scope="module")
def sam(checkpoint: Path) -> Sam:
    return Sam(checkpoint, CPU)


def photo(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def whole(sam: Sam, image: NDArray[np.uint8]) -> tuple[Embedding, SamPredictor]:
    """What our encoder saw, in full precision, and the library's predictor on the same image."""
    predictor = SamPredictor(sam._model)
    predictor.set_image(image)
    embedding = sam.embed(image)
    exact: Any = {"features": predictor.features.numpy()}
    assert np.allclose(embedding.arrays["features"], exact["features"], atol=2e-3)
    return replace(embedding, arrays=exact), predictor


@pytest.mark.parametrize("size", SIZES)
def test_masks_are_those_of_the_librarys_predictor(sam: Sam, size: tuple[int, int]) -> None:
    embedding, predictor = whole(sam, photo(size))
    height, width = size
    point = np.array([[width * 0.3, height * 0.6]])
    masks, quality, logits = predictor.predict(point, np.array([1]), multimask_output=True)
    best = quality.argmax()
    mask, score = sam.mask(embedding, Prompts(point, np.array([True])))
    assert 0 < mask.sum() < mask.size, "the random decoder must say something"
    assert np.array_equal(mask, masks[best])
    assert score == pytest.approx(quality[best])

    points = np.array([[width * 0.2, height * 0.2], *point, [width - 1, 0]])
    positive = np.array([False, True, True])
    masks, quality, _ = predictor.predict(
        points, positive.astype(int), mask_input=logits[best][None], multimask_output=False
    )
    mask, score = sam.mask(embedding, Prompts(points, positive))
    assert np.array_equal(mask, masks[0])
    assert score == pytest.approx(quality[0])

    box = np.array([width * 0.1, height * 0.2, width * 0.7, height * 0.9])
    masks, _, _ = predictor.predict(point, np.array([0]), box=box, multimask_output=False)
    assert np.array_equal(sam.mask(embedding, Prompts(point, np.array([False]), box))[0], masks[0])
    masks, _, _ = predictor.predict(box=box, multimask_output=False)
    assert np.array_equal(sam.box_masks(embedding, np.array([box, box / 2]))[0], masks[0])


@pytest.mark.parametrize("size", SIZES)
def test_half_a_pixel_matters(sam: Sam, size: tuple[int, int]) -> None:
    embedding, predictor = whole(sam, photo(size))
    sparse = [
        sam._model.prompt_encoder(points=(torch.tensor([[[x, 20.0]]]), torch.ones(1, 1)), boxes=None, masks=None)[0]
        for x in (40.0 * 8, 40.5 * 8)
    ]
    assert not torch.allclose(*sparse)
    for x in (40.0, 40.5):
        logits, _ = sam._decode(
            torch.from_numpy(embedding.arrays["features"]), Prompts(np.array([[x, 20.0]]), np.array([True])),
            embedding.size, None, several=False,
        )  # fmt: skip
        _, _, expected = predictor.predict(np.array([[x, 20.0]]), np.array([1]), multimask_output=False)
        assert np.allclose(logits[0].numpy(), expected, atol=1e-5)


def test_a_rough_mask_is_laid_out_as_the_decoder_lays_out_its_own(sam: Sam) -> None:
    embedding, predictor = whole(sam, photo((96, 128)))
    rough = np.zeros((96, 128), bool)
    rough[:48, :64] = True
    logits = sam._rough(rough)[0, 0].numpy()
    assert logits.shape == (256, 256)
    assert (logits[:96, :128] > 0).all()
    assert (logits[96:] < 0).all()
    assert (logits[:, 128:] < 0).all()
    masks, _, _ = predictor.predict(mask_input=logits[None], multimask_output=False)
    assert np.array_equal(sam.mask(embedding, Prompts(mask=rough))[0], masks[0])


def test_what_is_kept_in_half_precision_gives_the_same_masks(sam: Sam) -> None:
    image = photo((96, 128))
    exact, _ = whole(sam, image)
    half = sam.embed(image)
    assert half.arrays["features"].dtype == np.float16
    boxes = np.array([[5, 5, 60, 60], [30, 20, 120, 90], [0, 0, 127, 95]], np.float64)
    one, other = sam.box_masks(exact, boxes), sam.box_masks(half, boxes)
    assert (one & other).sum() / (one | other).sum() > 0.98


def test_threads_with_different_images_never_mix(sam: Sam) -> None:
    embeddings = [sam.embed(photo(size, seed)) for seed, size in enumerate(SIZES)]
    prompts = [Prompts(np.array([[10.0 + turn, 20.0]]), np.array([True])) for turn in range(4)]
    alone = [[sam.mask(embedding, prompt)[0] for prompt in prompts] for embedding in embeddings]
    together = threading.Barrier(8)

    def ask(thread: int) -> bool:
        together.wait()
        same = True
        for turn in range(12):
            image, prompt = (thread + turn) % len(embeddings), turn % len(prompts)
            same &= np.array_equal(sam.mask(embeddings[image], prompts[prompt])[0], alone[image][prompt])
        return same

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


def test_the_file_is_read_and_hashed_once_by_many_threads(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("_read", "file_digest"):
        call = getattr(sam_module, name)
        monkeypatch.setattr(sam_module, name, lambda path, name=name, call=call: (calls.append(name), call(path))[1])
    fresh, together = Sam(checkpoint, CPU), threading.Barrier(4)

    def see(_thread: int) -> Embedding:
        together.wait()
        return fresh.embed(photo((20, 30)))

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(see, range(4)))
    assert sorted(calls) == ["_read", "file_digest"]
    assert {embedding.fingerprint for embedding in seen} == {fresh.fingerprint}
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:12]
    assert fresh.fingerprint == f"sam-{digest}-1024"


@pytest.mark.parametrize(("width", "heads", "whole_image"), [(64, 4, [0, 2]), (48, 2, [1])])
def test_the_checkpoint_says_its_own_shape(tmp_path: Path, width: int, heads: int, whole_image: list[int]) -> None:
    shape = {
        "encoder_embed_dim": width,
        "encoder_depth": 3,
        "encoder_num_heads": heads,
        "encoder_global_attn_indexes": whole_image,
    }
    torch.save(_build_sam(**shape).state_dict(), tmp_path / "sam.pth")
    assert sam_module._shape(torch.load(tmp_path / "sam.pth")) == shape
    encoder = Sam(tmp_path / "sam.pth", CPU)._model.image_encoder
    assert [place for place, block in enumerate(encoder.blocks) if block.window_size == 0] == whole_image
    assert encoder.blocks[0].attn.num_heads == heads


def test_the_grid_of_features_covers_the_image_and_no_more(sam: Sam) -> None:
    assert sam.dense(sam.embed(photo((96, 128)))).shape == (256, 48, 64)
    assert sam.dense(sam.embed(photo((128, 32)))).shape == (256, 64, 16)


def test_with_too_little_memory_boxes_and_points_come_in_smaller_batches(
    sam: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = sam.embed(photo((61, 61)))
    boxes = np.random.default_rng(1).uniform(0, 30, (9, 4)) + np.array([0, 0, 30, 30])
    expected = sam.box_masks(embedding, boxes)
    decode, sizes = type(sam._model.mask_decoder).forward, []
    monkeypatch.setattr(sam, "_batch", 64)

    def starved(self: Any, **inputs: Any) -> Any:
        sizes.append(len(inputs["sparse_prompt_embeddings"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("too much")
        return decode(self, **inputs)

    monkeypatch.setattr(type(sam._model.mask_decoder), "forward", starved)
    assert np.array_equal(sam.box_masks(embedding, boxes), expected)
    assert sizes[:3] == [9, 4, 2]

    def broken(*_args: Any, **_inputs: Any) -> Any:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(type(sam._model.mask_decoder), "forward", broken)
    with pytest.raises(FoundationError, match="too little memory for the decoder of SAM"):
        sam.box_masks(embedding, boxes)
    with pytest.raises(FoundationError, match="too little memory for the decoder of SAM"):
        sam.mask(embedding, Prompts(np.array([[5.0, 5.0]]), np.array([True])))
    with pytest.raises(FoundationError, match="too little memory for SAM; choose sam-vit-b"):
        sam.everything(embedding)
    monkeypatch.setattr(type(sam._model.image_encoder), "forward", broken)
    with pytest.raises(FoundationError, match="too little memory for the encoder of SAM"):
        sam.embed(photo((20, 20)))


def test_everything_is_what_the_librarys_generator_finds(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sam, image = Sam(checkpoint, CPU), photo((48, 64))
    monkeypatch.setattr(sam, "_batch", 64)
    loose = {"points_per_side": 3, "pred_iou_thresh": -9.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
    real = SamAutomaticMaskGenerator
    with sam._model.image_encoder.register_forward_hook(lambda _model, _images, found: found.half().float()):
        expected = [item["segmentation"] for item in real(sam._model, **loose).generate(image)]
    embedding = sam.embed(image)
    monkeypatch.setattr(type(sam._model.image_encoder), "forward", None)
    asked: list[int] = []

    def tuned(model: Any, points_per_batch: int, output_mode: str) -> Any:
        asked.append(points_per_batch)
        if points_per_batch > 4:
            raise torch.OutOfMemoryError("too much")
        return real(model, points_per_batch=points_per_batch, output_mode=output_mode, **loose)

    monkeypatch.setattr("segment_anything.SamAutomaticMaskGenerator", tuned)
    found = list(sam.everything(embedding))
    assert len(found) == len(expected) > 0
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert asked == [64, 32, 16, 8, 4]
    assert Sam(checkpoint, CPU)._batch < Sam(checkpoint, torch.device("cuda"))._batch


def test_what_cannot_be_used_is_said(sam: Sam, tmp_path: Path) -> None:
    with pytest.raises(FoundationError, match="a2lc weights fetch sam-vit-b"):
        _ = Sam(tmp_path / "absent.pth", CPU).fingerprint
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(FoundationError, match=r"is no checkpoint of SAM .* a2lc weights check"):
        Sam(tmp_path / "text.pth", CPU).embed(photo((8, 8)))
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(torch.zeros(2), tmp_path / "tensor.pth")
    for name in ("other.pth", "tensor.pth"):
        with pytest.raises(FoundationError, match="is no checkpoint of SAM"):
            Sam(tmp_path / name, CPU).embed(photo((8, 8)))
    with pytest.raises(FoundationError, match="a2lc weights fetch sam-vit-b"):
        Sam(tmp_path / "absent.pth", CPU).embed(photo((8, 8)))
    embedding = sam.embed(photo((61, 61)))
    with pytest.raises(FoundationError, match="needs a point"):
        sam.mask(embedding, Prompts())
    with pytest.raises(FoundationError, match="make them alike"):
        sam.mask(embedding, Prompts(mask=np.ones((61, 60), bool)))
    with pytest.raises(FoundationError, match="the embedding is of other"):
        sam.mask(replace(embedding, fingerprint="other"), Prompts(mask=np.ones((61, 61), bool)))
