"""Webhooks are kept until somebody could act on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2lc_backend.jobs import events
from a2lc_backend.rounds.heartbeat import RoundBusyError
from a2lc_backend.service import Look, Service
from a2lc_backend.settings import Settings
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
