"""Label Studio knows who people are: by their access token, or by e-mail address and password."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import httpx

from a2lc_backend.label_studio.client import (
    LabelStudioError,
    LabelStudioUnauthorizedError,
    LabelStudioUnreachableError,
    connected,
    explained,
)
from a2lc_backend.store import Person

_SECONDS = 15.0
_WHO = "/api/current-user/whoami"


def who_has_token(url: str, token: str) -> Person:
    """Whose access token this is, a personal or a legacy one.

    Raises:
        LabelStudioUnauthorizedError: if it is nobody's.
        LabelStudioError: if Label Studio cannot be asked.
    """
    with connected(url, token) as client, explained(url, "asking whose token this is"):
        found = client.users.whoami()
    return _person(found.dict())


def who_has_password(url: str, email: str, password: str) -> Person:
    """Whose e-mail address and password these are; Label Studio alone decides, and nothing of them is kept.

    Raises:
        LabelStudioUnauthorizedError: if they do not belong together.
        LabelStudioError: if Label Studio cannot be asked.
    """
    try:
        with closing(httpx.Client(base_url=url, timeout=_SECONDS)) as browser:
            browser.get("/user/login/").raise_for_status()
            form = {"email": email, "password": password, "csrfmiddlewaretoken": browser.cookies.get("csrftoken", "")}
            browser.post("/user/login/", data=form, headers={"Referer": f"{url}/user/login/"})
            found = browser.get(_WHO)
            if found.status_code in {401, 403}:
                raise LabelStudioUnauthorizedError(
                    "Label Studio does not know this e-mail address with this password; where people log in to it "
                    "another way, use an access token"
                )
            found.raise_for_status()
            return _person(found.json())
    except httpx.HTTPStatusError as error:
        raise LabelStudioError(f"Label Studio at {url} answered {error.response.status_code} to the login") from error
    except httpx.HTTPError as error:
        raise LabelStudioUnreachableError(
            f"no answer from Label Studio at {url} ({type(error).__name__}); try again when it runs"
        ) from error


def _person(found: dict[str, Any]) -> Person:
    email = str(found.get("email") or "")
    name = f"{found.get('first_name') or ''} {found.get('last_name') or ''}".strip()
    return Person(int(found["id"]), name or email.partition("@")[0], email)
