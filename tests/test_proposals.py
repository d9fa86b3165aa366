import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from a2lc_backend.masks import IGNORE, Region
from a2lc_backend.proposals import Picture, ProposalError, make_proposals

CAMVID = Path(__file__).parents[2] / "shared" / "camvid"
needs_camvid = pytest.mark.skipif(not CAMVID.is_dir(), reason="shared/camvid is not here")

CLASSES = ("sky", "road", "car")


def picture(image=None, *, key="a", task_id=7, regions=(), classes=CLASSES):
    if image is None:
        image = np.zeros((4, 6, 3), np.uint8)
    return Picture(key, task_id, image, tuple(regions), classes)


def region(region_id, rows, columns, label=None, size=(4, 6), ring=None):
    mask = np.zeros(size, bool)
    mask[rows, columns] = True
    return Region(region_id, label, mask, ring=ring)


def write_world(folder, ids, labels, *, names=CLASSES, ignore=11, mode=None):
    (folder / "pool" / "masks").mkdir(parents=True)
    image = Image.fromarray(ids)
    if mode == "P":
        image = image.convert("P")
        image.putpalette([255, 0, 0] * 256)
    image.save(folder / "pool" / "masks" / "a.png")
    (folder / "pool" / "pseudo_labels.json").write_text(json.dumps({"a": labels}))
    (folder / "classes.json").write_text(json.dumps({"names": list(names), "ignore": ignore}))
    return folder


def test_an_unknown_name_lists_the_names():
    with pytest.raises(ProposalError, match="auto, existing, world, superpixels"):
        make_proposals("sam")


def test_importing_the_room_does_not_import_torch():
    code = "import sys, a2lc_backend.proposals as p; p.make_proposals('superpixels'); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


class TestExisting:
    def test_the_smaller_region_wins(self):
        large, small = region("large", slice(None), slice(None), "sky"), region("small", 1, slice(1, 3), "car")
        masks = make_proposals("existing").propose(picture(regions=[small, large]))
        assert masks.region_ids == ("small", "large")
        assert masks.first_labels.tolist() == [2, 0]
        assert masks.areas().tolist() == [2, 22]

    def test_a_region_without_label_is_ignored_and_a_ring_is_kept(self):
        ring = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0]])
        masks = make_proposals("existing").propose(picture(regions=[region("r", 0, 0, ring=ring)]))
        assert masks.first_labels.tolist() == [IGNORE]
        assert masks.first_labels.dtype == np.int64
        np.testing.assert_array_equal(masks.rings["r"], ring)

    def test_a_covered_region_is_dropped_with_its_ring(self):
        under = region("under", slice(0, 2), 0, "sky", ring=np.zeros((3, 2)))
        masks = make_proposals("existing").propose(
            picture(regions=[under, region("top", 0, 0, "road"), region("bottom", 1, 0, "car")])
        )
        assert masks.region_ids == ("top", "bottom")
        assert masks.mask_ids[:2, 0].tolist() == [1, 2]
        assert masks.rings == {}

    @pytest.mark.parametrize("regions", [(), (region("empty", 0, slice(0, 0), "sky"),)])
    def test_without_pixels_the_error_names_the_mend(self, regions):
        with pytest.raises(ProposalError, match=r"task 7 .*import predictions or choose superpixels"):
            make_proposals("existing").propose(picture(regions=regions))

    @pytest.mark.parametrize(
        ("regions", "message"),
        [
            ((region("r", 0, 0, "plane"),), "'plane', which is no class"),
            ((region("r", 0, 0, "sky", size=(5, 6)),), "at the size of the image"),
            ((region("r", 0, 0, "sky"), region("r", 1, 0, "sky")), "share an id"),
        ],
    )
    def test_regions_that_do_not_fit(self, regions, message):
        with pytest.raises(ProposalError, match=message):
            make_proposals("existing").propose(picture(regions=regions))


