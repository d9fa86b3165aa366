"""Label Studio's region JSON and label config, to and from masks.

Pixels that a region marks, as Label Studio 1.23 draws them: a brush's RLE and a bitmask's PNG mark by their alpha
channel alone; a polygon marks the pixels whose centre it encloses, its corners being percent of the image's width and
height, (0, 0) the upper left corner of the upper left pixel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from a2lc_backend.images import ImageError, decode_mask_png, decode_mask_rle, encode_mask_png, encode_mask_rle
from a2lc_backend.masks import IGNORE, SAME, Region, Source

Kind = Literal["brushlabels", "bitmasklabels", "polygonlabels"]
"""A segmentation control: the type of its regions and the key of their labels."""

_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}  # by the tag of the control in small letters
_TAG_NAMES = "<BrushLabels>, <BitmaskLabels> or <PolygonLabels>"
_REDRAW = "draw the region again in Label Studio, or delete it"
_RING_TOLERANCES = (1.0, 0.5)  # pixels
_RING_FIDELITY = 0.9  # least IoU of a simplified outline with the exact one
_FARTHEST_PERCENT = 1000.0
_CROSSINGS_AT_ONCE = 1_000_000
_LONGEST_ID = 255
_LONGEST_CONFIG = 1_000_000
_MOST_CONTROLS = 20
_LARGEST_NUMBER = 2**31
_LONGEST_REASON = 500
_TIE_X, _TIE_Y = 1e-6, 0.618e-6  # pixels; the golden ratio, so that hardly any edge runs this way


def is_region_id(text: object) -> bool:
    """Whether a text can name a region here: the store keeps ids as they are, and pages ask for them by address."""
    return isinstance(text, str) and 0 < len(text) <= _LONGEST_ID and text.isprintable()


class LabelConfigError(ValueError):
    """The labeling interface of the project does not suit; the message says what to change in it."""


class RegionError(ValueError):
    """A region cannot be used; the message says which, why, and what to do."""


class UnknownClassError(RegionError):
    """A region holds a label that the label config does not have."""


class OtherControlError(RegionError):
    """A result item belongs to another control of the labeling interface, so it says nothing about masks."""


@dataclass(frozen=True)
class Label:
    """One class of a label config.

    Attributes:
        name: what results hold: the alias, where the label has one, else the text.
        text: what people see.
        background: colour as the config writes it; None where it leaves the choice to Label Studio.
        hotkey: key that picks the label; None where Label Studio chooses it.
        hint: what Label Studio shows when the mouse rests on the label.
        prompts: phrases that describe the class to a model that takes text: the attribute `prompt`, else the hint, else
            the alias, else the text; split at commas, semicolons and full stops. Never empty.
    """

    name: str
    text: str
    background: str | None
    hotkey: str | None
    hint: str
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class LabelConfig:
    """The segmentation control of a labeling interface.

    Attributes:
        from_name: name of the control.
        to_name: name of the image it labels.
        image_key: key of the image's address in a task's data: "image" for value="$image".
        kind: shape of the regions.
        labels: the classes; the place of a label is its class id.
    """

    from_name: str
    to_name: str
    image_key: str
    kind: Kind
    labels: tuple[Label, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by class id."""
        return tuple(label.name for label in self.labels)


def parse_label_config(xml: str) -> LabelConfig:
    """Find the segmentation control of a labeling interface.

    Other controls beside it (smart rectangles, keypoints, choices) are left out. Of two segmentation controls with the
    same classes the first is taken.

    Args:
        xml: the labeling interface, as Label Studio stores it.

    Raises:
        LabelConfigError: for XML that does not parse or declares a document type; no segmentation control, or two with
            different classes; a control without name, image, or labels; two labels of one name; more than 255 classes;
            XML that is too long or has too many controls.
    """
    if len(xml) > _LONGEST_CONFIG:
        raise LabelConfigError(f"the label config has {len(xml)} characters, {_LONGEST_CONFIG} are the most")
    if "<!DOCTYPE" in xml.upper() or "<!ENTITY" in xml.upper():
        raise LabelConfigError("the label config declares a document type; remove <!DOCTYPE> and <!ENTITY> from it")
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314  (no document type, hence no entities)
    except (ElementTree.ParseError, ValueError) as error:
        raise LabelConfigError(f"the label config is not XML ({error}); correct it in Settings > Labeling") from error
    images = {tag.get("name"): tag.get("value", "") for tag in root.iter() if tag.tag.lower() == "image"}
    controls = [tag for tag in root.iter() if tag.tag.lower() in _KINDS]
    if len(controls) > _MOST_CONTROLS:
        raise LabelConfigError(f"the label config has {len(controls)} segmentation controls; one is enough")
    configs = [_parse_control(tag, images) for tag in controls]
    if not configs:
        raise LabelConfigError(
            f"the label config has no segmentation control; add {_TAG_NAMES} with labels and the toName of an <Image>"
        )
    first = configs[0]
    for other in configs[1:]:
        if set(other.classes) != set(first.classes):
            raise LabelConfigError(
                f"the segmentation controls {first.from_name!r} and {other.from_name!r} have different labels; "
                "remove one of them or give both the same labels"
            )
    return first


