"""The sixth phase of a round: the masks most worth a person's look are queued."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.acquisition import adaptive_class_weights, mask_values, rank_masks
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.context import Context, Progress
from a2lc_backend.rounds.platform import PlatformError
from a2lc_backend.rounds.pool import Pool, load_pool
from a2lc_backend.rounds.workspace import Labels
from a2lc_backend.store import Query


def rank(context: Context, progress: Progress) -> None:
    """Queue the masks most worth a person's look, and name the round's version."""
    pool = load_pool(context)
    labels = context.workspace.labels(context.number)
    classes = len(context.project().classes)
    areas = np.concatenate([catalog.areas for catalog in pool.catalogs])
    open_masks = pool.human == IGNORE
    counted = open_masks & (labels.labels != IGNORE)
    pixel_counts = np.bincount(labels.labels[counted], weights=areas[counted], minlength=classes).astype(np.int64)
    rows, dominant = [], []
    for done, (state, _, _) in enumerate(pool.spans()):
        progress(done, len(pool.states))
        scores = context.workspace.scores(context.number, state.task_id, state.mask_key)
        if scores is None:
            raise PlatformError(f"task {state.task_id} has no scores in round {context.number}; run the round again")
        rows.append(scores.rows)
        dominant.append(scores.dominant)
    joined_dominant = np.concatenate(dominant)
    weights = adaptive_class_weights(pixel_counts)
    values = mask_values(np.concatenate(rows), labels.labels, weights, joined_dominant)
    # A mask that two people label differently is asked about again before any other.
    urgency = np.where(pool.disputed, values + values.max(initial=0.0) + 1.0, values)
    chosen = rank_masks(urgency, open_masks & pool.live, context.round.budget)
    guesses = np.where(labels.guess != IGNORE, labels.guess, joined_dominant)
    queries = _queries(context, pool, labels, chosen, values, guesses)
    context.ledger.save_queries(context.project_id, context.number, queries)
    version = f"a2lc-r{context.number}-{_digest(labels, queries)}"
    current = next(item for item in context.ledger.rounds(context.project_id) if item.number == context.number)
    context.ledger.save_round(replace(current, version=version))
    progress(len(pool.states), len(pool.states))


def _queries(
    context: Context,
    pool: Pool,
    labels: Labels,
    chosen: NDArray[np.int64],
    values: NDArray[np.float64],
    guesses: NDArray[np.int64],
) -> list[Query]:
    owners = [(state.task_id, region_id) for state, catalog, _ in pool.spans() for region_id in catalog.region_ids]
    return [
        Query(
            round=context.number,
            rank=place + 1,
            task_id=owners[index][0],
            region_id=owners[index][1],
            label=int(labels.labels[index]),
            guess=int(guesses[index]),
            acquisition=float(values[index]),
        )
        for place, index in enumerate(chosen)
    ]


def _digest(labels: Labels, queries: Sequence[Query]) -> str:
    """What makes one round's predictions differ from another's, in eight hexadecimal digits."""
    digest = hashlib.sha256()
    for array in (labels.task_ids, labels.labels, labels.sources):
        digest.update(array.tobytes())
    digest.update("\n".join(labels.mask_keys).encode())
    digest.update("\n".join(f"{query.task_id} {query.region_id}" for query in queries).encode())
    return digest.hexdigest()[:8]
