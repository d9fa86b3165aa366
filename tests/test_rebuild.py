"""A new store out of what the platform holds: on the oracle, and with a real Label Studio."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import requests
from click.testing import Result
from typer.testing import CliRunner

from a2lc_backend.bench.oracle import OraclePlatform
from a2lc_backend.bench.world import World
from a2lc_backend.cli import app
from a2lc_backend.demo.annotator import SimulatedAnnotator
from a2lc_backend.demo.servers import free_port
from a2lc_backend.label_studio import FOLLOWS, LabelStudioProject, rest_of
from a2lc_backend.masks import IGNORE, SAME, Region
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.platform import (
    Annotation,
    AnnotationStamp,
    PlatformError,
    Prediction,
    Published,
    Reply,
    Target,
    Task,
    TaskError,
    TaskProblem,
)
from a2lc_backend.rounds.publish import RoundView
from a2lc_backend.rounds.rebuild import RebuildRefusedError, Rebuilt, make_room, rebuild
from a2lc_backend.rounds.workspace import SOURCES, Workspace
from a2lc_backend.service import Service
from a2lc_backend.settings import ProjectSettings, load_settings
from a2lc_backend.store import Ledger, MaskKey, Round
from tests.conftest import REPOSITORY, Studio
from tests.world_run import BUDGET, Run

START = datetime(2025, 1, 1, tzinfo=timezone.utc)
SETTINGS = ProjectSettings(budget=BUDGET, regions_shown=9)
"""Of a drawn scene of twenty masks or so the page of a queued image shows a part."""


class KeepingOracle(OraclePlatform):
    """An oracle that keeps what was published, as Label Studio does, and may answer later.

    Attributes:
        held: predictions by task, round after round.
        edits: changes of an answer before it is given, by round and task.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.held: dict[int, list[Published]] = {}
        self.edits: dict[tuple[int, int], Callable[[tuple[Region, ...]], tuple[Region, ...]]] = {}
        self.lost_images: set[int] = set()

    def write(
        self,
        version: str,
        targets: Sequence[Target],
        predict: Callable[[int], Prediction],
        progress: Callable[[int, int], None],
    ) -> list[TaskProblem]:
        number = len(self.versions)
        for target in targets:
            shown = predict(target.source_id)
            made_at = START + timedelta(days=number)
            published = Published(number, made_at, shown.regions, shown.score, rest=shown.rest)
            self.held.setdefault(target.source_id, []).append(published)
        before = set(self.answers)
        super().write(version, targets, predict, progress)
        for annotation_id in set(self.answers) - before:
            answer = replace(self.answers[annotation_id], shown_round=number, whole=True)
            given = {region.id: region for region in answer.regions}
            shown_regions = self.held[answer.task_id][-1].regions
            regions = tuple(given.get(region.id, region) for region in shown_regions)
            edit = self.edits.get((number, answer.task_id), lambda regions: regions)
            self.answers[annotation_id] = replace(answer, regions=edit(regions))
        return []

    def image(self, task: Task) -> np.ndarray:
        if task.id in self.lost_images:
            raise TaskError("image is gone; put it back")
        return super().image(task)

    def shown(self) -> tuple[str, int]:
        if not self.versions:
            raise PlatformError("start round 0")
        return self.versions[-1], len(self.versions) - 1

    def published(self, task: Task) -> Iterator[Published]:
        yield from reversed(self.held.get(task.id, []))


class KeptRun(Run):
    """Rounds on an oracle that keeps what was published."""

    platform: KeepingOracle

    def __post_init__(self) -> None:
        super().__post_init__()
        self.platform = KeepingOracle(self.world)

    def lose_the_store(self, folder: Path) -> KeptRun:
        """The same platform, with an empty store."""
        folder.mkdir()
        other = KeptRun(self.world, folder, self.settings)
        other.platform = self.platform
        return other

    def shown(self) -> Context:
        version, number = self.platform.shown()
        return self.context(Round(1, number, "running", version))

    def rebuild(self, replace_store: bool = False) -> Rebuilt:
        context = self.shown()
        make_room(context, replace_store)
        return rebuild(context, self.platform, lambda done, total: None)


