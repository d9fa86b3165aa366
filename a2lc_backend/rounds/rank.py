"""The sixth phase of a round: the masks most worth a person's look are queued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.pool import Pool, load_pool
from a2lc_backend.rounds.queue import Queue, QueueTable, build_queue, reasons
from a2lc_backend.rounds.trust import take_stock
from a2lc_backend.rounds.workspace import SOURCES, Labels, digest
from a2lc_backend.store import Audit, Query


def rank(context: Context, _items: Items, progress: Progress) -> None:
    """Queue the masks most worth a person's look, with the samples of the audits, and name the round's version."""
    labels = context.workspace.labels(context.number)
    pool = load_pool(context, labels)
    rows, dominant, soft, scored = _scores(context, pool, progress)
    unanswered = pool.human == IGNORE
    table = QueueTable(
        rows, soft, dominant, pool.areas, labels.labels,
        labels.proposals, labels.doubt, labels.strata, labels.sources == SOURCES.index("corrector"), unanswered,
        pool.disputed, (unanswered | context.settings.repeats) & pool.live & scored,
    )  # fmt: skip
    seed = context.settings.seed * 1_000_003 + context.number
    queue = build_queue(table, context.settings, context.current().budget, seed)
    why = reasons(table, context.settings.ranking, queue.masks)
    queries = _queries(context, pool, labels, queue, _guesses(labels, soft, dominant), why)
    progress(len(pool.states), len(pool.states))  # of a round that was cancelled meanwhile nothing is written
    context.ledger.save_queries(context.project_id, context.number, queries)
    context.ledger.save_audits(context.project_id, context.number, _audits(context, pool, labels, queue))
    trust = take_stock(context, pool, labels, table, queue.masks, seed)
    version = f"a2lc-r{context.number}-{digest(labels, queries)}"
    context.ledger.save_round(replace(context.current(), version=version, summary=trust))


def _scores(
    context: Context, pool: Pool, progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Acquisition rows (N, C), dominant argmax (N,), mean soft labels (N, C), and which masks have them, (N,)."""
    count, classes = len(pool.live), len(context.project().classes)
    # Filled image by image: parts that are joined at the end would lie in memory twice.
    rows, soft = np.zeros((count, classes)), np.zeros((count, classes))
    dominant, scored = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    for done, (state, _, span) in enumerate(pool.spans()):
        progress(done, len(pool.states))
        scores = context.workspace.scores(context.number, state.task_id, state.mask_key)
        if scores is not None:
            rows[span], soft[span], dominant[span] = scores.rows, scores.soft_labels, scores.dominant
            scored[span] = True
    progress(len(pool.states), len(pool.states))
    return rows, dominant, soft, scored


def _guesses(
    labels: Labels, soft: NDArray[np.float64], dominant: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What each mask may be, (N,), and its probability, (N,): the corrector's word, else θ's."""
    opinion = labels.guess != IGNORE
    said = np.where(np.isfinite(labels.certainty), labels.certainty, 0.0)
    seen = np.take_along_axis(soft, dominant[:, None], 1)[:, 0]
    return np.where(opinion, labels.guess, dominant), np.where(opinion, said, seen)


def _queries(
    context: Context,
    pool: Pool,
    labels: Labels,
    queue: Queue,
    guesses: tuple[NDArray[np.int64], NDArray[np.float64]],
    why: Sequence[str],
) -> list[Query]:
    guess, certainty = guesses
    queries = []
    for rank, (mask, acquisition) in enumerate(zip(queue.masks.tolist(), queue.acquisition, strict=True), start=1):
        query = Query(
            context.number, rank, *pool.owner(mask), label=int(labels.labels[mask]), acquisition=float(acquisition)
        )
        # What is audited is asked without a hint: it would tempt people to agree with what they judge.
        if mask not in queue.samples:
            query = replace(query, guess=int(guess[mask]), certainty=float(certainty[mask]), why=why[rank - 1])
        queries.append(query)
    return queries


def _audits(context: Context, pool: Pool, labels: Labels, queue: Queue) -> list[Audit]:
    first = pool.first
    return [
        Audit(
            context.number,
            *pool.owner(index),
            purpose=purpose,
            stratum=int(labels.strata[index]) if purpose == "deciding" else -1,
            before=int(first[index]),
            after=int((labels.proposals if purpose == "deciding" else labels.labels)[index]),
        )
        for index, purpose in queue.samples.items()
    ]
