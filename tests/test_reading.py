from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np

from a2lc_backend.masks import IGNORE, Region
from a2lc_backend.rounds.platform import Annotation
from a2lc_backend.rounds.reading import Reading, Shown, Verdict, edit_masks, read_annotation, verdicts
from a2lc_backend.store import Correction
from tests.conftest import grid_masks

CLASSES = ("Sky", "Road", "Car")
NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
MASKS = grid_masks(1, 4, labels=[0, 1, 2, 0])
SHOWN = Shown(MASKS, MASKS.first_labels, frozenset({"m1", "m2"}))


def region(number: int, label: str | None) -> Region:
    return Region(f"m{number}", label, MASKS.mask(number - 1))


AS_SHOWN = (region(1, "Sky"), region(2, "Road"), region(3, "Car"), region(4, "Sky"))


def read(*regions: Region, whole: bool = True, whole_image: bool = False, **more: object) -> Reading:
    annotation = Annotation(11, 7, 5, NOW, regions, whole=whole, **more)  # type: ignore[arg-type]
    return read_annotation(annotation, SHOWN, CLASSES, 3, lambda mask, _ring: mask, whole_image)


def decided(reading: Reading) -> dict[str, tuple[str, int]]:
    return {item.region_id: (item.kind, item.label) for item in reading.corrections}


def test_queued_regions_count_as_looked_at_and_the_rest_stay_pseudo_labels() -> None:
    reading = read(*AS_SHOWN)
    assert decided(reading) == {"m1": ("label", 0), "m2": ("label", 1)}
    assert not any(item.changes for item in reading.corrections)
    assert {(item.annotator, item.round, item.made_at) for item in reading.corrections} == {(5, 3, NOW)}


def test_a_changed_class_counts_whether_queued_or_not() -> None:
    reading = read(region(1, "Car"), region(2, "Road"), region(3, "Car"), region(4, "Road"))
    assert decided(reading) == {"m1": ("label", 2), "m2": ("label", 1), "m4": ("label", 1)}
    assert {item.region_id for item in reading.corrections if item.changes} == {"m1", "m4"}
    assert next(item.before for item in reading.corrections if item.region_id == "m4") == 0


def test_whole_images_count_whole_when_the_project_says_so() -> None:
    assert set(decided(read(*AS_SHOWN, whole_image=True))) == {"m1", "m2", "m3", "m4"}


def test_an_absent_region_was_deleted_only_in_the_labelling_page() -> None:
    assert decided(read(*AS_SHOWN[:3]))["m4"] == ("deleted", IGNORE)
    assert "m4" not in decided(read(*AS_SHOWN[:3], whole=False))
    assert "m4" not in decided(read(*AS_SHOWN[:3], unreadable=("m4",)))


def test_new_and_redrawn_regions_bring_their_pixels() -> None:
    drawn = np.zeros(MASKS.size, bool)
    drawn[2:6, 2:20] = True
    reading = read(*AS_SHOWN[:3], replace(AS_SHOWN[3], mask=drawn), Region("new", "Car", drawn))
    assert decided(reading)["m4"] == ("shape", 0)
    assert decided(reading)["new"] == ("new", 2)
    assert np.array_equal(reading.shapes["m4"], drawn)


def test_pixels_are_compared_with_what_was_shown() -> None:
    thin = Annotation(11, 7, 5, NOW, tuple(replace(item, mask=item.mask & False) for item in AS_SHOWN), whole=True)
    reading = read_annotation(thin, SHOWN, CLASSES, 3, lambda mask, _ring: mask & False)
    assert not reading.shapes


def test_an_empty_annotation_and_a_missing_label_are_named() -> None:
    assert "annotation 11 has no regions" in read().problems[0]
    assert read().corrections == ()
    reading = read(region(1, None), *AS_SHOWN[1:])
    assert "region m1 without a label" in reading.problems[0]
    assert "m1" not in decided(reading)


def said(annotator: int, label: int, minutes: int = 0, region_id: str = "m1", **more: object) -> Correction:
    made = NOW + timedelta(minutes=minutes)
    return Correction(10 + annotator, 7, region_id, "label", label, 0, annotator, made, 1, **more)  # type: ignore[arg-type]


def test_people_who_agree_settle_a_mask_and_people_who_do_not_leave_it_open() -> None:
    joined = verdicts([said(1, 2), said(2, 2), said(1, 0, region_id="m2"), said(2, 1, region_id="m2")])
    assert (joined[7, "m1"].label, joined[7, "m1"].disputed) == (2, False)
    assert joined[7, "m2"].disputed


def test_a_persons_later_word_replaces_the_earlier() -> None:
    joined = verdicts([said(1, 2), said(2, 1, minutes=1), said(1, 1, minutes=2)])
    assert (joined[7, "m1"].label, joined[7, "m1"].disputed) == (1, False)


def test_edits_move_pixels_and_keep_ids() -> None:
    drawn = np.zeros(MASKS.size, bool)
    drawn[:, 4:12] = True
    edited = edit_masks(
        MASKS,
        [
            ("m1", Verdict(0, "shape", 1, disputed=False, shape_key="drawn")),
            ("m3", Verdict(IGNORE, "deleted", 1, disputed=False, shape_key="")),
            ("new", Verdict(2, "new", 1, disputed=False, shape_key="corner")),
        ],
        {"drawn": drawn, "corner": np.arange(MASKS.mask_ids.size).reshape(MASKS.size) == 0},
    )
    assert edited.region_ids == ("m1", "m2", "m3", "m4", "new")
    assert np.array_equal(edited.mask(0), drawn)
    assert not edited.mask(2).any()
    assert edited.mask_ids[0, 0] == 5
    assert edited.first_labels[4] == IGNORE
    assert MASKS.mask(2).any(), "the proposal itself is not touched"
