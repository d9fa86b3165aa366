"""Automatic corrections that a person takes back stay back, until they are let hold again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from a2lc_backend.bench.world import World
from a2lc_backend.rounds.report import NotThereError
from a2lc_backend.rounds.runner import run_round
from a2lc_backend.rounds.undo import labels_of, redo_round, undo_round
from a2lc_backend.rounds.workspace import SOURCES
from tests.world_run import Run

Key = tuple[int, str]


def held(run: Run, number: int) -> dict[Key, tuple[int, str]]:
    """Label and source of every mask, as they hold."""
    labels = labels_of(run.ledger, run.workspace, 1, number)
    return {
        (int(task_id), name): (int(label), SOURCES[source])
        for place, task_id in enumerate(labels.task_ids)
        for name, label, source in zip(
            run.workspace.catalog(labels.mask_keys[place]).region_ids,
            labels.labels[labels.span(place)],
            labels.sources[labels.span(place)],
            strict=True,
        )
    }


def publish_again(run: Run) -> None:
    record = run.ledger.begin_round(1, 0)
    run_round(run.context(record), "test")


@pytest.fixture
def run(world: World, tmp_path: Path, short_training: None) -> Iterator[Run]:
    """Three rounds on one thread: which labels change hangs on the order of sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = Run(world, tmp_path)
    with threadpool_limits(1):
        for _ in range(3):
            made.round()
        yield made
    torch.set_num_threads(threads)


def test_the_last_round_is_undone_and_redone(run: Run) -> None:
    before, versions = held(run, 2), list(run.platform.versions)
    changes = {
        (item.task_id, item.region_id): item
        for item in run.ledger.auto_corrections(1, 2)
        if before[item.task_id, item.region_id][1] == "corrector"
    }
    assert changes
    assert undo_round(run.ledger, run.workspace, 1, 2) == len(changes)
    assert [record.status for record in run.ledger.rounds(1)] == ["done", "done", "running"]
    publish_again(run)
    after = held(run, 2)
    assert {key: after[key][0] for key in changes} == {key: item.before for key, item in changes.items()}
    assert {key: value for key, value in after.items() if key not in changes} == {
        key: value for key, value in before.items() if key not in changes
    }
    assert len(run.platform.versions) == 4
    assert run.ledger.rounds(1)[2].version == run.platform.versions[-1] not in versions
    assert run.ledger.rounds(1)[2].summary["undone"] == len(changes)
    assert undo_round(run.ledger, run.workspace, 1, 2) == 0, "there is nothing left to undo"
    assert redo_round(run.ledger, run.workspace, 1, 2) == len(changes)
    publish_again(run)
    assert held(run, 2) == before
    assert run.ledger.rounds(1)[2].version == versions[-1]


def test_an_older_round_is_undone_where_its_labels_still_hold(run: Run) -> None:
    before = held(run, 2)
    later = {(item.task_id, item.region_id) for item in run.ledger.auto_corrections(1, 2)}
    mine = {
        (item.task_id, item.region_id): item
        for item in run.ledger.auto_corrections(1, 1)
        if (item.task_id, item.region_id) not in later and before[item.task_id, item.region_id][1] == "corrector"
    }
    assert mine
    assert undo_round(run.ledger, run.workspace, 1, 1) == len(mine)
    after = held(run, 2)
    assert {key for key in before if before[key] != after[key]} == mine.keys()
    publish_again(run)
    # No later round gives a mask the label that was taken back from it; people may.
    run.round()
    now = held(run, 3)
    assert all(now[key][0] != item.after or now[key][1] == "human" for key, item in mine.items())


def test_rounds_are_undone_one_after_the_other(run: Run) -> None:
    changes = {
        number: {(item.task_id, item.region_id): item for item in run.ledger.auto_corrections(1, number)}
        for number in (1, 2)
    }
    twice = {key for key in changes[1].keys() & changes[2].keys() if held(run, 2)[key][1] == "corrector"}
    assert twice, "no mask was changed in both rounds"
    undo_round(run.ledger, run.workspace, 1, 2)
    publish_again(run)
    stands = {key for key in twice if held(run, 2)[key] == (changes[1][key].after, "corrector")}
    assert stands, "no change of round 1 holds again"
    assert run.ledger.rounds(1)[2].summary["changed_back"] >= 0
    undo_round(run.ledger, run.workspace, 1, 1)
    publish_again(run)
    after = held(run, 2)
    assert all(after[key][0] == changes[1][key].before for key in stands)


def test_what_cannot_be_undone_is_named(run: Run) -> None:
    with pytest.raises(NotThereError, match="no round 9"):
        undo_round(run.ledger, run.workspace, 1, 9)
    run.ledger.begin_round(1, 5)
    with pytest.raises(NotThereError, match="round 3 of project 1 is running"):
        undo_round(run.ledger, run.workspace, 1, 3)
    assert undo_round(run.ledger, run.workspace, 1, 0) == 0
