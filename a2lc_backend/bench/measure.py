"""A finished round held against the truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.audit import Evidence, Statement
from a2lc_backend.bench.findings import BINS, Changes, Check, RoundResult
from a2lc_backend.bench.ground import POOL, Ground
from a2lc_backend.masks import IGNORE
from a2lc_backend.metrics import iou, mean_iou
from a2lc_backend.rounds.report import round_report
from a2lc_backend.rounds.workspace import SOURCES, Labels, Workspace
from a2lc_backend.segmenter import Segmenter
from a2lc_backend.store import Ledger


def measure_round(
    ground: Ground, workspace: Workspace, ledger: Ledger, number: int, segmenter: Callable[[int], Segmenter]
) -> RoundResult:
    """Hold one finished round of a run against the truth.

    Args:
        ground: what all runs share.
        workspace: of the run.
        ledger: of the run.
        number: of the round.
        segmenter: gives θ of a round.
    """
    classes = len(ground.data.classes)
    labels = workspace.labels(number)
    confusion, standing = np.zeros((classes, classes + 1), np.int64), Changes()
    reliability = np.zeros((BINS, 3))
    true: dict[tuple[int, str], int] = {}
    for place, task_id in enumerate(labels.task_ids):
        image = ground.image_truth(workspace, int(task_id), labels.mask_keys[place])
        span = labels.span(place)
        held = labels.labels[span]
        confusion += image.confusion(held)
        true.update(
            {(int(task_id), name): int(label) for name, label in zip(image.region_ids, image.true, strict=True)}
        )
        automatic = labels.sources[span] == SOURCES.index("corrector")
        standing += Changes.count(image.first[automatic], held[automatic], image.true[automatic])
        known = automatic & (image.true != IGNORE)
        confidence = labels.confidence[span][known]
        rows = np.stack([np.ones(len(confidence)), confidence, held[known] == image.true[known]], axis=1)
        np.add.at(reliability, np.minimum(confidence * BINS, BINS - 1).astype(np.int64), rows)
    changes = ledger.auto_corrections(POOL, number)
    changed = np.array([(item.before, item.after, true[item.task_id, item.region_id]) for item in changes], np.int64)
    given = [item.label for item in ledger.corrections(POOL) if item.round == number]
    model = ground.model_confusion(segmenter(number)) if ground.data.val_names else None
    return RoundResult(
        data_miou=100 * mean_iou(confusion),
        data_iou=_percents(iou(confusion)),
        model_miou=None if model is None or not model.any() else 100 * mean_iou(model),
        model_iou=() if model is None else _percents(iou(model)),
        queries=tuple(np.bincount(np.array(given, np.int64), minlength=classes)[:classes].tolist()),
        changes=Changes.count(*changed.reshape(-1, 3).T),
        standing=standing,
        checks=_checks(workspace, ledger, number, true),
        seconds={phase.name: phase.ended - phase.started for phase in ledger.phases(POOL, number)},
        reliability=tuple((int(masks), float(total), int(right)) for masks, total, right in reliability),
    )


def _checks(workspace: Workspace, ledger: Ledger, number: int, true: dict[tuple[int, str], int]) -> dict[str, Check]:
    """What the round stated about itself and the one before, beside the truth."""
    report, labels = round_report(ledger, POOL, number), workspace.labels(number)
    checks = {}
    stated = next((item for item in report.audits if item.about == number - 1), None)
    if stated is not None and stated.audited:
        before = workspace.labels(number - 1)
        automatic = before.sources == SOURCES.index("corrector")
        first, answers = _first_and_answers(workspace, before, true)
        said = Statement.of(Evidence(stated.audited, stated.right, stated.broken))
        for name, given, interval, held in (
            ("right_after", stated.right, said.after, before.labels),
            ("right_before", stated.broken, said.before, first),
        ):
            share = (held == answers)[automatic].mean()
            numbers = (share, given / stated.audited, interval.low, interval.high)
            checks[name] = Check(*(100 * float(value) for value in numbers))
    _, answers = _first_and_answers(workspace, labels, true)
    wrong = (labels.labels != answers) & (labels.sources != SOURCES.index("human"))
    queued = sum(
        query.label != true[query.task_id, query.region_id] != IGNORE for query in ledger.queries(POOL, number)
    )
    for name, count in (("still_wrong", int(wrong.sum())), ("next_fixes", queued)):
        found = report.estimate(name)
        checks[name] = Check(count) if found is None else Check(count, found.value, found.low, found.high)
    return checks


def _first_and_answers(
    workspace: Workspace, labels: Labels, true: dict[tuple[int, str], int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First labels (N,), and what the annotator would say (N,): of a void mask, the label it holds."""
    catalogs = [workspace.catalog(key) for key in labels.mask_keys]
    names = (
        (int(task_id), name)
        for task_id, catalog in zip(labels.task_ids, catalogs, strict=True)
        for name in catalog.region_ids
    )
    answers = np.array([true.get(name, IGNORE) for name in names], np.int64)
    first = np.concatenate([catalog.first_labels for catalog in catalogs])
    return first, np.where(answers == IGNORE, labels.labels, answers)


def _percents(shares: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(share) else 100 * float(share) for share in shares)
