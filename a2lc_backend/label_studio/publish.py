"""Writes a round into Label Studio: predictions, then the version, then the review queue.

A prediction is keyed by task and version. Regions that a queued image's page does not show are written before it, into
a second prediction of the image's first task, under the version's name for the rest (`rest_of`): Label Studio shows
only predictions of the version that the project names. What is there is looked at before it is written, and again after
every reply that was lost; what was doubled all the same, by a request that arrived after it had been given up, is
removed before a version is shown (`show`) and once more when the next round begins (`tidy`). Of doubles the oldest
stays: it is the one that Label Studio shows.

Deleting predictions touches people (measured on 1.23.2): an annotation that was made from one keeps everything but
`parent_prediction`, without being marked as updated; a page that is still open on one cannot be submitted any more
(400, "Invalid pk"), only after it has been loaded anew. So old versions stay for some rounds (`keep_versions`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import httpx
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.request_options import RequestOptions

from a2lc_backend.label_studio.client import LabelStudioError, every, explained, status_of, unless_gone
from a2lc_backend.label_studio.follow_ups import prepare_targets, remove_bare_repeats
from a2lc_backend.label_studio.patience import Patience, passes
from a2lc_backend.label_studio.views import QueueViews, between, query_of
from a2lc_backend.masks import Region
from a2lc_backend.regions import LabelConfig, encode_region
from a2lc_backend.rounds.platform import Prediction, Target, TaskProblem

VERSION = re.compile(r"a2lc-r(\d+)-")
"""How the versions of this program begin, with the round's number."""

_REST = re.compile(r"a2lc-r\d+-rest-")

_BATCH = 16
_TRIES_AT_500 = 4
"""Label Studio answers 500 to a prediction it cannot store as well as when it is out of order."""

_DELETE_SECONDS = 600.0


def rest_of(version: str) -> str:
    """Name under which the regions lie that a version keeps off the page.

    Neither name is a part of the other: Label Studio looks for parts of names.
    """
    return VERSION.sub(r"a2lc-r\1-rest-", version, count=1)


def is_rest(version: str) -> bool:
    """Whether a version holds what another one keeps off the page."""
    return _REST.match(version) is not None


