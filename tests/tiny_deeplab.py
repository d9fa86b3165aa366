"""DeepLabV3+ so small that it learns two colours in seconds."""

from contextlib import contextmanager

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from a2lc_backend.segmenter import Training, crops, make_segmenter

CPU = torch.device("cpu")
COLOURS = np.array([(200, 60, 40), (40, 90, 200)], np.uint8)
SHORT = Training("resnet18", iterations=6, crop=32, batch=2, learning_rate=0.05)
LONG = Training("resnet18", iterations=24, crop=64, batch=2, learning_rate=0.05)


@contextmanager
def small_scale():
    """One thread: on arrays this small, several wait for each other; and shuffling that a few images fill."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crops, "BUFFER", 3)
        yield
    torch.set_num_threads(threads)


def build(training=SHORT, classes=2, seed=0, **more):
    return make_segmenter("deeplabv3plus", classes=classes, device="cpu", training=training, seed=seed, **more)


def scenes(number=5, size=(80, 96)):
    """Noisy blocks of two colours with the truth of each pixel."""
    rng = np.random.default_rng(0)
    for _ in range(number):
        blocks = rng.integers(0, 2, (3, 4)).astype(np.uint8)
        labels = blocks[(np.arange(size[0]) * 3 // size[0])[:, None], (np.arange(size[1]) * 4 // size[1])[None]]
        yield (COLOURS[labels] + rng.integers(-20, 20, (*size, 3))).astype(np.uint8), labels


PAIRS = list(scenes())


def samples():
    return iter(PAIRS)


class OutOfMemory:
    """The network's first layer, in want of memory where more than `most` pixels a batch are asked of it."""

    def __init__(self, monkeypatch, most):
        self.asked = []
        forward = smp.encoders.resnet.ResNetEncoder.forward

        def starved(encoder, x):
            pixels = x.shape[0] * x.shape[2] * x.shape[3]
            self.asked.append(pixels)
            if pixels > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(encoder, x)

        monkeypatch.setattr(smp.encoders.resnet.ResNetEncoder, "forward", starved)
