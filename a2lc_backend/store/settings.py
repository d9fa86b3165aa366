"""The part of the ledger that knows who changed which setting of a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import insert, select

from a2lc_backend.store import tables
from a2lc_backend.store.records import SettingChange
from a2lc_backend.store.rows import RoundTables


class SettingTables(RoundTables):
    """The history of settings; `Ledger` is the whole."""

    def add_setting_changes(self, project_id: int, changes: Sequence[SettingChange]) -> None:
        """Write down changes of a project's settings."""
        if changes:
            with self._engine.begin() as db:
                rows = [asdict(change) | {"project_id": project_id} for change in changes]
                db.execute(insert(tables.setting_changes), rows)

    def setting_changes(self, project_id: int) -> list[SettingChange]:
        """The changes of a project's settings, the latest first."""
        table = tables.setting_changes
        with self._engine.connect() as db:
            rows = db.execute(select(table).where(table.c.project_id == project_id).order_by(table.c.id.desc())).all()
        return [SettingChange(row.name, row.before, row.after, row.person, row.changed_at) for row in rows]
