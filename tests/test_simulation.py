"""The simulated rounds behind docs/method.md, on a small pool made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from a2lc_backend.bench.world import World
from a2lc_backend.settings import ProjectSettings
from benchmarks.simulation import MaskPool, Simulation, load_pool
from benchmarks.study import CORRECTORS, DEPARTURES, QUEUES, applied, few_an_image
from benchmarks.trust import repeat


@pytest.fixture(scope="module")
def pool() -> MaskPool:
    """1,200 masks of 30 images in 4 classes; a third of class 1 was born as class 0."""
    random = np.random.default_rng(0)
    count, classes = 1200, 4
    truth = random.choice(classes, count, p=[0.4, 0.3, 0.2, 0.1])
    features = (truth[:, None] * 2.0 + random.normal(size=(count, 5))).astype(np.float32)
    first = np.where((truth == 1) & (random.random(count) < 0.4), 0, truth)
    soft = np.full((count, classes), 0.1)
    soft[np.arange(count), first] = 0.7
    areas = random.integers(50, 2000, count)
    pixels = np.zeros((count, classes), np.int64)
    pixels[np.arange(count), truth] = areas
    rows = areas[:, None] * (1 - soft)
    outside = np.full((30, classes), 10)
    return MaskPool(
        np.repeat(np.arange(30), 40), features, soft, rows, soft.argmax(1), first, truth, areas, pixels, outside
    )


def test_simulated_rounds_correct_and_state(pool: MaskPool) -> None:
    steps = Simulation(pool, ProjectSettings(budget=100), rounds=3).run()
    assert steps[0].data_miou == pytest.approx(pool.data_miou(pool.first))
    assert steps[3].data_miou > steps[0].data_miou + 5
    assert steps[3].wrong < steps[0].wrong
    assert steps[0].statement is None
    last = steps[3]
    assert last.statement is not None
    assert last.pooled is not None
    assert last.pooled.evidence.audited >= last.statement.evidence.audited == 20
    assert last.still is not None
    assert last.still[1] <= last.still[0] <= last.still[2]


def test_part_of_a_pool_is_a_pool(pool: MaskPool) -> None:
    part = pool.part(0.5, seed=1)
    assert len(part.outside) == 15
    assert len(part.first) == 600
    assert set(part.images) == set(range(15))
    assert pool.data_miou(pool.truth) < 100, "some pixels lie outside every mask"


def test_repetitions_hold_what_is_stated_against_the_truth(pool: MaskPool) -> None:
    outcome = repeat(pool, 0.8, 80, {}, seed=0)
    assert set(outcome.misses) >= {"right after, a round", "right before, all rounds", "still wrong"}
    assert outcome.data_miou > pool.data_miou(pool.first)
    assert repeat(pool, 0.8, 80, {}, seed=0) == outcome


@pytest.mark.parametrize(
    ("table", "name"),
    [
        (CORRECTORS, "boosting alone"),
        (CORRECTORS, "15 nearest neighbours alone"),
        (QUEUES, "at most 3 an image"),
        (QUEUES, "audits decide nothing"),
        (DEPARTURES, "a2lc-paper, softmax before cross-entropy"),
        (DEPARTURES, "abc, 255 counted as a class"),
    ],
)
def test_variants_of_the_study_run(pool: MaskPool, table: dict, name: str) -> None:
    variant = table[name]
    with applied(variant.patches, pool):
        settings = ProjectSettings(**{**variant.settings, "budget": 60})
        steps = Simulation(pool, settings, rounds=1, corrector=variant.corrector).run()
    assert len(steps) == 2


def test_a_cap_an_image_only_moves_masks_back() -> None:
    images = np.repeat([0, 1], 5)
    rank = few_an_image(2, images)
    order = rank(np.arange(10.0), np.ones(10, bool), 10)
    assert sorted(order) == list(range(10))
    assert (np.bincount(images[order[:4]]) == 2).all()


def test_a_pool_is_read_from_round_0_of_a_world(world: World, tmp_path: Path, short_training: None) -> None:
    pool = load_pool(world.root, tmp_path / "pool.npz")
    assert len(pool.outside) == len(world.names)
    assert (pool.pixels.sum(1) <= pool.areas).all()
    again = load_pool(Path("not there"), tmp_path / "pool.npz")
    np.testing.assert_array_equal(again.rows, pool.rows)