def everything(ledger: Ledger, workspace: Workspace, number: int) -> dict[tuple[int, str], tuple[object, ...]]:
    """Label, source, first label and pixels of every mask that has pixels."""
    labels = workspace.labels(number)
    found: dict[tuple[int, str], tuple[object, ...]] = {}
    for place, task_id in enumerate(labels.task_ids.tolist()):
        masks = workspace.masks(labels.mask_keys[place])
        span = labels.span(place)
        held = zip(masks.region_ids, labels.labels[span], labels.sources[span], masks.first_labels, strict=True)
        for index, (region_id, label, source, first) in enumerate(held):
            pixels = masks.mask(index)
            if pixels.any():
                found[task_id, region_id] = (int(label), SOURCES[source], int(first), pixels.tobytes())
    return found


def decisions(ledger: Ledger) -> list[object]:
    """What people said, but for where their pixels are kept."""
    return [replace(item, shape_key="") for item in ledger.corrections(1)]


def human_labels(run: Run, number: int) -> dict[tuple[int, str], int]:
    found = everything(run.ledger, run.workspace, number)
    return {key: int(row[0]) for key, row in found.items() if row[1] == "human"}  # type: ignore[call-overload]


@pytest.fixture(scope="module", autouse=True)
def short_training() -> Iterator[None]:
    """The real U-Net, hardly trained: nothing here hangs on what it learns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("a2lc_backend.segmenter.unet.MIN_STEPS", 10)
        patch.setattr("a2lc_backend.segmenter.unet.MAX_STEPS", 10)
        yield


@pytest.fixture(scope="module")
def three_rounds(world: World, tmp_path_factory: pytest.TempPathFactory, short_training: None) -> KeptRun:
    run = KeptRun(world, tmp_path_factory.mktemp("three"), SETTINGS)
    for _ in range(3):
        run.round()
    return run


@pytest.fixture
def old(three_rounds: KeptRun, tmp_path: Path) -> KeptRun:
    """Rounds 0 to 2 in a store, each queue answered; the answers to the last one are not collected."""
    shutil.copytree(three_rounds.folder, tmp_path / "old")
    run = KeptRun(three_rounds.world, tmp_path / "old", three_rounds.settings)
    run.platform.answers.update(three_rounds.platform.answers)
    run.platform.versions += three_rounds.platform.versions
    run.platform.held |= {task_id: list(held) for task_id, held in three_rounds.platform.held.items()}
    return run


def test_the_store_is_as_it_was_and_the_next_round_goes_on(old: KeptRun, tmp_path: Path) -> None:
    new = old.lose_the_store(tmp_path / "new")
    rebuilt = new.rebuild()
    assert everything(new.ledger, new.workspace, 2) == everything(old.ledger, old.workspace, 2)
    assert decisions(new.ledger) == decisions(old.ledger)
    assert rebuilt.human == len(human_labels(old, 2)) >= BUDGET
    assert (rebuilt.images, rebuilt.new_images, rebuilt.queries) == (len(old.world.names), 0, BUDGET)
    for was, made in zip(old.ledger.queries(1, 2), new.ledger.queries(1, 2), strict=True):
        hint = was.guess if was.guess != was.label else IGNORE  # no hint is shown where the guess is the label
        assert replace(was, guess=hint, acquisition=0.0, certainty=0.0) == replace(made, acquisition=0.0, certainty=0.0)
        assert made.certainty == pytest.approx(was.certainty if hint != IGNORE else 0.0, abs=0.0051)
    assert new.ledger.auto_corrections(1, 2)
    changes = [[replace(row, confidence=0.0) for row in run.ledger.auto_corrections(1, 2)] for run in (old, new)]
    assert changes[0] == changes[1]
    assert any(held[-1].rest for held in old.platform.held.values())
    view = RoundView(new.ledger, new.workspace, 1, 2)
    for task_id, held in old.platform.held.items():
        again = view.prediction(task_id)
        assert again.score == pytest.approx(held[-1].score, abs=1e-5)
        for made, was in ((again.regions, held[-1].regions), (again.rest, held[-1].rest)):
            shown = {region.id: region for region in was}
            assert {region.id for region in made} == shown.keys(), "the same are kept off the page"
            for region in made:
                assert np.array_equal(region.mask, shown[region.id].mask)
                for name in ("label", "source", "rank", "note", "proposal", "first"):
                    assert getattr(region, name) == getattr(shown[region.id], name)

    versions = list(old.platform.versions)
    finished = new.round()
    assert (finished.number, finished.status, finished.version) == (2, "done", versions[-1])
    assert new.platform.versions == versions, "ending the round publishes nothing"
    following = new.round()
    assert (following.number, following.summary["answered"]) == (3, BUDGET)
    assert len(new.platform.versions) == 4
    expected = human_labels(old, 2)
    held = human_labels(new, 3)
    assert {key: held[key] for key in expected} == expected
    assert len(held) > len(expected)
    assert [problem.message for problem in new.ledger.problems(1, 3) if problem.phase != "correct"] == []


class AskingOracle(KeepingOracle):
    """The same answers, each mask's for itself, as people give them on the review page."""

    def annotation_stamps(self) -> list[AnnotationStamp]:
        stamps = []
        for answer in self.answers.values():
            for region in answer.regions:
                if region.rank is not None:
                    mask = MaskKey(answer.shown_round or 0, answer.task_id, region.id)
                    reply = Reply(mask, answer.annotator, region.label, False, answer.made_at)
                    number = 1000 * answer.id + region.rank
                    stamps.append(AnnotationStamp(number, answer.task_id, answer.made_at.isoformat(), reply))
        return stamps


