"""What is not there, not possible or not to be had, as an answer that says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from a2lc_backend.jobs import NotPossibleError, NoWorkersError
from a2lc_backend.rounds.heartbeat import RoundBusyError
from a2lc_backend.rounds.platform import PlatformError, TaskError
from a2lc_backend.rounds.report import NotThereError
from a2lc_backend.store import ArtifactError


class Wrong(BaseModel):
    """What is wrong with a request."""

    loc: list[str | int]
    msg: str
    type: str = ""


class Refusal(BaseModel):
    """Why a request was not answered, and the mend."""

    detail: str | list[Wrong]


_REASONS = {
    401: "Nobody is logged in",
    403: "Whoever is logged in may not do this",
    404: "There is no such thing",
    409: "It is not possible now",
    413: "The request is too large",
    422: "The request is wrong",
    429: "Too much at once, or too many wrong passwords",
    502: "Label Studio or the store cannot be used",
    503: "No worker is there",
}

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": reason, "model": Refusal} for status, reason in _REASONS.items()
}
"""For the description of the API: what any request may be answered with."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn what went wrong into the status that fits, with its words.

    Raises:
        HTTPException: 404, 409, 502 or 503.
    """
    try:
        yield
    except NotThereError as error:
        raise HTTPException(404, str(error)) from error
    except (NotPossibleError, RoundBusyError) as error:
        raise HTTPException(409, str(error)) from error
    except NoWorkersError as error:
        raise HTTPException(503, str(error)) from error
    except (PlatformError, TaskError, ArtifactError) as error:
        raise HTTPException(502, str(error)) from error


def add_plain_refusals(app: FastAPI) -> None:
    """Say of a wrong request where it is wrong and why, without what was sent.

    FastAPI would send that back, be it a password, and fail over what JSON has no word for.
    """

    @app.exception_handler(RequestValidationError)
    def refuse(_request: Request, error: RequestValidationError) -> Response:
        wrong = [{"loc": item["loc"], "msg": item["msg"], "type": item["type"]} for item in error.errors()]
        return Response(json.dumps({"detail": wrong}), 422, media_type="application/json")
