"""The part of the ledger that says why automatic corrections were applied, what audits found, what was taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection

from a2lc_backend.store import tables
from a2lc_backend.store.records import Audit, AuditResult, ProposalGroup, StratumDecision, Undone
from a2lc_backend.store.rows import RoundTables, replace_rows


class TrustTables(RoundTables):
    """Audits, decisions, approvals and undo; `Ledger` is the whole."""

    def save_audits(self, project_id: int, number: int, audits: Sequence[Audit]) -> None:
        """Replace the masks that a round drew for its audits."""
        self._replace_of_round(tables.audits, project_id, number, [asdict(item) for item in audits])

    def audits(self, project_id: int) -> list[Audit]:
        """The masks that all rounds of a project drew, by round."""
        table = tables.audits
        order = (table.c.round, table.c.task_id, table.c.region_id)
        with self._engine.connect() as db:
            rows = db.execute(select(table).where(table.c.project_id == project_id).order_by(*order)).all()
        return [
            Audit(row.round, row.task_id, row.region_id, row.purpose, row.stratum, row.before, row.after)
            for row in rows
        ]  # fmt: skip

    def save_decisions(
        self, project_id: int, number: int, strata: Sequence[StratumDecision], groups: Sequence[ProposalGroup]
    ) -> None:
        """Replace what a round did with its proposals, by stratum and by class."""
        rows = [asdict(item) | {"taken": int(item.taken)} for item in strata]
        self._replace_of_round(tables.strata, project_id, number, rows)
        self._replace_of_round(tables.proposal_groups, project_id, number, [asdict(item) for item in groups])

    def strata(self, project_id: int, number: int) -> list[StratumDecision]:
        """What a round did with each stratum of its proposals."""
        table = tables.strata
        with self._engine.connect() as db:
            where = (table.c.project_id == project_id, table.c.round == number)
            rows = db.execute(select(table).where(*where).order_by(table.c.stratum)).all()
        return [
            StratumDecision(
                row.round, row.stratum, row.proposed, bool(row.taken), row.audited, row.right, row.broken
            )
            for row in rows
        ]  # fmt: skip

    def proposal_groups(self, project_id: int, number: int) -> list[ProposalGroup]:
        """The proposals of a round by class, the largest group first."""
        table = tables.proposal_groups
        order = (table.c.proposed.desc(), table.c.before, table.c.after)
        with self._engine.connect() as db:
            where = (table.c.project_id == project_id, table.c.round == number)
            rows = db.execute(select(table).where(*where).order_by(*order)).all()
        return [ProposalGroup(row.round, row.before, row.after, row.proposed, row.ready, row.applied) for row in rows]

    def save_audit_results(self, project_id: int, number: int, results: Sequence[AuditResult]) -> None:
        """Replace what stating audits had found by a round."""
        self._replace_of_round(tables.audit_results, project_id, number, [asdict(item) for item in results])

    def audit_results(self, project_id: int, number: int) -> list[AuditResult]:
        """What stating audits had found by a round; all rounds together come first."""
        table = tables.audit_results
        with self._engine.connect() as db:
            where = (table.c.project_id == project_id, table.c.round == number)
            rows = db.execute(select(table).where(*where).order_by(table.c.about)).all()
        return [
            AuditResult(row.round, row.about, row.applied, row.drawn, row.audited, row.right, row.broken)
            for row in rows
        ]  # fmt: skip

    def approve(self, project_id: int, before: int, after: int, approved: bool) -> None:
        """Let rounds from the next on apply the proposals of a group, or no longer."""
        row = {"project_id": project_id, "before": before, "after": after}
        with self._engine.begin() as db:
            table = tables.approvals
            db.execute(delete(table).where(*(table.c[name] == value for name, value in row.items())))
            if approved:
                db.execute(insert(table).values(**row))

    def approvals(self, project_id: int) -> frozenset[tuple[int, int]]:
        """The groups that a person approved, (before, after)."""
        table = tables.approvals
        with self._engine.connect() as db:
            rows = db.execute(select(table).where(table.c.project_id == project_id)).all()
        return frozenset((row.before, row.after) for row in rows)

    def approve_masks(self, project_id: int, masks: Mapping[tuple[int, str], int], approved: bool) -> None:
        """Let rounds from the next on apply what is proposed for single masks, or no longer.

        Args:
            project_id: of the project.
            masks: the label that is approved, by task id and region id.
            approved: False takes the approval back.
        """
        table, key = tables.approved_masks, ("project_id", "task_id", "region_id", "label")
        rows = [dict(zip(key, (project_id, *mask, label), strict=True)) for mask, label in masks.items()]
        if not rows:
            return
        with self._engine.begin() as db:
            db.execute(delete(table).where(*(table.c[name] == bindparam(f"of_{name}") for name in key)), _bound(rows))
            if approved:
                db.execute(insert(table), rows)

    def approved_masks(self, project_id: int) -> dict[tuple[int, str], set[int]]:
        """The labels that a person approved for single masks, by task id and region id."""
        table, found = tables.approved_masks, dict[tuple[int, str], set[int]]()
        with self._engine.connect() as db:
            for row in db.execute(select(table).where(table.c.project_id == project_id)):
                found.setdefault((row.task_id, row.region_id), set()).add(row.label)
        return found

    def undo(self, project_id: int, items: Sequence[Undone], last: int, version: str) -> None:
        """Take automatic corrections back: the labels they had replaced hold again.

        Args:
            project_id: of the project.
            items: the corrections.
            last: the finished round that is reopened, to be published again.
            version: of its predictions from then on.
        """
        rows = [asdict(item) | {"project_id": project_id} for item in items]
        with self._engine.begin() as db:
            replace_rows(db, tables.undone, rows, ("project_id", "round", "task_id", "region_id"))
            _reopen(db, project_id, last, version)

    def redo(self, project_id: int, items: Sequence[Undone], last: int | None, version: str) -> None:
        """Let corrections that were taken back hold again; no round is reopened if `last` is None."""
        table, key = tables.undone, ("project_id", "round", "task_id", "region_id")
        rows = [dict(zip(key, (project_id, item.round, item.task_id, item.region_id), strict=True)) for item in items]
        with self._engine.begin() as db:
            db.execute(delete(table).where(*(table.c[name] == bindparam(f"of_{name}") for name in key)), _bound(rows))
            if last is not None:
                _reopen(db, project_id, last, version)

    def undone(self, project_id: int) -> list[Undone]:
        """The automatic corrections that people took back, by round."""
        table = tables.undone
        order = (table.c.round, table.c.task_id, table.c.region_id)
        with self._engine.connect() as db:
            rows = db.execute(select(table).where(table.c.project_id == project_id).order_by(*order)).all()
        return [Undone(row.round, row.task_id, row.region_id, row.before, row.after, row.source) for row in rows]


def _bound(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as parameters of a condition: a column's own name is taken there."""
    return [{f"of_{name}": value for name, value in row.items()} for row in rows]


def _reopen(db: Connection, project_id: int, number: int, version: str) -> None:
    """Let a finished round be published again, under another version."""
    for table, name in ((tables.phases, tables.phases.c.name), (tables.shards, tables.shards.c.phase)):
        db.execute(delete(table).where(table.c.project_id == project_id, table.c.round == number, name == "publish"))
    rounds = tables.rounds
    mine = (rounds.c.project_id == project_id, rounds.c.number == number)
    db.execute(update(rounds).where(*mine).values(status="running", error="", version=version))
