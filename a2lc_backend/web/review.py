"""What the review page asks of the backend."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from a2lc_backend.jobs.courier import Courier
from a2lc_backend.masks import IGNORE
from a2lc_backend.review import AnswerRefusedError, Review
from a2lc_backend.rounds.platform import Question
from a2lc_backend.service import Service
from a2lc_backend.signatures import is_signed
from a2lc_backend.store import Answer, MaskKey
from a2lc_backend.web.addresses import mask_picture
from a2lc_backend.web.errors import explained
from a2lc_backend.web.files import page
from a2lc_backend.web.parameters import ClassId, Number, RegionId

_CROP_SIDE, _SMALL_SIDE, _WHOLE_SIDE = 720, 320, 480
_MOST = 100


class Mask(BaseModel):
    """A queued mask: the round, the image's task, the region there."""

    round: Number
    task: Number
    region: RegionId

    @property
    def key(self) -> MaskKey:
        """The same for the ledger."""
        return MaskKey(self.round, self.task, self.region)


class GivenAnswer(Mask):
    """An answer about a mask."""

    id: uuid.UUID = Field(description="made by whoever answers; sent twice, the answer counts once")
    kind: Literal["label", "skip", "wrong"]
    label: ClassId | None = Field(None, description="class id, for the kind `label`")
    seconds: float = Field(0.0, ge=0, le=86_400, description="from seeing the mask to answering")


class Answers(BaseModel):
    """Answers, oldest first."""

    answers: list[GivenAnswer] = Field(max_length=_MOST)


class Lease(BaseModel):
    """Asks for masks to look at."""

    count: int = Field(9, ge=1, le=_MOST, description="masks to hold in the end, beside those of `held`")
    held: list[Mask] = Field(
        [],
        max_length=_MOST,
        description="masks that one has on the screen for something else; they are kept, not given",
    )


class GridLease(Lease):
    """Asks for masks suspected of one confusion; of the commonest if none is named."""

    count: int = Field(12, ge=1, le=_MOST)
    label: ClassId | None = Field(None, description="class id held; none for masks without label")
    guess: ClassId | None = Field(None, description="class id suspected")


class Undo(BaseModel):
    """Takes an answer back."""

    id: uuid.UUID


class Masks(BaseModel):
    """Masks that somebody looks at no more."""

    masks: list[Mask] = Field(max_length=_MOST)


def add_review(app: FastAPI, service: Service, courier: Courier) -> None:
    """Serve the review page, and what it asks."""
    review = Review(service)
    _add_pages(app, service)
    _add_questions(app, service, review, courier)
    _add_answers(app, service, review, courier)


def _add_pages(app: FastAPI, service: Service) -> None:
    """The page itself, and the pictures that Label Studio shows."""

    @app.get("/review/", include_in_schema=False)
    @app.get("/review/{project_id}", include_in_schema=False)
    def review_page(project_id: Number = 0) -> FileResponse:
        return page("review.html" if project_id else "reviews.html")

    @app.get("/review/pictures/{signature}/{project_id}/{number}/{task_id}/{region_id}.jpg", include_in_schema=False)
    def signed_picture(
        signature: str, project_id: Number, number: Number, task_id: Number, region_id: RegionId
    ) -> Response:
        """A queued mask for Label Studio's own page, which sends no login of this program."""
        found = service.ledger.review_project(project_id)
        if found is None or not is_signed(signature, found.secret, project_id, MaskKey(number, task_id, region_id)):
            raise HTTPException(404, "there is no such picture")
        with explained():
            drawn = service.gallery.picture(project_id, number, task_id, region_id, _CROP_SIDE)
            return Response(drawn, 200, {"Cache-Control": "private, max-age=86400"}, "image/jpeg")


