"""The dry run of a round says what the round then does, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from fastapi.testclient import TestClient
from threadpoolctl import threadpool_limits

from a2lc_backend.app import create_app
from a2lc_backend.bench.world import World
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.collect import take_over
from a2lc_backend.rounds.preview import SAMPLES, Preview, preview_round
from a2lc_backend.rounds.report import round_report
from a2lc_backend.service import Service
from a2lc_backend.settings import Settings
from a2lc_backend.store import Project, Round
from tests.conftest import OWN_TOKEN, wait_until
from tests.world_run import Run


@pytest.fixture
def run(world: World, tmp_path: Path, short_training: None) -> Iterator[Run]:
    """A project on one thread: which labels change hangs on the order of sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield Run(world, tmp_path)
    torch.set_num_threads(threads)


def preview(run: Run) -> Preview:
    context = run.context(Round(1, len(run.ledger.rounds(1)), "running"))
    take_over(context, lambda done, total: None)
    return preview_round(context, lambda phase, done, total: None)


def files(run: Run) -> dict[str, float]:
    rounds = run.folder / "artifacts" / "project-1" / "rounds"
    return {str(path): path.stat().st_mtime_ns for path in rounds.rglob("*") if path.is_file()}


def test_a_dry_run_says_what_the_round_then_changes_and_changes_nothing(run: Run) -> None:
    run.round()
    run.round()
    before = files(run)
    found = preview(run)
    assert files(run) == before
    assert len(run.ledger.rounds(1)) == 2
    assert run.ledger.auto_corrections(1, 2) == []
    assert run.ledger.strata(1, 2) == []
    done = run.round()
    report = round_report(run.ledger, 1, done.number)
    assert found.changed > 0
    assert {(change.before, change.after, change.count) for change in found.changes} == set(report.class_changes)
    assert found.changed == len(run.ledger.auto_corrections(1, 2))
    assert found.answers == done.summary["answered"]
    assert found.held_back == sum(group.proposed - group.applied for group in run.ledger.proposal_groups(1, 2))
    really = {(item.task_id, item.region_id): item for item in run.ledger.auto_corrections(1, 2)}
    for change in found.changes:
        assert 0 < len(change.samples) <= min(SAMPLES, change.count)
        sure = [sample.confidence for sample in change.samples]
        assert sure == sorted(sure, reverse=True)
        assert all(really[sample.task, sample.region].confidence == sample.confidence for sample in change.samples)


def test_masks_that_people_edited_count_as_the_round_will_read_them(run: Run) -> None:
    """A mask that was deleted in Label Studio changes an image's masks: the dry run reads them as edited."""
    run.round()
    run.round()
    context = run.context(Round(1, 2, "running"))
    take_over(context, lambda done, total: None)
    said = next(item for item in run.ledger.corrections(1) if item.kind == "label" and item.round == 2)
    annotation = run.ledger.seen_annotations(1)[said.annotation_id]
    mine = [item for item in run.ledger.corrections(1) if item.annotation_id == said.annotation_id]
    gone = replace(said, kind="deleted", label=IGNORE)
    run.ledger.save_annotation(1, annotation, [gone if item == said else item for item in mine])
    states = run.ledger.tasks(1)
    found = preview_round(context, lambda phase, done, total: None)
    assert run.ledger.tasks(1) == states, "the ledger is not told"
    done = run.round()
    assert run.ledger.tasks(1) != states
    changes = set(round_report(run.ledger, 1, done.number).class_changes)
    assert {(change.before, change.after, change.count) for change in found.changes} == changes


def test_without_answers_nothing_would_change(run: Run) -> None:
    run.platform.annotation_stamps = lambda: []  # type: ignore[method-assign]
    run.round()
    found = preview(run)
    assert (found.changed, found.answers, found.note) == (0, 0, "people have answered nothing yet")


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(Settings(data_dir=tmp_path, label_studio_url="http://127.0.0.1:9", label_studio_api_key="f" * 40))  # type: ignore[arg-type]


@pytest.fixture
def web(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), headers=OWN_TOKEN) as client:
        yield client


def finish(service: Service, number: int) -> None:
    service.ledger.begin_round(3, 10)
    service.ledger.change_status(3, number, ["running"], "done")


def test_a_dry_run_is_refused_in_words_where_it_makes_no_sense(web: TestClient, service: Service) -> None:
    assert web.get("/api/projects/3/rounds/preview").json()["status"] == "none"
    refused = web.post("/api/projects/3/rounds/preview")
    assert refused.status_code == 409
    assert "start round 0 first" in refused.json()["detail"]
    service.ledger.save_project(Project(3, "Streets", ("Sky", "Road")))
    service.ledger.begin_round(3, 10)
    service.ledger.change_status(3, 0, ["running"], "cancelled")
    refused = web.post("/api/projects/3/rounds/preview")
    assert "no masks yet" in refused.json()["detail"]
    finish(service, 1)
    service.ledger.begin_round(3, 10)
    service.ledger.change_status(3, 2, ["running"], "paused")
    refused = web.post("/api/projects/3/rounds/preview")
    assert refused.status_code == 409
    assert "round 2 of project 3 has the status paused" in refused.json()["detail"]


def test_a_dry_run_that_fails_says_the_mend_and_can_be_asked_again(web: TestClient, service: Service) -> None:
    service.ledger.save_project(Project(3, "Streets", ("Sky", "Road")))
    finish(service, 0)

    def asked() -> dict:
        return web.get("/api/projects/3/rounds/preview").json()

    for _ in range(2):
        assert web.post("/api/projects/3/rounds/preview").json()["status"] == "running"
        wait_until(lambda: asked()["status"] == "failed", 60)
        assert "http://127.0.0.1:9" in asked()["error"], "Label Studio is not there"
    with pytest.raises(httpx.HTTPError):
        httpx.get("http://127.0.0.1:9")