def test_answers_to_single_questions_survive_the_store(world: World, tmp_path: Path) -> None:
    old = KeptRun(world, tmp_path / "old")
    old.platform = AskingOracle(world)
    for _ in range(3):
        old.round()
    assert len(decisions(old.ledger)) == 2 * BUDGET
    new = old.lose_the_store(tmp_path / "new")
    new.rebuild()
    assert everything(new.ledger, new.workspace, 2) == everything(old.ledger, old.workspace, 2)
    assert decisions(new.ledger) == decisions(old.ledger)
    new.round()
    assert new.round().summary["answered"] == BUDGET


def test_a_platform_that_keeps_the_last_version_only(old: KeptRun, tmp_path: Path) -> None:
    was = everything(old.ledger, old.workspace, 2)
    for task_id, held in old.platform.held.items():
        old.platform.held[task_id] = held[-1:]
    new = old.lose_the_store(tmp_path / "new")
    new.rebuild()
    assert everything(new.ledger, new.workspace, 2) == was
    said = {(item.task_id, item.region_id): item.label for item in old.ledger.corrections(1)}
    kept = {(item.task_id, item.region_id): item.label for item in new.ledger.corrections(1)}
    assert kept == said
    new.round()
    new.round()
    held = human_labels(new, 3)
    assert {key: held[key] for key in human_labels(old, 2)} == human_labels(old, 2)


