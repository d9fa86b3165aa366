"""The second project in Label Studio: one task a queued mask, so that one question is one key there too.

Label Studio is the record of what people answer, wherever they do it: an answer of the review page is written here as
an annotation of the person's (`completed_by`), under a `unique_id` of its own, so that sending it twice leaves one.
"""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import httpx
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from a2lc_backend.label_configs import own_colours, review_keys
from a2lc_backend.label_studio.client import (
    SPOKEN_OF,
    LabelStudioError,
    LabelStudioUnauthorizedError,
    every,
    explained,
    found_or_none,
    status_of,
    unless_gone,
)
from a2lc_backend.label_studio.patience import Patience, passes
from a2lc_backend.masks import IGNORE
from a2lc_backend.regions import LabelConfig, is_region_id
from a2lc_backend.rounds.platform import AnnotationStamp, Asked, Question, Reply, TaskProblem
from a2lc_backend.signatures import picture_path
from a2lc_backend.store import Answer, MaskKey, ReviewProject

WRONG = "(the mask itself is wrong)"
"""The answer of somebody who would have to redraw the mask first."""

_WHERE = "a2lc"
"""Key in the data of a task here: which mask it asks about."""

_CONFIG = """<View>
  <Style>.a2lc img {max-width: 100%; max-height: 55vh}</Style>
  <Header value="What is outlined?" size="4"/>
  <View className="a2lc"><HyperText name="mask" value="$picture" inline="true"/></View>
  <Choices name="label" toName="mask" value="$options" choice="single-radio" required="true" showInline="true"/>
</View>
"""

_LONGEST_TITLE = 50
_BATCH = 500


@dataclass(frozen=True)
class Voices:
    """What people said of a mask.

    Attributes:
        mask: asked about.
        updated_at: when its task changed last, as Label Studio writes it.
        stamps: every annotation of the task.
    """

    mask: MaskKey
    updated_at: str
    stamps: tuple[AnnotationStamp, ...]