def _parse_control(control: ElementTree.Element, images: Mapping[str | None, str]) -> LabelConfig:
    """Read one segmentation control; `images` holds the value of each image tag by name."""
    from_name, to_name = control.get("name", ""), control.get("toName", "")
    what = f"<{control.tag} name={from_name!r}>"
    if not from_name:
        raise LabelConfigError(f"a <{control.tag}> has no name; give it one")
    if to_name not in images:
        raise LabelConfigError(f"{what}: toName={to_name!r} names no <Image>; set it to the name of the image")
    image_key = images[to_name].removeprefix("$")
    if not image_key or image_key == images[to_name]:
        raise LabelConfigError(
            f'<Image name={to_name!r}> has value={images[to_name]!r}; set it to one key of the tasks, such as "$image"'
        )
    labels = tuple(_parse_label(tag, what) for tag in control.iter() if tag.tag.lower() == "label")
    if not labels:
        raise LabelConfigError(f'{what} has no labels; add a <Label value="..."/> for each class')
    if len(labels) > IGNORE:
        raise LabelConfigError(f"{what} has {len(labels)} labels, {IGNORE} are the most; merge or remove some")
    names = [label.name for label in labels]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LabelConfigError(f"{what} has two labels of the name {twice[0]!r}; rename or remove one")
    return LabelConfig(from_name, to_name, image_key, _KINDS[control.tag.lower()], labels)


def _parse_label(tag: ElementTree.Element, what: str) -> Label:
    """Read one label of the control `what`."""
    text = tag.get("value", "")
    name = tag.get("alias") or text
    if not name:
        raise LabelConfigError(f"{what} has a label without value; give it one")
    described = (tag.get("prompt"), tag.get("hint"), tag.get("alias"), text, name)
    phrases = ([phrase.strip() for phrase in re.split("[,;.]", words or "") if phrase.strip()] for words in described)
    return Label(
        name=name,
        text=text or name,
        background=tag.get("background"),
        hotkey=tag.get("hotkey"),
        hint=tag.get("hint", ""),
        prompts=tuple(next(filter(None, phrases), [name])),
    )


def encode_region(region: Region, config: LabelConfig) -> dict[str, Any]:
    """Write a region as one item of a Label Studio prediction's `result`.

    A brush or bitmask region keeps its pixels exactly. A polygon region is its ring; without one, the outline of the
    mask's largest connected part, holes filled and simplified by at most a pixel (see `shown_mask`).

    Raises:
        UnknownClassError: for a label that the config lacks.
        RegionError: for a polygon region without pixels and ring.
    """
    if region.label is not None and region.label not in config.classes:
        raise UnknownClassError(
            f"region {region.id!r}: the label config has no class {region.label!r}; add it there, or relabel the region"
        )
    value: dict[str, Any]
    if config.kind == "brushlabels":
        value = {"format": "rle", "rle": encode_mask_rle(region.mask)}
    elif config.kind == "bitmasklabels":
        value = {"imageDataURL": encode_mask_png(region.mask)}
    else:
        if region.ring is None and not region.mask.any():
            raise RegionError(f"region {region.id!r}: no pixels, so a polygon cannot show it; leave it out")
        ring = _trace_ring(region.mask) if region.ring is None else region.ring
        value = {"points": _to_percent(ring, region.mask.shape).tolist(), "closed": True}
    value[config.kind] = [] if region.label is None else [region.label]
    meta: dict[str, Any] = {"a2lc": {"source": region.source, "round": region.round, "rank": region.rank}}
    if region.proposal is not None:
        meta["a2lc"]["proposal"] = region.proposal
    if region.first not in (SAME, region.label):
        meta["a2lc"]["first"] = region.first  # null for none: a store that is lost is rebuilt from this
    if region.note:
        meta["text"] = [region.note]  # a list of one text is what Label Studio itself writes here
    item = {
        "id": region.id,
        "type": config.kind,
        "from_name": config.from_name,
        "to_name": config.to_name,
        "original_width": region.mask.shape[1],
        "original_height": region.mask.shape[0],
        "image_rotation": 0,
        "origin": "prediction",
        "value": value,
        "meta": meta,
    }
    return item if region.score is None else item | {"score": float(region.score)}


