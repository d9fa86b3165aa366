"""Which labels an export holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.pool import Answers
from a2lc_backend.rounds.report import NotThereError
from a2lc_backend.rounds.trust import evidence_of
from a2lc_backend.rounds.workspace import SOURCES, Labels
from a2lc_backend.store import Audit, Query

_HUMAN, _CORRECTOR = SOURCES.index("human"), SOURCES.index("corrector")


@dataclass(frozen=True)
class Filters:
    """What a label must be to be exported; a mask whose label is not counts as having none.

    Attributes:
        sources: where it may come from; anywhere if empty.
        classes: names it may have; any if empty.
        audited: only masks that a blind audit drew and people answered: a random sample, not the queue's choice.
        precision: least share right that audits assure of labels like it, see `measure`; 0 for no such demand.
        finished: only images of which people have answered all that they were asked.
    """

    sources: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    audited: bool = False
    precision: float = 0.0
    finished: bool = False

    def check(self, classes: Sequence[str]) -> None:
        """Raise NotThereError for a source or class that there is none of, ValueError for an impossible precision."""
        for given, known, what in ((self.sources, SOURCES, "source"), (self.classes, classes, "class")):
            for name in given:
                if name not in known:
                    raise NotThereError(f"there is no {what} {name!r}; choose from {', '.join(known)}")
        if not 0 <= self.precision < 1:
            raise ValueError(f"a precision of {self.precision} cannot be had; give one from 0 up to, but not, 1")

    def of_labels(self, labels: Labels, classes: Sequence[str], measured: Sequence[Measured]) -> NDArray[np.bool_]:
        """Masks whose label's source, class and measured precision suffice, (N,) bool."""
        suffices = np.ones(len(labels.labels), np.bool_)
        if self.sources:
            suffices &= np.isin(labels.sources, [SOURCES.index(name) for name in self.sources])
        if self.classes:
            suffices &= np.isin(labels.labels, [classes.index(name) for name in self.classes])
        if self.precision:
            trusted = labels.sources == _HUMAN
            for automatic in (True, False):
                held = [item.class_id for item in measured if item.automatic == automatic and self._assured(item)]
                like = labels.sources == _CORRECTOR if automatic else labels.sources < _HUMAN
                trusted |= like & np.isin(labels.labels, held)
            suffices &= trusted
        return suffices

    def _assured(self, item: Measured) -> bool:
        return item.least_right >= self.precision


@dataclass(frozen=True)
class Measured:
    """How right labels of one class are that no person gave, as blind audits have found.

    Attributes:
        automatic: labels of the corrector; else first labels.
        class_id: of the class.
        audited: masks that people answered.
        right: of those, the label is the answer.
        least_right: one-sided 95 % lower bound of the share right.
    """

    automatic: bool
    class_id: int
    audited: int
    right: int
    least_right: float


def measure(audits: Iterable[Audit], answers: Answers, number: int) -> list[Measured]:
    """What people's answers collected up to a round say of labels by class, over all rounds before it.

    Labels of the corrector are judged by the stating audits, first labels by the random ones: neither decided what was
    applied. A class that no audit drew is not there.

    Args:
        audits: of the project.
        answers: collected up to that round.
        number: of the round.
    """
    drawn: dict[tuple[bool, int], list[Audit]] = defaultdict(list)
    for item in audits:
        if item.round < number and item.purpose in ("stating", "random") and item.after != IGNORE:
            drawn[item.purpose == "stating", item.after].append(item)
    found = []
    for (automatic, class_id), items in sorted(drawn.items()):
        said = evidence_of(items, answers)
        found.append(Measured(automatic, class_id, said.audited, said.right, round(said.least_right, 6)))
    return found


def audited_masks(audits: Iterable[Audit], answers: Answers, number: int) -> Mapping[int, frozenset[str]]:
    """Masks that audits before a round drew and people answered, by task."""
    found: dict[int, set[str]] = defaultdict(set)
    for item in audits:
        if item.round < number and answers.get((item.task_id, item.region_id), IGNORE) != IGNORE:
            found[item.task_id].add(item.region_id)
    return {task_id: frozenset(names) for task_id, names in found.items()}


def finished_tasks(asked: Iterable[Query], answers: Answers) -> frozenset[int]:
    """Images of which people answered something, and all that they were asked.

    Args:
        asked: the queues whose answers were collected.
        answers: what people agree on; a mask they disagree about is asked about again.
    """
    still_open = {query.task_id for query in asked if (query.task_id, query.region_id) not in answers}
    return frozenset({task_id for task_id, _ in answers} - still_open)
