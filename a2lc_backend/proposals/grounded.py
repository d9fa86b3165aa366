"""Masks of what words name: boxes by text, a mask in each box, one label a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.foundation import Boxes
from a2lc_backend.masks import MAX_MASKS, MaskSet, keep_masks
from a2lc_backend.proposals import Foundation, NothingFoundError, Picture, ProposalError

_AT_A_TIME = 16
_SAME_BOX = 0.9
"""Boxes that overlap with a higher IoU are one object, found twice: the surer one stays."""


class GroundedMasks:
    """Proposes a mask for each box that a detector finds for a class's phrases.

    Args:
        name: `grounded-sam` or `sam2`.
        foundation: the detector, the model of masks by prompt, and where its embeddings are kept.
        threshold: least score of a box, 0–1.
    """

    def __init__(self, name: str, foundation: Foundation, threshold: float) -> None:
        self.name = name
        self._foundation, self._threshold = foundation, threshold

    def propose(self, picture: Picture) -> MaskSet:
        """Find what the classes' phrases name; where masks overlap, the smaller one wins, as in the paper.

        Args:
            picture: with the phrases of each class.

        Returns:
            Masks named `t<task id>m<k>`, the surest box first.

        Raises:
            NothingFoundError: if no box is found.
            ProposalError: if no class has a phrase.
        """
        phrases = [phrase for mine in picture.prompts for phrase in mine]
        classes = [index for index, mine in enumerate(picture.prompts) for _ in mine]
        if not phrases:
            raise ProposalError("no class has words to look for; give the labels of the label config names")
        detector = self._foundation.detector()
        found = _distinct(detector.detect(picture.image, phrases, self._threshold))
        if not len(found.boxes):
            raise NothingFoundError(
                f"nothing that the classes name was found in task {picture.task_id} with a score of {self._threshold} "
                'or more; lower box_threshold, give the labels a prompt="…" with other words, or set a background'
            )
        mask_ids = self._paint(picture, found.boxes)
        if not mask_ids.any():
            raise NothingFoundError(f"the boxes found in task {picture.task_id} hold no masks; raise box_threshold")
        return named(mask_ids, np.array(classes, np.int64)[found.phrases], picture.task_id)

    def _paint(self, picture: Picture, boxes: NDArray[np.float64]) -> NDArray[np.uint16]:
        """Lay smaller masks over larger ones; of masks of one size the surer shows. Few masks are held at a time."""
        model, embedding = self._foundation.embedding(picture)
        mask_ids = np.zeros(picture.size, np.uint16)
        areas = np.full(picture.size, np.iinfo(np.int32).max, np.int32)
        for start in range(0, len(boxes), _AT_A_TIME):
            for index, mask in enumerate(model.box_masks(embedding, boxes[start : start + _AT_A_TIME]), start + 1):
                area = int(mask.sum())
                shows = mask & (areas > area)
                mask_ids[shows], areas[shows] = index, area
        return mask_ids


def named(mask_ids: NDArray[np.uint16], labels: NDArray[np.int64], task_id: int) -> MaskSet:
    """Masks with pixels, named `t<task id>m<k>` with k from 1 in their order.

    Args:
        mask_ids: (H, W) uint16, 0 = none.
        labels: (K,) int64 first labels.
        task_id: of the image.
    """
    visible = np.bincount(mask_ids.ravel(), minlength=len(labels) + 1)[1:] > 0
    names = tuple(f"t{task_id}m{k}" for k in range(1, int(visible.sum()) + 1))
    return MaskSet(keep_masks(mask_ids, visible), names, labels[visible], {})


def _distinct(found: Boxes) -> Boxes:
    """The boxes that are no second finding of an object, the surest first."""
    order = np.argsort(-found.scores, kind="stable")
    boxes = found.boxes[order]
    kept: list[int] = []
    for place in range(len(order)):
        if len(kept) == MAX_MASKS:
            break
        if not kept or _overlaps(boxes[place], boxes[kept]).max() <= _SAME_BOX:
            kept.append(place)
    chosen = order[kept]
    return Boxes(found.boxes[chosen], found.scores[chosen], found.phrases[chosen])


def _overlaps(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of a box with (N, 4) others, (N,)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    area = np.prod(box[2:] - box[:2])
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    overlaps: NDArray[np.float64] = shared / np.maximum(area + areas - shared, 1e-9)
    return overlaps
