"""Figures of a project that an admin steers by, counted from what people answered and the labels that hold now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np

from a2lc_backend.audit import Estimate, Evidence, share_interval
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.lineage import person_name
from a2lc_backend.rounds.pool import Answers
from a2lc_backend.rounds.reading import settled, verdicts
from a2lc_backend.rounds.report import RoundReport, class_name
from a2lc_backend.rounds.trust import BUDGETS, evidence_of
from a2lc_backend.rounds.undo import labels_of
from a2lc_backend.rounds.workspace import SOURCES, Workspace
from a2lc_backend.store import Audit, Correction, Ledger, Person, Query

PAUSE_SECONDS = 600.0
"""Nobody is taken to have worked through a longer time between two submits."""

_SOURCE = {name: index for index, name in enumerate(SOURCES)}


@dataclass(frozen=True)
class ClassFigures:
    """How much of a class there is now.

    Attributes:
        name: of the class, "none" for masks without label.
        masks: that hold it.
        pixels: of those masks.
        by_people: of the masks, labelled by people.
        by_corrector: of the masks, labelled by the corrector.
        queued: masks with that label in the review queue now waiting.
    """

    name: str
    masks: int
    pixels: int
    by_people: int
    by_corrector: int
    queued: int


@dataclass(frozen=True)
class HitRate:
    """How often people changed what a round's queue asked about.

    Attributes:
        round: whose queue.
        queued: masks.
        answered: of those, settled by people by now.
        changed: of those, with another label than the queue showed, or deleted.
        random_answered: of the answered ones, drawn at random from labels nobody had looked at.
        random_changed: of those, changed: what a queue without ranking would find.
    """

    round: int
    queued: int
    answered: int
    changed: int
    random_answered: int
    random_changed: int


@dataclass(frozen=True)
class Pace:
    """How fast a person answers.

    Attributes:
        annotator: user id in Label Studio.
        name: of the person.
        answers: masks decided.
        changes: of those, changed.
        hours: active ones: the times between two submits, where they are at most `PAUSE_SECONDS`.
        timed_answers: answers submitted at the end of such a time; the first after a pause took nobody knows how long.
        timed_changes: of those, changed.
    """

    annotator: int
    name: str
    answers: int
    changes: int
    hours: float
    timed_answers: int
    timed_changes: int

    @property
    def answers_an_hour(self) -> float | None:
        """None where no time could be measured."""
        return self.timed_answers / self.hours if self.hours else None

    @property
    def changes_an_hour(self) -> float | None:
        """None where no time could be measured."""
        return self.timed_changes / self.hours if self.hours else None


@dataclass(frozen=True)
class Precision:
    """How right the corrector's labels of one class are, from the stating audit alone.

    Attributes:
        round: that published them; −1 for all rounds together.
        name: of the class; empty for all classes together.
        drawn: labels drawn for the audit.
        audited: of those, answered.
        right: of those, the label is the answer.
        low: of the 95 % interval of the share right (Clopper and Pearson).
        high: of that interval.
    """

    round: int
    name: str
    drawn: int
    audited: int
    right: int
    low: float
    high: float


@dataclass(frozen=True)
class Purchase:
    """What a budget would buy now.

    Attributes:
        share: of the budget that the queue now waiting was made with.
        queries: masks it would queue.
        fixes: of those, masks that people should mend, with the 95 % interval.
    """

    share: float
    queries: int
    fixes: Estimate


def answers_of(ledger: Ledger, project_id: int) -> Answers:
    """What people agree on by now, by mask."""
    return settled(verdicts(ledger.corrections(project_id)))


def class_balance(ledger: Ledger, workspace: Workspace, project_id: int) -> list[ClassFigures]:
    """Masks and pixels by class as the last finished round has them; every image's catalog is read.

    Returns:
        In the order of the classes; masks without label come last, where there are any.
    """
    last, project = ledger.last_done(project_id), ledger.project(project_id)
    if last is None or project is None or not workspace.has_labels(last.number):
        return []
    labels = labels_of(ledger, workspace, project_id, last.number)
    areas = np.concatenate([np.empty(0, np.int64), *(workspace.catalog(key).areas for key in labels.mask_keys)])
    live = areas > 0
    none = len(project.classes)
    held = np.where(labels.labels == IGNORE, none, labels.labels)
    asked = [none if query.label == IGNORE else query.label for query in ledger.queries(project_id, last.number)]
    count = none + 1
    queued = np.bincount(np.array(asked, np.int64), minlength=count)
    masks = np.bincount(held[live], minlength=count)
    pixels = np.bincount(held[live], weights=areas[live], minlength=count)
    by_people = np.bincount(held[live & (labels.sources == _SOURCE["human"])], minlength=count)
    by_corrector = np.bincount(held[live & (labels.sources == _SOURCE["corrector"])], minlength=count)
    return [
        ClassFigures(
            class_name(project.classes, label), int(masks[label]), int(pixels[label]), int(by_people[label]),
            int(by_corrector[label]), int(queued[label]),
        )
        for label in range(count)
        if label < none or masks[none]
    ]  # fmt: skip


def hit_rates(ledger: Ledger, project_id: int, answers: Answers) -> list[HitRate]:
    """How often people changed what was asked, queue by queue."""
    chance = {
        (item.round, item.task_id, item.region_id) for item in ledger.audits(project_id) if item.purpose == "random"
    }
    found = []
    for record in ledger.finished(project_id):
        queries = ledger.queries(project_id, record.number)
        asked = [query for query in queries if (query.task_id, query.region_id) in answers]
        drawn = [query for query in asked if (query.round, query.task_id, query.region_id) in chance]
        found.append(
            HitRate(
                record.number, len(queries), len(asked), _changed(asked, answers), len(drawn), _changed(drawn, answers)
            )
        )
    return found


def _changed(queries: Iterable[Query], answers: Answers) -> int:
    return sum(query.label != answers[query.task_id, query.region_id] for query in queries)


def paces(corrections: Sequence[Correction], people: Mapping[int, Person]) -> list[Pace]:
    """How fast people answer, who answered most first.

    Label Studio tells when an annotation was saved, not when it was begun. So the time between two saves of a person
    counts for the second of them, unless it is longer than `PAUSE_SECONDS`.
    """
    by_person: dict[int, dict[datetime, list[Correction]]] = defaultdict(lambda: defaultdict(list))
    for item in corrections:
        by_person[item.annotator][item.made_at].append(item)
    found = []
    for annotator, saves in by_person.items():
        seconds, timed = 0.0, []
        times = sorted(saves)
        for before, after in pairwise(times):
            gap = (after - before).total_seconds()
            if gap <= PAUSE_SECONDS:
                seconds += gap
                timed += saves[after]
        everything = [item for items in saves.values() for item in items]
        found.append(
            Pace(
                annotator, person_name(people, annotator), len(everything), sum(item.changes for item in everything),
                seconds / 3600, len(timed), sum(item.changes for item in timed),
            )
        )  # fmt: skip
    return sorted(found, key=lambda pace: (-pace.answers, pace.annotator))


def precisions(audits: Iterable[Audit], answers: Answers, names: Sequence[str]) -> list[Precision]:
    """How right the corrector's labels are, by round and class, with all rounds and all classes together first.

    Only stating audits count: they decided nothing. A round of whose audit nobody has answered anything is left out.
    """
    stating = [item for item in audits if item.purpose == "stating"]
    heard = {item.round for item in stating if (item.task_id, item.region_id) in answers}
    groups: dict[tuple[int, int], list[Audit]] = defaultdict(list)
    for item in stating:
        if item.round in heard:
            for about in (-1, item.round):
                for label in (-1, item.after):
                    groups[about, label].append(item)
    return [
        _precision(about, "" if label < 0 else class_name(names, label), items, evidence_of(items, answers))
        for (about, label), items in sorted(groups.items())
    ]


def _precision(about: int, name: str, drawn: Sequence[Audit], found: Evidence) -> Precision:
    interval = share_interval(found.right, found.audited)
    return Precision(about, name, len(drawn), found.audited, found.right, interval.low, interval.high)


def purchases(report: RoundReport) -> list[Purchase]:
    """What half, all and twice the present budget would buy, as the round estimated it; nothing before people answered.

    See `trust.take_stock` for what the estimates rest on.
    """
    found = []
    for share, suffix in BUDGETS.items():
        fixes = report.estimate(f"next_fixes{suffix}")
        if fixes is not None:
            found.append(Purchase(share, int(report.round.summary[f"queued{suffix}"]), fixes))
    return found
