"""Cityscapes and PASCAL VOC 2012 as the benchmark reads them: small folders with the names and ids of the real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from a2lc_backend.bench import cityscapes, voc
from a2lc_backend.bench.dataset import open_data
from a2lc_backend.bench.experiment import run_bench
from a2lc_backend.bench.files import DataSetError
from a2lc_backend.bench.methods import BenchError
from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.cli import app
from a2lc_backend.masks import IGNORE, MaskSet
from a2lc_backend.proposals import Picture

SIZE = (48, 96)  # height, width

TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""What the benchmark's own scripts evaluate; every other label id is ignored."""


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2lc_backend.segmenter.unet.MIN_STEPS", 10)
    monkeypatch.setattr("a2lc_backend.segmenter.unet.MAX_STEPS", 10)


def save(path: Path, array: NDArray[np.uint8], palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette([value for value in range(256) for _ in range(3)])
    image.save(path)


def stripes(ids: list[int], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Upright stripes of equal width, one an id."""
    row = np.array(ids, np.uint8)[np.arange(size[1]) * len(ids) // size[1]]
    return np.repeat(row[None], size[0], axis=0)


def picture(ids: NDArray[np.uint8], seed: int = 0) -> NDArray[np.uint8]:
    """A colour of its own for each id, with a little noise."""
    colours = np.random.default_rng(7).integers(0, 226, (256, 3))
    noise = np.random.default_rng(seed).integers(0, 30, (*ids.shape, 3))
    return np.asarray(colours[ids] + noise, np.uint8)


def add_street(root: Path, split: str, city: str, number: int, ids: NDArray[np.uint8], kind: str = "labelIds") -> str:
    name = f"{city}_{number:06d}_000019"
    save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", picture(ids, number))
    save(root / "gtFine" / split / city / f"{name}_gtFine_{kind}.png", ids)
    return name


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Three training images of two cities and one for validation."""
    root = tmp_path / "cityscapes"
    add_street(root, "train", "aachen", 0, stripes([7, 8, 11, 26, 1]))
    add_street(root, "train", "aachen", 1, stripes([23, 21, 11, 7, 255]))
    add_street(root, "train", "bochum", 2, stripes([7, 24, 26, 11]))
    add_street(root, "val", "munster", 3, stripes([7, 8, 11, 26]))
    return root


def add_photo(root: Path, name: str, ids: NDArray[np.uint8], folder: str = "SegmentationClass") -> None:
    save(root / "JPEGImages" / f"{name}.jpg", picture(ids))
    save(root / folder / f"{name}.png", ids, palette=folder == "SegmentationClass")


def write_list(root: Path, split: str, *lines: str) -> None:
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A VOC2012 folder in its VOCdevkit: two training images, one for validation, one that no list names."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    add_photo(root, "2007_000032", stripes([0, 1, 255, 0, 15]))
    add_photo(root, "2007_000039", stripes([0, 20, 0], (60, 40)))
    add_photo(root, "2007_000033", stripes([0, 1, 15]))
    add_photo(root, "2007_000042", stripes([0, 19]))
    write_list(root, "train", "2007_000039", "2007_000032")
    write_list(root, "val", "2007_000033")
    return root


def bench(root: Path, out: Path, methods: tuple[str, ...] = ("mask",), **options: Any) -> dict[str, Any]:
    budget = options.pop("budget", None)
    return dict(
        json.loads(run_bench(root, methods, budget, 1, [0], out, Console(file=StringIO()), **options).read_text())
    )


def test_every_label_id_of_cityscapes_becomes_its_train_id_or_none(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(8, 32)
    name = add_street(tmp_path, "train", "aachen", 0, every)
    truth = open_data(tmp_path).truth(name).ravel()
    assert {label: int(truth[label]) for label in range(256) if truth[label] != IGNORE} == TRAIN_IDS


def test_train_ids_of_cityscapes_are_preferred(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(8, 32)
    name = add_street(tmp_path, "train", "aachen", 0, np.full((8, 32), 7, np.uint8))
    add_street(tmp_path, "train", "aachen", 0, every, "labelTrainIds")
    truth = open_data(tmp_path).truth(name).ravel()
    assert truth[:19].tolist() == list(range(19))
    assert (truth[19:] == IGNORE).all()


def test_cityscapes_is_read(streets: Path) -> None:
    data = open_data(streets)
    assert (data.name, data.budget, data.proposals, data.backbone_path) == ("cityscapes", 10_000, "superpixels", None)
    assert data.classes == cityscapes.CLASSES
    assert len(data.classes) == 19
    assert data.names == ("aachen_000000_000019", "aachen_000001_000019", "bochum_000002_000019")
    assert data.val_names == ("munster_000003_000019",)
    assert data.image(data.names[0]).shape == (*SIZE, 3)
    assert np.array_equal(data.val_truth(data.val_names[0]), stripes([0, 1, 2, 13]))
    assert open_data(streets, "val").names == data.val_names


@pytest.mark.parametrize(
    "lines",
    [
        "bochum_000002_000019\naachen_000000_000019\n\naachen_000000_000019",
        "leftImg8bit/train/bochum/bochum_000002_000019_leftImg8bit.png gtFine/train/bochum/x.png\n"
        "train\\aachen\\aachen_000000_000019_leftImg8bit.png",
    ],
)
def test_a_list_restricts_cityscapes(streets: Path, lines: str) -> None:
    (streets / "train.txt").write_text(lines)
    assert open_data(streets).names == ("aachen_000000_000019", "bochum_000002_000019")


def test_validation_images_are_optional(streets: Path, photos: Path) -> None:
    shutil.rmtree(streets / "leftImg8bit" / "val")
    (photos / "ImageSets" / "Segmentation" / "val.txt").unlink()
    for root in (streets, photos):
        assert open_data(root).val_names == ()


def test_voc_is_read_from_any_of_its_folders(photos: Path) -> None:
    for root in (photos, photos.parent, photos.parent.parent):
        data = open_data(root)
        assert (data.name, data.budget, data.proposals) == ("VOC2012", 1_000, "superpixels")
        assert data.classes == voc.CLASSES
        assert len(data.classes) == 21
        assert data.names == ("2007_000032", "2007_000039")
        assert data.val_names == ("2007_000033",)
    assert np.array_equal(data.truth("2007_000032"), stripes([0, 1, IGNORE, 0, 15]))
    assert data.image("2007_000039").shape == (60, 40, 3)


def test_voc_takes_the_augmented_list(photos: Path) -> None:
    add_photo(photos, "2008_000002", stripes([0, 20]), "SegmentationClassAug")
    write_list(photos, "train_aug", "/JPEGImages/2008_000002.jpg /SegmentationClassAug/2008_000002.png")
    assert np.array_equal(open_data(photos, "train_aug").truth("2008_000002"), stripes([0, 20]))


def test_an_id_that_voc_does_not_have_is_named(photos: Path) -> None:
    add_photo(photos, "2007_000032", stripes([0, 21]))
    with pytest.raises(DataSetError, match=r"2007_000032\.png: holds the id 21; the classes are 0 to 20"):
        open_data(photos).truth("2007_000032")


def remove(path: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove("gtFine/train/bochum"), r"bochum_000002_000019_gtFine_labelIds\.png is missing; unpack gtFine"),
        (remove("leftImg8bit/train"), "is missing; unpack leftImg8bit"),
        (lambda root: (root / "train.txt").write_text("berlin_000000_000019\n"), "names 'berlin_000000_000019', which"),
        (lambda root: (root / "train.txt").write_text(" \n"), "names no image; write one image name a line"),
        (lambda root: [path.unlink() for path in root.glob("leftImg8bit/train/*/*")], "holds no CITY"),
    ],
)
def test_a_spoilt_cityscapes_is_named(streets: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(streets)
    with pytest.raises(DataSetError, match=message):
        open_data(streets)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove("JPEGImages/2007_000032.jpg"), r"2007_000032\.jpg is missing, which .*train\.txt names"),
        (remove("SegmentationClass/2007_000039.png"), r"2007_000039\.png is missing, which .*train\.txt names"),
        (remove("ImageSets/Segmentation/train.txt"), r"train\.txt cannot be read"),
        (lambda root: write_list(root, "train"), "names no image"),
    ],
)
def test_a_spoilt_voc_is_named(photos: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(photos)
    with pytest.raises(DataSetError, match=message):
        open_data(photos)


def test_other_folders_are_told_the_three_layouts(tmp_path: Path) -> None:
    layouts = r"world folder \(classes\.json.*Cityscapes \(leftImg8bit.*VOC 2012 \(JPEGImages"
    with pytest.raises(DataSetError, match=f"is no data set that is known here; give a {layouts}"):
        open_data(tmp_path)
    with pytest.raises(DataSetError, match=f"is not a folder; give a {layouts}"):
        open_data(tmp_path / "nowhere")
    (tmp_path / "pool").mkdir()
    with pytest.raises(DataSetError, match=r"classes\.json is missing"):
        open_data(tmp_path)
    with pytest.raises(DataSetError, match="leave --split out"):
        open_data(tmp_path, "val")


def test_the_digest_sees_a_changed_truth(streets: Path, photos: Path) -> None:
    for root in (streets, photos):
        before = open_data(root)
        assert before.digest() == open_data(root).digest()
    digests = {open_data(streets).digest(), open_data(photos).digest()}
    add_photo(photos, "2007_000032", stripes([0, 2, 255, 0, 15]))
    add_street(streets, "train", "bochum", 2, stripes([7, 24, 27, 11]))
    assert not digests & {open_data(streets).digest(), open_data(photos).digest()}


@pytest.mark.parametrize("methods", [("alc", "a2lc-paper"), ("a2lc",)])
def test_cityscapes_goes_through_real_rounds(streets: Path, tmp_path: Path, methods: tuple[str, ...]) -> None:
    report = bench(streets, tmp_path / "out", methods)
    assert set(report) == {"methods", "initial_data_miou", "ceiling_data_miou"}
    assert report["initial_data_miou"] == 0, "superpixels have no first labels"
    assert report["ceiling_data_miou"] > 50
    for found in report["methods"].values():
        assert found["data_miou"][0][0] == 0
        assert found["data_miou"][0][1] > 0
        assert all(0 <= value <= 100 for value in found["model_miou"][0])
    for name in set(methods) & {"a2lc-paper", "a2lc"}:  # 10,000 a round: all masks are asked about
        assert report["methods"][name]["data_miou"][0][1] == pytest.approx(report["ceiling_data_miou"])
    page = (tmp_path / "out" / "report.md").read_text()
    assert "# Benchmark on `cityscapes`" in page
    assert "10,000 masks a round" in page
    assert "masks and first labels: `superpixels`" in page
    masks = list((tmp_path / "out" / "cache").glob("*/project-1/tasks/*/masks-proposed"))
    assert len(masks) == 3, "all methods share them"


def test_voc_goes_through_real_rounds(photos: Path, tmp_path: Path) -> None:
    report = bench(photos.parent, tmp_path / "out", ("mask", "a2lc"), budget=30)
    for found in report["methods"].values():
        assert found["queries"][0] <= 30
        assert found["data_miou"][0][1] > found["data_miou"][0][0] == report["initial_data_miou"] == 0


class Halves:
    """A source that another version of the registry may have: the left and the right half, with first labels."""

    name = "halves"

    def propose(self, picture: Picture) -> MaskSet:
        ids = np.where(np.arange(picture.size[1]) * 2 < picture.size[1], 1, 2)
        mask_ids = np.repeat(ids[None], picture.size[0], axis=0).astype(np.uint16)
        return MaskSet(mask_ids, ("left", "right"), np.array([0, 13]), {})


def test_any_source_of_masks_that_is_registered_can_be_named(
    streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def registry(name: str, **_: object) -> Halves:
        asked.append(name)
        return Halves()

    monkeypatch.setattr("a2lc_backend.bench.ground.make_proposals", registry)
    report = bench(streets, tmp_path / "out", proposals="halves")
    assert asked == ["halves"]
    assert report["initial_data_miou"] > 0
    assert report["methods"]["mask"]["queries"] == [6]


def test_a_world_can_be_cut_into_superpixels(tmp_path: Path) -> None:
    root = tmp_path / "street"
    draw_world(root, images=2, val_images=1, size=(96, 128))
    assert bench(root, tmp_path / "out", proposals="superpixels", budget=20)["initial_data_miou"] == 0
    with pytest.raises(BenchError, match="proposals superpixels, now world"):
        bench(root, tmp_path / "out", budget=20)


def test_masks_that_cannot_be_had_are_named(streets: Path, tmp_path: Path) -> None:
    for name, message in (
        ("world", "which cityscapes is not; choose others"),
        ("telepathy", "no proposals are named 'telepathy'"),
        ("existing", "image 'aachen_000000_000019' gets no masks.*has no regions"),
    ):
        with pytest.raises(BenchError, match=message):
            bench(streets, tmp_path / "out", proposals=name)


def test_a_backbone_that_cannot_be_used_is_named(streets: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="there is no backbone"):
        bench(streets, tmp_path / "out", backbone=tmp_path / "none.pt2")
    for suffix in ("pt2", "pth"):
        file = tmp_path / f"bad.{suffix}"
        file.write_bytes(b"no network")
        with pytest.raises(BenchError, match=rf"bad\.{suffix}"):
            bench(streets, tmp_path / suffix, backbone=file)


def test_a_given_backbone_is_used(photos: Path, tmp_path: Path) -> None:
    import torch

    class Colours(torch.nn.Module):
        """Colours as features."""

        def __init__(self) -> None:
            super().__init__()
            self.mix = torch.nn.Conv2d(3, 8, 1)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.mix(images)
            return features, features[:, :3]

    file = tmp_path / "colours.pt2"
    torch.export.save(torch.export.export(Colours().eval(), (torch.zeros(1, 3, 24, 32),)), str(file))
    bench(photos, tmp_path / "out", backbone=file, budget=30)
    kinds = {path.name for path in (tmp_path / "out" / "cache").glob("*/project-2/tasks/*/input-*")}
    assert len(kinds) == 1
    assert "unet" not in kinds.pop()
    with pytest.raises(BenchError, match=r"backbone \w{16}, now None"):
        bench(photos, tmp_path / "out", budget=30)


def test_the_command_says_what_a_folder_may_be(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "is no data set that is known here; give a world folder" in result.output


def test_the_command_takes_the_budget_of_the_data_set(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--data", str(photos), "--out", str(out), "--methods", "mask", "--rounds", "1", "--seeds", "1"]
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 0, result.output
    assert json.loads((out / "details.json").read_text())["budget"] == 1_000
