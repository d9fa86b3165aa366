"""Names for files of weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK = 2**22


def file_digest(*paths: Path) -> str:
    """12 hex digits that tell the content of some files from any other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(_CHUNK):
                digest.update(part)
    return digest.hexdigest()[:12]
