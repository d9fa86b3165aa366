"""The part of the ledger that knows how large stored embeddings are and when they were last used."""

from __future__ import annotations

import time

from sqlalchemy import delete, func, select

from a2lc_backend.store import tables
from a2lc_backend.store.rows import RoundTables, replace_rows


class EmbeddingTables(RoundTables):
    """Embeddings by the key of their artifact; `Ledger` is the whole."""

    def use_embedding(self, key: str, size: int) -> None:
        """Note that a stored embedding of some bytes was used just now."""
        with self._engine.begin() as db:
            row = {"key": key, "bytes": size, "used": time.time()}
            replace_rows(db, tables.embeddings, [row], ("key",))

    def surplus_embeddings(self, most: int) -> list[str]:
        """The least recently used embeddings, as many as lie beyond a number of bytes in all."""
        table = tables.embeddings
        with self._engine.connect() as db:
            if (db.execute(select(func.sum(table.c.bytes))).scalar() or 0) <= most:
                return []
            kept, surplus = 0, []
            for row in db.execute(select(table.c.key, table.c.bytes).order_by(table.c.used.desc())):
                kept += row.bytes
                if kept > most:
                    surplus.append(row.key)
        return surplus

    def forget_embedding(self, key: str) -> None:
        """Drop what is known of an embedding."""
        table = tables.embeddings
        with self._engine.begin() as db:
            db.execute(delete(table).where(table.c.key == key))
