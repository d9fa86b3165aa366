"""All masks that SAM finds without being asked for anything; θ and the corrector give them labels."""

from __future__ import annotations

from itertools import islice

import numpy as np

from a2lc_backend.masks import IGNORE, MAX_MASKS, MaskSet, make_disjoint
from a2lc_backend.proposals import Foundation, NothingFoundError, Picture
from a2lc_backend.proposals.grounded import named


class EverythingMasks:
    """Proposes SAM's automatic masks, made disjoint, without labels.

    Args:
        name: `sam-everything` or `sam2-everything`.
        foundation: the model of masks by prompt.
    """

    def __init__(self, name: str, foundation: Foundation) -> None:
        self.name = name
        self._foundation = foundation

    def propose(self, picture: Picture) -> MaskSet:
        """Cut out whatever looks like a thing; where masks overlap, the smaller one wins.

        Args:
            picture: an image of any size.

        Returns:
            Masks named `t<task id>m<k>`; all first labels are `IGNORE`.

        Raises:
            NothingFoundError: if no mask is found.
        """
        model, embedding = self._foundation.embedding(picture)
        mask_ids = make_disjoint(islice(model.everything(embedding), MAX_MASKS), picture.size)
        if not mask_ids.any():
            raise NothingFoundError(
                f"{self.name} found no mask in task {picture.task_id}; choose other proposals for such images, "
                "or set a background"
            )
        return named(mask_ids, np.full(int(mask_ids.max()), IGNORE, np.int64), picture.task_id)
