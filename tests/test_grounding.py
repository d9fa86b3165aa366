"""Grounding DINO: the same boxes as the library's own post-processing gives, each for one phrase that was asked for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import GroundingDinoForObjectDetection, GroundingDinoImageProcessor, GroundingDinoProcessor

from a2lc_backend.foundation import Boxes, FoundationError
from a2lc_backend.foundation.grounding import GroundingDino
from tests.tiny_text import vocabulary, write_dinov2, write_grounding_dino

CPU = torch.device("cpu")
PHRASES = ["Car", "traffic light", "a road"]
CAPTION = "car . traffic light . a road ."
STOP = 1012
SHORT = 16
"""Tokens that the second model reads at once: 14 beside the first and the last."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grounding_dino(tmp_path_factory.mktemp("weights") / "grounding-dino-tiny")


@pytest.fixture(scope="module")
def dino(folder: Path) -> GroundingDino:
    return GroundingDino(folder, CPU)


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> GroundingDino:
    return GroundingDino(write_grounding_dino(tmp_path_factory.mktemp("weights") / "brief", SHORT), CPU)


def photo(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def direct(folder: Path, image: NDArray[np.uint8], caption: str) -> tuple[Any, Any, Any]:
    """What the library's model and processor make of an image and a caption."""
    processor = GroundingDinoProcessor.from_pretrained(folder)
    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    inputs = processor(images=image, text=caption, return_tensors="pt", input_data_format="channels_last")
    with torch.inference_mode():
        return processor, inputs, model(**inputs)


def same(one: Boxes, other: Boxes) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "scores", "phrases"))


