from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cosine

from a2lc_backend import acquisition_cpu, acquisition_cuda, acquisition_kernels
from a2lc_backend.acquisition import (
    acquisition_rows,
    adaptive_class_weights,
    doubtful_values,
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


def slow_acquisition(soft: np.ndarray, mask_ids: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The equation pixel by pixel."""
    expected = np.zeros(int(mask_ids.max(initial=0)) + 1)
    for mask in np.unique(mask_ids[mask_ids > 0]):
        pixels = np.argwhere(mask_ids == mask)
        argmax = [int(soft[:, y, x].argmax()) for y, x in pixels]
        dominant = int(np.bincount(argmax, minlength=len(soft)).argmax())
        agreeing = [soft[:, y, x] for (y, x), best in zip(pixels, argmax, strict=True) if best == dominant]
        representative = np.mean(agreeing, axis=0, dtype=np.float64)
        for (y, x), best in zip(pixels, argmax, strict=True):
            label = best if labels[y, x] == IGNORE else int(labels[y, x])
            similarity = 1 - cosine(soft[:, y, x].astype(np.float64), representative)
            expected[mask] += similarity * weights[label] * (1 - float(soft[label, y, x]))
    return expected


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 12)),
    classes=st.integers(1, 5),
    masks=st.sampled_from([1, 3, 300]),
    cell=st.sampled_from([1, 9, 32]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 1000),
)
def test_mask_acquisition_is_the_equation_pixel_by_pixel(
    size: tuple[int, int], classes: int, masks: int, cell: int, dtype: type, seed: int
) -> None:
    random = np.random.default_rng(seed)
    soft = random_soft_labels(classes, *size, seed=seed).astype(dtype)
    soft[:, random.random(size) < 0.3] = 1 / classes  # every class is as likely as any other
    ids = random.integers(0, masks + 1, size).repeat(cell, 0).repeat(cell, 1)[: size[0], : size[1]].astype(np.uint16)
    labels = random.choice([*range(classes), IGNORE], size).astype(np.uint8)
    weights = random.random(classes)
    expected = slow_acquisition(soft, ids, labels, weights)
    found = mask_acquisition(soft, ids, labels, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)
    of_tensors = mask_acquisition(torch.from_numpy(soft), torch.from_numpy(ids), torch.from_numpy(labels), weights)
    np.testing.assert_array_equal(of_tensors, found)
    rows, means, dominant = acquisition_rows(soft, ids, masks)
    for mask in range(1, masks + 1):
        inside = soft[:, ids == mask]
        votes = np.bincount(inside.argmax(0), minlength=classes)
        assert dominant[mask - 1] == votes.argmax()
        np.testing.assert_allclose(means[mask - 1], inside.mean(1) if inside.size else 0.0, rtol=1e-5)
    for label in range(classes):
        alike = slow_acquisition(soft, ids, np.full(size, label), np.ones(classes))
        np.testing.assert_allclose(rows[: len(alike) - 1, label], alike[1:], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("bands", [1, 200])
def test_an_image_read_in_other_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch, bands: int) -> None:
    soft = random_soft_labels(4, 70, 30, seed=3)
    ids = grid_masks(5, 3, cell=14).mask_ids[:, :30]
    labels = label_map(ids, np.arange(15) % 4)
    whole = mask_acquisition(soft, ids, labels, np.ones(4))
    monkeypatch.setattr(acquisition_cpu, "BANDS", bands)
    np.testing.assert_allclose(mask_acquisition(soft, ids, labels, np.ones(4)), whole, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    classes=st.integers(1, 5),
    masks=st.sampled_from([1, 3, 300]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 1000),
)
def test_the_equations_for_a_gpu_are_the_same(classes: int, masks: int, dtype: type, seed: int) -> None:
    random = np.random.default_rng(seed)
    soft = random_soft_labels(classes, 24, 16, seed=seed).astype(dtype)
    soft[:, random.random((24, 16)) < 0.3] = random.integers(2) / classes
    ids = random.integers(0, masks + 1, (24, 16)).astype(np.uint16)
    ids[0, 0] = masks
    labels = random.choice([*range(classes), IGNORE], ids.shape).astype(np.uint8)
    weights = random.random(classes)
    there, there_ids, there_labels = acquisition_cuda.place(torch.from_numpy(soft), ids, labels)
    found = acquisition_cuda.mask_acquisition(there, there_ids, there_labels, weights, IGNORE, masks)[1:]
    expected = mask_acquisition(soft, ids, labels, weights)[1:]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)
    parts = acquisition_cuda.acquisition_rows(there, there_ids, masks)
    for part, expected_part in zip(parts, acquisition_rows(soft, ids, masks), strict=True):
        np.testing.assert_allclose(part[1:], expected_part, rtol=1e-5, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")
def test_a_gpu_finds_the_same() -> None:
    soft = random_soft_labels(4, 70, 30, seed=3)
    ids = grid_masks(5, 3, cell=14).mask_ids[:, :30]
    found = acquisition_rows(torch.from_numpy(soft).cuda(), ids, 15)
    for part, expected in zip(found, acquisition_rows(soft, ids, 15), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-5)


def test_loops_are_compiled_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").touch()  # not a folder, as little as the home below
    shutil.copy(acquisition_kernels.__file__, tmp_path)
    program = "import numpy, acquisition_kernels as a; print(a._dot(numpy.ones(3), numpy.ones(3)))"
    nowhere = {"HOME": os.devnull, "XDG_CACHE_HOME": os.devnull, "PYTHONPATH": str(tmp_path)}
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, env=kept | nowhere, check=True, capture_output=True, text=True).stdout == "3.0\n"


def test_almost_certain_pixels_keep_their_small_doubt() -> None:
    soft = np.full((2, 64, 64), 1e-6, np.float32)
    soft[0] = 1 - soft[1]
    doubt = 64 * 64 * (1 - float(soft[0, 0, 0]))
    np.testing.assert_allclose(acquisition_rows(soft, np.ones((64, 64), int), 1)[0][0, 0], doubt, rtol=1e-5)


def test_a_soft_label_of_zeros_is_like_no_other() -> None:
    soft = np.zeros((3, 8, 8), np.float32)
    assert not mask_acquisition(soft, np.ones((8, 8), int), np.zeros((8, 8), int), np.ones(3)).any()


def test_a_soft_label_that_is_no_number_spoils_its_own_mask_only() -> None:
    soft = random_soft_labels(3, 16, 16)
    ids = np.repeat([1, 2], 8)[:, None].repeat(16, 1)
    soft[:, 0, 0] = np.nan
    np.testing.assert_array_equal(np.isnan(mask_acquisition(soft, ids, ids, np.ones(3))), [False, True, False])


def test_arrays_that_may_not_be_written_are_read() -> None:
    soft = random_soft_labels(3, 16, 16).astype(np.float16)
    soft.setflags(write=False)
    ids = np.broadcast_to(np.uint16(1), (16, 16))
    assert mask_acquisition(soft, ids, ids, np.ones(3))[1] > 0


def test_ids_and_labels_out_of_range_are_refused() -> None:
    soft, ones = random_soft_labels(3, 8, 8), np.ones((8, 8), int)
    with pytest.raises(ValueError, match="mask_ids go from 1 to 1; they are 0 to 0 here"):
        acquisition_rows(soft, ones, 0)
    with pytest.raises(ValueError, match="mask_ids go from -1"):
        mask_acquisition(soft, -ones, ones, np.ones(3))
    with pytest.raises(ValueError, match="labels go from 3 to 3; they are 0 to 2 here"):
        mask_acquisition(soft, ones, 3 * ones, np.ones(3))


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


@given(
    values=hnp.arrays(np.float64, st.integers(0, 30), elements=st.sampled_from([0.0, -0.0, 1.0, 2.0, np.inf, np.nan])),
    budget=st.integers(1, 31),
)
def test_the_queue_is_the_head_of_the_sorted_masks(values: np.ndarray, budget: int) -> None:
    expected = np.argsort(-values, kind="stable")[:budget]
    np.testing.assert_array_equal(rank_masks(values, np.ones(len(values), bool), budget), expected)


def test_doubt_raises_what_the_corrector_is_unsure_of() -> None:
    values = doubtful_values(np.array([4.0, 4.0, 4.0]), np.array([9, 9, 1]), np.array([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(values, [6.0, 0.0, 2.0])
