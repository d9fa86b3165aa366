from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from a2lc_backend.masks import IGNORE, MaskSet, keep_masks, label_map, make_disjoint, split_pieces
from tests.conftest import grid_masks


def test_smaller_masks_lie_over_larger_ones() -> None:
    large, small = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    small[1:3, 1:3] = True
    for order, on_top in (([large, small], 2), ([small, large], 1)):
        ids = make_disjoint(order, (4, 4))
        assert np.array_equal(ids == on_top, small)
        assert np.array_equal(ids == 3 - on_top, ~small)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="mask 0 is"):
        make_disjoint([np.ones((2, 2), bool)], (4, 4))


def test_label_map_spreads_labels_and_leaves_the_rest_unlabelled() -> None:
    masks = grid_masks(1, 2)
    ids = masks.mask_ids.copy()
    ids[0, 0] = 0
    labels = label_map(ids, np.array([3, IGNORE]))
    assert labels[0, 0] == IGNORE
    assert labels[1, 0] == 3
    assert labels[0, 15] == IGNORE


def test_keep_masks_numbers_anew() -> None:
    ids = keep_masks(grid_masks(1, 3).mask_ids, np.array([True, False, True]))
    assert set(np.unique(ids)) == {0, 1, 2}
    assert ids[0, -1] == 2


def test_a_mask_set_checks_itself() -> None:
    with pytest.raises(ValueError, match="has no label"):
        MaskSet(np.full((2, 2), 3, np.uint16), ("a",), np.zeros(1, np.int64), {})
    with pytest.raises(ValueError, match="share an id"):
        MaskSet(np.ones((2, 2), np.uint16), ("a", "a"), np.zeros(2, np.int64), {})
    with pytest.raises(ValueError, match="first labels"):
        MaskSet(np.ones((2, 2), np.uint16), ("a",), np.zeros(2, np.int64), {})


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.uint16, (9, 11), elements=st.integers(0, 3)))
def test_split_pieces_are_connected_and_keep_every_large_pixel(ids: np.ndarray) -> None:
    from scipy import ndimage

    masks = MaskSet(ids, ("a", "b", "c"), np.array([0, 1, IGNORE]), {})
    split = split_pieces(masks, least_pixels=1)
    assert np.array_equal(split.mask_ids > 0, ids > 0)
    assert np.array_equal(label_map(split.mask_ids, split.first_labels), label_map(ids, masks.first_labels))
    for index in range(len(split)):
        assert ndimage.label(split.mask(index))[1] == int(split.mask(index).any())


def test_split_pieces_drops_crumbs() -> None:
    ids = np.zeros((8, 8), np.uint16)
    ids[:4] = 1
    ids[7, 7] = 1
    split = split_pieces(MaskSet(ids, ("a",), np.zeros(1, np.int64), {}), least_pixels=4)
    assert split.region_ids == ("a",)
    assert split.mask_ids[7, 7] == 0
