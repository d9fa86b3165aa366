"""The review page's side of the program: who is asked about which mask, and what they said."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from a2lc_backend.label_configs import own_colours, review_keys
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.platform import PlatformError, Question
from a2lc_backend.rounds.questions import make_questions
from a2lc_backend.rounds.report import NotThereError
from a2lc_backend.rounds.undo import labels_of
from a2lc_backend.rounds.workspace import Labels, Workspace
from a2lc_backend.service import Service
from a2lc_backend.store import Answer, MaskKey, Project, Query, ReviewCount, Round, Suspicion

LEASE_SECONDS = 300.0
"""How long a mask is one person's after their page last asked for masks."""

_PROJECT_SECONDS, _RETRY_SECONDS = 300.0, 5.0
"""How long it holds what a project looks like in Label Studio, and that Label Studio did not say."""


class AnswerRefusedError(ValueError):
    """An answer cannot be kept; the message says why."""


@dataclass(frozen=True)
class ReviewClass:
    """A class to answer with: its id, name, colour and key ("" for none)."""

    id: int
    name: str
    colour: str
    key: str


@dataclass(frozen=True)
class ReviewStatus:
    """How far the review of a project is.

    Attributes:
        project: its id.
        title: of it.
        round: whose queue is asked about; −1 before there is one.
        classes: to answer with.
        count: masks asked, left, answered.
        suspicions: pairs of classes to look at together, the commonest first.
        review_link: where the same questions stand in Label Studio; "" without.
        queue_link: of the in-place queue in Label Studio; "" without.
        said: why nothing can be asked, with the mend; "" if something can.
    """

    project: int
    title: str
    round: int
    classes: tuple[ReviewClass, ...]
    count: ReviewCount
    suspicions: tuple[Suspicion, ...]
    review_link: str
    queue_link: str
    said: str


@dataclass(frozen=True)
class Alike:
    """Masks suspected of the same confusion.

    Attributes:
        label: class id held, `IGNORE` if none.
        guess: class id suspected instead, `IGNORE` if no mask is suspected of anything.
        questions: the masks.
    """

    label: int
    guess: int
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Undone:
    """An answer that was taken back.

    Attributes:
        question: the mask, held again; None if it cannot be asked of this person now.
        why: it cannot; "" if it can.
    """

    question: Question | None
    why: str = ""


@dataclass(frozen=True)
class _Interface:
    """What a project looks like in Label Studio, as it was lately; it is looked up again after `until`."""

    until: float
    classes: tuple[ReviewClass, ...]
    queue_link: str


