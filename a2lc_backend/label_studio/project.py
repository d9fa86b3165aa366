"""A Label Studio project as a `Platform`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import httpx
import numpy as np
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from numpy.typing import NDArray

from a2lc_backend.image_limits import ImageLimits, without_secrets
from a2lc_backend.images import ImageError, decode_image
from a2lc_backend.label_studio.client import (
    LabelStudioError,
    every,
    explained,
    found_or_none,
    status_of,
)
from a2lc_backend.label_studio.follow_ups import FOLLOWS
from a2lc_backend.label_studio.image_files import ImageFiles
from a2lc_backend.label_studio.originals import Originals
from a2lc_backend.label_studio.publish import VERSION, Publisher, is_rest, rest_of
from a2lc_backend.label_studio.review import ReviewDesk
from a2lc_backend.masks import Region
from a2lc_backend.regions import (
    LabelConfig,
    LabelConfigError,
    OtherControlError,
    RegionError,
    decode_region,
    parse_label_config,
    shown_mask,
)
from a2lc_backend.rounds.platform import (
    Annotation,
    AnnotationStamp,
    Asked,
    Prediction,
    ProjectInfo,
    Published,
    Question,
    Target,
    Task,
    TaskError,
    TaskProblem,
)
from a2lc_backend.store import ReviewProject

_HEALTH_SECONDS = 5.0

_ANNOTATED: dict[str, object] = {
    "filters": {
        "conjunction": "and",
        "items": [{"filter": "filter:tasks:total_annotations", "operator": "greater", "type": "Number", "value": 0}],
    }
}


def _health(url: str) -> dict[str, Any]:
    """What an ML backend says of itself, nothing if it does not answer as one."""
    try:
        said = httpx.get(f"{url}/health", timeout=_HEALTH_SECONDS).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


class LabelStudioProject:
    """Reads and writes one project; implements `rounds.Platform`.

    Args:
        client: of the SDK.
        url: address of Label Studio.
        project_id: of the project.
        limits: of what is fetched and decoded as an image.
        pages: address of this program as people's browsers reach it.
        review: the project that holds its questions one by one, if there is one yet.
    """

    def __init__(
        self, client: LabelStudio, url: str, project_id: int, limits: ImageLimits | None = None, pages: str = "",
        review: ReviewProject | None = None,
    ) -> None:  # fmt: skip
        self._client = client
        self._url = url.rstrip("/")
        self._id = project_id
        self._limits = limits or ImageLimits()
        self._files = ImageFiles(self._url, self._authorization, self._limits)
        self.desk = ReviewDesk(client, self._url, project_id, pages, review)

    @cached_property
    def _project(self) -> Any:
        with explained(self._url, f"reading project {self._id}"):
            return self._client.projects.get(id=self._id)

    @cached_property
    def config(self) -> LabelConfig:
        """The project's label config.

        Raises:
            LabelStudioError: if masks cannot be labelled with it.
        """
        try:
            return parse_label_config(self._project.label_config or "")
        except LabelConfigError as error:
            raise LabelStudioError(f"project {self._id}: {error}") from error

    @property
    def single_ring(self) -> bool:
        """Polygons are one connected piece each."""
        return self.config.kind == "polygonlabels"

    def project(self) -> ProjectInfo:
        """Title, classes, and what describes them in words."""
        prompts = tuple(label.prompts for label in self.config.labels)
        return ProjectInfo(self._project.title or f"project {self._id}", self.config.classes, prompts)

    def is_connected(self, backend_url: str, installation: str) -> bool:
        """Whether this program is an ML backend of the project, be it by another name than it knows itself.

        Args:
            backend_url: how the program knows itself.
            installation: how it names itself in `/health`.
        """
        with explained(self._url, f"reading the ML backends of project {self._id}"):
            urls = [(item.url or "").rstrip("/") for item in self._client.ml.list(project=self._id)]
        return backend_url in urls or any(_health(url).get("installation") == installation for url in urls)

    def extra_params(self, backend_url: str) -> dict[str, Any]:
        """What the admin wrote into the "extra params" of this backend in the project's settings."""
        backends = self._own_backends(backend_url)
        return next((dict(backend.extra_params) for backend in backends if backend.extra_params), {})

    def save_extra_params(self, backend_url: str, params: dict[str, Any]) -> None:
        """Replace what is in the "extra params" of this backend.

        Raises:
            LabelStudioError: if Label Studio refuses, or this program is no ML backend of the project.
        """
        backends = self._own_backends(backend_url)
        if not backends:
            raise LabelStudioError(
                f"{backend_url} is no ML backend of project {self._id}, and its settings are kept there; connect it: "
                f"a2lc connect --project {self._id}"
            )
        backend = next((item for item in backends if item.extra_params), backends[0])
        with explained(self._url, f"saving the settings of project {self._id}"):
            # Without the address Label Studio 1.23.2 answers 500.
            self._client.ml.update(str(backend.id), project=self._id, url=backend.url, extra_params=params)

    def _own_backends(self, backend_url: str) -> list[Any]:
        """The rows in Label Studio that stand for this program."""
        with explained(self._url, f"reading the ML backends of project {self._id}"):
            backends = list(self._client.ml.list(project=self._id))
        ours = [backend for backend in backends if (backend.url or "").rstrip("/") == backend_url]
        # Label Studio may know this program by another name than it knows itself; an only backend is no other's.
        return ours or (backends if len(backends) == 1 else [])

    def has_task(self, task_id: int) -> bool:
        """See `Platform.has_task`."""
        with explained(self._url, f"looking for task {task_id}"):
            return found_or_none(lambda: self._client.tasks.get(id=str(task_id))) is not None

    def is_submitted(self, annotation_id: int) -> bool:
        """See `Platform.is_submitted`."""
        with explained(self._url, f"looking for annotation {annotation_id}"):
            found = found_or_none(lambda: self._client.annotations.get(id=annotation_id))
        return found is not None and not found.was_cancelled

    def tasks(self) -> list[Task]:
        """Every image, by id; tasks that repeat an image for a second look are left out."""
        with explained(self._url, f"listing the tasks of project {self._id}"):
            found = [
                Task(task.id, str((task.data or {}).get(self.config.image_key, "")))
                for task in every(
                    lambda: self._client.tasks.list(
                        project=self._id, include="id,data", resolve_uri=False, page_size=500
                    )
                )
                if FOLLOWS not in (task.data or {})
            ]
        return sorted(found, key=lambda task: task.id)

    def image(self, task: Task) -> NDArray[np.uint8]:
        """The image of a task, wherever Label Studio keeps it."""
        try:
            return decode_image(self.image_file(task), self._limits.pixels)
        except ImageError as error:
            raise TaskError(f"image {without_secrets(task.image)}: {error}") from error

    def image_file(self, task: Task) -> bytes:
        """The file of an image as it is, wherever Label Studio keeps it; raises TaskError."""
        if not task.image:
            raise TaskError(f"it has no {self.config.image_key!r} in its data; import it with an image address")
        return self._files.read(task)

    def _authorization(self) -> str:
        # The SDK trades a personal access token for a short-lived one; asking for headers refreshes it.
        with explained(self._url, "asking for a short-lived token"):
            return str(self._client._client_wrapper.get_headers()["Authorization"])

    def originals(self) -> Originals:
        """What Label Studio holds of every image: its data and annotations, as its JSON export has them."""
        return Originals(self._client, self._url, self._id)

    @property
    def label_config(self) -> str:
        """The labeling interface as Label Studio stores it."""
        return self._project.label_config or ""

    def regions(self, task: Task, size: tuple[int, int]) -> tuple[tuple[Region, ...], tuple[str, ...]]:
        """Regions of a task's newest annotation, else of its newest prediction that this program did not make."""
        with explained(self._url, f"reading task {task.id}"):
            try:
                annotations = self._client.annotations.list(id=task.id)
                predictions = self._client.predictions.list(task=task.id)
            except ApiError as error:
                if status_of(error) == 404:
                    raise TaskError("it was deleted in Label Studio") from error
                raise
        results: object = None
        submitted = [item for item in annotations if not item.was_cancelled and item.result]
        foreign = [item for item in predictions if not VERSION.match(item.model_version or "") and item.result]
        for item in sorted(submitted, key=lambda item: item.id)[-1:] or sorted(foreign, key=lambda item: item.id)[-1:]:
            results = item.result
        regions, _, problems = self._decode(results, size, f"task {task.id}")
        return regions, problems

    def annotation_stamps(self) -> list[AnnotationStamp]:
        """Every submitted annotation; one of a repeated image counts for the image's first task."""
        import json  # noqa: PLC0415

        include = "id,data,annotations,updated_at,was_cancelled"
        stamps = []
        with explained(self._url, f"listing the annotations of project {self._id}"):
            annotated = every(
                lambda: self._client.tasks.list(
                    project=self._id, include=include, query=json.dumps(_ANNOTATED), page_size=200
                )
            )
            for task in annotated:
                owner = int((task.data or {}).get(FOLLOWS, task.id))
                stamps += [
                    AnnotationStamp(item["id"], owner, str(item["updated_at"]))
                    for item in task.annotations or []
                    if not item.get("was_cancelled")
                ]
            # What somebody skipped says nothing, but for a word on the mask itself.
            stamps += [stamp for stamp in self.desk.stamps() if stamp.reply and not stamp.reply.skipped]
        return stamps

    def annotation(self, stamp: AnnotationStamp, size: tuple[int, int]) -> Annotation | None:
        """The content of an annotation; the webhook's payload is never trusted instead."""
        with explained(self._url, f"reading annotation {stamp.id}"):
            found = found_or_none(lambda: self._client.annotations.get(id=stamp.id))
        if found is None:
            return None
        where = f"task {stamp.task_id}, annotation {stamp.id}"
        regions, unreadable, problems = self._decode(found.result, size, where)
        made_at = found.updated_at or found.created_at or datetime.now(timezone.utc)
        shown_round = max((region.round for region in regions if region.round is not None), default=None)
        if shown_round is None and found.parent_prediction is not None:
            shown_round = self._round_of(int(found.parent_prediction))
        return Annotation(
            stamp.id, stamp.task_id, _user_id(found.completed_by), made_at, regions, unreadable,
            whole=found.parent_prediction is not None, shown_round=shown_round, problems=problems,
        )  # fmt: skip

    def _round_of(self, prediction_id: int) -> int | None:
        try:
            version = self._client.predictions.get(id=prediction_id).model_version or ""
        except (ApiError, httpx.HTTPError):
            return None
        match = VERSION.match(version)
        return int(match[1]) if match else None

    def _decode(
        self, results: object, size: tuple[int, int], where: str
    ) -> tuple[tuple[Region, ...], tuple[str, ...], tuple[str, ...]]:
        """Readable regions, ids of unreadable ones, and what was wrong with those."""
        regions: dict[str, Region] = {}
        unreadable, problems = [], []
        for item in results if isinstance(results, list) else []:
            try:
                region = decode_region(item, self.config, size)
                regions[region.id] = region
            except OtherControlError:
                continue
            except RegionError as error:
                unreadable.append(str(item.get("id", "")) if isinstance(item, dict) else "")
                problems.append(f"{where}: {error}")
        return tuple(regions.values()), tuple(unreadable), tuple(problems)

    def shown_mask(self, mask: NDArray[np.bool_], ring: NDArray[np.float64] | None) -> NDArray[np.bool_]:
        """The pixels a person is shown: those of the mask, or of its polygon."""
        return shown_mask(mask, ring, self.config)

    @property
    def _publisher(self) -> Publisher:
        return Publisher(self._client, self._url, self._id, self.config)

    def prepare(
        self, tasks: Sequence[int], queued: Collection[int], repeats: bool = True
    ) -> tuple[list[Target], list[TaskProblem]]:
        """Find the tasks to write to; an image that all have seen gets another one."""
        return self._publisher.prepare(tasks, queued, repeats)

    def write(
        self,
        version: str,
        targets: Sequence[Target],
        predict: Callable[[int], Prediction],
        progress: Callable[[int, int], None],
    ) -> list[TaskProblem]:
        """Write a version's predictions to these targets where they are missing."""
        return self._publisher.write(version, targets, predict, progress)

    def show(self, version: str, targets: Sequence[Target]) -> list[TaskProblem]:
        """Make a version the project's, and keep its review queue."""
        return self._publisher.show(version, targets)

    def ask(self, number: int, questions: Sequence[Question]) -> Asked:
        """Put the queue into the second project, one task a mask."""
        return self.desk.ask(self.project().title, self.config, number, questions)

    def share(self, targets: Sequence[Target], annotators: Sequence[str]) -> None:
        """Keep a view for each annotator, over a part of the queue."""
        self._publisher.share(targets, annotators)

    def tidy(self, version: str) -> int:
        """Remove second predictions of a version."""
        return self._publisher.tidy(version)

    def prune(self, keep: int) -> None:
        """Delete the versions of all rounds but the newest, some before it, and the one shown."""
        self._publisher.prune(keep)

    def drop(self, version: str, instead: str) -> None:
        """Delete a version of a round that was given up."""
        self._publisher.drop(version, instead)

    def queue_link(self, url: str = "") -> str:
        """Deep link into labelling the review queue; empty before the first round is published."""
        return self.queue_links(url).get("", "")

    def queue_links(self, url: str = "") -> dict[str, str]:
        """Deep links into labelling by annotator: of the queue of all under "", of each one's own part.

        Args:
            url: address of Label Studio as those reach it who follow the links; as this program does if not given.
        """
        with explained(self._url, f"listing the views of project {self._id}"):
            return self._publisher.views.links(url or self._url)

    def shown(self) -> tuple[str, int]:
        """The version that Label Studio shows, and its round.

        Raises:
            LabelStudioError: if it is none of this program's.
        """
        version = self._project.model_version or ""
        match = VERSION.match(version)
        if match:
            return version, int(match[1])
        with explained(self._url, f"listing the versions of project {self._id}"):
            held = self._publisher.counts()
        shows_queue = (name for name in held if VERSION.match(name) and not is_rest(name))
        ours = sorted(shows_queue, key=lambda name: int(VERSION.match(name)[1]))  # type: ignore[index]
        mend = (
            f"choose {ours[-1]} in Settings > Annotation > Live Predictions, then try again"
            if ours
            else f"there is nothing to go on from; start round 0 with: a2lc rounds next --project {self._id}"
        )
        shows = f"the version {version!r}" if version else "no version"
        raise LabelStudioError(f"project {self._id} shows {shows}, which no round of this program published; {mend}")

    def published(self, task: Task) -> Iterator[Published]:
        """What an image was shown with up to the version that is shown now, the newest round first."""
        version, last = self.shown()
        with explained(self._url, f"reading the predictions of task {task.id}"):
            found = self._client.predictions.list(task=task.id)
        by_round: dict[int, Any] = {}
        kept_off: dict[str, Any] = {}
        for item in sorted(found, key=lambda item: int(item.id or 0)):
            name = item.model_version or ""
            match = VERSION.match(name)
            if is_rest(name):
                kept_off[name] = item
            elif match and item.result and (int(match[1]) < last or name == version):
                by_round[int(match[1])] = item
        for number, item in sorted(by_round.items(), reverse=True):
            where, size = f"task {task.id}, version {item.model_version}", _size_of(item.result)
            regions, _, problems = self._decode(item.result, size, where)
            others = kept_off.get(rest_of(item.model_version))
            rest, _, more = self._decode(others.result, size, where) if others else ((), (), ())
            # A prediction that was deleted and asked for again holds all of them.
            rest = tuple(region for region in rest if region.id not in {shown.id for shown in regions})
            made_at = item.created_at or datetime.now(timezone.utc)
            yield Published(number, made_at, regions, float(item.score or 0.0), problems + more, rest)


def _size_of(results: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Height and width of the image that some regions belong to, as they say themselves."""
    first = results[0]
    return int(first.get("original_height") or 0), int(first.get("original_width") or 0)


def _user_id(completed_by: object) -> int:
    if isinstance(completed_by, int):
        return completed_by
    return int(getattr(completed_by, "id", 0) or 0)
