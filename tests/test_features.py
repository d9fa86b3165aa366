from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from a2lc_backend import features
from a2lc_backend.features import EMBEDDED, FEATURE_NAMES, mask_features, pool_features
from a2lc_backend.masks import MaskSet
from tests.conftest import grid_masks


def column(name: str) -> int:
    return FEATURE_NAMES.index(name)


def test_colour_place_and_shape_are_what_their_names_say() -> None:
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, 16:] = 255
    features = mask_features(image, grid_masks(2, 4))
    assert features.shape == (8, len(FEATURE_NAMES))
    assert features.dtype == np.float32
    assert features[0, column("lightness_mean")] == pytest.approx(0)
    assert features[3, column("lightness_mean")] == pytest.approx(100, abs=0.1)
    assert features[3, column("lightness_std")] == pytest.approx(0, abs=1e-2)
    assert features[1, column("gradient_mean")] > features[0, column("gradient_mean")]
    assert features[0, column("center_x")] == pytest.approx(3.5 / 32)
    assert features[4, column("center_y")] == pytest.approx(11.5 / 16)
    assert features[0, column("width")] == pytest.approx(8 / 32)
    assert features[0, column("log_area")] == pytest.approx(np.log(64 / 512))
    assert features[0, column("fill")] == pytest.approx(1)
    assert features[4, column("top")] == pytest.approx(0.5)
    assert features[4, column("bottom")] == pytest.approx(1)


def test_a_mask_without_pixels_has_zeros() -> None:
    masks = MaskSet(np.ones((4, 4), np.uint16), ("a", "b"), np.zeros(2, np.int64), {})
    features = mask_features(np.full((4, 4, 3), 90, np.uint8), masks)
    assert np.isfinite(features).all()
    assert not features[1].any()


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="height, width"):
        mask_features(np.zeros((5, 5, 3), np.uint8), grid_masks(1, 1))


def test_pooled_features_are_the_mean_of_a_masks_pixels() -> None:
    dense = np.arange(2 * 2 * 4, dtype=np.float16).reshape(2, 2, 4)
    masks = grid_masks(2, 4)  # each mask lies in one cell
    assert np.array_equal(pool_features(dense, masks), dense.reshape(2, -1).T.astype(np.float32))
    whole = MaskSet(np.ones((6, 8), np.uint16), ("a", "empty"), np.zeros(2, np.int64), {})
    assert pool_features(dense, whole)[0].tolist() == pytest.approx(dense.reshape(2, -1).mean(1).tolist())
    assert not pool_features(dense, whole)[1].any()


def test_what_a_model_sees_is_added_in_a_fixed_projection() -> None:
    random = np.random.default_rng(3)
    image, masks = np.full((16, 32, 3), 90, np.uint8), grid_masks(2, 4)
    dense = random.standard_normal((256, 2, 4)).astype(np.float16)
    dense[:, 0, 1] = 3 * dense[:, 0, 0]
    features = mask_features(image, masks, dense)
    assert features.shape == (8, len(FEATURE_NAMES) + EMBEDDED)
    assert np.array_equal(features[:, : len(FEATURE_NAMES)], mask_features(image, masks))
    seen = features[:, len(FEATURE_NAMES) :]
    assert seen[0] == pytest.approx(seen[1], abs=1e-3), "the direction counts, not the length"
    apart = np.linalg.norm(seen[0] - seen[2:], axis=1)
    assert apart.min() > 0.5 * apart.max() > 1, "distances are kept"


def test_a_large_image_is_looked_at_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (53, 40, 3)).astype(np.uint8)
    masks = replace(grid_masks(4, 5), mask_ids=rng.integers(0, 21, (53, 40)).astype(np.uint16))
    dense = rng.normal(size=(8, 5, 7)).astype(np.float16)
    whole = mask_features(image, masks, dense)
    monkeypatch.setattr(features, "_STRIP", 400)
    np.testing.assert_allclose(mask_features(image, masks, dense), whole, rtol=1e-5, atol=1e-5)
