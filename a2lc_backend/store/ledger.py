"""The ledger: what the machine did and is doing, in SQL (SQLite by default)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import and_, create_engine, delete, event, func, insert, select, update
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import IntegrityError

from a2lc_backend.store import tables
from a2lc_backend.store.embeddings import EmbeddingTables
from a2lc_backend.store.history import HistoryTables
from a2lc_backend.store.jobs import JobTables
from a2lc_backend.store.people import PeopleTables
from a2lc_backend.store.records import (
    ENDED,
    AutoCorrection,
    Correction,
    Event,
    Phase,
    Problem,
    Project,
    Query,
    Round,
    RoundStatus,
    SeenAnnotation,
    TaskState,
)
from a2lc_backend.store.review import ReviewTables
from a2lc_backend.store.rows import chunks, query_from, replace_rows
from a2lc_backend.store.settings import SettingTables
from a2lc_backend.store.trust import TrustTables
from a2lc_backend.store.whole import WholeProject


class NewerLedgerError(RuntimeError):
    """The database was brought to a newer schema than this program knows; the message names the mend."""


class Ledger(
    TrustTables, HistoryTables, JobTables, EmbeddingTables, PeopleTables, ReviewTables, SettingTables, WholeProject
):
    """All reading and writing of the database; every method is one transaction.

    Args:
        url: SQLAlchemy address such as `sqlite:////var/lib/a2lc/ledger.db`. The database is brought to the present
            schema when it is opened.

    Raises:
        NewerLedgerError: for a database that a newer version of the program has opened.
    """

    def __init__(self, url: str) -> None:
        self.url = _with_driver(url)
        super().__init__(_make_engine(self.url))
        with self._engine.connect() as connection:
            _lock_schema(connection)
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
            config.attributes["connection"] = connection
            _refuse_newer(connection, ScriptDirectory.from_config(config))
            command.upgrade(config, "head")
            connection.commit()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    # Projects and tasks

    def save_project(self, project: Project) -> None:
        """Add a project or refresh what is known of it."""
        with self._engine.begin() as db:
            row = asdict(project) | {"classes": list(project.classes), "news": int(project.news)}
            replace_rows(db, tables.projects, [row], ("id",))

    def project(self, project_id: int) -> Project | None:
        """The project, or None if the program does not know it."""
        found = [project for project in self.projects() if project.id == project_id]
        return found[0] if found else None

    def projects(self) -> list[Project]:
        """Every known project, by id."""
        with self._engine.connect() as db:
            rows = db.execute(select(tables.projects).order_by(tables.projects.c.id)).all()
        return [Project(row.id, row.title, tuple(row.classes), bool(row.news)) for row in rows]

    def save_tasks(self, project_id: int, states: Sequence[TaskState]) -> None:
        """Add tasks or replace what is known of them."""
        rows = [asdict(state) | {"project_id": project_id, "ready": int(state.ready)} for state in states]
        with self._engine.begin() as db:
            replace_rows(db, tables.tasks, rows, ("project_id", "task_id"))

    def tasks(self, project_id: int) -> list[TaskState]:
        """Every known task of a project, by id."""
        table = tables.tasks
        with self._engine.connect() as db:
            rows = db.execute(select(table).where(table.c.project_id == project_id).order_by(table.c.task_id)).all()
        return [_task(row) for row in rows]

    def task(self, project_id: int, task_id: int) -> TaskState | None:
        """One task, or None if the program does not know it."""
        table = tables.tasks
        with self._engine.connect() as db:
            where = and_(table.c.project_id == project_id, table.c.task_id == task_id)
            row = db.execute(select(table).where(where)).first()
        return _task(row) if row else None

    def forget_tasks(self, project_id: int, task_ids: Iterable[int]) -> None:
        """Drop tasks that Label Studio no longer has, with what people said about them."""
        with self._engine.begin() as db:
            for chunk in chunks(sorted(task_ids)):
                for table in (
                    tables.tasks, tables.corrections, tables.seen_annotations, tables.audits, tables.approved_masks
                ):  # fmt: skip
                    db.execute(delete(table).where(table.c.project_id == project_id, table.c.task_id.in_(chunk)))

    # Rounds

    def begin_round(self, project_id: int, budget: int) -> Round:
        """The round that is unfinished, or a new one after the last.

        One that failed or was paused is taken up again where it stopped; of processes that begin one in the same
        instant, each is given the same.

        Args:
            project_id: of the project.
            budget: masks to queue; 0 leaves it to the project's settings.
        """
        try:
            found = self._begin_round(project_id, budget)
        except IntegrityError:
            found = self._begin_round(project_id, budget)
        self.retry_shards(project_id, found.number)
        return found

    def _begin_round(self, project_id: int, budget: int) -> Round:
        with self._engine.begin() as db:
            table = tables.rounds
            rows = db.execute(
                select(table.c.number, table.c.status).where(table.c.project_id == project_id).order_by(table.c.number)
            ).all()
            # A finished round that is published again is open too, though a cancelled one may come after it.
            unfinished = [row.number for row in rows if row.status not in ENDED]
            if unfinished:
                number = unfinished[-1]
                key = and_(table.c.project_id == project_id, table.c.number == number)
                asked = {"budget": budget} if budget else {}
                again = update(table).where(key, table.c.status != "cancelling")
                db.execute(again.values(status="running", error="", ended=0.0, **asked))
            else:
                number = rows[-1].number + 1 if rows else 0
                row = {
                    "project_id": project_id, "number": number, "status": "running", "budget": budget,
                    "started": time.time(),
                }  # fmt: skip
                db.execute(insert(table).values(**row))
            found = db.execute(select(table).where(table.c.project_id == project_id, table.c.number == number)).one()
        return _round(found)

    def change_status(
        self, project_id: int, number: int, before: Iterable[RoundStatus], after: RoundStatus, error: str = ""
    ) -> bool:
        """Bring a round from one of some states into another; whether it was in one of them."""
        table = tables.rounds
        ended = time.time() if after in (*ENDED, "failed") else 0.0
        with self._engine.begin() as db:
            key = and_(table.c.project_id == project_id, table.c.number == number, table.c.status.in_(list(before)))
            change = update(table).where(key).values(status=after, error=error, ended=ended)
            return bool(db.execute(change).rowcount)

    def forget_round(self, project_id: int, number: int) -> None:
        """Drop what a cancelled round had planned: its queue, audits, decisions and shards."""
        with self._engine.begin() as db:
            for table in (
                tables.queries, tables.audits, tables.strata, tables.audit_results, tables.proposal_groups,
                tables.auto_corrections, tables.shards,
            ):  # fmt: skip
                db.execute(delete(table).where(table.c.project_id == project_id, table.c.round == number))

    def save_round(self, record: Round) -> None:
        """Add a round, or bring what is known of it up to date; its status is changed by `change_status` alone."""
        table, row = tables.rounds, asdict(record)
        key = and_(table.c.project_id == record.project_id, table.c.number == record.number)
        known = {name: row[name] for name in ("version", "budget", "summary", "settings")}
        with self._engine.begin() as db:
            if not db.execute(update(table).where(key).values(**known)).rowcount:
                db.execute(insert(table).values(**row))

    def round(self, project_id: int, number: int) -> Round | None:
        """One round, or None if the project has not come to it."""
        table = tables.rounds
        with self._engine.connect() as db:
            row = db.execute(select(table).where(table.c.project_id == project_id, table.c.number == number)).first()
        return _round(row) if row else None

    def rounds(self, project_id: int) -> list[Round]:
        """Every round of a project, first to last."""
        table = tables.rounds
        with self._engine.connect() as db:
            rows = db.execute(select(table).where(table.c.project_id == project_id).order_by(table.c.number)).all()
        return [_round(row) for row in rows]

    def last_done(self, project_id: int) -> Round | None:
        """The newest round that was finished: the one whose labels Label Studio shows."""
        done = self.finished(project_id)
        return done[-1] if done else None

    def finished(self, project_id: int) -> list[Round]:
        """The rounds that were finished, first to last, also one that is published again."""
        return [
            record
            for record in self.rounds(project_id)
            if record.status == "done" or ("tasks" in record.summary and record.status != "cancelled")
        ]

    def unfinished(self) -> list[Round]:
        """Rounds that are running, or were when a process ended, and those whose cancelling is not finished."""
        table = tables.rounds
        with self._engine.connect() as db:
            rows = db.execute(select(table).where(table.c.status.in_(("running", "cancelling")))).all()
        return [_round(row) for row in rows]

    def save_phase(self, project_id: int, number: int, phase: Phase) -> None:
        """Replace a phase's progress."""
        with self._engine.begin() as db:
            row = asdict(phase) | {"project_id": project_id, "round": number}
            replace_rows(db, tables.phases, [row], ("project_id", "round", "name"))

    def phases(self, project_id: int, number: int) -> list[Phase]:
        """The phases of a round that have begun, in order."""
        table = tables.phases
        with self._engine.connect() as db:
            where = and_(table.c.project_id == project_id, table.c.round == number)
            rows = db.execute(select(table).where(where).order_by(table.c.started)).all()
        return [
            Phase(
                row.name, row.status, row.done, row.total, row.started, row.ended, row.rate, row.eta, row.note
            )
            for row in rows
        ]  # fmt: skip

    # What people said

    def seen_annotations(self, project_id: int) -> dict[int, SeenAnnotation]:
        """Annotations as last collected, by id."""
        table = tables.seen_annotations
        with self._engine.connect() as db:
            rows = db.execute(select(table).where(table.c.project_id == project_id)).all()
        return {row.annotation_id: SeenAnnotation(row.annotation_id, row.task_id, row.updated_at) for row in rows}

    def save_annotation(self, project_id: int, seen: SeenAnnotation, corrections: Sequence[Correction]) -> None:
        """Replace all that one annotation says."""
        rows = [asdict(correction) | {"project_id": project_id} for correction in corrections]
        for row in rows:
            row["made_at"] = row["made_at"].isoformat()
        table = tables.corrections
        with self._engine.begin() as db:
            where = and_(table.c.project_id == project_id, table.c.annotation_id == seen.annotation_id)
            db.execute(delete(table).where(where))
            if rows:
                db.execute(insert(table), rows)
            key = ("project_id", "annotation_id")
            replace_rows(db, tables.seen_annotations, [asdict(seen) | {"project_id": project_id}], key)

    def forget_annotations(self, project_id: int, annotation_ids: Iterable[int]) -> None:
        """Take back what deleted annotations said."""
        with self._engine.begin() as db:
            for chunk in chunks(sorted(annotation_ids)):
                for table in (tables.seen_annotations, tables.corrections):
                    where = and_(table.c.project_id == project_id, table.c.annotation_id.in_(chunk))
                    db.execute(delete(table).where(where))

    def corrections(self, project_id: int, task_ids: Sequence[int] | None = None) -> list[Correction]:
        """Every decision of people that stands, oldest first; of some tasks if they are named."""
        table = tables.corrections
        query = select(table).where(table.c.project_id == project_id)
        parts = [query] if task_ids is None else [query.where(table.c.task_id.in_(part)) for part in chunks(task_ids)]
        with self._engine.connect() as db:
            rows = [row for part in parts for row in db.execute(part)]
        rows.sort(key=lambda row: (row.made_at, row.annotation_id, row.region_id))
        return [
            Correction(
                row.annotation_id, row.task_id, row.region_id, row.kind, row.label, row.before, row.annotator,
                datetime.fromisoformat(row.made_at), row.round, row.shape_key,
            )
            for row in rows
        ]  # fmt: skip

    # What the machine did

    def save_auto_corrections(self, project_id: int, number: int, corrections: Sequence[AutoCorrection]) -> None:
        """Replace a round's automatic corrections."""
        self._replace_of_round(tables.auto_corrections, project_id, number, [asdict(item) for item in corrections])

    def auto_corrections(
        self, project_id: int, number: int, task_ids: Sequence[int] | None = None
    ) -> list[AutoCorrection]:
        """A round's automatic corrections, by task and region id; of some tasks if they are named."""
        table = tables.auto_corrections
        query = select(table).where(table.c.project_id == project_id, table.c.round == number)
        query = query.order_by(table.c.task_id, table.c.region_id)
        parts = [query] if task_ids is None else [query.where(table.c.task_id.in_(p)) for p in chunks(sorted(task_ids))]
        with self._engine.connect() as db:
            rows = [row for part in parts for row in db.execute(part)]
        return [
            AutoCorrection(row.round, row.task_id, row.region_id, row.before, row.after, row.confidence) for row in rows
        ]

    def count_corrections(self, project_id: int) -> int:
        """How many decisions of people stand."""
        table = tables.corrections
        with self._engine.connect() as db:
            query = select(func.count()).select_from(table).where(table.c.project_id == project_id)
            return int(db.execute(query).scalar() or 0)

    def save_queries(self, project_id: int, number: int, queries: Sequence[Query]) -> None:
        """Replace a round's queue."""
        self._replace_of_round(tables.queries, project_id, number, [asdict(query) for query in queries])

    def queries(self, project_id: int, number: int) -> list[Query]:
        """A round's queue, most valuable mask first."""
        table = tables.queries
        with self._engine.connect() as db:
            where = and_(table.c.project_id == project_id, table.c.round == number)
            rows = db.execute(select(table).where(where).order_by(table.c.rank)).all()
        return [query_from(row) for row in rows]

    def add_problems(self, project_id: int, problems: Sequence[Problem]) -> None:
        """Note problems; one that is already noted, as by a phase that was cut off, is not noted twice."""
        with self._engine.begin() as db:
            for problem in problems:
                row = asdict(problem) | {"project_id": project_id}
                known = (tables.problems.c[name] == value for name, value in row.items())
                if db.execute(select(tables.problems.c.id).where(*known)).first() is None:
                    db.execute(insert(tables.problems).values(**row))

    def forget_problems(self, project_id: int, number: int, phase: str) -> None:
        """Drop what a phase noted, before it is done anew."""
        table = tables.problems
        with self._engine.begin() as db:
            mine = and_(table.c.project_id == project_id, table.c.round == number, table.c.phase == phase)
            db.execute(delete(table).where(mine))

    def problems(self, project_id: int, number: int) -> list[Problem]:
        """A round's problems in the order they were met."""
        table = tables.problems
        with self._engine.connect() as db:
            where = and_(table.c.project_id == project_id, table.c.round == number)
            rows = db.execute(select(table).where(where).order_by(table.c.id)).all()
        return [Problem(row.round, row.phase, row.task_id, row.message) for row in rows]

    # Webhooks

    def add_event(self, action: str, project_id: int) -> None:
        """Persist a webhook before it is answered."""
        with self._engine.begin() as db:
            row = {"received": time.time(), "action": action, "project_id": project_id, "handled": 0}
            db.execute(insert(tables.events).values(**row))

    def open_events(self) -> list[Event]:
        """Webhooks that were not acted on yet, oldest first."""
        table = tables.events
        with self._engine.connect() as db:
            rows = db.execute(select(table).where(table.c.handled == 0).order_by(table.c.id)).all()
        return [Event(row.id, row.action, row.project_id) for row in rows]

    def close_events(self, event_ids: Iterable[int]) -> None:
        """Drop webhooks that were acted on."""
        with self._engine.begin() as db:
            for part in chunks(sorted(event_ids)):
                db.execute(delete(tables.events).where(tables.events.c.id.in_(part)))

    # One lock a project

    def take_lock(self, project_id: int, owner: str, stale_after: float) -> bool:
        """Take or renew a project's lock; one whose owner has not renewed it for `stale_after` seconds is free."""
        table = tables.locks
        now = time.time()
        with self._engine.begin() as db:
            free = (table.c.owner == owner) | (table.c.beat < now - stale_after)
            taken = db.execute(
                update(table).where(table.c.project_id == project_id, free).values(owner=owner, beat=now)
            )
            if taken.rowcount:
                return True
            held = db.execute(select(func.count()).select_from(table).where(table.c.project_id == project_id)).scalar()
        if held:
            return False
        try:
            with self._engine.begin() as db:
                db.execute(insert(table).values(project_id=project_id, owner=owner, beat=now))
        except IntegrityError:  # another process was quicker
            return False
        return True

    def lock_owner(self, project_id: int) -> str:
        """Who holds or held a project's lock last, "" for nobody."""
        table = tables.locks
        with self._engine.connect() as db:
            return str(db.execute(select(table.c.owner).where(table.c.project_id == project_id)).scalar() or "")

    def release_lock(self, project_id: int, owner: str) -> None:
        """Give a project's lock back, if it is this owner's."""
        table = tables.locks
        with self._engine.begin() as db:
            db.execute(delete(table).where(table.c.project_id == project_id, table.c.owner == owner))


