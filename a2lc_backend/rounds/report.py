"""What a round did, and what it proposed, as people read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from a2lc_backend.audit import Estimate
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.store import AuditResult, AutoCorrection, Ledger, Phase, Problem, Round, StratumDecision

ProposalState = Literal["applied", "held back", "taken back"]


class NotThereError(LookupError):
    """There is no such project, round, class or proposal; the message names what there is."""


@dataclass(frozen=True)
class RoundReport:
    """A round with its phases and problems, and why its labels can be trusted.

    Attributes:
        round: its status, version and counts.
        phases: those that have begun, in order.
        problems: in the order they were met; each names its task and the mend.
        class_changes: masks that changed without a person, by (from, to) class name; "none" for no label.
        strata: what it did with the corrector's proposals, from those least likely to gain on; see `audit.STRATA`.
        audits: what stating audits had found by then; all rounds together come first.
    """

    round: Round
    phases: tuple[Phase, ...]
    problems: tuple[Problem, ...]
    class_changes: tuple[tuple[str, str, int], ...]
    strata: tuple[StratumDecision, ...]
    audits: tuple[AuditResult, ...]

    def estimate(self, name: str) -> Estimate | None:
        """`still_wrong` or `next_fixes` of `audit`, as the round wrote it down; None before people have answered."""
        found = self.round.summary
        if name not in found:
            return None
        return Estimate(found[name], found[f"{name}_low"], found[f"{name}_high"])


def round_report(ledger: Ledger, project_id: int, number: int) -> RoundReport:
    """Read a round's report from the ledger.

    Raises:
        NotThereError: if there is no such round.
    """
    found = find_round(ledger, project_id, number)
    project = ledger.project(project_id)
    names = project.classes if project else ()
    return RoundReport(
        found,
        tuple(ledger.phases(project_id, number)),
        tuple(ledger.problems(project_id, number)),
        _class_changes(ledger.auto_corrections(project_id, number), names),
        tuple(ledger.strata(project_id, number)),
        tuple(ledger.audit_results(project_id, number)),
    )


def report_from_json(data: dict[str, Any]) -> RoundReport:
    """The report that the API gave as JSON."""
    return RoundReport(
        Round(**data["round"]),
        tuple(Phase(**phase) for phase in data["phases"]),
        tuple(Problem(**problem) for problem in data["problems"]),
        tuple((before, after, count) for before, after, count in data["class_changes"]),
        tuple(StratumDecision(**row) for row in data["strata"]),
        tuple(AuditResult(**row) for row in data["audits"]),
    )


def find_round(ledger: Ledger, project_id: int, number: int | None) -> Round:
    """A round of a project; the last finished one if no number is given.

    Raises:
        NotThereError: if there is no such round.
    """
    found = ledger.last_done(project_id) if number is None else ledger.round(project_id, number)
    if found is None:
        which = "finished round" if number is None else f"round {number}"
        raise NotThereError(f"project {project_id} has no {which}; `a2lc rounds list` shows those it has")
    return found


@dataclass(frozen=True)
class GroupReport:
    """Proposals of a round that replace one class by another, as people see them.

    Attributes:
        before: class name, "none" for no label.
        after: class name.
        proposed: masks.
        ready: of those, in strata that the policy takes.
        applied: of those, applied.
        approved: a person approved the group.
    """

    before: str
    after: str
    proposed: int
    ready: int
    applied: int
    approved: bool


def group_reports(ledger: Ledger, project_id: int, number: int | None = None) -> list[GroupReport]:
    """The proposals of a round by class, the largest group first; of the last finished round if none is named.

    Raises:
        NotThereError: if there is no such round.
    """
    record, project = find_round(ledger, project_id, number), ledger.project(project_id)
    names, approved = project.classes if project else (), ledger.approvals(project_id)
    return [
        GroupReport(
            class_name(names, item.before), class_name(names, item.after), item.proposed, item.ready, item.applied,
            (item.before, item.after) in approved,
        )
        for item in ledger.proposal_groups(project_id, record.number)
    ]  # fmt: skip


@dataclass(frozen=True)
class ProposalReport:
    """One proposal of the corrector.

    Attributes:
        task_id: the image.
        region_id: the mask.
        before: class name of the first label, "none" for no label.
        after: class name proposed.
        belief: the corrector's probability of it.
        stratum: index into `audit.STRATA`.
        applied: the round gave it to the mask.
        taken_back: a person took it back from the mask since.
        approved: a person approved it for the mask.
    """

    task_id: int
    region_id: str
    before: str
    after: str
    belief: float
    stratum: int
    applied: bool
    taken_back: bool = False
    approved: bool = False

    @property
    def state(self) -> ProposalState:
        """What became of it."""
        if self.taken_back:
            return "taken back"
        return "applied" if self.applied else "held back"


def proposal_reports(
    ledger: Ledger, workspace: Workspace, project_id: int, number: int | None = None
) -> Iterator[ProposalReport]:
    """Every proposal of a round, applied or held back, image by image; see `with_words` for what was said since.

    Raises:
        NotThereError: if there is no such round.
    """
    record, project = find_round(ledger, project_id, number), ledger.project(project_id)
    names = project.classes if project else ()
    if not workspace.has_labels(record.number):
        raise NotThereError(f"round {record.number} of project {project_id} has proposed nothing yet; wait for its end")
    labels = workspace.labels(record.number)
    for place, task_id in enumerate(labels.task_ids.tolist()):
        span = labels.span(place)
        proposed = np.flatnonzero(labels.strata[span] >= 0) + span.start
        if not len(proposed):
            continue
        catalog = workspace.catalog(labels.mask_keys[place])
        for index in proposed.tolist():
            mask, after = index - span.start, int(labels.proposals[index])
            yield ProposalReport(
                task_id, catalog.region_ids[mask], class_name(names, int(catalog.first_labels[mask])),
                class_name(names, after), 1.0 - float(labels.doubt[index]), int(labels.strata[index]),
                int(labels.labels[index]) == after,
            )  # fmt: skip


def with_words(ledger: Ledger, project_id: int, proposals: Iterable[ProposalReport]) -> Iterator[ProposalReport]:
    """Proposals with what people said of them by now: taken back, or approved for a mask."""
    project = ledger.project(project_id)
    names = project.classes if project else ()
    gone = {(item.task_id, item.region_id, class_name(names, item.after)) for item in ledger.undone(project_id)}
    approved = {
        (task_id, region_id, class_name(names, label))
        for (task_id, region_id), labels in ledger.approved_masks(project_id).items()
        for label in labels
    }
    for item in proposals:
        key = (item.task_id, item.region_id, item.after)
        yield replace(item, taken_back=key in gone, approved=key in approved)


def class_name(names: Sequence[str], label: int) -> str:
    """The name of a class id, "none" for no label."""
    return names[label] if label < len(names) else "none"


def _class_changes(changes: list[AutoCorrection], names: tuple[str, ...]) -> tuple[tuple[str, str, int], ...]:
    counts: dict[tuple[str, str], int] = {}
    for change in changes:
        pair = (class_name(names, change.before), class_name(names, change.after))
        counts[pair] = counts.get(pair, 0) + 1
    return tuple((*pair, count) for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
