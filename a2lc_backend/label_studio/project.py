"""A Label Studio project as a `Platform`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import requests
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from numpy.typing import NDArray

from a2lc_backend.images import ImageError, decode_image
from a2lc_backend.label_studio.client import (
    LabelStudioError,
    LabelStudioUnreachableError,
    every,
    explained,
    found_or_none,
    status_of,
)
from a2lc_backend.label_studio.follow_ups import FOLLOWS
from a2lc_backend.label_studio.patience import PASSING, Patience
from a2lc_backend.label_studio.publish import VERSION, Publisher
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
    Prediction,
    ProjectInfo,
    Published,
    Target,
    Task,
    TaskError,
    TaskProblem,
)

_IMAGE_SECONDS = 60
_REFUSED_SECONDS = 10.0
"""How long an image is asked for again that Label Studio refuses: it may be this one image's fault."""

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
        max_pixels: larger images are refused.
    """

    def __init__(self, client: LabelStudio, url: str, project_id: int, max_pixels: int = 100_000_000) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._id = project_id
        self._max_pixels = max_pixels

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
        with explained(self._url, f"reading the ML backends of project {self._id}"):
            backends = self._client.ml.list(project=self._id)
        ours = [backend for backend in backends if (backend.url or "").rstrip("/") == backend_url]
        # Label Studio may know this program by another name than it knows itself; an only backend is no other's.
        for backend in ours or (backends if len(backends) == 1 else []):
            if backend.extra_params:
                return dict(backend.extra_params)
        return {}

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
        if not task.image:
            raise TaskError(f"it has no {self.config.image_key!r} in its data; import it with an image address")
        try:
            return decode_image(self._download(task), self._max_pixels)
        except ImageError as error:
            raise TaskError(f"image {task.image}: {error}") from error

    def _download(self, task: Task) -> bytes:
        """The file of an image; what passes is ridden out where Label Studio itself serves it."""
        absent, refused = Patience(), Patience(_REFUSED_SECONDS)
        while True:
            try:
                return self._fetch(task)
            except requests.HTTPError as error:
                status = error.response.status_code if error.response is not None else 0
                if status in PASSING and self._is_own(error) and refused.wait():
                    continue
                raise TaskError(
                    f"image {task.image} cannot be fetched: {status}; {_image_mend(task.image, status)}"
                ) from error
            except (requests.RequestException, OSError, ValueError) as error:
                reason = type(error).__name__
                if self._is_own(error):
                    if absent.wait():
                        continue
                    raise LabelStudioUnreachableError(
                        f"reading image {task.image}: no answer from Label Studio at {self._url} ({reason}); check "
                        "that it runs and that LABEL_STUDIO_URL is its address"
                    ) from error
                raise TaskError(
                    f"image {task.image} cannot be fetched ({reason}); {_image_mend(task.image, 0)}"
                ) from error

    def _is_own(self, error: Exception) -> bool:
        """Whether a request that failed went to Label Studio, not to where an image lies outside it."""
        request = getattr(error, "request", None)
        return str(getattr(request, "url", "")).startswith(f"{self._url}/")

    def _fetch(self, task: Task) -> bytes:
        from label_studio_sdk._extensions.label_studio_tools.core.utils import io  # noqa: PLC0415 - slow to import

        folder = tempfile.mkdtemp(prefix="a2lc-image-")
        try:
            with _PatientSession() as session, io.http_session(session):
                path = io.get_local_path(
                    task.image, cache_dir=folder, hostname=self._url, access_token=self._access_token(),
                    task_id=task.id,
                )  # fmt: skip
            return Path(path).read_bytes()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _access_token(self) -> str:
        # The SDK trades a personal access token for a short-lived one; asking for headers refreshes it.
        header: str = self._client._client_wrapper.get_headers()["Authorization"]
        return header.split(" ", 1)[1]

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
        results: list[Any] = []
        submitted = [item for item in annotations if not item.was_cancelled and item.result]
        foreign = [item for item in predictions if not VERSION.match(item.model_version or "") and item.result]
        for item in sorted(submitted, key=lambda item: item.id)[-1:] or sorted(foreign, key=lambda item: item.id)[-1:]:
            results = list(item.result)
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
        return stamps

    def annotation(self, stamp: AnnotationStamp, size: tuple[int, int]) -> Annotation | None:
        """The content of an annotation; the webhook's payload is never trusted instead."""
        with explained(self._url, f"reading annotation {stamp.id}"):
            found = found_or_none(lambda: self._client.annotations.get(id=stamp.id))
        if found is None:
            return None
        where = f"task {stamp.task_id}, annotation {stamp.id}"
        regions, unreadable, problems = self._decode(list(found.result or []), size, where)
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
        self, results: Sequence[dict[str, Any]], size: tuple[int, int], where: str
    ) -> tuple[tuple[Region, ...], tuple[str, ...], tuple[str, ...]]:
        """Readable regions, ids of unreadable ones, and what was wrong with those."""
        regions: dict[str, Region] = {}
        unreadable, problems = [], []
        for item in results:
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

    def tidy(self, version: str) -> int:
        """Remove second predictions of a version."""
        return self._publisher.tidy(version)

    def prune(self, keep: int) -> None:
        """Delete the versions of all rounds but the newest, some before it, and the one shown."""
        self._publisher.prune(keep)

    def drop(self, version: str, instead: str) -> None:
        """Delete a version of a round that was given up."""
        self._publisher.drop(version, instead)

    def queue_link(self) -> str:
        """Deep link into labelling the review queue; empty before the first round is published."""
        return self._publisher.queue_link()

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
        ours = sorted((name for name in held if VERSION.match(name)), key=lambda name: int(VERSION.match(name)[1]))  # type: ignore[index]
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
        for item in sorted(found, key=lambda item: int(item.id or 0)):
            match = VERSION.match(item.model_version or "")
            if match and item.result and (int(match[1]) < last or item.model_version == version):
                by_round[int(match[1])] = item
        for number, item in sorted(by_round.items(), reverse=True):
            regions, _, problems = self._decode(
                item.result, _size_of(item.result), f"task {task.id}, version {item.model_version}"
            )
            made_at = item.created_at or datetime.now(timezone.utc)
            yield Published(number, made_at, regions, float(item.score or 0.0), problems)


class _PatientSession(requests.Session):
    """Requests that end: the SDK sets no time limit on downloads."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("timeout", _IMAGE_SECONDS)
        return super().request(*args, **kwargs)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Read the whole body at once, and let errors tell which address they are about."""
        kwargs["stream"] = False
        try:
            return super().send(request, **kwargs)
        except requests.RequestException as error:
            error.request = error.request or request
            raise


def _size_of(results: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Height and width of the image that some regions belong to, as they say themselves."""
    first = results[0]
    return int(first.get("original_height") or 0), int(first.get("original_width") or 0)


def _user_id(completed_by: object) -> int:
    if isinstance(completed_by, int):
        return completed_by
    return int(getattr(completed_by, "id", 0) or 0)


def _image_mend(address: str, status: int) -> str:
    if "/data/local-files/" in address and status == 404:
        return "add a Local Files storage for its folder in the project's settings (Cloud Storage)"
    if status in {401, 403}:
        return "check that the file exists; if it does, LABEL_STUDIO_API_KEY must be the token of a project member"
    if address.startswith(("s3:", "gs:", "azure-blob:")):
        return "connect the project's cloud storage in Label Studio, with pre-signed addresses on"
    return "check that the file exists and that this program can reach its address"
