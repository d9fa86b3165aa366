"""Addresses of pictures that need no login: Label Studio's page shows them, and nobody can guess another."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote

from a2lc_backend.store import MaskKey

_LENGTH = 32


def picture_path(secret: str, project_id: int, mask: MaskKey) -> str:
    """Path of a queued mask's picture, signed."""
    region = quote(mask.region_id, safe="")
    return f"review/pictures/{_sign(secret, project_id, mask)}/{project_id}/{mask.round}/{mask.task_id}/{region}.jpg"


def is_signed(signature: str, secret: str, project_id: int, mask: MaskKey) -> bool:
    """Whether a signature is that of a mask's picture."""
    return hmac.compare_digest(signature.encode(), _sign(secret, project_id, mask).encode())


def _sign(secret: str, project_id: int, mask: MaskKey) -> str:
    what = f"{project_id}/{mask.round}/{mask.task_id}/{mask.region_id}"
    return hmac.new(secret.encode(), what.encode(), hashlib.sha256).hexdigest()[:_LENGTH]
