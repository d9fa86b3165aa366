"""Writing rows in place of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Table, bindparam, delete, insert
from sqlalchemy.engine import Connection, Engine

_CHUNK = 500


class RoundTables:
    """Tables whose rows belong to a round.

    Args:
        engine: of the database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _replace_of_round(self, table: Table, project_id: int, number: int, rows: list[dict[str, Any]]) -> None:
        """Replace all rows that a round has in a table."""
        with self._engine.begin() as db:
            db.execute(delete(table).where(table.c.project_id == project_id, table.c.round == number))
            if rows:
                db.execute(insert(table), [row | {"project_id": project_id} for row in rows])


def replace_rows(db: Connection, table: Table, rows: list[dict[str, Any]], key: tuple[str, ...]) -> None:
    """Insert rows in place of those with the same key."""
    old = delete(table).where(*(table.c[name] == bindparam(f"old_{name}") for name in key))
    for chunk in chunks(rows):
        db.execute(old, [{f"old_{name}": row[name] for name in key} for row in chunk])
        db.execute(insert(table), chunk)


def chunks(items: Sequence[Any]) -> Iterable[Any]:
    """Parts of a sequence that fit into one statement."""
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
