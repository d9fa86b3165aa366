"""The control room: a web page for the admin, and what it asks beside the API for rounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from a2lc_backend.rounds.platform import PlatformError, TaskError
from a2lc_backend.rounds.report import NotThereError
from a2lc_backend.service import Service
from a2lc_backend.store import ArtifactError, Project

STATIC = Path(__file__).parent / "static"

_KEPT = {"Cache-Control": "private, max-age=86400, immutable"}
"""A round's masks never change once it is done."""


def add_control_room(app: FastAPI, service: Service) -> None:
    """Serve the page at `/`, its files, and what it shows of projects and masks."""
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/api/projects", tags=["Projects"])
    def projects() -> list[dict[str, Any]]:
        """Every project that has begun a round, with its last rounds' status."""
        return [_overview(service, project) for project in service.ledger.projects()]

    @app.get("/api/projects/{project_id}/links", tags=["Projects"])
    def links(project_id: int) -> dict[str, str]:
        """Addresses in Label Studio: of the project, and of its review queue ("" before the first round)."""
        with _explained():
            queue = service.platform(project_id).queue_link()
        return {"project": f"{_label_studio(service)}/projects/{project_id}/data", "queue": queue}

    @app.get(
        "/api/projects/{project_id}/rounds/{number}/masks/{task_id}/{region_id}.jpg",
        tags=["Proposals"],
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}},
    )
    def picture(project_id: int, number: int, task_id: int, region_id: str) -> Response:
        """A mask in its surroundings, with its outline."""
        with _explained():
            return Response(service.mask_picture(project_id, number, task_id, region_id), 200, _KEPT, "image/jpeg")


def _overview(service: Service, project: Project) -> dict[str, Any]:
    rounds = service.ledger.rounds(project.id)
    return asdict(project) | {
        "rounds": len(rounds),
        "status": rounds[-1].status if rounds else "",
        "corrections": service.ledger.count_corrections(project.id),
        "label_studio": f"{_label_studio(service)}/projects/{project.id}/data",
    }


def _label_studio(service: Service) -> str:
    return service.settings.label_studio_url.rstrip("/")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except NotThereError as error:
        raise HTTPException(404, str(error)) from error
    except (PlatformError, TaskError, ArtifactError) as error:
        raise HTTPException(502, str(error)) from error
