"""Carries answers between the ledger and Label Studio, both ways; whatever is cut off is done again without harm."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from contextlib import suppress

import structlog

from a2lc_backend.label_studio.client import LabelStudioError, LabelStudioUnreachableError
from a2lc_backend.label_studio.project import LabelStudioProject
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.platform import AnnotationStamp, Question, Reply
from a2lc_backend.store import Answer, AnswerKind, Ledger

log = structlog.get_logger()


def deliver_answers(
    ledger: Ledger, platform: LabelStudioProject, project_id: int, without: Collection[str] = ()
) -> list[str]:
    """Write into Label Studio what was answered or taken back on the review page.

    Args:
        ledger: holds the answers until they are there.
        platform: the project.
        project_id: of it.
        without: ids of answers to leave for another time.

    Returns:
        Ids of the answers that Label Studio refused; they are kept, to be tried again.

    Raises:
        LabelStudioUnreachableError: if it does not answer; the rest is kept.
    """
    refused = []
    unsent = [answer for answer in ledger.unsent_answers(project_id) if answer.id not in without]
    tasks = ledger.questions(project_id) if unsent else {}
    for answer in unsent:
        try:
            annotation_id = _deliver(ledger, platform, project_id, answer, tasks[answer.mask])
        except LabelStudioUnreachableError:
            raise
        except LabelStudioError as error:
            refused.append(answer.id)
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
    """Take down what people answered or deleted in Label Studio's own page, so that the review page asks accordingly.

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
    sent = ledger.sent_answers(project_id)  # before Label Studio is asked: what is sent meanwhile is not missing
    voices = platform.desk.voices(since)
    if voices is None:  # the next round makes the project anew
        return ""
    classes = platform.config.classes
    for stamp in [stamp for item in voices for stamp in item.stamps]:
        if stamp.reply is not None and (stamp.reply.label is None or stamp.reply.label in classes):
            ledger.hear_answer(project_id, _answer(stamp, stamp.reply, classes))
    there = {stamp.id for item in voices for stamp in item.stamps}
    changed = {item.mask for item in voices}
    for answer in sent:
        is_missing = answer.annotation_id not in there and (not since or answer.mask in changed)
        if is_missing and not platform.desk.holds(answer.annotation_id):
            ledger.hear_undo(project_id, answer.id)
    return max([since, *(item.updated_at for item in voices)])


def _answer(stamp: AnnotationStamp, reply: Reply, classes: tuple[str, ...]) -> Answer:
    kind: AnswerKind = "skip" if reply.skipped else "wrong"
    label = IGNORE
    if reply.label is not None and not reply.skipped:
        kind, label = "label", classes.index(reply.label)
    answer_id = reply.answer_id or str(uuid.uuid5(uuid.NAMESPACE_URL, f"label-studio/annotations/{stamp.id}"))
    given_at = reply.made_at.timestamp()
    return Answer(answer_id, reply.mask, reply.annotator, kind, label, given_at, annotation_id=stamp.id)
