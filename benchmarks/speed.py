"""Measure acquisition, re-ranking and the default corrector against their targets.

Run with `python -m benchmarks.speed [PART ...] [--check]`; the table is Markdown.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cosine

from a2lc_backend.acquisition import (
    acquisition_rows,
    adaptive_class_weights,
    doubtful_values,
    mask_acquisition,
    mask_values,
    rank_masks,
)
from a2lc_backend.correction import MaskTable
from a2lc_backend.correction.boosted import BoostedCorrector
from a2lc_backend.segmenter import enlarge

CLASSES = 19
FEATURES = 16


class Line(NamedTuple):
    """One row of the table.

    Attributes:
        what: was measured.
        found: the figure.
        target: it has to reach; empty for a figure beside the others.
        reached: whether it does.
    """

    what: str
    found: str
    target: str = ""
    reached: bool = True


def loop_acquisition(
    soft: NDArray[np.float32], ids: NDArray[np.uint16], labels: NDArray[np.uint8], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The same acquisition pixel by pixel, the plain published way.

    Every pixel of every mask is read where it lies in the (C, H, W) array, without copying a mask's pixels together
    beforehand, and compared by one call of scipy's `cosine`. Argmax and the representatives are found by whole arrays.
    """
    scores = np.zeros(int(ids.max()) + 1)
    argmax = soft.argmax(0)
    for mask in range(1, len(scores)):
        inside = ids == mask
        dominant = np.bincount(argmax[inside]).argmax()
        representative = soft[:, inside & (argmax == dominant)].mean(1, dtype=np.float64)
        for y, x in np.argwhere(inside):
            label = labels[y, x]
            similarity = 1 - cosine(soft[:, y, x], representative)
            scores[mask] += similarity * weights[label] * (1 - soft[label, y, x])
    return scores


def measure_acquisition(size: tuple[int, int], cells: tuple[int, int], masks: int, repeats: int) -> list[Line]:
    """One image's acquisition against the loop, from soft labels at full size and through their enlargement."""
    rng = np.random.default_rng(0)
    small = soft_labels(rng, cells)
    soft = enlarge(small, size)
    ids = nearest_centres(rng, size, masks)
    labels = (rng.permutation(masks + 1) % CLASSES).astype(np.uint8)[ids]
    weights = rng.random(CLASSES)
    started = time.perf_counter()
    expected = loop_acquisition(soft, ids, labels, weights)
    loop = time.perf_counter() - started
    one_pass = fastest(soft.sum, repeats)
    full = fastest(lambda: mask_acquisition(soft, ids, labels, weights), repeats)
    through = fastest(lambda: mask_acquisition(enlarge(small, size), ids, labels, weights), repeats)
    rows = fastest(lambda: acquisition_rows(enlarge(small, size), ids, masks), repeats)
    difference = float(np.abs(mask_acquisition(soft, ids, labels, weights)[1:] / expected[1:] - 1).max())
    image = f"{size[1]} × {size[0]}, {CLASSES} classes, {masks} masks"
    grid = f"{cells[1]} × {cells[0]} cells"
    lines = [
        Line(f"{image}: loop over all pixels", f"{loop:.1f} s"),
        Line(f"{image}: one pass (`soft.sum()`)", f"{one_pass * 1e3:.1f} ms"),
        Line(f"{image}: `mask_acquisition`", f"{full * 1e3:.0f} ms = {full / one_pass:.1f} passes"),
        Line("… times as fast as the loop", f"{loop / full:.0f}", "≥ 200", loop / full >= 200),
        Line("… greatest relative difference to the loop", f"{difference:.1e}", "≤ 1e-5", difference <= 1e-5),
        Line(f"from {grid} by `enlarge` and `mask_acquisition`", f"{through * 1e3:.0f} ms"),
        Line("… times as fast as the loop", f"{loop / through:.0f}", "≥ 120", loop / through >= 120),
        Line(f"from {grid} by `enlarge` and `acquisition_rows`, as rounds do", f"{rows * 1e3:.0f} ms"),
        Line("… times as fast as the loop", f"{loop / rows:.0f}", "≥ 120", loop / rows >= 120),
    ]
    if torch.cuda.is_available():
        there = [torch.from_numpy(array).cuda() for array in (soft, ids.astype(np.int64), labels)]
        gpu = fastest(lambda: mask_acquisition(there[0], there[1], there[2], weights), repeats)
        lines.append(Line(f"{image}: on {torch.cuda.get_device_name()}", f"{gpu * 1e3:.1f} ms", "< 5 ms", gpu < 5e-3))
    return lines


