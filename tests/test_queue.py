"""The review queue: what is worth most, with the samples hidden among it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.queue import QueueTable, build_queue, mask_urgency, reasons
from a2lc_backend.settings import ProjectSettings


def queue_table(masks: int = 1000, classes: int = 5, seed: int = 0) -> QueueTable:
    """A fifth is answered, a fifth holds a label of the corrector, a tenth a proposal held back."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, masks)
    part = np.arange(masks) % 10
    automatic, held_back, unanswered = np.isin(part, (2, 3)), part == 4, part > 1
    proposals = np.where(held_back, (labels + 1) % classes, labels)
    strata = np.where(automatic, 5, np.where(held_back, 0, -1))
    return QueueTable(
        random.random((masks, classes)) * 50, random.dirichlet(np.ones(classes), masks), labels,
        random.integers(50, 5000, masks), labels, proposals, random.random(masks), strata, automatic, unanswered,
        np.zeros(masks, bool), unanswered,
    )  # fmt: skip


def test_a_queue_holds_the_samples_and_the_best() -> None:
    table, settings = queue_table(), ProjectSettings(explore=0.1)
    queue = build_queue(table, settings, 200, seed=3)
    assert len(np.unique(queue.masks)) == 200
    assert table.askable[queue.masks].all()
    drawn = {purpose: [m for m, p in queue.samples.items() if p == purpose] for purpose in queue.samples.values()}
    assert {purpose: len(masks) for purpose, masks in drawn.items()} == {"random": 20, "deciding": 20, "stating": 20}
    assert table.automatic[drawn["stating"]].all()
    assert not table.automatic[drawn["random"]].any()
    assert (table.strata[drawn["deciding"]] >= 0).all()
    values = mask_urgency(table, "doubt")
    best = [mask for mask in queue.masks if mask not in queue.samples]
    left_out = np.setdiff1d(np.flatnonzero(table.askable), queue.masks)
    assert values[best].min() >= values[left_out].max()
    assert (np.diff(values[best]) <= 0).all()


def test_nothing_tells_a_drawn_mask_from_the_others() -> None:
    table = queue_table()
    queue = build_queue(table, ProjectSettings(), 200, seed=1)
    assert (np.diff(queue.acquisition) <= 0).all()
    places = np.flatnonzero([mask in queue.samples for mask in queue.masks])
    assert places.min() < 20
    assert places.max() > 180
    assert set(queue.acquisition[places]) <= set(np.delete(queue.acquisition, places)) | {queue.acquisition[0]}


def test_the_same_seed_draws_the_same_queue() -> None:
    table, settings = queue_table(), ProjectSettings()
    first, again, other = (build_queue(table, settings, 100, seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.masks, again.masks)
    assert first.samples == again.samples
    assert first.samples != other.samples


def test_disputed_masks_come_first_and_in_no_sample() -> None:
    table = queue_table()
    disputed = np.zeros(1000, bool)
    disputed[[55, 77]] = True
    queue = build_queue(replace(table, disputed=disputed), ProjectSettings(audit=0, explore=0), 50, seed=0)
    assert set(queue.masks[:2]) == {55, 77}
    sampled = build_queue(replace(table, disputed=disputed), ProjectSettings(explore=1.0), 700, seed=0)
    assert not {55, 77} & set(sampled.samples)


def test_a_budget_beyond_what_is_left_asks_everything() -> None:
    table = queue_table(masks=50)
    queue = build_queue(table, ProjectSettings(), 400, seed=0)
    assert sorted(queue.masks) == np.flatnonzero(table.askable).tolist()
    nothing = build_queue(replace(table, askable=np.zeros(50, bool)), ProjectSettings(), 400, seed=0)
    assert len(nothing.masks) == 0


def test_without_the_corrector_nothing_is_audited() -> None:
    table = queue_table()
    silent = replace(
        table, strata=np.full(1000, -1), automatic=np.zeros(1000, bool), doubt=np.full(1000, np.nan),
        proposals=table.labels,
    )  # fmt: skip
    queue = build_queue(silent, ProjectSettings(explore=0.0), 100, seed=0)
    assert queue.samples == {}
    assert len(queue.masks) == 100


def test_unlabelled_masks_are_ranked_by_what_the_segmenter_sees() -> None:
    table = replace(queue_table(), labels=np.full(1000, IGNORE), proposals=np.full(1000, IGNORE))
    for ranking in ("doubt", "abc", "cil"):
        assert np.isfinite(mask_urgency(table, ranking)).all()


@pytest.mark.parametrize("ranking", ["abc", "cil"])
def test_the_papers_rankings_do_not_heed_the_corrector(ranking: str) -> None:
    table = queue_table()
    trusting = replace(table, doubt=np.zeros(1000))
    np.testing.assert_array_equal(mask_urgency(table, ranking), mask_urgency(trusting, ranking))


def test_the_reason_is_what_lifts_a_mask_above_the_others() -> None:
    """Masks that are all alike, but for one thing each."""
    masks, classes = 40, 3
    labels = np.zeros(masks, np.int64)
    labels[0] = 1
    soft = np.tile([0.7, 0.2, 0.1], (masks, 1))
    soft[0], soft[1] = [0.2, 0.7, 0.1], [0.05, 0.9, 0.05]
    doubt, areas = np.full(masks, 0.3), np.full(masks, 100)
    doubt[2], areas[3] = 0.95, 900
    no = np.zeros(masks, bool)
    disputed = no.copy()
    disputed[4] = True
    table = QueueTable(
        np.ones((masks, classes)), soft, soft.argmax(1), areas, labels, labels, doubt, np.full(masks, -1), no, ~no,
        disputed, ~no,
    )  # fmt: skip
    found = ["rare class", "the segmenter doubts it", "the corrector is unsure", "large mask", "people disagree", ""]
    assert reasons(table, "doubt", np.arange(6)) == found
    silent = replace(table, doubt=np.full(masks, np.nan))
    assert reasons(silent, "doubt", np.arange(4)) == [*found[:2], "", "large mask"]
    assert reasons(table, "cil", np.arange(4)) == ["", "the segmenter doubts it", "", "large mask"]
    assert max(map(len, found)) <= 32, "the column of the ledger holds no more"


def test_a_doubt_is_named_only_where_it_is_one() -> None:
    table = queue_table()
    everything = np.flatnonzero(table.askable)
    unsure = 1.0 - np.take_along_axis(table.soft_labels, table.proposals[:, None], 1)[:, 0]
    found = dict(zip(everything.tolist(), reasons(table, "doubt", everything), strict=True))
    assert set(found.values()) >= {"the segmenter doubts it", "the corrector is unsure", "large mask"}
    for mask, why in found.items():
        assert why != "the segmenter doubts it" or unsure[mask] >= 0.5
        assert why != "the corrector is unsure" or table.doubt[mask] >= 0.5
        assert why != "large mask" or table.areas[mask] > np.median(table.areas[table.askable])
