"""What people's answers to the audits say of automatic corrections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.audit import STRATA, Estimate, Evidence, Survey, next_fixes, still_wrong
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.pool import Answers, Pool
from a2lc_backend.rounds.queue import QueueTable, build_queue, expected_share
from a2lc_backend.rounds.workspace import Labels
from a2lc_backend.store import Audit, AuditResult, Round

BUDGETS: Mapping[float, str] = {0.5: "_half", 1.0: "", 2.0: "_double"}
"""Shares of the budget for which `take_stock` says what the queue would mend, and how the summary names them."""


def evidence_of(audits: Iterable[Audit], answers: Answers) -> Evidence:
    """What the answers to some audited masks say; those not answered yet count nowhere."""
    rows = [
        (item.before, item.after, answers[item.task_id, item.region_id])
        for item in audits
        if (item.task_id, item.region_id) in answers
    ]
    return Evidence.count(*np.array(rows, np.int64).reshape(-1, 3).T)


def evidence_by_stratum(audits: Iterable[Audit], answers: Answers) -> tuple[Evidence, ...]:
    """What the deciding audits of all rounds say of each stratum."""
    deciding = [item for item in audits if item.purpose == "deciding"]
    return tuple(
        evidence_of((item for item in deciding if item.stratum == index), answers) for index in range(len(STRATA))
    )


def take_stock(
    context: Context, pool: Pool, labels: Labels, table: QueueTable, queue: NDArray[np.int64], seed: int
) -> dict[str, float]:
    """Count what the audits of the rounds before have found, and estimate what is left to do.

    Writes the results of the stating audits into the ledger.

    Args:
        context: of the round.
        pool: its masks.
        labels: of the round.
        table: what ranking knows of them.
        queue: (n,) int64, the masks queued.
        seed: they were queued with.

    Returns:
        For the round's summary: `queued` masks; `unanswered` masks that a sample may draw, and of those `automatic`
        ones; from round 1 on `next_fixes`, and where a random sample was answered `still_wrong`, each with `_low` and
        `_high`. `queued_half`, `next_fixes_half` and their like tell of the queues of other `BUDGETS`.
    """
    ledger, project_id, number = context.ledger, context.project_id, context.number
    open_masks = table.askable & table.unanswered & ~table.disputed
    automatic = int((open_masks & table.automatic).sum())
    counts = {"queued": len(queue), "unanswered": float(open_masks.sum()), "automatic": float(automatic)}
    answers, audits = pool.answers, ledger.audits(project_id)
    results, surveys = [], []
    for record in ledger.rounds(project_id):
        if record.number >= number or record.status != "done" or "automatic" not in record.summary:
            continue
        drawn = [item for item in audits if item.round == record.number]
        survey = _survey(context, pool, record, drawn, answers)
        surveys.append(survey)
        if survey.applied:
            sampled = sum(item.purpose == "stating" for item in drawn)
            found = survey.stating
            results.append(
                AuditResult(
                    number, record.number, survey.applied, sampled, found.audited, found.right, found.broken
                )
            )  # fmt: skip
    if results:
        columns = ("applied", "drawn", "audited", "right", "broken")
        total = (sum(getattr(result, name) for result in results) for name in columns)
        results.append(AuditResult(number, -1, *total))
    ledger.save_audit_results(project_id, number, results)
    if context.previous is None:
        return counts
    wrong = still_wrong(surveys, automatic, int(open_masks.sum()))
    counts |= _spelled("still_wrong", wrong)
    hits, answered = _hit_rate(context, labels, answers)
    budget = context.current().budget
    for share, suffix in BUDGETS.items():
        other = queue if share == 1 else build_queue(table, context.settings, round(share * budget), seed).masks
        counts[f"queued{suffix}"] = len(other)
        counts |= _spelled(f"next_fixes{suffix}", next_fixes_of(table, queue, other, (hits, answered), wrong))
    return counts


def next_fixes_of(
    table: QueueTable,
    queue: NDArray[np.int64],
    other: NDArray[np.int64],
    heard: tuple[int, int],
    wrong: Estimate | None,
) -> Estimate:
    """What the queue of another budget should mend.

    Args:
        table: what ranking knows of the masks.
        queue: (n,) int64, the masks queued.
        other: (m,) int64, the masks that another budget would queue.
        heard: answers of the last queue that changed a label, and all of them.
        wrong: masks that are still wrong.
    """
    hits, answered = heard
    expected, theirs = expected_share(table, queue), expected_share(table, other)
    # θ says how much worse or better the masks are that another budget would ask about.
    likely = min(hits * theirs / expected, answered) if expected else hits
    return next_fixes(likely, answered, len(other), theirs, wrong)


def _survey(context: Context, pool: Pool, record: Round, drawn: Sequence[Audit], answers: Answers) -> Survey:
    """What the samples of an earlier round have found by now; a mask that people deleted counts as wrong."""
    stating = evidence_of((item for item in drawn if item.purpose == "stating"), answers)
    looked = evidence_of((item for item in drawn if item.purpose == "random"), answers)
    since = _was_there(context, pool, record.number) & (pool.first_answered > record.number)
    wrong = since & ((pool.human == IGNORE) | (pool.human != pool.first))
    applied = int(record.summary["automatic"])
    return Survey(
        applied, stating, int(record.summary["unanswered"]) - applied, looked.audited, looked.audited - looked.right,
        int(wrong.sum()), int(since.sum()),
    )  # fmt: skip


def _was_there(context: Context, pool: Pool, number: int) -> NDArray[np.bool_]:
    """Masks that an earlier round knew, (N,) bool: images are added, and people draw masks."""
    labels = context.workspace.labels(number)
    known = np.zeros(len(pool.human), np.bool_)
    for state, catalog, span in pool.spans():
        place = labels.find(state.task_id)
        if place is None:
            continue
        key = labels.mask_keys[place]
        names = None if key == state.mask_key else set(context.workspace.catalog(key).region_ids)
        known[span] = True if names is None else [name in names for name in catalog.region_ids]
    return known


def _hit_rate(context: Context, labels: Labels, answers: Answers) -> tuple[int, int]:
    """Answers of the last queue that changed a label, and all of them; none where it was ranked in another way."""
    if context.previous is None or not _ranked_alike(context, context.previous, labels):
        return 0, 0
    asked = [
        (query.label, answers[query.task_id, query.region_id])
        for query in context.ledger.queries(context.project_id, context.previous.number)
        if (query.task_id, query.region_id) in answers
    ]
    return sum(held != answer for held, answer in asked), len(asked)


def _ranked_alike(context: Context, previous: Round, labels: Labels) -> bool:
    """Whether the last queue heeded the corrector just as this one does."""
    if context.settings.ranking != "doubt":
        return True
    before = context.workspace.labels(previous.number)
    return bool(np.isfinite(before.doubt).any() == np.isfinite(labels.doubt).any())


def _spelled(name: str, estimate: Estimate | None) -> dict[str, float]:
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