class ReviewDesk:
    """Asks and hears in the second project of one project.

    Args:
        client: of the SDK.
        url: address of Label Studio.
        project_id: of the project whose masks are asked about.
        pages: address of this program as people's browsers reach it.
        review: the second project, if it is known.
    """

    def __init__(
        self, client: LabelStudio, url: str, project_id: int, pages: str, review: ReviewProject | None
    ) -> None:
        self._client, self._url, self._id, self._pages = client, url, project_id, pages
        self._review = review

    # Asking

    def ask(self, title: str, config: LabelConfig, number: int, questions: Sequence[Question]) -> Asked:
        """See `Platform.ask`; a token that may make no project leaves the queue where it is, with a problem."""
        try:
            with explained(self._url, f"making the review project of project {self._id}"):
                review = self._keep_project(title)
                tasks = self._keep_tasks(review, config, number, questions)
        except LabelStudioUnauthorizedError as error:
            return Asked(None, {}, (TaskProblem(0, f"there are no questions for the review page: {error}"),))
        return Asked(review, tasks)

    def _keep_project(self, title: str) -> ReviewProject:
        """The second project, made where it is not there (any more)."""
        known = self._review
        if known is not None and found_or_none(lambda: self._client.projects.get(id=known.id)) is not None:
            return known
        patience = Patience()
        while True:
            found = self._marked()
            if found:
                return ReviewProject(found, known.secret if known else secrets.token_hex(16))
            ending = " · review"
            try:
                self._client.projects.create(
                    title=title[: _LONGEST_TITLE - len(ending)] + ending, label_config=_CONFIG,
                    description=f"One question a mask, kept by A²LC. It holds the answers: keep it. ({self._mark})",
                    sampling="Sequential sampling", show_skip_button=True,
                )  # fmt: skip
            except (ApiError, httpx.HTTPError) as error:
                if not passes(error) or not patience.wait():
                    raise

    @property
    def _mark(self) -> str:
        return f"a2lc-review-of-{self._id}"

    def _marked(self) -> int:
        """Id of the second project as Label Studio knows it; 0 if there is none."""
        listed = self._client.projects.list(include="id,description", page_size=200)
        return min((int(item.id) for item in listed if f"({self._mark})" in str(item.description or "")), default=0)

    def _keep_tasks(
        self, review: ReviewProject, config: LabelConfig, number: int, questions: Sequence[Question]
    ) -> dict[MaskKey, int]:
        """Import missing questions, delete open ones of other rounds, and doubles; all that are there then."""
        wanted = {question.mask: question for question in questions}
        tasks: dict[MaskKey, int] = {}
        patience = Patience()
        while True:
            surplus = []
            for task_id, mask, spoken in self._listed(review):
                if mask not in tasks and (spoken or mask in wanted):
                    tasks[mask] = task_id
                elif tasks.get(mask) != task_id and not spoken:
                    surplus.append(task_id)
            self._delete(review, surplus)
            missing = [question for mask, question in wanted.items() if mask not in tasks]
            if not missing:
                return tasks
            rows = [self._row(review, config, question) for question in missing]
            try:
                for start in range(0, len(rows), _BATCH):
                    self._client.projects.import_tasks(id=review.id, request=rows[start : start + _BATCH])
            except (ApiError, httpx.HTTPError) as error:
                if not passes(error) or not patience.wait():
                    raise

    def _listed(self, review: ReviewProject) -> Iterator[tuple[int, MaskKey, bool]]:
        """Every question: its task, its mask, and whether anybody said something."""
        include = "id,data,total_annotations,cancelled_annotations"
        listing = every(
            lambda: self._client.tasks.list(project=review.id, include=include, resolve_uri=False, page_size=1000)
        )
        for task in sorted(listing, key=lambda task: int(task.id)):
            mask = _mask_of(task.data)
            if mask is not None:
                yield int(task.id), mask, bool((task.total_annotations or 0) + (task.cancelled_annotations or 0))

    def _row(self, review: ReviewProject, config: LabelConfig, question: Question) -> dict[str, Any]:
        picture = f"{self._pages}/{picture_path(review.secret, self._id, question.mask)}"
        return {
            "data": {
                "picture": f'<img alt="the mask in its surroundings" src="{html.escape(picture)}">',
                "options": _options(config, question),
                _WHERE: {
                    "project": self._id, "round": question.mask.round, "task": question.mask.task_id,
                    "region": question.mask.region_id,
                },
            }
        }  # fmt: skip

    def _delete(self, review: ReviewProject, task_ids: Sequence[int]) -> None:
        if not task_ids:
            return
        reply = self._client._client_wrapper.httpx_client.request(
            f"api/dm/actions?id=delete_tasks&project={review.id}", method="POST",
            json={
                "selectedItems": {"all": False, "included": list(task_ids)},
                "filters": {"conjunction": "and", "items": []}, "project": review.id,
            },
        )  # fmt: skip
        if reply.status_code >= 400:
            raise ApiError(status_code=reply.status_code, body=reply.text)

    # Writing down what the review page heard

    def record(self, task_id: int, answer: Answer, label: str | None) -> int:
        """Write an answer as an annotation of the person's; a second time changes nothing.

        Args:
            task_id: of the question.
            answer: to be written.
            label: class name, for one that gives a label.

        Returns:
            The annotation's id; 0 if it was there already and its id is not known.

        Raises:
            LookupError: if the question is not there any more.
            LabelStudioError: if Label Studio refuses or cannot be reached.
        """
        choice = label if answer.kind == "label" else WRONG
        result = [] if answer.kind == "skip" else [_choice(answer.id, str(choice))]
        who = {"completed_by": answer.annotator} if answer.annotator else {}
        patience = Patience()
        with explained(self._url, f"writing an answer about mask {answer.mask.region_id}"):
            while True:
                try:
                    made = self._client.annotations.create(
                        id=task_id, result=result, was_cancelled=answer.kind == "skip", unique_id=answer.id,
                        lead_time=round(answer.seconds, 3), **who,
                    )  # fmt: skip
                except (ApiError, httpx.HTTPError) as error:
                    status, body = (status_of(error), str(error.body)) if isinstance(error, ApiError) else (0, "")
                    if status == 409 and "unique id" in body:  # the reply to an earlier attempt was lost
                        return 0
                    if status == 404:
                        raise LookupError(f"task {task_id} is gone") from error
                    if not passes(error) or not patience.wait():
                        raise
                else:
                    return int(made.id or 0)

    def take_back(self, task_id: int, answer: Answer) -> None:
        """Delete the annotation of an answer, if there is one; a second time changes nothing."""
        with explained(self._url, f"taking back an answer about mask {answer.mask.region_id}"):
            ids = [answer.annotation_id] if answer.annotation_id else self._written(task_id, answer)
            for annotation_id in ids:
                with unless_gone():
                    self._client.annotations.delete(id=annotation_id)

    def _written(self, task_id: int, answer: Answer) -> list[int]:
        """Annotations that an answer may have become, though the reply was lost."""
        there = found_or_none(lambda: self._client.annotations.list(id=task_id)) or []
        return [
            int(item.id or 0)
            for item in there
            if _answer_id(item.result) == answer.id
            or (answer.kind == "skip" and item.was_cancelled and _user(item.completed_by) == answer.annotator)
        ]

    def ask_again(self, config: LabelConfig, question: Question) -> int:
        """Make the task of a question that was deleted because its round was over; its id."""
        if self._review is None:
            raise LabelStudioError(f"project {self._id} has no review project; run its next round")
        with explained(self._url, f"asking again about mask {question.mask.region_id}"):
            rows = [self._row(self._review, config, question)]
            made = self._client.projects.import_tasks(id=self._review.id, request=rows, return_task_ids=True).task_ids
        return int((made or [0])[0])

    # Hearing what was said

    def stamps(self) -> list[AnnotationStamp]:
        """Every answer, with what it says; none where the second project was deleted."""
        return [stamp for voice in self.voices() or () for stamp in voice.stamps]

    def voices(self, since: str = "") -> list[Voices] | None:
        """What people said of each mask; None where the second project was deleted.

        Args:
            since: only of tasks that changed after this time, as Label Studio writes it, among them those whose
                annotations were deleted; all that anybody spoke about if empty.
        """
        review_id = self._review.id if self._review else self._marked()  # a ledger that was lost does not know it
        if not review_id or found_or_none(lambda: self._client.projects.get(id=review_id)) is None:
            return None
        query: dict[str, Any] = {"filters": SPOKEN_OF}
        if since:
            # Label Studio has one conjunction: of changed tasks, those nobody spoke about hold no annotations.
            changed = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": since}
            query["filters"] = {"conjunction": "and", "items": [changed]}
        found = every(
            lambda: self._client.tasks.list(
                project=review_id,
                query=json.dumps(query),
                resolve_uri=False,
                page_size=500,
                include="id,data,annotations,result,completed_by,updated_at,was_cancelled",
            )
        )
        asked = [(_mask_of(task.data), task) for task in found]
        return [
            Voices(mask, _written(task.updated_at), tuple(_stamp(mask, item) for item in task.annotations or []))
            for mask, task in asked
            if mask is not None
        ]

    def holds(self, annotation_id: int) -> bool:
        """Whether an annotation is there."""
        with explained(self._url, f"looking for annotation {annotation_id}"):
            return found_or_none(lambda: self._client.annotations.get(id=annotation_id)) is not None


