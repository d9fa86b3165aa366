"""The third phase of a round: what people corrected is carried to similar masks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.audit import decide, in_strata, stratify
from a2lc_backend.correction import LabelProposals, MaskTable, make_corrector
from a2lc_backend.features import FEATURE_NAMES
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.pool import Pool, load_pool
from a2lc_backend.rounds.trust import evidence_by_stratum
from a2lc_backend.rounds.undo import labels_of, veto
from a2lc_backend.rounds.workspace import SOURCES, Catalog, Labels, Workspace
from a2lc_backend.store import AutoCorrection, ProposalGroup, StratumDecision, TaskState, is_sound


@dataclass(frozen=True)
class Choice:
    """What a round makes of its masks.

    Attributes:
        labels: of every mask.
        changes: labels that change without a person.
        strata: what was decided on the proposals, and why.
        groups: the proposals by class.
        note: why the corrector proposes nothing, in words; empty when it spoke.
    """

    labels: Labels
    changes: tuple[AutoCorrection, ...]
    strata: tuple[StratumDecision, ...]
    groups: tuple[ProposalGroup, ...]
    note: str


def correct(context: Context, _items: Items, progress: Progress) -> None:
    """Carry what people corrected to similar masks, and fix the labels of this round."""
    pool = load_pool(context)
    found = choose_labels(context, pool, progress)
    progress(len(pool.states), len(pool.states))  # of a round that was cancelled during the training nothing is written
    context.ledger.save_decisions(context.project_id, context.number, found.strata, found.groups)
    context.workspace.write_labels(context.number, found.labels)
    context.ledger.save_auto_corrections(context.project_id, context.number, found.changes)
    if found.note and (pool.human != IGNORE).any():
        context.note("correct", 0, f"nothing was corrected automatically: {found.note}")


def choose_labels(context: Context, pool: Pool, progress: Progress) -> Choice:
    """Train the corrector and choose every mask's label; nothing is written.

    Args:
        context: of the round.
        pool: its masks.
        progress: told of images.
    """
    classes = len(context.project().classes)
    previous = _previous_labels(context)
    before = _labels_before(context, pool, previous)
    scored, features, soft = _corrector_view(context, pool, previous, classes, progress)
    first = pool.first
    human = pool.human != IGNORE
    result = LabelProposals.none(np.where(human, pool.human, first), "the corrector starts when people have answered")
    if len(scored):
        last = context.previous.number if context.previous else -1
        table = MaskTable(
            features, soft, first[scored], before[scored], pool.human[scored], (pool.answered > last)[scored]
        )
        seed = context.settings.seed + context.number
        proposals = make_corrector(context.settings.corrector).propose(table, classes, context.number, seed)
        result = _spread(proposals, scored, result)
    strata = stratify(result.proposed, result.margin, result.seconded)
    applied, decisions, groups = _apply(context, pool, result, strata)
    labels = np.where(applied, result.labels, result.base)
    believed = np.nan_to_num(np.where(applied, result.belief, result.base_belief))
    imported = np.concatenate([np.full(len(catalog.region_ids), catalog.imported) for catalog in pool.catalogs])
    origin = np.where(imported, SOURCES.index("imported"), SOURCES.index("foundation"))
    sources = np.where(human, SOURCES.index("human"), np.where(labels != first, SOURCES.index("corrector"), origin))
    confidence = np.where(human, 1.0, believed)
    chosen = Labels(
        np.array([state.task_id for state in pool.states], np.int64),
        tuple(state.mask_key for state in pool.states),
        np.array([len(catalog.region_ids) for catalog in pool.catalogs], np.int64),
        labels, sources, confidence, result.guess, result.labels, result.doubt, strata, result.guess_belief,
    )  # fmt: skip
    changed = (labels != before) & ~human & pool.live & (previous is not None)
    changes = tuple(
        AutoCorrection(
            context.number, state.task_id, catalog.region_ids[index], int(before[span][index]),
            int(labels[span][index]), float(confidence[span][index]),
        )
        for state, catalog, span in pool.spans()
        for index in np.flatnonzero(changed[span])
    )  # fmt: skip
    return Choice(chosen, changes, decisions, groups, result.note)


def sound_labels(context: Context) -> bool:
    """Whether the labels of this round can be read."""
    return is_sound(lambda: context.workspace.labels(context.number))


def _previous_labels(context: Context) -> Labels | None:
    if context.previous is None:
        return None
    return labels_of(context.ledger, context.workspace, context.project_id, context.previous.number)


def _apply(
    context: Context, pool: Pool, result: LabelProposals, strata: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], tuple[StratumDecision, ...], tuple[ProposalGroup, ...]]:
    """Choose the proposals that are applied, (N,) bool, and say why, by stratum and by class."""
    ledger, project_id, number = context.ledger, context.project_id, context.number
    evidence = evidence_by_stratum(ledger.audits(project_id), pool.answers)
    taken = decide(evidence, context.settings.policy, context.settings.precision)
    ready = in_strata(strata, taken)
    pairs, group = np.unique(
        np.stack([result.base, result.labels], axis=1)[result.proposed], axis=0, return_inverse=True
    )
    approvals = ledger.approvals(project_id)
    approved = np.zeros(len(ready), np.bool_)
    approved[result.proposed] = np.array([(int(old), int(new)) in approvals for old, new in pairs], np.bool_)[
        group.ravel()
    ]
    # What a person approved is applied whatever audits say; under `manual` it is what else may be applied at all.
    applied = ready & approved if context.settings.policy == "manual" else ready | approved
    applied |= _said_of(pool, result, ledger.approved_masks(project_id))
    applied &= ~_said_of(pool, result, veto(ledger, project_id))
    counts = [
        np.bincount(group.ravel(), weights=chosen[result.proposed], minlength=len(pairs)).astype(int).tolist()
        for chosen in (result.proposed, ready, applied)
    ]
    groups = tuple(
        ProposalGroup(number, int(old), int(new), *numbers) for (old, new), *numbers in zip(pairs, *counts, strict=True)
    )
    decisions = tuple(
        StratumDecision(
            number, index, int((strata == index).sum()), taken[index], found.audited, found.right, found.broken
        )
        for index, found in enumerate(evidence)
    )
    return np.asarray(applied, np.bool_), decisions, groups


def _said_of(pool: Pool, result: LabelProposals, said: Mapping[tuple[int, str], Collection[int]]) -> NDArray[np.bool_]:
    """Proposals of a label that a person took back from that very mask, or approved for it, (N,) bool."""
    found = np.zeros(len(result.labels), np.bool_)
    if said:
        for state, catalog, span in pool.spans():
            for index, name in enumerate(catalog.region_ids, start=span.start):
                found[index] = int(result.labels[index]) in said.get((state.task_id, name), ())
    return found & result.proposed


def _spread(proposals: LabelProposals, rows: NDArray[np.int64], everyone: LabelProposals) -> LabelProposals:
    """Put what the corrector made of some rows into their places among all."""
    joined = {}
    for name in ("base", "labels", "guess", "belief", "base_belief", "guess_belief", "seconded"):
        joined[name] = getattr(everyone, name).copy()
        joined[name][rows] = getattr(proposals, name)
    return LabelProposals(**joined, note=proposals.note)


def _labels_before(context: Context, pool: Pool, previous: Labels | None) -> NDArray[np.int64]:
    """The label each mask held in the round before; its first label where it is new."""
    before = pool.first
    if previous is None:
        return before
    for state, catalog, span in pool.spans():
        place = previous.find(state.task_id)
        if place is None:
            continue
        held = previous.labels[previous.span(place)]
        if previous.mask_keys[place] == state.mask_key:
            before[span] = held
            continue
        names = context.workspace.catalog(previous.mask_keys[place]).region_ids
        by_name = dict(zip(names, held, strict=True))
        before[span] = [by_name.get(name, first) for name, first in zip(catalog.region_ids, before[span], strict=True)]
    return before


def _corrector_view(
    context: Context, pool: Pool, previous: Labels | None, classes: int, progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
    """Indices, features and mean soft labels of the masks that the last round's θ has seen.

    Without an answer there is nothing to learn, and nothing is read. Classes added to the label config since then have
    the probability 0.
    """
    count = len(pool.live) if (pool.human != IGNORE).any() else 0
    last = context.previous.number if context.previous else -1
    # Filled image by image: parts that are joined at the end would lie in memory twice.
    indices = np.empty(count, np.int64)
    width = max((catalog.features.shape[1] for catalog in pool.catalogs), default=0)
    features, soft = np.zeros((count, width), np.float32), np.zeros((count, classes))
    filled = 0
    for done, (state, catalog, span) in enumerate(pool.spans()):
        progress(done, len(pool.states))
        if not count:
            continue
        places, known = soft_labels_before(context.workspace, last, previous, state, catalog)
        seen = np.flatnonzero((places >= 0) & (catalog.areas > 0))
        part = slice(filled, filled + len(seen))
        indices[part] = span.start + seen
        # 0 where the model that is asked now was not asked yet: another's numbers mean something else.
        known_columns = catalog.features.shape[1] if catalog.seen_by == context.seen_by else len(FEATURE_NAMES)
        features[part, :known_columns] = catalog.features[seen][:, :known_columns]
        soft[part, : known.shape[1]] = known[places[seen]]
        filled = part.stop
    progress(len(pool.states), len(pool.states))
    return indices[:filled], features[:filled], soft[:filled]


def soft_labels_before(
    workspace: Workspace, number: int, previous: Labels | None, state: TaskState, catalog: Catalog
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What the last round's θ said of an image's masks, some of which people may have redrawn since.

    Args:
        workspace: the project's artifacts.
        number: of the last round.
        previous: its labels; None where there is no such round.
        state: the image.
        catalog: its masks now.

    Returns:
        For each mask the row of its soft label, −1 where θ has not seen it, and those rows.
    """
    unseen = np.full(len(catalog.region_ids), -1, np.int64), np.empty((0, 0))
    place = previous.find(state.task_id) if previous is not None else None
    if previous is None or place is None:
        return unseen
    key = previous.mask_keys[place]
    scores = workspace.scores(number, state.task_id, key)
    if scores is None:
        return unseen
    if key == state.mask_key:
        return np.arange(len(catalog.region_ids)), scores.soft_labels
    rows = {name: row for row, name in enumerate(workspace.catalog(key).region_ids)}
    return np.array([rows.get(name, -1) for name in catalog.region_ids], np.int64), scores.soft_labels
