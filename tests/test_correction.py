from __future__ import annotations

import numpy as np
import pytest

from a2lc_backend.correction import MaskTable, make_corrector, select_corrections
from a2lc_backend.correction.boosted import BoostedCorrector
from a2lc_backend.masks import IGNORE
from tests.conftest import shared


@pytest.mark.parametrize("name", ["selection_0.npz", "selection_1.npz"])
def test_selection_agrees_with_the_published_code(name: str) -> None:
    reference = np.load(shared("vectors") / name)
    selected = select_corrections(
        reference["probabilities"],
        reference["current_labels"],
        reference["corrected_mask_counts"],
        reference["human_corrected"],
        float(reference["tau"]),
        float(reference["alpha"]),
    )
    np.testing.assert_array_equal(selected, np.sort(reference["selected"]))


def test_each_criterion_stops_a_correction() -> None:
    sure = np.array([[0.0, 0.0, 0.0, 1.0]])
    counts = np.array([1, 2, 3, 4])
    free = np.array([False])

    def passes(probabilities=sure, current=1, counts=counts, human=free, tau=0.9) -> bool:
        return len(select_corrections(probabilities, np.array([current]), counts, human, tau)) == 1

    assert passes()
    assert not passes(probabilities=np.array([[0.05, 0.05, 0.05, 0.85]]))  # J1
    assert not passes(counts=np.array([1, 4, 3, 2]))  # J2: class 3 is among the rarest half
    assert not passes(current=0)  # J3: class 0 is the rarest
    assert not passes(current=3)  # nothing would change
    assert not passes(human=np.array([True]))
    assert not passes(counts=np.zeros(4, int))


def test_selection_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        select_corrections(np.ones((2, 3)), np.zeros(3, int), np.ones(3, int), np.zeros(3, bool), 0.9)
    with pytest.raises(ValueError, match="share"):
        select_corrections(np.ones((3, 3)), np.zeros(3, int), np.ones(3, int), np.zeros(3, bool), 0.9, alpha=2)


def confused_table(masks: int = 400, answered: int = 120, seed: int = 0) -> tuple[MaskTable, np.ndarray]:
    """Four classes that look different; half of class 1 was born as class 0."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 4, masks)
    features = (truth[:, None] * 3.0 + random.normal(size=(masks, 5))).astype(np.float32)
    first = np.where((truth == 1) & (random.random(masks) < 0.5), 0, truth)
    soft = np.full((masks, 4), 0.1)
    soft[np.arange(masks), first] = 0.7
    human = np.full(masks, IGNORE)
    asked = random.choice(masks, answered, replace=False)
    human[asked] = truth[asked]
    return MaskTable(features, soft, first, first, human, human != IGNORE), truth


def test_boosted_carries_corrections_to_similar_masks() -> None:
    table, truth = confused_table()
    proposals = make_corrector("boosted").propose(table, 4, 1, 0)
    others = ~table.human
    assert (
        (table.first_labels[others] == truth[others]).mean() < 0.97 < (proposals.labels[others] == truth[others]).mean()
    )
    np.testing.assert_array_equal(proposals.labels[table.human], table.human_labels[table.human])
    assert proposals.note == ""


def test_boosted_is_recomputed_from_base_labels_so_that_a_wrong_one_heals() -> None:
    table, _ = confused_table()
    poisoned = MaskTable(
        table.features, table.soft_labels, table.first_labels, np.full(400, 3), table.human_labels, table.fresh
    )
    healed = make_corrector("boosted").propose(poisoned, 4, 2, 0)
    np.testing.assert_array_equal(healed.labels, make_corrector("boosted").propose(table, 4, 2, 0).labels)


def test_boosted_seconds_what_the_linear_model_believes_too() -> None:
    table, truth = confused_table()
    proposals = BoostedCorrector().propose(table, 4, 1, 0)
    strict = BoostedCorrector(second_margin=2.0).propose(table, 4, 1, 0)
    assert not strict.seconded.any()
    np.testing.assert_array_equal(strict.labels, proposals.labels)
    assert proposals.seconded.sum() > 20
    assert proposals.proposed[proposals.seconded].all()
    assert (proposals.labels == truth)[proposals.seconded].mean() > 0.97


def test_margin_and_doubt_follow_from_what_the_corrector_believes() -> None:
    table, _ = confused_table()
    proposals = BoostedCorrector().propose(table, 4, 1, 0)
    assert (proposals.margin[proposals.proposed] >= 0.1).all()
    assert (proposals.margin[~proposals.proposed] == 0).all()
    assert (proposals.doubt[table.human] == 0).all()
    assert ((proposals.doubt >= 0) & (proposals.doubt <= 1)).all()


def test_boosted_holds_back_until_enough_is_answered() -> None:
    table, _ = confused_table(answered=5)
    proposals = BoostedCorrector(least_human=20).propose(table, 4, 1, 0)
    np.testing.assert_array_equal(proposals.labels, table.base_labels)
    assert "5 masks" in proposals.note


def test_boosted_labels_what_has_no_label() -> None:
    table, truth = confused_table()
    unlabelled = np.where(np.arange(400) % 2 == 0, IGNORE, table.first_labels)
    blank = MaskTable(table.features, table.soft_labels, unlabelled, unlabelled, table.human_labels, table.fresh)
    proposals = make_corrector("boosted").propose(blank, 4, 1, 0)
    assert (proposals.labels == truth).mean() > 0.9


def test_a_single_class_changes_nothing() -> None:
    count = 40
    table = MaskTable(
        np.zeros((count, 3), np.float32), np.ones((count, 1)), np.zeros(count, int), np.zeros(count, int),
        np.zeros(count, int), np.ones(count, bool),
    )  # fmt: skip
    for name in ("boosted", "paper", "none"):
        proposals = make_corrector(name).propose(table, 1, 1, 0)  # type: ignore[arg-type]
        np.testing.assert_array_equal(proposals.labels, 0)


def test_paper_keeps_earlier_corrections_and_learns_from_this_round_only() -> None:
    table, _ = confused_table()
    current = table.first_labels.copy()
    current[np.flatnonzero(~table.human)[0]] = 2
    nobody = MaskTable(
        table.features, table.soft_labels, table.first_labels, current, table.human_labels, np.zeros(400, bool)
    )
    proposals = make_corrector("paper").propose(nobody, 4, 1, 0)
    np.testing.assert_array_equal(proposals.labels, np.where(table.human, table.human_labels, current))
    assert "this round" in proposals.note


def test_paper_is_deterministic_and_leaves_people_alone() -> None:
    table, _ = confused_table()
    first, second = (make_corrector("paper").propose(table, 4, 1, 7) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.labels[table.human], table.human_labels[table.human])


def test_an_unknown_corrector_is_named() -> None:
    with pytest.raises(ValueError, match="boosted, paper, none"):
        make_corrector("lightgbm")  # type: ignore[arg-type]
