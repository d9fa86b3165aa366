"""Audits in the product's own rounds: drawn, answered, counted, stated, and what the policies make of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from a2lc_backend.app import create_app
from a2lc_backend.audit import STRATA, share_interval
from a2lc_backend.bench.oracle import true_labels
from a2lc_backend.bench.world import World
from a2lc_backend.cli import app
from a2lc_backend.demo.servers import free_port
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.pool import load_pool
from a2lc_backend.rounds.publish import RoundView
from a2lc_backend.rounds.reading import settled, verdicts
from a2lc_backend.rounds.report import find_round, group_reports, proposal_reports, round_report
from a2lc_backend.rounds.trust import _survey, evidence_by_stratum
from a2lc_backend.rounds.workspace import SOURCES
from a2lc_backend.service import Service
from a2lc_backend.settings import ProjectSettings, Settings
from tests.conftest import OWN_TOKEN
from tests.world_run import Run

pytestmark = pytest.mark.usefixtures("short_training")

SETTINGS = ProjectSettings(budget=60, audit=0.2)


def truth_of(run: Run, number: int) -> dict[tuple[int, str], int]:
    """The true label of every mask, by task and region."""
    labels, found = run.workspace.labels(number), {}
    for place, task_id in enumerate(labels.task_ids.tolist()):
        masks = run.workspace.masks(labels.mask_keys[place])
        truth = true_labels(masks, run.world.truth(run.platform.name(task_id)), len(run.world.classes))
        found.update({(task_id, name): int(label) for name, label in zip(masks.region_ids, truth, strict=True)})
    return found


@pytest.fixture(scope="module")
def audited(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three rounds with audits."""
    run = Run(world, tmp_path_factory.mktemp("audited"), SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("a2lc_backend.segmenter.unet.MIN_STEPS", 10)
        patch.setattr("a2lc_backend.segmenter.unet.MAX_STEPS", 10)
        for _ in range(4):
            run.round()
    return run


def test_each_queue_hides_three_samples(audited: Run) -> None:
    audits = audited.ledger.audits(1)
    queues = {number: {(q.task_id, q.region_id) for q in audited.ledger.queries(1, number)} for number in range(4)}
    for number in (1, 2):
        drawn = [item for item in audits if item.round == number]
        counts = Counter(item.purpose for item in drawn)
        record = audited.ledger.round(1, number)
        assert record is not None
        assert counts["stating"] == min(12, record.summary["automatic"])
        proposed = sum(row.proposed for row in audited.ledger.strata(1, number))
        assert counts["deciding"] == 12 or counts["deciding"] >= proposed - counts["stating"] - counts["random"]
        assert counts["random"] == 9
        assert {(item.task_id, item.region_id) for item in drawn} <= queues[number]
    assert {item.purpose for item in audits if item.round == 0} == {"random"}


def test_what_a_person_sees_does_not_tell_an_audit(audited: Run) -> None:
    view = RoundView(audited.ledger, audited.workspace, 1, 2)
    drawn = {(item.task_id, item.region_id) for item in audited.ledger.audits(1) if item.round == 2}
    hints = {True: 0, False: 0}
    why = {True: 0, False: 0}
    asked = {True: 0, False: 0}
    for task_id in view.queued:
        for region in view.prediction(task_id).regions:
            if region.rank is None:
                assert region.score is not None
                continue
            assert region.score is None
            assert region.proposal is None
            hints[(task_id, region.id) in drawn] += "looks like" in region.note
            why[(task_id, region.id) in drawn] += "checked because" in region.note
            asked[(task_id, region.id) in drawn] += 1
    assert hints[True] == why[True] == 0, "what is judged is not suggested"
    assert why[False] > 0
    assert 0 < hints[False] < asked[False], "and masks without a hint are nothing special"


def test_statements_count_the_answers_to_the_applied_labels(audited: Run) -> None:
    truth, report = truth_of(audited, 2), round_report(audited.ledger, 1, 3)
    pooled, *single = report.audits
    assert [item.about for item in single] == [1, 2]
    assert pooled.about == -1
    assert pooled.audited == sum(item.audited for item in single)
    for item in single:
        sample = [a for a in audited.ledger.audits(1) if a.round == item.about and a.purpose == "stating"]
        known = [a for a in sample if truth[a.task_id, a.region_id] != IGNORE]
        assert item.audited == item.drawn == len(sample)
        assert abs(item.right - sum(a.after == truth[a.task_id, a.region_id] for a in known)) <= len(sample) - len(
            known
        )
        labels = audited.workspace.labels(item.about)
        assert item.applied == int((labels.sources == SOURCES.index("corrector")).sum())


def test_decisions_follow_from_the_deciding_audits_alone(audited: Run) -> None:
    answers = settled(verdicts(audited.ledger.corrections(1)))
    audits = [item for item in audited.ledger.audits(1) if item.round < 3]
    evidence = evidence_by_stratum(audits, answers)
    rows = audited.ledger.strata(1, 3)
    assert [row.stratum for row in rows] == list(range(len(STRATA)))
    assert [(row.audited, row.right, row.broken) for row in rows] == [(e.audited, e.right, e.broken) for e in evidence]
    stating = [replace(item, purpose="stating") for item in audits]
    assert all(found.audited == 0 for found in evidence_by_stratum(stating, answers))


def test_images_added_later_do_not_spoil_the_estimate(world: World, tmp_path: Path) -> None:
    """Half of the images come after two rounds: those answered there were never in the first rounds' samples."""
    run = Run(world, tmp_path, SETTINGS.model_copy(update={"corrector": "none", "explore": 0.5}))
    every = run.platform.tasks()
    run.platform.tasks = lambda: every[:4]  # type: ignore[method-assign]
    run.round()
    run.round()
    run.platform.tasks = lambda: every  # type: ignore[method-assign]
    for _ in range(3):
        last = run.round()
    truth, labels = truth_of(run, last.number), run.workspace.labels(last.number)
    held = {}
    for place, task_id in enumerate(labels.task_ids.tolist()):
        names = run.workspace.catalog(labels.mask_keys[place]).region_ids
        held.update(
            {(task_id, name): int(label) for name, label in zip(names, labels.labels[labels.span(place)], strict=True)}
        )
    answered = settled(verdicts(run.ledger.corrections(1)))
    wrong = sum(truth[key] not in (IGNORE, label) for key, label in held.items() if key not in answered)
    found = round_report(run.ledger, 1, last.number).estimate("still_wrong")
    assert found is not None
    assert found.low <= wrong <= found.high
    assert found.high < 2.5 * wrong + 20


def test_what_was_answered_is_counted_in_the_rounds_that_knew_it(audited: Run) -> None:
    record, last = audited.ledger.round(1, 1), audited.ledger.round(1, 3)
    assert record is not None
    assert last is not None
    context = audited.context(last)
    pool = load_pool(context, audited.workspace.labels(3))
    drawn = [item for item in audited.ledger.audits(1) if item.round == 1]
    survey = _survey(context, pool, record, drawn, settled(verdicts(audited.ledger.corrections(1))))
    asked = [query for number in (1, 2) for query in audited.ledger.queries(1, number)]
    assert survey.answered == len({(query.task_id, query.region_id) for query in asked}) == 120
    assert survey.applied + survey.rest == record.summary["unanswered"]
    answers, first = settled(verdicts(audited.ledger.corrections(1))), {}
    for state, catalog, _ in pool.spans():
        first.update(
            {
                (state.task_id, name): int(label)
                for name, label in zip(catalog.region_ids, catalog.first_labels, strict=True)
            }
        )
    keys = [(query.task_id, query.region_id) for query in asked]
    assert survey.known == sum(answers[key] != first[key] for key in keys)


def test_estimates_stand_in_the_report(audited: Run) -> None:
    assert round_report(audited.ledger, 1, 0).estimate("still_wrong") is None
    report = round_report(audited.ledger, 1, 3)
    wrong, fixes = report.estimate("still_wrong"), report.estimate("next_fixes")
    assert wrong is not None
    assert fixes is not None
    assert 0 <= wrong.low <= wrong.value <= wrong.high <= report.round.summary["unanswered"]
    assert 0 <= fixes.low <= fixes.value <= fixes.high <= 60


def test_held_proposals_can_be_looked_at(audited: Run) -> None:
    proposals = list(proposal_reports(audited.ledger, audited.workspace, 1))
    held = [item for item in proposals if not item.applied]
    taken = {row.stratum for row in audited.ledger.strata(1, 3) if row.taken}
    assert held
    assert not {item.stratum for item in held} & taken
    assert {item.stratum for item in proposals if item.applied} <= taken
    groups = group_reports(audited.ledger, 1)
    assert sum(group.proposed for group in groups) == len(proposals)
    assert sum(group.applied for group in groups) == len(proposals) - len(held)
    view = RoundView(audited.ledger, audited.workspace, 1, 3)
    shown = {
        (item.task_id, region.id): region.proposal for item in held for region in view.prediction(item.task_id).regions
    }
    queued = {(query.task_id, query.region_id) for query in audited.ledger.queries(1, 3)}
    for item in held:
        named = shown[item.task_id, item.region_id]
        assert named == (None if (item.task_id, item.region_id) in queued else item.after)


def test_a_person_approves_groups(world: World, tmp_path: Path) -> None:
    run = Run(world, tmp_path, SETTINGS.model_copy(update={"policy": "manual"}))
    run.round()
    run.round()
    assert run.ledger.auto_corrections(1, 1) == []
    groups = [group for group in run.ledger.proposal_groups(1, 1) if group.ready]
    assert groups
    assert all(group.applied == 0 for group in groups)
    refused, *others = groups
    for group in others:
        run.ledger.approve(1, group.before, group.after, approved=True)
    run.round()
    approved = {(group.before, group.after) for group in others}
    found = run.ledger.proposal_groups(1, 2)
    assert sum(group.applied for group in found) > 0
    for group in found:
        assert group.applied == (group.ready if (group.before, group.after) in approved else 0)
    assert (refused.before, refused.after) not in {(c.before, c.after) for c in run.ledger.auto_corrections(1, 2)}
    for before, after in approved:
        run.ledger.approve(1, before, after, approved=False)
    run.round()
    assert (run.workspace.labels(3).sources != SOURCES.index("corrector")).all()


def test_precision_applies_nothing_until_the_audits_show_it(world: World, tmp_path: Path) -> None:
    run = Run(world, tmp_path, SETTINGS.model_copy(update={"policy": "precision", "precision": 0.3}))
    for _ in range(4):
        run.round()
    assert run.ledger.auto_corrections(1, 1) == []
    rows = run.ledger.strata(1, 3)
    assert any(row.taken for row in rows), "two dozen answers show that three in ten are right"
    for row in rows:
        assert row.taken == (share_interval(row.right, row.audited, sided="greater").low >= 0.3)
        assert STRATA[row.stratum].seconded or row.audited == 0


@pytest.fixture
def command(audited: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs `a2lc` on the store of the audited run, with no backend to ask."""
    monkeypatch.setenv("A2LC_DATA_DIR", str(audited.folder))
    monkeypatch.setenv("A2LC_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("COLUMNS", "160")

    def run(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, [*words, "--project", "1"])
        assert result.exit_code == status, result.output
        return result.output

    return run


def test_show_prints_what_audits_say(audited: Run, command: Callable[..., str]) -> None:
    printed = command("rounds", "show")
    pooled = round_report(audited.ledger, 1, 3).audits[0]
    assert f"{pooled.audited} of {pooled.drawn}" in printed
    assert "seconded, margin 0.85–1" in printed
    assert "still wrong: about" in printed
    assert "its 60 queries should mend about" in printed


def test_groups_and_their_masks_are_listed_and_approved(audited: Run, command: Callable[..., str]) -> None:
    group = group_reports(audited.ledger, 1)[0]
    printed = command("proposals", "list")
    assert group.before in printed
    pair = ("--from", group.before, "--to", group.after)
    masks = command("proposals", "masks", *pair)
    assert masks.count("/data?task=") == min(group.proposed, 20)
    command("proposals", "approve", *pair)
    assert group_reports(audited.ledger, 1)[0].approved
    command("proposals", "withdraw", *pair)
    assert not group_reports(audited.ledger, 1)[0].approved
    assert "choose from" in command("proposals", "approve", "--from", "Sky", "--to", "Moon", status=1)


def test_the_api_serves_proposals(audited: Run) -> None:
    settings = Settings(data_dir=audited.folder, label_studio_api_key="f" * 40)  # type: ignore[arg-type]
    with TestClient(create_app(Service(settings)), headers=OWN_TOKEN) as web:
        groups = web.get("/api/projects/1/proposals").json()
        assert sum(group["proposed"] for group in groups) > 0
        held = web.get("/api/projects/1/proposals/masks", params={"applied": False, "limit": 5}).json()
        assert len(held) == 5
        assert not any(item["applied"] for item in held)
        body = {"before": groups[0]["before"], "after": groups[0]["after"], "approved": False}
        assert web.put("/api/projects/1/proposals/approval", json=body).status_code == 200
        assert web.put("/api/projects/1/proposals/approval", json=body | {"after": "Moon"}).status_code == 404
        assert web.get("/api/projects/1/proposals", params={"round": 9}).status_code == 404


def test_a_round_that_is_not_there_is_named(audited: Run) -> None:
    with pytest.raises(LookupError, match="round 9"):
        find_round(audited.ledger, 1, 9)
    with pytest.raises(LookupError, match="finished round"):
        group_reports(audited.ledger, 2)


def test_labels_written_before_there_were_audits_are_read(audited: Run) -> None:
    labels = audited.workspace.labels(2)
    arrays = audited.workspace._artifacts.read_arrays("project-1/rounds/2/labels")
    arrays.pop("strata")
    audited.workspace._artifacts.write_arrays("project-1/rounds/77/labels", arrays)
    old = audited.workspace.labels(77)
    np.testing.assert_array_equal(old.labels, labels.labels)
    assert (old.strata == -1).all()


def test_a_policy_that_the_corrector_cannot_follow_is_refused() -> None:
    with pytest.raises(ValueError, match="policy manual needs the corrector boosted"):
        ProjectSettings(policy="manual", corrector="paper")
