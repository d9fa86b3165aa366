"""The files of the web pages. Browsers ask each time whether they are still these: page and scripts belong together."""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"


_ASKED_AGAIN = {"Cache-Control": "no-cache"}


class Files(StaticFiles):
    """The scripts and styles."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """See `StaticFiles`; what did not change is not sent again."""
        reply = await super().get_response(path, scope)
        reply.headers.update(_ASKED_AGAIN)
        return reply


def page(name: str) -> FileResponse:
    """A page."""
    return FileResponse(STATIC / name, headers=_ASKED_AGAIN)
