"""Rounds with the oracle in Label Studio's place: real masks, a real segmenter, a real store."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from a2lc_backend.bench.oracle import OraclePlatform, true_labels
from a2lc_backend.bench.world import World
from a2lc_backend.masks import IGNORE, Region
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.heartbeat import RoundBusyError, RoundStoppedError
from a2lc_backend.rounds.phases import PHASES
from a2lc_backend.rounds.platform import (
    Annotation,
    AnnotationStamp,
    PlatformError,
    Prediction,
    ProjectInfo,
    Task,
    TaskError,
    TaskProblem,
)
from a2lc_backend.rounds.propose import propose_task
from a2lc_backend.rounds.publish import RoundView
from a2lc_backend.rounds.report import round_report
from a2lc_backend.rounds.runner import RoundFailedError, run_round
from a2lc_backend.rounds.workspace import SOURCES
from a2lc_backend.settings import ProjectSettings
from a2lc_backend.store import Phase, Project, TaskState
from tests.world_run import BUDGET, Run, Work, phases_with

pytestmark = pytest.mark.usefixtures("short_training")


@pytest.fixture
def run(world: World, tmp_path: Path) -> Run:
    return Run(world, tmp_path)


def test_labels_get_better_and_people_are_believed(run: Run) -> None:
    rounds = [run.round() for _ in range(4)]
    assert run.miou(3) > run.miou(0) + 0.05
    labels = run.workspace.labels(3)
    answered: set[tuple[int, str]] = set()
    for number in range(3):
        queue = {(query.task_id, query.region_id) for query in run.ledger.queries(1, number)}
        assert len(queue) == BUDGET
        assert not queue & answered, "no mask is asked about twice"
        answered |= queue
    for place, task_id in enumerate(labels.task_ids):
        masks = run.workspace.masks(labels.mask_keys[place])
        truth = true_labels(masks, run.world.truth(run.platform.name(int(task_id))), len(run.world.classes))
        span = labels.span(place)
        for index, region_id in enumerate(masks.region_ids):
            if (int(task_id), region_id) in answered and truth[index] != IGNORE:
                assert labels.labels[span][index] == truth[index]
                assert SOURCES[labels.sources[span][index]] == "human"
    assert [record.summary["answered"] for record in rounds] == [0, BUDGET, BUDGET, BUDGET]
    assert len({record.version for record in rounds}) == 4
    assert all(record.version.startswith(f"a2lc-r{number}-") for number, record in enumerate(rounds))


@pytest.mark.parametrize("corrector", ["paper", "none"])
def test_other_correctors_run_behind_the_same_rounds(world: World, tmp_path: Path, corrector: str) -> None:
    run = Run(world, tmp_path, ProjectSettings(budget=BUDGET, corrector=corrector))  # type: ignore[arg-type]
    for _ in range(2):
        run.round()
    # With 30 answers a round the paper's corrector may well lose; `none` cannot.
    if corrector == "none":
        assert run.miou(1) > run.miou(0)
        assert run.ledger.auto_corrections(1, 1) == []
    assert run.ledger.last_done(1) == run.ledger.rounds(1)[1]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("name", [kind.name for kind in PHASES])
@pytest.mark.parametrize("moment", ["begins", "inside", "ends"])
def test_a_round_that_is_killed_ends_as_an_undisturbed_one(
    world: World, tmp_path: Path, name: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = calm_run(world, tmp_path.parent)
    number = 0 if name == "propose" else 1  # in round 1 there is nothing to propose
    if number == 1:
        shutil.copytree(tmp_path.parent / "calm-0", tmp_path, dirs_exist_ok=True)
    run = Run(world, tmp_path)
    if number == 1:
        run.platform.answers.update(_ANSWERS)
        run.platform.versions.append(calm.platform.versions[0])
    context = run.begin()

    def struck(work: Work) -> Work:
        def run_and_die(context: Context, items: Items, progress: Progress) -> None:
            def strike(done: int, total: int) -> None:
                if moment == "inside" and done >= 1:
                    raise Killed
                progress(done, total)

            if moment == "begins":
                raise Killed
            work(context, items, strike)
            raise Killed

        return run_and_die

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("a2lc_backend.rounds.runner.PHASES", phases_with(name, struck))
        run_round(context, "the process that dies")
    run.ledger.release_lock(1, "the process that dies")
    assert [record.number for record in run.ledger.unfinished()] == [number]
    record = run_round(run.begin(), "the next process")
    assert record.version == calm.ledger.rounds(1)[number].version
    assert run.ledger.queries(1, number) == calm.ledger.queries(1, number)
    assert np.array_equal(run.workspace.labels(number).labels, calm.workspace.labels(number).labels)
    assert run.platform.versions == calm.platform.versions[: number + 1]


_CALM: list[Run] = []
_ANSWERS: dict[int, Annotation] = {}


def calm_run(world: World, folder: Path) -> Run:
    """Two undisturbed rounds, made once; round 0 is kept as the others' start."""
    if not _CALM:
        run = Run(world, folder / "calm")
        run.round()
        _ANSWERS.update(run.platform.answers)
        run.ledger.close()
        shutil.copytree(run.folder, folder / "calm-0")
        run.round()
        _CALM.append(run)
    return _CALM[0]


