"""The reference page of labeling interfaces: what is read in them, by asking the code that reads them."""

from __future__ import annotations

from pathlib import Path

from a2lc_backend.label_configs import KINDS, PRESETS, label_config, own_colours
from a2lc_backend.regions import LabelConfigError, parse_label_config

_FOLDER = Path(__file__).parents[1] / "label_studio_config"
_IMAGE = '<Image name="image" value="$image"/>'

_READ = (
    ("`value`", "name of the class, unless there is an `alias`; what people see"),
    ("`alias`", "name of the class in results, and so here"),
    ("`background`", "its colour, on the pages and in exports that have colours"),
    ("`hotkey`", "Label Studio's key for it; the review page gives letters of its own"),
    ("`prompt`", "what `grounded-sam` and `sam2` look for, several phrases parted by commas"),
    ("`hint`", "what Label Studio shows beside the mouse; looked for where there is no `prompt`"),
)


def _control(tag: str, name: str, *classes: str) -> str:
    return f'<{tag} name="{name}" toName="image">' + "".join(f'<Label value="{one}"/>' for one in classes) + f"</{tag}>"


_CAR = _control("BrushLabels", "a", "Car")
_POINTS = _control("KeyPointLabels", "k", "Car")
_CHOICES = '<Choices name="c" toName="image"><Choice value="night"/></Choices>'

_CHECKED: tuple[tuple[str, str], ...] = (
    ("masks of one kind", _IMAGE + _control("BitmaskLabels", "l", "Car")),
    ("other controls beside it, such as choices and keypoints", _IMAGE + _CAR + _CHOICES + _POINTS),
    ("a second segmentation control with the same classes", _IMAGE + _CAR + _control("PolygonLabels", "b", "Car")),
    ("a second segmentation control with other classes", _IMAGE + _CAR + _control("PolygonLabels", "b", "Tree")),
    ("no segmentation control", _IMAGE + _control("RectangleLabels", "l", "Car")),
    ("a control whose image is missing", _CAR),
    ("an image that is no key of the task's data", '<Image name="image" value="https://example.com/$image"/>' + _CAR),
    ("a control without labels", _IMAGE + _control("BrushLabels", "l")),
    ("two labels of one name", _IMAGE + _control("BrushLabels", "l", "Car", "Car")),
    ("256 labels", _IMAGE + _control("BrushLabels", "l", *map(str, range(256)))),
    ("a document type", "<!DOCTYPE View>"),
    ("what is not XML", "<Image"),
)  # fmt: skip
"""What a labeling interface may be, with an example that is given to the program."""


def label_config_page() -> str:
    """What a labeling interface may hold, what is read in it, and what is refused with which words."""
    verdicts = [f"| {what} | {_verdict(xml)} |" for what, xml in _CHECKED]
    files = [f"| [`{path.name}`](../../label_studio_config/{path.name}) | {_held(path)} |" for path in _files()]
    return "\n".join([
        "# Labeling interface",
        "",
        "A project needs one control whose regions are masks: `<BitmaskLabels>`, `<BrushLabels>` or `<PolygonLabels>`. "
        "The classes are its labels, in their order: the first has the id 0. `a2lc label-config` prints such an "
        "interface; paste it into Settings > Labeling Interface > Code.",
        "",
        "```sh",
        "a2lc label-config --classes Road,Car,Tree",
        "a2lc label-config --preset cityscapes --kind brush",
        "```",
        "",
        f"Presets are {', '.join(PRESETS)}; kinds are {', '.join(KINDS)}. The first command prints:",
        "",
        "```xml",
        label_config(own_colours(["Road", "Car", "Tree"])).rstrip(),
        "```",
        "",
        "## What is read of a label",
        "",
        "| attribute | what it is |",
        "| --- | --- |",
        *(f"| {name} | {what} |" for name, what in _READ),
        "",
        "With `smart=\"true\"` on `<KeyPointLabels>`, `<RectangleLabels>` or `<BrushLabels>`, clicks are answered: see "
        "[foundation models](../how-to/foundation-models.md).",
        "",
        "## What is taken, and what is refused",
        "",
        "| in the interface | what the program says |",
        "| --- | --- |",
        *verdicts,
        "",
        "Classes may be added at the end once round 0 has begun; a round refuses to run when they are moved or taken "
        "away.",
        "",
        "## The files in `label_studio_config/`",
        "",
        "| file | what it holds |",
        "| --- | --- |",
        *files,
        "",
    ])  # fmt: skip


def _verdict(xml: str) -> str:
    try:
        found = parse_label_config(f"<View>{xml}</View>")
    except LabelConfigError as error:
        return f"refused: {str(error).replace('|', chr(92) + '|').replace('<', '&lt;')}"
    return f"taken: `{found.kind}`, {len(found.classes)} class" + ("es" if len(found.classes) > 1 else "")


def _files() -> list[Path]:
    return sorted(_FOLDER.glob("*.xml"))


def _held(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    found = parse_label_config(text)
    names = ", ".join(found.classes)
    return f"`{found.kind}`{', smart tools' if 'smart=' in text else ''}: {names}"
