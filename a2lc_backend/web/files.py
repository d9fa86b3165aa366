"""The files of the web pages."""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import FileResponse

STATIC = Path(__file__).parent / "static"


def page(name: str) -> FileResponse:
    """A page, asked for again each time: it names the scripts of the program that runs now."""
    return FileResponse(STATIC / name, headers={"Cache-Control": "no-cache"})
