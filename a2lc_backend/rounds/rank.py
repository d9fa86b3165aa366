"""The sixth phase of a round: the masks most worth a person's look are queued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.pool import Pool, load_pool
from a2lc_backend.rounds.queue import Queue, QueueTable, build_queue
from a2lc_backend.rounds.trust import take_stock
from a2lc_backend.rounds.workspace import SOURCES, Labels, Scores, digest
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
    queue = build_queue(table, context.settings, context.round.budget, seed)
    guesses = np.where(labels.guess != IGNORE, labels.guess, dominant)
    owners = [(state.task_id, region_id) for state, catalog, _ in pool.spans() for region_id in catalog.region_ids]
    queries = _queries(context, owners, labels, queue, guesses)
    context.ledger.save_queries(context.project_id, context.number, queries)
    context.ledger.save_audits(context.project_id, context.number, _audits(context, owners, pool, labels, queue))
    trust = take_stock(context, pool, labels, table, queue.masks)
    version = f"a2lc-r{context.number}-{digest(labels, queries)}"
    context.ledger.save_round(replace(context.current(), version=version, summary=trust))


def _scores(
    context: Context, pool: Pool, progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Acquisition rows (N, C), dominant argmax (N,), mean soft labels (N, C), and which masks have them, (N,)."""
    classes = len(context.project().classes)
    found, scored = [], []
    for done, (state, catalog, _) in enumerate(pool.spans()):
        progress(done, len(pool.states))
        count = len(catalog.region_ids)
        scores = context.workspace.scores(context.number, state.task_id, state.mask_key)
        scored.append(np.full(count, scores is not None))
        empty = np.zeros((count, classes))
        found.append(scores or Scores(state.mask_key, empty, empty, np.zeros(count, np.int64)))
    progress(len(pool.states), len(pool.states))
    return (
        np.concatenate([scores.rows for scores in found]),
        np.concatenate([scores.dominant for scores in found]),
        np.concatenate([scores.soft_labels for scores in found]),
        np.concatenate(scored),
    )


def _queries(
    context: Context,
    owners: Sequence[tuple[int, str]],
    labels: Labels,
    queue: Queue,
    guesses: NDArray[np.int64],
) -> list[Query]:
    return [
        Query(
            round=context.number,
            rank=rank,
            task_id=owners[index][0],
            region_id=owners[index][1],
            label=int(labels.labels[index]),
            # What is audited is asked without a hint: it would tempt people to agree with what they judge.
            guess=IGNORE if int(index) in queue.samples else int(guesses[index]),
            acquisition=float(acquisition),
        )
        for rank, (index, acquisition) in enumerate(zip(queue.masks, queue.acquisition, strict=True), start=1)
    ]


def _audits(
    context: Context, owners: Sequence[tuple[int, str]], pool: Pool, labels: Labels, queue: Queue
) -> list[Audit]:
    first = pool.first
    return [
        Audit(
            round=context.number,
            task_id=owners[index][0],
            region_id=owners[index][1],
            purpose=purpose,
            stratum=int(labels.strata[index]) if purpose == "deciding" else -1,
            before=int(first[index]),
            after=int((labels.proposals if purpose == "deciding" else labels.labels)[index]),
        )
        for index, purpose in queue.samples.items()
    ]
