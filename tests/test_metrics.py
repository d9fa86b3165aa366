from pathlib import Path

import numpy as np
import pytest

from a2lc_backend.bench.world import load_world
from a2lc_backend.masks import IGNORE, label_map
from a2lc_backend.metrics import confusion_matrix, iou, mean_iou

CAMVID = Path(__file__).parents[2] / "shared" / "camvid"


def test_counts_rows_of_truth_and_columns_of_prediction():
    truth = np.array([[0, 0, 1], [1, 2, 2]], np.uint8)
    predicted = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
    expected = [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0]]
    assert confusion_matrix(truth, predicted, 3).tolist() == expected
    assert confusion_matrix(truth, predicted, 3).dtype == np.int64


def test_ignored_truth_counts_nowhere():
    truth = np.array([0, IGNORE, IGNORE], np.uint8)
    predicted = np.array([0, 1, IGNORE], np.uint8)
    assert confusion_matrix(truth, predicted, 2).tolist() == [[1, 0, 0], [0, 0, 0]]


def test_an_unlabelled_pixel_costs_its_true_class_only():
    truth = np.array([0, 0, 1, 1], np.uint8)
    predicted = np.array([0, IGNORE, 1, 1], np.uint8)
    np.testing.assert_allclose(iou(confusion_matrix(truth, predicted, 2)), [0.5, 1.0])


def test_another_ignore_id():
    truth = np.array([0, 2, 1], np.int64)
    predicted = np.array([2, 0, 1], np.int64)
    assert confusion_matrix(truth, predicted, 2, ignore=2).tolist() == [[0, 0, 1], [0, 1, 0]]


def test_an_absent_class_has_no_iou_and_no_part_in_the_mean():
    confusion = confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    np.testing.assert_allclose(iou(confusion), [0.5, 0.5, np.nan])
    assert mean_iou(confusion) == 0.5


def test_a_class_only_predicted_has_iou_zero():
    np.testing.assert_allclose(iou(confusion_matrix(np.array([0, 0]), np.array([0, 1]), 2)), [0.5, 0.0])


def test_square_matrix_is_accepted():
    np.testing.assert_allclose(iou(np.array([[3, 1], [0, 4]])), [0.75, 0.8])


def test_nothing_counted_gives_nan():
    assert np.isnan(mean_iou(confusion_matrix(np.array([IGNORE]), np.array([0]), 2)))


def test_empty_arrays():
    assert confusion_matrix(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8), 2).sum() == 0


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([0, 3], [0, 0], "truth holds 3"),
        ([0, 1], [0, 4], "prediction holds 4"),
        ([0, -1], [0, 0], "truth holds -1"),
        ([0, 1, 1], [0, 1], "resize the prediction"),
    ],
)
def test_refuses_what_it_cannot_count(truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(truth), np.array(predicted), 2)


def test_refuses_what_is_no_confusion_matrix():
    with pytest.raises(ValueError, match="confusion matrix"):
        iou(np.zeros((2, 4), np.int64))


@pytest.mark.skipif(not CAMVID.is_dir(), reason="no shared/camvid beside the checkout")
def test_reproduces_the_figures_of_camvid():
    world = load_world(CAMVID)
    classes = len(world.classes)
    first = np.zeros((classes, classes + 1), np.int64)
    ceiling = np.zeros_like(first)
    for name in world.names:
        truth, masks = world.truth(name), world.mask_set(name)
        first += confusion_matrix(truth, label_map(masks.mask_ids, masks.first_labels), classes)
        counted = truth != IGNORE
        votes = np.zeros((len(masks) + 1, classes), np.int64)
        np.add.at(votes, (masks.mask_ids[counted], truth[counted]), 1)
        best = np.where(votes.any(axis=1), votes.argmax(axis=1), IGNORE)[1:]
        ceiling += confusion_matrix(truth, label_map(masks.mask_ids, best), classes)
    assert 100 * mean_iou(first) == pytest.approx(53.1, abs=0.05)
    assert 100 * mean_iou(ceiling) == pytest.approx(78.8, abs=0.05)
    expected = [93, 83, 11, 95, 69, 72, 13, 37, 75, 25, 11]
    assert np.round(100 * iou(first)).astype(int).tolist() == expected
