"""A drawn project through whole rounds: what must hold at any size, and what may not grow faster than the project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from a2lc_backend.rounds.phases import PHASES
from a2lc_backend.rounds.workspace import SOURCES, Workspace
from a2lc_backend.store import Artifacts
from benchmarks import scale
from benchmarks.drawn import MASKS, DrawnProject, RecordedSegmenter

SMALL, LARGE = 800, 2_400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[int, scale.Measured]:
    for masks in (SMALL, LARGE):
        (folder / str(masks)).mkdir()
    return {masks: scale.run_rounds(masks, 1, folder / str(masks)) for masks in (SMALL, LARGE)}


def test_every_image_gets_one_prediction_a_round(found: dict[int, scale.Measured]) -> None:
    for masks, measured in found.items():
        assert measured.masks == masks
        assert measured.predictions == (masks // MASKS, masks // MASKS)
        assert {phase.name for phase in measured.phases} == {kind.name for kind in PHASES}
        assert all(phase.peak > 0 for phase in measured.phases)


def test_answers_are_learned(found: dict[int, scale.Measured], folder: Path) -> None:
    drawn = DrawnProject(LARGE // MASKS)
    workspace = Workspace(Artifacts(f"file://{folder / str(LARGE) / 'artifacts'}"), 1)
    truth = np.concatenate([drawn.true_classes(task_id) for task_id in range(1, drawn.images + 1)])
    before, after = workspace.labels(0), workspace.labels(1)
    assert (after.sources == SOURCES.index("human")).sum() == found[LARGE].budget
    assert (after.labels == truth).sum() > (before.labels == truth).sum()


def test_nothing_grows_faster_than_the_project(found: dict[int, scale.Measured]) -> None:
    small, large = found[SMALL], found[LARGE]
    times = LARGE / SMALL
    for number in (0, 1):
        # Progress and the lock are written by the clock, a few times a second.
        by_clock = 10 * large.seconds[number]
        assert large.statements[number] <= times * small.statements[number] + by_clock
    for table in ("tasks", "queries", "audits", "corrections", "annotations", "phases", "problems"):
        assert large.ledger_rows[table] <= times * small.ledger_rows[table]
    assert large.ledger_rows["auto_corrections"] <= large.masks
    assert sum(large.artifact_bytes.values()) <= 1.05 * times * sum(small.artifact_bytes.values())
    assert sum(large.artifact_files.values()) <= times * sum(small.artifact_files.values())


def test_tables_name_every_size_and_phase(found: dict[int, scale.Measured]) -> None:
    text = "\n".join(scale.tables_of([scale.Measured.read(found[masks].write()) for masks in (SMALL, LARGE)]))
    assert f"{SMALL:,} masks | {LARGE:,} masks |" in text
    for name in (kind.name for kind in PHASES):
        assert text.count(f"| {name} | ") == 2
    assert "growth" in text


def test_a_finished_round_can_be_looked_at(found: dict[int, scale.Measured], folder: Path) -> None:
    peak, seconds = scale.look_at(folder / str(LARGE))
    assert peak > 0
    assert seconds < 60


def test_recorded_outputs_say_what_the_image_shows() -> None:
    drawn = DrawnProject(3)
    segmenter = RecordedSegmenter(drawn)
    soft = segmenter.soft_labels(segmenter.prepare(drawn.picture(2)))
    np.testing.assert_allclose(soft.sum(0), 1, atol=0.02)
    step = drawn.mask_ids(2).shape[0] // soft.shape[1]
    shown = drawn.true_classes(2)[drawn.mask_ids(2)[step // 2 :: step, step // 2 :: step] - 1]
    assert (soft.argmax(0) == shown).mean() > 0.5
