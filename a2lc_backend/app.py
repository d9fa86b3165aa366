"""The web server: Label Studio's contract for ML backends, and an API for rounds."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from fastapi import Body, Depends, FastAPI, HTTPException, Response
from fastapi.responses import PlainTextResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field

from a2lc_backend import __version__
from a2lc_backend.figures import Figures
from a2lc_backend.insights import Insights
from a2lc_backend.jobs import Jobs
from a2lc_backend.label_studio import FOLLOWS
from a2lc_backend.regions import LabelConfig, LabelConfigError, parse_label_config
from a2lc_backend.rounds.report import round_report
from a2lc_backend.service import Service, TaskRequest
from a2lc_backend.store import ALIVE_SECONDS
from a2lc_backend.web import add_control_room
from a2lc_backend.web.errors import REFUSALS, add_plain_refusals, explained
from a2lc_backend.web.headers import SafeHeaders
from a2lc_backend.web.insight import add_insight
from a2lc_backend.web.limits import RequestSize
from a2lc_backend.web.login import Gate, add_login
from a2lc_backend.web.parameters import Number
from a2lc_backend.web.previews import add_previews
from a2lc_backend.web.proposals import add_proposals
from a2lc_backend.web.review import add_review
from a2lc_backend.web.settings import add_settings

_PROJECT = re.compile(r"(\d+)(\.\d+)?")


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="allow")


class SetupRequest(_Lenient):
    """What Label Studio sends when it looks at the backend; `project` is "<id>.<time of creation>"."""

    project: str = ""
    schema_: str = Field("", alias="schema")


class PredictRequest(_Lenient):
    """Tasks that Label Studio wants predictions for."""

    tasks: list[dict[str, Any]]
    project: str | None = None
    label_config: str = ""
    params: dict[str, Any] | None = None

    @property
    def prompts(self) -> list[Any]:
        """What smart tools point at; empty where a whole prediction is wanted."""
        context = (self.params or {}).get("context")
        result = context.get("result") if isinstance(context, dict) else None
        return result if isinstance(result, list) else []


class NextRound(BaseModel):
    """Asks for the next round of a project."""

    budget: int | None = Field(
        None, ge=1, le=10_000_000, description="masks to queue; if not given, the project's setting"
    )


def create_app(service: Service) -> FastAPI:
    """Build the web server.

    Args:
        service: does the work; it is closed when the server ends.
    """
    jobs = Jobs(service)
    metrics = Figures(service)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        jobs.start()
        threading.Thread(target=service.perception.warm, name="warm", daemon=True).start()
        yield
        service.close(idle=jobs.stop())

    gate = Gate(service)
    app = FastAPIOffline(
        title="A²LC for Label Studio",
        version=__version__,
        lifespan=life,
        dependencies=[Depends(gate)],
        responses=REFUSALS,
    )
    app.add_middleware(RequestSize, most=service.settings.max_request_mb * 2**20)
    app.add_middleware(SafeHeaders)
    add_plain_refusals(app)
    add_login(app, gate)
    _add_contract(app, service, jobs, metrics)
    add_previews(app, service, jobs)  # before the rounds: `preview` is no number
    _add_rounds(app, service, jobs)
    insights = Insights(service)
    add_proposals(app, service, jobs, insights)
    add_settings(app, service)
    add_control_room(app, service)
    add_review(app, service, jobs.courier)
    add_insight(app, service, insights)
    return app


def _add_contract(app: FastAPI, service: Service, jobs: Jobs, metrics: Figures) -> None:
    """What Label Studio 1.23 calls."""

    @app.get("/health", tags=["Label Studio"])
    def health() -> dict[str, str]:
        """Answers while the program can run rounds."""
        if not jobs.alive:
            raise HTTPException(503, "a thread that runs rounds has ended; restart the program")
        return {"status": "UP", "model_class": "A2LC", "installation": service.settings.installation}

    @app.post("/setup", tags=["Label Studio"])
    def setup(request: SetupRequest) -> dict[str, str]:
        """Says which model version holds; changes nothing."""
        with metrics.seconds.labels("setup").time():
            metrics.requests.labels("setup").inc()
            project_id = _project_id(request.project)
            return {"model_version": service.version(project_id) if project_id else "a2lc"}

    @app.get("/versions", tags=["Label Studio"])
    def versions(project: Number | None = None) -> dict[str, list[str]]:
        """Model versions of the finished rounds."""
        projects = [project] if project is not None else [item.id for item in service.ledger.projects()]
        found = [record.version for item in projects for record in service.ledger.rounds(item) if record.version]
        return {"versions": found}

    @app.post("/predict", tags=["Label Studio"])
    def predict(request: PredictRequest) -> dict[str, list[dict[str, Any]]]:
        """Masks and labels of tasks, from the store or proposed within the deadline."""
        with metrics.seconds.labels("predict").time():
            metrics.requests.labels("predict").inc()
            project_id = _project_id(request.project or "") or _project_of(request.tasks)
            if not project_id:
                raise HTTPException(422, "the request names no project; call it from Label Studio 1.23 or newer")
            try:
                with explained():
                    sent = request.label_config
                    config = _config(sent) if sent else service.platform(project_id).config
            except LabelConfigError as error:
                raise HTTPException(422, str(error)) from error
            requests = [_task_request(task, config) for task in request.tasks]
            if request.prompts:
                return {"results": [service.suggest(project_id, item, config, request.prompts) for item in requests]}
            return {"results": service.predict(project_id, requests, config, service.settings.predict_deadline)}

    @app.post("/webhook", tags=["Label Studio"])
    def webhook(event: dict[str, Any] = Body()) -> dict[str, str]:  # noqa: B008 - FastAPI's way
        """Persists what Label Studio reports, then answers; Start Training begins the next round."""
        with metrics.seconds.labels("webhook").time():
            metrics.requests.labels("webhook").inc()
            action, project = event.get("action"), event.get("project")
            project_id = project.get("id") if isinstance(project, dict) else project
            named = isinstance(action, str) and action.isprintable()
            if not named or type(project_id) is not int or not 0 < project_id < 2**31:
                raise HTTPException(422, "a webhook of Label Studio has `action` and `project.id`")
            service.ledger.add_event(str(action)[:64], project_id)
            jobs.handle_events()
            return {"status": "persisted"}

    @app.get("/metrics", tags=["Operation"], response_class=PlainTextResponse)
    def prometheus() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _add_rounds(app: FastAPI, service: Service, jobs: Jobs) -> None:
    """What the command line and other programs call."""

    @app.get("/api/projects/{project_id}/rounds", tags=["Rounds"])
    def rounds(project_id: Number) -> list[dict[str, Any]]:
        """Every round of a project, first to last."""
        return [asdict(record) for record in service.ledger.rounds(project_id)]

    @app.get("/api/projects/{project_id}/rounds/{number}", tags=["Rounds"])
    def show(project_id: Number, number: Number) -> dict[str, Any]:
        """A round with its phases, problems and changes by class."""
        with explained():
            return asdict(round_report(service.ledger, project_id, number))

    @app.post("/api/projects/{project_id}/rounds", status_code=202, tags=["Rounds"])
    def next_round(project_id: Number, request: NextRound) -> dict[str, Any]:
        """Begin the next round, or go on with one that failed or is paused; one that is running is answered instead."""
        with explained():
            return asdict(jobs.next_round(project_id, request.budget))

    @app.post("/api/projects/{project_id}/rounds/pause", tags=["Rounds"])
    def pause(project_id: Number) -> dict[str, Any]:
        """Stop the running round where it is; beginning the next one goes on with it."""
        with explained():
            return asdict(jobs.pause(project_id))

    @app.post("/api/projects/{project_id}/rounds/cancel", status_code=202, tags=["Rounds"])
    def cancel(project_id: Number) -> dict[str, Any]:
        """Give the unfinished round up; the labels and the queue of the round before stay."""
        with explained():
            return asdict(jobs.cancel(project_id))

    @app.post("/api/projects/{project_id}/rounds/{number}/undo", status_code=202, tags=["Rounds"])
    def undo(project_id: Number, number: Number) -> dict[str, int]:
        """Take the automatic corrections of a round back, and publish the labels again."""
        with explained():
            return {"corrections": jobs.undo(project_id, number)}

    @app.post("/api/projects/{project_id}/rounds/{number}/redo", status_code=202, tags=["Rounds"])
    def redo(project_id: Number, number: Number) -> dict[str, int]:
        """Let the corrections of a round hold again that were taken back, and publish the labels again."""
        with explained():
            return {"corrections": jobs.undo(project_id, number, redo=True)}

    @app.get("/api/workers", tags=["Operation"])
    def workers() -> list[dict[str, Any]]:
        """The workers that live."""
        return [asdict(worker) for worker in service.ledger.workers(ALIVE_SECONDS)]


def _project_id(text: str) -> int:
    """Project of "7.1795330662" or "7"; 0 for anything else."""
    match = _PROJECT.fullmatch(text)
    return int(match[1]) if match and len(match[1]) < 10 else 0


def _project_of(tasks: list[dict[str, Any]]) -> int:
    owner = tasks[0].get("project") if tasks else None
    return owner if isinstance(owner, int) and 0 < owner < 2**31 else 0


def _task_request(task: dict[str, Any], config: LabelConfig) -> TaskRequest:
    data = task.get("data")
    task_id = task.get("id")
    source = data.get(FOLLOWS) if isinstance(data, dict) else None
    owner = source if isinstance(source, int) else task_id
    if not isinstance(data, dict) or not isinstance(owner, int) or not 0 <= owner < 2**31:
        raise HTTPException(422, "every task has an `id` and `data`")
    return TaskRequest(owner, str(data.get(config.image_key, "")))


@lru_cache(maxsize=64)
def _config(xml: str) -> LabelConfig:
    return parse_label_config(xml)
