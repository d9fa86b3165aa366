"""What a worker keeps, and how it ends when its shard hangs where Python cannot interrupt it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from a2lc_backend.jobs import worker
from a2lc_backend.service import Service
from a2lc_backend.settings import Settings
from a2lc_backend.store import Ledger, Phase, Round

HANG = """
import sys, time
from pathlib import Path
from a2lc_backend.jobs import worker
from a2lc_backend.rounds.heartbeat import Heartbeat
from a2lc_backend.service import Service
from a2lc_backend.settings import Settings

worker._GRACE_SECONDS = 0.2
service = Service(Settings(data_dir=Path(sys.argv[1])))
workshop = worker.Workshop(service, ["a2lc-gpu"])
assert service.ledger.claim_shard(1, 0, "score", 0, workshop.name, 60.0)
workshop.limit(0.2)
with Heartbeat(workshop.beat, 0.05):
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""


def test_a_worker_that_hangs_ends_and_says_what_hung(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.save_round(Round(1, 0, "running"))
    ledger.plan_shards(1, 0, "score", [[1], [2]])
    ended = subprocess.run(
        [sys.executable, "-c", HANG, str(tmp_path)], timeout=60, capture_output=True, text=True, check=False
    )
    assert ended.returncode == worker._HUNG, ended.stderr
    assert 'File "<string>", line' in ended.stderr, "where it hung"
    hung, other = ledger.shards(1, 0, "score")
    assert (hung.status, other.status) == ("failed", "waiting")
    assert "hung" in hung.error
    assert "A2LC_JOB_SECONDS" in hung.error
    assert ledger.workers(60.0) == []


SWALLOWED = """
import sys, time
from a2lc_backend.jobs import worker

worker._ALARM_AGAIN_SECONDS = 0.2

class Slow:
    def __del__(self):
        time.sleep(60)

try:
    with worker._TimeLimit(1, TimeoutError):
        Slow()
        time.sleep(60)
except worker.TimeLimitError as error:
    print(error)
"""


def test_a_time_limit_that_strikes_where_nothing_can_be_raised_strikes_again() -> None:
    ended = subprocess.run([sys.executable, "-c", SWALLOWED], timeout=45, capture_output=True, text=True, check=False)
    assert "Exception ignored in" in ended.stderr, "the first one was lost"
    assert "A2LC_JOB_SECONDS" in ended.stdout


def test_a_worker_keeps_what_it_loaded_until_the_round_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(Settings(data_dir=tmp_path))
    service.ledger.save_round(Round(1, 0, "running"))
    service.ledger.save_phase(1, 0, Phase("train", "done", started=1.0, ended=2.0))
    loaded: list[Any] = []
    monkeypatch.setattr(service, "context", lambda record: loaded.append(record) or object())
    monkeypatch.setattr(worker, "work_shard", lambda *_: True)
    workshop = worker.Workshop(service, ["a2lc-gpu"])
    for index in range(3):
        workshop.work(1, 0, "score", index)
    assert len(loaded) == 1
    service.ledger.save_phase(1, 0, Phase("train", "done", started=3.0, ended=4.0))
    workshop.work(1, 0, "score", 3)
    assert len(loaded) == 2
    service.ledger.change_status(1, 0, ["running"], "paused")
    workshop.work(1, 0, "score", 4)
    assert len(loaded) == 2, "a round that does not go on is not loaded"
