"""Groups of automatic corrections, or single ones, that a person rejects, lets hold again, or approves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from threadpoolctl import threadpool_limits

from a2lc_backend.app import create_app
from a2lc_backend.bench.world import World
from a2lc_backend.rounds.groups import BANDS, Selection, band_reports, select_masks
from a2lc_backend.rounds.report import ProposalReport, proposal_reports, with_words
from a2lc_backend.rounds.undo import MaskName, redo_round, undo_round
from a2lc_backend.service import Service
from a2lc_backend.settings import ProjectSettings, Settings
from tests.conftest import OWN_TOKEN
from tests.test_undo import held, publish_again
from tests.world_run import Run

AUDITED = {"budget": 60, "audit": 0.2}
"""Some proposals are held back."""


@pytest.fixture
def run(request: pytest.FixtureRequest, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Three rounds on one thread: which labels change hangs on the order of sums."""
    monkeypatch.setattr("a2lc_backend.segmenter.unet.MIN_STEPS", 40)  # enough to hold back some and apply others
    monkeypatch.setattr("a2lc_backend.segmenter.unet.MAX_STEPS", 40)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        made = Run(world, tmp_path, ProjectSettings(**getattr(request, "param", AUDITED)))
        for _ in range(3):
            made.round()
        yield made
    torch.set_num_threads(threads)


def proposals(run: Run, number: int) -> list[ProposalReport]:
    return list(with_words(run.ledger, 1, proposal_reports(run.ledger, run.workspace, 1, number)))


def largest_group(run: Run, number: int) -> tuple[str, str]:
    applied = Counter((item.before, item.after) for item in proposals(run, number) if item.applied)
    return applied.most_common(1)[0][0]


def test_a_group_is_taken_back_and_nothing_else_until_it_is_let_hold_again(run: Run) -> None:
    before, version = held(run, 2), run.ledger.rounds(1)[2].version
    group = Selection(None, *largest_group(run, 2))
    masks = select_masks(proposals(run, 2), group, "applied")
    others = [item for item in proposals(run, 2) if (item.task_id, item.region_id) not in masks]
    assert len(masks) >= 2
    assert undo_round(run.ledger, run.workspace, 1, 2, masks) == len(masks)
    publish_again(run)
    after = held(run, 2)
    assert {name for name in before if before[name] != after[name]} == masks.keys()
    assert run.ledger.rounds(1)[2].version not in ("", version)
    assert [item for item in proposals(run, 2) if (item.task_id, item.region_id) not in masks] == others
    assert select_masks(proposals(run, 2), group, "taken back").keys() == masks.keys()
    assert not select_masks(proposals(run, 2), group, "applied")

    one = next(iter(masks))
    assert redo_round(run.ledger, run.workspace, 1, 2, [one]) == 1
    publish_again(run)
    assert held(run, 2) == after | {one: before[one]}
    assert redo_round(run.ledger, run.workspace, 1, 2, masks) == len(masks) - 1
    publish_again(run)
    assert held(run, 2) == before
    assert run.ledger.rounds(1)[2].version == version


def test_what_was_rejected_is_not_given_again(run: Run) -> None:
    masks = select_masks(proposals(run, 2), Selection(None, *largest_group(run, 2)), "applied")
    undo_round(run.ledger, run.workspace, 1, 2, masks)
    publish_again(run)
    run.round()
    same = [
        item for item in proposals(run, 3)
        if (item.task_id, item.region_id) in masks and item.after == masks[item.task_id, item.region_id].after
    ]  # fmt: skip
    assert same, "the corrector would give some of them again"
    assert not [item for item in same if item.applied]
    ids = {name: label for label, name in enumerate(run.world.classes)}
    given = {((item.task_id, item.region_id), item.after) for item in run.ledger.auto_corrections(1, 3)}
    assert given, "the round gives others"
    assert not given & {(name, ids[item.after]) for name, item in masks.items()}


@pytest.mark.parametrize("run", [{"budget": 30}], indirect=True)
def test_a_correction_of_an_older_round_that_still_holds_is_rejected_where_one_sees_it(run: Run) -> None:
    """The page shows what the last round would apply: that includes what a round before it gave already."""
    older = {(item.task_id, item.region_id) for item in run.ledger.auto_corrections(1, 1)}
    newer = {(item.task_id, item.region_id) for item in run.ledger.auto_corrections(1, 2)}
    shown = select_masks(proposals(run, 2), Selection(), "applied")
    still = [name for name in shown if name in older - newer]
    assert still, "no correction of round 1 holds on"
    before = held(run, 2)
    assert undo_round(run.ledger, run.workspace, 1, 2, still[:1]) == 1
    assert [(item.round, item.task_id, item.region_id) for item in run.ledger.undone(1)] == [(1, *still[0])]
    assert held(run, 2)[still[0]] != before[still[0]]
    assert undo_round(run.ledger, run.workspace, 1, 0, still[1:]) == 0, "in round 0 it did not hold yet"


