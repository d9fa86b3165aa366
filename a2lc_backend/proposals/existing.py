"""Masks that are in Label Studio already: a team's own predictions or annotations, noisy as they are."""

from __future__ import annotations

import numpy as np

from a2lc_backend.masks import IGNORE, MaskSet, Region, keep_masks, make_disjoint
from a2lc_backend.proposals import Picture, ProposalError


class ExistingRegions:
    """Proposes the regions of a task; where they overlap, the smaller one wins."""

    name = "existing"

    def propose(self, picture: Picture) -> MaskSet:
        """Make the regions of a picture disjoint; one that the others cover wholly is left out.

        Args:
            picture: its regions have ids that are unique in it, and masks of its size.

        Returns:
            Masks named as the regions are; polygons keep their rings.

        Raises:
            ProposalError: if there is no region with pixels, or a region does not fit the picture, shares its id or has
                a label that is no class.
        """
        regions = picture.regions
        _check(picture)
        mask_ids = make_disjoint([region.mask for region in regions], picture.size)
        visible = np.bincount(mask_ids.ravel(), minlength=len(regions) + 1)[1:] > 0
        if not visible.any():
            raise ProposalError(
                f"task {picture.task_id} has no regions with pixels; import predictions or choose superpixels"
            )
        kept = [region for region, keep in zip(regions, visible, strict=True) if keep]
        labels = [IGNORE if region.label is None else picture.classes.index(region.label) for region in kept]
        return MaskSet(
            mask_ids=keep_masks(mask_ids, visible),
            region_ids=tuple(region.id for region in kept),
            first_labels=np.array(labels, np.int64),
            rings={region.id: region.ring for region in kept if region.ring is not None},
        )


def _check(picture: Picture) -> None:
    if len({region.id for region in picture.regions}) < len(picture.regions):
        raise ProposalError(f"two regions of task {picture.task_id} share an id; import them with ids of their own")
    for region in picture.regions:
        _check_region(picture, region)


def _check_region(picture: Picture, region: Region) -> None:
    where = f"region {region.id} of task {picture.task_id}"
    if region.mask.shape != picture.size:
        raise ProposalError(
            f"{where} is {region.mask.shape} but the image is {picture.size} (height, width); "
            "import it again at the size of the image"
        )
    if region.label is not None and region.label not in picture.classes:
        raise ProposalError(
            f"{where} is labelled {region.label!r}, which is no class of the project ({', '.join(picture.classes)}); "
            "add it to the label config or import the region with another label"
        )
