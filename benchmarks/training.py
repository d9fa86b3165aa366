"""Measure a training step of DeepLabV3+ and its scoring of an image, at real sizes with random weights.

Run with `python -m benchmarks.training [--device cpu] [--small]` on whatever device is there; the table is Markdown.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from a2lc_backend.segmenter import PAPER, Training
from a2lc_backend.segmenter.deeplab import DeepLabSegmenter
from a2lc_backend.segmenter.state import choose_device

CLASSES = 19
WARM = 3
"""Steps before the clock starts."""


def measure_training(device: torch.device, training: Training, steps: int) -> float:
    """Crops a second of whole training steps; what makes the crops runs beside them, as in a round."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1024, 2048, 3)).astype(np.uint8)
    labels = rng.integers(0, CLASSES, (1024, 2048)).astype(np.uint8)
    counted = Training(training.encoder, WARM + steps, training.crop, training.batch, training.learning_rate)
    moments: dict[int, float] = {}

    def watch(done: int, _total: int) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        moments.setdefault(done, time.perf_counter())

    DeepLabSegmenter(CLASSES, device, counted).fit(lambda: iter([(image, labels)] * 64), watch)
    first, last = sorted(done for done in moments if done > 0)[0], max(moments)
    return training.batch * (last - first) / (moments[last] - moments[first])


def measure_scoring(device: torch.device, encoder: str, size: tuple[int, int], images: int) -> float:
    """Images a second through `soft_labels`, with the copies to and from the device."""
    segmenter = DeepLabSegmenter(CLASSES, device, Training(encoder, 1, 64, 2))
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    segmenter.fit(lambda: iter([(small, np.zeros((64, 64), np.uint8))]))
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    segmenter.soft_labels(image)
    return images / seconds(lambda: [segmenter.soft_labels(image) for _ in range(images)])


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def device_name(device: torch.device) -> str:
    """What the device is called."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="cpu, cuda or cuda:1; CUDA if there is any when not set")
    parser.add_argument(
        "--small", action="store_true", help="resnet18, crops of 64 and two of them: to try the command"
    )
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    runs = [PAPER, Training(crop=513, batch=16)]
    size, steps, images = (1024, 2048), 60, 20
    if options.small:
        runs, size, steps, images = [Training("resnet18", crop=64, batch=2)], (64, 128), 10, 2
    print(f"| {device_name(device)} | images a second | a training of {PAPER.iterations:,} steps |")  # noqa: T201
    print("| --- | --- | --- |")  # noqa: T201
    for run in runs:
        rate = measure_training(device, run, steps)
        hours = PAPER.iterations * run.batch / rate / 3600
        what = f"training, {run.encoder}, {run.batch} crops of {run.crop}²"
        print(f"| {what} | {rate:.1f} | {hours:.1f} h |", flush=True)  # noqa: T201
    rate = measure_scoring(device, runs[0].encoder, size, images)
    print(f"| scoring, {runs[0].encoder}, {size[1]}×{size[0]}, {CLASSES} classes | {rate:.1f} | |")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
