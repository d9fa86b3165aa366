from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, inspect

from a2lc_backend.rounds import heartbeat
from a2lc_backend.rounds.heartbeat import RoundBusyError, held_lock, is_gone, own_name, take_lock
from a2lc_backend.store import (
    ArtifactError,
    Artifacts,
    AutoCorrection,
    Correction,
    Ledger,
    Problem,
    Project,
    Query,
    Round,
    SeenAnnotation,
    TaskState,
    Worker,
    open_round,
)
from a2lc_backend.store.tables import metadata
from benchmarks.scale import count_statements
from tests.conftest import wait_until

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=timezone.utc)


def correction(annotation: int, region: str, label: int = 1, task: int = 7) -> Correction:
    return Correction(annotation, task, region, "label", label, 0, 5, NOW, 1)


def test_a_new_ledger_has_the_schema_the_code_expects(ledger: Ledger) -> None:
    engine = create_engine(ledger.url)
    found = inspect(engine)
    assert set(metadata.tables) <= set(found.get_table_names())
    for name, table in metadata.tables.items():
        assert {column["name"] for column in found.get_columns(name)} == {column.name for column in table.columns}
    engine.dispose()


def test_many_processes_may_open_a_new_ledger_at_once(ledger: Ledger, tmp_path: Path) -> None:
    url = ledger.url if "postgres" in ledger.url else f"sqlite:///{tmp_path / 'together.db'}"
    code = f"from a2lc_backend.store import Ledger; Ledger({url!r}).save_project"
    opened = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(4)]
    for process in opened:
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error.decode()


def test_a_shard_is_one_workers_at_a_time(ledger: Ledger) -> None:
    ledger.plan_shards(3, 1, "score", [[[7, "a"], [8, "b"]], [[9, "c"]]])
    assert [(shard.index, shard.status, shard.total) for shard in ledger.shards(3, 1, "score")] == [
        (0, "waiting", 2), (1, "waiting", 1),
    ]  # fmt: skip
    assert ledger.shard_items(3, 1, "score") == [[7, "a"], [8, "b"], [9, "c"]]
    first = ledger.claim_shard(3, 1, "score", 0, "host-1-a", 60)
    assert first is not None
    assert first.items == ([7, "a"], [8, "b"])
    assert ledger.claim_shard(3, 1, "score", 0, "host-2-b", 60) is None
    assert ledger.renew_shard(first, 1, 2)
    again = ledger.claim_shard(3, 1, "score", 0, "host-2-b", 0)  # the first is taken for dead
    assert again is not None
    assert again.attempts == 2
    assert not ledger.renew_shard(first, 2, 2)
    assert not ledger.end_shard(first)
    assert ledger.end_shard(again)
    assert ledger.claim_shard(3, 1, "score", 0, "host-3-c", 0) is None
    other = ledger.claim_shard(3, 1, "score", 1, "host-1-a", 60)
    assert other is not None
    assert ledger.give_back_shard(other)
    assert [(shard.status, shard.attempts) for shard in ledger.shards(3, 1, "score")] == [("done", 2), ("waiting", 0)]
    assert [shard.index for shard in ledger.open_shards()] == [1]


def test_only_one_of_many_gets_a_lock_or_a_shard(ledger: Ledger) -> None:
    ledger.plan_shards(3, 0, "score", [[1]])
    with ThreadPoolExecutor(8) as pool:
        locks = list(pool.map(lambda number: ledger.take_lock(3, f"h-{number}-x", 30), range(8)))
        claims = list(pool.map(lambda number: ledger.claim_shard(3, 0, "score", 0, f"h-{number}-x", 30), range(8)))
    assert sum(locks) == 1
    assert sum(claim is not None for claim in claims) == 1


def test_the_lock_of_a_process_that_has_ended_is_free_at_once(ledger: Ledger) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    host, _, tail = own_name().rsplit("-", 2)
    assert ledger.take_lock(3, f"{host}-{int(ended.stdout)}-{tail}", 1e9)
    assert take_lock(ledger, 3, own_name())
    assert not take_lock(ledger, 3, "elsewhere-1-x")
    assert not is_gone(own_name())
    assert not is_gone("elsewhere-99999-x")
    assert not is_gone("test")


def test_workers_are_known_while_they_speak(ledger: Ledger) -> None:
    now = time.time()
    ledger.beat_worker(Worker("a", ("a2lc-gpu",), now, now))
    ledger.beat_worker(Worker("b", ("a2lc-cpu",), now, now - 100))
    assert [worker.name for worker in ledger.workers(15)] == ["a"]
    ledger.end_worker("a")
    assert ledger.workers(1e6) == [Worker("b", ("a2lc-cpu",), now, now - 100)]
    ledger.forget_workers(50)
    assert ledger.workers(1e6) == []


