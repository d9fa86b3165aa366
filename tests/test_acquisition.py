from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cosine

from a2lc_backend.acquisition import (
    acquisition_rows,
    adaptive_class_weights,
    doubtful_values,
    explore_masks,
    kl_from_uniform,
    mask_acquisition,
    mask_values,
    rank_masks,
)
from a2lc_backend.masks import IGNORE, label_map
from tests.conftest import grid_masks, random_soft_labels, shared


def test_weights_agree_with_the_published_code() -> None:
    reference = np.load(shared("vectors") / "abc_0.npz")
    weights = adaptive_class_weights(reference["pixel_counts"])
    np.testing.assert_allclose(weights, reference["adaptive_class_weights"], rtol=0, atol=1e-9)
    assert kl_from_uniform(reference["pixel_counts"]) == pytest.approx(float(reference["kl_divergence"]), abs=1e-9)


@pytest.mark.parametrize("name", ["abc_0.npz", "abc_1.npz"])
@pytest.mark.parametrize("scores", ["abc_scores", "sim_scores"])
def test_mask_scores_agree_with_the_published_code(name: str, scores: str) -> None:
    reference = np.load(shared("vectors") / name)
    weights = reference["adaptive_class_weights"]
    if scores == "sim_scores":
        weights = np.ones_like(weights)
    for image in range(len(reference["soft_labels"])):
        found = mask_acquisition(
            reference["soft_labels"][image], reference["mask_ids"][image], reference["labels"][image], weights
        )
        np.testing.assert_allclose(found[1:], reference[scores][image][1 : len(found)], rtol=1e-4)


def test_published_class_counts_leave_corrected_masks_out() -> None:
    reference = np.load(shared("vectors") / "abc_0.npz")
    counts = np.zeros_like(reference["pixel_counts"])
    corrected = {(int(image), int(mask)) for image, mask in reference["corrected_before"]}
    for image in range(len(reference["labels"])):
        left = np.array([(image, mask) not in corrected for mask in range(reference["mask_ids"].max() + 1)])
        labels = reference["labels"][image][left[reference["mask_ids"][image]]]
        counts += np.bincount(labels[labels != IGNORE], minlength=len(counts))
    np.testing.assert_array_equal(counts, reference["pixel_counts"])


def test_rare_classes_weigh_more_and_absent_ones_nothing() -> None:
    weights = adaptive_class_weights(np.array([10_000, 100, 0, 1_000]))
    assert weights[2] == 0
    assert weights[1] == 1
    assert weights[1] > weights[3] > weights[0] > 0


def test_uniform_counts_weigh_alike_and_no_counts_weigh_nothing() -> None:
    np.testing.assert_allclose(adaptive_class_weights(np.array([7, 7, 7])), 1.0)
    np.testing.assert_array_equal(adaptive_class_weights(np.array([0, 0])), 0.0)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"numpy\.bincount"):
        adaptive_class_weights(np.array([1, -1]))


def test_mask_acquisition_is_the_equation_pixel_by_pixel() -> None:
    soft = random_soft_labels(4, 16, 24, seed=3)
    masks = grid_masks(2, 3)
    labels = label_map(masks.mask_ids, np.array([0, 1, 2, 3, IGNORE, 0]))
    weights = np.array([0.1, 0.5, 1.0, 0.7])
    expected = np.zeros(7)
    for mask in range(1, 7):
        pixels = np.argwhere(masks.mask_ids == mask)
        argmax = [int(soft[:, y, x].argmax()) for y, x in pixels]
        dominant = int(np.bincount(argmax, minlength=4).argmax())
        agreeing = [soft[:, y, x] for (y, x), best in zip(pixels, argmax, strict=True) if best == dominant]
        representative = np.mean(agreeing, axis=0)
        for (y, x), best in zip(pixels, argmax, strict=True):
            label = best if labels[y, x] == IGNORE else int(labels[y, x])
            similarity = 1 - cosine(soft[:, y, x], representative)
            expected[mask] += similarity * weights[label] * (1 - soft[label, y, x])
    np.testing.assert_allclose(mask_acquisition(soft, masks.mask_ids, labels, weights), expected, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    labels=hnp.arrays(np.int64, 6, elements=st.integers(0, 3)),
    weights=hnp.arrays(np.float64, 4, elements=st.floats(0, 1)),
    seed=st.integers(0, 1000),
)
def test_rows_rank_every_relabelling_as_the_pixels_do(labels: np.ndarray, weights: np.ndarray, seed: int) -> None:
    soft = random_soft_labels(4, 16, 24, seed=seed)
    masks = grid_masks(2, 3)
    rows, means, dominant = acquisition_rows(soft, masks.mask_ids, 6)
    direct = mask_acquisition(soft, masks.mask_ids, label_map(masks.mask_ids, labels), weights)
    np.testing.assert_allclose(mask_values(rows, labels, weights, dominant), direct[1:], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(means.sum(1), 1.0, rtol=1e-5)


def test_an_unlabelled_mask_counts_as_its_dominant_argmax() -> None:
    rows = np.array([[3.0, 1.0], [3.0, 1.0]])
    values = mask_values(rows, np.array([IGNORE, 0]), np.array([0.5, 0.5]), np.array([1, 1]))
    np.testing.assert_allclose(values, [0.5, 1.5])


def test_a_mask_without_pixels_is_worth_nothing() -> None:
    soft = random_soft_labels(3, 8, 8)
    rows, means, _ = acquisition_rows(soft, np.ones((8, 8), np.uint16), 2)
    assert not rows[1].any()
    assert not means[1].any()


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="enlarge"):
        mask_acquisition(random_soft_labels(3, 4, 4), np.ones((8, 8), int), np.ones((8, 8), int), np.ones(3))


def test_the_queue_leaves_corrected_masks_out_and_may_be_short() -> None:
    values = np.array([5.0, 9.0, 7.0, 7.0])
    askable = np.array([True, False, True, True])
    np.testing.assert_array_equal(rank_masks(values, askable, 2), [2, 3])
    np.testing.assert_array_equal(rank_masks(values, askable, 10), [2, 3, 0])
    assert len(rank_masks(values, np.zeros(4, bool), 10)) == 0
    with pytest.raises(ValueError, match="at least 1"):
        rank_masks(values, askable, 0)


def test_doubt_raises_what_the_corrector_is_unsure_of() -> None:
    values = doubtful_values(np.array([4.0, 4.0, 4.0]), np.array([9, 9, 1]), np.array([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(values, [6.0, 0.0, 2.0])


def test_a_share_of_the_queue_is_drawn_from_the_other_open_masks() -> None:
    askable = np.ones(100, bool)
    askable[50:] = False
    best = rank_masks(np.arange(100.0), askable, 20)
    queue = explore_masks(best, askable, 0.25, seed=3)
    np.testing.assert_array_equal(queue[:15], best[:15])
    assert len(set(queue.tolist())) == 20
    assert askable[queue].all()
    np.testing.assert_array_equal(queue, explore_masks(best, askable, 0.25, seed=3))
    assert not np.array_equal(queue, explore_masks(best, askable, 0.25, seed=4))
    np.testing.assert_array_equal(explore_masks(best, askable, 0.0, seed=3), best)
    everything = rank_masks(np.arange(100.0), askable, 50)
    assert set(explore_masks(everything, askable, 1.0, seed=3).tolist()) == set(range(50))
