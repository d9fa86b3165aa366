"""Foundation models behind one small protocol: an image in, its masks and their first labels out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import MaskSet, Region


class ProposalError(ValueError):
    """An image cannot get masks; the message says why and what mends it."""


@dataclass(frozen=True)
class Picture:
    """One image of a project, with what Label Studio knows of it.

    Attributes:
        key: name of the image file without its suffix; an upload to Label Studio may have put 8 hex digits and a dash
            before it.
        task_id: of the image in Label Studio.
        image: (H, W, 3) uint8, RGB.
        regions: what lies on the image in Label Studio already.
        classes: names in id order.
    """

    key: str
    task_id: int
    image: NDArray[np.uint8]
    regions: tuple[Region, ...]
    classes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


class Proposals(Protocol):
    """A source of masks."""

    @property
    def name(self) -> str:
        """How the settings name it."""
        ...

    def propose(self, picture: Picture) -> MaskSet:
        """Cut an image into disjoint masks; the same picture always gives the same masks.

        Args:
            picture: the image.

        Returns:
            Masks at the size of the image, each with at least one pixel; first labels are `IGNORE` where the source has
            none.

        Raises:
            ProposalError: if the source has nothing for this image.
        """
        ...


NAMES = ("auto", "existing", "world", "superpixels")


def make_proposals(name: str, *, world: Path | None = None, superpixels: int = 40) -> Proposals:
    """Build a source of masks by name.

    Args:
        name: `existing`: the regions already in Label Studio; `world`: the masks of a world folder; `superpixels`:
            pixels that lie together and look alike; `auto`: existing regions where a picture has any, else the world
            folder if one is given, else superpixels.
        world: the folder of `world`.
        superpixels: masks an image that `superpixels` aims at, 2 or more.

    Raises:
        ProposalError: for an unknown name, or a world folder that is missing or cannot be read.
    """
    if name == "existing":
        return _existing()
    if name == "superpixels":
        return _superpixels(superpixels)
    if name == "world":
        if world is None:
            raise ProposalError("the proposals `world` need a world folder; set A2LC_WORLD to its path")
        return _world(world)
    if name == "auto":
        return FirstOf(_existing(), _superpixels(superpixels) if world is None else _world(world))
    raise ProposalError(f"no proposals are named {name!r}; choose one of {', '.join(NAMES)}")


# Imported late: these modules import this one, and superpixels need libraries that take seconds to load.
def _existing() -> Proposals:
    from a2lc_backend.proposals.existing import ExistingRegions  # noqa: PLC0415

    return ExistingRegions()


def _world(folder: Path) -> Proposals:
    from a2lc_backend.proposals.world import WorldMasks  # noqa: PLC0415

    return WorldMasks(folder)


def _superpixels(masks: int) -> Proposals:
    from a2lc_backend.proposals.superpixels import Superpixels  # noqa: PLC0415

    return Superpixels(masks)


@dataclass(frozen=True)
class FirstOf:
    """The regions of a picture that has any with pixels, else another source.

    Attributes:
        existing: asked where a picture has regions.
        fallback: asked where it has none.
        name: of this source.
    """

    existing: Proposals
    fallback: Proposals
    name: str = "auto"

    def propose(self, picture: Picture) -> MaskSet:
        """See `Proposals.propose`."""
        has_regions = any(region.mask.any() for region in picture.regions)
        return (self.existing if has_regions else self.fallback).propose(picture)
