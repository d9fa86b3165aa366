"""One installation of the program: settings, store and gateway joined, for the web server, the plug and the CLI."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as DeadlineError
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import structlog
from label_studio_sdk.client import LabelStudio

from a2lc_backend.label_studio import LabelStudioProject, close_client, open_client
from a2lc_backend.masks import IGNORE, Region
from a2lc_backend.proposals import make_proposals
from a2lc_backend.regions import LabelConfig, encode_region
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.platform import PlatformError, Prediction, TaskError
from a2lc_backend.rounds.propose import propose_task
from a2lc_backend.rounds.publish import RoundView
from a2lc_backend.rounds.runner import run_round
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.settings import ProjectSettings, Settings
from a2lc_backend.store import Artifacts, Ledger, Phase, Project, Round, TaskState

UNSCORED = "a2lc-new"
"""Version of what is shown before the first round is finished."""

log = structlog.get_logger()


@dataclass(frozen=True)
class TaskRequest:
    """A task that Label Studio asks a prediction for: its id and the address of its image."""

    task_id: int
    image: str


class Service:
    """Everything the program does, for any number of projects.

    Args:
        settings: of the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.ledger_url)
        self.artifacts = Artifacts(settings.artifact_url)
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="a2lc-predict")
        self._asked: dict[tuple[int, int], Future[None]] = {}
        self._clients: list[LabelStudio] = []
        self._views: dict[int, tuple[int, RoundView]] = {}

    def close(self) -> None:
        """Give back threads and connections; work that is cut off is taken up at the next start."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            close_client(client)
        self.ledger.close()

    def platform(self, project_id: int) -> LabelStudioProject:
        """The gateway to one project.

        Raises:
            LabelStudioUnauthorizedError: if no token is set.
        """
        url = self.settings.label_studio_url
        if not self._clients:
            self._clients.append(open_client(url, self.settings.label_studio_api_key.get_secret_value()))
        return LabelStudioProject(self._clients[0], url, project_id, self.settings.max_pixels)

    def version(self, project_id: int) -> str:
        """Model version that Label Studio should show for a project."""
        last = self.ledger.last_done(project_id)
        return last.version if last else UNSCORED

    # Rounds

    def begin_round(self, project_id: int, budget: int | None = None) -> Round:
        """Begin the next round, or take up the one that is unfinished; it is not run yet."""
        return self.ledger.begin_round(project_id, budget or 0)

    def run(self, project_id: int, watch: Callable[[Phase], None] | None = None) -> Round:
        """Run the unfinished round of a project to its end; see `run_round` for what it raises.

        Raises:
            PlatformError: if there is none.
        """
        unfinished = next((item for item in self.ledger.rounds(project_id) if item.status == "running"), None)
        if unfinished is None:
            raise PlatformError(f"project {project_id} has no unfinished round; start the next one")
        try:
            context = self.context(unfinished)
        except Exception as error:
            self.ledger.end_round(project_id, unfinished.number, "failed", str(error))
            raise
        return run_round(context, self.owner, watch)

    def context(self, record: Round) -> Context:
        """What the phases of a round work with.

        Raises:
            PlatformError: if Label Studio cannot be used.
            SettingsError: if the project's extra params are wrong.
        """
        platform = self.platform(record.project_id)
        settings = self.settings.project(platform.extra_params(self.settings.own_url))
        if record.budget == 0:
            record = replace(record, budget=settings.budget)
            self.ledger.save_round(record)
        return Context(
            record,
            settings,
            self.ledger,
            Workspace(self.artifacts, record.project_id),
            platform,
            make_proposals(settings.proposals, world=self.settings.world, superpixels=settings.superpixels),
            lambda classes: self._segmenter(settings, classes),
        )

    def _segmenter(self, settings: ProjectSettings, classes: int) -> Any:
        from a2lc_backend.segmenter import make_segmenter  # noqa: PLC0415 - torch is loaded when a round needs it

        name = settings.segmenter
        if name == "auto":
            name = "head" if self.settings.backbone else "unet"
        return make_segmenter(
            name, classes=classes, device=self.settings.device, backbone=self.settings.backbone, seed=settings.seed
        )

    # Predictions on demand

    def predict(
        self, project_id: int, requests: Sequence[TaskRequest], config: LabelConfig, deadline: float
    ) -> list[dict[str, Any]]:
        """Answer Label Studio's `/predict`: one entry a task, in order.

        A task that the program knows is answered from the store; for another, masks are proposed until the deadline,
        and after it the work goes on, so that a later question is answered from the store.

        Args:
            project_id: of the project.
            requests: the tasks.
            config: the project's label config, as Label Studio sends it with the request.
            deadline: seconds for all of them together.
        """
        end = monotonic() + deadline
        return [self._answer(project_id, request, config, max(end - monotonic(), 0.0)) for request in requests]

    def _answer(self, project_id: int, request: TaskRequest, config: LabelConfig, seconds: float) -> dict[str, Any]:
        empty: dict[str, Any] = {"result": [], "score": 0.0, "model_version": self.version(project_id)}
        logger = log.bind(project=project_id, task=request.task_id)
        try:
            stored = self._stored(project_id, request.task_id)
            if stored is None:
                self._ask(project_id, request).result(timeout=seconds)
                stored = self._stored(project_id, request.task_id)
        except DeadlineError:
            logger.info("prediction is not ready yet; it is being computed")
            return empty
        except (PlatformError, TaskError, ValueError) as error:
            logger.warning("no prediction", error=str(error))
            return empty
        if stored is None:
            return empty
        version, prediction = stored
        return {
            "result": [encode_region(region, config) for region in prediction.regions],
            "score": prediction.score,
            "model_version": version,
        }

    def _stored(self, project_id: int, task_id: int) -> tuple[str, Prediction] | None:
        state = self.ledger.task(project_id, task_id)
        if state is None or not state.ready:
            return None
        last = self.ledger.last_done(project_id)
        if last is not None:
            view = self._view(project_id, last)
            if view.labels.find(task_id) is not None:
                return last.version, view.prediction(task_id)
        return UNSCORED, self._proposed(project_id, state)

    def _view(self, project_id: int, last: Round) -> RoundView:
        number, view = self._views.get(project_id, (-1, None))
        if view is None or number != last.number:
            view = RoundView(self.ledger, Workspace(self.artifacts, project_id), project_id, last.number)
            self._views[project_id] = (last.number, view)
        return view

    def _proposed(self, project_id: int, state: TaskState) -> Prediction:
        project = self.ledger.project(project_id)
        masks = Workspace(self.artifacts, project_id).masks(state.mask_key)
        names = project.classes if project else ()
        regions = [
            Region(
                region_id, None if label == IGNORE else names[label], masks.mask(index), source="foundation",
                ring=masks.rings.get(region_id),
            )
            for index, (region_id, label) in enumerate(zip(masks.region_ids, masks.first_labels, strict=True))
        ]  # fmt: skip
        return Prediction(tuple(region for region in regions if region.mask.any()), 0.0)

    def _ask(self, project_id: int, request: TaskRequest) -> Future[None]:
        key = (project_id, request.task_id)
        future = self._asked.get(key)
        if future is None or future.done():
            future = self._pool.submit(self._propose, project_id, request)
            self._asked[key] = future
        return future

    def _propose(self, project_id: int, request: TaskRequest) -> None:
        state = self.ledger.task(project_id, request.task_id)
        if state is not None and state.ready:
            return
        context = self.context_for_prediction(project_id)
        state = TaskState(request.task_id, request.image)
        segmenter = context.make_segmenter(len(context.project().classes))
        key = propose_task(context, state, (), context.project().classes, segmenter)
        self.ledger.save_tasks(project_id, [replace(state, ready=True, mask_key=key)])

    def context_for_prediction(self, project_id: int) -> Context:
        """A context outside any round, for proposing masks of a single task."""
        last = self.ledger.last_done(project_id)
        context = self.context(Round(project_id, last.number if last else 0, "done", budget=1))
        info = context.platform.project()
        if self.ledger.project(project_id) is None:
            self.ledger.save_project(Project(project_id, info.title, info.classes))
        return context
