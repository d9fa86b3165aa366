"""The control room: a web page for the admin, and what it asks beside the API for rounds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Query, Response
from fastapi.responses import FileResponse

from a2lc_backend.service import Service
from a2lc_backend.store import Project
from a2lc_backend.web.errors import explained
from a2lc_backend.web.files import STATIC, Files, page
from a2lc_backend.web.parameters import Number, RegionId

_KEPT = {"Cache-Control": "private, max-age=86400, immutable"}
"""A round's masks never change once it is done."""


def add_control_room(app: FastAPI, service: Service) -> None:
    """Serve the page at `/`, its files, and what it shows of projects and masks."""
    app.mount("/static", Files(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    def control_room() -> FileResponse:
        return page("index.html")

    @app.get("/api/projects", tags=["Projects"])
    def projects() -> list[dict[str, Any]]:
        """Every project that has begun a round, with its last rounds' status."""
        return [_overview(service, project) for project in service.ledger.projects()]

    @app.get("/api/projects/{project_id}/links", tags=["Projects"])
    def links(project_id: Number) -> dict[str, Any]:
        """Addresses in Label Studio: of the project, its review queue ("" before the first round), each annotator's."""
        studio = service.settings.label_studio_browser_url
        with explained():
            queues = service.present(project_id).queue_links(studio)
        queue = queues.pop("", "")
        return {"project": f"{studio}/projects/{project_id}/data", "queue": queue, "queues": queues}

    @app.get(
        "/api/projects/{project_id}/rounds/{number}/masks/{task_id}/{region_id}.jpg",
        tags=["Proposals"],
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}},
    )
    def picture(
        project_id: Number,
        number: Number,
        task_id: Number,
        region_id: RegionId,
        side: Annotated[int, Query(ge=64, le=1600, description="longer side in pixels, at most")] = 320,
        whole: Annotated[bool, Query(description="the whole image, with the mask marked")] = False,
    ) -> Response:
        """A mask in its surroundings, with its outline."""
        with explained():
            drawn = service.gallery.picture(project_id, number, task_id, region_id, side, whole)
            return Response(drawn, 200, _KEPT, "image/jpeg")


def _overview(service: Service, project: Project) -> dict[str, Any]:
    rounds = service.ledger.rounds(project.id)
    return asdict(project) | {
        "rounds": len(rounds),
        "status": rounds[-1].status if rounds else "",
        "corrections": service.ledger.count_corrections(project.id),
        "label_studio": f"{service.settings.label_studio_browser_url}/projects/{project.id}/data",
    }
