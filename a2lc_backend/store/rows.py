"""Reading and writing rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Table, delete, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from a2lc_backend.store.records import Query

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


def query_from(row: Any) -> Query:
    """A query as the ledger holds it."""
    return Query(
        row.round, row.rank, row.task_id, row.region_id, row.label, row.guess, row.acquisition, row.certainty, row.why
    )  # fmt: skip


def replace_rows(db: Connection, table: Table, rows: list[dict[str, Any]], key: tuple[str, ...]) -> None:
    """Insert rows in place of those with the same primary key; two processes may write the same at once."""
    dialect = postgresql if db.dialect.name == "postgresql" else sqlite
    adding = dialect.insert(table)
    others = {column.name: adding.excluded[column.name] for column in table.c if column.name not in key}
    for chunk in chunks(rows):
        db.execute(adding.on_conflict_do_update(index_elements=list(key), set_=others), chunk)


def chunks(items: Sequence[Any]) -> Iterable[Any]:
    """Parts of a sequence that fit into one statement."""
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