def _options(config: LabelConfig, question: Question) -> list[dict[str, str]]:
    """The classes to choose from: the present one and the guesses by digits, the others by letters."""
    colours = dict(own_colours(config.classes))
    first = [question.label] if question.label != IGNORE else []
    by_digit = [*first, *question.guesses]
    letters = review_keys(config.classes)
    options = []
    for place, index in enumerate([*by_digit, *(i for i in range(len(config.labels)) if i not in by_digit)]):
        label = config.labels[index]
        key = str(place + 1) if place < len(by_digit) else letters[index]
        chip = (
            "<span style='display:inline-block;width:0.8em;height:0.8em;border-radius:2px;margin-right:0.4em;"
            f"background:{html.escape(label.background or colours[label.name])}'></span>"
        )
        text = f"{chip}{html.escape(label.text)}{' (now)' if index == question.label else ''}"
        options.append({"value": label.name, "html": text} | ({"hotkey": key} if key else {}))
    return [*options, {"value": WRONG, "html": html.escape(WRONG), "hotkey": "0"}]


def _choice(answer_id: str, label: str) -> dict[str, Any]:
    return {
        "id": answer_id, "from_name": "label", "to_name": "mask", "type": "choices", "value": {"choices": [label]}
    }  # fmt: skip


def _mask_of(data: Any) -> MaskKey | None:
    """The mask that a task asks about; None for a task of somebody else."""
    try:
        where = data[_WHERE]
        found = MaskKey(int(where["round"]), int(where["task"]), str(where["region"]))
    except (TypeError, KeyError, ValueError, OverflowError):
        return None
    sound = all(0 <= number < 2**31 for number in (found.round, found.task_id)) and is_region_id(found.region_id)
    return found if sound else None


def _stamp(mask: MaskKey, item: dict[str, Any]) -> AnnotationStamp:
    label = _label(item.get("result"))
    updated = str(item["updated_at"])
    reply = Reply(
        mask, _user(item.get("completed_by")), None if label == WRONG else label, bool(item.get("was_cancelled")),
        _moment(updated), _answer_id(item.get("result")),
    )  # fmt: skip
    return AnnotationStamp(int(item["id"]), mask.task_id, updated, reply)


def _label(result: Any) -> str | None:
    for item in result if isinstance(result, list) else []:
        value = item.get("value") if isinstance(item, dict) else None
        choices = value.get("choices") if isinstance(value, dict) else None
        if isinstance(choices, list) and choices:
            return str(choices[0])
    return None


def _answer_id(result: Any) -> str:
    """Id of the answer that was written as this result; Label Studio's own page makes shorter ones."""
    first = result[0] if isinstance(result, list) and result else None
    found = str(first.get("id", "")) if isinstance(first, dict) else ""
    return found if len(found) == len("00000000-0000-0000-0000-000000000000") else ""


def _written(moment: datetime | None) -> str:
    """A time as Label Studio writes it."""
    return moment.isoformat().replace("+00:00", "Z") if moment else ""


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return datetime.now(timezone.utc)


def _user(completed_by: Any) -> int:
    found = completed_by.get("id") if isinstance(completed_by, dict) else getattr(completed_by, "id", completed_by)
    return int(found or 0)
