"""Labels out: what is exported, in every format, read back by the tools that people read it with."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from typer.testing import CliRunner

from a2lc_backend import load_labels
from a2lc_backend.bench.cityscapes import load_cityscapes
from a2lc_backend.bench.voc import load_voc
from a2lc_backend.cli import app
from a2lc_backend.export import ExportError, Filters, ImageLabels, LabelSet, export_labels
from a2lc_backend.export.coco import segment_colours
from a2lc_backend.export.folder import checksums, whole_folder
from a2lc_backend.export.names import file_names
from a2lc_backend.export.pictures import png
from a2lc_backend.label_studio import LabelStudioProject
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.report import NotThereError
from a2lc_backend.store import Artifacts, Audit, Correction, Ledger, Query, SeenAnnotation, Undone
from tests.conftest import REPOSITORY
from tests.stored import CAR, CLASSES, HUMAN, PROJECT, ROAD, SKY, StoredProject

NOON = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)


def no_platform() -> LabelStudioProject:
    raise AssertionError("Label Studio was asked")


def answer(ledger: Ledger, annotation: int, task_id: int, said: dict[str, int], number: int = 1) -> None:
    items = [
        Correction(annotation, task_id, name, "label", label, SKY, 7, NOON, number) for name, label in said.items()
    ]
    ledger.save_annotation(PROJECT, SeenAnnotation(annotation, task_id, NOON.isoformat()), items)


def photograph(_task_id: int, address: str) -> bytes:
    """16 × 16 pixels, as the masks of a stored project are."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 120, 200)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """One on SQLite: what differs on other databases is tested in `test_store`."""
    with contextlib.closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as opened:
        yield opened


@pytest.fixture
def project(ledger: Ledger, artifacts: Artifacts) -> StoredProject:
    """Three images of four masks, all Sky at first. A person called m1 of task 1 Road and kept m2, and called m1 of
    task 2 Road; the corrector then made m2 and m3 of task 2 Car. A random audit had drawn m2 of task 1, and round 1
    draws m2 of task 2 to state how right it is: a person finds it Car in round 2, where m4 of task 2 is disputed."""
    made = StoredProject(ledger, artifacts, images=3)
    made.finish_round(0, made.labels())
    ledger.save_queries(PROJECT, 0, [Query(0, 1, 1, "m1", SKY), Query(0, 2, 1, "m2", SKY), Query(0, 3, 2, "m1", SKY)])
    ledger.save_audits(PROJECT, 0, [Audit(0, 1, "m2", "random", -1, SKY, SKY)])
    answer(ledger, 11, 1, {"m1": ROAD, "m2": SKY})
    answer(ledger, 12, 2, {"m1": ROAD})
    labels = made.labels()
    people = [made.place(1, 1), made.place(1, 2), made.place(2, 1)]
    labels.labels[people], labels.sources[people] = [ROAD, SKY, ROAD], HUMAN
    labels.confidence[people] = 1.0
    first = made.apply(labels, [made.place(2, 2), made.place(2, 3)], CAR, 1)
    made.finish_round(1, first)
    ledger.save_queries(PROJECT, 1, [Query(1, 1, 2, "m2", CAR), Query(1, 2, 2, "m4", SKY)])
    ledger.save_audits(PROJECT, 1, [Audit(1, 2, "m2", "stating", -1, SKY, CAR)])
    answer(ledger, 13, 2, {"m2": CAR, "m4": ROAD}, number=2)
    dispute = Correction(14, 2, "m4", "label", SKY, SKY, 8, NOON, 2)
    ledger.save_annotation(PROJECT, SeenAnnotation(14, 2, NOON.isoformat()), [dispute])
    labels.labels[made.place(2, 2)], labels.sources[made.place(2, 2)] = CAR, HUMAN
    made.finish_round(2, made.apply(labels, [made.place(2, 3)], CAR, 2), {"tasks": 3})
    ledger.save_auto_corrections(PROJECT, 2, [])
    return made


def open_set(project: StoredProject, artifacts: Artifacts, number: int | None = None, **filters: Any) -> LabelSet:
    return LabelSet(project.ledger, artifacts, PROJECT, number, Filters(**filters), photograph)


def held(labels: LabelSet) -> dict[str, tuple[str | None, str, int]]:
    """Label, source and round of every region, by task and mask."""
    return {
        f"{image.task_id}/{region.id}": (region.label, region.source, region.round)
        for image in labels
        for region in image.regions
    }


def test_people_stand_over_the_corrector_over_first_labels(project: StoredProject, artifacts: Artifacts) -> None:
    labels = open_set(project, artifacts)
    assert (len(labels), labels.round.number, labels.classes) == (3, 2, CLASSES)
    found = held(labels)
    assert len(found) == 12
    assert {key: one for key, one in found.items() if one[1] != "foundation"} == {
        "1/m1": ("Road", "human", 1), "1/m2": ("Sky", "human", 1), "2/m1": ("Road", "human", 1),
        "2/m2": ("Car", "human", 2), "2/m3": ("Car", "corrector", 1),
    }  # fmt: skip
    image = labels[1]
    assert image.label_map.tolist() == np.array([[ROAD, CAR], [CAR, SKY]]).repeat(8, 0).repeat(8, 1).tolist()
    assert [(voice.annotator, voice.label, voice.round) for voice in image.regions[3].answers] == [
        (7, "Road", 2), (8, "Sky", 2),
    ]  # fmt: skip
    assert image.regions[1].first == "Sky"
    assert image.pixels().shape == (16, 16, 3)


def test_labels_as_of_a_round(project: StoredProject, artifacts: Artifacts) -> None:
    found = held(open_set(project, artifacts, 1))
    assert found["2/m2"] == ("Car", "corrector", 1)
    assert {one[1] for one in held(open_set(project, artifacts, 0)).values()} == {"foundation"}
    assert [region.answers for region in open_set(project, artifacts, 1)[1].regions[3:]] == [()]
    with pytest.raises(NotThereError, match="round 7"):
        open_set(project, artifacts, 7)


def test_what_was_taken_back_is_not_exported(project: StoredProject, artifacts: Artifacts) -> None:
    before = open_set(project, artifacts).state
    project.ledger.undo(PROJECT, [Undone(1, 2, "m3", SKY, CAR, "foundation")], 2, "a2lc-r2-undone00")
    with pytest.raises(NotThereError, match="round 2 of project 3 is running; wait"):
        open_set(project, artifacts)
    project.ledger.change_status(PROJECT, 2, ["running"], "done")
    labels = open_set(project, artifacts)
    assert held(labels)["2/m3"] == ("Sky", "foundation", 0)
    assert labels.round.version == "a2lc-r2-undone00"
    assert labels.state != before


def test_filters(project: StoredProject, artifacts: Artifacts) -> None:
    def names(**filters: Any) -> list[str]:
        return sorted(held(open_set(project, artifacts, **filters)))

    assert names(sources=("human",)) == ["1/m1", "1/m2", "2/m1", "2/m2"]
    assert names(classes=("Car",)) == ["2/m2", "2/m3"]
    assert names(sources=("corrector",), classes=("Car",)) == ["2/m3"]
    assert names(audited=True) == ["1/m2", "2/m2"]
    # Task 1 was answered in full; of task 2 people disagree about m4; task 3 nobody has seen.
    assert {name[0] for name in names(finished=True)} == {"1"}
    filtered = open_set(project, artifacts, sources=("corrector",))
    assert [image.task_id for image in filtered] == [2]
    assert set(np.unique(filtered[0].label_map)) == {CAR, IGNORE}
    assert filtered[0].regions[0].number == 3
    with pytest.raises(NotThereError, match="no class 'Boat'; choose from Sky, Road, Car"):
        names(classes=("Boat",))
    with pytest.raises(ValueError, match="precision"):
        names(precision=1.5)


def test_a_precision_is_one_that_audits_assure(project: StoredProject, artifacts: Artifacts) -> None:
    labels = open_set(project, artifacts)
    assert [(one.automatic, one.class_id, one.audited, one.right) for one in labels.measured] == [
        (False, SKY, 1, 1), (True, CAR, 1, 1),
    ]  # fmt: skip
    assert [one.least_right for one in labels.measured] == [pytest.approx(0.05)] * 2  # 1 of 1 assures 0.05
    assert len(held(open_set(project, artifacts, precision=0.04))) == 12
    assert {one[1] for one in held(open_set(project, artifacts, precision=0.06)).values()} == {"human"}
    # In round 1 nobody had yet answered the audit of the corrector's labels.
    early = held(open_set(project, artifacts, 1, precision=0.04))
    assert {one[1] for one in early.values()} == {"human", "foundation"}


def write(labels: LabelSet, name: str, folder: Path, **how: Any) -> dict[str, Any]:
    assert export_labels(labels, name, folder, no_platform, **how)
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"] == checksums(folder)
    assert not [path for path in folder.parent.iterdir() if path.name.endswith(".unfinished")]
    return manifest


def ids(path: Path) -> NDArray[np.int64]:
    with Image.open(path) as image:
        return np.array(image).astype(np.int64)


OFFLINE = ("png", "coco-panoptic", "coco-instances", "cityscapes", "voc", "parquet")


@pytest.mark.parametrize("name", OFFLINE)
def test_the_same_round_exports_the_same_bytes(
    name: str, project: StoredProject, artifacts: Artifacts, tmp_path: Path
) -> None:
    manifests = [write(open_set(project, artifacts), name, tmp_path / folder) for folder in ("a", "b")]
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()
    assert manifests[0]["files"] == manifests[1]["files"]
    assert (manifests[0]["round"], manifests[0]["model_version"]) == (2, "a2lc-r2-00000002")
    assert manifests[0]["regions_by_class"] == {
        "Sky": {"foundation": 7, "human": 1}, "Road": {"human": 2}, "Car": {"corrector": 1, "human": 1}, "none": {},
    }  # fmt: skip
    # Once more into the same folder there is nothing to do; another round, or a changed file, is refused.
    assert not export_labels(open_set(project, artifacts), name, tmp_path / "a", no_platform)
    with pytest.raises(ExportError, match=f"another export .round 2 as {name}.; delete it"):
        export_labels(open_set(project, artifacts, 1), name, tmp_path / "a", no_platform)
    next(
        path for path in sorted((tmp_path / "a").rglob("*")) if path.is_file() and "manifest" not in path.name
    ).unlink()
    with pytest.raises(ExportError, match="were changed"):
        export_labels(open_set(project, artifacts), name, tmp_path / "a", no_platform)


def test_label_pngs(project: StoredProject, artifacts: Artifacts, tmp_path: Path) -> None:
    labels = open_set(project, artifacts)
    write(labels, "png", tmp_path / "out", with_images=True)
    lines = [json.loads(line) for line in (tmp_path / "out/regions.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["1", "2", "3"]
    for image, line in zip(labels, lines, strict=True):
        assert np.array_equal(ids(tmp_path / f"out/labels/{image.name}.png"), image.label_map)
        assert np.array_equal(ids(tmp_path / f"out/masks/{image.name}.png"), image.mask_ids)
        assert line == json.loads(json.dumps(image.as_json()))
        assert (tmp_path / f"out/images/{image.name}.jpg").read_bytes() == photograph(1, "")
    classes = json.loads((tmp_path / "out/classes.json").read_text())
    assert [(one["id"], one["name"]) for one in classes] == list(enumerate(CLASSES))
    with Image.open(tmp_path / "out/labels/1.png") as picture:
        assert picture.mode == "P"
        palette = picture.getpalette()
    assert palette and "#{:02x}{:02x}{:02x}".format(*palette[3:6]) == classes[1]["color"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11, decoding
def test_coco_instances_are_read_by_pycocotools(project: StoredProject, artifacts: Artifacts, tmp_path: Path) -> None:
    labels = open_set(project, artifacts)
    write(labels, "coco-instances", tmp_path / "out")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "out/instances.json"))
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    for image in labels:
        found = coco.loadAnns(coco.getAnnIds(imgIds=[image.task_id]))
        assert [one["region"] for one in found] == [region.id for region in image.regions]
        for one, region in zip(found, image.regions, strict=True):
            assert np.array_equal(coco.annToMask(one).astype(bool), image.mask(region))
            assert (one["area"], one["category_id"], one["source"]) == (64, region.class_id + 1, region.source)
            assert one["bbox"] == coco_mask.toBbox(one["segmentation"]).tolist()


def test_coco_panoptic(project: StoredProject, artifacts: Artifacts, tmp_path: Path) -> None:
    labels = open_set(project, artifacts, sources=("human", "corrector"))
    write(labels, "coco-panoptic", tmp_path / "out", with_images=True)
    found = json.loads((tmp_path / "out/panoptic.json").read_text())
    assert [one["file_name"] for one in found["images"]] == ["1.jpg", "2.jpg"]
    assert found["categories"][2] | {"id": 3, "name": "Car", "isthing": 1} == found["categories"][2]
    for annotation, image in zip(found["annotations"], labels, strict=True):
        colours = ids(tmp_path / "out/panoptic" / annotation["file_name"])
        segments = colours @ [1, 256, 256**2]
        assert np.array_equal(segments, image.mask_ids)
        for segment, region in zip(annotation["segments_info"], image.regions, strict=True):
            mask = np.asfortranarray(segments == segment["id"], np.uint8)
            assert segment["area"] == mask.sum() == region.pixels
            assert segment["bbox"] == coco_mask.toBbox(coco_mask.encode(mask)).tolist()


@given(arrays(np.int64, (3, 5), elements=st.integers(0, 2**24 - 1)))
def test_segment_colours_say_the_ids(segments: NDArray[np.int64]) -> None:
    assert np.array_equal(segment_colours(segments).astype(np.int64) @ [1, 256, 256**2], segments)


@settings(max_examples=50)
@given(arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 65535)))
def test_mask_ids_survive_their_png(mask_ids: NDArray[np.uint16]) -> None:
    with Image.open(io.BytesIO(png(mask_ids))) as picture:
        assert np.array_equal(np.array(picture).astype(np.int64), mask_ids)


def test_cityscapes_layout_is_read_as_such(project: StoredProject, artifacts: Artifacts, tmp_path: Path) -> None:
    rename(project, ("sky", "road", "car"), {1: "/data/upload/3/0a1b2c3d-bonn_000001_000019_leftImg8bit.png"})
    labels = open_set(project, artifacts, sources=("human", "corrector"))
    write(labels, "cityscapes", tmp_path / "out")
    read = load_cityscapes(tmp_path / "out")
    assert read.names == ("bonn_000001_000019", "project3_000002_000000")
    train_ids = np.array([10, 0, 13, *[255] * 253])
    for name, image in zip(read.names, labels, strict=True):
        assert np.array_equal(read.truth(name), train_ids[image.label_map])
        assert read.image(name).shape == (16, 16, 3)
    truth = tmp_path / "out/gtFine/train/bonn/bonn_000001_000019_gtFine"
    assert set(np.unique(ids(truth.with_name(truth.name + "_labelIds.png")))) == {0, 7, 23}


def test_own_classes_keep_their_ids_in_the_cityscapes_layout(
    project: StoredProject, artifacts: Artifacts, tmp_path: Path
) -> None:
    labels = open_set(project, artifacts)
    write(labels, "cityscapes", tmp_path / "out", with_images=False)
    for kind in ("labelIds", "labelTrainIds"):
        path = tmp_path / f"out/gtFine/train/project3/project3_000002_000000_gtFine_{kind}.png"
        assert np.array_equal(ids(path), labels[1].label_map)
    assert not (tmp_path / "out/leftImg8bit").exists()


def test_voc_layout_is_read_as_such(project: StoredProject, artifacts: Artifacts, tmp_path: Path) -> None:
    rename(project, ("sheep", "background", "car"), {})
    labels = open_set(project, artifacts, sources=("human",))
    write(labels, "voc", tmp_path / "out")
    read = load_voc(tmp_path / "out")
    assert read.names == ("1", "2")
    voc_ids = np.array([17, 0, 7, *[255] * 253])
    for name, image in zip(read.names, labels, strict=True):
        assert np.array_equal(read.truth(name), voc_ids[image.label_map])


def test_voc_ids_of_own_classes_begin_after_the_background(
    project: StoredProject, artifacts: Artifacts, tmp_path: Path
) -> None:
    write(open_set(project, artifacts), "voc", tmp_path / "out", with_images=False)
    assert set(np.unique(ids(tmp_path / "out/SegmentationClass/2.png"))) == {1 + SKY, 1 + ROAD, 1 + CAR}


def test_parquet_is_read_by_datasets(
    project: StoredProject, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    labels = open_set(project, artifacts)
    write(labels, "parquet", tmp_path / "out", with_images=True)
    read = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"), split="train")
    assert len(read) == 3
    for row, image in zip(read, labels, strict=True):
        assert np.array_equal(np.array(row["label_map"]), image.label_map)
        assert np.array_equal(np.array(row["masks"]).astype(np.int64), image.mask_ids)
        assert np.array_equal(np.array(row["image"]), image.pixels())
        assert row["regions"] == [region.as_json() for region in image.regions]
        assert (row["task"], row["address"]) == (image.task_id, image.address)


def rename(project: StoredProject, classes: tuple[str, ...], addresses: dict[int, str]) -> None:
    ledger = project.ledger
    found = ledger.project(PROJECT)
    assert found is not None
    ledger.save_project(type(found)(PROJECT, found.title, classes))
    states = [state for state in ledger.tasks(PROJECT) if state.task_id in addresses]
    ledger.save_tasks(PROJECT, [type(one)(one.task_id, addresses[one.task_id], True, one.mask_key) for one in states])


def test_files_are_called_as_the_images_are() -> None:
    names = file_names(
        {
            1: "/data/upload/7/0a1b2c3d-front.JPG", 2: "/data/local-files/?d=day/left%20eye.png", 3: "s3://a/b.c.jpg",
            4: "https://host/x/FRONT.png?token=1", 5: "data:image/png;base64,AAAA", 6: "", 7: "../../etc/passwd",
            8: "https://host/y/front-1.png",
        }
    )  # fmt: skip
    assert names == {
        1: "front-1-1", 2: "left_eye", 3: "b.c", 4: "FRONT-4", 5: "task-5", 6: "task-6", 7: "passwd", 8: "front-1",
    }  # fmt: skip


@given(st.lists(st.text("aA1-/.?=&%", max_size=6), max_size=8))
def test_no_two_images_share_a_name(addresses: list[str]) -> None:
    names = file_names(dict(enumerate(addresses)))
    assert len({name.lower() for name in names.values()}) == len(addresses)
    assert all(name and "/" not in name and not name.startswith(".") for name in names.values())


def turned(_task_id: int, _address: str) -> bytes:
    """A photograph that lies on its side in its file, 8 wide and 32 high on the screen."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 120, 200)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_a_photograph_that_readers_would_not_turn_is_saved_anew(
    project: StoredProject, artifacts: Artifacts, tmp_path: Path
) -> None:
    labels = LabelSet(project.ledger, artifacts, PROJECT, fetch=turned)
    write(labels, "png", tmp_path / "png", with_images=True)
    assert np.array_equal(ids(tmp_path / "png/images/1.png"), labels[0].pixels())
    write(labels, "voc", tmp_path / "voc")
    with Image.open(tmp_path / "voc/JPEGImages/1.jpg") as image:
        assert (image.format, image.getexif()) == ("JPEG", {})


