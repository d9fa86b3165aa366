"""How much anybody may send at once, and how often. What Label Studio calls has no rate: an event must not be lost."""

from __future__ import annotations

import math
import time

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_WRONG_OF_ADDRESS = parse("60/minute")
"""Wrong passwords, tokens and secrets that may come from one network address."""

_WRONG_OF_ACCOUNT = parse("5/minute")
"""Wrong passwords of one account, wherever they come from."""


class RequestSize:
    """Refuses bodies that are too large, before they are read.

    Args:
        app: what answers.
        most: bytes of a body.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; one that does not say how large it is is counted on the way."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        why = f"a request may have {self._most // 2**20} MB; send less at a time, or set A2LC_MAX_REQUEST_MB"
        said = dict(scope["headers"]).get(b"content-length", b"")
        if said.isdigit() and int(said) > self._most:
            await JSONResponse({"detail": why}, 413)(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                raise HTTPException(413, why)
            return message

        await self._app(scope, counted, send)


class Rates:
    """Counts what people ask, and what strangers get wrong, in this process.

    Args:
        people: requests that a person may make, such as "3000/minute"; "" for any number.
    """

    def __init__(self, people: str) -> None:
        self._people = parse(people) if people else None
        self._asked = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._wrong = MovingWindowRateLimiter(MemoryStorage())

    def asked(self, request: Request, person: int) -> None:
        """Somebody asks something.

        Args:
            request: of theirs.
            person: user id; 0 for somebody without one, who is known by the network address.

        Raises:
            HTTPException: 429 if that is too much at once.
        """
        if self._people is None:
            return
        name = f"person {person}" if person else f"address {address_of(request)}"
        if not self._asked.hit(self._people, name):
            self._refuse(self._asked, self._people, name, f"more than {self._people}; A2LC_RATE_LIMIT sets how many")

    def see_wrong(self, request: Request, account: str = "") -> None:
        """Before a secret is looked at: raises HTTPException 429 where too many were wrong."""
        for item, name, what in self._counted(request, account):
            if not self._wrong.test(item, name):
                self._refuse(self._wrong, item, name, f"too many wrong {what}; try again in a minute")

    def got_wrong(self, request: Request, account: str = "") -> None:
        """A password, token or secret was wrong."""
        for item, name, _ in self._counted(request, account):
            self._wrong.hit(item, name)

    @staticmethod
    def _counted(request: Request, account: str) -> list[tuple[RateLimitItem, str, str]]:
        counted = [(_WRONG_OF_ADDRESS, f"address {address_of(request)}", "passwords, tokens or secrets from here")]
        if account:
            counted.append((_WRONG_OF_ACCOUNT, f"account {account}", "passwords for this address"))
        return counted

    @staticmethod
    def _refuse(
        limiter: MovingWindowRateLimiter | SlidingWindowCounterRateLimiter, item: RateLimitItem, name: str, why: str
    ) -> None:
        wait = max(math.ceil(limiter.get_window_stats(item, name).reset_time - time.time()), 1)
        raise HTTPException(429, why, {"Retry-After": str(wait)})


def address_of(request: Request) -> str:
    """Network address that a request comes from; of a proxy's client where uvicorn trusts the proxy."""
    return request.client.host if request.client else ""
