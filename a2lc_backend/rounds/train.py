"""The fourth and fifth phase of a round: θ learns the labels, then looks at every image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.acquisition import acquisition_rows
from a2lc_backend.masks import label_map
from a2lc_backend.rounds.context import Context, Progress
from a2lc_backend.rounds.workspace import Scores
from a2lc_backend.segmenter import enlarge


def train(context: Context, progress: Progress) -> None:
    """Train θ on the pseudo-labels of this round."""
    labels = context.workspace.labels(context.number)
    segmenter = context.make_segmenter(len(context.project().classes))

    def samples() -> Iterator[tuple[NDArray[np.generic], NDArray[np.uint8]]]:
        for place, task_id in enumerate(labels.task_ids):
            masks = context.workspace.masks(labels.mask_keys[place])
            target = label_map(masks.mask_ids, labels.labels[labels.span(place)])
            yield context.workspace.input(int(task_id)), target

    segmenter.fit(samples, progress)
    context.workspace.write_segmenter(context.number, segmenter.state())


def score(context: Context, progress: Progress) -> None:
    """Let θ look at every image: what ranking and the corrector need of its soft labels."""
    labels = context.workspace.labels(context.number)
    segmenter = context.make_segmenter(len(context.project().classes))
    state = context.workspace.segmenter(context.number)
    if state is not None:
        segmenter.load(state)
    for place, task_id in enumerate(labels.task_ids):
        progress(place, len(labels.task_ids))
        key = labels.mask_keys[place]
        if context.workspace.scores(context.number, int(task_id), key) is not None:
            continue
        masks = context.workspace.masks(key)
        soft = enlarge(segmenter.soft_labels(context.workspace.input(int(task_id))), masks.size)
        rows, means, dominant = acquisition_rows(soft, masks.mask_ids, len(masks))
        context.workspace.write_scores(context.number, int(task_id), Scores(key, rows, means, dominant))
    progress(len(labels.task_ids), len(labels.task_ids))