_SCHEMA_LOCK = 0x61326C63
_LOCKED_SECONDS = 30.0


def _lock_schema(connection: Connection) -> None:
    """Let one process at a time look after the schema; one that is killed leaves the schema as it was."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")


def _refuse_newer(connection: Connection, known: ScriptDirectory) -> None:
    """Raise NewerLedgerError for a schema that no migration of this program leads to."""
    revisions = {script.revision for script in known.walk_revisions()}
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - revisions
    if unknown:
        raise NewerLedgerError(
            f"the ledger has the schema {', '.join(sorted(unknown))}, which is newer than this program; install the "
            "version that made it, or restore the backup from before the upgrade (docs/operations.md)"
        )


def _with_driver(url: str) -> str:
    """The address with the driver that is installed, where it names a PostgreSQL without one."""
    parsed = make_url(url)
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+pg8000")
    return parsed.render_as_string(hide_password=False)


def _make_engine(url: str) -> Engine:
    parsed = make_url(url)
    if not parsed.drivername.startswith("sqlite"):
        return create_engine(parsed, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _LOCKED_SECONDS})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        # Readers do not wait for the writer, and a killed process leaves a whole database.
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


def _use_wal(connection: Any) -> None:
    """Switch to the write-ahead log; SQLite waits for no lock here, though processes that open a new file hold some."""
    end = time.monotonic() + _LOCKED_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _task(row: Any) -> TaskState:
    return TaskState(row.task_id, row.image, bool(row.ready), row.mask_key, row.error, row.pixels)


def _round(row: Any) -> Round:
    return Round(
        row.project_id, row.number, cast("RoundStatus", row.status), row.version, row.budget, row.error, row.started,
        row.ended, dict(row.summary or {}), dict(row.settings or {}),
    )  # fmt: skip