def decode_region(item: Mapping[str, Any], config: LabelConfig, size: tuple[int, int]) -> Region:
    """Read one item of the `result` of an annotation or prediction.

    Takes memory and time in proportion to the image and the item, whatever the item claims.

    Args:
        item: the item, as JSON gives it.
        config: the label config of its project.
        size: height and width of the task's image in pixels.

    Raises:
        OtherControlError: for an item of another control.
        UnknownClassError: for a label that the config lacks.
        RegionError: for anything else that cannot be read.
    """
    if not isinstance(item, Mapping):
        raise RegionError(f"a result item is a {type(item).__name__}, not an object; import the annotation again")
    owner = (item.get("type"), item.get("from_name"), item.get("to_name"))
    if owner != (config.kind, config.from_name, config.to_name):
        raise OtherControlError(
            f"region {str(item.get('id'))[:80]!r}: type, from_name and to_name are {owner}, the segmentation control "
            f"has {(config.kind, config.from_name, config.to_name)}; ignore the item, or rename the control"
        )
    region_id = item.get("id")
    if not isinstance(region_id, str) or not is_region_id(region_id):
        raise RegionError(
            f"a {config.kind} region has the id {str(region_id)[:80]!r}; import it again with a text as id, of at "
            f"most {_LONGEST_ID} letters and signs"
        )
    try:
        return _decode_own(region_id, item, config, size)
    except UnknownClassError as error:
        raise UnknownClassError(f"region {region_id!r}: {error}"[:_LONGEST_REASON]) from error
    except (RegionError, ImageError) as error:
        raise RegionError(f"region {region_id!r}: {error}"[:_LONGEST_REASON]) from error


def _decode_own(region_id: str, item: Mapping[str, Any], config: LabelConfig, size: tuple[int, int]) -> Region:
    """Read an item of the segmentation control; errors do not name the region yet."""
    height, width = size
    if (item.get("original_height"), item.get("original_width")) != size:
        raise RegionError(
            f"a region of another image size, {item.get('original_width')} x {item.get('original_height')}; the task's "
            f"image is {width} x {height} (width x height); draw the region again, or put the first image back"
        )
    if (item.get("image_rotation") or 0) != 0:
        raise RegionError(f"the image is turned by {item['image_rotation']} degrees; turn it back in Label Studio")
    value = item.get("value")
    if not isinstance(value, Mapping):
        raise RegionError(f"it has no value; {_REDRAW}")
    label = _decode_label(value.get(config.kind), config)
    ring = None
    if config.kind == "brushlabels":
        mask = decode_mask_rle(value.get("rle"), size)
    elif config.kind == "bitmasklabels":
        mask = decode_mask_png(value.get("imageDataURL"), size)
    else:
        ring = _decode_points(value.get("points"), size)
        mask = _fill_ring(ring, size)
    meta = item.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    source, round_, rank, note = _decode_meta(meta)
    proposal, first = _decode_classes(meta, config)
    score = item.get("score")
    score = float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None
    return Region(region_id, label, mask, score, source, round_, rank, note, proposal, first, ring)


def shown_mask(mask: NDArray[np.bool_], ring: NDArray[np.float64] | None, config: LabelConfig) -> NDArray[np.bool_]:
    """Pixels that a person is shown for a mask; a region that comes back with others was edited.

    Args:
        mask: (H, W) bool.
        ring: (N, 2) float64, the polygon as it was drawn, in pixels; None for none.
        config: the label config of the project.

    Returns:
        (H, W) bool: the mask itself for brush and bitmask, else what its polygon encloses.
    """
    if config.kind != "polygonlabels" or (ring is None and not mask.any()):
        return mask
    ring = _trace_ring(mask) if ring is None else ring
    return _fill_ring(_to_pixels(_to_percent(ring, mask.shape), mask.shape), mask.shape)


def _decode_label(labels: object, config: LabelConfig) -> str | None:
    """Read the label list of a region; a missing or empty one is no label."""
    if labels is None or labels == []:
        return None
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise RegionError(f"its labels are {str(labels)[:80]}; give it one label")
    if labels[0] not in config.classes:
        raise UnknownClassError(f"the label config has no class {labels[0]!r}; add it there, or relabel the region")
    return labels[0]


def _decode_meta(meta: Mapping[str, Any]) -> tuple[Source, int | None, int | None, str]:
    """Read source, round, rank and note; the first three count as absent where one of them is malformed."""
    text = meta.get("text")
    lines = text if isinstance(text, list) else [text]
    note = "\n".join(line for line in lines if isinstance(line, str))
    ours = meta.get("a2lc")
    ours = ours if isinstance(ours, Mapping) else {}
    round_, rank = ours.get("round"), ours.get("rank")
    if all(number is None or (type(number) is int and 0 <= number < _LARGEST_NUMBER) for number in (round_, rank)):
        for source in get_args(Source):
            if source == ours.get("source"):
                return source, round_, rank, note
    return "imported", None, None, note


