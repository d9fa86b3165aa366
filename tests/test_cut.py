"""Which regions of a queued image its page shows, and what is read of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from a2lc_backend.bench.world import World
from a2lc_backend.masks import IGNORE, MaskSet
from a2lc_backend.rounds.collect import take_over
from a2lc_backend.rounds.cut import left_out, most_shown
from a2lc_backend.rounds.publish import Note, RoundView, read_note
from a2lc_backend.settings import ProjectSettings
from a2lc_backend.store import Query, Round
from tests.conftest import grid_masks
from tests.world_run import BUDGET, Run

MASKS = 12


def shown(masks: MaskSet, queued: set[str], most: int) -> set[str]:
    live = {name for name, area in zip(masks.region_ids, masks.areas(), strict=True) if area}
    return live - left_out(masks, queued, most)


@st.composite
def images(draw: st.DrawFn) -> tuple[MaskSet, set[str]]:
    """Masks of any shape, some without pixels, and those that are queued."""
    names = tuple(f"m{number}" for number in range(MASKS))
    ids = draw(arrays(np.uint16, (9, 11), elements=st.integers(0, MASKS)))
    queued = draw(st.sets(st.sampled_from(names)))
    return MaskSet(ids, names, np.zeros(MASKS, np.int64), {}), queued


@given(images(), st.integers(0, MASKS + 3))
def test_the_queued_are_shown_and_no_more_than_may_be(image: tuple[MaskSet, set[str]], most: int) -> None:
    masks, queued = image
    live = shown(masks, set(), 0)
    found = shown(masks, queued, most)
    if not most or not queued & live:
        assert found == live
        return
    assert queued & live <= found <= live
    assert len(found) == min(max(most, len(queued & live)), len(live))


@given(images(), st.integers(1, MASKS), st.randoms())
def test_the_choice_hangs_on_names_and_pixels_only(image: tuple[MaskSet, set[str]], most: int, random: object) -> None:
    masks, queued = image
    order = list(range(MASKS))
    random.shuffle(order)  # type: ignore[attr-defined]
    numbers = np.zeros(MASKS + 1, np.uint16)
    numbers[np.array(order) + 1] = np.arange(1, MASKS + 1)
    names = tuple(masks.region_ids[index] for index in order)
    shuffled = MaskSet(numbers[masks.mask_ids], names, masks.first_labels, {})
    assert left_out(shuffled, queued, most) == left_out(masks, queued, most)


@given(images(), st.integers(1, MASKS), st.integers(1, MASKS))
def test_the_fewest_shown_of_any_image_is_as_good_as_the_setting(
    image: tuple[MaskSet, set[str]], most: int, other: int
) -> None:
    """What `a2lc rebuild` goes by: with the smaller of two lengths that one setting led to, both are found again."""
    masks, queued = image
    hidden = left_out(masks, queued, most)
    if hidden:
        length = len(shown(masks, queued, most))
        assert left_out(masks, queued, length) == hidden
        if len(queued & shown(masks, set(), 0)) > most:
            assert left_out(masks, queued, min(length, max(most, other))) == hidden


def test_neighbours_come_first() -> None:
    masks = grid_masks(3, 5)
    assert shown(masks, {"m8"}, 5) == {"m8", "m3", "m7", "m9", "m13"}
    assert shown(masks, {"m1", "m15"}, 6) == {"m1", "m15", "m2", "m6", "m10", "m14"}
    assert shown(masks, {"m1"}, 0) == shown(masks, set(), 5) == set(masks.region_ids)


def test_a_round_of_an_older_version_showed_all() -> None:
    assert most_shown(Round(1, 0, "done")) == 0
    assert most_shown(Round(1, 0, "done", settings=ProjectSettings().model_dump())) == 30
    assert most_shown(Round(1, 0, "done", settings=ProjectSettings(whole_image=True).model_dump())) == 0


@pytest.mark.parametrize("sure", [0.0, 0.71, 1.0])
@pytest.mark.parametrize("why", ["", "rare class"])
@pytest.mark.parametrize("name", ["SignSymbol", "bus, 0.5", "a; may be b"])
def test_a_note_is_read_back(name: str, sure: float, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    view = RoundView.__new__(RoundView)
    monkeypatch.setattr(view, "_classes", ("Building", name), raising=False)
    note = view._note(Query(1, 1, 1, "m1", 0, 1, certainty=sure, why=why), 0, 1, 4)
    assert read_note(note) == Note(name, sure, why)
    plain = view._note(Query(1, 1, 1, "m1", 0, IGNORE, why=why), 0, 1, 4)
    assert read_note(plain) == Note("", 0.0, why)


def test_notes_in_words() -> None:
    view = RoundView.__new__(RoundView)
    view._classes = ("Building", "SignSymbol")
    query = Query(1, 1, 1, "m1", 0, 1, certainty=0.712, why="rare class")
    begins = "Please check (1 of 4 in this image): labelled Building"
    assert view._note(query, 0, 1, 4) == f"{begins}; looks like SignSymbol, 0.71; checked because: rare class"
    assert view._note(replace(query, guess=IGNORE, certainty=0.0, why=""), 0, 1, 4) == begins
    assert read_note(f"{begins}; may be SignSymbol") == Note("SignSymbol"), "as older versions wrote it"


@pytest.mark.usefixtures("short_training")
def test_what_was_kept_off_the_page_stays_as_it_is(world: World, tmp_path: Path) -> None:
    """The annotation holds what the page showed; a region of it that is gone was deleted, and only that."""
    run = Run(world, tmp_path, ProjectSettings(budget=BUDGET, regions_shown=10))
    run.round()
    view = RoundView(run.ledger, run.workspace, 1, 0)
    cut = [task_id for task_id in sorted(view.queued) if view.prediction(task_id).rest]
    assert len(cut) > 2
    before = {task_id: view.prediction(task_id) for task_id in cut}
    for number, answer in list(run.platform.answers.items()):
        if answer.task_id in cut:
            page = before[answer.task_id].regions
            given = {region.id: region for region in answer.regions}
            left = tuple(given.get(region.id, region) for region in page[:-1])
            run.platform.answers[number] = replace(answer, regions=left, whole=True, shown_round=0)
    run.settings = run.settings.model_copy(update={"regions_shown": 3})  # a page may be older than the setting
    look = run.context(Round(1, 1, "running"))
    take_over(look, lambda _done, _total: None)
    said = run.ledger.corrections(1)
    deleted = {(item.task_id, item.region_id) for item in said if item.kind == "deleted"}
    assert deleted == {(task_id, before[task_id].regions[-1].id) for task_id in cut}
    asked = {(query.task_id, query.region_id) for query in run.ledger.queries(1, 0)}
    assert {(item.task_id, item.region_id) for item in said if item.kind == "label"} == asked - deleted
    run.round()
    after = RoundView(run.ledger, run.workspace, 1, 1)
    for task_id in cut:
        now = {region.id: region for region in (*after.prediction(task_id).regions, *after.prediction(task_id).rest)}
        for region in before[task_id].rest:
            assert np.array_equal(now[region.id].mask, region.mask)
            assert now[region.id].source != "human"
