"""The part of the ledger that knows people, and who is logged in."""

from __future__ import annotations

import time
from dataclasses import asdict

from sqlalchemy import delete, insert, select

from a2lc_backend.store import tables
from a2lc_backend.store.records import Person, Session
from a2lc_backend.store.rows import RoundTables, replace_rows


class PeopleTables(RoundTables):
    """People and their sessions; `Ledger` is the whole."""

    def save_people(self, people: list[Person]) -> None:
        """Add people, or bring what is known of them up to date."""
        with self._engine.begin() as db:
            replace_rows(db, tables.people, [asdict(person) for person in people], ("id",))

    def people(self) -> dict[int, Person]:
        """Everybody who is known, by user id."""
        with self._engine.connect() as db:
            rows = db.execute(select(tables.people)).all()
        return {row.id: Person(row.id, row.name, row.email) for row in rows}

    def open_session(self, session: Session) -> None:
        """Remember that somebody logged in; sessions that are over are dropped."""
        table = tables.sessions
        with self._engine.begin() as db:
            db.execute(delete(table).where(table.c.expires < time.time()))
            db.execute(insert(table).values(asdict(session) | {"is_owner": int(session.is_owner)}))

    def session(self, key: str) -> Session | None:
        """A session that is not over."""
        table = tables.sessions
        with self._engine.connect() as db:
            row = db.execute(select(table).where(table.c.key == key, table.c.expires >= time.time())).first()
        return Session(row.key, row.person, bool(row.is_owner), row.expires) if row else None

    def close_session(self, key: str) -> None:
        """Forget a session."""
        with self._engine.begin() as db:
            db.execute(delete(tables.sessions).where(tables.sessions.c.key == key))
