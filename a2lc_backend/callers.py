"""What Label Studio shows when it calls this program, so that nobody else can call in its name."""

from __future__ import annotations

import base64
from dataclasses import dataclass

WEBHOOK_HEADER = "x-a2lc-secret"
"""Header of a webhook's secret, in small letters."""


@dataclass(frozen=True, repr=False)
class CallerSecrets:
    """What Label Studio is to show; each is "" where it need not.

    Attributes:
        user: of HTTP basic authentication.
        password: of that user.
        webhook: value of the header `X-A2LC-Secret` of webhooks.
    """

    user: str = ""
    password: str = ""
    webhook: str = ""

    @property
    def basic(self) -> str:
        """User and password as the header `Authorization` carries them after "Basic " (RFC 7617)."""
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode() if self.user else ""