class Publisher:
    """Writes predictions of one project.

    Args:
        client: of the SDK, without retries of its own.
        url: address of Label Studio.
        project_id: of the project.
        config: the project's label config.
    """

    def __init__(self, client: LabelStudio, url: str, project_id: int, config: LabelConfig) -> None:
        self._client = client
        self._url = url
        self._id = project_id
        self._config = config
        self.views = QueueViews(client, project_id)

    def prepare(
        self, tasks: Sequence[int], queued: Collection[int], repeats: bool = True
    ) -> tuple[list[Target], list[TaskProblem]]:
        """See `Platform.prepare`."""
        with explained(self._url, f"making second tasks in project {self._id}"):
            return prepare_targets(self._client, self._id, tasks, queued, repeats)

    def write(
        self,
        version: str,
        targets: Sequence[Target],
        predict: Callable[[int], Prediction],
        progress: Callable[[int, int], None],
    ) -> list[TaskProblem]:
        """See `Platform.write`."""
        if not targets:
            return []
        problems: list[TaskProblem] = []
        with explained(self._url, f"writing {version} into project {self._id}"):
            near = [target.task_id for target in targets]
            written, rest_written = self._holding(version, near), self._holding(rest_of(version), near)
            unwritten = [target for target in targets if target.task_id not in written]
            done = len(targets) - len(unwritten)
            progress(done, len(targets))
            for start in range(0, len(unwritten), _BATCH):
                batch = unwritten[start : start + _BATCH]
                shown, rest = self._rows(version, batch, predict)
                # The rest first: where a version is, all of it is.
                refused = self._write({task_id: row for task_id, row in rest.items() if task_id not in rest_written})
                for problem in refused:
                    del shown[problem.task_id]
                problems += refused + self._write(shown)
                done += len(batch)
                progress(done, len(targets))
        return problems

    def show(self, version: str, targets: Sequence[Target]) -> list[TaskProblem]:
        """See `Platform.show`."""
        with explained(self._url, f"showing {version} in project {self._id}"):
            missing = {target.task_id for target in targets} - self._holding(version)
            problems = self._deleted(missing)
            missing -= {problem.task_id for problem in problems}
            if missing:
                raise LabelStudioError(
                    f"Label Studio kept no prediction {version} for tasks {sorted(missing)[:10]}; run the round again"
                )
            self._tidy(version)
            if not self.counts().get(version):
                raise LabelStudioError(
                    f"Label Studio holds no prediction {version} at all; see what the round's report says of its tasks"
                )
            self._client.projects.update(id=self._id, model_version=version)
            self.views.keep()
        return problems

    def share(self, targets: Sequence[Target], annotators: Sequence[str]) -> None:
        """See `Platform.share`."""
        with explained(self._url, f"making views in project {self._id}"):
            self.views.share([target.task_id for target in targets if target.serves_queue], annotators)

    def tidy(self, version: str) -> int:
        """See `Platform.tidy`."""
        with explained(self._url, f"looking for doubles of {version} in project {self._id}"):
            return self._tidy(version)

    def prune(self, keep: int) -> None:
        """See `Platform.prune`."""
        with explained(self._url, f"deleting old versions of project {self._id}"):
            shown = self._shown()
            rounds = {version: int(match[1]) for version in self.counts() if (match := VERSION.match(version))}
            kept = sorted(set(rounds.values()))[-(keep + 1) :]
            for version, number in rounds.items():
                if number not in kept and version != shown:
                    self._delete_version(version)
                    self._show_again(shown)

    def drop(self, version: str, instead: str) -> None:
        """See `Platform.drop`."""
        with explained(self._url, f"deleting {version} in project {self._id}"):
            shown = self._shown()
            if shown == version:
                shown = instead if instead in self.counts() else ""
                self._client.projects.update(id=self._id, model_version=shown)
            for part in (version, rest_of(version)):
                self._delete_version(part)
            self._show_again(shown)
            remove_bare_repeats(self._client, self._id)

    def _write(self, rows: dict[int, dict[str, Any]]) -> list[TaskProblem]:
        """Write predictions, by task; the bulk import drops what it does not like and says only how many it took."""
        if not rows or not self._send(rows):
            return []
        problems, broken = [], 0
        version = next(iter(rows.values()))["model_version"]
        for task_id in sorted(rows.keys() - self._holding(version, rows)):
            why = self._send({task_id: rows[task_id]})
            broken = broken + 1 if why == "status 500" else 0
            if broken > 1:
                raise LabelStudioError(
                    f"Label Studio answers 500 to every prediction of project {self._id}; look into its log, then run "
                    "the round again"
                )
            if why:
                problems.append(
                    TaskProblem(
                        task_id,
                        f"Label Studio refused the prediction of task {task_id} ({why}); check that the task still "
                        "exists and that the label config has every class",
                    )
                )
        return problems

    def _send(self, rows: dict[int, dict[str, Any]]) -> str:
        """Write those predictions that are missing; why they were refused, empty if all are there."""
        patience, broken = Patience(), 0
        version = next(iter(rows.values()))["model_version"]
        missing = rows
        while missing:
            try:
                reply = self._client.projects.import_predictions(id=self._id, request=list(missing.values()))
            except (ApiError, httpx.HTTPError) as error:
                status = status_of(error) if isinstance(error, ApiError) else 0
                broken = broken + 1 if status == 500 else 0
                if status in {400, 404} or broken == _TRIES_AT_500:
                    return f"status {status}"
                if not passes(error) or not patience.wait():
                    raise
            else:
                return "" if reply.created == len(missing) else "it was dropped without a word"
            held = self._holding(version, rows)  # the reply may have been lost after the server acted
            missing = {task_id: row for task_id, row in rows.items() if task_id not in held}
        return ""

    def _rows(
        self, version: str, targets: Sequence[Target], predict: Callable[[int], Prediction]
    ) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
        """The predictions that some targets are shown with, by task, and those that hold the rest."""

        def row(task_id: int, name: str, regions: Sequence[Region], score: float) -> dict[str, Any]:
            result = [encode_region(region, self._config) for region in regions]
            return {"task": task_id, "result": result, "score": score, "model_version": name}

        shown, rest = {}, {}
        for target in targets:
            prediction = predict(target.source_id)
            score = prediction.score if target.serves_queue else 0.0
            shown[target.task_id] = row(target.task_id, version, prediction.regions, score)
            if prediction.rest and target.task_id == target.source_id:
                rest[target.task_id] = row(target.task_id, rest_of(version), prediction.rest, 0.0)
        return shown, rest

    def _holding(self, version: str, among: Collection[int] = ()) -> set[int]:
        """Tasks that hold a prediction of a version; if some are given, those near them are enough."""
        near = [between(min(among), max(among))] if among else []
        query = json.dumps(query_of(_holds(version), *near))
        return self._ids(query)

    def _deleted(self, task_ids: Collection[int]) -> list[TaskProblem]:
        if not task_ids:
            return []
        query = json.dumps(query_of(between(min(task_ids), max(task_ids))))
        present = self._ids(query)
        return [
            TaskProblem(task_id, f"task {task_id} was deleted in Label Studio during the round; it is left out")
            for task_id in sorted(set(task_ids) - present)
        ]

    def _ids(self, query: str) -> set[int]:
        """Ids of the tasks that a query of the Data Manager finds."""
        listing = partial(self._client.tasks.list, project=self._id, include="id", query=query, page_size=1000)
        return {task.id for task in every(listing)}

    def _tidy(self, version: str) -> int:
        return sum(self._remove_doubles(part) for part in (version, rest_of(version)))

    def _remove_doubles(self, version: str) -> int:
        """Delete second predictions of one version; two small requests where there is none."""
        query = json.dumps(query_of(_holds(version)))
        listed = self._get("api/tasks/", project=self._id, include="id", query=query, page_size=1)
        # Pages past the end answer 404, and an empty list is past its end.
        surplus = excess = self.counts().get(version, 0) - int(listed.get("total", 0))
        if excess <= 0:
            return 0
        holders = self._client.tasks.list(project=self._id, include="id,total_predictions", query=query, page_size=1000)
        # A task that holds one more than the others comes first.
        for task in sorted(holders, key=lambda task: -(task.total_predictions or 0)):
            held = [item for item in self._client.predictions.list(task=task.id) if item.model_version == version]
            for double in sorted(held, key=lambda item: int(item.id or 0))[1:]:
                with unless_gone():
                    self._client.predictions.delete(id=int(double.id or 0))
                excess -= 1
            if excess <= 0:
                break
        return surplus - excess

    def _get(self, path: str, **parameters: Any) -> dict[str, Any]:
        # Addresses, or parts of answers, for which the SDK has no call.
        reply = self._client._client_wrapper.httpx_client.request(path, method="GET", params=parameters)
        if reply.status_code >= 400:
            raise ApiError(status_code=reply.status_code, body=reply.text)
        found: dict[str, Any] = reply.json()
        return found

    def counts(self) -> dict[str, int]:
        """How many predictions each version has, the shown one always among them."""
        return self._get(f"api/projects/{self._id}/model-versions/")

    def _shown(self) -> str:
        return str(self._client.projects.get(id=self._id).model_version or "")

    def _delete_version(self, version: str) -> None:
        reply = self._client._client_wrapper.httpx_client.request(
            f"api/projects/{self._id}/model-versions/", method="DELETE", json={"model_version": version},
            request_options=RequestOptions(timeout=_DELETE_SECONDS),
        )  # fmt: skip
        if reply.status_code >= 400:
            raise ApiError(status_code=reply.status_code, body=reply.text)

    def _show_again(self, shown: str) -> None:
        """While an ML backend's title is shown, deleting any version makes Label Studio show none."""
        if self._shown() != shown:
            self._client.projects.update(id=self._id, model_version=shown)


def _holds(version: str) -> dict[str, Any]:
    name = "filter:tasks:predictions_model_versions"
    return {"filter": name, "operator": "contains", "type": "List", "value": [version]}