def test_drawn_redrawn_and_deleted_masks(world: World, tmp_path: Path) -> None:
    run = KeptRun(world, tmp_path / "old")

    def edit(regions: tuple[Region, ...]) -> tuple[Region, ...]:
        first, second, *others = regions
        drawn = np.zeros_like(first.mask)
        drawn[:20, :20] = True
        redrawn = second.mask.copy()
        redrawn[30:50, 30:50] = True
        name = world.classes[3]
        return (*others, replace(second, mask=redrawn), Region("drawn", name, drawn))

    run.round()
    for task in run.platform.tasks():  # wherever the queue of round 1 looks
        run.platform.edits[1, task.id] = edit
    run.round()
    run.round()
    assert {"shape", "new", "deleted"} <= {item.kind for item in run.ledger.corrections(1)}
    new = run.lose_the_store(tmp_path / "new")
    new.rebuild()
    was = everything(run.ledger, run.workspace, 2)
    assert everything(new.ledger, new.workspace, 2) == was
    assert decisions(new.ledger) == decisions(run.ledger)
    new.round()
    new.round()
    then = everything(new.ledger, new.workspace, 3)
    drawn = {key for key in was if key[1] == "drawn"}
    assert drawn
    assert all(then[key] == was[key] for key in drawn)
    assert {key: row[3] for key, row in then.items()} == {key: row[3] for key, row in was.items()}