class TestWorld:
    ids = np.repeat(np.array([[0, 1, 1, 2, 2, 4]], np.uint8), 4, axis=0)

    @pytest.mark.parametrize("key", ["a", "3f2a9c1e-a"])
    def test_masks_and_labels_by_name(self, tmp_path, key):
        world = write_world(tmp_path, self.ids, [2, 11, 0, 1])
        masks = make_proposals("world", world=world).propose(picture(key=key, task_id=31))
        assert masks.region_ids == ("t31m1", "t31m2", "t31m4")  # 3 has no pixel
        assert masks.first_labels.tolist() == [2, IGNORE, 1]
        assert masks.mask_ids[0].tolist() == [0, 1, 1, 2, 2, 3]

    def test_an_exact_name_goes_before_one_without_prefix(self, tmp_path):
        world = write_world(tmp_path, self.ids, [0, 0, 0, 0])
        Image.fromarray(np.ones((4, 6), np.uint8)).save(tmp_path / "pool" / "masks" / "01234567-a.png")
        (tmp_path / "pool" / "pseudo_labels.json").write_text(json.dumps({"a": [0] * 4, "01234567-a": [2]}))
        masks = make_proposals("world", world=world).propose(picture(key="01234567-a"))
        assert masks.first_labels.tolist() == [2]

    @pytest.mark.parametrize(("mode", "dtype"), [("P", np.uint8), (None, np.uint16)])
    def test_palette_and_16_bit_ids(self, tmp_path, mode, dtype):
        world = write_world(tmp_path, self.ids.astype(dtype), [0, 1, 2, 0], mode=mode)
        assert make_proposals("world", world=world).propose(picture()).areas().tolist() == [8, 8, 4]

    def test_classes_are_matched_by_name(self, tmp_path):
        world = write_world(tmp_path, self.ids, [0, 1, 1, 1], names=("car", "sky"))
        assert make_proposals("world", world=world).propose(picture()).first_labels.tolist() == [2, 0, 0]

    @pytest.mark.parametrize(
        ("labels", "image", "key", "message"),
        [
            ([0] * 4, (4, 6), "b", "no image 'b'; import"),
            ([0] * 4, (4, 7), "a", "give the task the image of the world"),
            ([0] * 3, (4, 6), "a", "write one label a mask"),
            ([0, 1, 2, 3], (4, 6), "a", r"label 3 \(plane\), which is no class of the project; give the label config"),
            ([0, 1, 2, 9], (4, 6), "a", "label 9, no class; give the label config"),
        ],
    )
    def test_errors_name_the_mend(self, tmp_path, labels, image, key, message):
        world = write_world(tmp_path, self.ids, labels, names=(*CLASSES, "plane"))
        with pytest.raises(ProposalError, match=message):
            make_proposals("world", world=world).propose(picture(np.zeros((*image, 3), np.uint8), key=key))

    def test_a_folder_that_is_none(self, tmp_path):
        with pytest.raises(ProposalError, match="set A2LC_WORLD"):
            make_proposals("world")
        with pytest.raises(ProposalError, match="set A2LC_WORLD"):
            make_proposals("world", world=tmp_path)
        (tmp_path / "pool").mkdir()
        (tmp_path / "pool" / "pseudo_labels.json").write_text("{")
        with pytest.raises(ProposalError, match="not valid JSON"):
            make_proposals("world", world=tmp_path)

    def test_a_mask_file_that_is_broken(self, tmp_path):
        world = write_world(tmp_path, self.ids, [0] * 4)
        (world / "pool" / "masks" / "a.png").write_bytes(b"no PNG")
        with pytest.raises(ProposalError, match="restore it"):
            make_proposals("world", world=world).propose(picture())

    @needs_camvid
    def test_camvid(self):
        names = tuple(json.loads((CAMVID / "classes.json").read_text())["names"])
        labels = json.loads((CAMVID / "pool" / "pseudo_labels.json").read_text())
        image = np.zeros((360, 480, 3), np.uint8)
        masks = make_proposals("world", world=CAMVID).propose(
            picture(image, key="9b1de0aa-0001TP_006690", task_id=3, classes=names)
        )
        assert masks.region_ids[0] == "t3m1"
        assert masks.first_labels.tolist() == labels["0001TP_006690"]


