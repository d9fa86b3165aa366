"""What happened to one mask: every label it held, who gave it, and why people were asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from a2lc_backend.audit import STRATA
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.report import NotThereError, class_name
from a2lc_backend.rounds.undo import without
from a2lc_backend.rounds.workspace import SOURCES, Labels, Workspace
from a2lc_backend.store import AutoCorrection, Correction, Ledger, Person, Query, Round, Undone

Outcome = Literal["applied", "held back", "taken back", "withdrawn"]

WHY = {
    "ranked": "ranked among the masks most worth a look",
    "random": "drawn at random from the labels that nobody had looked at",
    "deciding": "drawn blindly, to decide which proposals are applied",
    "stating": "drawn blindly, to state how right the corrector's labels are",
    "untold": "not told before it is answered: some masks are blind samples",
}


@dataclass(frozen=True)
class HeldLabel:
    """The label that a mask holds in a round.

    Attributes:
        round: number.
        version: of the model, in Label Studio.
        label: class name, "none" for no label.
        source: `foundation`, `imported`, `human` or `corrector`.
        confidence: how sure the source is, 0 to 1.
    """

    round: int
    version: str
    label: str
    source: str
    confidence: float


@dataclass(frozen=True)
class Answer:
    """What a person said of a mask.

    Attributes:
        round: that collected it.
        kind: `label`, `shape`, `new` or `deleted`.
        before: class name it was shown with.
        label: class name given; "none" for a mask that was deleted.
        annotator: user id in Label Studio.
        name: of the person, "user 3" where it is not known.
        made_at: when it was last saved, ISO 8601.
    """

    round: int
    kind: str
    before: str
    label: str
    annotator: int
    name: str
    made_at: str


@dataclass(frozen=True)
class Asked:
    """A mask in a review queue.

    Attributes:
        round: whose queue.
        rank: 1 is looked at first.
        queued: masks in that queue.
        label: class name it was shown with.
        guess: class name that was suggested, "none" without a hint.
        why: it was queued, in words; not told before it is answered.
    """

    round: int
    rank: int
    queued: int
    label: str
    guess: str
    why: str


@dataclass(frozen=True)
class Automatic:
    """What the corrector proposed for a mask in a round, and what became of it.

    Attributes:
        round: number.
        before: class name without the corrector; the one that was withdrawn, where one was.
        after: class name proposed; the one that holds again, where one was withdrawn.
        belief: the corrector's probability of it, 0 to 1.
        stratum: proposals it was judged with, in words; empty for a withdrawn one.
        outcome: `withdrawn` where the corrector no longer proposes what it had applied.
    """

    round: int
    before: str
    after: str
    belief: float
    stratum: str
    outcome: Outcome


@dataclass(frozen=True)
class Lineage:
    """Everything that happened to one mask, by round.

    Attributes:
        task_id: the image.
        region_id: the mask.
        first_label: class name it was born with, "none" for no label.
        first_source: of that label; `human` for a mask that a person drew.
        held: labels of the finished rounds that know it.
        answers: of people.
        asked: queues it stood in.
        automatic: proposals of the corrector.
    """

    task_id: int
    region_id: str
    first_label: str
    first_source: str
    held: tuple[HeldLabel, ...]
    answers: tuple[Answer, ...]
    asked: tuple[Asked, ...]
    automatic: tuple[Automatic, ...]


def person_name(people: Mapping[int, Person], annotator: int) -> str:
    """What a person is called, "user 3" where nobody has told."""
    person = people.get(annotator)
    return (person.name or person.email) if person else f"user {annotator}"


def lineage(ledger: Ledger, workspace: Workspace, project_id: int, task_id: int, region_id: str) -> Lineage:
    """Read what happened to a mask.

    Raises:
        NotThereError: if no finished round knows the mask.
    """
    project = ledger.project(project_id)
    names = project.classes if project else ()
    undone = ledger.undone_of(project_id, task_id, region_id)
    changes = {item.round: item for item in ledger.auto_corrections_of(project_id, task_id, region_id)}
    held: list[HeldLabel] = []
    automatic: list[Automatic] = []
    first = None
    for record in ledger.finished(project_id):
        if not workspace.has_labels(record.number):  # as of a project that was rebuilt
            continue
        raw = workspace.labels(record.number)
        place = raw.find(task_id)
        if place is None:
            continue
        catalog = workspace.catalog(raw.mask_keys[place])
        if region_id not in catalog.region_ids:
            continue
        row = raw.span(place).start + catalog.region_ids.index(region_id)
        first = int(catalog.first_labels[catalog.region_ids.index(region_id)])
        imported = catalog.imported
        labels = without(workspace, raw, record.number, undone)
        held.append(_held(record, labels, row, names))
        step = _automatic(record, raw, row, first, changes.get(record.number), undone, names)
        automatic += [step] if step else []
    if first is None:
        raise NotThereError(f"no finished round of project {project_id} knows mask {region_id} of task {task_id}")
    said = [item for item in ledger.corrections(project_id, [task_id]) if item.region_id == region_id]
    drawn = any(item.kind == "new" for item in said)
    return Lineage(
        task_id, region_id, class_name(names, first),
        "human" if drawn else "imported" if imported else "foundation",
        tuple(held), _answers(ledger, said, names), _asked(ledger, project_id, task_id, region_id, said, names),
        tuple(automatic),
    )  # fmt: skip


def _held(record: Round, labels: Labels, row: int, names: Sequence[str]) -> HeldLabel:
    label, source = class_name(names, int(labels.labels[row])), SOURCES[int(labels.sources[row])]
    return HeldLabel(record.number, record.version, label, source, float(labels.confidence[row]))


def _automatic(
    record: Round, raw: Labels, row: int, first: int, change: AutoCorrection | None, undone: Sequence[Undone],
    names: Sequence[str],
) -> Automatic | None:  # fmt: skip
    """What the corrector did with a mask in a round; None where it did nothing."""
    number, stratum, proposed = record.number, int(raw.strata[row]), int(raw.proposals[row])
    if stratum < 0:
        if change is None:
            return None
        before, after = class_name(names, change.before), class_name(names, change.after)
        return Automatic(number, before, after, change.confidence, "", "withdrawn")
    outcome: Outcome = "held back"
    if int(raw.labels[row]) == proposed:
        gone = any(item.round <= number and item.after == proposed for item in undone)
        outcome = "taken back" if gone else "applied"
    belief = 1.0 - float(raw.doubt[row])
    return Automatic(
        number, class_name(names, first), class_name(names, proposed), belief, STRATA[stratum].name, outcome
    )


def _answers(ledger: Ledger, said: Sequence[Correction], names: Sequence[str]) -> tuple[Answer, ...]:
    people = ledger.people()
    return tuple(
        Answer(
            item.round, item.kind, class_name(names, item.before), class_name(names, item.label), item.annotator,
            person_name(people, item.annotator), item.made_at.isoformat(),
        )
        for item in said
    )  # fmt: skip


def _asked(
    ledger: Ledger, project_id: int, task_id: int, region_id: str, said: Sequence[Correction], names: Sequence[str]
) -> tuple[Asked, ...]:
    purposes = {item.round: item.purpose for item in ledger.audits_of(project_id, task_id, region_id)}
    answered = max((item.round for item in said), default=-1)
    found = []
    for query in ledger.queries_of(project_id, task_id, region_id):
        why = purposes.get(query.round, "ranked") if answered > query.round else "untold"
        found.append(_as_asked(ledger, project_id, query, WHY[why], names))
    return tuple(found)


def _as_asked(ledger: Ledger, project_id: int, query: Query, why: str, names: Sequence[str]) -> Asked:
    queued = len(ledger.queries(project_id, query.round))
    guess = "none" if query.guess == IGNORE else class_name(names, query.guess)
    return Asked(query.round, query.rank, queued, class_name(names, query.label), guess, why)
