"""Rides out a Label Studio that is busy, restarting or cut off for a moment, without doing anything twice.

Reading, changing and deleting may be repeated: the second time finds what the first left. Creating may not, because a
reply can be lost after the server acted; who creates looks at what is there before trying again (`Patience`). The SDK's
own retries know no such difference and are turned off.
"""

from __future__ import annotations

import random
import time
from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Status codes of refusals that often pass by themselves."""

PATIENCE_SECONDS = 60.0
"""How long a server that has answered before is waited for."""

GREETING_SECONDS = 3.0
"""How long a server that has never answered is waited for: its address may be wrong."""

FIRST_WAIT = 0.25
LONGEST_WAIT = 8.0

_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Patience:
    """Waits between attempts, longer each time and never twice alike, until it is used up.

    Args:
        seconds: from the first failure on.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = PATIENCE_SECONDS if seconds is None else seconds
        self._end = 0.0
        self._failures = 0

    def wait(self, asked: float = 0.0) -> bool:
        """Wait before the next attempt; False at once if there is no patience left.

        Args:
            asked: seconds that the server asked for.
        """
        now = time.monotonic()
        if not self._failures:
            self._end = now + self._seconds
        pause = max(min(FIRST_WAIT * 2.0**self._failures, LONGEST_WAIT) * random.uniform(0.5, 1.0), asked)  # noqa: S311
        self._failures += 1
        if now + pause > self._end:
            return False
        time.sleep(pause)
        return True


class PatientClient(httpx.Client):
    """Repeats what may be repeated, until it is answered or `PATIENCE_SECONDS` are over."""

    _answered = False

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, again where that does no harm."""
        patience = Patience(None if self._answered else GREETING_SECONDS)
        while True:
            try:
                response = super().send(request, **options)
            except (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError) as error:
                if not (_repeatable(request) or isinstance(error, _UNSENT)) or not patience.wait():
                    raise
                continue
            if response.status_code not in PASSING:
                self._answered = True
                return response
            # Who answers "too many requests" has not acted.
            if not (_repeatable(request) or response.status_code == 429) or not patience.wait(_asked(response)):
                return response
            response.close()


def passes(error: Exception) -> bool:
    """Whether trying again may help."""
    if isinstance(error, ApiError):
        return error.status_code in PASSING
    return isinstance(error, httpx.NetworkError | httpx.TimeoutException | httpx.RemoteProtocolError)


def _repeatable(request: httpx.Request) -> bool:
    # Trading a personal access token for a short-lived one is the one POST that leaves nothing behind.
    return request.method != "POST" or request.url.path.endswith("/token/refresh/")


def _asked(response: httpx.Response) -> float:
    asked = response.headers.get("retry-after", "")
    return float(asked) if asked.isdecimal() else 0.0