def _decode_classes(meta: Mapping[str, Any], config: LabelConfig) -> tuple[str | None, str | None]:
    """Read the proposal and the first label; a class that the config has lost counts as absent."""
    ours = meta.get("a2lc")
    ours = ours if isinstance(ours, Mapping) else {}
    proposal, first = ours.get("proposal"), ours.get("first", SAME)
    return proposal if proposal in config.classes else None, first if first in (*config.classes, None) else SAME


def _to_percent(ring: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.float64]:
    return ring / (size[1], size[0]) * 100


def _to_pixels(points: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.float64]:
    return points / 100 * (size[1], size[0])


def _decode_points(points: object, size: tuple[int, int]) -> NDArray[np.float64]:
    """Read a polygon's corners, (N, 2) in pixels."""
    try:
        percent = np.array(points, np.float64)
        usable = percent.ndim == 2 and percent.shape[1] == 2 and len(percent) >= 3
        if not usable or not (np.abs(percent) <= _FARTHEST_PERCENT).all():
            raise ValueError("no ring")
    except (TypeError, ValueError, OverflowError) as error:
        raise RegionError(f"its points are not three or more pairs of percent within the image; {_REDRAW}") from error
    return _to_pixels(percent, size)


def _trace_ring(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Outline of the largest connected part of a mask that has pixels, (N, 2) in pixels.

    The outline runs along the outer edges of the pixels, so even one pixel has one, and is simplified as far as the
    shape allows.
    """
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    left, top, width, height = (int(number) for number in stats[largest, :4])
    part = (parts[top : top + height, left : left + width] == largest).astype(np.uint8)
    # Each pixel becomes 2 x 2, whose corners 2x and 2x + 1 stand for the left edge x and the right edge x + 1.
    contours, _ = cv2.findContours(part.repeat(2, 0).repeat(2, 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = (contours[0][:, 0] + 1) // 2
    exact = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)].astype(np.float64)
    filled = _fill_ring(exact, (height, width))
    ring = exact
    simple: NDArray[np.float64]
    for tolerance in _RING_TOLERANCES:
        simple = cv2.approxPolyDP(exact.astype(np.float32), tolerance, closed=True)[:, 0].astype(np.float64)
        shown = _fill_ring(simple, (height, width))
        if len(simple) >= 3 and (shown & filled).sum() >= _RING_FIDELITY * (shown | filled).sum():
            ring = simple
            break
    moved: NDArray[np.float64] = ring + np.array([left, top])
    return moved


def _fill_ring(ring: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels whose centre a ring winds around, (H, W) bool.

    Centres are moved by (`_TIE_X`, `_TIE_Y`), so that none lies on the outline and rounding of a ring changes nothing.
    """
    height, width = size
    x, y = ring.T
    next_x, next_y = np.roll(ring, -1, axis=0).T
    # An edge crosses the centre lines of the rows first .. last - 1.
    ends = np.ceil(np.stack([y, next_y]) - 0.5 - _TIE_Y).clip(0, height).astype(np.int64)
    first, last = np.sort(ends, axis=0)
    rows_crossed = last - first
    ends_at = np.cumsum(rows_crossed)
    total = int(ends_at[-1])
    if total > max(height * (width + 1), _CROSSINGS_AT_ONCE):
        raise RegionError(f"its outline is longer than any outline in its image; {_REDRAW}")
    mask = np.zeros((height, width), np.bool_)
    if not total:
        return mask
    crossed = rows_crossed > 0
    top, bottom = int(first[crossed].min()), int(last[crossed].max())
    left, right = (int(np.ceil(end - 0.5 - _TIE_X).clip(0, width)) for end in (x.min(), x.max()))
    winding = np.zeros((bottom - top, right - left + 1), np.int32)
    for start in range(0, total, _CROSSINGS_AT_ONCE):
        number = np.arange(start, min(start + _CROSSINGS_AT_ONCE, total))
        edge = np.searchsorted(ends_at, number, side="right")
        row = number - (ends_at - rows_crossed)[edge] + first[edge]
        along = (row + 0.5 + _TIE_Y - y[edge]) / (next_y - y)[edge]
        crossing = x[edge] + along * (next_x - x)[edge]
        column = np.ceil(crossing - 0.5 - _TIE_X).clip(left, right).astype(np.int64)
        np.add.at(winding, (row - top, column - left), np.where(next_y > y, 1, -1)[edge])
    mask[top:bottom, left:right] = winding.cumsum(axis=1)[:, :-1] != 0
    return mask