def measure_ranking(masks: int, repeats: int) -> list[Line]:
    """Ranking all masks anew when labels, and so class statistics, have changed."""
    rng = np.random.default_rng(0)
    rows = np.empty((masks, CLASSES))
    for start in range(0, masks, 1_000_000):
        part = rows[start : start + 1_000_000]
        part[:] = rng.random(part.shape, np.float32)
    labels, dominant = rng.integers(0, CLASSES, (2, masks))
    areas = rng.integers(1, 10_000, masks)
    doubt = rng.random(masks)
    askable = rng.random(masks) < 0.99

    def rank(with_doubt: bool) -> NDArray[np.int64]:
        weights = adaptive_class_weights(np.bincount(labels, weights=areas, minlength=CLASSES))
        if not with_doubt:
            return rank_masks(mask_values(rows, labels, weights, dominant), askable, 1_000)
        plain = mask_values(rows, labels, np.ones(CLASSES), dominant)
        return rank_masks(doubtful_values(plain, areas, doubt) * weights[labels], askable, 1_000)

    lines = []
    for name, with_doubt in (("ABC", False), ("ABC and doubt", True)):
        seconds = fastest(lambda with_doubt=with_doubt: rank(with_doubt), repeats)  # type: ignore[misc]
        what = f"ranking {masks:,} masks × {CLASSES} classes anew, {name}"
        lines.append(Line(what, f"{seconds:.2f} s", "< 1 s", seconds < 1))
    return lines


def measure_corrector(masks: int, human: int) -> list[Line]:
    """Fitting the default corrector and proposing for every mask; memory is the whole process's peak."""
    table = mask_table(np.random.default_rng(0), masks, human)
    started = time.perf_counter()
    corrected = BoostedCorrector().propose(table, CLASSES, 1, seed=0)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    changed = int((corrected.labels != table.base_labels).sum())
    return [
        Line(f"corrector: {human:,} human masks, {masks:,} in all", f"{seconds:.1f} s", "< 60 s", seconds < 60),
        Line("… peak memory of the process", f"{peak:.2f} GiB", "< 4 GiB", peak < 4),
        Line("… labels changed", f"{changed:,}"),
    ]


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of some repeats."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def soft_labels(rng: np.random.Generator, cells: tuple[int, int]) -> NDArray[np.float32]:
    """Soft labels with a few likely classes in each cell, (C, h, w)."""
    values = rng.gamma(0.3, size=(CLASSES, *cells)) + 1e-6
    return np.asarray(values / values.sum(0), np.float32)


def nearest_centres(rng: np.random.Generator, size: tuple[int, int], masks: int) -> NDArray[np.uint16]:
    """Masks 1..K that hold the pixels nearest to their centres, (H, W)."""
    centres = rng.random((masks, 2)) * size
    y, x = np.mgrid[: size[0], : size[1]]
    least = np.full(size, np.inf)
    ids = np.zeros(size, np.uint16)
    for index, (centre_y, centre_x) in enumerate(centres):
        distance = (y - centre_y) ** 2 + (x - centre_x) ** 2
        ids[distance < least] = index + 1
        least = np.minimum(least, distance)
    return ids


def mask_table(rng: np.random.Generator, masks: int, human: int) -> MaskTable:
    """Masks whose features and soft labels lean to the true class; a fifth have a wrong first label."""
    truth = rng.integers(0, CLASSES, masks)
    means = rng.normal(size=(CLASSES, FEATURES)).astype(np.float32)
    features = np.empty((masks, FEATURES), np.float32)
    soft = np.empty((masks, CLASSES))
    for start in range(0, masks, 100_000):
        own = truth[start : start + 100_000]
        features[start : start + 100_000] = means[own] + rng.normal(size=(len(own), FEATURES))
        part = rng.gamma(0.3, size=(len(own), CLASSES)) + 1e-6
        part[np.arange(len(own)), own] += rng.random(len(own))
        soft[start : start + 100_000] = part / part.sum(1, keepdims=True)
    first = np.where(rng.random(masks) < 0.2, rng.integers(0, CLASSES, masks), truth)
    answered = np.full(masks, 255)
    asked = rng.choice(masks, human, replace=False)
    answered[asked] = truth[asked]
    return MaskTable(features, soft, first, first, answered, answered != 255)


PARTS: dict[str, Callable[[], list[Line]]] = {
    "acquisition": lambda: measure_acquisition((1024, 2048), (384, 384), masks=40, repeats=25),
    "ranking": lambda: measure_ranking(10_000_000, repeats=3),
    "corrector": lambda: measure_corrector(1_000_000, human=10_000),
}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; with `--check` the exit status is 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; one a process tells its memory")
    parser.add_argument("--check", action="store_true", help="fail where a target is missed")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part is named {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    print("| what | measured | target |\n| --- | --- | --- |")  # noqa: T201
    reached = True
    for name in options.parts or PARTS:
        for line in PARTS[name]():
            mark = "" if line.reached else " **missed**"
            print(f"| {line.what} | {line.found}{mark} | {line.target} |", flush=True)  # noqa: T201
            reached &= line.reached
    return 1 if options.check and not reached else 0


if __name__ == "__main__":
    sys.exit(main())
