"""What is taken over from a platform whose listings have holes, whose images move, and whose pictures are replaced."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from a2lc_backend.bench.oracle import OraclePlatform
from a2lc_backend.bench.world import World
from a2lc_backend.rounds.collect import take_over
from a2lc_backend.rounds.platform import AnnotationStamp, Task, TaskError
from a2lc_backend.store import Round, TaskState
from tests.world_run import BUDGET, Run

pytestmark = pytest.mark.usefixtures("short_training")


class Moving(OraclePlatform):
    """An oracle whose listings may lack something, and whose images may move or be replaced."""

    unlisted: frozenset[int] = frozenset()
    unlisted_answers: frozenset[int] = frozenset()
    deleted: frozenset[int] = frozenset()
    moved: frozenset[int] = frozenset()
    unreadable: frozenset[int] = frozenset()
    replaced: frozenset[int] = frozenset()

    def tasks(self) -> list[Task]:
        listed = [task for task in super().tasks() if task.id not in self.unlisted | self.deleted]
        return [Task(task.id, f"new/{task.image}") if task.id in self.moved else task for task in listed]

    def has_task(self, task_id: int) -> bool:
        return task_id not in self.deleted

    def image(self, task: Task) -> NDArray[np.uint8]:
        if task.id in self.unreadable:
            raise TaskError(f"task {task.id}: the bucket does not answer")
        image = super().image(task)
        return np.ascontiguousarray(image[::-1]) if task.id in self.replaced else image

    def annotation_stamps(self) -> list[AnnotationStamp]:
        return [stamp for stamp in super().annotation_stamps() if stamp.id not in self.unlisted_answers]

    def is_submitted(self, annotation_id: int) -> bool:
        return annotation_id in self.answers


@pytest.fixture
def run(world: World, tmp_path: Path) -> Run:
    """Round 0 is done, its queue is answered, and the answers are taken over."""
    run = Run(world, tmp_path)
    run.platform = Moving(world)
    run.round()
    look(run)
    assert run.ledger.count_corrections(1) == BUDGET
    return run


def look(run: Run) -> list[str]:
    """Take over, as between rounds; what was noted."""
    take_over(run.context(Round(1, 1, "running")), lambda _done, _total: None)
    return [problem.message for problem in run.ledger.problems(1, 1)]


def said(run: Run, task_id: int) -> set[tuple[str, int]]:
    return {(item.region_id, item.label) for item in run.ledger.corrections(1, [task_id])}


def asked(run: Run) -> int:
    """A task with answers."""
    return run.ledger.corrections(1)[0].task_id


def test_what_only_a_listing_lacks_is_not_forgotten(run: Run) -> None:
    task_id = asked(run)
    before = said(run, task_id)
    run.platform.unlisted, run.platform.unlisted_answers = frozenset([task_id]), frozenset(run.platform.answers)
    assert look(run) == []
    assert said(run, task_id) == before
    assert run.ledger.count_corrections(1) == BUDGET
    run.platform.deleted = frozenset([task_id])
    assert "was deleted in Label Studio" in look(run)[0]
    assert run.ledger.task(1, task_id) is None
    assert said(run, task_id) == set()


def test_an_answer_that_is_taken_back_no_longer_counts(run: Run) -> None:
    (number, answer) = next(iter(run.platform.answers.items()))
    del run.platform.answers[number]
    look(run)
    assert said(run, answer.task_id) == set()
    assert number not in run.ledger.seen_annotations(1)


def test_a_picture_that_moved_keeps_what_people_said(run: Run) -> None:
    task_id = asked(run)
    before, state = said(run, task_id), run.ledger.task(1, task_id)
    run.platform.moved = frozenset([task_id])
    run.platform.unreadable = frozenset([task_id])
    assert "until then the picture at the former address stays" in look(run)[0]
    assert run.ledger.task(1, task_id) == state
    run.platform.unreadable = frozenset()
    look(run)
    now = run.ledger.task(1, task_id)
    assert now is not None
    assert (now.image.startswith("new/"), now.ready) == (True, True)
    assert said(run, task_id) == before
    record = run.round()
    assert record.summary["answered"] == BUDGET
    labels = run.workspace.labels(1)
    place = labels.find(task_id)
    assert place is not None
    masks = run.workspace.masks(labels.mask_keys[place])
    held = dict(zip(masks.region_ids, labels.labels[labels.span(place)].tolist(), strict=True))
    assert {(name, held[name]) for name, _ in before} == before


def test_another_picture_keeps_nothing(run: Run) -> None:
    task_id = asked(run)
    run.platform.moved = run.platform.replaced = frozenset([task_id])
    assert "shows another picture now" in look(run)[0]
    assert said(run, task_id) == set()
    run.round()
    assert said(run, task_id) == set(), "what was said of the old picture is not read again"
    state = run.ledger.task(1, task_id)
    assert state is not None
    assert state.ready


def test_answers_of_an_image_whose_masks_were_lost_wait(run: Run) -> None:
    state = run.ledger.task(1, asked(run))
    assert state is not None
    before = said(run, state.task_id)
    run.ledger.save_tasks(1, [TaskState(state.task_id, state.image, mask_key=state.mask_key, pixels=state.pixels)])
    (stamp,) = [item for item in run.platform.annotation_stamps() if item.task_id == state.task_id]
    seen = run.ledger.seen_annotations(1)[stamp.id]
    answer = run.platform.answers[stamp.id]
    run.platform.answers[stamp.id] = replace(answer, made_at=answer.made_at + timedelta(days=1))
    look(run)
    assert said(run, state.task_id) == before
    assert run.ledger.seen_annotations(1)[stamp.id] == seen, "it is read as soon as there are masks"


def test_news_waits_for_the_round_that_begins_with_it(run: Run) -> None:
    project = run.ledger.project(1)
    assert project is not None
    assert project.news
    run.round()
    project = run.ledger.project(1)
    assert project is not None
    assert not project.news
    look(run)
    project = run.ledger.project(1)
    assert project is not None
    assert project.news, "round 1 was answered"


def test_an_image_that_failed_and_was_labelled_by_hand_is_read_later(world: World, tmp_path: Path) -> None:
    run = Run(world, tmp_path)
    run.platform = Moving(world)
    run.platform.unreadable = frozenset([1])
    run.round()
    state = run.ledger.task(1, 1)
    assert state is not None
    assert "does not answer" in state.error
    answer = next(iter(run.platform.answers.values()))
    number = len(run.platform.answers) + 1
    run.platform.answers[number] = replace(answer, id=number, task_id=1)
    look(run)
    assert number not in run.ledger.seen_annotations(1)
    run.platform.unreadable = frozenset()
    run.round()
    look(run)
    assert number in run.ledger.seen_annotations(1)