def test_bands_count_every_proposal_once(run: Run) -> None:
    found = proposals(run, 2)
    bands = band_reports(found)
    assert sum(band.applied + band.held_back + band.taken_back for band in bands) == len(found)
    assert {(band.least, band.most) for band in bands} <= set(BANDS)
    for band in bands:
        mine = Selection(None, band.before, band.after, band.least, band.most)
        assert len(select_masks(found, mine, "applied")) == band.applied
        assert len(select_masks(found, mine, "held back")) == band.held_back


def held_back(run: Run, number: int) -> dict[MaskName, ProposalReport]:
    return select_masks(proposals(run, number), Selection(), "held back")


def test_an_approved_mask_or_pair_is_applied_by_the_next_round_though_audits_hold_it_back(run: Run) -> None:
    ids = {name: label for label, name in enumerate(run.world.classes)}
    waiting = held_back(run, 2)
    assert len(waiting) > 10
    one, item = next(iter(waiting.items()))
    pair = Counter((x.before, x.after) for x in waiting.values() if (x.before, x.after) != (item.before, item.after))
    before, after = pair.most_common(1)[0][0]
    run.ledger.approve_masks(1, {one: ids[item.after]}, approved=True)
    run.ledger.approve(1, ids.get(before, 255), ids[after], approved=True)
    assert [name for name, x in held_back(run, 2).items() if x.approved] == [one]
    run.round()
    now = {(x.task_id, x.region_id): x for x in proposals(run, 3)}
    assert now[one].after == item.after, "the corrector stays with it"
    assert now[one].applied
    group = [x for x in now.values() if (x.before, x.after) == (before, after)]
    assert group
    assert all(x.applied for x in group)
    assert [x for x in now.values() if not x.applied], "the others stay held back"
    run.ledger.approve_masks(1, {one: ids[item.after]}, approved=False)
    assert run.ledger.approved_masks(1) == {}


def test_a_mask_that_is_approved_is_applied(run: Run) -> None:
    """Every mask held back is approved: those that are proposed again are applied."""
    ids = {name: label for label, name in enumerate(run.world.classes)}
    waiting = held_back(run, 2)
    run.ledger.approve_masks(1, {name: ids[item.after] for name, item in waiting.items()}, approved=True)
    run.round()
    again = [
        item for item in proposals(run, 3)
        if (item.task_id, item.region_id) in waiting and waiting[item.task_id, item.region_id].after == item.after
    ]  # fmt: skip
    assert again
    assert all(item.applied for item in again)


@pytest.fixture
def web(run: Run) -> Iterator[TestClient]:
    settings = Settings(data_dir=run.folder, label_studio_url="http://127.0.0.1:9", label_studio_api_key="f" * 40)  # type: ignore[arg-type]
    with TestClient(create_app(Service(settings)), headers=OWN_TOKEN) as client:
        yield client


def test_the_api_names_what_is_wrong_and_what_was_taken_back(run: Run, web: TestClient) -> None:
    at = "/api/projects/1/rounds/2"
    before, after = largest_group(run, 2)
    for wrong in ({}, {"before": before}, {"masks": []}, {"masks": [], "before": before, "after": after}, {"mask": 1}):
        assert web.post(f"{at}/reject", json=wrong).status_code == 422
    missing = web.post(f"{at}/reject", json={"before": before, "after": "Moon"})
    assert (missing.status_code, missing.json()["detail"]) == (
        404, "round 2 of project 1 has no such proposal that is applied",
    )  # fmt: skip
    assert web.post("/api/projects/1/rounds/9/reject", json={"before": before, "after": after}).status_code == 404
    bands = [band for band in web.get("/api/projects/1/proposals/bands").json() if band["applied"]]
    band = next(band for band in bands if (band["before"], band["after"]) == (before, after))
    group = {name: band[name] for name in ("before", "after", "least", "most")}
    said = web.post(f"{at}/reject", json=group)
    assert said.status_code == 202
    assert said.json()["corrections"] == len(said.json()["masks"]) == band["applied"]
    again = web.post(f"{at}/restore", json={"masks": said.json()["masks"]})
    assert again.status_code == 409, "the labels are being published"
    assert "let it end first" in again.json()["detail"]


def test_the_api_takes_a_word_on_what_was_held_back(run: Run, web: TestClient) -> None:
    band = next(band for band in web.get("/api/projects/1/proposals/bands").json() if band["held_back"])
    group = {name: band[name] for name in ("before", "after", "least", "most")}
    said = web.post("/api/projects/1/rounds/2/approve", json=group)
    assert said.json() == {"masks": band["held_back"]}
    now = web.get("/api/projects/1/proposals/bands").json()
    assert next(item for item in now if item == band | {"approved": band["held_back"]})
    assert web.post("/api/projects/1/rounds/2/approve", json=group | {"approved": False}).status_code == 200
    assert run.ledger.approved_masks(1) == {}
