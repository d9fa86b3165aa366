"""The sixth phase of a round: the masks most worth a person's look are queued."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.acquisition import (
    adaptive_class_weights,
    doubtful_values,
    explore_masks,
    mask_values,
    rank_masks,
)
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.context import Context, Progress
from a2lc_backend.rounds.pool import Pool, load_pool
from a2lc_backend.rounds.workspace import Labels, Scores
from a2lc_backend.store import Query


def rank(context: Context, progress: Progress) -> None:
    """Queue the masks most worth a person's look, and name the round's version."""
    labels = context.workspace.labels(context.number)
    pool = load_pool(context, labels)
    rows, dominant, soft, scored = _scores(context, pool, progress)
    open_masks = ((pool.human == IGNORE) | context.settings.repeats) & pool.live & scored
    values = _values(context, pool, labels, rows, dominant, soft)
    # A mask that two people label differently is asked about again before any other.
    urgency = np.where(pool.disputed, values + values.max(initial=0.0) + 1.0, values)
    best = rank_masks(urgency, open_masks, context.round.budget)
    seed = context.settings.seed * 1_000_003 + context.number
    chosen = explore_masks(best, open_masks, context.settings.explore, seed)
    guesses = np.where(labels.guess != IGNORE, labels.guess, dominant)
    queries = _queries(context, pool, labels, chosen, urgency, guesses)
    context.ledger.save_queries(context.project_id, context.number, queries)
    version = f"a2lc-r{context.number}-{_digest(labels, queries)}"
    current = next(item for item in context.ledger.rounds(context.project_id) if item.number == context.number)
    context.ledger.save_round(replace(current, version=version))


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


def _values(
    context: Context,
    pool: Pool,
    labels: Labels,
    rows: NDArray[np.float64],
    dominant: NDArray[np.int64],
    soft: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Acquisition of every mask, (N,): ABC, or with the corrector's doubt once it has an opinion."""
    areas = np.concatenate([catalog.areas for catalog in pool.catalogs])
    classes = rows.shape[1]
    doubtful = context.settings.ranking == "doubt" and bool(np.isfinite(labels.doubt).any())
    held = labels.proposals if doubtful else labels.labels
    counted = (pool.human == IGNORE) & (held != IGNORE)
    weights = adaptive_class_weights(np.bincount(held[counted], weights=areas[counted], minlength=classes))
    if context.settings.ranking == "cil" or not counted.any():  # nothing has a label in round 0 of superpixels
        weights = np.ones(classes)
    if not doubtful:
        return mask_values(rows, held, weights, dominant)
    effective = np.where(held == IGNORE, dominant, held)
    # Masks that the corrector has not seen yet are as doubtful as θ finds them.
    unsure = 1.0 - np.take_along_axis(soft, effective[:, None], 1)[:, 0]
    doubt = np.where(np.isfinite(labels.doubt), labels.doubt, unsure)
    plain = mask_values(rows, held, np.ones(classes), dominant)
    return np.asarray(doubtful_values(plain, areas, doubt) * weights[effective], np.float64)


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