def test_a_cancelled_round_is_followed_by_a_new_one(ledger: Ledger) -> None:
    assert ledger.begin_round(3, 5).number == 0
    assert not ledger.change_status(3, 0, ["paused"], "cancelling")
    assert ledger.change_status(3, 0, ["running"], "paused")
    assert ledger.unfinished() == []
    assert ledger.begin_round(3, 5).status == "running"
    assert ledger.change_status(3, 0, ["running"], "cancelling")
    assert ledger.begin_round(3, 5).status == "cancelling", "it is finished first"
    assert [record.number for record in ledger.unfinished()] == [0]
    ledger.save_queries(3, 0, [Query(0, 1, 7, "m", 0)])
    ledger.forget_round(3, 0)
    assert ledger.queries(3, 0) == []
    assert ledger.change_status(3, 0, ["cancelling"], "cancelled")
    assert ledger.begin_round(3, 5).number == 1


def test_a_ledger_is_opened_again_with_what_it_held(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'ledger.db'}"
    first = Ledger(url)
    first.save_project(Project(3, "Straßen", ("Sky", "Road")))
    first.save_tasks(3, [TaskState(7, "/a.jpg"), TaskState(8, "/b.jpg", ready=True, mask_key="k")])
    first.close()
    again = Ledger(url)
    assert again.project(3) == Project(3, "Straßen", ("Sky", "Road"))
    assert again.project(4) is None
    assert again.tasks(3) == [TaskState(7, "/a.jpg"), TaskState(8, "/b.jpg", ready=True, mask_key="k")]
    assert again.task(3, 9) is None


def test_many_rows_are_replaced_in_few_statements(ledger: Ledger) -> None:
    states = [TaskState(number, f"/{number}.jpg") for number in range(1, 1_201)]
    ledger.save_tasks(4, states[:10])
    with count_statements() as counted:
        ledger.save_tasks(3, states)
        ledger.save_tasks(3, [replace(state, ready=True) for state in states[600:]])
        assert counted() == 5  # 500 rows at a time
    assert [state.ready for state in ledger.tasks(3)] == [False] * 600 + [True] * 600
    assert ledger.tasks(4) == states[:10]


def test_an_unfinished_round_is_taken_up_before_a_new_one_begins(ledger: Ledger) -> None:
    assert ledger.begin_round(3, 50).number == 0
    assert ledger.begin_round(3, 60).number == 0
    ledger.change_status(3, 0, ["running"], "failed", "score: no scores; run the round again")
    assert ledger.begin_round(3, 60).status == "running"
    assert [item.number for item in ledger.unfinished()] == [0]
    ledger.change_status(3, 0, ["running"], "done")
    assert ledger.begin_round(3, 60).number == 1
    last = ledger.last_done(3)
    assert last is not None
    assert (last.number, last.budget, last.error) == (0, 60, ""), "the budget asked for last holds"


def test_who_begins_a_round_in_the_same_instant_begins_the_same(ledger: Ledger) -> None:
    projects, together = range(20), threading.Barrier(4)

    def begin_all(_: int) -> list[int]:
        numbers = []
        for project_id in projects:
            together.wait()
            numbers.append(ledger.begin_round(project_id, 5).number)
        return numbers

    with ThreadPoolExecutor(4) as pool:
        begun = list(pool.map(begin_all, range(4)))
    assert begun == [[0] * len(projects)] * 4
    assert all(len(ledger.rounds(project_id)) == 1 for project_id in projects)


def test_a_round_that_is_published_again_stays_the_finished_and_is_the_open_one(ledger: Ledger) -> None:
    shown = Round(1, 1, "running", version="a2lc-r1-b", summary={"tasks": 3.0})  # after `undo`
    for record in (Round(1, 0, "done"), shown, Round(1, 2, "cancelled")):
        ledger.save_round(record)
    assert [record.number for record in ledger.finished(1)] == [0, 1]
    assert ledger.last_done(1) == shown
    assert open_round(ledger.rounds(1)) == shown
    assert ledger.change_status(1, 1, ["running"], "done")
    assert open_round(ledger.rounds(1)).number == 2, "nothing is open: the last one"


def test_an_annotation_replaces_all_it_said_before(ledger: Ledger) -> None:
    seen = SeenAnnotation(11, 7, "t1")
    ledger.save_annotation(3, seen, [correction(11, "a"), correction(11, "b")])
    ledger.save_annotation(3, SeenAnnotation(11, 7, "t2"), [correction(11, "a", 2)])
    ledger.save_annotation(3, SeenAnnotation(12, 7, "t2"), [correction(12, "a", 2)])
    assert [(item.annotation_id, item.region_id, item.label) for item in ledger.corrections(3)] == [
        (11, "a", 2), (12, "a", 2),
    ]  # fmt: skip
    assert ledger.corrections(3)[0].made_at == NOW
    ledger.forget_annotations(3, [11])
    assert set(ledger.seen_annotations(3)) == {12}
    ledger.forget_tasks(3, [7])
    assert ledger.corrections(3) == []


def test_queue_and_automatic_corrections_are_replaced_whole(ledger: Ledger) -> None:
    queries = [Query(1, rank, 7, f"m{rank}", 0, 1, 1.0 / rank) for rank in (1, 2, 3)]
    ledger.save_queries(3, 1, queries[:2])
    ledger.save_queries(3, 1, queries)
    assert ledger.queries(3, 1) == queries
    assert ledger.queries(3, 2) == []
    ledger.save_auto_corrections(3, 1, [AutoCorrection(1, 7, "a", 0, 1, 0.9)])
    ledger.save_auto_corrections(3, 1, [])
    assert ledger.auto_corrections(3, 1) == []


