"""The part of the ledger that takes a project as a whole: forget it, or begin with a round that was not run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, insert

from a2lc_backend.store import tables
from a2lc_backend.store.records import Phase, Round
from a2lc_backend.store.rows import RoundTables

_NOT_THE_MACHINES = (
    tables.locks, tables.workers, tables.embeddings, tables.people, tables.sessions, tables.review_projects,
    tables.questions, tables.answers, tables.leases, tables.setting_changes,
)  # fmt: skip
"""What is nobody's project, or what people did and nothing else holds: it outlasts the project's masks and rounds."""


class WholeProject(RoundTables):
    """All that the ledger holds of a project; `Ledger` is the whole."""

    def forget_project(self, project_id: int) -> None:
        """Drop what the machine did in a project; a lock on it stays, and what people said on the review page."""
        with self._engine.begin() as db:
            for table in tables.metadata.sorted_tables:
                if table not in _NOT_THE_MACHINES:
                    owner = table.c.id if table is tables.projects else table.c.project_id
                    db.execute(delete(table).where(owner == project_id))

    def adopt_round(self, record: Round, phases: Sequence[Phase]) -> None:
        """Make a round the only one of its project, with these phases begun."""
        with self._engine.begin() as db:
            for table in (tables.rounds, tables.phases, tables.shards):
                db.execute(delete(table).where(table.c.project_id == record.project_id))
            db.execute(insert(tables.rounds).values(**asdict(record)))
            key = {"project_id": record.project_id, "round": record.number}
            db.execute(insert(tables.phases), [asdict(phase) | key for phase in phases])
