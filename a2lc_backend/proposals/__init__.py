"""Foundation models behind one small protocol: an image in, its masks and their first labels out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.foundation import Detector, Embedding, PromptedModel
from a2lc_backend.masks import MaskSet, Region


class ProposalError(ValueError):
    """An image cannot get masks; the message says why and what mends it."""


class NothingFoundError(ProposalError):
    """A source that looks for things found none in an image."""


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
        prompts: phrases that describe each class to a model that takes text.
        image_key: names the image for ever among those of all projects; where its embedding is kept.
    """

    key: str
    task_id: int
    image: NDArray[np.uint8]
    regions: tuple[Region, ...]
    classes: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...] = ()
    image_key: str = ""

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


@dataclass(frozen=True)
class Foundation:
    """The models that some sources ask, opened when they are first asked.

    Attributes:
        detector: gives the model of boxes by text.
        model: gives the model of masks by prompt.
        embed: gives the embedding of a picture, made once and kept.
    """

    detector: Callable[[], Detector]
    model: Callable[[], PromptedModel]
    embed: Callable[[PromptedModel, Picture], Embedding]

    def embedding(self, picture: Picture) -> tuple[PromptedModel, Embedding]:
        """The model of masks by prompt, and what it sees in a picture."""
        model = self.model()
        return model, self.embed(model, picture)


TEXT_SOURCES = {"grounded-sam": "sam", "sam2": "sam2"}
EVERYTHING_SOURCES = {"sam-everything": "sam", "sam2-everything": "sam2"}
SAM_SOURCES = TEXT_SOURCES | EVERYTHING_SOURCES
"""Sources that ask a model of masks by prompt, with the setting that names its weights."""

NAMES = ("auto", "existing", "world", "superpixels", *SAM_SOURCES)


def make_proposals(
    name: str,
    *,
    world: Path | None = None,
    superpixels: int = 40,
    foundation: Foundation | None = None,
    box_threshold: float = 0.2,
    background: str = "",
    tile_pixels: int = 0,
) -> Proposals:
    """Build a source of masks by name.

    Args:
        name: `existing`: the regions already in Label Studio; `world`: the masks of a world folder; `superpixels`:
            pixels that lie together and look alike; `auto`: existing regions where a picture has any, else the world
            folder if one is given, else superpixels; `grounded-sam`, `sam2`: what the classes' phrases name, by
            Grounding DINO and SAM or SAM 2; `sam-everything`, `sam2-everything`: all that they find without a prompt.
        world: the folder of `world`.
        superpixels: masks an image that `superpixels` aims at, 2 or more.
        foundation: the models that `grounded-sam`, `sam2` and `…-everything` ask.
        box_threshold: least score of a box that `grounded-sam` and `sam2` take.
        background: class of the pixels that no mask covers; "" leaves them without label.
        tile_pixels: foundation models are shown larger images in tiles of fewer pixels; 0 for never.

    Raises:
        ProposalError: for an unknown name, a world folder that is missing or cannot be read, or models not given.
    """
    source = _make_source(name, world, superpixels, foundation, box_threshold)
    tile_pixels = tile_pixels if name in SAM_SOURCES else 0  # the others see large images whole
    if not background and not tile_pixels:
        return source
    from a2lc_backend.proposals.around import InTiles, WithBackground  # noqa: PLC0415 - see below

    if tile_pixels:
        source = InTiles(source, tile_pixels)
    return WithBackground(source, background) if background else source


def _make_source(
    name: str, world: Path | None, superpixels: int, foundation: Foundation | None, box_threshold: float
) -> Proposals:
    if name in SAM_SOURCES:
        if foundation is None:
            raise ProposalError(f"the proposals {name} need foundation models, which are not at hand here")
        return _sam(name, foundation, box_threshold)
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


def _sam(name: str, foundation: Foundation, box_threshold: float) -> Proposals:
    if name in TEXT_SOURCES:
        from a2lc_backend.proposals.grounded import GroundedMasks  # noqa: PLC0415

        return GroundedMasks(name, foundation, box_threshold)
    from a2lc_backend.proposals.everything import EverythingMasks  # noqa: PLC0415

    return EverythingMasks(name, foundation)


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
