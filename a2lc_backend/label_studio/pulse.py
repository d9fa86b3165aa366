"""Whether Label Studio answers at all, asked quickly and not too often."""

from __future__ import annotations

import threading
import time

import httpx

from a2lc_backend.label_studio.client import LabelStudioUnreachableError

_SECONDS = 3.0
_GOOD_FOR = 5.0


class Pulse:
    """Knows whether Label Studio answers; asks it again after a few seconds.

    What a person waits for should not ride out an absence of minutes, as a round does.

    Args:
        url: address of Label Studio.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._lock = threading.Lock()
        self._felt = -_GOOD_FOR
        self._trouble = ""

    def trouble(self) -> str:
        """Why Label Studio cannot be used now, with the mend; empty while it answers."""
        with self._lock:  # who asks meanwhile waits for the same answer
            if time.monotonic() - self._felt >= _GOOD_FOR:
                self._trouble = self._ask()
                self._felt = time.monotonic()
            return self._trouble

    def require(self) -> None:
        """Go on only while Label Studio answers.

        Raises:
            LabelStudioUnreachableError: if it does not.
        """
        trouble = self.trouble()
        if trouble:
            raise LabelStudioUnreachableError(trouble)

    def _ask(self) -> str:
        mend = "start it, or set LABEL_STUDIO_URL to its address and restart the backend"
        try:
            reply = httpx.get(f"{self._url}/health", timeout=_SECONDS, follow_redirects=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"Label Studio does not answer at {self._url} ({type(error).__name__}); {mend}"
        if reply.status_code >= 500:
            return f"Label Studio at {self._url} answers {reply.status_code}; look into its log"
        return ""
