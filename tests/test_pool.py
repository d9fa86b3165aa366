from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from a2lc_backend.features import FEATURE_NAMES, Appearance
from a2lc_backend.masks import IGNORE, MaskSet
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.correct import _corrector_view
from a2lc_backend.rounds.pool import Pool, load_pool
from a2lc_backend.rounds.workspace import Labels, Scores, Workspace
from a2lc_backend.settings import ProjectSettings
from a2lc_backend.store import Artifacts, Correction, Ledger, SeenAnnotation, TaskState
from benchmarks.drawn import DrawnMasks, DrawnPlatform, DrawnProject, RecordedSegmenter

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=timezone.utc)
COUNTS = {3: 2, 5: 1, 8: 3}
CLASSES = len(DrawnProject(1).classes)


@pytest.fixture
def context(ledger: Ledger, tmp_path: Path) -> Context:
    """Three images, of which people have spoken of two."""
    workspace = Workspace(Artifacts(f"file://{tmp_path / 'artifacts'}"), 1)
    drawn = DrawnProject(3)
    platform = DrawnPlatform(drawn)
    found = Context(
        ledger.begin_round(1, 10), ProjectSettings(), ledger, workspace, platform, DrawnMasks(drawn),
        lambda _: RecordedSegmenter(drawn),
    )  # fmt: skip
    for task_id, count in COUNTS.items():
        write_masks(found, task_id, f"masks-{task_id}", [f"{task_id}-{index}" for index in range(count)])
    said = [
        correction(1, 3, "3-1", 4, annotator=1, round=1),
        correction(2, 8, "8-0", 2, annotator=1, round=1), correction(3, 8, "8-0", 6, annotator=2, round=2),
        correction(3, 8, "8-2", IGNORE, annotator=2, round=2), correction(3, 8, "gone", 1, annotator=2, round=2),
    ]  # fmt: skip
    for number in (1, 2, 3):
        mine = [item for item in said if item.annotation_id == number]
        ledger.save_annotation(1, SeenAnnotation(number, mine[0].task_id, "now"), mine)
    return found


def write_masks(context: Context, task_id: int, key: str, names: list[str], empty: int = 0, seen_by: str = "") -> None:
    ids = np.repeat(np.arange(1, len(names) + 1 - empty, dtype=np.uint16), 4)[None]
    masks = MaskSet(ids, tuple(names), np.arange(len(names)), {})
    features = np.full((len(names), len(FEATURE_NAMES) + (2 if seen_by else 0)), task_id, np.float32)
    context.workspace.write_masks(key, masks, features, imported=False, seen_by=seen_by)
    context.ledger.save_tasks(1, [TaskState(task_id, "image", ready=True, mask_key=key)])


def correction(annotation: int, task: int, region: str, label: int, annotator: int, round: int) -> Correction:
    kind = "deleted" if label == IGNORE else "label"
    return Correction(annotation, task, region, kind, label, 0, annotator, NOW + timedelta(annotation), round)


def test_every_mask_has_its_owner_and_what_people_say_of_it(context: Context) -> None:
    pool = load_pool(context)
    names = [(task_id, f"{task_id}-{index}") for task_id, count in COUNTS.items() for index in range(count)]
    assert [pool.owner(index) for index in range(len(names))] == names
    assert pool.human.tolist() == [IGNORE, 4, IGNORE, IGNORE, IGNORE, IGNORE]
    assert pool.answered.tolist() == [-1, 1, -1, -1, -1, 2]
    assert pool.first_answered.tolist() == [-1, 1, -1, -1, -1, 2]
    assert pool.disputed.tolist() == [False, False, False, True, False, False]
    assert pool.answers == {(3, "3-1"): 4, (8, "8-2"): IGNORE, (8, "gone"): 1}


def test_owners_beside_an_image_without_masks() -> None:
    none, two = (), ("a", "b")
    catalogs = tuple(type("Names", (), {"region_ids": names})() for names in (none, two, none, two))
    states = tuple(TaskState(task_id, "") for task_id in (1, 2, 3, 4))
    empty = np.empty(0)
    pool = Pool(states, catalogs, empty, empty, empty, empty, empty, {})  # type: ignore[arg-type]
    assert [pool.owner(index) for index in range(4)] == [(2, "a"), (2, "b"), (4, "a"), (4, "b")]


def test_the_corrector_sees_what_the_last_segmenter_saw(context: Context) -> None:
    """Of the redrawn image 8 one mask is new and one lost its pixels; of image 5 θ said nothing."""
    seen = {3: np.array([[0.5, 0.5], [0.1, 0.9]]), 8: np.array([[1.0, 0.0], [0.2, 0.8], [0.6, 0.4]])}
    for task_id, soft in seen.items():
        scores = Scores(f"masks-{task_id}", soft, soft, soft.argmax(1))
        context.workspace.write_scores(0, task_id, scores)
    counts = np.array(list(COUNTS.values()), np.int64)
    many, zeros = np.zeros(counts.sum(), np.int64), np.zeros(counts.sum())
    keys = tuple(f"masks-{task_id}" for task_id in COUNTS)
    previous = Labels(np.array(list(COUNTS)), keys, counts, many, many, zeros, many, many, zeros, many, zeros)
    write_masks(context, 8, "masks-8-redrawn", ["8-2", "new", "8-0", "8-1"], empty=1)
    context.ledger.change_status(1, 0, ["running"], "done")
    later = replace(context, round=replace(context.round, number=1))
    pool = load_pool(later)
    rows, features, soft = _corrector_view(later, pool, previous, CLASSES, lambda done, total: None)
    assert [pool.owner(int(row))[1] for row in rows] == ["3-0", "3-1", "8-2", "8-0"]
    assert features[:, 0].tolist() == [3, 3, 8, 8]
    assert soft.shape == (4, CLASSES)
    np.testing.assert_array_equal(soft[:, :2], [[0.5, 0.5], [0.1, 0.9], [0.6, 0.4], [1.0, 0.0]])
    assert not soft[:, 2:].any(), "classes that came later have the probability 0"
    write_masks(context, 3, "masks-3", ["3-0", "3-1"], seen_by="sam-vit-b")
    write_masks(context, 8, "masks-8-redrawn", ["8-2", "new", "8-0", "8-1"], empty=1, seen_by="dinov2-small")
    chosen = replace(later, appearance=Appearance("dinov2-small", lambda _key, _image: np.empty((2, 1, 1), np.float16)))
    _, features, _ = _corrector_view(chosen, load_pool(chosen), previous, CLASSES, lambda done, total: None)
    model = features[:, len(FEATURE_NAMES) :]
    assert (model[:2] == 0).all(), "another model's numbers mean something else"
    assert (model[2:] == 8).all()


def test_the_corrector_sees_nothing_before_people_answer(context: Context) -> None:
    context.ledger.forget_annotations(1, [1, 2, 3])
    rows, features, soft = _corrector_view(context, load_pool(context), None, CLASSES, lambda done, total: None)
    assert (rows.shape, features.shape, soft.shape) == ((0,), (0, len(FEATURE_NAMES)), (0, CLASSES))
