"""The settings of a project, over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from a2lc_backend.project_settings import SettingsDesk, WrongSettingsError
from a2lc_backend.service import Service
from a2lc_backend.web.errors import explained
from a2lc_backend.web.parameters import Number


class NewSettings(BaseModel):
    """Settings to change; those that are not named stay."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = Field(
        description="values by name; null gives a setting back to the installation", examples=[{"budget": 300}]
    )


def add_settings(app: FastAPI, service: Service) -> None:
    """Serve what holds in a project, and change it."""
    desk = SettingsDesk(service)

    @app.get("/api/projects/{project_id}/settings", tags=["Settings"])
    def settings(project_id: Number) -> dict[str, Any]:
        """Every setting of a project: what it is, what holds, and who says so."""
        with explained():
            return asdict(desk.form(project_id))

    @app.put("/api/projects/{project_id}/settings", tags=["Settings"])
    def change(project_id: Number, request: NewSettings, http: Request) -> dict[str, Any]:
        """Change settings from the next round on; they are kept in Label Studio, with the ML backend."""
        person = getattr(http.state, "person", None)
        try:
            with explained():
                return asdict(desk.change(project_id, request.settings, person.id if person else 0))
        except WrongSettingsError as error:
            wrong = [{"loc": ["body", "settings", name], "msg": why} for name, why in error.fields.items()]
            raise HTTPException(422, wrong) from error

    @app.get("/api/projects/{project_id}/settings/history", tags=["Settings"])
    def history(project_id: Number) -> list[dict[str, Any]]:
        """Who changed which setting, the latest first."""
        return desk.history(project_id)
