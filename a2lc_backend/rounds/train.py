"""The fourth and fifth phase of a round: θ learns the labels, then looks at every image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.acquisition import acquisition_rows
from a2lc_backend.masks import label_map
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.platform import Task, TaskError
from a2lc_backend.rounds.workspace import Scores
from a2lc_backend.segmenter import Segmenter, SegmenterError, enlarge
from a2lc_backend.store import ArtifactError


def train(context: Context, _items: Items, progress: Progress) -> None:
    """Train θ on the pseudo-labels of this round, from where the last round's θ stands."""
    labels = context.workspace.labels(context.number)
    segmenter = context.make_segmenter(len(context.project().classes))
    if context.previous is not None and context.workspace.has_segmenter(context.previous.number):
        with suppress(SegmenterError):  # another kind of θ was used before
            segmenter.load(context.workspace.segmenter(context.previous.number))
    inputs = _Inputs(context, segmenter)

    def samples() -> Iterator[tuple[NDArray[np.generic], NDArray[np.uint8]]]:
        for place, task_id in enumerate(labels.task_ids):
            masks = context.workspace.masks(labels.mask_keys[place])
            target = label_map(masks.mask_ids, labels.labels[labels.span(place)])
            prepared = inputs.read(int(task_id), "train")
            if prepared is not None:
                yield prepared, target

    segmenter.fit(samples, progress)
    context.workspace.write_segmenter(context.number, segmenter.state())


class _Inputs:
    """What θ reads of each image; prepared now where another kind of θ was used before."""

    def __init__(self, context: Context, segmenter: Segmenter) -> None:
        self._context = context
        self._segmenter = segmenter

    def read(self, task_id: int, phase: str) -> NDArray[np.generic] | None:
        """An image's input; None if the image is gone, which is noted."""
        workspace, kind = self._context.workspace, self._segmenter.fingerprint
        state = self._context.ledger.task(self._context.project_id, task_id)
        if state is None:
            return None  # it was deleted during the round
        address = state.image
        with suppress(ArtifactError):  # it is not there, or corrupt
            return workspace.input(task_id, address, kind)
        try:
            image = self._context.platform.image(Task(task_id, address))
        except TaskError as error:
            self._context.note(phase, task_id, f"task {task_id}: {error}")
            return None
        prepared = self._segmenter.prepare(image)
        workspace.write_input(task_id, address, kind, prepared)
        return prepared


def plan_score(context: Context) -> list[tuple[int, str]]:
    """Every image with the masks it has in this round."""
    labels = context.workspace.labels(context.number)
    return list(zip(labels.task_ids.tolist(), labels.mask_keys, strict=True))


def score(context: Context, items: Items, progress: Progress) -> None:
    """Let θ look at some images: what ranking and the corrector need of its soft labels.

    Args:
        context: of the round.
        items: from `plan_score`.
        progress: told of every image.
    """
    segmenter = context.once("θ", lambda: _trained(context))
    inputs = _Inputs(context, segmenter)
    for done, (task_id, key) in enumerate(items):
        progress(done, len(items))
        with suppress(ArtifactError):  # what is corrupt is made again
            if context.workspace.scores(context.number, task_id, key) is not None:
                continue
        masks = context.workspace.masks(key)
        prepared = inputs.read(task_id, "score")
        if prepared is None:
            continue
        soft = enlarge(segmenter.soft_labels(prepared), masks.size)
        rows, means, dominant = acquisition_rows(soft, masks.mask_ids, len(masks))
        context.workspace.write_scores(context.number, task_id, Scores(key, rows, means, dominant))
    progress(len(items), len(items))


def _trained(context: Context) -> Segmenter:
    segmenter = context.make_segmenter(len(context.project().classes))
    segmenter.load(context.workspace.segmenter(context.number))
    return segmenter