def _add_questions(app: FastAPI, service: Service, review: Review, courier: Courier) -> None:
    """What is asked, and of whom."""

    @app.get("/api/review/projects", tags=["Review"])
    def reviews(request: Request) -> list[dict[str, Any]]:
        """Projects with masks to review."""
        found = []
        for project in service.ledger.projects():
            last = service.ledger.last_done(project.id)
            count = service.ledger.review_count(project.id, last.number if last else -1, request.state.person.id)
            found.append({"id": project.id, "title": project.title, "total": count.total, "left": count.left})
        return found

    @app.get("/api/projects/{project_id}/review", tags=["Review"])
    def status(project_id: Number, request: Request) -> dict[str, Any]:
        """How far the review of a project is, and what to answer with."""
        with explained():
            found = review.status(project_id, request.state.person.id)
        courier.use(project_id)
        fields: dict[str, Any] = asdict(found)
        fields["suspicions"] = [item | {"label": _class(item["label"])} for item in fields["suspicions"]]
        fields |= fields.pop("count")
        return fields

    @app.post("/api/projects/{project_id}/review/lease", tags=["Review"])
    def lease(project_id: Number, body: Lease, request: Request) -> dict[str, Any]:
        """The masks to answer next, those first that this person holds already; nobody else gets them meanwhile.

        `lost` are those of `held` that are not this person's any more.
        """
        person, held = request.state.person.id, [mask.key for mask in body.held]
        with explained():
            kept = review.renew(project_id, person, held)
            found = review.lease(project_id, person, body.count, without=held)
        return {
            "questions": _questions(service, project_id, found), "left": _left(service, project_id, person),
            "lost": [mask.model_dump() for mask in body.held if mask.key not in kept],
        }  # fmt: skip

    @app.post("/api/projects/{project_id}/review/grid", tags=["Review"])
    def grid(project_id: Number, body: GridLease, request: Request) -> dict[str, Any]:
        """Masks suspected of the same confusion."""
        person, held = request.state.person.id, [mask.key for mask in body.held]
        pair = None if body.guess is None else (IGNORE if body.label is None else body.label, body.guess)
        with explained():
            found = review.lease_alike(project_id, person, body.count, pair, held)
        return {
            "label": _class(found.label), "guess": _class(found.guess),
            "questions": _questions(service, project_id, found.questions), "left": _left(service, project_id, person),
        }  # fmt: skip


def _add_answers(app: FastAPI, service: Service, review: Review, courier: Courier) -> None:
    """What people say."""

    @app.post("/api/projects/{project_id}/review/answers", tags=["Review"])
    def answers(project_id: Number, body: Answers, request: Request) -> dict[str, Any]:
        """Keep answers; they are written down before this is answered, and go to Label Studio after it."""
        accepted, refused = [], []
        for given in body.answers:
            label = IGNORE if given.label is None else given.label
            answer = Answer(
                str(given.id), given.key, request.state.person.id, given.kind, label, time.time(), given.seconds
            )
            with explained():
                try:
                    review.answer(project_id, answer)
                except AnswerRefusedError as error:
                    refused.append({"id": answer.id, "why": str(error)})
                else:
                    accepted.append(answer.id)
        courier.wake()
        return {"accepted": accepted, "refused": refused}

    @app.post("/api/projects/{project_id}/review/undo", tags=["Review"])
    def undo(project_id: Number, body: Undo, request: Request) -> dict[str, Any]:
        """Take an answer of one's own back; the mask is held again, unless `why` says that it cannot be."""
        with explained():
            found = review.undo(project_id, str(body.id), request.state.person.id)
        courier.wake()
        held = [found.question] if found.question else []
        return {
            "undone": True, "question": next(iter(_questions(service, project_id, held)), None), "why": found.why
        }  # fmt: skip

    @app.post("/api/projects/{project_id}/review/release", tags=["Review"])
    def release(project_id: Number, body: Masks, request: Request) -> dict[str, bool]:
        """Give masks back that one looks at no more."""
        review.release(project_id, request.state.person.id, [mask.key for mask in body.masks])
        return {"released": True}


def _questions(service: Service, project_id: int, found: Sequence[Question]) -> list[dict[str, Any]]:
    """Questions as the page wants them; addresses are relative to the root of this program."""
    root = service.settings.label_studio_browser_url
    questions = []
    for item in found:
        mask = item.mask
        picture = mask_picture(project_id, mask.round, mask.task_id, mask.region_id)
        questions.append(
            {
                "round": mask.round, "task": mask.task_id, "region": mask.region_id, "label": _class(item.label),
                "guesses": item.guesses, "why": item.why, "picture": f"{picture}?side={_CROP_SIDE}",
                "small": f"{picture}?side={_SMALL_SIDE}",
                "whole": f"{picture}?side={_WHOLE_SIDE}&whole=true",
                "link": f"{root}/projects/{project_id}/data?task={mask.task_id}",
            }
        )  # fmt: skip
    return questions


def _left(service: Service, project_id: int, person: int) -> int:
    last = service.ledger.last_done(project_id)
    return service.ledger.review_count(project_id, last.number, person).left if last else 0


def _class(label: int) -> int | None:
    return None if label == IGNORE else label
