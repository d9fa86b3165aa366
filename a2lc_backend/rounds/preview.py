"""What the next round would change by itself, found out without changing anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.correct import choose_labels
from a2lc_backend.rounds.pool import load_pool
from a2lc_backend.rounds.propose import edited_states
from a2lc_backend.rounds.report import class_name
from a2lc_backend.store import AutoCorrection

Tell = Callable[[str, int, int], None]
"""Called with what is being done, units done and their number; what it raises ends the work."""

SAMPLES = 6


@dataclass(frozen=True)
class Sample:
    """One mask of a change.

    Attributes:
        task: id of the image.
        region: id of the mask.
        confidence: how sure the source of the new label is, 0 to 1.
    """

    task: int
    region: str
    confidence: float


@dataclass(frozen=True)
class Change:
    """Masks that would change from one class to another.

    Attributes:
        before: class name, "none" for no label.
        after: class name, "none" for no label.
        count: masks.
        samples: some of them, from those that are surest to those that are least sure.
    """

    before: str
    after: str
    count: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Preview:
    """What the next round would change without a person, if it began now.

    Attributes:
        round: its number.
        last: number of the last finished round, where these masks are known.
        changes: by class, the largest first.
        changed: masks in all of them.
        answers: masks that people have decided since the last round.
        held_back: masks whose proposals would not be applied.
        note: why the corrector proposes nothing, in words; empty when it spoke.
        made_at: seconds since the epoch.
    """

    round: int
    last: int
    changes: tuple[Change, ...]
    changed: int
    answers: int
    held_back: int
    note: str
    made_at: float


def preview_round(context: Context, tell: Tell) -> Preview:
    """Compute what the phase `correct` would change; the ledger and the artifacts of rounds stay as they are.

    Args:
        context: of the round that would begin; what people did has been taken over.
        tell: told of progress.
    """
    states = edited_states(context, lambda done, total: tell("masks", done, total))
    pool = load_pool(context, states=states)
    found = choose_labels(context, pool, lambda done, total: tell("corrector", done, total))
    held_back = (found.labels.strata >= 0) & (found.labels.labels != found.labels.proposals)
    last = context.previous.number if context.previous else -1
    answers = {
        (item.task_id, item.region_id) for item in context.ledger.corrections(context.project_id) if item.round > last
    }
    note = found.note if (pool.human != IGNORE).any() else "people have answered nothing yet"
    return Preview(
        context.number, last, _group(found.changes, context.project().classes), len(found.changes), len(answers),
        int(held_back.sum()), note, time.time(),
    )  # fmt: skip


def _group(changes: Sequence[AutoCorrection], names: Sequence[str]) -> tuple[Change, ...]:
    groups: dict[tuple[str, str], list[AutoCorrection]] = {}
    for item in changes:
        groups.setdefault((class_name(names, item.before), class_name(names, item.after)), []).append(item)
    found = []
    for (before, after), items in groups.items():
        in_order = sorted(items, key=lambda item: -item.confidence)
        places = np.unique(np.linspace(0, len(items) - 1, min(SAMPLES, len(items))).round().astype(int))
        chosen = (in_order[place] for place in places)
        samples = tuple(Sample(item.task_id, item.region_id, item.confidence) for item in chosen)
        found.append(Change(before, after, len(items), samples))
    return tuple(sorted(found, key=lambda change: (-change.count, change.before, change.after)))
