"""What the control room asks of a project, joined; what looks at every image is kept until a round changes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from a2lc_backend.gallery import Shelf
from a2lc_backend.rounds.insight import (
    ClassFigures,
    HitRate,
    Pace,
    Precision,
    Purchase,
    answers_of,
    class_balance,
    hit_rates,
    paces,
    precisions,
    purchases,
)
from a2lc_backend.rounds.lineage import Lineage, lineage
from a2lc_backend.rounds.report import (
    NotThereError,
    ProposalReport,
    find_round,
    proposal_reports,
    round_report,
    with_words,
)
from a2lc_backend.rounds.teachers import Teaching, read_lessons, teaching
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.service import Service

Made = TypeVar("Made")

_KEPT = 16


@dataclass(frozen=True)
class ProjectFigures:
    """The figures of a project that an admin steers by; see `rounds.insight`.

    Attributes:
        round: the last finished one; None before there is one.
        classes: what the labels are now.
        hit_rates: of the queues, first to last.
        people: how fast they answer.
        precision: of the corrector's labels.
        purchases: what budgets would buy now.
    """

    round: int | None
    classes: list[ClassFigures]
    hit_rates: list[HitRate]
    people: list[Pace]
    precision: list[Precision]
    purchases: list[Purchase]


class Insights:
    """Joins what `rounds` knows of a project's past.

    Args:
        service: one installation.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ledger = service.ledger
        self._kept: Shelf[object] = Shelf(_KEPT, lambda _: 1)

    def figures(self, project_id: int) -> ProjectFigures:
        """Every figure of a project.

        Raises:
            NotThereError: if the project is not known.
        """
        ledger, project = self._ledger, self._ledger.project(project_id)
        if project is None:
            raise NotThereError(f"project {project_id} is not known; start its first round")
        last = ledger.last_done(project_id)
        answers = answers_of(ledger, project_id)
        balance = self._once(
            "balance", project_id, lambda: class_balance(ledger, self._workspace(project_id), project_id)
        )
        return ProjectFigures(
            last.number if last else None, balance, hit_rates(ledger, project_id, answers),
            paces(ledger.corrections(project_id), ledger.people()),
            precisions(ledger.audits(project_id), answers, project.classes),
            purchases(round_report(ledger, project_id, last.number)) if last else [],
        )  # fmt: skip

    def mask(
        self, project_id: int, task_id: int, region_id: str, number: int | None
    ) -> tuple[Lineage, Teaching | None]:
        """What happened to a mask, and what taught its correction in a round (the last finished one if None).

        Raises:
            NotThereError: if there is no such mask or round.
        """
        ledger, workspace = self._ledger, self._workspace(project_id)
        about = find_round(ledger, project_id, number).number
        past = lineage(ledger, workspace, project_id, task_id, region_id)
        lessons = self._once(f"lessons {about}", project_id, lambda: read_lessons(ledger, workspace, project_id, about))
        return past, teaching(ledger, workspace, project_id, lessons, task_id, region_id)

    def proposals(self, project_id: int, number: int | None) -> list[ProposalReport]:
        """Every proposal of a round, and what people said of it since; see `proposal_reports`."""
        about = find_round(self._ledger, project_id, number).number
        found = self._once(
            f"proposals {about}", project_id,
            lambda: list(proposal_reports(self._ledger, self._workspace(project_id), project_id, about)),
        )  # fmt: skip
        return list(with_words(self._ledger, project_id, found))

    def _workspace(self, project_id: int) -> Workspace:
        return Workspace(self._service.artifacts, project_id)

    def _once(self, name: str, project_id: int, make: Callable[[], Made]) -> Made:
        """What was made since the last round of the project was finished or undone, else made now."""
        return cast("Made", self._kept.get((name, project_id, self._service.version(project_id)), make))
