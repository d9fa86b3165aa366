"""From what people submitted to corrections, and from corrections to one truth a mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE, MaskSet, Region
from a2lc_backend.rounds.platform import Annotation
from a2lc_backend.store import Correction, CorrectionKind

ShownMask = Callable[[NDArray[np.bool_], NDArray[np.float64] | None], NDArray[np.bool_]]


@dataclass(frozen=True)
class Shown:
    """What a person saw when they opened an image.

    Attributes:
        masks: the masks as they were then.
        labels: (K,) int64 class ids they had then.
        queued: ids of the regions the person was asked about.
        undone: (K,) int64 class ids after automatic corrections were taken back, if some were: either may have been
            on the page.
        hidden: ids of regions that were kept off the page.
    """

    masks: MaskSet
    labels: NDArray[np.int64]
    queued: frozenset[str]
    undone: NDArray[np.int64] | None = None
    hidden: frozenset[str] = frozenset()

    def kept(self, index: int, label: int) -> bool:
        """Whether a label is one that the mask was shown with."""
        return label == self.labels[index] or (self.undone is not None and label == self.undone[index])


@dataclass(frozen=True)
class Reading:
    """What one annotation says.

    Attributes:
        corrections: the person's decisions.
        shapes: pixels of the masks the person drew or edited, by region id, (H, W) bool.
        problems: what could not be used, in words that name the mend.
    """

    corrections: tuple[Correction, ...]
    shapes: dict[str, NDArray[np.bool_]]
    problems: tuple[str, ...]


def read_annotation(
    annotation: Annotation,
    shown: Shown,
    classes: tuple[str, ...],
    round_number: int,
    shown_mask: ShownMask,
    whole_image: bool = False,
) -> Reading:
    """Find what a person decided about an image.

    The queued regions and those that differ from what was shown count as the person's; the rest stay pseudo-labels,
    unless whole images are reviewed. A region that is absent was deleted only where it was on the page and the
    annotation was made from a prediction; a script may send just the regions it corrected.

    Args:
        annotation: as the platform gives it.
        shown: what the person saw.
        classes: names in id order.
        round_number: the round that collects.
        shown_mask: see `Platform.shown_mask`.
        whole_image: every region of a submitted image counts as human.
    """
    class_ids = {name: index for index, name in enumerate(classes)}
    positions = {region_id: index for index, region_id in enumerate(shown.masks.region_ids)}
    problems = list(annotation.problems)
    corrections: list[Correction] = []
    shapes: dict[str, NDArray[np.bool_]] = {}

    def decide(region_id: str, kind: CorrectionKind, label: int, before: int) -> None:
        made_at, annotator = annotation.made_at, annotation.annotator
        corrections.append(
            Correction(
                annotation.id, annotation.task_id, region_id, kind, label, before, annotator, made_at, round_number
            )
        )

    if not annotation.regions and not annotation.unreadable:
        problems.append(f"annotation {annotation.id} has no regions and is left out; submit labels or delete it")
        return Reading((), {}, tuple(problems))
    for region in annotation.regions:
        index = positions.get(region.id)
        if region.label is None:
            if index is None or region.id in shown.queued:
                problems.append(f"annotation {annotation.id} leaves region {region.id} without a label; give it one")
            continue
        label = class_ids[region.label]
        if index is None:
            decide(region.id, "new", label, IGNORE)
            shapes[region.id] = region.mask
            continue
        before = int(shown.labels[index])
        edited = _edited(region, shown.masks, index, shown_mask)
        if edited or not shown.kept(index, label) or region.id in shown.queued or whole_image:
            decide(region.id, "shape" if edited else "label", label, before)
        if edited:
            shapes[region.id] = region.mask
    if annotation.whole:
        present = {region.id for region in annotation.regions} | set(annotation.unreadable)
        areas = shown.masks.areas()
        for region_id, index in positions.items():
            if region_id not in present and region_id not in shown.hidden and areas[index] > 0:
                decide(region_id, "deleted", IGNORE, int(shown.labels[index]))
    return Reading(tuple(corrections), shapes, tuple(problems))


def _edited(region: Region, masks: MaskSet, index: int, shown_mask: ShownMask) -> bool:
    was = shown_mask(masks.mask(index), masks.rings.get(region.id))
    return not np.array_equal(region.mask, was)


@dataclass(frozen=True)
class Verdict:
    """What people together say of one mask.

    Attributes:
        label: class id, `IGNORE` for a mask that was deleted; meaningless while disputed.
        kind: of the latest decision.
        round: the round that collected it.
        first_round: the round that collected the first word on the mask.
        disputed: no label has more than half of the voices, so the mask stays unresolved and is queued again.
        shape_key: artifact key of the edited pixels, empty if nobody edited them.
    """

    label: int
    kind: str
    round: int
    disputed: bool
    shape_key: str
    first_round: int = 0


def verdicts(corrections: Iterable[Correction]) -> dict[tuple[int, str], Verdict]:
    """Join the decisions of all people, by (task id, region id).

    A person's latest decision about a mask replaces the same person's earlier ones. More than half of the people
    settle a mask.

    Args:
        corrections: oldest first.

    Returns:
        Verdicts in the order in which the masks were last spoken of.
    """
    latest: dict[tuple[int, str], dict[int, Correction]] = {}
    first: dict[tuple[int, str], int] = {}
    for spoken in corrections:
        correction = spoken
        key = (correction.task_id, correction.region_id)
        first[key] = min(first.get(key, correction.round), correction.round)
        by_person = latest.pop(key, {})
        before = by_person.pop(correction.annotator, None)
        if before is not None and before.shape_key and correction.kind == "label":
            # Who relabels a mask they drew or redrew before keeps its pixels.
            correction = replace(correction, kind=before.kind, shape_key=before.shape_key)
        by_person[correction.annotator] = correction
        latest[key] = by_person  # the mask spoken of last comes last
    return {key: _join(by_person, first[key]) for key, by_person in latest.items()}


def settled(found: Mapping[tuple[int, str], Verdict]) -> dict[tuple[int, str], int]:
    """The label of every mask that people have answered and do not disagree about."""
    return {key: verdict.label for key, verdict in found.items() if not verdict.disputed}


def _join(by_person: Mapping[int, Correction], first_round: int) -> Verdict:
    answers = list(by_person.values())
    label, votes = Counter(answer.label for answer in answers).most_common(1)[0]
    last = [answer for answer in answers if answer.label == label][-1]
    shapes = [answer.shape_key for answer in answers if answer.shape_key]
    return Verdict(
        label,
        last.kind,
        max(answer.round for answer in answers),
        2 * votes <= len(answers),
        shapes[-1] if shapes else "",
        first_round,
    )


def edit_masks(
    masks: MaskSet, edits: Iterable[tuple[str, Verdict]], shapes: Mapping[str, NDArray[np.bool_]]
) -> MaskSet:
    """Apply people's edits to the masks of an image, in the order given.

    A redrawn mask gives up its old pixels and takes its new ones from whatever lay there; a deleted mask leaves its
    pixels without a mask. Ids stay; a mask that lost every pixel keeps its place.

    Args:
        masks: as proposed.
        edits: region id and verdict of each edited, new or deleted mask.
        shapes: (H, W) bool by artifact key.

    Raises:
        ValueError: for a shape of another size than the image.
    """
    mask_ids = masks.mask_ids.copy()
    names = list(masks.region_ids)
    first_labels = list(masks.first_labels)
    rings = dict(masks.rings)
    for region_id, verdict in edits:
        if region_id in names:
            number = names.index(region_id) + 1
            mask_ids[mask_ids == number] = 0
            rings.pop(region_id, None)
        elif verdict.shape_key:
            names.append(region_id)
            first_labels.append(np.int64(IGNORE))
            number = len(names)
        else:
            continue
        if verdict.shape_key and verdict.kind != "deleted":
            shape = shapes[verdict.shape_key]
            if shape.shape != masks.size:
                raise ValueError(f"the shape of region {region_id} is {shape.shape}, its image is {masks.size}")
            mask_ids[shape] = number
    return MaskSet(mask_ids, tuple(names), np.array(first_labels, np.int64), rings)
