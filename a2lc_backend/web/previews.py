"""The dry run of a next round, over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import FastAPI

from a2lc_backend.jobs import Jobs, Previews
from a2lc_backend.jobs.previews import PreviewState
from a2lc_backend.service import Service
from a2lc_backend.web.addresses import mask_picture
from a2lc_backend.web.errors import explained
from a2lc_backend.web.parameters import Number


def add_previews(app: FastAPI, service: Service, jobs: Jobs) -> None:
    """Serve dry runs."""
    previews = Previews(service, jobs)

    @app.post("/api/projects/{project_id}/rounds/preview", status_code=202, tags=["Rounds"])
    def start(project_id: Number) -> dict[str, Any]:
        """Find out what the next round would change by itself, without changing anything; one that runs is answered."""
        with explained():
            return _as_json(project_id, previews.start(project_id))

    @app.get("/api/projects/{project_id}/rounds/preview", tags=["Rounds"])
    def state(project_id: Number) -> dict[str, Any]:
        """How far the dry run is, and what it found: changes by class with some masks of each."""
        return _as_json(project_id, previews.state(project_id))


def _as_json(project_id: int, state: PreviewState) -> dict[str, Any]:
    """The state, with the address of each sample's picture."""
    found = asdict(state)
    if state.result is not None:
        # A mask is shown as the last round knew it: that is where the label comes from that would change.
        for change in found["result"]["changes"]:
            for sample in change["samples"]:
                sample["picture"] = mask_picture(project_id, state.result.last, sample["task"], sample["region"])
    return found
