"""One installation of the program: settings, store and gateway joined, for the web server, the plug and the CLI."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as DeadlineError
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import structlog
from label_studio_sdk.client import LabelStudio

from a2lc_backend.clicks import suggest
from a2lc_backend.foundation import FoundationError
from a2lc_backend.gallery import Gallery
from a2lc_backend.label_studio import (
    LabelStudioProject,
    LabelStudioUnreachableError,
    Pulse,
    close_client,
    deliver_answers,
    open_client,
)
from a2lc_backend.masks import IGNORE, Region
from a2lc_backend.perception import Perception
from a2lc_backend.proposals import make_proposals
from a2lc_backend.regions import LabelConfig, encode_region
from a2lc_backend.rounds.collect import take_over
from a2lc_backend.rounds.context import Context, Progress
from a2lc_backend.rounds.heartbeat import RoundBusyError, held_lock, own_name, take_lock
from a2lc_backend.rounds.platform import PlatformError, Prediction, Task, TaskError
from a2lc_backend.rounds.propose import propose_task
from a2lc_backend.rounds.publish import RoundView
from a2lc_backend.rounds.rebuild import Rebuilt, make_room, rebuild
from a2lc_backend.rounds.runner import Dispatch, run_round
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.segmenter import Segmenter
from a2lc_backend.settings import ProjectSettings, Settings
from a2lc_backend.store import ArtifactError, Artifacts, Ledger, Phase, Project, Round, TaskState, open_round
from a2lc_backend.weights import WeightsError

_WAITING = 8
"""Requests for a prediction that may wait at once; the web server has 40 threads for all it answers."""

_PREDICTOR_SECONDS = 60.0

UNSCORED = "a2lc-new"
"""Version of what is shown before the first round is finished."""

log = structlog.get_logger()


@dataclass(frozen=True)
class TaskRequest:
    """A task that Label Studio asks a prediction for: its id and the address of its image."""

    task_id: int
    image: str


@dataclass(frozen=True)
class Look:
    """What a look at Label Studio between rounds found.

    Attributes:
        new: something that no round has begun with yet.
        answers: masks people have decided since the last round.
        wanted: as many are to begin the next round by themselves; 0 for never.
    """

    new: bool
    answers: int
    wanted: int


class Service:
    """Everything the program does, for any number of projects.

    Args:
        settings: of the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.ledger_url)
        self.artifacts = Artifacts(settings.artifact_url)
        self.owner = own_name()
        self.pulse = Pulse(settings.label_studio_url)
        self.perception = Perception(settings, self.artifacts, self.ledger)
        self.gallery = Gallery(self.ledger, self.artifacts, self.present)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="a2lc-predict")
        self._asked: dict[tuple[int, int], Future[None]] = {}
        self._waiting = threading.BoundedSemaphore(_WAITING)
        self._predictors: dict[int, tuple[float, Context, Segmenter]] = {}
        self._clicks: dict[int, tuple[float, tuple[LabelStudioProject, ProjectSettings]]] = {}
        self._clients: list[LabelStudio] = []
        self._views: dict[int, tuple[str, RoundView]] = {}

    def close(self, idle: bool = True) -> None:
        """Give back threads and connections; work that is cut off is taken up at the next start.

        Args:
            idle: no round is being run; its connections are not cut while one is.
        """
        self._pool.shutdown(wait=False, cancel_futures=True)
        if idle:
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
        review = self.ledger.review_project(project_id)
        return LabelStudioProject(
            self._clients[0], url, project_id, self.settings.image_limits, self.settings.browser_url, review
        )

    def present(self, project_id: int) -> LabelStudioProject:
        """The gateway to one project for what a person waits for; who runs rounds rides an absence out instead.

        Raises:
            LabelStudioUnreachableError: at once, while Label Studio does not answer.
            LabelStudioUnauthorizedError: if no token is set.
        """
        self.pulse.require()
        return self.platform(project_id)

    def version(self, project_id: int) -> str:
        """Model version that Label Studio should show for a project."""
        last = self.ledger.last_done(project_id)
        return last.version if last else UNSCORED

    # Rounds

    def begin_round(self, project_id: int, budget: int | None = None) -> Round:
        """Begin the next round, or take up the one that is unfinished; it is not run yet."""
        return self.ledger.begin_round(project_id, budget or 0)

    def run(
        self,
        project_id: int,
        watch: Callable[[Phase], None] | None = None,
        stop: threading.Event | None = None,
        patient: bool = False,
        dispatch: Dispatch | None = None,
    ) -> Round:
        """Run the unfinished round of a project to its end; see `run_round` for the arguments and what it raises.

        Args:
            project_id: of the project.
            watch: told of progress.
            stop: gives the round back when set.
            patient: leave the round unfinished, not failed, when Label Studio does not answer at the beginning.
            dispatch: who does the work; this thread if not given.

        Raises:
            PlatformError: if there is no unfinished round, or Label Studio cannot be used.
        """
        unfinished = next((item for item in self.ledger.unfinished() if item.project_id == project_id), None)
        if unfinished is None:
            raise PlatformError(f"project {project_id} has no unfinished round; start the next one")
        if not take_lock(self.ledger, project_id, self.owner):
            raise RoundBusyError(f"a round of project {project_id} is being run by another process")
        try:
            context = self.context(unfinished)
            # What the review page heard counts in the round that begins now, though nobody has brought it yet.
            deliver_answers(self.ledger, self.platform(project_id), project_id)
        except Exception as error:
            if unfinished.status == "cancelling" and not unfinished.version:
                return self._give_up(unfinished)
            if not (patient and isinstance(error, LabelStudioUnreachableError)):
                self.ledger.change_status(
                    project_id, unfinished.number, ["running", "cancelling"], "failed", str(error)
                )
            self.ledger.release_lock(project_id, self.owner)
            raise
        return run_round(context, self.owner, watch, stop, dispatch)

    def _give_up(self, record: Round) -> Round:
        """Cancel a round that published nothing, as of a project that is not there: Label Studio is not needed."""
        self.ledger.forget_round(record.project_id, record.number)
        Workspace(self.artifacts, record.project_id).forget_round(record.number)
        self.ledger.change_status(record.project_id, record.number, ["cancelling"], "cancelled")
        self.ledger.release_lock(record.project_id, self.owner)
        return replace(record, status="cancelled")

    def look(self, project_id: int, needed: bool) -> Look | None:
        """Take over what people did since the last round, between rounds.

        Args:
            project_id: of the project.
            needed: look even if the project waits for no number of corrections.

        Returns:
            What was found; None while a round is unfinished.

        Raises:
            PlatformError: if Label Studio cannot be used.
            SettingsError: if the project's extra params are wrong.
            RoundBusyError: while another process has the project.
        """
        rounds = self.ledger.rounds(project_id)
        if not all(item.has_ended for item in rounds):
            # A failed round is tried again when a person asks for it.
            return Look(new=True, answers=0, wanted=0) if needed and open_round(rounds).status == "failed" else None
        platform = self.platform(project_id)
        if not rounds:
            connected = platform.is_connected(self.settings.own_url, self.settings.installation)
            return Look(connected, answers=0, wanted=0)
        wanted = self.settings.project(platform.extra_params(self.settings.own_url)).auto_round
        if not needed and not wanted:
            return Look(new=False, answers=0, wanted=0)
        context = self.catch_up(project_id, lambda _done, _total: None)
        new = context.project().news
        # What a cancelled round had been begun for does not begin the next.
        heard = rounds[-1].number
        answers = {(item.task_id, item.region_id) for item in self.ledger.corrections(project_id) if item.round > heard}
        return Look(new or bool(answers), len(answers), wanted)

    def catch_up(self, project_id: int, progress: Progress) -> Context:
        """Take over what people did since the last round, between rounds.

        Returns:
            What a round works with that would begin now; nothing is begun.

        Raises:
            PlatformError: if Label Studio cannot be used.
            SettingsError: if the project's extra params are wrong.
            RoundBusyError: while another process has the project.
        """
        platform = self.platform(project_id)
        settings = self.settings.project(platform.extra_params(self.settings.own_url))
        number = max((item.number for item in self.ledger.rounds(project_id)), default=-1) + 1
        # Another thread of this process may be running a round, so this one has a name of its own.
        with held_lock(self.ledger, project_id, own_name()) as check:
            context = self._join(Round(project_id, number, "running"), settings, platform)
            deliver_answers(self.ledger, platform, project_id)

            def tell(done: int, total: int) -> None:
                check()
                progress(done, total)

            take_over(context, tell)
        return context

    def context(self, record: Round) -> Context:
        """What the phases of a round work with.

        Raises:
            PlatformError: if Label Studio cannot be used.
            SettingsError: if the project's extra params are wrong.
        """
        platform = self.platform(record.project_id)
        if record.settings:
            settings = ProjectSettings(**record.settings)
        else:
            settings = self.settings.project(platform.extra_params(self.settings.own_url))
            record = replace(record, budget=record.budget or settings.budget, settings=settings.model_dump())
            self.ledger.save_round(record)
        return self._join(record, settings, platform)

    def _join(self, record: Round, settings: ProjectSettings, platform: LabelStudioProject) -> Context:
        return Context(
            record,
            settings,
            self.ledger,
            Workspace(self.artifacts, record.project_id),
            platform,
            make_proposals(
                settings.proposals, world=self.settings.world, superpixels=settings.superpixels,
                foundation=self.perception.foundation(settings.proposals), box_threshold=settings.box_threshold,
                background=settings.background, tile_pixels=self.settings.tile_pixels,
            ),
            lambda classes: self._segmenter(settings, classes),
            self.perception.appearance(settings),
        )  # fmt: skip

    def _segmenter(self, settings: ProjectSettings, classes: int) -> Segmenter:
        from a2lc_backend.segmenter import Training, make_segmenter  # noqa: PLC0415 - torch is loaded when a round needs it

        name = settings.segmenter
        if name == "auto":
            name = "head" if self.settings.backbone else "unet"
        return make_segmenter(
            name, classes=classes, device=self.settings.device, backbone=self.settings.backbone, seed=settings.seed,
            training=Training(
                settings.encoder, settings.iterations, settings.crop, settings.batch, settings.learning_rate
            ),
        )  # fmt: skip

    def rebuild(self, project_id: int, replace_store: bool, progress: Progress) -> Rebuilt:
        """Make the store of a project anew from what Label Studio holds; see `rounds.rebuild`.

        Args:
            project_id: of the project.
            replace_store: throw away the rounds that the store holds.
            progress: told of images.

        Raises:
            RoundBusyError: if another process runs a round of the project.
            RebuildRefusedError: if the store holds rounds that must not be replaced.
            PlatformError: if Label Studio cannot be used, or shows no version of this program, or weights are missing.
            SettingsError: if the project's extra params are wrong.
        """
        platform = self.platform(project_id)
        version, number = platform.shown()
        settings = self.settings.project(platform.extra_params(self.settings.own_url))
        try:
            for name in self.perception.needed(settings):
                self.perception.weights.path(name)
        except WeightsError as error:  # before anything is thrown away
            raise PlatformError(str(error)) from error
        context = self._join(Round(project_id, number, "running", version), settings, platform)
        with held_lock(self.ledger, project_id, self.owner) as check:

            def tell(done: int, total: int) -> None:
                check()
                progress(done, total)

            make_room(context, replace_store)
            return rebuild(context, platform, tell)

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

    def suggest(
        self, project_id: int, request: TaskRequest, config: LabelConfig, items: Sequence[Any]
    ) -> dict[str, Any]:
        """Answer a smart tool of Label Studio: the region that a click, a box or a stroke points at.

        What cannot be answered is logged, and answered without a region: Label Studio shows no message of a backend's.

        Args:
            project_id: of the project.
            request: the task on the screen.
            config: the project's label config, as Label Studio sends it with the request.
            items: what the smart tools sent.
        """
        nothing: dict[str, Any] = {"result": [], "score": 0.0, "model_version": self.version(project_id)}
        try:
            platform, settings = self._clicked_project(project_id)
            model = self.perception.clicked(settings)
            if model is None:
                log.warning(
                    "smart tools are not answered: A2LC_CLICKS is off, or there are no weights of SAM; see doctor"
                )
                return nothing
            key = Workspace(self.artifacts, project_id).image_key(request.task_id, request.image)
            seen = self.perception.embedding(model, key, lambda: platform.image(Task(request.task_id, request.image)))
            return suggest(model, seen, config, items)
        except (PlatformError, TaskError, ArtifactError, FoundationError, ValueError) as error:
            log.warning("a smart tool is not answered", project=project_id, task=request.task_id, error=str(error))
            return nothing

    def _clicked_project(self, project_id: int) -> tuple[LabelStudioProject, ProjectSettings]:
        """What answering a click needs of a project; looked at anew every minute, behind the answer."""
        if project_id not in self._clicks:
            return self._look_at_clicked(project_id)
        made, known = self._clicks[project_id]
        if monotonic() - made > _PREDICTOR_SECONDS:
            self._clicks[project_id] = (monotonic(), known)
            self._pool.submit(self._look_at_clicked, project_id)
        return known

    def _look_at_clicked(self, project_id: int) -> tuple[LabelStudioProject, ProjectSettings]:
        platform = self.platform(project_id)
        known = platform, self.settings.project(platform.extra_params(self.settings.own_url))
        self._clicks[project_id] = (monotonic(), known)
        return known

    def _answer(self, project_id: int, request: TaskRequest, config: LabelConfig, seconds: float) -> dict[str, Any]:
        empty: dict[str, Any] = {"result": [], "score": 0.0, "model_version": self.version(project_id)}
        logger = log.bind(project=project_id, task=request.task_id)
        try:
            answer = self._encoded(project_id, request.task_id, config) if seconds > 0 else None
            if answer is None:
                asked = self._ask(project_id, request)
                if not self._waiting.acquire(blocking=False):
                    return empty  # enough web threads wait already
                try:
                    asked.result(timeout=seconds)
                finally:
                    self._waiting.release()
                answer = self._encoded(project_id, request.task_id, config)
        except DeadlineError:
            logger.info("prediction is not ready yet; it is being computed")
            return empty
        except (PlatformError, TaskError, ArtifactError, FoundationError, ValueError) as error:
            logger.warning("no prediction", error=str(error))
            return empty
        return empty if answer is None else answer

    def _encoded(self, project_id: int, task_id: int, config: LabelConfig) -> dict[str, Any] | None:
        stored = self._stored(project_id, task_id)
        if stored is None:
            return None
        version, prediction = stored
        # All of them: of what is stored here the rest is not written beside it.
        regions = [encode_region(region, config) for region in prediction.regions + prediction.rest]
        return {"result": regions, "score": prediction.score, "model_version": version}

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
        version, view = self._views.get(project_id, ("", None))
        if view is None or version != last.version:
            view = RoundView(self.ledger, Workspace(self.artifacts, project_id), project_id, last.number)
            self._views[project_id] = (last.version, view)
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
            future.add_done_callback(lambda _: self._asked.pop(key, None))
        return future

    def _propose(self, project_id: int, request: TaskRequest) -> None:
        state = self.ledger.task(project_id, request.task_id)
        if state is not None and state.ready:
            return
        context, segmenter = self._predictor(project_id)
        state = state or TaskState(request.task_id, request.image)
        self.ledger.save_tasks(project_id, [propose_task(context, state, (), context.project().classes, segmenter)])

    def _predictor(self, project_id: int) -> tuple[Context, Segmenter]:
        """What proposing masks of a single task needs, outside any round; made anew every minute."""
        made, *kept = self._predictors.get(project_id, (0.0,))
        if made and monotonic() - made < _PREDICTOR_SECONDS:
            return kept[0], kept[1]  # type: ignore[return-value]
        platform = self.platform(project_id)
        settings = self.settings.project(platform.extra_params(self.settings.own_url))
        last = self.ledger.last_done(project_id)
        context = self._join(last or Round(project_id, 0, "running"), settings, platform)
        info = platform.project()
        if self.ledger.project(project_id) is None:
            self.ledger.save_project(Project(project_id, info.title, info.classes))
        segmenter = context.make_segmenter(len(info.classes))
        self._predictors[project_id] = (monotonic(), context, segmenter)
        return context, segmenter
