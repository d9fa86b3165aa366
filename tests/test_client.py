"""Listings are whole, whatever happens to Label Studio meanwhile."""

from __future__ import annotations

import base64
import json

import httpx
import pytest
from label_studio_sdk.client import LabelStudio

from a2lc_backend.label_studio.client import LabelStudioError, LabelStudioUnauthorizedError, every, open_client

TASKS = 5


def listing(broken: int, page: int = 2) -> tuple[LabelStudio, list[int]]:
    """A client of a server that answers 404 for one page, as often as is said."""
    refused: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get("page", 1))
        if number == page and len(refused) < broken:
            refused.append(number)
            return httpx.Response(404, json={"detail": "Invalid page."})
        ids = range(1, TASKS + 1)[2 * (number - 1) : 2 * number]
        if not ids:
            return httpx.Response(404, json={"detail": "Invalid page."})
        tasks = [{"id": task_id, "data": {}, "project": 1} for task_id in ids]
        return httpx.Response(
            200, json={"tasks": tasks, "total": TASKS, "total_annotations": 0, "total_predictions": 0}
        )

    transport = httpx.Client(transport=httpx.MockTransport(answer))
    return LabelStudio(base_url="http://studio", api_key="0" * 40, httpx_client=transport), refused


def test_a_list_that_was_cut_off_is_read_again() -> None:
    client, refused = listing(broken=1)
    assert [task.id for task in every(lambda: client.tasks.list(project=1, page_size=2))] == [1, 2, 3, 4, 5]
    assert refused == [2]


def test_a_list_that_stays_cut_off_is_an_error_not_a_short_list() -> None:
    client, refused = listing(broken=100)
    with pytest.raises(LabelStudioError, match="run the round again"):
        every(lambda: client.tasks.list(project=1, page_size=2))
    assert len(refused) > 1


def personal(**claims: object) -> str:
    """A personal access token as far as one can tell without the key it was signed with."""
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    spelled = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*spelled, "AAAA"])


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "no token for Label Studio"),
        ("t\u00f6ken", "one word of plain letters"),
        ("two\nlines", "one word of plain letters"),
        ("x" * 5000, "one word of plain letters"),
        (personal(), "has expired, or is none"),
        (personal(exp=1), "has expired, or is none"),
        (personal(exp="soon"), "has expired, or is none"),
        (personal(exp=1e300), "has expired, or is none"),
    ],
)
def test_a_token_that_cannot_be_one_is_said_and_not_repeated(token: str, words: str) -> None:
    with pytest.raises(LabelStudioUnauthorizedError, match=words) as error:
        open_client("http://studio", token)
    assert not token or token not in str(error.value)
