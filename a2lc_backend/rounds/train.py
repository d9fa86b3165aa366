"""The fourth and fifth phase of a round: θ learns the labels, then looks at every image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.acquisition import acquisition_rows
from a2lc_backend.masks import MaskSet, label_map
from a2lc_backend.rounds.ahead import read_ahead
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.platform import Task, TaskError
from a2lc_backend.rounds.workspace import Labels, Scores, digest
from a2lc_backend.segmenter import Segmenter, SegmenterError, enlarge
from a2lc_backend.store import ArtifactError, is_sound


def train(context: Context, _items: Items, progress: Progress) -> None:
    """Train θ on the pseudo-labels of this round, from where the last round's θ stands."""
    labels = context.workspace.labels(context.number)
    segmenter = context.make_segmenter(len(context.project().classes))
    if context.previous is not None and context.workspace.has_segmenter(context.previous.number):
        with suppress(SegmenterError, ArtifactError):  # another kind of θ was used before, or it is lost
            segmenter.load(context.workspace.segmenter(context.previous.number))
    inputs = _Inputs(context, segmenter)

    def look(place: int) -> tuple[MaskSet, NDArray[np.generic] | None]:
        return context.workspace.masks(labels.mask_keys[place]), inputs.stored(int(labels.task_ids[place]))

    def samples() -> Iterator[tuple[NDArray[np.generic], NDArray[np.uint8]]]:
        for place, (masks, stored) in read_ahead(range(len(labels.task_ids)), look):
            prepared = inputs.prepare(int(labels.task_ids[place]), "train") if stored is None else stored
            if prepared is not None:
                yield prepared, label_map(masks.mask_ids, labels.labels[labels.span(place)])

    segmenter.fit(samples, progress, _Kept(context, labels))
    context.workspace.write_segmenter(context.number, segmenter.state())
    context.workspace.forget_training(context.number)


def sound_segmenter(context: Context) -> bool:
    """Whether θ of this round can be read."""
    return is_sound(lambda: context.workspace.segmenter(context.number))


class _Kept:
    """The checkpoint of a round's training on these very labels."""

    def __init__(self, context: Context, labels: Labels) -> None:
        self._workspace, self._number = context.workspace, context.number
        self._name = digest(labels, ())

    def read(self) -> bytes | None:
        """See `Checkpoint.read`."""
        with suppress(ArtifactError):  # it is lost: the training begins anew
            return self._workspace.training(self._number, self._name)
        return None

    def write(self, state: bytes) -> None:
        """See `Checkpoint.write`."""
        self._workspace.write_training(self._number, self._name, state)


class _Inputs:
    """What θ reads of each image; prepared now where another kind of θ was used before."""

    def __init__(self, context: Context, segmenter: Segmenter) -> None:
        self._context = context
        self._segmenter = segmenter

    def stored(self, task_id: int) -> NDArray[np.generic] | None:
        """An image's input; None if it is not there, or corrupt."""
        state = self._context.ledger.task(self._context.project_id, task_id)
        if state is not None:
            with suppress(ArtifactError):
                return self._context.workspace.input(task_id, state.image, self._segmenter.fingerprint)
        return None

    def prepare(self, task_id: int, phase: str) -> NDArray[np.generic] | None:
        """Make an image's input and store it; None if the image is gone, which is noted."""
        state = self._context.ledger.task(self._context.project_id, task_id)
        if state is None:
            return None  # it was deleted during the round
        try:
            image = self._context.platform.image(Task(task_id, state.image))
        except TaskError as error:
            self._context.note(phase, task_id, f"task {task_id}: {error}")
            return None
        prepared = self._segmenter.prepare(image)
        self._context.workspace.write_input(task_id, state.image, self._segmenter.fingerprint, prepared)
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

    def look(item: tuple[int, str]) -> tuple[MaskSet, NDArray[np.generic] | None] | None:
        task_id, key = item
        with suppress(ArtifactError):  # what is corrupt is made again
            if context.workspace.scores(context.number, task_id, key) is not None:
                return None
        return context.workspace.masks(key), inputs.stored(task_id)

    for done, ((task_id, key), found) in enumerate(read_ahead(items, look)):
        progress(done, len(items))
        if found is None:
            continue
        masks, stored = found
        prepared = inputs.prepare(task_id, "score") if stored is None else stored
        if prepared is None:
            continue
        soft = enlarge(segmenter.soft_labels(prepared), masks.size)
        rows, means, dominant = acquisition_rows(soft, masks.mask_ids, len(masks))
        context.workspace.write_scores(context.number, task_id, Scores(key, rows, means, dominant))
    progress(len(items), len(items))


def sound_scores(context: Context) -> bool:
    """Whether what θ said of every image can be read."""
    read = partial(context.workspace.scores, context.number)
    return all(is_sound(partial(read, *item)) for item in plan_score(context))


def _trained(context: Context) -> Segmenter:
    segmenter = context.make_segmenter(len(context.project().classes))
    segmenter.load(context.workspace.segmenter(context.number))
    return segmenter
