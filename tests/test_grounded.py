"""What is done with boxes and masks once a model has given them: one label a pixel, a background, tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from a2lc_backend.foundation import Boxes
from a2lc_backend.masks import IGNORE, MaskSet, Region, label_map
from a2lc_backend.proposals import Foundation, NothingFoundError, Picture, ProposalError, make_proposals
from a2lc_backend.proposals.around import InTiles, WithBackground, tiles

CLASSES = ("road", "car", "sky")
PROMPTS = (("road",), ("car", "van"), ("sky",))


def picture(size: tuple[int, int] = (20, 30), image: NDArray[np.uint8] | None = None) -> Picture:
    pixels = np.zeros((*size, 3), np.uint8) if image is None else image
    return Picture("a", 7, pixels, (), CLASSES, PROMPTS, "p1-7-a")


class Rectangles:
    """Finds the boxes it is told, and fills each: what the real models do with real images is tested beside them."""

    fingerprint = "rectangles"

    def __init__(self, boxes: Sequence[tuple[tuple[float, ...], float, int]]) -> None:
        self._boxes = boxes
        self.asked: list[tuple[str, ...]] = []

    def detect(self, _image: NDArray[np.uint8], phrases: Sequence[str], threshold: float) -> Boxes:
        self.asked.append(tuple(phrases))
        kept = [row for row in self._boxes if row[1] >= threshold]
        boxes = np.array([row[0] for row in kept], np.float64).reshape(-1, 4)
        return Boxes(boxes, np.array([row[1] for row in kept]), np.array([row[2] for row in kept], np.int64))

    def box_masks(self, size: tuple[int, int], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        masks = np.zeros((len(boxes), *size), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        return masks

    def everything(self, size: tuple[int, int]) -> Iterator[NDArray[np.bool_]]:
        return iter(self.box_masks(size, np.array([row[0] for row in self._boxes]).reshape(-1, 4)))

    def foundation(self) -> Foundation:
        model: Any = self
        return Foundation(lambda: model, lambda: model, lambda _model, seen: seen.size)  # type: ignore[arg-type, return-value]


def labels_of(masks: MaskSet) -> NDArray[np.uint8]:
    return label_map(masks.mask_ids, masks.first_labels)


def test_smaller_masks_lie_over_larger_ones_and_phrases_name_classes() -> None:
    model = Rectangles([((0, 0, 30, 20), 0.9, 0), ((5, 5, 15, 15), 0.3, 2), ((8, 8, 10, 10), 0.25, 3)])
    masks = make_proposals("grounded-sam", foundation=model.foundation()).propose(picture())
    assert model.asked == [("road", "car", "van", "sky")]
    assert masks.region_ids == ("t7m1", "t7m2", "t7m3")
    assert masks.first_labels.tolist() == [0, 1, 2], "car and van are one class"
    found = labels_of(masks)
    assert (found[0, 0], found[6, 6], found[9, 9]) == (0, 1, 2)


def test_of_two_findings_of_one_thing_the_surer_counts() -> None:
    alike = [((2, 2, 12, 12), 0.4, 1), ((2, 2, 12, 12.2), 0.6, 3), ((2, 12, 12, 22), 0.1, 0)]
    masks = make_proposals("sam2", foundation=Rectangles(alike).foundation()).propose(picture())
    assert masks.first_labels.tolist() == [2]
    apart = [((0, 0, 10, 10), 0.4, 1), ((5, 0, 15, 10), 0.6, 3)]
    masks = make_proposals("sam2", foundation=Rectangles(apart).foundation()).propose(picture())
    assert labels_of(masks)[0, 7] == 2, "of masks of one size the surer shows"


def test_what_is_not_found_is_said_or_background() -> None:
    nothing = Rectangles([((2, 2, 12, 12), 0.1, 1)]).foundation()
    with pytest.raises(NothingFoundError, match="lower box_threshold"):
        make_proposals("grounded-sam", foundation=nothing).propose(picture())
    masks = make_proposals("grounded-sam", foundation=nothing, background="sky").propose(picture())
    assert (masks.region_ids, masks.first_labels.tolist()) == (("t7background",), [2])
    found = Rectangles([((2, 2, 12, 12), 0.3, 1)]).foundation()
    masks = make_proposals("grounded-sam", foundation=found, background="road").propose(picture())
    assert sorted(np.unique(labels_of(masks)).tolist()) == [0, 1]
    assert (masks.mask_ids > 0).all()
    with pytest.raises(ProposalError, match="'tree' is no class of the project"):
        make_proposals("grounded-sam", foundation=found, background="tree").propose(picture())
    with pytest.raises(ProposalError, match="need foundation models"):
        make_proposals("grounded-sam")


def test_everything_has_no_labels_and_no_overlap() -> None:
    model = Rectangles([((0, 0, 30, 20), 0, 0), ((5, 5, 15, 15), 0, 0), ((5, 5, 15, 15), 0, 0)])
    masks = make_proposals("sam-everything", foundation=model.foundation()).propose(picture())
    assert masks.first_labels.tolist() == [IGNORE, IGNORE], "a mask that others cover wholly is left out"
    assert masks.areas().tolist() == [500, 100]
    with pytest.raises(NothingFoundError):
        make_proposals("sam-everything", foundation=Rectangles([]).foundation()).propose(picture())


class Stripes:
    """Labels rows by their brightness: what one sees in a tile does not hang on the tile."""

    name = "stripes"

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def propose(self, seen: Picture) -> MaskSet:
        self.sizes.append(seen.size)
        values = np.unique(seen.image[..., 0])
        if values.tolist() == [9]:
            raise NothingFoundError("an empty tile")
        mask_ids = (np.searchsorted(values, seen.image[..., 0]) + 1).astype(np.uint16)
        return MaskSet(mask_ids, tuple(f"m{value}" for value in values), values.astype(np.int64), {})


def test_a_large_image_is_cut_into_tiles_and_masks_meet_at_the_seams() -> None:
    image = np.zeros((90, 120, 3), np.uint8)
    image[40:] = 1
    image[:, 100:] = 2
    stripes = Stripes()
    masks = InTiles(stripes, 2000).propose(picture(image=image))
    assert len(stripes.sizes) == len(tiles((90, 120), 2000)) == 9
    assert max(height * width for height, width in stripes.sizes) <= 2000
    assert np.array_equal(labels_of(masks), image[..., 0])
    assert len(masks) == 3, "what goes on behind a seam is one mask"
    small = picture(image=image[:10, :10])
    assert InTiles(stripes, 2000).propose(small).region_ids == ("m0",), "a small image is not cut"


def test_empty_tiles_are_left_out() -> None:
    image = np.full((60, 60, 3), 9, np.uint8)
    with pytest.raises(NothingFoundError, match="no tile"):
        InTiles(Stripes(), 1000).propose(picture(image=image))
    image[:30, :30] = 1
    masks = WithBackground(InTiles(Stripes(), 1000), "sky").propose(picture(image=image))
    assert labels_of(masks)[0, 0] == 1
    assert labels_of(masks)[59, 59] == 2


def test_only_what_a_model_must_see_is_cut() -> None:
    upper = np.zeros((100, 100), bool)
    upper[:50] = True
    held = (Region("abc", "sky", upper), Region("def", "car", ~upper))
    large = replace(picture((100, 100)), regions=held)
    assert make_proposals("existing", tile_pixels=2000).propose(large).region_ids == ("abc", "def")


def test_what_was_seen_of_a_tile_is_named_by_its_place() -> None:
    seen: list[str] = []

    class Naming(Stripes):
        def propose(self, seen_picture: Picture) -> MaskSet:
            seen.append(seen_picture.image_key)
            return super().propose(seen_picture)

    for pixels in (5000, 2000):
        InTiles(Naming(), pixels).propose(picture((90, 120)))
    assert len(set(seen)) == len(seen), "tiles of another size are other pictures"
