"""What the control room shows of a project's past and present, beside the rounds themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import FastAPI

from a2lc_backend.insights import Insights
from a2lc_backend.rounds.insight import PAUSE_SECONDS, Pace
from a2lc_backend.rounds.teachers import Teaching
from a2lc_backend.service import Service
from a2lc_backend.web.addresses import mask_picture
from a2lc_backend.web.errors import explained
from a2lc_backend.web.parameters import Number, RegionId


def add_insight(app: FastAPI, service: Service, insights: Insights) -> None:
    """Serve figures, the history of masks, and whether Label Studio answers."""

    @app.get("/api/projects/{project_id}/figures", tags=["Projects"])
    def figures(project_id: Number) -> dict[str, Any]:
        """Class balance, hit rates, people's pace, the corrector's precision by round and class, budgets."""
        with explained():
            found = insights.figures(project_id)
        people = [_pace(pace) for pace in found.people]
        return asdict(found) | {"people": people, "pause_seconds": PAUSE_SECONDS}

    @app.get("/api/projects/{project_id}/masks/{task_id}/{region_id}", tags=["Proposals"])
    def mask(project_id: Number, task_id: Number, region_id: RegionId, round: Number | None = None) -> dict[str, Any]:
        """Every label a mask held and where it came from, and the people's answers that taught its correction.

        `teaching` explains what the corrector of `round` (the last finished one if not given) proposed; null where it
        proposed nothing.
        """
        with explained():
            past, taught = insights.mask(project_id, task_id, region_id, round)
        data = f"{service.settings.label_studio_browser_url}/projects/{project_id}/data"
        shown = round if round is not None else past.held[-1].round
        return asdict(past) | {
            "picture": mask_picture(project_id, shown, task_id, region_id),
            "label_studio": f"{data}?task={task_id}",
            "teaching": taught and _teaching(project_id, taught),
        }

    @app.get("/api/label-studio", tags=["Operation"])
    def label_studio() -> dict[str, str]:
        """Where Label Studio is, and why it cannot be used now, with the mend; `trouble` is empty while it answers."""
        return {"url": service.settings.label_studio_browser_url, "trouble": service.pulse.trouble()}


def _teaching(project_id: int, found: Teaching) -> dict[str, Any]:
    teachers = [
        asdict(one) | {"picture": mask_picture(project_id, found.round, one.task_id, one.region_id)}
        for one in found.teachers
    ]
    return asdict(found) | {"teachers": teachers}


def _pace(pace: Pace) -> dict[str, Any]:
    return asdict(pace) | {"answers_an_hour": pace.answers_an_hour, "changes_an_hour": pace.changes_an_hour}