class Review:
    """Asks people about the queued masks of any project, one by one.

    Args:
        service: knows the projects.
    """

    def __init__(self, service: Service) -> None:
        self._service, self._ledger = service, service.ledger
        self._labels: dict[int, tuple[str, Labels]] = {}
        self._interfaces: dict[int, _Interface] = {}

    def status(self, project_id: int, annotator: int) -> ReviewStatus:
        """How far the review is, for one person.

        Raises:
            NotThereError: for an unknown project.
        """
        project, last = self._project(project_id), self._ledger.last_done(project_id)
        number = last.number if last else -1
        interface, review = self._interface(project), self._ledger.review_project(project_id)
        root = self._service.settings.label_studio_browser_url
        count = self._ledger.review_count(project_id, number, annotator)
        return ReviewStatus(
            project_id, project.title, number, interface.classes, count,
            tuple(self._ledger.suspicions(project_id, number, annotator)),
            f"{root}/projects/{review.id}/data" if review else "", interface.queue_link,
            self._why_nothing(last, count),
        )  # fmt: skip

    def lease(
        self, project_id: int, annotator: int, count: int, pair: tuple[int, int] | None = None,
        without: Collection[MaskKey] = (),
    ) -> list[Question]:  # fmt: skip
        """The masks that somebody is to answer next; nobody else gets them while they are looked at.

        Args:
            project_id: of the project.
            annotator: who asks.
            count: masks to hold in the end.
            pair: label and guess that the masks must have; any if not given.
            without: masks not to give.

        Raises:
            NotThereError: for an unknown project.
        """
        self._project(project_id)
        last = self._ledger.last_done(project_id)
        if last is None:
            return []
        until = time.time() + LEASE_SECONDS
        queries = self._ledger.lease_questions(project_id, last.number, annotator, count, until, pair, without)
        return self._questions(project_id, last, queries)

    def renew(self, project_id: int, annotator: int, masks: Sequence[MaskKey]) -> list[MaskKey]:
        """Keep masks for somebody who has them on their screen.

        Returns:
            Those that they hold now; the others were answered, are somebody else's by now, or their round is over.

        Raises:
            NotThereError: for an unknown project.
        """
        self._project(project_id)
        last = self._ledger.last_done(project_id)
        if last is None or not masks:
            return []
        return self._ledger.hold_questions(project_id, last.number, annotator, masks, time.time() + LEASE_SECONDS)

    def lease_alike(
        self, project_id: int, annotator: int, count: int, pair: tuple[int, int] | None, without: Collection[MaskKey]
    ) -> Alike:
        """Masks suspected of one confusion, as `lease` gives them.

        Args:
            project_id: of the project.
            annotator: who asks.
            count: masks to hold in the end.
            pair: label and guess; the commonest pair that has any if not given.
            without: masks that this person holds for something else.

        Raises:
            NotThereError: for an unknown project.
        """
        self._project(project_id)
        last = self._ledger.last_done(project_id)
        pairs = [pair] if pair else []
        if pair is None and last is not None:
            pairs = [(item.label, item.guess) for item in self._ledger.suspicions(project_id, last.number, annotator)]
        for label, guess in pairs:
            found = tuple(self.lease(project_id, annotator, count, (label, guess), without))
            if found or pair is not None:
                return Alike(label, guess, found)
        return Alike(IGNORE, IGNORE, ())

    def answer(self, project_id: int, answer: Answer) -> None:
        """Keep an answer; the same one sent again changes nothing.

        Raises:
            NotThereError: for an unknown project.
            AnswerRefusedError: for a class or a question that is not there.
        """
        project = self._project(project_id)
        if answer.kind == "label" and not 0 <= answer.label < len(project.classes):
            raise AnswerRefusedError(f"project {project_id} has no class {answer.label}; load the page anew")
        if answer.kind != "label":
            answer = replace(answer, label=IGNORE)
        if not self._ledger.add_answer(project_id, answer):
            raise AnswerRefusedError(
                f"nobody asked about mask {answer.mask.region_id} of task {answer.mask.task_id} in round "
                f"{answer.mask.round}; load the page anew"
            )

    def undo(self, project_id: int, answer_id: str, annotator: int) -> Undone:
        """Take somebody's answer back, and give them the mask again if it can be asked.

        Raises:
            NotThereError: for an unknown project, or an answer that this person did not give.
        """
        self._project(project_id)
        answer = self._ledger.undo_answer(project_id, answer_id, annotator)
        if answer is None:
            raise NotThereError("you gave no such answer")
        last = self._ledger.last_done(project_id)
        if last is None or last.number != answer.mask.round:
            return Undone(None, "its round is over, so the mask is not asked again now")
        if not self.renew(project_id, annotator, [answer.mask]):
            return Undone(None, "somebody else looks at the mask now")
        mine = [
            query
            for query in self._ledger.queries(project_id, last.number)
            if (query.task_id, query.region_id) == (answer.mask.task_id, answer.mask.region_id)
        ]
        return Undone(next(iter(self._questions(project_id, last, mine)), None))

    def release(self, project_id: int, annotator: int, masks: Sequence[MaskKey]) -> None:
        """Give masks back that somebody looks at no more."""
        self._ledger.release_questions(project_id, annotator, masks)

    def _questions(self, project_id: int, last: Round, queries: Sequence[Query]) -> list[Question]:
        workspace = Workspace(self._service.artifacts, project_id)
        version, labels = self._labels.get(project_id, ("", None))
        if labels is None or version != last.version:
            labels = labels_of(self._ledger, workspace, project_id, last.number)
            self._labels[project_id] = (last.version, labels)
        return make_questions(workspace, labels, queries)

    def _project(self, project_id: int) -> Project:
        project = self._ledger.project(project_id)
        if project is None:
            raise NotThereError(f"project {project_id} is not known; start its first round")
        return project

    def _interface(self, project: Project) -> _Interface:
        """Colours and links of a project, looked up in Label Studio now and then; it may be away."""
        known = self._interfaces.get(project.id)
        if known is not None and time.monotonic() < known.until:
            return known
        colours, link, seconds = dict(own_colours(project.classes)), "", _PROJECT_SECONDS
        try:
            platform = self._service.present(project.id)
            colours |= {label.name: label.background or colours.get(label.name, "") for label in platform.config.labels}
            link = platform.queue_link(self._service.settings.label_studio_browser_url)
        except PlatformError:
            seconds = _RETRY_SECONDS
            if known is not None:
                self._interfaces[project.id] = known = replace(known, until=time.monotonic() + seconds)
                return known
        keys = review_keys(project.classes)
        classes = tuple(
            ReviewClass(index, name, colours[name], keys[index]) for index, name in enumerate(project.classes)
        )
        found = _Interface(time.monotonic() + seconds, classes, link)
        self._interfaces[project.id] = found
        return found

    @staticmethod
    def _why_nothing(last: Round | None, count: ReviewCount) -> str:
        if last is None:
            return "Round 0 is not finished yet; an admin begins it in the control room."
        if count.total == 0 and not last.settings.get("review", True):
            return "The setting `review` of this project is off; masks are reviewed in place, in Label Studio."
        if count.total == 0:
            return f"Round {last.number} asks no questions; the next round will."
        return ""
