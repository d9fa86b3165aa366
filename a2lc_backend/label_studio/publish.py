"""Writes a round into Label Studio: predictions, then the version, then the review queue."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from a2lc_backend.label_studio.client import LabelStudioError, explained, status_of
from a2lc_backend.regions import LabelConfig, encode_region
from a2lc_backend.rounds.platform import Prediction, TaskProblem

VIEW_TITLE = "A²LC review queue"

FOLLOWS = "a2lc_follows"
"""Key in a task's data: the task repeats the image of the task named there.

Label Studio never serves a task again to a person who has annotated it, so an image that comes back into the queue
comes back as a second task."""

_BATCH = 16


@dataclass(frozen=True)
class _Target:
    """A task to write: the image it shows, and whether people find it in the queue."""

    task_id: int
    source_id: int
    serves_queue: bool


class Publisher:
    """Writes predictions of one project.

    Args:
        client: of the SDK.
        url: address of Label Studio.
        project_id: of the project.
        config: the project's label config.
    """

    def __init__(self, client: LabelStudio, url: str, project_id: int, config: LabelConfig) -> None:
        self._client = client
        self._url = url
        self._id = project_id
        self._config = config

    def publish(
        self,
        version: str,
        tasks: Sequence[int],
        queued: Collection[int],
        predict: Callable[[int], Prediction],
        progress: Callable[[int, int], None],
    ) -> list[TaskProblem]:
        """See `Platform.publish`."""
        with explained(self._url, f"publishing {version} in project {self._id}"):
            targets, problems = self._targets(tasks, queued)
            written = self._holding(version)
            unwritten = [target for target in targets if target.task_id not in written]
            progress(len(targets) - len(unwritten), len(targets))
            done = len(targets) - len(unwritten)
            for start in range(0, len(unwritten), _BATCH):
                batch = unwritten[start : start + _BATCH]
                problems += self._write(version, batch, predict)
                done += len(batch)
                progress(done, len(targets))
            self._remove_doubles(version, targets)
            missing = {target.task_id for target in targets} - self._holding(version)
            missing -= {problem.task_id for problem in problems}
            if missing:
                raise LabelStudioError(
                    f"Label Studio kept no prediction {version} for tasks {sorted(missing)[:10]}; run the round again"
                )
            self._client.projects.update(id=self._id, model_version=version)
            self._keep_view()
        return problems

    def drop(self, version: str, instead: str) -> None:
        """See `Platform.drop`."""
        with explained(self._url, f"deleting {version} in project {self._id}"):
            if self._client.projects.get(id=self._id).model_version == version:
                self._client.projects.update(id=self._id, model_version=instead)
            http = self._client._client_wrapper.httpx_client
            http.request(f"api/projects/{self._id}/model-versions/", method="DELETE", json={"model_version": version})

    def queue_link(self) -> str:
        """Deep link into labelling the queue; empty if there is no queue yet."""
        with explained(self._url, f"listing the views of project {self._id}"):
            view_id = next((view.id for view in self._views()), None)
        return "" if view_id is None else f"{self._url}/projects/{self._id}/data?tab={view_id}&labeling=1"

    def _targets(self, tasks: Sequence[int], queued: Collection[int]) -> tuple[list[_Target], list[TaskProblem]]:
        include = "id,data,total_annotations,cancelled_annotations"
        looked_at: dict[int, bool] = {}
        data: dict[int, dict[str, Any]] = {}
        again: dict[int, list[int]] = {}
        for task in self._client.tasks.list(project=self._id, include=include, resolve_uri=False, page_size=500):
            data[task.id] = dict(task.data or {})
            looked_at[task.id] = bool((task.total_annotations or 0) + (task.cancelled_annotations or 0))
            if FOLLOWS in data[task.id]:
                again.setdefault(int(data[task.id][FOLLOWS]), []).append(task.id)
        present = [task_id for task_id in tasks if task_id in data]
        problems = [
            TaskProblem(task_id, f"task {task_id} was deleted in Label Studio during the round; it is left out")
            for task_id in tasks
            if task_id not in data
        ]
        serving: dict[int, int] = {}
        for task_id in present:
            if task_id in queued:
                copies = [task_id, *again.get(task_id, [])]
                serving[task_id] = next((copy for copy in copies if not looked_at[copy]), 0)
        wanting = [task_id for task_id, copy in serving.items() if copy == 0]
        serving |= dict(zip(wanting, self._repeat_tasks(wanting, data), strict=True))
        # Repeats that are done with keep what they showed; only the one that serves now is written.
        targets = [
            _Target(copy, task_id, serving.get(task_id) == copy)
            for task_id in present
            for copy in dict.fromkeys([task_id, serving.get(task_id, task_id)])
        ]
        return targets, problems

    def _repeat_tasks(self, task_ids: Sequence[int], data: dict[int, dict[str, Any]]) -> list[int]:
        """Create a second task for each of these images; returns their ids in the same order."""
        created: list[int] = []
        for start in range(0, len(task_ids), _BATCH):
            batch = task_ids[start : start + _BATCH]
            rows = [{"data": data[task_id] | {FOLLOWS: task_id}} for task_id in batch]
            reply = self._client.projects.import_tasks(id=self._id, request=rows, return_task_ids=True)
            created += list(reply.task_ids or [])
        if len(created) != len(task_ids):
            raise LabelStudioError(f"Label Studio made {len(created)} of {len(task_ids)} tasks; run the round again")
        return created

    def _write(self, version: str, batch: Sequence[_Target], predict: Callable[[int], Prediction]) -> list[TaskProblem]:
        rows = [self._row(version, target, predict) for target in batch]
        try:
            reply = self._client.projects.import_predictions(id=self._id, request=rows)
            if reply.created == len(rows):
                return []
        except ApiError as error:
            if status_of(error) not in {400, 404, 500}:
                raise
        # The bulk import drops what it does not like and says only how many it took: find and name those.
        written = self._holding(version)
        problems = []
        for target, row in zip(batch, rows, strict=True):
            if target.task_id in written:
                continue
            try:
                reply = self._client.projects.import_predictions(id=self._id, request=[row])
                if reply.created != 1:
                    problems.append(TaskProblem(target.task_id, self._refused(target, "it was dropped without a word")))
            except ApiError as error:
                problems.append(TaskProblem(target.task_id, self._refused(target, f"status {status_of(error)}")))
        return problems

    def _refused(self, target: _Target, why: str) -> str:
        return (
            f"Label Studio refused the prediction of task {target.task_id} ({why}); check that the task still exists "
            "and that the label config has every class"
        )

    def _row(self, version: str, target: _Target, predict: Callable[[int], Prediction]) -> dict[str, Any]:
        prediction = predict(target.source_id)
        return {
            "task": target.task_id,
            "result": [encode_region(region, self._config) for region in prediction.regions],
            "score": prediction.score if target.serves_queue else 0.0,
            "model_version": version,
        }

    def _holding(self, version: str) -> set[int]:
        """Tasks that hold a prediction of a version."""
        query = _query(
            {
                "filter": "filter:tasks:predictions_model_versions", "operator": "contains", "type": "List",
                "value": [version],
            }
        )  # fmt: skip
        pages = self._client.tasks.list(project=self._id, include="id", query=json.dumps(query), page_size=1000)
        return {task.id for task in pages}

    def _remove_doubles(self, version: str, targets: Sequence[_Target]) -> None:
        """Delete second predictions of one version, as a request that was repeated after a lost answer leaves them."""
        # The SDK has no call for this address; it tells how many predictions a version has.
        http = self._client._client_wrapper.httpx_client
        counts = http.request(f"api/projects/{self._id}/model-versions/", method="GET").json()
        if counts.get(version, 0) <= len(targets):
            return
        for target in targets:
            held = [
                prediction
                for prediction in self._client.predictions.list(task=target.task_id)
                if prediction.model_version == version
            ]
            for double in sorted(held, key=lambda item: item.id)[1:]:
                self._client.predictions.delete(id=double.id)

    def _views(self) -> Iterator[Any]:
        for view in self._client.views.list(project=self._id):
            data = view.data if isinstance(view.data, dict) else {}
            if data.get("title") == VIEW_TITLE:
                yield view

    def _keep_view(self) -> None:
        """Make the Data Manager view that lists the queue in order, or put it right again."""
        filters = [
            {"filter": "filter:tasks:predictions_score", "operator": "greater", "type": "Number", "value": 0},
            {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0},
        ]
        data: dict[str, Any] = {
            "title": VIEW_TITLE,
            "type": "list",
            "target": "tasks",
            "ordering": ["-tasks:predictions_score"],
            "hiddenColumns": {"explore": _HIDDEN, "labeling": _HIDDEN},
            **_query(*filters),
        }
        views = list(self._views())
        if not views:
            self._client.views.create(project=self._id, data=data)
        elif any(views[0].data.get(key) != value for key, value in data.items() if key in {"ordering", "filters"}):
            self._client.views.update(id=str(views[0].id), project=self._id, data=data)


_HIDDEN = [
    f"tasks:{column}"
    for column in (
        "inner_id", "annotations_results", "predictions_results", "annotators", "annotations_ids", "avg_lead_time",
        "file_upload", "storage_filename", "created_at", "updated_at", "updated_by", "draft_exists", f"data.{FOLLOWS}",
        "cancelled_annotations", "completed_at",
    )
]  # fmt: skip


def _query(*filters: dict[str, Any]) -> dict[str, Any]:
    return {"filters": {"conjunction": "and", "items": list(filters)}}
