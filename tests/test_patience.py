"""What is repeated, what is not, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import httpx
import pytest
from label_studio_sdk.core.api_error import ApiError

from a2lc_backend.label_studio import patience
from a2lc_backend.label_studio.patience import Patience, PatientClient, passes

pytestmark = pytest.mark.timed

Outcome = int | Exception


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(patience, "GREETING_SECONDS", 0.05)


class Server:
    """Answers with one outcome after the other, the last one for ever."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.asked = 0
        self._outcomes: Iterator[Outcome] = iter(outcomes)
        self._last: Outcome = 200

    def client(self) -> PatientClient:
        return PatientClient(transport=httpx.MockTransport(self._answer), base_url="http://studio")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        self._last = next(self._outcomes, self._last)
        if isinstance(self._last, Exception):
            raise self._last
        return httpx.Response(self._last, headers={"Retry-After": "0"})


@pytest.mark.parametrize(
    ("method", "path", "first", "asked"),
    [
        *[("GET", "/api", status, 2) for status in (408, 409, 429, 500, 502, 503, 504)],
        *[("PATCH", "/api", error, 2) for error in (httpx.ReadError("cut"), httpx.ReadTimeout("late"))],
        ("DELETE", "/api", httpx.RemoteProtocolError("cut"), 2),
        ("GET", "/api", 404, 1),
        ("POST", "/api", 500, 1),
        ("POST", "/api", 429, 2),
        ("POST", "/api", httpx.ConnectError("refused"), 2),
        ("POST", "/api/token/refresh/", 500, 2),
    ],
)
def test_what_may_be_repeated_is(method: str, path: str, first: Outcome, asked: int) -> None:
    server = Server([first, 200])
    with server.client() as client:
        reply = client.request(method, path)
    assert server.asked == asked
    assert reply.status_code == (200 if asked == 2 else first)


@pytest.mark.parametrize("error", [httpx.ReadError("cut"), httpx.ReadTimeout("late"), httpx.RemoteProtocolError("cut")])
def test_creating_is_not_repeated_when_the_reply_is_lost(error: Exception) -> None:
    server = Server([error, 200])
    with server.client() as client, pytest.raises(type(error)):
        client.post("/api")
    assert server.asked == 1


def test_patience_ends_and_is_longer_with_a_server_that_has_answered() -> None:
    server = Server([503])
    with server.client() as client:
        begun = time.monotonic()
        assert client.get("/api").status_code == 503
        stranger = time.monotonic() - begun
    known = Server([200, httpx.ConnectError("refused")])
    with known.client() as client:
        client.get("/api")
        begun = time.monotonic()
        with pytest.raises(httpx.ConnectError):
            client.get("/api")
        assert time.monotonic() - begun > max(stranger, 0.3)


def test_a_server_that_asks_for_more_than_there_is_patience_is_not_waited_for() -> None:
    begun = time.monotonic()
    assert not Patience().wait(asked=3600.0)
    assert Patience().wait(asked=0.05)
    assert 0.05 <= time.monotonic() - begun < 0.5


def test_which_errors_pass() -> None:
    assert all(passes(ApiError(status_code=status)) for status in (409, 429, 500))
    assert not any(passes(ApiError(status_code=status)) for status in (400, 401, 404))
    assert passes(httpx.ReadTimeout("late"))
    assert not passes(httpx.UnsupportedProtocol("ftp"))