class TestSuperpixels:
    def test_two_halves_are_told_apart(self):
        image = np.zeros((40, 60, 3), np.uint8)
        image[:, 30:] = (200, 40, 40)
        masks = make_proposals("superpixels", superpixels=2).propose(picture(image))
        assert len(masks) == 2
        assert (masks.mask_ids[:, :28] == 1).all()
        assert (masks.mask_ids[:, 32:] == 2).all()

    def test_masks_cover_the_image_are_connected_and_stay_the_same(self):
        image = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
        masks = make_proposals("superpixels", superpixels=12).propose(picture(image, task_id=5))
        again = make_proposals("superpixels", superpixels=12).propose(picture(image, task_id=5))
        np.testing.assert_array_equal(masks.mask_ids, again.mask_ids)
        assert masks.region_ids == tuple(f"t5m{k}" for k in range(1, 13))
        assert masks.mask_ids.min() == 1
        assert (masks.first_labels == IGNORE).all()
        for index in range(len(masks)):
            assert ndimage.label(masks.mask(index), np.ones((3, 3)))[1] == 1

    @pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 2), (2, 90), (3, 5), (700, 3), (1, 2000)])
    def test_tiny_and_thin_images(self, size):
        image = np.random.default_rng(1).integers(0, 255, (*size, 3)).astype(np.uint8)
        masks = make_proposals("superpixels").propose(picture(image))
        assert masks.size == size
        assert 1 <= len(masks) <= 40
        assert (masks.areas() > 0).all()

    def test_one_colour(self):
        masks = make_proposals("superpixels").propose(picture(np.full((50, 50, 3), 90, np.uint8)))
        assert 1 <= len(masks) <= 40

    @pytest.mark.parametrize("number", [1, 0, 100_000])
    def test_a_number_that_cannot_be(self, number):
        with pytest.raises(ProposalError, match="ask for 2 to"):
            make_proposals("superpixels", superpixels=number)

    def test_a_large_image_is_cut_up_quickly(self):
        image = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3)).astype(np.uint8)
        start = time.perf_counter()
        masks = make_proposals("superpixels").propose(picture(image))
        assert masks.size == (1500, 2000)
        assert time.perf_counter() - start < 10

    @needs_camvid
    def test_purity_on_camvid(self):
        """The share of pixels whose mask's majority truth is theirs."""
        right = known = 0
        for path in sorted((CAMVID / "pool" / "images").glob("*.jpg"))[::60]:
            image = np.asarray(Image.open(path).convert("RGB"))
            truth = np.asarray(Image.open(CAMVID / "pool" / "labels" / f"{path.stem}.png")).astype(int)
            masks = make_proposals("superpixels", superpixels=50).propose(picture(image))
            valid = truth != 11
            votes = np.bincount(masks.mask_ids[valid].astype(int) * 11 + truth[valid], minlength=51 * 11)
            right += votes.reshape(51, 11).max(1).sum()
            known += valid.sum()
        assert right / known > 0.85


class TestAuto:
    def test_regions_go_before_the_world_and_the_world_before_superpixels(self, tmp_path):
        world = write_world(tmp_path, TestWorld.ids, [0] * 4)
        proposals = make_proposals("auto", world=world)
        assert proposals.name == "auto"
        assert proposals.propose(picture(regions=[region("r", 0, 0, "sky")])).region_ids == ("r",)
        assert proposals.propose(picture()).region_ids == ("t7m1", "t7m2", "t7m4")
        noise = np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8)
        empty = region("empty", 0, slice(0, 0), "sky", size=(20, 20))
        assert make_proposals("auto").propose(picture(noise, regions=[empty])).region_ids[0] == "t7m1"
