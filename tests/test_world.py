import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from a2lc_backend.bench.files import DataSetError
from a2lc_backend.bench.world import load_world
from a2lc_backend.masks import IGNORE

SIZE = (6, 8)  # height, width


def save_ids(path: Path, ids) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(ids, np.uint8))
    image.putpalette([value for value in range(256) for _ in range(3)])
    image.save(path)


def save_image(path: Path, size=SIZE, value=90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    """A world folder of four pool images (one of them .png) and one validation image; 3 masks an image."""
    truth = np.zeros(SIZE, np.uint8)
    truth[:, 4:] = 1
    truth[0] = 9
    masks = np.zeros(SIZE, np.uint8)
    masks[:3, :4], masks[3:, :4], masks[2:, 5:] = 1, 2, 3
    for name in ("b", "a", "d"):
        save_image(tmp_path / "pool" / "images" / f"{name}.jpg")
    save_image(tmp_path / "pool" / "images" / "c.png")
    for name in "abcd":
        save_ids(tmp_path / "pool" / "labels" / f"{name}.png", truth)
        save_ids(tmp_path / "pool" / "masks" / f"{name}.png", masks)
    save_image(tmp_path / "val" / "images" / "v.jpg", value=30)
    save_ids(tmp_path / "val" / "labels" / "v.png", truth)
    write(tmp_path / "pool" / "pseudo_labels.json", {name: [0, 1, 9] for name in "abcd"})
    write(tmp_path / "classes.json", {"names": ["road", "car"], "ignore": 9})
    return tmp_path


def write(path: Path, content) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_reads_a_world(root):
    world = load_world(root)
    assert world.root == root
    assert world.classes == ("road", "car")
    assert world.ignore == 9
    assert world.names == ("a", "b", "c", "d")
    assert world.image_path("c") == root / "pool" / "images" / "c.png"
    assert world.image("a").shape == (*SIZE, 3)
    assert world.image("a").dtype == np.uint8


def test_truth_holds_the_ignore_label_of_the_program(root):
    truth = load_world(root).truth("a")
    assert truth.dtype == np.uint8
    assert (truth[0] == IGNORE).all()
    assert sorted(np.unique(truth)) == [0, 1, IGNORE]


def test_mask_set_names_its_regions_and_carries_first_labels(root):
    masks = load_world(root).mask_set("b")
    assert masks.region_ids == ("b-001", "b-002", "b-003")
    assert masks.first_labels.tolist() == [0, 1, IGNORE]
    assert masks.mask_ids.dtype == np.uint16
    assert masks.areas().tolist() == [12, 12, 12]


def test_masks_may_have_sixteen_bits(root):
    ids = np.zeros(SIZE, np.uint16)
    ids[2] = 300
    Image.fromarray(ids).save(root / "pool" / "masks" / "a.png")
    write(root / "pool" / "pseudo_labels.json", {name: [0] * 300 for name in "abcd"})
    assert load_world(root).mask_set("a").areas()[299] == SIZE[1]


def test_validation_images(root):
    world = load_world(root)
    assert world.val_names == ("v",)
    assert abs(int(world.val_image("v").mean()) - 30) <= 1
    assert world.val_truth("v")[0, 0] == IGNORE


def test_validation_is_optional(root):
    for path in sorted((root / "val").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert load_world(root).val_names == ()


def test_backbone_is_optional(root):
    assert load_world(root).backbone_path is None
    (root / "backbone.pt2").write_bytes(b"x")
    assert load_world(root).backbone_path == root / "backbone.pt2"


def test_limit_spreads_over_the_pool(root):
    assert load_world(root, limit=2).names == ("b", "d")
    assert load_world(root, limit=1).names == ("c",)
    assert load_world(root, limit=4).names == load_world(root, limit=99).names == ("a", "b", "c", "d")
    with pytest.raises(DataSetError, match="1 or more"):
        load_world(root, limit=0)


def test_limit_needs_only_the_files_it_uses(root):
    (root / "pool" / "masks" / "a.png").unlink()
    assert load_world(root, limit=2).names == ("b", "d")


def test_a_world_cannot_be_changed(root):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_world(root).ignore = 3


def test_unknown_names_are_refused(root):
    world = load_world(root, limit=1)
    for read in (world.image, world.image_path, world.truth, world.mask_set, world.val_image, world.val_truth):
        with pytest.raises(DataSetError, match="take a name from its list"):
            read("a")


def test_refuses_what_is_no_folder(tmp_path):
    write(tmp_path / "file", "x")
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(DataSetError, match="is not a folder"):
            load_world(path)


@pytest.mark.parametrize("name", ["classes.json", "pool/pseudo_labels.json"])
def test_refuses_missing_or_broken_json(root, name):
    for broken in ("{", "\udcff".encode("utf-8", "surrogateescape")):
        (root / name).write_bytes(broken if isinstance(broken, bytes) else broken.encode())
        with pytest.raises(DataSetError, match="not valid JSON"):
            load_world(root)
    write(root / name, "3")
    with pytest.raises(DataSetError, match="must be"):
        load_world(root)
    (root / name).unlink()
    with pytest.raises(DataSetError, match="is missing"):
        load_world(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"names": []}, '"names" must be'),
        ({"names": ["a", 3]}, '"names" must be'),
        ({"names": ["a", "a"]}, "must differ"),
        ({"names": ["a", "b"], "ignore": 1}, '"ignore" must be'),
        ({"names": ["a", "b"], "ignore": "x"}, '"ignore" must be'),
        ({"names": ["a", "b"], "ignore": 256}, '"ignore" must be'),
    ],
)
def test_refuses_classes_that_make_no_sense(root, content, message):
    write(root / "classes.json", content)
    with pytest.raises(DataSetError, match=message):
        load_world(root)