def test_two_processes_do_not_run_one_round(run: Run) -> None:
    assert run.ledger.take_lock(1, "another process", 60)
    with pytest.raises(RoundBusyError):
        run.round()


class TroubledPlatform(OraclePlatform):
    """Some tasks are out of order."""

    broken: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()

    def tasks(self) -> list[Task]:
        return [task for task in super().tasks() if task.id not in self.gone]

    def image(self, task: Task) -> NDArray[np.uint8]:
        if task.id in self.broken:
            raise TaskError("image /a.jpg: it is truncated; upload it again")
        return super().image(task)


def test_a_bad_image_costs_only_itself_and_is_tried_again(run: Run) -> None:
    run.platform = TroubledPlatform(run.world)
    run.platform.broken = frozenset({2})
    record = run.round()
    assert record.summary["tasks_left_out"] == 1
    assert run.problems(0) == ["task 2: image /a.jpg: it is truncated; upload it again"]
    assert 2 not in run.workspace.labels(0).task_ids
    run.platform.broken = frozenset()
    run.round()
    assert 2 in run.workspace.labels(1).task_ids
    assert run.problems(1) == []


def test_no_usable_image_fails_the_round_with_the_mend(run: Run) -> None:
    run.platform = TroubledPlatform(run.world)
    run.platform.broken = frozenset(range(1, 9))
    with pytest.raises(RoundFailedError, match="propose: no image of project 1 could be used"):
        run.round()
    report = round_report(run.ledger, 1, 0)
    assert report.round.status == "failed"
    assert len(report.problems) == 8


def test_a_deleted_task_leaves_with_what_was_said_of_it(run: Run) -> None:
    run.platform = TroubledPlatform(run.world)
    run.round()
    run.platform.gone = frozenset({3})
    record = run.round()
    assert 3 not in run.workspace.labels(1).task_ids
    assert "task 3 was deleted" in run.problems(1)[0]
    assert record.status == "done"


