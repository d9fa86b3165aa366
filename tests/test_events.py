"""Webhooks are kept until somebody could act on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2lc_backend.jobs import events
from a2lc_backend.rounds.heartbeat import RoundBusyError
from a2lc_backend.service import Look, Service
from a2lc_backend.settings import Settings
from a2lc_backend.store import Project
from tests.conftest import wait_until


def test_start_training_is_kept_while_another_process_has_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_GATHER_SECONDS", 0.01)
    monkeypatch.setattr(events, "_AGAIN_SECONDS", 0.05)
    service, begun, looks = Service(Settings(data_dir=tmp_path)), [], []

    def look(project_id: int, needed: bool) -> Look:
        looks.append(needed)
        if len(looks) < 4:
            raise RoundBusyError("another process has it")
        return Look(new=True, answers=0, wanted=0)

    monkeypatch.setattr(service, "look", look)
    service.ledger.add_event("START_TRAINING", 5)
    acting = events.Events(service, begun.append)
    acting.start()
    try:
        wait_until(lambda: begun == [5], 10, 0.01)
        assert looks == [True] * 4
        wait_until(lambda: service.ledger.open_events() == [], 10, 0.01)
    finally:
        acting.stop()
        service.close()


def test_a_project_that_cannot_be_looked_at_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_GATHER_SECONDS", 0.01)
    service, begun = Service(Settings(data_dir=tmp_path)), []

    def look(project_id: int, _needed: bool) -> Look:
        if project_id == 5:
            raise LookupError("nobody thought of this")
        return Look(new=True, answers=0, wanted=0)

    monkeypatch.setattr(service, "look", look)
    for project_id in (5, 6):
        service.ledger.add_event("START_TRAINING", project_id)
    acting = events.Events(service, begun.append)
    acting.start()
    try:
        wait_until(lambda: begun == [6], 10, 0.01)
        wait_until(lambda: [event.project_id for event in service.ledger.open_events()] == [5], 10, 0.01)
    finally:
        acting.stop()
        service.close()


def test_projects_that_wait_are_looked_at_though_webhooks_of_others_keep_coming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_GATHER_SECONDS", 0.01)
    monkeypatch.setattr(events, "_POLL_SECONDS", 0.3)
    service, looks = Service(Settings(data_dir=tmp_path)), []
    for project_id in (5, 6):
        service.ledger.save_project(Project(project_id, "", ("a",)))

    def look(project_id: int, _needed: bool) -> Look:
        looks.append(project_id)
        return Look(new=False, answers=0, wanted=20)

    monkeypatch.setattr(service, "look", look)
    acting = events.Events(service, lambda _project_id: None)
    acting.start()
    try:

        def busy() -> bool:
            service.ledger.add_event("ANNOTATION_CREATED", 5)
            acting.wake()
            return looks.count(6) >= 3

        wait_until(busy, 10, 0.05)
    finally:
        acting.stop()
        service.close()
