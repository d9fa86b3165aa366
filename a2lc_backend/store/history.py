"""The part of the ledger that tells what happened to a single mask."""

from __future__ import annotations

from sqlalchemy import Table, select
from sqlalchemy.engine import Row

from a2lc_backend.store import tables
from a2lc_backend.store.records import Audit, AutoCorrection, Query, Undone
from a2lc_backend.store.rows import RoundTables, query_from


class HistoryTables(RoundTables):
    """All rounds of one mask; `Ledger` is the whole."""

    def auto_corrections_of(self, project_id: int, task_id: int, region_id: str) -> list[AutoCorrection]:
        """How the label of a mask changed without a person, by round."""
        rows = self._of_mask(tables.auto_corrections, project_id, task_id, region_id)
        return [
            AutoCorrection(row.round, row.task_id, row.region_id, row.before, row.after, row.confidence) for row in rows
        ]

    def queries_of(self, project_id: int, task_id: int, region_id: str) -> list[Query]:
        """When people were asked about a mask, by round."""
        rows = self._of_mask(tables.queries, project_id, task_id, region_id)
        return [query_from(row) for row in rows]

    def audits_of(self, project_id: int, task_id: int, region_id: str) -> list[Audit]:
        """The audits that a mask was drawn for, by round."""
        rows = self._of_mask(tables.audits, project_id, task_id, region_id)
        return [
            Audit(row.round, row.task_id, row.region_id, row.purpose, row.stratum, row.before, row.after)
            for row in rows
        ]  # fmt: skip

    def undone_of(self, project_id: int, task_id: int, region_id: str) -> list[Undone]:
        """The automatic corrections of a mask that people took back, by round."""
        rows = self._of_mask(tables.undone, project_id, task_id, region_id)
        return [Undone(row.round, row.task_id, row.region_id, row.before, row.after, row.source) for row in rows]

    def _of_mask(self, table: Table, project_id: int, task_id: int, region_id: str) -> list[Row[tuple[object, ...]]]:
        mine = (table.c.project_id == project_id, table.c.task_id == task_id, table.c.region_id == region_id)
        with self._engine.connect() as db:
            return list(db.execute(select(table).where(*mine).order_by(table.c.round)).all())
