from __future__ import annotations

import threading

import numpy as np
import pytest

from a2lc_backend.masks import IGNORE
from a2lc_backend.segmenter import Training, crops
from a2lc_backend.segmenter.crops import Place, batches, made_ahead
from tests.tiny_deeplab import PAIRS, samples, small_scale


@pytest.fixture(scope="module", autouse=True)
def quick():
    with small_scale():
        yield


def test_one_crop_an_image_and_pass_in_another_order_each_time():
    pairs = [(np.full((8, 8, 3), number, np.uint8), np.zeros((8, 8), np.uint8)) for number in range(10)]
    stream = batches(lambda: iter(pairs), 1, Training(crop=8, batch=5), 0, Place())
    orders = [tuple(next(stream).images[:, 0, 0, 0].tolist()) for _ in range(6)]
    passes = [orders[0] + orders[1], orders[2] + orders[3], orders[4] + orders[5]]
    assert all(sorted(order) == list(range(10)) for order in passes)
    assert len(set(passes)) == 3


def test_a_stream_goes_on_from_any_place():
    training = Training(crop=32, batch=2)
    stream = batches(samples, 2, training, 4, Place())
    whole = [next(stream) for _ in range(9)]
    for number in (0, 1, 2, 6):
        resumed = batches(samples, 2, training, 4, whole[number].end)
        for expected in whole[number + 1 :]:
            found = next(resumed)
            assert found.end == expected.end
            np.testing.assert_array_equal(found.images, expected.images)
            np.testing.assert_array_equal(found.labels, expected.labels)
            np.testing.assert_array_equal(found.jitter, expected.jitter)


def test_labels_stay_with_their_pixels_and_padding_is_ignored():
    labels = np.random.default_rng(0).integers(0, 200, (40, 90)).astype(np.uint8)
    pairs = [(np.repeat(labels[..., None], 3, axis=2), labels)]
    stream = batches(lambda: iter(pairs), 200, Training(crop=50, batch=1), 0, Place())
    mirrored = set()
    for _ in range(20):
        batch = next(stream)
        image, targets = batch.images[0], batch.labels[0]
        assert image.shape == (64, 64, 3)
        np.testing.assert_array_equal(image[:40, :50, 0], targets[:40, :50])
        assert (targets[40:] == IGNORE).all()
        assert (targets[:, 50:] == IGNORE).all()
        assert (image[40:] == crops.GREY).all()
        rows = [targets[0, :50].tolist(), targets[0, 49::-1].tolist()]
        found = ["".join(map(chr, row)) in "".join(map(chr, labels[0].tolist())) for row in rows]
        assert sum(found) == 1
        mirrored.add(found[1])
        assert (batch.jitter >= 0.5).all()
        assert (batch.jitter <= 1.5).all()
    assert mirrored == {True, False}


def test_labels_of_a_shrunken_image_lie_under_its_pixels():
    labels = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3), 30, axis=0), 30, axis=1)
    image = np.repeat(labels[1::3, 1::3, None], 3, axis=2)  # a third of its size
    stream = batches(lambda: iter([(image, labels)]), 6, Training(crop=16, batch=1), 0, Place())
    for _ in range(10):
        batch = next(stream)
        np.testing.assert_array_equal(batch.images[0, ..., 0], batch.labels[0])


def test_few_images_are_held(monkeypatch):
    monkeypatch.setattr(crops, "BUFFER", 4)
    read = []

    def many():
        for number in range(1000):
            read.append(number)
            yield PAIRS[0]

    stream = batches(many, 2, Training(crop=32, batch=2), 0, Place())
    next(stream)
    assert len(read) <= 4 + 2
    stream.close()


def test_what_is_made_ahead_keeps_its_order_and_fails_in_its_turn():
    names = []

    def items():
        try:
            for number in range(1, 7):
                names.append(threading.current_thread().name)
                yield number
            raise OSError("the disk is gone")
        finally:
            names.append("closed")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        found.extend(iter(made_ahead(items(), lambda: None)))
    stream = made_ahead(items(), lambda: None)
    assert next(stream) == 1
    stream.close()
    assert names.count("closed") == 2
    assert all(name.startswith(("a2lc-crops", "closed")) for name in names)


def test_waiting_can_be_ended():
    slow = threading.Event()

    def items():
        slow.wait(30)
        yield 1

    def tell():
        slow.set()
        raise InterruptedError

    with pytest.raises(InterruptedError):
        next(made_ahead(items(), tell))
