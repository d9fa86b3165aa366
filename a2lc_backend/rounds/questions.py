"""A round's queue as single questions: what a mask is now, and what it may be instead."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.platform import Question
from a2lc_backend.rounds.workspace import Labels, Workspace
from a2lc_backend.store import MaskKey, Query

_GUESSES = 3


def make_questions(workspace: Workspace, labels: Labels, queries: Sequence[Query]) -> list[Question]:
    """What is asked about queued masks of one round, in their order; a mask that is gone is left out.

    Of what is audited the corrector's guess is not told; like all others it is followed by what θ holds likely.

    Args:
        workspace: the project's artifacts.
        labels: of the round, as they hold now.
        queries: masks of its queue.
    """
    wanted: dict[int, set[str]] = {}
    for query in queries:
        wanted.setdefault(query.task_id, set()).add(query.region_id)
    held: dict[int, dict[str, tuple[int, tuple[int, ...]]]] = {}
    questions = []
    for query in queries:
        if query.task_id not in held:
            held[query.task_id] = _of_image(workspace, labels, query.round, query.task_id, wanted[query.task_id])
        if query.region_id not in held[query.task_id]:
            continue
        label, likely = held[query.task_id][query.region_id]
        guesses = dict.fromkeys((query.guess, *likely))
        best = tuple(guess for guess in guesses if guess not in (label, IGNORE))[:_GUESSES]
        questions.append(Question(MaskKey(query.round, query.task_id, query.region_id), label, best, query.why))
    return questions


def _of_image(
    workspace: Workspace, labels: Labels, number: int, task_id: int, wanted: set[str]
) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Label, and class ids by falling probability, of some masks of an image."""
    place = labels.find(task_id)
    if place is None:
        return {}
    key = labels.mask_keys[place]
    held = labels.labels[labels.span(place)]
    scores = workspace.scores(number, task_id, key)
    found = {}
    for index, region_id in enumerate(workspace.catalog(key).region_ids):
        if region_id in wanted:
            order = () if scores is None else np.argsort(-scores.soft_labels[index], kind="stable")[: _GUESSES + 2]
            found[region_id] = (int(held[index]), tuple(int(guess) for guess in order))
    return found


def ask(context: Context, labels: Labels) -> None:
    """Put the queue before people one mask at a time, where the project wants that."""
    ledger, project_id, number = context.ledger, context.project_id, context.number
    if not context.settings.review:
        return
    questions = make_questions(context.workspace, labels, ledger.queries(project_id, number))
    asked = context.platform.ask(number, questions)
    for problem in asked.problems:
        context.note("publish", problem.task_id, problem.message)
    if asked.review is not None:
        ledger.save_review_project(project_id, asked.review)
        twice = [item.mask for item in questions if _drawn(item.mask, context.settings.second_opinion)]
        ledger.save_questions(project_id, asked.tasks, twice)


def _drawn(mask: MaskKey, share: float) -> bool:
    """Whether a mask is among a share of all that is drawn the same way each time."""
    drawn = hashlib.sha256(f"{mask.round} {mask.task_id} {mask.region_id}".encode()).digest()
    return int.from_bytes(drawn[:4], "big") < share * 2**32
