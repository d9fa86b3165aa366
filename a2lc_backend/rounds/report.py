"""What a round did, in one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from a2lc_backend.store import AutoCorrection, Ledger, Phase, Problem, Round


@dataclass(frozen=True)
class RoundReport:
    """A round with its phases and problems.

    Attributes:
        round: its status, version and counts.
        phases: those that have begun, in order.
        problems: in the order they were met; each names its task and the mend.
        class_changes: masks that changed without a person, by (from, to) class name; "none" for no label.
    """

    round: Round
    phases: tuple[Phase, ...]
    problems: tuple[Problem, ...]
    class_changes: tuple[tuple[str, str, int], ...]


def round_report(ledger: Ledger, project_id: int, number: int) -> RoundReport:
    """Read a round's report from the ledger.

    Raises:
        LookupError: if there is no such round.
    """
    found = next((item for item in ledger.rounds(project_id) if item.number == number), None)
    project = ledger.project(project_id)
    if found is None:
        raise LookupError(f"project {project_id} has no round {number}; `a2lc rounds list` shows those it has")
    names = project.classes if project else ()
    return RoundReport(
        found,
        tuple(ledger.phases(project_id, number)),
        tuple(ledger.problems(project_id, number)),
        _class_changes(ledger.auto_corrections(project_id, number), names),
    )


def report_from_json(data: dict[str, Any]) -> RoundReport:
    """The report that the API gave as JSON."""
    return RoundReport(
        Round(**data["round"]),
        tuple(Phase(**phase) for phase in data["phases"]),
        tuple(Problem(**problem) for problem in data["problems"]),
        tuple((before, after, count) for before, after, count in data["class_changes"]),
    )


def _class_changes(changes: list[AutoCorrection], names: tuple[str, ...]) -> tuple[tuple[str, str, int], ...]:
    counts: dict[tuple[str, str], int] = {}
    for change in changes:
        pair = tuple(names[label] if label < len(names) else "none" for label in (change.before, change.after))
        counts[pair[0], pair[1]] = counts.get((pair[0], pair[1]), 0) + 1
    return tuple((*pair, count) for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
