"""Region JSON and label configs, to and from masks."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from a2lc_backend.masks import SAME, Region
from a2lc_backend.regions import (
    Kind,
    LabelConfig,
    LabelConfigError,
    OtherControlError,
    RegionError,
    UnknownClassError,
    decode_region,
    encode_region,
    parse_label_config,
    shown_mask,
)

quick = settings(max_examples=60, deadline=None)

TAGS: dict[str, Kind] = {
    "BrushLabels": "brushlabels",
    "BitmaskLabels": "bitmasklabels",
    "PolygonLabels": "polygonlabels",
}


def config_xml(tag: str, labels: str = '<Label value="car"/><Label value="tree"/>', extra: str = "") -> str:
    return (
        f'<View><Image name="image" value="$image"/><{tag} name="label" toName="image">{labels}</{tag}>{extra}</View>'
    )


CONFIGS = {kind: parse_label_config(config_xml(tag)) for tag, kind in TAGS.items()}
BRUSH, BITMASK, POLYGON = CONFIGS["brushlabels"], CONFIGS["bitmasklabels"], CONFIGS["polygonlabels"]

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


def roundtrip(region: Region, config: LabelConfig) -> Region:
    item = json.loads(json.dumps(encode_region(region, config)))
    return decode_region(item, config, region.mask.shape)


def disc(height: int = 30, width: int = 40, x: float = 18, y: float = 14, radius: float = 9) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2


def item_of(config: LabelConfig, **changes: Any) -> dict[str, Any]:
    item = encode_region(Region("r1", "car", disc()), config)
    for key, value in changes.items():
        if key in {"points", "rle", "imageDataURL", config.kind}:
            item["value"][key] = value
        else:
            item[key] = value
    return item


@pytest.mark.parametrize(("tag", "kind"), TAGS.items())
def test_config_of_each_control(tag: str, kind: Kind) -> None:
    config = parse_label_config(config_xml(tag))
    assert (config.from_name, config.to_name, config.image_key, config.kind) == ("label", "image", "image", kind)
    assert config.classes == ("car", "tree")


def test_config_keeps_the_attributes_of_labels() -> None:
    labels = (
        '<Label value="Personal car" alias="car" background="#f00" hotkey="q" hint="not a bus"'
        ' prompt="car, van; taxi"/><Label value="tree"/>'
    )
    car, tree = parse_label_config(config_xml("BrushLabels", labels)).labels
    assert (car.name, car.text, car.background, car.hotkey, car.hint) == (
        "car",
        "Personal car",
        "#f00",
        "q",
        "not a bus",
    )
    assert car.prompts == ("car", "van", "taxi")
    assert (tree.name, tree.background, tree.hotkey, tree.hint, tree.prompts) == ("tree", None, None, "", ("tree",))


def test_config_with_smart_tools_choices_and_declaration() -> None:
    extra = (
        '<RectangleLabels name="box" toName="image" smart="true"><Label value="car"/></RectangleLabels>'
        '<KeyPointLabels name="point" toName="image" smart="true"><Label value="car"/></KeyPointLabels>'
        '<Choices name="quality" toName="image"><Choice value="blurred"/></Choices><!-- a comment -->'
    )
    xml = '<?xml version="1.0" encoding="utf-8"?>' + config_xml("BrushLabels", extra=extra)
    assert parse_label_config(xml).from_name == "label"


def test_first_of_two_controls_with_the_same_labels() -> None:
    extra = '<PolygonLabels name="second" toName="image"><Label value="tree"/><Label value="car"/></PolygonLabels>'
    assert parse_label_config(config_xml("BrushLabels", extra=extra)).from_name == "label"


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("<View>", ["not XML"]),
        ("", ["not XML"]),
        ("\ud800", ["not XML"]),
        ('<!DOCTYPE v [<!ENTITY a "b">]><View/>', ["document type", "remove"]),
        ("<View/>", ["BrushLabels", "BitmaskLabels", "PolygonLabels", "toName"]),
        ('<View><Image name="image" value="$image"/><Brush name="b" toName="image"/></View>', ["BrushLabels"]),
        (config_xml("BrushLabels").replace('toName="image"', 'toName="picture"'), ["'picture'", "<Image>"]),
        (config_xml("BrushLabels").replace('toName="image"', ""), ["toName"]),
        (config_xml("BrushLabels").replace('name="label" ', ""), ["no name"]),
        (config_xml("BrushLabels").replace('value="$image"', 'valueList="$images"'), ["one key", "$image"]),
        (config_xml("BrushLabels").replace("$image", "image"), ["one key"]),
        (config_xml("BrushLabels", ""), ["no labels", "<Label"]),
        (config_xml("BrushLabels", '<Label background="red"/>'), ["without value"]),
        (config_xml("BrushLabels", '<Label value="a"/><Label value="b" alias="a"/>'), ["two labels", "'a'"]),
        (config_xml("BrushLabels", "".join(f'<Label value="c{i}"/>' for i in range(256))), ["256", "255"]),
        (
            config_xml(
                "BrushLabels", extra='<PolygonLabels name="other" toName="image"><Label value="sky"/></PolygonLabels>'
            ),
            ["'label'", "'other'", "remove"],
        ),
    ],
)
def test_config_errors(xml: str, words: list[str]) -> None:
    with pytest.raises(LabelConfigError) as caught:
        parse_label_config(xml)
    assert [word for word in words if word not in str(caught.value)] == []


def test_255_classes_are_enough() -> None:
    xml = config_xml("BrushLabels", "".join(f'<Label value="c{i}"/>' for i in range(255)))
    assert len(parse_label_config(xml).classes) == 255


@quick
@given(masks, st.sampled_from([BRUSH, BITMASK]))
def test_brush_and_bitmask_keep_every_pixel(mask: np.ndarray, config: LabelConfig) -> None:
    np.testing.assert_array_equal(roundtrip(Region("r", "car", mask), config).mask, mask)
    assert shown_mask(mask, None, config) is mask


@pytest.mark.parametrize("config", [BRUSH, BITMASK])
@pytest.mark.parametrize("shape", [(1, 1), (300, 400), (1, 70000)])
@pytest.mark.parametrize("full", [False, True])
def test_empty_and_full_masks(config: LabelConfig, shape: tuple[int, int], full: bool) -> None:
    mask = np.full(shape, full)
    np.testing.assert_array_equal(roundtrip(Region("r", "car", mask), config).mask, mask)


@quick
@given(st.integers(3, 60), st.integers(3, 60), st.floats(0, 60), st.floats(0, 60), st.floats(3, 25))
def test_polygon_of_a_convex_blob(height: int, width: int, x: float, y: float, radius: float) -> None:
    mask = disc(height, width, x % width, y % height, radius)
    region = roundtrip(Region("r", "car", mask), POLYGON)
    assert (region.mask & mask).sum() >= 0.9 * (region.mask | mask).sum()
    np.testing.assert_array_equal(region.mask, shown_mask(mask, None, POLYGON))
    np.testing.assert_array_equal(region.mask, shown_mask(region.mask, region.ring, POLYGON))


@quick
@given(masks)
def test_polygon_of_any_mask_shows_its_largest_part(mask: np.ndarray) -> None:
    if not mask.any():
        with pytest.raises(RegionError, match="leave it out"):
            encode_region(Region("r", "car", mask), POLYGON)
        assert not shown_mask(mask, None, POLYGON).any()
        return
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    part = (parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
    cv2.drawContours(part, cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], -1, 1, cv2.FILLED)
    shown = shown_mask(mask, None, POLYGON)
    np.testing.assert_array_equal(roundtrip(Region("r", "car", mask), POLYGON).mask, shown)
    assert (shown & (part > 0)).sum() >= 0.9 * (shown | (part > 0)).sum()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 2), (20, 1), (30, 40)])
def test_polygon_of_a_rectangle_is_exact(height: int, width: int) -> None:
    mask = np.zeros((33, 47), np.bool_)
    mask[3 : 3 + height, 5 : 5 + width] = True
    region = roundtrip(Region("r", "car", mask), POLYGON)
    np.testing.assert_array_equal(region.mask, mask)
    assert region.ring is not None
    assert {(round(x, 9), round(y, 9)) for x, y in region.ring} == {
        (x, y) for x in (5, 5 + width) for y in (3, 3 + height)
    }


@quick
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(3, 12), st.just(2)), elements=st.floats(-5, 60)),
    st.integers(8, 50),
    st.integers(8, 50),
)
def test_ring_marks_the_pixels_whose_centre_it_encloses(ring: np.ndarray, height: int, width: int) -> None:
    region = Region("r", "car", np.zeros((height, width), np.bool_), ring=ring)
    item = encode_region(region, POLYGON)
    np.testing.assert_allclose(item["value"]["points"], ring / (width, height) * 100)
    decoded = decode_region(item, POLYGON, (height, width))
    np.testing.assert_allclose(decoded.ring, ring, atol=1e-9)
    # The angle a ring sweeps around a point is 2 pi times its winding number.
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)[:, :, None]
    arms = ring - centres
    x, y = arms[..., 0], arms[..., 1]
    next_x, next_y = np.roll(x, -1, axis=2), np.roll(y, -1, axis=2)
    cross, dot = x * next_y - y * next_x, x * next_x + y * next_y
    winding = np.arctan2(cross, dot).sum(-1) / (2 * np.pi)
    lengths = np.hypot(next_x - x, next_y - y)
    along = np.clip(-(x * (next_x - x) + y * (next_y - y)) / np.maximum(lengths**2, 1e-12), 0, 1)
    distance = np.hypot(x + along * (next_x - x), y + along * (next_y - y)).min(-1)
    clear = distance > 1e-4
    np.testing.assert_array_equal(decoded.mask[clear], (np.abs(winding) > 0.5)[clear])


def test_rounding_of_a_ring_changes_no_pixel() -> None:
    # The diagonals run through pixel centres.
    ring = np.array([[0, 10], [10, 0], [20, 10], [10, 20]], np.float64)
    before = shown_mask(np.zeros((30, 37), np.bool_), ring, POLYGON)
    for shift in (-1e-9, 1e-9):
        np.testing.assert_array_equal(shown_mask(np.zeros((30, 37), np.bool_), ring + shift, POLYGON), before)


@pytest.mark.parametrize("config", CONFIGS.values())
def test_item_is_what_label_studio_takes(config: LabelConfig) -> None:
    from label_studio_sdk.label_interface import LabelInterface

    tag = next(tag for tag, kind in TAGS.items() if kind == config.kind)
    region = Region("r1", "car", disc(), score=0.25, source="corrector", round=3, rank=1, note="was tree")
    item = encode_region(region, config)
    assert item["meta"] == {"text": ["was tree"], "a2lc": {"source": "corrector", "round": 3, "rank": 1}}
    assert (item["original_width"], item["original_height"], item["image_rotation"]) == (40, 30, 0)
    assert (item["id"], item["origin"], item["score"]) == ("r1", "prediction", 0.25)
    prediction = {"model_version": "v", "score": 0.5, "result": [item]}
    assert LabelInterface(config_xml(tag)).validate_prediction(prediction, return_errors=True) == []


@pytest.mark.parametrize("config", CONFIGS.values())
@pytest.mark.parametrize(
    "region",
    [
        Region("r1", None, disc()),
        Region("r2", "tree", disc(), score=0.25, source="corrector", round=3, rank=1, note="was tree\nsince round 2"),
        Region("r3", "car", disc(), score=1, source="human", note="ψ"),
    ],
)
def test_everything_but_the_shape_comes_back(config: LabelConfig, region: Region) -> None:
    back = roundtrip(region, config)
    for name in ("id", "label", "score", "source", "round", "rank", "note"):
        assert getattr(back, name) == getattr(region, name), name
    assert (back.ring is None) == (config.kind != "polygonlabels")


@pytest.mark.parametrize("config", CONFIGS.values())
@pytest.mark.parametrize(
    ("region", "written", "read"),
    [
        (Region("r1", "car", disc()), {}, SAME),
        (Region("r1", "car", disc(), first="car"), {}, SAME),
        (Region("r1", "car", disc(), first="tree"), {"first": "tree"}, "tree"),
        (Region("r1", "car", disc(), first=None), {"first": None}, None),
        (Region("r1", None, disc(), first=None), {}, SAME),
        (Region("r1", None, disc(), first="car"), {"first": "car"}, "car"),
    ],
)
def test_the_first_label_is_written_where_it_is_another(
    config: LabelConfig, region: Region, written: Mapping[str, object], read: str | None
) -> None:
    meta = encode_region(region, config)["meta"]["a2lc"]
    assert {key: value for key, value in meta.items() if key == "first"} == written
    assert roundtrip(region, config).first == read


def test_a_class_that_the_config_has_lost_is_no_first_label_and_no_proposal() -> None:
    item = item_of(BRUSH, meta={"a2lc": {"source": "human", "round": 1, "rank": None, "first": "hat", "proposal": []}})
    region = decode_region(item, BRUSH, (30, 40))
    assert (region.first, region.proposal) == (SAME, None)
    assert roundtrip(Region("r1", "car", disc(), proposal="tree"), BRUSH).proposal == "tree"


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        (None, ("imported", None, None, "")),
        ("text", ("imported", None, None, "")),
        ({"text": "one"}, ("imported", None, None, "one")),
        ({"text": ["one", "two", 3]}, ("imported", None, None, "one\ntwo")),
        ({"text": {"a": 1}, "a2lc": []}, ("imported", None, None, "")),
        ({"a2lc": {"source": "human", "round": 0, "rank": None}}, ("human", 0, None, "")),
        ({"a2lc": {"source": "human", "round": "2", "rank": 1}}, ("imported", None, None, "")),
        ({"a2lc": {"source": "human", "round": -2, "rank": 1}}, ("imported", None, None, "")),
        ({"a2lc": {"source": ["human"], "round": 2, "rank": 1}}, ("imported", None, None, "")),
    ],
)
def test_meta(meta: object, expected: tuple[object, ...]) -> None:
    region = decode_region(item_of(BRUSH, meta=meta), BRUSH, (30, 40))
    assert (region.source, region.round, region.rank, region.note) == expected


@pytest.mark.parametrize("score", ["high", None, float("nan"), 7, -1, [1]])
def test_a_score_that_is_no_probability_is_left_out(score: object) -> None:
    assert decode_region(item_of(BRUSH, score=score), BRUSH, (30, 40)).score is None


@pytest.mark.parametrize("config", CONFIGS.values())
def test_a_region_without_labels(config: LabelConfig) -> None:
    item = item_of(config)
    del item["value"][config.kind]
    assert decode_region(item, config, (30, 40)).label is None


# --- errors


RLE = item_of(BRUSH)["value"]["rle"]
PNG_START = base64.b64decode(item_of(BITMASK)["value"]["imageDataURL"].partition(",")[2])[:33]
BAD_ITEMS: list[tuple[LabelConfig, dict[str, Any], str]] = [
    (BRUSH, {"id": None}, "text as id"),
    (BRUSH, {"id": ""}, "text as id"),
    (BRUSH, {"id": 7}, "text as id"),
    (BRUSH, {"value": None}, "no value"),
    (BRUSH, {"original_width": 41}, "another image size"),
    (BRUSH, {"original_height": None}, "another image size"),
    (BRUSH, {"image_rotation": 90}, "turned by 90"),
    (BRUSH, {"image_rotation": [90]}, "turned by"),
    (BRUSH, {"brushlabels": ["car", "tree"]}, "one label"),
    (BRUSH, {"brushlabels": "car"}, "one label"),
    (BRUSH, {"brushlabels": [1]}, "one label"),
    (BRUSH, {"rle": None}, "no list"),
    (BRUSH, {"rle": RLE[:-2]}, "cut short"),
    (BITMASK, {"imageDataURL": None}, "that can be read"),
    (POLYGON, {"points": None}, "three or more"),
    (POLYGON, {"points": [[0, 0], [50, 50]]}, "three or more"),
    (POLYGON, {"points": [[0, 0], [50, 50], [10]]}, "three or more"),
    (POLYGON, {"points": [[0, 0], [50, 50], [10, float("nan")]]}, "three or more"),
    (POLYGON, {"points": [[0, 0], [50, 50], [10, float("inf")]]}, "three or more"),
    (POLYGON, {"points": [[0, 0], [50, 50], [10, 10**400]]}, "three or more"),
    (POLYGON, {"points": [[0, 0], [50, 50], ["a", "b"]]}, "three or more"),
    (POLYGON, {"points": [[0, 0], [100, 100]] * 200_000}, "longer than any"),
]


@pytest.mark.parametrize(("config", "changes", "words"), BAD_ITEMS)
def test_region_errors(config: LabelConfig, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RegionError) as caught:
        decode_region(item_of(config, **changes), config, (30, 40))
    assert words in str(caught.value)
    assert not isinstance(caught.value, UnknownClassError | OtherControlError)
    if "id" not in changes:
        assert "region 'r1':" in str(caught.value)


def test_unknown_class() -> None:
    with pytest.raises(UnknownClassError, match=r"region 'r1': .*'boat'"):
        decode_region(item_of(BRUSH, brushlabels=["boat"]), BRUSH, (30, 40))
    with pytest.raises(UnknownClassError, match=r"region 'r1': .*'boat'"):
        encode_region(Region("r1", "boat", disc()), BRUSH)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "choices", "value": {"choices": ["blurred"]}},
        {"type": "rectanglelabels"},
        {"type": "relation"},
        {"type": None},
        {"from_name": "other"},
        {"to_name": "other"},
    ],
)
def test_items_of_other_controls(changes: dict[str, Any]) -> None:
    with pytest.raises(OtherControlError, match="'r1'"):
        decode_region(item_of(BRUSH, **changes), BRUSH, (30, 40))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)
byte_lists = st.lists(st.integers(0, 255), max_size=60)


@settings(quick, max_examples=120)
@given(st.data(), st.sampled_from(list(CONFIGS.values())))
def test_garbage_raises_only_region_errors(data: st.DataObject, config: LabelConfig) -> None:
    shape_key = {"brushlabels": "rle", "bitmasklabels": "imageDataURL", "polygonlabels": "points"}[config.kind]
    item = item_of(config)
    values = {
        "rle": byte_lists | byte_lists.map(lambda rest: RLE[:7] + rest),
        "imageDataURL": st.binary(max_size=80).map(
            lambda rest: "data:image/png;base64," + base64.b64encode(PNG_START + rest).decode()
        ),
        "points": st.lists(st.lists(st.floats(), min_size=2, max_size=2), max_size=8),
    }
    for key in data.draw(st.sets(st.sampled_from([*item, config.kind, shape_key]), min_size=1, max_size=3)):
        garbage = data.draw(json_values | values[key] if key in values else json_values)
        target = item["value"] if key in {shape_key, config.kind} else item
        if isinstance(target, dict):
            target[key] = garbage
    try:
        region = decode_region(item, config, (30, 40))
    except RegionError:
        return
    assert region.mask.shape == (30, 40)


@quick
@given(json_values)
def test_any_json_raises_only_region_errors(item: Mapping[str, Any]) -> None:
    with pytest.raises(RegionError):
        decode_region(item, BRUSH, (30, 40))