def test_classes_may_be_added_but_not_moved(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.round()
    names = run.world.classes
    monkeypatch.setattr(run.platform, "project", lambda: ProjectInfo("street", (*names, "Tram")))
    assert run.round().status == "done"
    monkeypatch.setattr(run.platform, "project", lambda: ProjectInfo("street", names[::-1]))
    with pytest.raises(RoundFailedError, match="put them back in that order"):
        run.round()


def said(number: int, task_id: int, annotator: int, region: Region) -> Annotation:
    return Annotation(number, task_id, annotator, datetime(2026, 5, number % 28 + 1, tzinfo=timezone.utc), (region,))


class Crowd(OraclePlatform):
    """People whose annotations the test writes."""

    def prepare(self, tasks, queued, repeats=True):  # type: ignore[no-untyped-def]
        self.shown = {}
        return super().prepare(tasks, queued, repeats)

    def write(self, version, targets, predict, progress):  # type: ignore[no-untyped-def]
        self.shown |= {target.source_id: predict(target.source_id) for target in targets}
        return []

    def say(self, annotation: Annotation) -> None:
        self.answers[annotation.id] = annotation

    def unsay(self, number: int) -> None:
        del self.answers[number]

    @property
    def first(self) -> Region:
        return self.shown[1].regions[0]


def test_people_who_disagree_are_asked_again_first(run: Run) -> None:
    run.platform = crowd = Crowd(run.world)
    run.round()
    names = run.world.classes
    crowd.say(said(1, 1, 5, replace(crowd.first, label=names[0])))
    crowd.say(said(2, 1, 6, replace(crowd.first, label=names[1])))
    asked = crowd.first.id
    run.round()
    first = run.ledger.queries(1, 1)[0]
    assert (first.task_id, first.region_id) == (1, asked)
    crowd.say(said(3, 1, 6, replace(next(r for r in crowd.shown[1].regions if r.id == asked), label=names[0])))
    run.round()
    assert asked not in {query.region_id for query in run.ledger.queries(1, 2) if query.task_id == 1}
    shown = next(region for region in crowd.shown[1].regions if region.id == asked)
    assert (shown.label, shown.source) == (names[0], "human")


def test_an_answer_to_what_a_cancelled_round_had_shown_is_read(run: Run) -> None:
    run.platform = crowd = Crowd(run.world)
    run.round()
    region = crowd.first
    other = next(name for name in run.world.classes if name != region.label)
    cancelled = run.begin()
    run.ledger.change_status(1, 1, ["running"], "cancelling")
    assert run_round(cancelled, "test").status == "cancelled"
    crowd.say(replace(said(1, 1, 5, replace(region, label=other)), shown_round=1))
    assert run.round().summary["answered"] == 1
    assert next(item for item in crowd.shown[1].regions if item.id == region.id).label == other


def test_a_budget_that_is_changed_while_a_round_waits_holds(run: Run) -> None:
    context = run.begin()
    run.ledger.change_status(1, 0, ["running"], "failed", "Label Studio was away")
    assert run.ledger.begin_round(1, 7).budget == 7
    run_round(context, "test")
    assert len(run.ledger.queries(1, 0)) == 7


class Refusing(OraclePlatform):
    """Refuses the prediction of a task once, and ends the round."""

    refused = 3
    written: frozenset[int] = frozenset()

    def write(self, version, targets, predict, progress):  # type: ignore[no-untyped-def]
        self.written |= {target.task_id for target in targets}
        if not any(target.task_id == self.refused for target in targets):
            return []
        return [TaskProblem(self.refused, "refused")]

    def show(self, version, targets):  # type: ignore[no-untyped-def]
        self.shown_tasks = {target.task_id for target in targets}
        if self.refused:
            self.refused = 0
            raise PlatformError("Label Studio is away")
        return super().show(version, targets)


def test_a_task_that_was_refused_is_tried_again_with_the_round(run: Run) -> None:
    run.platform = refusing = Refusing(run.world)
    with pytest.raises(RoundFailedError, match="publish: Label Studio is away"):
        run.round()
    assert 3 not in refusing.shown_tasks
    assert run.problems(0) == ["refused"]
    assert run.round().number == 0
    assert 3 in refusing.shown_tasks
    assert run.problems(0) == []


def test_a_deleted_annotation_takes_its_corrections_back(run: Run) -> None:
    run.platform = crowd = Crowd(run.world)
    run.round()
    region = crowd.first
    other = next(name for name in run.world.classes if name != region.label)
    crowd.say(said(1, 1, 5, replace(region, label=other)))
    run.round()
    assert next(item for item in crowd.shown[1].regions if item.id == region.id).label == other
    crowd.unsay(1)
    run.round()
    assert next(item for item in crowd.shown[1].regions if item.id == region.id).label == region.label


def test_a_drawn_mask_takes_its_pixels_and_stays(run: Run) -> None:
    run.platform = crowd = Crowd(run.world)
    run.round()
    drawn = np.zeros(run.workspace.masks(run.workspace.labels(0).mask_keys[0]).size, bool)
    drawn[10:40, 20:60] = True
    crowd.say(said(1, 1, 5, Region("drawn", run.world.classes[2], drawn)))
    for _ in range(2):
        run.round()
        shown = next(region for region in crowd.shown[1].regions if region.id == "drawn")
        assert np.array_equal(shown.mask, drawn)
        assert (shown.label, shown.source) == (run.world.classes[2], "human")
        assert not any((region.mask & drawn).any() for region in crowd.shown[1].regions if region.id != "drawn")


def test_the_first_shard_that_fails_ends_its_phase(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(work: Work) -> Work:
        def run_and_fail(context: Context, items: Items, progress: Progress) -> None:
            tried.append(items)
            raise ValueError("Label Studio is away")

        return run_and_fail

    with monkeypatch.context() as patch, pytest.raises(RoundFailedError, match="publish: Label Studio is away"):
        patch.setattr("a2lc_backend.rounds.runner.PHASES", phases_with("publish", fail))
        run.round()
    assert len(run.ledger.shards(1, 0, "publish")) > 1
    assert len(tried) == 1


def test_who_relabels_a_mask_they_drew_keeps_its_pixels(run: Run) -> None:
    run.platform = crowd = Crowd(run.world)
    run.round()
    drawn = np.zeros((120, 160), bool)
    drawn[10:40, 20:60] = True
    names = run.world.classes
    crowd.say(said(1, 1, 5, Region("drawn", names[2], drawn)))
    run.round()
    crowd.say(said(2, 1, 5, Region("drawn", names[3], drawn, round=1)))
    run.round()
    shown = next(region for region in crowd.shown[1].regions if region.id == "drawn")
    assert (shown.label, shown.source) == (names[3], "human")
    assert np.array_equal(shown.mask, drawn)


def test_the_majority_settles_a_dispute_and_a_disputed_deletion_deletes_nothing(run: Run) -> None:
    run.platform = crowd = Crowd(run.world)
    run.round()
    names, region = run.world.classes, crowd.first
    crowd.say(said(1, 1, 5, replace(region, label=names[0])))
    others = tuple(item for item in crowd.shown[1].regions if item.id != region.id)
    crowd.say(replace(said(2, 1, 6, region), regions=others, whole=True))
    run.round()
    assert region.id in {query.region_id for query in run.ledger.queries(1, 1)}
    assert any(item.id == region.id for item in crowd.shown[1].regions)
    crowd.say(said(3, 1, 7, replace(region, label=names[0])))
    run.round()
    shown = next(item for item in crowd.shown[1].regions if item.id == region.id)
    assert (shown.label, shown.source) == (names[0], "human")


def test_a_task_proposed_during_a_round_waits_for_the_next(run: Run) -> None:
    """`/predict` may propose masks of a new task at any moment."""
    run.platform = platform = TroubledPlatform(run.world)
    platform.gone = frozenset({8})
    context = run.begin()

    def meanwhile(phase: Phase) -> None:
        if phase.name == "train" and phase.status == "running" and run.ledger.task(1, 8) is None:
            state = TaskState(8, f"{run.world.names[7]}.png")
            segmenter = context.make_segmenter(len(run.world.classes))
            run.ledger.save_tasks(1, [propose_task(context, state, (), run.world.classes, segmenter)])

    run_round(context, "test", meanwhile)
    assert 8 not in run.workspace.labels(0).task_ids
    platform.gone = frozenset()
    run.round()
    assert 8 in run.workspace.labels(1).task_ids


def test_an_answer_to_what_predict_showed_is_not_lost(run: Run) -> None:
    """A task opened before any round is shown its proposals; what people change there counts."""
    run.platform = crowd = Crowd(run.world)
    context = run.begin()
    run.ledger.save_project(Project(1, "street", run.world.classes))
    segmenter = context.make_segmenter(len(run.world.classes))
    state = TaskState(1, f"{run.world.names[0]}.png")
    state = propose_task(context, state, (), run.world.classes, segmenter)
    run.ledger.save_tasks(1, [state])
    masks = run.workspace.masks(state.mask_key)
    other = run.world.classes[(int(masks.first_labels[0]) + 1) % len(run.world.classes)]
    crowd.say(said(1, 1, 5, Region(masks.region_ids[0], other, masks.mask(0))))
    run_round(context, "test")
    shown = next(region for region in crowd.shown[1].regions if region.id == masks.region_ids[0])
    assert (shown.label, shown.source) == (other, "human")


def test_images_imported_after_a_round_failed_are_seen_when_it_is_taken_up(run: Run) -> None:
    run.platform = platform = TroubledPlatform(run.world)
    platform.gone = frozenset(range(1, 9))
    with pytest.raises(RoundFailedError, match="no image"):
        run.round()
    platform.gone = frozenset()
    assert run.round().status == "done"


def test_an_edited_image_stays_in_the_correctors_view(run: Run) -> None:
    run.platform = crowd = Crowd(run.world)
    run.round()
    drawn = np.zeros((120, 160), bool)
    drawn[10:20, 20:30] = True
    crowd.say(said(1, 1, 5, Region("drawn", run.world.classes[2], drawn)))
    for index, (task_id, shown) in enumerate(sorted(crowd.shown.items())):
        for place, region in enumerate(shown.regions[:4]):
            crowd.say(said(100 + 10 * index + place, task_id, 5, replace(region, rank=1)))
    run.round()
    labels = run.workspace.labels(1)
    span = labels.span(labels.find(1) or 0)
    assert np.isfinite(labels.doubt[span]).sum() > 0.8 * int(labels.counts[0])


def test_a_stopped_round_is_taken_up_by_the_next_process(run: Run) -> None:
    stop = threading.Event()

    def watch(phase: Phase) -> None:
        if phase.name == "score":
            stop.set()

    with pytest.raises(RoundStoppedError):
        run_round(run.begin(), "the process that ends", watch, stop)
    assert [record.status for record in run.ledger.rounds(1)] == ["running"]
    assert run_round(run.begin(), "the next process").status == "done"


def test_queued_regions_come_first_and_say_why(run: Run) -> None:
    run.round()
    view = RoundView(run.ledger, run.workspace, 1, 0)
    best = max(view.queued, key=lambda task_id: view.prediction(task_id).score)
    assert view.prediction(best).score == 1.0
    for task_id in (int(task) for task in view.labels.task_ids):
        prediction: Prediction = view.prediction(task_id)
        ranks = [region.rank for region in prediction.regions]
        count = sum(rank is not None for rank in ranks)
        assert all(rank is not None for rank in ranks[:count])
        assert ranks[:count] == sorted(rank for rank in ranks if rank is not None)
        assert (prediction.score > 0) == (task_id in view.queued)
        assert all(("labelled" in region.note) == (region.rank is not None) for region in prediction.regions)
        assert all(0 <= (region.score or 0) <= 1 for region in prediction.regions)
    with pytest.raises(KeyError, match="task 99"):
        view.prediction(99)


def test_superpixels_start_without_any_label(world: World, tmp_path: Path) -> None:
    run = Run(world, tmp_path)
    run_round(run.begin("superpixels"), "test")
    assert set(run.workspace.labels(0).labels) == {IGNORE}
    assert len(run.ledger.queries(1, 0)) == BUDGET
    for _ in range(2):
        run_round(run.begin("superpixels"), "test")
    assert (run.workspace.labels(2).labels != IGNORE).mean() > 0.5
    assert run.miou(2) > 0.2


def test_an_old_annotation_counts_as_a_first_label(run: Run) -> None:
    """What was submitted before round 0 is the team's own noisy data, not a correction."""
    run.platform = crowd = Crowd(run.world)
    mask = np.zeros((120, 160), bool)
    mask[:20] = True
    crowd.say(said(1, 1, 5, Region("old", run.world.classes[0], mask)))
    run.round()
    run.round()
    assert run.ledger.corrections(1) == []


def test_an_unknown_project_is_an_error(run: Run) -> None:
    context = run.begin()
    with pytest.raises(PlatformError, match="start its first round"):
        context.project()
    assert run.platform.annotation(AnnotationStamp(1, 1, ""), (1, 1)) is None


def test_what_can_be_made_again_is_when_it_is_corrupt(run: Run) -> None:
    run.round()
    inputs = list((run.folder / "artifacts").glob("project-1/tasks/*/input-*"))
    assert inputs
    for path in inputs:
        path.write_bytes(b"x" * 100)
    assert run.round().status == "done"
    assert not any(path.read_bytes() == b"x" * 100 for path in inputs)
    catalog = next((run.folder / "artifacts").glob("project-1/tasks/*/masks-proposed.catalog"))
    catalog.write_bytes(b"x" * 100)
    with pytest.raises(
        RoundFailedError, match=r"artifact .*masks-proposed.catalog .* is corrupt; start the round again"
    ):
        run.round()
    assert run.round().status == "done"


@pytest.mark.parametrize(
    "lost", ["tasks/*/masks-proposed", "rounds/0/labels", "rounds/0/segmenter", "rounds/0/scores/*"]
)
def test_a_round_whose_artifacts_are_lost_half_way_ends_as_an_undisturbed_one(
    world: World, tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = calm_run(world, tmp_path.parent)
    run = Run(world, tmp_path)

    def fail(work: Work) -> Work:
        def run_and_fail(context: Context, items: Items, progress: Progress) -> None:
            next((run.folder / "artifacts").glob(f"project-1/{lost}")).write_bytes(b"x" * 100)
            raise ValueError("the disk is full")

        return run_and_fail

    with monkeypatch.context() as patch, pytest.raises(RoundFailedError, match="the disk is full"):
        patch.setattr("a2lc_backend.rounds.runner.PHASES", phases_with("rank", fail))
        run.round()
    assert run.round().version == calm.ledger.rounds(1)[0].version
    assert run.ledger.queries(1, 0) == calm.ledger.queries(1, 0)
    for path in (run.folder / "artifacts").glob(f"project-1/{lost}"):
        assert path.read_bytes() != b"x" * 100
