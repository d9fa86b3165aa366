"""DINOv2: the same features as the library's own model gives, one a patch, for images of any shape."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import (
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTImageProcessor,
    DINOv3ViTModel,
)

from a2lc_backend.foundation import FoundationError
from a2lc_backend.foundation.dinov2 import DinoV2
from tests.tiny_text import MEAN, STD, write_dinov2, write_grounding_dino

CPU = torch.device("cpu")
REGISTERS = {"plain": 0, "registers": 4}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    weights = tmp_path_factory.mktemp("weights")
    return {name: write_dinov2(weights / name, count) for name, count in REGISTERS.items()}


@pytest.fixture(scope="module")
def dino(folders: dict[str, Path]) -> DinoV2:
    return DinoV2(folders["plain"], CPU)


def photo(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def direct(folder: Path, image: NDArray[np.uint8], registers: int) -> NDArray[np.float32]:
    """What the library's model makes of an image as it is, (D, h, w)."""
    kind = Dinov2WithRegistersModel if registers else Dinov2Model
    pixels = ((image / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    with torch.inference_mode():
        states = kind.from_pretrained(folder).eval()(torch.from_numpy(pixels)).last_hidden_state[0].numpy()
    rows, columns = image.shape[0] // 14, image.shape[1] // 14
    assert len(states) == 1 + registers + rows * columns
    return states[1 + registers :].reshape(rows, columns, -1).transpose(2, 0, 1)


@pytest.mark.parametrize("kind", list(REGISTERS))
@pytest.mark.parametrize("size", [(56, 84), (98, 14), (56, 56), (518, 28)])
def test_features_are_those_of_the_librarys_model(folders: dict[str, Path], kind: str, size: tuple[int, int]) -> None:
    image = photo(size)
    features = DinoV2(folders[kind], CPU).dense(image)
    assert features.dtype == np.float16
    assert features.shape == (24, size[0] // 14, size[1] // 14)
    assert features.std() > 0.1, "else everything is equal"
    np.testing.assert_allclose(features, direct(folders[kind], image, REGISTERS[kind]), atol=3e-3)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((500, 375), (36, 27)),
        ((360, 480), (26, 34)),
        ((1000, 700), (37, 26)),
        ((1036, 1036), (37, 37)),
        ((519, 100), (37, 7)),
        ((2000, 100), (37, 2)),
        ((10, 5000), (1, 37)),
        ((1, 1), (1, 1)),
        ((3, 3), (1, 1)),
        ((3, 40), (1, 3)),
    ],
)
def test_the_grid_covers_an_image_of_any_shape(dino: DinoV2, size: tuple[int, int], grid: tuple[int, int]) -> None:
    features = dino.dense(photo(size))
    assert features.shape == (24, *grid)
    assert np.isfinite(features).all()


def test_the_whole_image_is_resized(dino: DinoV2, folders: dict[str, Path]) -> None:
    large, small = photo((300, 1036)), photo((50, 61))
    for image, size, how in ((large, (154, 518), cv2.INTER_AREA), (small, (56, 56), cv2.INTER_AREA)):
        resized = np.asarray(cv2.resize(image, size[::-1], interpolation=how), np.uint8)
        expected = direct(folders["plain"], resized, 0)
        np.testing.assert_allclose(dino.dense(image), expected, atol=3e-3)


def test_other_patches_keep_within_the_side(tmp_path: Path) -> None:
    model = DinoV2(write_dinov2(tmp_path, patch=20), CPU)  # 26 patches, as near to 518 as they are, would be 520
    assert model.dense(photo((518, 300))).shape == (24, 25, 15)


def test_images_may_be_read_only_and_strided(dino: DinoV2) -> None:
    image = photo((56, 84))
    expected = dino.dense(image)
    strided = np.asfortranarray(image)
    for view in (image, strided):
        view.flags.writeable = False
        assert np.array_equal(dino.dense(view), expected)


def test_features_beyond_half_precision_stay_finite(folders: dict[str, Path], tmp_path: Path) -> None:
    changed(folders["plain"], tmp_path, "layernorm.weight", lambda weight: weight * 1e6)
    features = DinoV2(tmp_path, CPU).dense(photo((56, 56)))
    assert np.isfinite(features).all()
    assert abs(features).max() == np.finfo(np.float16).max


def test_weights_in_half_precision_are_used_in_single(folders: dict[str, Path], tmp_path: Path) -> None:
    Dinov2Model.from_pretrained(folders["plain"]).half().save_pretrained(tmp_path)
    settings = (folders["plain"] / "preprocessor_config.json").read_bytes()
    (tmp_path / "preprocessor_config.json").write_bytes(settings)
    model = DinoV2(tmp_path, CPU)
    expected = direct(folders["plain"], photo((56, 84)), 0)
    np.testing.assert_allclose(model.dense(photo((56, 84))), expected, atol=2e-2)
    assert model._model.dtype == torch.float32


def test_many_threads_read_the_weights_once(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = DinoV2(folders["plain"], CPU)
    images = [photo((56 + 14 * place, 70), place) for place in range(6)]
    expected = [alone.dense(image) for image in images]
    real, read, start = Dinov2Model.from_pretrained, [], threading.Barrier(6)

    def counted(*place: Any, **how: Any) -> Any:
        read.append(place)
        return real(*place, **how)

    monkeypatch.setattr(Dinov2Model, "from_pretrained", counted)
    forward, busy, together = Dinov2Model.forward, [], []

    def slow(*place: Any, **how: Any) -> Any:
        busy.append(place)
        time.sleep(0.01)
        together.append(len(busy))
        try:
            return forward(*place, **how)
        finally:
            busy.pop()

    monkeypatch.setattr(Dinov2Model, "forward", slow)
    shared = DinoV2(folders["plain"], CPU)

    def work(image: NDArray[np.uint8]) -> list[NDArray[np.float16]]:
        start.wait(30)
        return [shared.dense(image) for _ in range(3)]

    with ThreadPoolExecutor(6) as pool:
        for found, wanted in zip(pool.map(work, images), expected, strict=True):
            assert all(np.array_equal(one, wanted) for one in found)
    assert len(read) == 1
    assert together == [1] * 18, "several images at once want as many times the memory"


def test_too_little_memory_is_said(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = DinoV2(folders["plain"], CPU)

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Dinov2Model, "to", full)
        with pytest.raises(FoundationError, match=r"too little memory for the weights of .* set A2LC_DEVICE to cpu"):
            model.dense(photo((56, 56)))
    with monkeypatch.context() as patch:
        patch.setattr(Dinov2Model, "forward", full)
        with pytest.raises(FoundationError, match="too little memory for DINOv2"):
            model.dense(photo((56, 56)))
    assert model.dense(photo((56, 56))).shape == (24, 4, 4), "it works again when there is room"


def test_folders_that_cannot_be_used(folders: dict[str, Path], tmp_path: Path) -> None:
    def refused(broken: Path, message: str) -> None:
        with pytest.raises(FoundationError, match=message) as caught:
            DinoV2(broken, CPU).dense(photo((40, 40)))
        assert "a2lc weights check" in str(caught.value)
        assert "a2lc weights fetch dinov2-small" in str(caught.value)

    refused(tmp_path / "absent", "there is no folder")
    with pytest.raises(FoundationError, match=r"no weights in .* a2lc weights fetch dinov2-small"):
        _ = DinoV2(tmp_path / "absent", CPU).fingerprint
    refused(write_grounding_dino(tmp_path / "other"), "is a grounding-dino, not a dinov2 or dinov2_with_registers")
    (tmp_path / "cut").mkdir()
    copy(folders["plain"], tmp_path / "cut")
    whole = (tmp_path / "cut" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut", "is no dinov2")
    (tmp_path / "part").mkdir()
    changed(folders["plain"], tmp_path / "part", "layernorm.weight", None)
    refused(tmp_path / "part", r"lacks 1 weights, layernorm\.weight among them")
    (tmp_path / "mute").mkdir()
    copy(folders["plain"], tmp_path / "mute")
    (tmp_path / "mute" / "preprocessor_config.json").unlink()
    refused(tmp_path / "mute", "says not how images are prepared")


def test_the_fingerprint_follows_whatever_decides_the_features(folders: dict[str, Path], tmp_path: Path) -> None:
    plain = DinoV2(folders["plain"], CPU).fingerprint
    kind, digest, side = plain.split("-")
    assert (kind, side) == ("dinov2", "518") and len(digest) == 12 and int(digest, 16) >= 0
    copy(folders["plain"], tmp_path)
    assert DinoV2(tmp_path, CPU).fingerprint == plain, "where they lie is no matter"
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.5, 0.5, 0.5]}))
    assert DinoV2(tmp_path, CPU).fingerprint != plain
    others = {DinoV2(folder, CPU).fingerprint for folder in (write_dinov2(tmp_path / "b", seed=1), *folders.values())}
    assert len(others) == 3


def copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def changed(source: Path, target: Path, name: str, change: Any) -> None:
    """A copy of a folder with one of the weights changed; without it if `change` is None."""
    copy(source, target)
    weights = load_file(target / "model.safetensors")
    weight = weights.pop(name)
    if change is not None:
        weights[name] = change(weight)
    save_file(weights, target / "model.safetensors", {"format": "pt"})


def test_dinov3_is_read_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, patch_size=16,
        num_register_tokens=4,
    )  # fmt: skip
    library = DINOv3ViTModel(config).eval()
    library.save_pretrained(tmp_path)
    DINOv3ViTImageProcessor(image_mean=MEAN, image_std=STD).save_pretrained(tmp_path)
    image = photo((64, 96))
    pixels = ((image / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    with torch.inference_mode():
        states = library(torch.from_numpy(pixels)).last_hidden_state[0].numpy()
    assert len(states) == 1 + 4 + 4 * 6
    expected = states[5:].reshape(4, 6, -1).transpose(2, 0, 1)
    np.testing.assert_allclose(DinoV2(tmp_path, CPU).dense(image), expected, atol=3e-3)
