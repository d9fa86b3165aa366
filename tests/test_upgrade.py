"""Ledgers of older versions are brought to the present schema with what they hold; a backup comes back whole."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.store import Artifacts, Ledger, NewerLedgerError, tables
from a2lc_backend.store.ledger import _with_driver
from tests.conftest import REPOSITORY
from tests.documents import block
from tests.servers import PostgresServer
from tests.stored import PROJECT, StoredProject
from tests.terminal import Terminal

MIGRATIONS = REPOSITORY / "a2lc_backend/store/migrations"
OPERATIONS = "docs/operations.md"

KINDS = ["sqlite", pytest.param("postgresql", marks=[pytest.mark.e2e, pytest.mark.postgres])]


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    return made


def revisions() -> list[str]:
    """Every schema there has been, the first one first."""
    return [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()][::-1]


def new_database(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder / 'ledger.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


def some_value(column: sa.Column[Any], number: int) -> Any:
    """A value that no default gives."""
    if column.name == "status":
        return "done"
    kinds: list[tuple[Any, Any]] = [
        (sa.JSON, {"some": [number, "ü"]}), (sa.Float, number + 0.5), (sa.Integer, number + 1),
    ]  # fmt: skip
    return next((value for kind, value in kinds if isinstance(column.type, kind)), f"ü{number}"[:16])


def fill(engine: sa.Engine) -> dict[str, list[dict[str, Any]]]:
    """Two rows in each table of a schema as it was; what was written."""
    held = sa.MetaData()
    held.reflect(engine)
    written = {}
    with engine.begin() as db:
        for table in held.tables.values():
            if table.name == "alembic_version":
                continue
            # SQLite says JSON of itself, both databases say what the present tables say.
            present = tables.metadata.tables.get(table.name)
            for column in table.columns:
                if present is not None and column.name in present.columns:
                    column.type = present.columns[column.name].type
            rows = [{column.name: some_value(column, number) for column in table.columns} for number in (1, 2)]
            db.execute(sa.insert(table), rows)
            written[table.name] = rows
    return written


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("revision", revisions())
def test_what_an_older_version_wrote_is_kept(
    kind: str, revision: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = new_database(kind, tmp_path, request)
    engine = sa.create_engine(_with_driver(url))
    with engine.connect() as connection:
        old = config()
        old.attributes["connection"] = connection
        command.upgrade(old, revision)
        connection.commit()
    written = fill(engine)
    assert {"projects", "tasks", "rounds", "corrections", "queries"} <= set(written)

    with closing(Ledger(url)) as ledger:
        assert [record.status for record in ledger.rounds(2)] == ["done"]
        assert ledger.project(3) is not None
    with engine.connect() as db:
        for name, rows in written.items():
            table = tables.metadata.tables[name]
            found = [dict(row._mapping) for row in db.execute(sa.select(table))]
            assert len(found) == 2, name
            for row in rows:
                kept = {key: value for key, value in row.items() if key in table.columns}
                assert any(kept.items() <= other.items() for other in found), f"{name}: {row} is not in {found}"
        present = sa.MetaData()
        present.reflect(engine)
    assert set(present.tables) == {*tables.metadata.tables, "alembic_version"}
    for name, table in tables.metadata.tables.items():
        assert set(present.tables[name].columns.keys()) == set(table.columns.keys()), name
    engine.dispose()


def test_a_newer_ledger_is_refused_with_the_mend(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url).close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
        db.commit()
    with pytest.raises(NewerLedgerError, match="schema 9999, which is newer than this program; install"):
        Ledger(url)
    environment = os.environ | {"A2LC_DATA_DIR": str(tmp_path), "A2LC_PORT": "9", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", "a2lc_backend", "rounds", "list", "-p", "7"], env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "restore the backup" in done.stderr, "Traceback" in done.stderr) == (1, True, False)


def everything(url: str) -> dict[str, list[str]]:
    """Every row of a ledger."""
    engine = sa.create_engine(_with_driver(url))
    with engine.connect() as db:
        found = {
            name: sorted(map(repr, db.execute(sa.select(table)))) for name, table in tables.metadata.tables.items()
        }
    engine.dispose()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_backup_of_operations_comes_back(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The commands of docs/operations.md, on a store with two rounds, which then is lost."""
    data = tmp_path / "data"
    data.mkdir()
    url = new_database(kind, data, request)
    shared = data / "artifacts"
    with closing(Ledger(url)) as ledger:
        project = StoredProject(ledger, Artifacts(f"file://{shared}"))
        labels = project.labels()
        project.finish_round(0, labels)
        project.finish_round(1, project.apply(labels, [0, 1, 5], 2, 1))
    before = everything(url)
    files = {path.relative_to(shared): path.read_bytes() for path in shared.rglob("*") if path.is_file()}
    assert before["rounds"]
    assert len(files) > 5

    terminal = Terminal(tmp_path, tmp_path / "terminal", {"A2LC_DATA_DIR": str(data), "A2LC_DATABASE_URL": url})
    if kind == "sqlite":
        terminal.run(block(OPERATIONS, "mkdir backup").text)
        shutil.rmtree(data)
        terminal.run(block(OPERATIONS, 'mkdir -p "$A2LC_DATA_DIR"').text)
    else:
        place = {"/shared/a2lc": str(shared)}
        terminal.run(block(OPERATIONS, "mkdir backup-of-team").meaning(place))
        shutil.rmtree(shared)
        with closing(Ledger(url)) as ledger:  # not even empty, and with something else in it
            ledger.forget_tasks(PROJECT, [1])
        terminal.run(block(OPERATIONS, "psql").meaning(place))
    assert everything(url) == before
    assert {path.relative_to(shared): path.read_bytes() for path in shared.rglob("*") if path.is_file()} == files
    with closing(Ledger(url)) as ledger:
        assert [record.number for record in ledger.rounds(PROJECT)] == [0, 1]
    assert Workspace(Artifacts(f"file://{shared}"), PROJECT).labels(1).labels[:2].tolist() == [2, 2]