def test_a_rebuild_that_is_cut_off_is_begun_again(old: KeptRun, tmp_path: Path) -> None:
    new = old.lose_the_store(tmp_path / "new")
    context = new.shown()
    make_room(context, replace_store=False)

    def strike(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(context, new.platform, strike)
    assert new.ledger.rounds(1) == []
    new.rebuild()
    assert everything(new.ledger, new.workspace, 2) == everything(old.ledger, old.workspace, 2)
    assert decisions(new.ledger) == decisions(old.ledger)


def test_a_store_that_knows_the_project_is_replaced_only_on_demand(old: KeptRun, tmp_path: Path) -> None:
    before = everything(old.ledger, old.workspace, 2), decisions(old.ledger)
    with pytest.raises(RebuildRefusedError, match=r"rounds 0 to 2 of project 1.*--replace"):
        old.rebuild()
    assert [record.number for record in old.ledger.rounds(1)] == [0, 1, 2]
    old.ledger.forget_project(1)
    with pytest.raises(RebuildRefusedError, match="artifacts"):
        old.rebuild()
    old.rebuild(replace_store=True)
    assert (everything(old.ledger, old.workspace, 2), decisions(old.ledger)) == before
    with pytest.raises(RebuildRefusedError, match="holds round 2 of"):
        old.rebuild()
    old.rebuild(replace_store=True)
    assert not old.workspace.has_segmenter(2)


def test_an_answer_that_the_shown_round_had_not_heard_of_is_collected_by_the_next(old: KeptRun, tmp_path: Path) -> None:
    """Someone answers an older version of an image while the next round is being published."""
    late = next(item for item in old.platform.answers.values() if item.shown_round == 1)
    taken = human_labels(old, 2).keys() | {(query.task_id, query.region_id) for query in old.ledger.queries(1, 2)}
    shown = old.platform.held[late.task_id][1].regions
    region = next(item for item in shown if item.rank is None and (late.task_id, item.id) not in taken)
    changed = next(name for name in old.world.classes if name != region.label)
    number = len(old.platform.answers) + 1
    old.platform.answers[number] = Annotation(
        number, late.task_id, 2, late.made_at, (replace(region, label=changed),), shown_round=1
    )
    new = old.lose_the_store(tmp_path / "new")
    new.rebuild()
    assert decisions(new.ledger) == decisions(old.ledger)
    new.round()
    assert new.round().summary["answered"] == BUDGET + 1
    assert human_labels(new, 3)[late.task_id, region.id] == old.world.classes.index(changed)


def test_what_is_not_there_is_said(old: KeptRun, tmp_path: Path) -> None:
    old.platform.lost_images = {2}
    del old.platform.held[3]
    new = old.lose_the_store(tmp_path / "new")
    rebuilt = new.rebuild()
    assert (rebuilt.images, rebuilt.new_images) == (len(old.world.names) - 1, 1)
    assert ["image is gone" in problem for problem in rebuilt.problems] == [True]
    assert not next(state for state in new.ledger.tasks(1) if state.task_id == 3).ready
    old.platform.lost_images = set()
    new.round()
    assert new.round().summary["tasks_left_out"] == 0
    labels = human_labels(new, 3)
    assert {key for key in human_labels(old, 2) if key[0] != 3} <= labels.keys()
    old.platform.held.clear()
    with pytest.raises(PlatformError, match="start round 0"):
        old.lose_the_store(tmp_path / "empty").rebuild()


def test_first_labels_of_versions_that_do_not_tell_them(old: KeptRun, tmp_path: Path) -> None:
    """Predictions from before first labels were written into them."""
    was = everything(old.ledger, old.workspace, 2)
    for held in old.platform.held.values():
        held[:] = [
            replace(item, regions=tuple(replace(region, first=SAME) for region in item.regions)) for item in held
        ]
    new = old.lose_the_store(tmp_path / "new")
    new.rebuild()
    assert everything(new.ledger, new.workspace, 2) == was
    assert IGNORE not in {row[2] for row in was.values()}


def test_nothing_in_a_queue_tells_what_is_audited(old: KeptRun) -> None:
    """A queued region's first label is there wherever it was changed, audited or not."""
    audited = {(item.task_id, item.region_id) for item in old.ledger.audits(1) if item.round == 2}
    assert audited
    for task_id, held in old.platform.held.items():
        for region in held[-1].regions:
            if region.rank is not None:
                assert (region.first != region.label) == (region.source == "corrector"), (task_id, region.id)


KINDS = {"brushlabels": "BrushLabels", "bitmasklabels": "BitmaskLabels", "polygonlabels": "PolygonLabels"}


@pytest.fixture
def installed(world: World, studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of an installation, in the environment."""
    for name, value in {
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": studio.account.token,
        "A2LC_DATA_DIR": str(tmp_path / "data"),
        "A2LC_WORLD": str(world.root.absolute()),
        "A2LC_PROPOSALS": "world",
        "A2LC_BUDGET": str(BUDGET),
        "A2LC_URL": f"http://127.0.0.1:{free_port()}",
    }.items():
        monkeypatch.setenv(name, value)


def street_project(studio: Studio, world: World, kind: str) -> int:
    """A project with the images of a world."""
    config = (REPOSITORY / "label_studio_config/street.xml").read_text().replace("BitmaskLabels", KINDS[kind])
    project_id = int(studio.client.projects.create(title=f"Rebuilt, {kind}", label_config=config).id or 0)
    paths = [world.image_path(name) for name in world.names]
    files = {path.name: (path.name, path.read_bytes()) for path in paths}
    token = {"Authorization": f"Token {studio.account.token}"}
    address = f"{studio.url}/api/projects/{project_id}/import"
    requests.post(address, files=files, timeout=120, headers=token).raise_for_status()
    return project_id


def next_round(project_id: int) -> tuple[Round, Service]:
    service = Service(load_settings())
    service.begin_round(project_id)
    return service.run(project_id), service


def all_predictions(studio: Studio, project_id: int) -> list[tuple[int, str | None, object]]:
    found = studio.client.predictions.list(project=project_id)
    return sorted((int(item.id or 0), item.model_version, item.result) for item in found)


def a2lc(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def rows_of(service: Service, project_id: int, number: int) -> dict[tuple[int, str], tuple[object, ...]]:
    return everything(service.ledger, Workspace(service.artifacts, project_id), number)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
def test_a_store_is_rebuilt_from_label_studio(
    kind: str, studio: Studio, world: World, tmp_path: Path, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_id = street_project(studio, world, kind)
    said = a2lc("rebuild", "--project", str(project_id))
    assert said.exit_code == 1
    assert f"start round 0 with: a2lc rounds next --project {project_id}" in said.output

    config = LabelStudioProject(studio.client, studio.url, project_id).config
    annotator = SimulatedAnnotator(studio.client, project_id, config, world.truth)
    for _ in range(2):
        record, service = next_round(project_id)
        service.close()
        annotator.work()
    record, service = next_round(project_id)
    assert record.number == 2
    assert any(FOLLOWS in (task.data or {}) for task in studio.client.tasks.list(project=project_id)), "asked again"
    was, corrections = rows_of(service, project_id, 2), service.ledger.corrections(project_id)
    queries = service.ledger.queries(project_id, 2)
    service.close()
    work = annotator.work()
    assert work.looked_at > 0
    in_label_studio = all_predictions(studio, project_id)

    refused = a2lc("rebuild", "--project", str(project_id))
    assert refused.exit_code == 1
    assert "rounds 0 to 2" in refused.output
    with monkeypatch.context() as patch:
        patch.setenv("A2LC_APPEARANCE", "sam")
        refused = a2lc("rebuild", "--project", str(project_id), "--replace")
    assert refused.exit_code == 1
    assert "a2lc weights fetch sam-vit-b" in " ".join(refused.output.split())
    assert "rounds 0 to 2" in a2lc("rebuild", "--project", str(project_id)).output, "nothing was thrown away"
    shutil.rmtree(tmp_path / "data")
    done = a2lc("rebuild", "--project", str(project_id))
    assert done.exit_code == 0, done.output
    assert f"rebuilt round 2 ({record.version}): {len(world.names)} images with" in done.output
    assert "lost: " in done.output

    service = Service(load_settings())
    rebuilt = rows_of(service, project_id, 2)
    if kind == "polygonlabels":  # Label Studio holds outlines only
        assert {key: row[:3] for key, row in rebuilt.items()} == {key: was[key][:3] for key in rebuilt}
        assert len(rebuilt) > 0.95 * len(was)
        assert was.keys() - rebuilt.keys() <= {key for key, row in was.items() if row[1] != "human"}
    else:
        assert rebuilt == was
    assert [replace(item, shape_key="") for item in service.ledger.corrections(project_id)] == [
        replace(item, shape_key="") for item in corrections
    ]
    assert [(query.rank, query.task_id, query.region_id) for query in service.ledger.queries(project_id, 2)] == [
        (query.rank, query.task_id, query.region_id) for query in queries
    ]
    service.close()

    record_again, service = next_round(project_id)
    service.close()
    assert (record_again.number, record_again.status, record_again.version) == (2, "done", record.version)
    assert all_predictions(studio, project_id) == in_label_studio
    assert studio.client.projects.get(id=project_id).model_version == record.version

    following, service = next_round(project_id)
    assert (following.number, following.status) == (3, "done")
    assert following.summary["answered"] == work.looked_at
    assert studio.client.projects.get(id=project_id).model_version == following.version != record.version
    before, now = (
        {version for _, version, _ in rows} for rows in (in_label_studio, all_predictions(studio, project_id))
    )
    assert before <= now, "older versions stay, though their rounds are not known any more"
    assert now - before == {following.version, rest_of(following.version)}
    after = rows_of(service, project_id, 3)
    human = {key: row[0] for key, row in was.items() if row[1] == "human"}
    assert {key: after[key][:2] for key in human} == {key: (label, "human") for key, label in human.items()}
    assert sum(row[1] == "human" for row in after.values()) > len(human)
    assert not [problem for problem in service.ledger.problems(project_id, 3) if problem.phase != "correct"]

    assert service.ledger.take_lock(project_id, "another process", 60)
    busy = a2lc("rebuild", "--project", str(project_id), "--replace")
    assert busy.exit_code == 1
    assert "being run by another process" in busy.output
    assert [row.number for row in service.ledger.rounds(project_id)] == [2, 3]
    service.ledger.release_lock(project_id, "another process")
    replaced = a2lc("rebuild", "--project", str(project_id), "--replace")
    assert replaced.exit_code == 0, replaced.output
    assert f"thrown away: the stored rounds 2, 3 of project {project_id}" in replaced.output
    again = rows_of(service, project_id, 3)
    assert {key: row[:3] for key, row in again.items()} == {key: after[key][:3] for key in again}
    assert [row.number for row in service.ledger.rounds(project_id)] == [3]
    service.close()
