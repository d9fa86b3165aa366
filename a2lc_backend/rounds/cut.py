"""Which regions of a queued image its page shows: with a hundred Label Studio opens it in ten seconds or more."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import MaskSet
from a2lc_backend.store import Round


def most_shown(record: Round) -> int:
    """Regions that a round shows of a queued image at most, 0 for all.

    It is what the round was begun with; rounds of versions that knew no such setting showed all.
    """
    if record.settings.get("whole_image", False):
        return 0
    return int(record.settings.get("regions_shown", 0))


def left_out(masks: MaskSet, queued: Collection[str], most: int) -> frozenset[str]:
    """Regions of an image that its page does not show.

    Shown are the queued ones, then those nearest to one of them, which begins with those that touch one, until there
    are `most`. Reading what a person submitted depends on finding exactly these again, whenever that is: all numbers
    are whole, and of equals the first by name is taken: a store that was rebuilt has its masks in another order.

    Args:
        masks: of the image; those without pixels are never shown.
        queued: ids of the regions that people are asked about.
        most: regions to show, unless more are queued; 0 for all.

    Returns:
        Their ids, nothing for an image that is not queued.
    """
    live = masks.areas() > 0
    asked = np.array([region_id in queued for region_id in masks.region_ids], np.bool_) & live
    if not most or not asked.any() or live.sum() <= most:
        return frozenset()
    steps, others = _distances(masks, asked), np.flatnonzero(live & ~asked)
    nearest_first = sorted((int(steps[index]), masks.region_ids[index]) for index in others)
    return frozenset(region_id for _, region_id in nearest_first[max(most - int(asked.sum()), 0) :])


def _distances(masks: MaskSet, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Steps from each mask to the nearest chosen one, across and down, (K,); 1 for one that touches it."""
    outside = ~np.concatenate([[False], chosen])[masks.mask_ids]
    steps = cv2.distanceTransform(outside.astype(np.uint8), cv2.DIST_L1, 3).astype(np.int64)  # exact, unlike Euclid's
    found = np.full(len(masks) + 1, np.iinfo(np.int64).max, np.int64)
    np.minimum.at(found, masks.mask_ids.ravel(), steps.ravel())
    return found[1:]
