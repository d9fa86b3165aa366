"""Labeling interfaces for Label Studio: of well-known data sets, or of one's own classes."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args
from xml.sax.saxutils import quoteattr

from a2lc_backend.regions import LabelConfigError, parse_label_config

ConfigKind = Literal["bitmask", "brush", "polygon"]
KINDS: tuple[ConfigKind, ...] = get_args(ConfigKind)

_TAGS: dict[ConfigKind, str] = {"bitmask": "BitmaskLabels", "brush": "BrushLabels", "polygon": "PolygonLabels"}

_KEYS = "1234567890qasdfgtyzxcjlni"
"""Keys of classes; Label Studio 1.23 has the other letters for its tools (b, e, h, k, m, o, p, r, v, w) and to unselect
a region (u)."""

_GOLDEN = 0.61803

PRESETS: dict[str, tuple[tuple[str, str], ...]] = {
    "camvid": (
        ("Sky", "#7fb2e5"), ("Building", "#b5483a"), ("Pole", "#c9a227"), ("Road", "#7d4f8c"), ("Pavement", "#e58fb1"),
        ("Tree", "#3f8f4f"), ("SignSymbol", "#f28e2b"), ("Fence", "#8c6d4f"), ("Car", "#3d5fc4"),
        ("Pedestrian", "#d62728"), ("Bicyclist", "#17a2a2"),
    ),
    "cityscapes": (
        ("road", "#804080"), ("sidewalk", "#f423e8"), ("building", "#464646"), ("wall", "#66669c"),
        ("fence", "#be9999"), ("pole", "#999999"), ("traffic light", "#faaa1e"), ("traffic sign", "#dcdc00"),
        ("vegetation", "#6b8e23"), ("terrain", "#98fb98"), ("sky", "#4682b4"), ("person", "#dc143c"),
        ("rider", "#ff0000"), ("car", "#00008e"), ("truck", "#000046"), ("bus", "#003c64"), ("train", "#005064"),
        ("motorcycle", "#0000e6"), ("bicycle", "#770b20"),
    ),
    "voc": (
        ("background", "#000000"), ("aeroplane", "#800000"), ("bicycle", "#008000"), ("bird", "#808000"),
        ("boat", "#000080"), ("bottle", "#800080"), ("bus", "#008080"), ("car", "#808080"), ("cat", "#400000"),
        ("chair", "#c00000"), ("cow", "#408000"), ("diningtable", "#c08000"), ("dog", "#400080"), ("horse", "#c00080"),
        ("motorbike", "#408080"), ("person", "#c08080"), ("pottedplant", "#004000"), ("sheep", "#804000"),
        ("sofa", "#00c000"), ("train", "#80c000"), ("tvmonitor", "#004080"),
    ),
}  # fmt: skip
"""Classes with the colours that each data set's own tools give them; CamVid's eleven have none of their own."""

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The id that each class of Cityscapes has in its `labelIds` files; every other id there is not evaluated."""


def label_config(classes: Sequence[tuple[str, str]], kind: ConfigKind = "bitmask", smart: bool = False) -> str:
    """A labeling interface for images under `image` in the data of each task.

    Args:
        classes: names and colours in the order of their ids; a key is given to each as long as there are any.
        kind: `bitmask` opens twice as fast as `brush`; `polygon` keeps outlines alone.
        smart: with smart points and boxes beside the masks, for interactive preannotations.

    Raises:
        LabelConfigError: for no class, more than 255, or two of one name.
    """
    doubled = [name for name, count in Counter(name for name, _ in classes).items() if count > 1]
    if doubled or any(not name.strip() for name, _ in classes):
        raise LabelConfigError(f"every class needs a name of its own; {', '.join(doubled) or 'an empty one'} is none")
    keys = list(_KEYS)
    lines = [
        "<View>",
        '  <Image name="image" value="$image" zoom="true" zoomControl="true" brightnessControl="true" '
        'contrastControl="true"/>',
        *_control(_TAGS[kind], "label", classes, keys, smart=False),
    ]
    if smart:
        lines += _control("KeyPointLabels", "point", classes, keys, smart=True)
        lines += _control("RectangleLabels", "box", classes, keys, smart=True)
    text = "\n".join([*lines, "</View>", ""])
    parse_label_config(text)
    return text


def own_colours(names: Sequence[str]) -> list[tuple[str, str]]:
    """Classes with colours of their own: hues a golden section apart are never close to the last few."""
    found = []
    for index, name in enumerate(names):
        red, green, blue = colorsys.hsv_to_rgb(
            0.61803 * index % 1.0, 0.75 - 0.2 * (index % 3), 0.85 - 0.2 * (index % 2)
        )
        found.append((name, f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"))
    return found


def review_keys(names: Sequence[str]) -> list[str]:
    """A letter for each class on the review page: the first of its name that is free, else any; "" when none is left.

    `g`, `n` and `u` mean something else there.
    """
    free = dict.fromkeys("abcdefhijklmopqrstvwxyz")
    keys = []
    for name in names:
        key = next((letter for letter in [*name.lower(), *free] if letter in free), "")
        free.pop(key, None)
        keys.append(key)
    return keys


def _control(tag: str, name: str, classes: Sequence[tuple[str, str]], keys: list[str], smart: bool) -> list[str]:
    """A control with a label for each class; the keys it takes are gone for the next one."""
    lines = [f'  <{tag} name="{name}" toName="image"{" smart=" + quoteattr("true") if smart else ""}>']
    for value, colour in classes:
        key = f' hotkey="{keys.pop(0)}"' if keys else ""
        lines.append(f"    <Label value={quoteattr(value)} background={quoteattr(colour)}{key}/>")
    return [*lines, f"  </{tag}>"]