@pytest.mark.parametrize("name", OFFLINE)
def test_an_image_of_another_size_is_refused(
    name: str, project: StoredProject, artifacts: Artifacts, tmp_path: Path
) -> None:
    def larger(_task_id: int, _address: str) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (32, 8)).save(file, "PNG")
        return file.getvalue()

    labels = LabelSet(project.ledger, artifacts, PROJECT, fetch=larger)
    with pytest.raises(ExportError, match=r"task 1: image /data/1\.jpg is 32 x 8 now, its masks are 16 x 16"):
        export_labels(labels, name, tmp_path / "out", no_platform, with_images=True)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.unfinished").exists()


def test_other_files_are_left_alone(project: StoredProject, artifacts: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("years")
    with pytest.raises(ExportError, match="holds other files; choose"):
        export_labels(open_set(project, artifacts), "png", tmp_path / "out", no_platform)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_labels(open_set(project, artifacts), "png", tmp_path / "file" / "out", no_platform)


KILLED = """
import os, signal, sys
from pathlib import Path
from a2lc_backend.export import export_labels, load_labels

def watch(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

export_labels(load_labels(3), sys.argv[1], Path(sys.argv[2]), None, False, progress=watch)
"""


@pytest.mark.parametrize("name", OFFLINE)
def test_a_killed_export_is_begun_again(
    name: str, project: StoredProject, artifacts: Artifacts, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("A2LC_", "LABEL_STUDIO_"))}
    environment |= {"A2LC_DATA_DIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, name, str(out)], env=environment, capture_output=True, check=False, cwd=tmp_path
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    assert any(out.with_name("out.unfinished").iterdir())
    write(open_set(project, artifacts), name, out, with_images=False)
    write(open_set(project, artifacts), name, tmp_path / "other", with_images=False)
    assert checksums(out) == checksums(tmp_path / "other")


def test_two_exports_do_not_write_one_folder(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
        with pytest.raises(ExportError, match="another export"), whole_folder(tmp_path / "out"):
            raise AssertionError("both write")
    assert (tmp_path / "out/a").read_text() == "a"


def test_a_data_loader_s_workers_read_labels(
    project: StoredProject, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A2LC_DATA_DIR", str(tmp_path))
    labels = load_labels(PROJECT, sources=["human"])
    assert [image.task_id for image in labels] == [1, 2]
    with pytest.raises(IndexError):
        labels[2]
    again = pickle.loads(pickle.dumps(labels))
    assert held(again) == held(labels)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(label_map_of, (labels, 1)), labels[1].label_map)


def label_map_of(labels: LabelSet, index: int) -> NDArray[np.uint8]:
    image: ImageLabels = labels[index]
    return image.label_map


def test_importing_the_package_is_light_and_labels_need_no_torch() -> None:
    code = """
import sys, a2lc_backend
print([name for name in ("numpy", "torch", "sqlalchemy", "label_studio_sdk", "pyarrow") if name in sys.modules])
a2lc_backend.load_labels
print([name for name in ("torch", "numba", "sklearn", "pycocotools") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


def test_the_command(
    project: StoredProject, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("A2LC_", "LABEL_STUDIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("A2LC_DATA_DIR", str(tmp_path))

    def run(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["export", *words])
        assert result.exit_code == status, result.output
        return result.output

    told = run("-p", "3", "-f", "png", "--out", "out", "--source", "human", "--class", "Road", "--round", "1")
    assert "2 images of round 1 (a2lc-r1-00000001) in out" in told
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["settings"]["sources"] == ["human"]
    assert manifest["regions"] == 2
    again = run("-p", "3", "-f", "png", "--out", "out", "--source", "human", "--class", "Road", "--round", "1")
    assert "already" in again
    assert "other round" not in again
    assert "choose another folder" in run("-p", "3", "-f", "voc", "--no-images", "--out", "out", status=1)
    assert "no label of round 2 passes" in run(
        "-p", "3", "-f", "png", "--out", "no", "--min-precision", "0.9", "--source", "corrector", status=1
    )
    assert "does not hold project 4 (it holds 3)" in run("-p", "4", "-f", "png", "--out", "no", status=1)
    assert "LABEL_STUDIO_API_KEY" in run("-p", "3", "-f", "voc", "--out", "no", status=1)
    assert not (tmp_path / "no").exists()