def test_a_problem_is_noted_once(ledger: Ledger) -> None:
    problem = Problem(1, "collect", 7, "task 7: no")
    ledger.add_problems(3, [problem])
    ledger.add_problems(3, [problem, Problem(1, "collect", 8, "task 8: no")])
    assert [item.task_id for item in ledger.problems(3, 1)] == [7, 8]


def test_webhooks_are_handled_once_and_in_order(ledger: Ledger) -> None:
    ledger.add_event("TASKS_CREATED", 3)
    ledger.add_event("START_TRAINING", 3)
    events = ledger.open_events()
    assert [(event.action, event.project_id) for event in events] == [("TASKS_CREATED", 3), ("START_TRAINING", 3)]
    ledger.close_events([events[0].id])
    assert ledger.open_events() == events[1:], "an event is open until it was acted on"


def test_one_owner_holds_a_projects_lock(ledger: Ledger) -> None:
    assert ledger.take_lock(3, "one", stale_after=60)
    assert ledger.take_lock(3, "one", stale_after=60)
    assert not ledger.take_lock(3, "two", stale_after=60)
    assert ledger.take_lock(4, "two", stale_after=60)
    ledger.release_lock(3, "two")
    assert not ledger.take_lock(3, "two", stale_after=60)
    assert ledger.take_lock(3, "two", stale_after=-1), "a lock that is not renewed goes stale"
    ledger.release_lock(3, "two")
    assert ledger.take_lock(3, "one", stale_after=60)


def test_a_lock_is_kept_while_nothing_is_heard_of_the_work(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_RENEWAL_SECONDS", 0.05)
    with held_lock(ledger, 3, "one") as check:
        with pytest.raises(RoundBusyError, match="project 3"), held_lock(ledger, 3, "two"):
            pass
        time.sleep(0.5)
        assert not ledger.take_lock(3, "two", stale_after=0.4), "it is renewed by a thread"
        check()
        assert ledger.take_lock(3, "two", stale_after=-1)

        def lost() -> bool:
            try:
                check()
            except RoundBusyError:
                return True
            return False

        wait_until(lost)
    assert ledger.lock_owner(3) == "two", "another's lock is left alone"


def test_threads_take_one_lock_among_them(ledger: Ledger) -> None:
    taken: list[bool] = []
    threads = [
        threading.Thread(target=lambda name=name: taken.append(ledger.take_lock(9, name, 60))) for name in "abcdef"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1


@pytest.mark.parametrize("url", ["file", "memory://a2lc-test"])
def test_artifacts_come_back_as_written(url: str, tmp_path: Path) -> None:
    artifacts = Artifacts(f"file://{tmp_path}" if url == "file" else url)
    arrays = {"a": np.arange(6).reshape(2, 3), "names": np.array(["x", "übergroß"])}
    artifacts.write_arrays("deep/er/one", arrays)
    artifacts.write_arrays("deep/er/one", arrays)
    found = artifacts.read_arrays("deep/er/one")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert artifacts.exists("deep/er/one")
    artifacts.delete("deep")
    artifacts.delete("deep")
    assert not artifacts.exists("deep/er/one")


@pytest.mark.parametrize("key", ["", "..", ".", "a/../../b", "/etc/a", "a//b", "a/.", "..\\b", "a\0b"])
def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    artifacts = Artifacts(f"file://{tmp_path / 'artifacts'}")
    artifacts.write("one", b"kept")
    for touch in (artifacts.read, artifacts.exists, artifacts.delete, lambda key: artifacts.write(key, b"x")):
        with pytest.raises(ArtifactError, match="is no name of an artifact"):
            touch(key)
    assert artifacts.read("one") == b"kept"


def test_a_missing_and_a_corrupt_artifact_are_named(tmp_path: Path) -> None:
    artifacts = Artifacts(f"file://{tmp_path}")
    with pytest.raises(ArtifactError, match="nothing is missing"):
        artifacts.read("nothing")
    artifacts.write("one", b"some bytes")
    (tmp_path / "one").write_bytes((tmp_path / "one").read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"one in .* is corrupt"):
        artifacts.read("one")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = Artifacts(f"file://{tmp_path}")
    artifacts.write("one", b"old")
    monkeypatch.setattr(artifacts._fs, "mv", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        artifacts.write("one", b"new")
    assert artifacts.read("one") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_an_address_that_cannot_be_used_is_named() -> None:
    with pytest.raises(ArtifactError, match="A2LC_ARTIFACTS_URL"):
        Artifacts("nowhere://bucket/prefix")


def test_artifacts_lie_on_an_object_store_too() -> None:
    stored = Artifacts("memory://a2lc-test")
    stored.write("a/b", b"first")
    stored.write("a/b", b"second")
    assert stored.read("a/b") == b"second"
    stored.delete("a")
    assert not stored.exists("a/b")