def listen(dino: GroundingDino, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each caption that the model is asked."""
    forward, asked = dino._model.forward, []

    def heard(**inputs: Any) -> Any:
        asked.append(inputs["input_ids"].shape[1])
        return forward(**inputs)

    monkeypatch.setattr(dino._model, "forward", heard)
    return asked


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (71, 71)])
@pytest.mark.parametrize("threshold", [0.0, 0.6])
def test_boxes_and_scores_are_those_of_the_librarys_post_processing(
    dino: GroundingDino, folder: Path, size: tuple[int, int], threshold: float
) -> None:
    image = photo(size)
    processor, _, output = direct(folder, image, CAPTION)
    (expected,) = processor.post_process_grounded_object_detection(output, threshold=threshold, target_sizes=[size])
    found = dino.detect(image, PHRASES, threshold)
    height, width = size
    clipped = np.clip(expected["boxes"].numpy(), 0, [width, height, width, height])
    assert len(found.boxes) == 60 if threshold == 0 else 0 < len(found.boxes) < 60
    assert np.array_equal(found.boxes, clipped)
    assert np.array_equal(found.scores, expected["scores"].numpy())
    assert (found.boxes.dtype, found.scores.dtype, found.phrases.dtype) == (np.float64, np.float64, np.int64)


def test_a_box_answers_the_phrase_with_its_likeliest_token(dino: GroundingDino, folder: Path) -> None:
    image = photo((60, 90))
    processor, inputs, output = direct(folder, image, CAPTION)
    (ids,) = inputs["input_ids"].tolist()
    phrase = np.cumsum(np.array(ids) == STOP)  # tokens before the first stop are of phrase 0
    own = np.array([token not in (101, 102, STOP) for token in ids])
    likely = output.logits[0, :, : len(ids)].sigmoid().numpy()
    best = np.where(own, likely, -1).argmax(axis=1)
    found = dino.detect(image, PHRASES, 0.0)
    assert np.array_equal(found.phrases, phrase[best])
    assert set(found.phrases.tolist()) == {0, 1, 2}
    outright = likely.argmax(axis=1)
    assert not own[outright].all(), "else no box has its score from a token that is no phrase's"
    (decoded,) = processor.post_process_grounded_object_detection(output, threshold=0.0, text_threshold=0.25)
    mixed = [text for text in decoded["text_labels"] if "car" in text and "light" in text]
    assert mixed, "else likely tokens put together would do as well"


def test_spans_are_where_the_tokenizer_finds_the_phrases(dino: GroundingDino) -> None:
    phrases = ["T-Shirt", "café", "自行车", "x" * 150, "cars", " a\tb ", "[SEP]", "what? car", "Traffic  Light"]
    (caption,) = dino._captions(phrases)
    read = dino._processor.tokenizer(caption.text, return_offsets_mapping=True)
    stops = [place for place, token in enumerate(read["input_ids"]) if token == STOP]
    assert caption.spans == tuple(zip([1, *(stop + 1 for stop in stops[:-1])], stops, strict=True))
    for (start, end), phrase in zip(caption.spans, phrases, strict=True):
        text = caption.text[read["offset_mapping"][start][0] : read["offset_mapping"][end - 1][1]]
        assert text == phrase.strip().lower()
    assert read["input_ids"][0] == 101 and read["input_ids"][-1] == 102
    assert read["input_ids"].count(102) == 1, "no phrase ends the caption"


def test_more_phrases_than_a_caption_takes(brief: GroundingDino, monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo((60, 90))
    asked = listen(brief, monkeypatch)
    phrases = ["car", "traffic light", "road", "sky", "tree", "person", "van", "t-shirt", "a", "b", "a road"]
    found = brief.detect(image, phrases, 0.0)
    assert asked == [15, 15]
    parts = [phrases[:6], phrases[6:]]
    alone = [brief.detect(image, part, 0.0) for part in parts]
    assert np.array_equal(found.boxes, np.concatenate([part.boxes for part in alone]))
    assert np.array_equal(found.scores, np.concatenate([part.scores for part in alone]))
    assert np.array_equal(found.phrases, np.concatenate([alone[0].phrases, alone[1].phrases + 6]))
    assert len(set(found.phrases[:60].tolist())) > 2 and len(set(found.phrases[60:].tolist())) > 2


def test_a_caption_is_filled_to_the_last_token(brief: GroundingDino, monkeypatch: pytest.MonkeyPatch) -> None:
    image, asked = photo((40, 40)), listen(brief, monkeypatch)
    brief.detect(image, ["car"] * 7, 0.0)
    assert asked == [SHORT]
    brief.detect(image, ["car"] * 8, 0.0)
    assert asked[1:] == [SHORT, 4]
    brief.detect(image, ["car " * 13, "sky"], 0.0)
    assert asked[3:] == [SHORT, 4]
    with pytest.raises(FoundationError, match="has 14 tokens, the model reads 1 to 13; use other words"):
        brief.detect(image, ["sky", "car " * 14], 0.0)


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        ([], "give one phrase or more"),
        (["car", " \n"], "a phrase is empty"),
        (["car", "st. bernard"], "'st. bernard' has a full stop"),
        (["car", "\u200b"], "has 0 tokens"),
    ],
)
def test_phrases_that_cannot_be_asked(dino: GroundingDino, phrases: Sequence[str], message: str) -> None:
    with pytest.raises(FoundationError, match=message):
        dino.detect(photo((40, 40)), phrases, 0.2)


def test_nothing_is_found(dino: GroundingDino) -> None:
    image = photo((60, 90))
    found = dino.detect(image, PHRASES, 1.0)
    assert (found.boxes.shape, found.scores.shape, found.phrases.shape) == ((0, 4), (0,), (0,))
    assert (found.boxes.dtype, found.scores.dtype, found.phrases.dtype) == (np.float64, np.float64, np.int64)
    best = float(dino.detect(image, PHRASES, 0.0).scores.max())
    assert len(dino.detect(image, PHRASES, best).boxes) == 0, "a score lies above the threshold"


@pytest.mark.parametrize("size", [(60, 200), (200, 60), (1, 200), (200, 1), (1, 1), (3, 3), (3, 40)])
def test_boxes_lie_within_the_image(dino: GroundingDino, size: tuple[int, int]) -> None:
    height, width = size
    for seed in range(3):
        boxes = dino.detect(photo(size, seed), PHRASES, 0.0).boxes
        assert len(boxes) > 0
        assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_boxes_of_a_thin_image_are_those_of_the_padded_one(dino: GroundingDino, folder: Path) -> None:
    image = photo((2, 200))
    padded = np.zeros((13, 200, 3), np.uint8)
    padded[:2] = image
    processor, _, output = direct(folder, padded, CAPTION)
    (expected,) = processor.post_process_grounded_object_detection(output, threshold=0.0, target_sizes=[(13, 200)])
    clipped = np.clip(expected["boxes"].numpy(), 0, [200, 2, 200, 2])
    inside = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    assert 0 < inside.sum() < 60
    found = dino.detect(image, PHRASES, 0.0)
    assert np.array_equal(found.boxes, clipped[inside])
    assert np.array_equal(found.scores, expected["scores"].numpy()[inside])
    with pytest.raises(RuntimeError, match="out of range"):  # what the model says of an image left as thin
        direct(folder, image, CAPTION)


def test_images_may_be_read_only_and_strided(dino: GroundingDino) -> None:
    image = photo((60, 90))
    expected = dino.detect(image, PHRASES, 0.0)
    strided = np.asfortranarray(image)
    for view in (image, strided):
        view.flags.writeable = False
        assert same(dino.detect(view, PHRASES, 0.0), expected)


def test_many_threads_read_the_weights_once_and_find_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(photo((50 + 10 * place, 70), place), PHRASES[: 1 + place % 3]) for place in range(6)]
    alone = GroundingDino(folder, CPU)
    expected = [alone.detect(image, phrases, 0.3) for image, phrases in asked]
    real, read, start = GroundingDinoForObjectDetection.from_pretrained, [], threading.Barrier(6)

    def counted(*place: Any, **how: Any) -> Any:
        read.append(place)
        return real(*place, **how)

    monkeypatch.setattr(GroundingDinoForObjectDetection, "from_pretrained", counted)
    forward, busy, together = GroundingDinoForObjectDetection.forward, [], []

    def slow(*place: Any, **how: Any) -> Any:
        busy.append(place)
        time.sleep(0.01)
        together.append(len(busy))
        try:
            return forward(*place, **how)
        finally:
            busy.pop()

    monkeypatch.setattr(GroundingDinoForObjectDetection, "forward", slow)
    shared = GroundingDino(folder, CPU)

    def work(what: tuple[NDArray[np.uint8], Sequence[str]]) -> list[Boxes]:
        start.wait(30)
        return [shared.detect(*what, 0.3) for _ in range(3)]

    with ThreadPoolExecutor(6) as pool:
        for found, wanted in zip(pool.map(work, asked), expected, strict=True):
            assert all(same(one, wanted) for one in found)
    assert len(read) == 1
    assert together == [1] * 18, "several images at once want as many times the memory"


def test_too_little_memory_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dino, image = GroundingDino(folder, CPU), photo((60, 90))

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(GroundingDinoForObjectDetection, "to", full)
        with pytest.raises(FoundationError, match=r"too little memory for the weights of .* set A2LC_DEVICE to cpu"):
            dino.detect(image, PHRASES, 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(GroundingDinoForObjectDetection, "forward", full)
        with pytest.raises(FoundationError, match="too little memory for Grounding DINO"):
            dino.detect(image, PHRASES, 0.2)
    assert len(dino.detect(image, PHRASES, 0.0).boxes) == 60, "it works again when there is room"


def test_folders_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    def refused(broken: Path, message: str) -> None:
        with pytest.raises(FoundationError, match=message) as caught:
            GroundingDino(broken, CPU).detect(photo((40, 40)), ["car"], 0.2)
        assert "a2lc weights check" in str(caught.value)
        assert "a2lc weights fetch grounding-dino-tiny" in str(caught.value)

    refused(tmp_path / "absent", "there is no folder")
    with pytest.raises(FoundationError, match=r"no weights in .* a2lc weights fetch grounding-dino-tiny"):
        _ = GroundingDino(tmp_path / "absent", CPU).fingerprint
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty")

    def copy(name: str) -> Path:
        (tmp_path / name).mkdir()
        for path in folder.iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
        return tmp_path / name

    other = copy("other")
    for path in write_dinov2(tmp_path / "dinov2").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    refused(other, "is a dinov2, not a grounding-dino")

    cut = copy("cut")
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(cut, "is no grounding-dino")

    part = copy("part")
    weights = load_file(part / "model.safetensors")
    del weights["model.text_projection.weight"]
    save_file(weights, part / "model.safetensors", {"format": "pt"})
    refused(part, r"lacks 1 weights, model\.text_projection\.weight among them")

    mute = copy("mute")
    (mute / "processor_config.json").unlink()
    refused(mute, "says not how images are prepared")


def test_a_folder_as_older_versions_wrote_it(dino: GroundingDino, folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    images = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    assert images["image_processor_type"] == GroundingDinoImageProcessor.__name__
    images["processor_class"] = "GroundingDinoProcessor"
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary()), encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    image = photo((60, 90))
    assert same(GroundingDino(tmp_path, CPU).detect(image, PHRASES, 0.0), dino.detect(image, PHRASES, 0.0))


def test_the_fingerprint_follows_the_weights(dino: GroundingDino, folder: Path, tmp_path: Path) -> None:
    kind, digest = dino.fingerprint.rsplit("-", 1)
    assert kind == "grounding-dino" and len(digest) == 12 and int(digest, 16) >= 0
    assert GroundingDino(folder, CPU).fingerprint == dino.fingerprint
    assert GroundingDino(write_grounding_dino(tmp_path, seed=1), CPU).fingerprint != dino.fingerprint
