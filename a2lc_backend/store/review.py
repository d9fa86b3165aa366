"""The part of the ledger that holds the review: what is asked of whom, who holds which mask, what they said."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, exists, func, insert, literal, or_, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from a2lc_backend.masks import IGNORE
from a2lc_backend.store import tables
from a2lc_backend.store.records import Answer, MaskKey, Query, ReviewProject
from a2lc_backend.store.rows import RoundTables, query_from, replace_rows

_MOST_VOICES = 3
"""A mask that two people label differently is asked of a third, and then left to the next round."""

_ANSWERS, _LEASES, _QUERIES, _QUESTIONS = tables.answers, tables.leases, tables.queries, tables.questions


@dataclass(frozen=True)
class Suspicion:
    """Masks that are still asked about and suspected of the same confusion.

    Attributes:
        label: class id held, `IGNORE` if none.
        guess: class id suspected instead.
        count: masks.
    """

    label: int
    guess: int
    count: int


@dataclass(frozen=True)
class ReviewCount:
    """How far the review of a round is.

    Attributes:
        total: masks asked about.
        left: of those, still asked of somebody.
        mine: answered by one person.
        unsent: answers that are not in Label Studio yet.
        disagreements: masks that people label differently.
        wrong: masks that people said must be mended first.
    """

    total: int
    left: int
    mine: int
    unsent: int
    disagreements: int
    wrong: int


class ReviewTables(RoundTables):
    """Questions, leases and answers; `Ledger` is the whole."""

    # The second project

    def save_review_project(self, project_id: int, review: ReviewProject) -> None:
        """Remember which project in Label Studio holds the questions of a project."""
        row = {"project_id": project_id, "review_id": review.id, "secret": review.secret}
        with self._engine.begin() as db:
            replace_rows(db, tables.review_projects, [row], ("project_id",))

    def review_project(self, project_id: int) -> ReviewProject | None:
        """The project in Label Studio that holds the questions of a project."""
        table = tables.review_projects
        with self._engine.connect() as db:
            row = db.execute(select(table).where(table.c.project_id == project_id)).first()
        return ReviewProject(row.review_id, row.secret) if row else None

    def save_questions(self, project_id: int, tasks: Mapping[MaskKey, int], twice: Iterable[MaskKey] = ()) -> None:
        """Remember the tasks of all questions; one that is known keeps how many people it is asked of.

        Args:
            project_id: of the project.
            tasks: ids of the tasks in the second project, every one that there is; other questions have none any more,
                and Label Studio may give their ids to others.
            twice: those that two people are asked.
        """
        asked_twice = set(twice)
        rows = [
            _mask_row(project_id, mask) | {"review_task_id": task_id, "wanted": 2 if mask in asked_twice else 1}
            for mask, task_id in tasks.items()
        ]
        key = ("project_id", "round", "task_id", "region_id")
        with self._engine.begin() as db:
            known = {
                MaskKey(row.round, row.task_id, row.region_id): row.wanted
                for row in db.execute(select(_QUESTIONS).where(_QUESTIONS.c.project_id == project_id))
            }
            for row, mask in zip(rows, tasks, strict=True):
                row["wanted"] = max(row["wanted"], known.get(mask, 1))
            db.execute(update(_QUESTIONS).where(_QUESTIONS.c.project_id == project_id).values(review_task_id=0))
            replace_rows(db, _QUESTIONS, rows, key)

    def move_question(self, project_id: int, mask: MaskKey, review_task_id: int) -> None:
        """Remember that a question has another task now."""
        with self._engine.begin() as db:
            here = update(_QUESTIONS).where(_is_mask(_QUESTIONS, project_id, mask))
            db.execute(here.values(review_task_id=review_task_id))

    def questions(self, project_id: int, number: int | None = None) -> dict[MaskKey, int]:
        """The tasks of a round's questions, or of all rounds'; 0 for a question whose task was deleted."""
        where = [_QUESTIONS.c.project_id == project_id]
        if number is not None:
            where.append(_QUESTIONS.c.round == number)
        with self._engine.connect() as db:
            rows = db.execute(select(_QUESTIONS).where(*where)).all()
        return {MaskKey(row.round, row.task_id, row.region_id): row.review_task_id for row in rows}

    # Leases

    def lease_questions(
        self, project_id: int, number: int, annotator: int, count: int, until: float,
        pair: tuple[int, int] | None = None, without: Collection[MaskKey] = (),
    ) -> list[Query]:  # fmt: skip
        """Give somebody the first masks that nobody else has on their screen, those they hold already before others.

        Args:
            project_id: of the project.
            number: of the round whose queue it is.
            annotator: who asks.
            count: masks to hold in the end.
            until: when the leases run out, seconds since the epoch.
            pair: label and guess that the masks must have; any if not given.
            without: masks not to give, whoever holds them.
        """
        now = time.time()
        held = exists().where(
            _same_mask(_LEASES, _QUERIES), _LEASES.c.annotator == annotator, _LEASES.c.until > now
        )  # fmt: skip
        where = [_asked(project_id, number), _open_for(annotator, now)]
        where += [~_is_mask(_QUERIES, project_id, mask) for mask in without]
        if pair is not None:
            where += [_QUERIES.c.label == pair[0], _QUERIES.c.guess == pair[1]]
        wanted = (
            select(_QUERIES).join(_QUESTIONS, _same_mask(_QUESTIONS, _QUERIES)).where(*where)
            .order_by(case((held, 0), else_=1), _QUERIES.c.rank).limit(count)
        )  # fmt: skip
        with self._engine.begin() as db:
            _one_at_a_time(db, project_id)
            found = [query_from(row) for row in db.execute(wanted)]
            rows = [
                _mask_row(project_id, MaskKey(number, query.task_id, query.region_id))
                | {"annotator": annotator, "until": until}
                for query in found
            ]
            db.execute(delete(_LEASES).where(_LEASES.c.until <= now))
            replace_rows(db, _LEASES, rows, ("project_id", "round", "task_id", "region_id", "annotator"))
        return sorted(found, key=lambda query: query.rank)

    def hold_questions(
        self, project_id: int, number: int, annotator: int, masks: Sequence[MaskKey], until: float
    ) -> list[MaskKey]:
        """Give somebody masks that they have on their screen, or have just taken back.

        Args:
            project_id: of the project.
            number: of the round whose queue it is.
            annotator: who looks at them.
            masks: at most a hundred or so.
            until: when the leases run out, seconds since the epoch.

        Returns:
            Those that they hold now; the others were answered, are on somebody else's screen, or of another round.
        """
        now, held = time.time(), []
        free = (
            select(_QUERIES.c.rank).join(_QUESTIONS, _same_mask(_QUESTIONS, _QUERIES))
            .where(_asked(project_id, number), _open_for(annotator, now))
        )  # fmt: skip
        with self._engine.begin() as db:
            _one_at_a_time(db, project_id)
            for mask in masks:
                if db.execute(free.where(_is_mask(_QUERIES, project_id, mask))).first() is None:
                    continue
                row = _mask_row(project_id, mask) | {"annotator": annotator, "until": until}
                replace_rows(db, _LEASES, [row], ("project_id", "round", "task_id", "region_id", "annotator"))
                held.append(mask)
        return held

    def release_questions(self, project_id: int, annotator: int, masks: Sequence[MaskKey]) -> None:
        """Give masks back that somebody has on their screen."""
        with self._engine.begin() as db:
            for mask in masks:
                db.execute(delete(_LEASES).where(_is_mask(_LEASES, project_id, mask), _LEASES.c.annotator == annotator))

    def suspicions(self, project_id: int, number: int, annotator: int) -> list[Suspicion]:
        """Pairs of label and guess among the masks that somebody may be asked, the commonest first."""
        counted = func.count().label("masks")
        wanted = (
            select(_QUERIES.c.label, _QUERIES.c.guess, counted)
            .join(_QUESTIONS, _same_mask(_QUESTIONS, _QUERIES))
            .where(
                _asked(project_id, number), _open_for(annotator, time.time()), _QUERIES.c.guess != IGNORE,
                _QUERIES.c.guess != _QUERIES.c.label,
            )
            .group_by(_QUERIES.c.label, _QUERIES.c.guess)
            .order_by(counted.desc(), _QUERIES.c.label, _QUERIES.c.guess)
        )  # fmt: skip
        with self._engine.connect() as db:
            return [Suspicion(row.label, row.guess, row.masks) for row in db.execute(wanted)]

    def review_count(self, project_id: int, number: int, annotator: int) -> ReviewCount:
        """How far the review of a round is, for one person."""
        asked = select(func.count()).select_from(_QUERIES).join(_QUESTIONS, _same_mask(_QUESTIONS, _QUERIES))
        mine = (
            _of_round(_ANSWERS, project_id, number), _ANSWERS.c.undone == 0, _ANSWERS.c.annotator == annotator,
            _ANSWERS.c.kind != "skip",
        )  # fmt: skip
        unsent = (_ANSWERS.c.project_id == project_id, _ANSWERS.c.sent == 0)
        labels = (
            select(_ANSWERS.c.task_id, _ANSWERS.c.region_id)
            .where(_of_round(_ANSWERS, project_id, number), _ANSWERS.c.undone == 0, _ANSWERS.c.kind == "label")
            .group_by(_ANSWERS.c.task_id, _ANSWERS.c.region_id)
            .having(func.count(_ANSWERS.c.label.distinct()) > 1)
        )
        wrong = (_of_round(_ANSWERS, project_id, number), _ANSWERS.c.undone == 0, _ANSWERS.c.kind == "wrong")
        with self._engine.connect() as db:
            return ReviewCount(
                total=_number(db, asked.where(_asked(project_id, number))),
                left=_number(db, asked.where(_asked(project_id, number), _wants_voices())),
                mine=_number(db, select(func.count()).select_from(_ANSWERS).where(*mine)),
                unsent=_number(db, select(func.count()).select_from(_ANSWERS).where(*unsent)),
                disagreements=_number(db, select(func.count()).select_from(labels.subquery())),
                wrong=_number(db, select(func.count()).select_from(_ANSWERS).where(*wrong)),
            )

    # Answers

    def add_answer(self, project_id: int, answer: Answer, sent: bool = False) -> bool:
        """Keep an answer; one that is known is not kept twice, and one of the same person before it is taken back.

        Args:
            project_id: of the project.
            answer: what was said.
            sent: Label Studio holds it already.

        Returns:
            Whether there is such a question.
        """
        mask, table = answer.mask, _ANSWERS
        row = _mask_row(project_id, mask) | {
            "id": answer.id, "annotator": answer.annotator, "kind": answer.kind, "label": answer.label,
            "given_at": answer.given_at, "seconds": answer.seconds, "undone": int(answer.undone), "sent": int(sent),
            "annotation_id": answer.annotation_id,
        }  # fmt: skip
        own = and_(_is_mask(table, project_id, mask), table.c.annotator == answer.annotator)
        try:
            with self._engine.begin() as db:
                _one_at_a_time(db, project_id)
                if not db.execute(select(_QUESTIONS.c.round).where(_is_mask(_QUESTIONS, project_id, mask))).first():
                    return False
                if db.execute(select(table.c.id).where(table.c.id == answer.id)).first():
                    return True
                db.execute(update(table).where(own, table.c.undone == 0).values(undone=1, sent=0))
                db.execute(insert(table).values(**row))
                db.execute(
                    delete(_LEASES).where(_is_mask(_LEASES, project_id, mask), _LEASES.c.annotator == answer.annotator)
                )
                self._heed_disagreement(db, project_id, mask)
        except IntegrityError:  # the same answer, sent twice in the same instant
            return True
        return True

    def hear_answer(self, project_id: int, answer: Answer) -> None:
        """Take down an answer that Label Studio holds: a new one, or one that was changed there."""
        table = _ANSWERS
        same_annotation = and_(table.c.annotation_id == answer.annotation_id, table.c.project_id == project_id)
        own_skip = and_(
            _is_mask(table, project_id, answer.mask), table.c.annotator == answer.annotator, table.c.kind == "skip",
            literal(answer.kind == "skip"),
        )  # fmt: skip
        with self._engine.begin() as db:
            _one_at_a_time(db, project_id)
            # A skip carries no id of ours; one of the same person on its way is the same.
            known = db.execute(select(table).where(or_(table.c.id == answer.id, same_annotation, own_skip))).first()
            if known is not None:
                if not known.annotation_id:  # the reply to the request that made it was lost
                    own = table.c.id == known.id
                    db.execute(update(table).where(own).values(annotation_id=answer.annotation_id))
                if known.sent and not known.undone and (known.kind, known.label) != (answer.kind, answer.label):
                    change = update(table).where(table.c.id == known.id)
                    db.execute(change.values(kind=answer.kind, label=answer.label, given_at=answer.given_at))
                    self._heed_disagreement(db, project_id, answer.mask)
                return
        self.add_answer(project_id, answer, sent=True)

    def hear_undo(self, project_id: int, answer_id: str) -> None:
        """Take down that an answer was taken back in Label Studio, by deleting its annotation there."""
        table = _ANSWERS
        own = (table.c.id == answer_id, table.c.project_id == project_id, table.c.sent == 1)
        with self._engine.begin() as db:
            _one_at_a_time(db, project_id)
            db.execute(update(table).where(*own).values(undone=1))

    def undo_answer(self, project_id: int, answer_id: str, annotator: int) -> Answer | None:
        """Take an answer back; None if that person gave no such answer."""
        table = _ANSWERS
        own = (table.c.id == answer_id, table.c.annotator == annotator, table.c.project_id == project_id)
        with self._engine.begin() as db:
            _one_at_a_time(db, project_id)
            row = db.execute(select(table).where(*own)).first()
            if row is None:
                return None
            db.execute(update(table).where(*own, table.c.undone == 0).values(undone=1, sent=0))
        return _answer(row)

    def unsent_answers(self, project_id: int) -> list[Answer]:
        """Answers, and answers taken back, that Label Studio does not know of yet, oldest first."""
        table = _ANSWERS
        where = (table.c.sent == 0, table.c.project_id == project_id)
        with self._engine.connect() as db:
            return [_answer(row) for row in db.execute(select(table).where(*where).order_by(table.c.given_at))]

    def sent_answers(self, project_id: int) -> list[Answer]:
        """Answers that stand in Label Studio as annotations of known ids, oldest first."""
        table = _ANSWERS
        where = (table.c.project_id == project_id, table.c.undone == 0, table.c.sent == 1, table.c.annotation_id > 0)
        with self._engine.connect() as db:
            return [_answer(row) for row in db.execute(select(table).where(*where).order_by(table.c.given_at))]

    def projects_with_unsent_answers(self) -> list[int]:
        """Ids of projects with something to be sent."""
        with self._engine.connect() as db:
            return list(db.execute(select(_ANSWERS.c.project_id).where(_ANSWERS.c.sent == 0).distinct()).scalars())

    def mark_sent(self, answer: Answer, annotation_id: int) -> None:
        """Note that Label Studio knows of an answer as it was read; one that changed meanwhile is sent again."""
        table = _ANSWERS
        with self._engine.begin() as db:
            if annotation_id:
                db.execute(update(table).where(table.c.id == answer.id).values(annotation_id=annotation_id))
            as_read = (table.c.id == answer.id, table.c.undone == int(answer.undone))
            db.execute(update(table).where(*as_read).values(sent=1))

    def answers(self, project_id: int, number: int | None = None) -> list[Answer]:
        """What people said and did not take back, oldest first: of a round's questions, or of all."""
        table = _ANSWERS
        where = [table.c.project_id == project_id, table.c.undone == 0]
        if number is not None:
            where.append(table.c.round == number)
        with self._engine.connect() as db:
            return [_answer(row) for row in db.execute(select(table).where(*where).order_by(table.c.given_at))]

    @staticmethod
    def _heed_disagreement(db: Connection, project_id: int, mask: MaskKey) -> None:
        """Ask one more person where people disagree."""
        table = _ANSWERS
        where = (_is_mask(table, project_id, mask), table.c.undone == 0, table.c.kind == "label")
        labels = list(db.execute(select(table.c.label).where(*where)).scalars())
        if len(set(labels)) > 1:
            voices = min(len(labels) + 1, _MOST_VOICES)
            one_more = update(_QUESTIONS).where(_is_mask(_QUESTIONS, project_id, mask), _QUESTIONS.c.wanted < voices)
            db.execute(one_more.values(wanted=voices))


