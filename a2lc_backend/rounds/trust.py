"""What people's answers to the audits say of automatic corrections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from a2lc_backend.audit import STRATA, Estimate, Evidence, Survey, next_fixes, still_wrong
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.pool import Pool
from a2lc_backend.rounds.reading import verdicts
from a2lc_backend.rounds.workspace import SOURCES, Labels
from a2lc_backend.store import Audit, AuditResult, Ledger

Answers = Mapping[tuple[int, str], int]
"""The label people agree on, by task id and region id; `IGNORE` for a mask that was deleted."""


def settled_answers(ledger: Ledger, project_id: int) -> Answers:
    """Every mask that people have answered and do not disagree about."""
    found = verdicts(ledger.corrections(project_id))
    return {key: verdict.label for key, verdict in found.items() if not verdict.disputed}


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


def take_stock(context: Context, pool: Pool, labels: Labels, queries: int, expected: float) -> dict[str, float]:
    """Count what the audits of the rounds before have found, and estimate what is left to do.

    Writes the results of the stating audits into the ledger.

    Args:
        context: of the round.
        pool: its masks.
        labels: of the round.
        queries: masks in its queue.
        expected: share of them that θ takes for wrong.

    Returns:
        Counts and estimates for the round's summary: `unanswered` and `automatic` masks, and where people have
        answered, `still_wrong` and `next_fixes`, each with `_low` and `_high`.
    """
    ledger, project_id, number = context.ledger, context.project_id, context.number
    unanswered = (pool.human == IGNORE) & pool.live
    automatic = int((unanswered & (labels.sources == SOURCES.index("corrector"))).sum())
    counts = {"unanswered": float(unanswered.sum()), "automatic": float(automatic)}
    answers, audits = settled_answers(ledger, project_id), ledger.audits(project_id)
    wrong = (pool.human != IGNORE) & (pool.human != pool.first)
    results, surveys = [], []
    for record in ledger.rounds(project_id):
        if record.number >= number or "automatic" not in record.summary:
            continue
        drawn = [item for item in audits if item.round == record.number]
        stating = [item for item in drawn if item.purpose == "stating"]
        found = evidence_of(stating, answers)
        applied = int(record.summary["automatic"])
        if applied:
            results.append(
                AuditResult(
                    number, record.number, applied, len(stating), found.audited, found.right, found.broken
                )
            )  # fmt: skip
        looked = evidence_of((item for item in drawn if item.purpose == "random"), answers)
        since = pool.live & (pool.answered > record.number)
        rest = int(record.summary["unanswered"]) - applied
        surveys.append(
            Survey(
                applied,
                found,
                rest,
                looked.audited,
                looked.audited - looked.right,
                int((wrong & since).sum()),
                int(since.sum()),
            )
        )
    if results:
        columns = ("applied", "drawn", "audited", "right", "broken")
        total = (sum(getattr(result, name) for result in results) for name in columns)
        results.append(AuditResult(number, -1, *total))
    ledger.save_audit_results(project_id, number, results)
    if number == 0:
        return counts
    alike = _ranked_alike(context, labels)
    asked = [
        (query.label, answers[query.task_id, query.region_id])
        for query in ledger.queries(project_id, number - 1)
        if alike and (query.task_id, query.region_id) in answers
    ]
    hits = sum(held != answer for held, answer in asked)
    counts |= _spelled("still_wrong", still_wrong(surveys, automatic, int(unanswered.sum())))
    return counts | _spelled("next_fixes", next_fixes(hits, len(asked), queries, expected))


def _ranked_alike(context: Context, labels: Labels) -> bool:
    """Whether the last queue heeded the corrector just as this one does."""
    if context.settings.ranking != "doubt":
        return True
    before = context.workspace.labels(context.number - 1)
    return bool(np.isfinite(before.doubt).any() == np.isfinite(labels.doubt).any())


def _spelled(name: str, estimate: Estimate | None) -> dict[str, float]:
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
