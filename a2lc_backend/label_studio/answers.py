"""Carries answers between the ledger and Label Studio, both ways; whatever is cut off is done again without harm."""

from __future__ import annotations

import uuid
from contextlib import suppress

import structlog

from a2lc_backend.label_studio.client import LabelStudioError, LabelStudioUnreachableError
from a2lc_backend.label_studio.project import LabelStudioProject
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.platform import AnnotationStamp, Question, Reply
from a2lc_backend.store import Answer, AnswerKind, Ledger

log = structlog.get_logger()


def deliver_answers(ledger: Ledger, platform: LabelStudioProject, project_id: int) -> int:
    """Write into Label Studio what was answered or taken back on the review page.

    Args:
        ledger: holds the answers until they are there.
        platform: the project.
        project_id: of it.

    Returns:
        How many Label Studio refused; they are kept, and tried again the next time.

    Raises:
        LabelStudioUnreachableError: if it does not answer; the rest is kept.
    """
    refused = 0
    unsent = ledger.unsent_answers(project_id)
    tasks = ledger.questions(project_id) if unsent else {}
    for answer in unsent:
        try:
            annotation_id = _deliver(ledger, platform, project_id, answer, tasks[answer.mask])
        except LabelStudioUnreachableError:
            raise
        except LabelStudioError as error:
            refused += 1
            log.error("Label Studio refuses an answer; it is kept", project=project_id, error=str(error))
        else:
            ledger.mark_sent(answer, annotation_id)
    return refused


def _deliver(ledger: Ledger, platform: LabelStudioProject, project_id: int, answer: Answer, task_id: int) -> int:
    desk = platform.desk
    if answer.undone:
        if task_id:
            desk.take_back(task_id, answer)
        return 0
    label = platform.config.classes[answer.label] if answer.kind == "label" else None
    if task_id:
        with suppress(LookupError):
            return desk.record(task_id, answer, label)
    # Its round was over before it came, and open questions of such rounds are deleted.
    again = desk.ask_again(platform.config, Question(answer.mask, IGNORE, ()))
    ledger.move_question(project_id, answer.mask, again)
    return desk.record(again, answer, label)


def hear_answers(ledger: Ledger, platform: LabelStudioProject, project_id: int, since: str = "") -> str:
    """Take down what people answered in Label Studio's own page, so that the review page does not ask it again.

    Args:
        ledger: to take it down.
        platform: the project.
        project_id: of it.
        since: what the last call returned; "" for everything.

    Returns:
        How far it has heard.

    Raises:
        PlatformError: if Label Studio cannot be used.
    """
    stamps = platform.desk.stamps(since)
    classes = platform.config.classes
    for stamp in stamps:
        if stamp.reply is not None and (stamp.reply.label is None or stamp.reply.label in classes):
            ledger.hear_answer(project_id, _answer(stamp, stamp.reply, classes))
    return max([since, *(stamp.updated_at for stamp in stamps)])


def _answer(stamp: AnnotationStamp, reply: Reply, classes: tuple[str, ...]) -> Answer:
    kind: AnswerKind = "skip" if reply.skipped else "wrong"
    label = IGNORE
    if reply.label is not None and not reply.skipped:
        kind, label = "label", classes.index(reply.label)
    answer_id = reply.answer_id or str(uuid.uuid5(uuid.NAMESPACE_URL, f"label-studio/annotations/{stamp.id}"))
    given_at = reply.made_at.timestamp()
    return Answer(answer_id, reply.mask, reply.annotator, kind, label, given_at, annotation_id=stamp.id)
