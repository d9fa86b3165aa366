"""The part of the ledger that says who works on what: shards of phases, and workers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update

from a2lc_backend.store import tables
from a2lc_backend.store.records import Shard, Worker
from a2lc_backend.store.rows import RoundTables, replace_rows

ALIVE_SECONDS = 15.0
"""A worker that has been silent for so long is taken for dead."""


class JobTables(RoundTables):
    """Shards and workers; `Ledger` is the whole.

    A shard is claimed by one statement, so of two workers that are handed the same one only one gets it. The worker
    renews its claim; a claim that is not renewed is free, and the worker that lost it finds out when it renews.
    """

    def plan_shards(self, project_id: int, number: int, phase: str, parts: Sequence[Sequence[Any]]) -> None:
        """Write down how a phase is divided, in place of an earlier plan."""
        table = tables.shards
        rows = [
            asdict(Shard(project_id, number, phase, index, (), total=len(part))) | {"items": list(part)}
            for index, part in enumerate(parts)
        ]
        with self._engine.begin() as db:
            db.execute(delete(table).where(_of_phase(project_id, number, phase)))
            if rows:
                db.execute(insert(table), rows)

    def shards(self, project_id: int, number: int, phase: str) -> list[Shard]:
        """The shards of a phase in order, without their items."""
        table = tables.shards
        columns = [column for column in table.c if column.name != "items"]
        with self._engine.connect() as db:
            query = select(*columns).where(_of_phase(project_id, number, phase)).order_by(table.c.index)
            return [Shard(**row._mapping, items=()) for row in db.execute(query)]

    def shard_items(self, project_id: int, number: int, phase: str) -> list[Any]:
        """What a phase is about, as it was planned: the items of all its shards."""
        table = tables.shards
        with self._engine.connect() as db:
            query = select(table.c["items"]).where(_of_phase(project_id, number, phase)).order_by(table.c.index)
            return [item for part in db.execute(query).scalars() for item in part]

    def forget_shards(self, project_id: int, number: int) -> None:
        """Drop the shards of a round that is done."""
        table = tables.shards
        with self._engine.begin() as db:
            db.execute(delete(table).where(table.c.project_id == project_id, table.c.round == number))

    def open_shards(self) -> list[Shard]:
        """Every shard of any project that is waiting or being worked on, without its items."""
        table = tables.shards
        columns = [column for column in table.c if column.name != "items"]
        with self._engine.connect() as db:
            query = select(*columns).where(table.c.status.in_(("waiting", "running")))
            return [Shard(**row._mapping, items=()) for row in db.execute(query)]

    def claim_shard(
        self, project_id: int, number: int, phase: str, index: int, owner: str, stale_after: float
    ) -> Shard | None:
        """Take a shard that waits, or whose owner has not renewed its claim for some seconds.

        Args:
            project_id: of the project.
            number: of the round.
            phase: name of the phase.
            index: of the shard.
            owner: the process that wants it.
            stale_after: seconds after which a claim is free.

        Returns:
            The shard; None if it is done, failed or another's.
        """
        table, now = tables.shards, time.time()
        key = and_(_of_phase(project_id, number, phase), table.c.index == index)
        free = or_(table.c.status == "waiting", and_(table.c.status == "running", table.c.beat <= now - stale_after))
        with self._engine.begin() as db:
            claim = update(table).where(key, free)
            values = {"status": "running", "owner": owner, "beat": now, "done": 0, "attempts": table.c.attempts + 1}
            if not db.execute(claim.values(**values)).rowcount:
                return None
            row = db.execute(select(table).where(key)).one()
        return Shard(**(row._asdict() | {"items": tuple(row.items)}))

    def renew_shard(self, shard: Shard, done: int, total: int) -> bool:
        """Say that a claimed shard is being worked on; whether it still is this owner's."""
        return self._set_mine(shard, beat=time.time(), done=done, total=total)

    def end_shard(self, shard: Shard, error: str = "") -> bool:
        """Say that a claimed shard is done, or failed; whether it still was this owner's."""
        if error:
            return self._set_mine(shard, status="failed", error=error)
        return self._set_mine(shard, status="done", error="")

    def give_back_shard(self, shard: Shard) -> bool:
        """Let another worker have a claimed shard; whether it still was this owner's."""
        attempts = tables.shards.c.attempts - 1
        return self._set_mine(shard, status="waiting", owner="", attempts=attempts)

    def free_shard(self, shard: Shard) -> bool:
        """Let another worker have a shard whose owner has ended; that it was begun is remembered."""
        return self._set_mine(shard, status="waiting", owner="")

    def retry_shards(self, project_id: int, number: int) -> None:
        """Let the failed shards of a round be tried again, and those nobody finished be begun anew."""
        table = tables.shards
        with self._engine.begin() as db:
            mine = and_(table.c.project_id == project_id, table.c.round == number, table.c.status != "done")
            db.execute(update(table).where(mine, table.c.status == "failed").values(status="waiting", error=""))
            db.execute(update(table).where(mine).values(attempts=0))

    def _set_mine(self, shard: Shard, **values: Any) -> bool:
        table = tables.shards
        mine = and_(
            _of_phase(shard.project_id, shard.round, shard.phase), table.c.index == shard.index,
            table.c.owner == shard.owner, table.c.status == "running",
        )  # fmt: skip
        with self._engine.begin() as db:
            return bool(db.execute(update(table).where(mine).values(**values)).rowcount)

    def beat_worker(self, worker: Worker) -> None:
        """Say that a worker lives."""
        with self._engine.begin() as db:
            row = asdict(worker) | {"queues": list(worker.queues)}
            replace_rows(db, tables.workers, [row], ("name",))

    def end_worker(self, name: str) -> None:
        """Say that a worker has ended."""
        with self._engine.begin() as db:
            db.execute(delete(tables.workers).where(tables.workers.c.name == name))

    def workers(self, alive_within: float) -> list[Worker]:
        """Workers that have said within so many seconds that they live, the oldest first."""
        table = tables.workers
        with self._engine.connect() as db:
            query = select(table).where(table.c.beat > time.time() - alive_within).order_by(table.c.started)
            rows = db.execute(query).all()
        return [Worker(row.name, tuple(row.queues), row.started, row.beat, row.doing) for row in rows]

    def forget_workers(self, silent_for: float) -> None:
        """Drop workers that have said nothing for so many seconds."""
        table = tables.workers
        with self._engine.begin() as db:
            db.execute(delete(table).where(table.c.beat < time.time() - silent_for))


def _of_phase(project_id: int, number: int, phase: str) -> ColumnElement[bool]:
    table = tables.shards
    return and_(table.c.project_id == project_id, table.c.round == number, table.c.phase == phase)
