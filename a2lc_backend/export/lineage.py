"""Where labels come from: what people said of masks, and when labels changed without a person.

To most masks nothing ever happened. The others cost some fifty bytes each, so that the lineage of a whole project can
be held while its images pass by one at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from a2lc_backend.export.filters import finished_tasks
from a2lc_backend.rounds.pool import Answers
from a2lc_backend.rounds.reading import Verdict, settled, verdicts
from a2lc_backend.store import AutoCorrection, Correction, CorrectionKind, Ledger, Query

_TASKS = 250
"""Read at a time."""


@dataclass(frozen=True)
class MaskLineage:
    """What happened to a mask, the oldest first.

    Attributes:
        answered: round that gave it the label people agree on; None if nobody spoke of it.
        voices: what people said: user id, kind, class id, round that collected it.
        changes: without a person: round, class id it got.
    """

    answered: int | None = None
    voices: Sequence[tuple[int, CorrectionKind, int, int]] = ()
    changes: Sequence[tuple[int, int]] = ()

    def corrected(self, label: int) -> int | None:
        """The last round that gave the mask this label without a person."""
        return next((number for number, after in reversed(self.changes) if after == label), None)


@dataclass(frozen=True)
class Lineage:
    """The lineage of a project's masks up to a round.

    Attributes:
        answers: what people agree on, of the masks that were looked for.
        finished: images of which people have answered all that they were asked; empty if that was not looked for.
        digest: of all that was read.
    """

    answers: Answers
    finished: frozenset[int]
    digest: str
    _tasks: Mapping[int, bytes]

    def of_task(self, task_id: int) -> dict[str, MaskLineage]:
        """By region id; masks to which nothing happened are left out."""
        packed = json.loads(self._tasks.get(task_id, b"{}"))
        return {region_id: MaskLineage(*item) for region_id, item in packed.items()}


def read_lineage(
    ledger: Ledger, project_id: int, number: int, task_ids: Iterable[int], answers_of: frozenset[tuple[int, str]],
    asked: Iterable[Query] | None = None,
) -> Lineage:  # fmt: skip
    """What happened to the masks of a project up to a round.

    Args:
        ledger: what the program remembers.
        project_id: of the project.
        number: of the round.
        task_ids: images to read of.
        answers_of: masks whose answers are wanted, by (task id, region id).
        asked: queries whose answers make an image a finished one; None where that is not wanted.
    """
    rounds = [record.number for record in ledger.finished(project_id) if record.number <= number]
    queries: dict[int, list[Query]] = defaultdict(list)
    for query in asked or ():
        queries[query.task_id].append(query)
    answers: dict[tuple[int, str], int] = {}
    finished: set[int] = set()
    tasks: dict[int, bytes] = {}
    digest = hashlib.sha256()
    every = sorted(task_ids)
    for start in range(0, len(every), _TASKS):
        part = every[start : start + _TASKS]
        said = [item for item in ledger.corrections(project_id, part) if item.round <= number]
        changes = [item for one in rounds for item in ledger.auto_corrections(project_id, one, part)]
        for row in (*map(astuple, said), *map(astuple, changes)):
            digest.update(f"{row}\n".encode())
        joined = verdicts(said)
        agreed = settled(joined)
        answers |= {key: label for key, label in agreed.items() if key in answers_of}
        if asked is not None:
            finished |= finished_tasks([query for task_id in part for query in queries.pop(task_id, ())], agreed)
        tasks |= _packed(said, joined, changes)
    return Lineage(answers, frozenset(finished), digest.hexdigest(), tasks)


def _packed(
    said: Sequence[Correction], joined: Mapping[tuple[int, str], Verdict], changes: Sequence[AutoCorrection]
) -> dict[int, bytes]:
    """The arguments of `MaskLineage` by task and region, as JSON."""
    found: dict[int, dict[str, tuple[int | None, list[object], list[object]]]] = defaultdict(dict)
    for (task_id, region_id), verdict in joined.items():
        found[task_id][region_id] = (verdict.round, [], [])
    for spoken in said:
        row = (spoken.annotator, spoken.kind, spoken.label, spoken.round)
        found[spoken.task_id][spoken.region_id][1].append(row)
    for change in changes:
        _, _, changed = found[change.task_id].setdefault(change.region_id, (None, [], []))
        changed.append((change.round, change.after))
    return {task_id: json.dumps(masks, separators=(",", ":")).encode() for task_id, masks in found.items()}