def _one_at_a_time(db: Connection, project_id: int) -> None:
    """Let others who lease or answer in a project wait until this transaction is over."""
    table = tables.review_projects
    db.execute(update(table).where(table.c.project_id == project_id).values(review_id=table.c.review_id))


def _wants_voices() -> ColumnElement[bool]:
    """Whether a query has fewer answers than it is asked for, and nobody answered it in place since."""
    return and_(_voices() < _QUESTIONS.c.wanted, ~_answered_in_place())


def _voices() -> Any:
    """How many people said something of a query."""
    said = (_same_mask(_ANSWERS, _QUERIES), _ANSWERS.c.undone == 0, _ANSWERS.c.kind != "skip")
    return select(func.count()).select_from(_ANSWERS).where(*said).scalar_subquery()


def _answered_in_place() -> ColumnElement[bool]:
    table = tables.corrections
    return exists().where(
        table.c.project_id == _QUERIES.c.project_id, table.c.task_id == _QUERIES.c.task_id,
        table.c.region_id == _QUERIES.c.region_id, table.c.round > _QUERIES.c.round,
    )  # fmt: skip


def _open_for(annotator: int, now: float) -> ColumnElement[bool]:
    """Whether a query may be asked of somebody: they have not spoken, and enough seats are left beside the others."""
    spoken = exists().where(
        _same_mask(_ANSWERS, _QUERIES), _ANSWERS.c.undone == 0, _ANSWERS.c.annotator == annotator
    )  # fmt: skip
    held = (_same_mask(_LEASES, _QUERIES), _LEASES.c.until > now, _LEASES.c.annotator != annotator)
    others = select(func.count()).select_from(_LEASES).where(*held).scalar_subquery()
    return and_(~spoken, _voices() + others < _QUESTIONS.c.wanted, ~_answered_in_place())


def _asked(project_id: int, number: int) -> ColumnElement[bool]:
    return and_(_QUERIES.c.project_id == project_id, _QUERIES.c.round == number)


def _of_round(table: Any, project_id: int, number: int) -> ColumnElement[bool]:
    return and_(table.c.project_id == project_id, table.c.round == number)


def _same_mask(table: Any, other: Any) -> ColumnElement[bool]:
    names = ("project_id", "round", "task_id", "region_id")
    return and_(*(table.c[name] == other.c[name] for name in names))


def _is_mask(table: Any, project_id: int, mask: MaskKey) -> ColumnElement[bool]:
    return and_(*(table.c[name] == value for name, value in _mask_row(project_id, mask).items()))


def _mask_row(project_id: int, mask: MaskKey) -> dict[str, Any]:
    return {"project_id": project_id, "round": mask.round, "task_id": mask.task_id, "region_id": mask.region_id}


def _number(db: Connection, query: Any) -> int:
    return int(db.execute(query).scalar() or 0)


def _answer(row: Any) -> Answer:
    return Answer(
        row.id, MaskKey(row.round, row.task_id, row.region_id), row.annotator, row.kind, row.label, row.given_at,
        row.seconds, bool(row.undone), row.annotation_id,
    )  # fmt: skip
