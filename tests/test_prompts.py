"""What smart tools of Label Studio send, as prompts in pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from a2lc_backend.images import encode_mask_rle
from a2lc_backend.prompts import PromptError, parse_prompts

SIZE = (40, 80)


def item(kind: str, value: dict[str, Any], label: str = "car", **more: Any) -> dict[str, Any]:
    return {
        "original_width": 80, "original_height": 40, "type": kind, "from_name": "smart", "to_name": "image",
        "value": value | {kind: [label]}, **more,
    }  # fmt: skip


def point(x: float, y: float, positive: bool = True) -> dict[str, Any]:
    return item("keypointlabels", {"x": x, "y": y, "width": 0.3}, is_positive=positive)


def test_points_are_measured_from_the_centre_of_the_first_pixel() -> None:
    prompts, label = parse_prompts([point(50, 25), point(0, 100, positive=False)], SIZE)
    assert prompts.points.tolist() == [[39.5, 9.5], [0.0, 39.0]]
    assert prompts.positive.tolist() == [True, False]
    assert (prompts.box, prompts.mask, label) == (None, None, "car")


def test_a_rectangle_is_a_box_and_one_that_is_not_meant_a_point() -> None:
    boxes = [
        item("rectanglelabels", {"x": 10, "y": 20, "width": 30, "height": 50, "rotation": 0}),
        item("rectanglelabels", {"x": 0, "y": 0, "width": 10, "height": 10}, is_positive=False),
    ]
    prompts, _ = parse_prompts(boxes, SIZE)
    assert prompts.box is not None
    assert prompts.box.tolist() == [7.5, 7.5, 31.5, 27.5]
    assert prompts.points.tolist() == [[3.5, 1.5]]
    assert prompts.positive.tolist() == [False]


def test_a_stroke_is_a_rough_mask_with_points_on_it() -> None:
    stroke = np.zeros(SIZE, bool)
    stroke[10:14, 5:60] = True
    prompts, label = parse_prompts([item("brushlabels", {"format": "rle", "rle": encode_mask_rle(stroke)})], SIZE)
    assert prompts.mask is not None
    assert np.array_equal(prompts.mask, stroke)
    columns, rows = prompts.points.astype(int).T
    assert stroke[rows, columns].all()
    assert columns.max() - columns.min() > 30, "they are spread over it"
    assert prompts.positive.all()
    assert label == "car"
    erased, _ = parse_prompts(
        [point(5, 5), item("brushlabels", {"rle": encode_mask_rle(stroke)}, is_positive=False)], SIZE
    )
    assert erased.mask is None
    assert erased.positive.tolist() == [True] + [False] * (len(erased.points) - 1)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "nothing says where"),
        ([point(5, 5, positive=False)], "nothing says where"),
        ([5], "has no value"),
        ([point(5, 5) | {"original_width": 81}], "81 x 40 pixels, the image has 80 x 40"),
        ([item("keypointlabels", {"x": "a", "y": 5})], "its x is a"),
        ([item("keypointlabels", {"x": float("nan"), "y": 5})], "its x is nan"),
        ([item("ellipselabels", {"x": 1, "y": 5})], "ellipselabels is no prompt"),
        ([item("rectanglelabels", {"x": 1, "y": 5, "width": 3, "height": 4, "rotation": 30})], "upright"),
        ([item("brushlabels", {"rle": [1, 2]})], "cannot be read"),
        ([item("brushlabels", {"rle": encode_mask_rle(np.zeros(SIZE, bool))})], "is empty"),
        ([point(5, 5) | {"image_rotation": 90}], "turned"),
    ],
)
def test_what_cannot_be_used_is_said(items: list[Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        parse_prompts(items, SIZE)
