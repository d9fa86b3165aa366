"""What the corrector proposed, and what an admin says of it, over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from a2lc_backend.actions import approve_masks, approve_pair, selected
from a2lc_backend.insights import Insights
from a2lc_backend.jobs import Jobs
from a2lc_backend.rounds.groups import Selection, band_reports
from a2lc_backend.rounds.report import ProposalReport, ProposalState, find_round, group_reports
from a2lc_backend.service import Service
from a2lc_backend.web.addresses import mask_picture
from a2lc_backend.web.errors import explained
from a2lc_backend.web.parameters import Number, RegionId

Share = Annotated[float, Query(ge=0, le=1)]


class Approval(BaseModel):
    """Says whether the proposals that replace one class by another may be applied."""

    before: str = Field(description='class name, "none" for masks without label')
    after: str = Field(description="class name")
    approved: bool = True


class MaskRef(BaseModel):
    """One mask."""

    task: Number
    region: RegionId


class Chosen(BaseModel):
    """Some proposals of a round: single masks, or a pair of classes and how sure the corrector is of them."""

    model_config = ConfigDict(extra="forbid")

    masks: list[MaskRef] | None = Field(None, min_length=1, max_length=100_000)
    before: str = Field("", description='class name of the first label, "none" for masks without label')
    after: str = Field("", description="class name proposed")
    least: float = Field(0.0, ge=0, le=1, description="the corrector's probability is at least this")
    most: float = Field(1.0, ge=0, le=1, description="and below this; 1 includes 1")

    @model_validator(mode="after")
    def _names_something(self) -> Chosen:
        if (self.masks is None) != bool(self.before and self.after):
            raise ValueError("give either masks, or before and after")
        return self

    @property
    def selection(self) -> Selection:
        """As the rounds know it."""
        masks = None if self.masks is None else frozenset((item.task, item.region) for item in self.masks)
        return Selection(masks, self.before, self.after, self.least, self.most)


class ChosenApproval(Chosen):
    """Says whether what was held back of some masks may be applied."""

    approved: bool = True


def add_proposals(app: FastAPI, service: Service, jobs: Jobs, insights: Insights) -> None:
    """Serve the proposals of rounds, and take a word on them."""
    _add_lists(app, service, insights)

    @app.put("/api/projects/{project_id}/proposals/approval", tags=["Proposals"])
    def approve_group(project_id: Number, request: Approval) -> dict[str, Any]:
        """Approve all proposals of a pair of classes from the next round on, or withdraw that."""
        with explained():
            approve_pair(service, project_id, request.before, request.after, request.approved)
            return request.model_dump()

    @app.post("/api/projects/{project_id}/rounds/{number}/approve", tags=["Proposals"])
    def approve(project_id: Number, number: Number, request: ChosenApproval) -> dict[str, int]:
        """Let the next round apply what was held back of some masks, where it is proposed again; or withdraw that."""
        with explained():
            return {"masks": approve_masks(service, project_id, number, request.selection, request.approved)}

    @app.post("/api/projects/{project_id}/rounds/{number}/reject", status_code=202, tags=["Proposals"])
    def reject(project_id: Number, number: Number, request: Chosen) -> dict[str, Any]:
        """Take applied corrections of some masks back, and publish the labels again; no later round gives them anew."""
        return change(project_id, number, request, redo=False)

    @app.post("/api/projects/{project_id}/rounds/{number}/restore", status_code=202, tags=["Proposals"])
    def restore(project_id: Number, number: Number, request: Chosen) -> dict[str, Any]:
        """Let corrections of some masks hold again that were taken back, and publish the labels again."""
        return change(project_id, number, request, redo=True)

    def change(project_id: int, number: int, request: Chosen, redo: bool) -> dict[str, Any]:
        with explained():
            state: ProposalState = "taken back" if redo else "applied"
            masks = selected(service, project_id, number, request.selection, state)
            count = jobs.undo(project_id, number, redo, masks)
            return {"corrections": count, "masks": [{"task": task, "region": region} for task, region in masks]}


def _add_lists(app: FastAPI, service: Service, insights: Insights) -> None:
    @app.get("/api/projects/{project_id}/proposals", tags=["Proposals"])
    def groups(project_id: Number, round: Number | None = None) -> list[dict[str, Any]]:
        """The proposals of a round by class, the largest group first; of the last finished round if none is named."""
        with explained():
            return [asdict(group) for group in group_reports(service.ledger, project_id, round)]

    @app.get("/api/projects/{project_id}/proposals/bands", tags=["Proposals"])
    def bands(project_id: Number, round: Number | None = None) -> list[dict[str, Any]]:
        """The proposals of a round by class and by how sure the corrector is, and what became of them by now."""
        with explained():
            return [asdict(band) for band in band_reports(insights.proposals(project_id, round))]

    @app.get("/api/projects/{project_id}/proposals/masks", tags=["Proposals"])
    def masks(
        project_id: Number,
        round: Number | None = None,
        before: str | None = None,
        after: str | None = None,
        applied: bool | None = None,
        least: Share = 0.0,
        most: Share = 1.0,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
        offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    ) -> list[dict[str, Any]]:
        """Proposals of a round mask by mask: of one group, applied or held back, a page at a time."""
        chosen = Selection(None, before or "", after or "", least, most)
        with explained():
            wanted = (
                item
                for item in insights.proposals(project_id, round)
                if chosen.holds(item) and applied in (None, item.applied)
            )
            number = find_round(service.ledger, project_id, round).number
            return [_as_json(project_id, number, item) for item in islice(wanted, offset, offset + limit)]


def _as_json(project_id: int, number: int, item: ProposalReport) -> dict[str, Any]:
    picture = mask_picture(project_id, number, item.task_id, item.region_id)
    return asdict(item) | {"state": item.state, "picture": picture}
