"""A simulated annotator who works through the SDK only, as a person's browser would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from label_studio_sdk.client import LabelStudio
from numpy.typing import NDArray

from a2lc_backend.bench.oracle import majority
from a2lc_backend.label_studio import FOLLOWS, VIEW_TITLE, rest_of
from a2lc_backend.masks import IGNORE, Region, label_map, make_disjoint
from a2lc_backend.metrics import confusion_matrix, mean_iou
from a2lc_backend.proposals.world import UPLOAD_PREFIX
from a2lc_backend.regions import LabelConfig, decode_region
from a2lc_backend.rounds.propose import picture_key


@dataclass(frozen=True)
class Work:
    """What an annotator did: images submitted, masks looked at, masks whose label was changed."""

    images: int
    looked_at: int
    changed: int


@dataclass(frozen=True)
class Published:
    """What Label Studio shows in one round, against the truth.

    Attributes:
        labels: class id of each region, by (task id, region id).
        truths: majority truth of the region's pixels, `IGNORE` where the truth says nothing.
        sources: who gave the label.
        data_miou: in [0, 1], all pixels of all images in one confusion matrix.
    """

    labels: dict[tuple[int, str], int]
    truths: dict[tuple[int, str], int]
    sources: dict[tuple[int, str], str]
    data_miou: float

    def changed_by_corrector(self, before: Published) -> tuple[int, int]:
        """Regions that the corrector relabelled since then, and how many of those are right now."""
        changed = [
            key
            for key, label in self.labels.items()
            if self.sources[key] == "corrector" and before.labels.get(key, label) != label
        ]
        return len(changed), sum(self.labels[key] == self.truths[key] for key in changed)


class SimulatedAnnotator:
    """Opens the review queue, corrects what is queued from the truth, submits.

    Args:
        client: of the SDK, with the annotator's token.
        project_id: of the project.
        config: the project's label config.
        truth: gives the true class ids (H, W) uint8 of an image by its name.
    """

    def __init__(
        self,
        client: LabelStudio,
        project_id: int,
        config: LabelConfig,
        truth: Callable[[str], NDArray[np.uint8]],
    ) -> None:
        self._client = client
        self._id = project_id
        self._config = config
        self._truth = truth

    def work(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Work:
        """Work through the review queue.

        Raises:
            LookupError: if the project has no review queue.
        """
        view = next((view for view in self._client.views.list(project=self._id) if _title(view) == VIEW_TITLE), None)
        if view is None:
            raise LookupError(f"project {self._id} has no view {VIEW_TITLE!r}; finish round 0 first")
        version = self._client.projects.get(id=self._id).model_version
        # The list shrinks while it is worked through, so it is read whole first.
        queue = [
            (task.id, dict(task.data or {})) for task in self._client.tasks.list(view=int(view.id), include="id,data")
        ]
        looked_at = changed = 0
        for done, (task_id, data) in enumerate(queue):
            progress(done, len(queue))
            prediction = next(
                item for item in self._client.predictions.list(task=task_id) if item.model_version == version
            )
            result, asked, corrected = self._correct(list(prediction.result or []), data)
            self._client.annotations.create(
                id=task_id, result=result, parent_prediction=prediction.id, was_cancelled=False
            )
            looked_at += asked
            changed += corrected
        progress(len(queue), len(queue))
        return Work(len(queue), looked_at, changed)

    def _correct(self, result: list[dict[str, Any]], data: dict[str, Any]) -> tuple[list[dict[str, Any]], int, int]:
        truth = self._truth(image_name(data[self._config.image_key]))
        asked = changed = 0
        for item in result:
            region = decode_region(item, self._config, (truth.shape[0], truth.shape[1]))
            if region.rank is None:
                continue
            asked += 1
            label = majority(truth, region.mask, len(self._config.classes))
            if label == IGNORE or self._config.classes[label] == region.label:
                continue
            item["value"][self._config.kind] = [self._config.classes[label]]
            item["origin"] = "prediction-changed"
            changed += 1
        return result, asked, changed

    def read_back(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Published:
        """Read what Label Studio shows and measure it against the truth."""
        version = self._client.projects.get(id=self._id).model_version
        classes = self._config.classes
        labels: dict[tuple[int, str], int] = {}
        truths: dict[tuple[int, str], int] = {}
        sources: dict[tuple[int, str], str] = {}
        confusion = np.zeros((len(classes), len(classes) + 1), np.int64)
        tasks = [task for task in self._client.tasks.list(project=self._id, include="id,data") if not _repeats(task)]
        for done, task in enumerate(tasks):
            progress(done, len(tasks))
            truth = self._truth(image_name((task.data or {})[self._config.image_key]))
            size = (truth.shape[0], truth.shape[1])
            parts = (version, rest_of(version))
            held = [item for item in self._client.predictions.list(task=task.id) if item.model_version in parts]
            regions: list[Region] = [
                decode_region(item, self._config, size) for prediction in held for item in prediction.result or []
            ]
            given = [classes.index(region.label) if region.label else IGNORE for region in regions]
            for region, label in zip(regions, given, strict=True):
                key = (task.id, region.id)
                labels[key], sources[key] = label, region.source
                truths[key] = majority(truth, region.mask, len(classes))
            mask_ids = make_disjoint([region.mask for region in regions], size)
            shown = label_map(mask_ids, np.array(given, np.int64))
            confusion += confusion_matrix(truth, shown, len(classes))
        progress(len(tasks), len(tasks))
        return Published(labels, truths, sources, mean_iou(confusion))


def image_name(address: str) -> str:
    """The name of an uploaded image, without what Label Studio puts before it."""
    return UPLOAD_PREFIX.sub("", picture_key(address))


def _title(view: Any) -> str:
    return str(view.data.get("title", "")) if isinstance(view.data, dict) else ""


def _repeats(task: Any) -> bool:
    return FOLLOWS in (task.data or {})
