"""One client of the SDK, and errors that name the mend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.pagination import SyncPager
from label_studio_sdk.types.role_based_task import RoleBasedTask

from a2lc_backend.label_studio.patience import PASSING, PatientClient
from a2lc_backend.rounds.platform import PlatformError

TIMEOUT_SECONDS = 120.0
_LISTINGS = 4
_TOKEN = re.compile(r"[!-~]{1,4096}")
"""What an HTTP header can carry."""

SPOKEN_OF: dict[str, object] = {
    "conjunction": "or",
    "items": [
        {"filter": f"filter:tasks:{kind}_annotations", "operator": "greater", "type": "Number", "value": 0}
        for kind in ("total", "cancelled")
    ],
}
"""Filters for tasks that somebody annotated or skipped."""

Found = TypeVar("Found")


class LabelStudioError(PlatformError):
    """Label Studio refused or could not be reached; the message names the mend."""


class LabelStudioUnreachableError(LabelStudioError):
    """There was no answer at all."""


class LabelStudioUnauthorizedError(LabelStudioError):
    """The token was refused."""


def open_client(url: str, api_key: str) -> LabelStudio:
    """Make a client; no request is sent yet. It rides out faults that pass, see `patience`.

    Args:
        url: address of Label Studio.
        api_key: a personal access token, or a legacy token where the organisation allows those.

    Raises:
        LabelStudioUnauthorizedError: if there is no token, or one that has expired or can be none.
    """
    if not api_key:
        raise LabelStudioUnauthorizedError(
            "no token for Label Studio; set LABEL_STUDIO_API_KEY to a personal access token "
            f"({url}/user/account, Personal Access Token)"
        )
    if not _TOKEN.fullmatch(api_key):
        raise LabelStudioUnauthorizedError(
            "a token of Label Studio is one word of plain letters and signs; copy it again"
        )
    connections = PatientClient(timeout=TIMEOUT_SECONDS, follow_redirects=True)
    try:
        return LabelStudio(base_url=url.rstrip("/"), api_key=api_key, httpx_client=connections, max_retries=0)
    except (ApiError, ValueError, TypeError, OverflowError, OSError) as error:  # from reading when the token expires
        connections.close()
        raise LabelStudioUnauthorizedError(
            f"the token for Label Studio has expired, or is none; make a new one ({url}/user/account, Personal Access "
            "Token) and set LABEL_STUDIO_API_KEY to it"
        ) from error


def close_client(client: LabelStudio) -> None:
    """Close a client's connections; the SDK itself never does."""
    client._client_wrapper.httpx_client.httpx_client.close()


@contextmanager
def connected(url: str, api_key: str) -> Iterator[LabelStudio]:
    """A client of `open_client`, closed in the end."""
    client = open_client(url, api_key)
    try:
        yield client
    finally:
        close_client(client)


def status_of(error: ApiError) -> int:
    """HTTP status of an SDK error, 0 if it has none."""
    return error.status_code or 0


@contextmanager
def unless_gone() -> Iterator[None]:
    """Pass over 404 on deleting: it is done already, as after a reply that was lost."""
    try:
        yield
    except ApiError as error:
        if status_of(error) != 404:
            raise


def found_or_none(get: Callable[[], Found]) -> Found | None:
    """What the SDK gets, None where Label Studio answers 404."""
    try:
        return get()
    except ApiError as error:
        if status_of(error) == 404:
            return None
        raise


def every(pages: Callable[[], SyncPager[RoleBasedTask, Any]]) -> list[RoleBasedTask]:
    """All tasks that a listing holds.

    The SDK takes a 404 on a later page for the end, and a task that is deleted meanwhile moves another from a page that
    was not read yet to one that was: a list shorter than Label Studio said is read again.

    Args:
        pages: begins the listing.

    Raises:
        LabelStudioError: if it is cut off each time.
    """
    for _ in range(_LISTINGS):
        begun = pages()
        found = list(begun)
        if len(found) >= begun.response.total:
            return found
    raise LabelStudioError("Label Studio's list of tasks ends early, or changes all the time; run the round again")


@contextmanager
def explained(url: str, what: str) -> Iterator[None]:
    """Turn the SDK's errors into ones that name the mend.

    Args:
        url: address of Label Studio.
        what: was being done, such as "reading project 7".

    Raises:
        LabelStudioUnauthorizedError: for 401 and 403.
        LabelStudioUnreachableError: when there is no answer.
        LabelStudioError: for any other refusal.
    """
    try:
        yield
    except ApiError as error:
        status = status_of(error)
        if status == 401:
            raise LabelStudioUnauthorizedError(
                f"{what}: 401 from {url}; set LABEL_STUDIO_API_KEY to a personal access token, "
                "or turn on legacy tokens for the organisation"
            ) from error
        if status == 403:
            raise LabelStudioUnauthorizedError(
                f"{what}: 403 from {url}; the token's user may not do this: use the token of a project member"
            ) from error
        if status == 404:
            raise LabelStudioError(f"{what}: Label Studio at {url} has no such thing (404); check the id") from error
        mend = "; it stayed so: look into Label Studio's log, then run the round again" if status in PASSING else ""
        raise LabelStudioError(f"{what}: {status or 'no status'} from {url}: {_detail(error)}{mend}") from error
    except httpx.HTTPError as error:
        raise LabelStudioUnreachableError(
            f"{what}: no answer from Label Studio at {url} ({type(error).__name__}); "
            "check that it runs and that LABEL_STUDIO_URL is its address"
        ) from error


def _detail(error: ApiError) -> str:
    body = error.body
    if isinstance(body, dict):
        return str(body.get("validation_errors") or body.get("detail") or body)[:500]
    return str(body)[:500]