def test_ignore_is_255_unless_said_otherwise(root):
    write(root / "classes.json", {"names": ["road", "car"]})
    write(root / "pool" / "pseudo_labels.json", {name: [0, 1, 255] for name in "abcd"})
    assert load_world(root).ignore == IGNORE


def test_refuses_a_pool_without_images(root):
    for path in (root / "pool" / "images").iterdir():
        path.unlink()
    with pytest.raises(DataSetError, match="holds no image"):
        load_world(root)
    (root / "pool" / "images").rmdir()
    with pytest.raises(DataSetError, match="is missing"):
        load_world(root)


def test_refuses_two_images_of_one_name(root):
    save_image(root / "pool" / "images" / "a.png")
    with pytest.raises(DataSetError, match="share a name"):
        load_world(root)


@pytest.mark.parametrize("name", ["pool/masks/b.png", "pool/labels/b.png", "val/labels/v.png"])
def test_refuses_an_image_without_its_files(root, name):
    (root / name).unlink()
    with pytest.raises(DataSetError, match=rf"{Path(name).name} is missing"):
        load_world(root)


def test_refuses_an_image_without_first_labels(root):
    write(root / "pool" / "pseudo_labels.json", {name: [0, 1, 1] for name in "abc"})
    with pytest.raises(DataSetError, match="no labels for image 'd'"):
        load_world(root)


@pytest.mark.parametrize("label", [2, -1, 255, "0", None, True, 0.0])
def test_refuses_a_first_label_outside_the_classes(root, label):
    write(root / "pool" / "pseudo_labels.json", {name: [0, label, 1] for name in "abcd"})
    with pytest.raises(DataSetError, match="mask 2 of 'a' has the label"):
        load_world(root)


def test_refuses_a_mask_without_label(root):
    write(root / "pool" / "pseudo_labels.json", {name: [0, 1] for name in "abcd"})
    world = load_world(root)
    with pytest.raises(DataSetError, match="mask id 3 has no label"):
        world.mask_set("a")


def test_refuses_truth_outside_the_classes(root):
    save_ids(root / "pool" / "labels" / "a.png", np.full(SIZE, 5))
    save_ids(root / "val" / "labels" / "v.png", np.full(SIZE, 255))
    world = load_world(root)
    with pytest.raises(DataSetError, match="class id 5"):
        world.truth("a")
    with pytest.raises(DataSetError, match="class id 255"):
        world.val_truth("v")


def test_refuses_sizes_that_differ(root):
    save_ids(root / "pool" / "labels" / "a.png", np.zeros((6, 9)))
    save_ids(root / "pool" / "masks" / "a.png", np.zeros((8, 6)))
    world = load_world(root)
    with pytest.raises(DataSetError, match=r"is 9×6 pixels but a\.jpg is 8×6"):
        world.truth("a")
    with pytest.raises(DataSetError, match=r"is 6×8 pixels but a\.jpg is 8×6"):
        world.mask_set("a")


def test_refuses_labels_saved_in_colour(root):
    save_image(root / "pool" / "labels" / "a.png")
    save_image(root / "pool" / "masks" / "a.png")
    world = load_world(root)
    for read in (world.truth, world.mask_set):
        with pytest.raises(DataSetError, match="RGB image; save the ids"):
            read("a")


def test_refuses_files_that_are_no_images(root):
    for name in ("pool/images/a.jpg", "pool/labels/b.png", "pool/masks/b.png"):
        (root / name).write_bytes(b"no image")
    world = load_world(root)
    for read, name in ((world.image, "a"), (world.truth, "a"), (world.truth, "b"), (world.mask_set, "b")):
        with pytest.raises(DataSetError, match="cannot be read as an image"):
            read(name)


def test_refuses_a_truncated_image(root):
    path = root / "pool" / "labels" / "a.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataSetError, match="cannot be read as an image"):
        load_world(root).truth("a")
