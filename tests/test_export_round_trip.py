"""Labels out of a real Label Studio, and back into another project of it."""

from __future__ import annotations

import importlib
import json
import re
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from a2lc_backend.export import Filters, Gateway, LabelSet, export_labels, open_labels
from a2lc_backend.images import encode_mask_png
from a2lc_backend.label_studio import LabelStudioProject, close_client
from a2lc_backend.label_studio.follow_ups import FOLLOWS
from a2lc_backend.masks import IGNORE, MaskSet, Region
from a2lc_backend.regions import decode_region, encode_region, shown_mask
from a2lc_backend.rounds.platform import Task
from a2lc_backend.rounds.workspace import SOURCES, Labels, Workspace
from a2lc_backend.settings import Settings
from a2lc_backend.store import Artifacts, Correction, Ledger, Project, SeenAnnotation, TaskState
from tests.conftest import REPOSITORY, Studio
from tests.test_label_studio import SIZE, make_project

pytestmark = pytest.mark.e2e

MASKS = 9
KEPT = ("id", "completed_by", "result", "was_cancelled", "ground_truth", "lead_time", "created_at", "updated_at")


def scattered(seed: int) -> NDArray[np.uint16]:
    """Masks in many pieces, with holes and single pixels; 0 where there is none."""
    return np.random.default_rng(seed).integers(0, MASKS + 1, SIZE).astype(np.uint16)


def tiles(_seed: int) -> NDArray[np.uint16]:
    """Masks that are one piece each, as polygons are."""
    rows, columns = np.indices(SIZE)
    return (1 + 3 * (rows // 8) + columns // 11).astype(np.uint16)


def store(settings: Settings, project_id: int, tasks: list[Task], draw: Any) -> None:
    """A finished round 2: of each image m1 is a person's Car, m2 the corrector's Road, m9 has no label."""
    with closing(Ledger(settings.ledger_url)) as ledger:
        workspace = Workspace(Artifacts(settings.artifact_url), project_id)
        ledger.save_project(Project(project_id, "gateway", ("Sky", "Road", "Car")))
        keys = []
        for task in tasks:
            keys.append(workspace.mask_key(task.id, task.image))
            names = tuple(f"m{number}" for number in range(1, MASKS + 1))
            first = np.array([0] * (MASKS - 1) + [IGNORE], np.int64)
            masks = MaskSet(draw(task.id), names, first, {})
            workspace.write_masks(keys[-1], masks, np.zeros((MASKS, 1), np.float32), imported=False)
        states = [TaskState(task.id, task.image, True, key) for task, key in zip(tasks, keys, strict=True)]
        ledger.save_tasks(project_id, states)
        for number in range(3):
            record = ledger.begin_round(project_id, 4)
            ledger.save_round(replace(record, version=f"a2lc-r{number}-12345678"))
            ledger.change_status(project_id, number, ["running"], "done")
        held = np.tile(np.array([2, 1, *[0] * (MASKS - 3), IGNORE], np.int64), len(tasks))
        sources = np.tile(
            np.array([SOURCES.index("human"), SOURCES.index("corrector"), *[0] * (MASKS - 2)]), len(tasks)
        )
        nothing = np.full(len(held), np.nan)
        labels = Labels(
            np.array([task.id for task in tasks]), tuple(keys), np.full(len(tasks), MASKS), held, sources,
            np.where(sources == SOURCES.index("human"), 1.0, 0.75), np.full(len(held), IGNORE), held, nothing,
            np.full(len(held), -1), nothing,
        )  # fmt: skip
        workspace.write_labels(2, labels)
        at = datetime(2026, 3, 2, tzinfo=timezone.utc)
        for task in tasks:
            said = Correction(task.id, task.id, "m1", "label", 2, 0, 7, at, 1)
            ledger.save_annotation(project_id, SeenAnnotation(task.id, task.id, at.isoformat()), [said])


def export(studio: Studio, tmp_path: Path, tag: str, draw: Any, role: Any) -> tuple[LabelSet, Path, int]:
    """A project with a stored round and an annotation, as Label Studio files; its first region is a person's."""
    platform, project_id = make_project(studio, images=2, tag=tag)
    tasks = platform.tasks()
    settings = Settings(data_dir=tmp_path, label_studio_url=studio.url, label_studio_api_key=studio.account.token)  # type: ignore[arg-type]
    store(settings, project_id, tasks, draw)
    drawn = Region("m1", "Car", draw(tasks[0].id) == 1)
    studio.client.annotations.create(id=tasks[0].id, result=[encode_region(drawn, platform.config)], lead_time=3.0)
    gateway = Gateway(settings, project_id)
    labels = open_labels(gateway, settings, project_id, None, Filters())
    assert export_labels(labels, "label-studio", tmp_path / "corrected", gateway.platform, role=role)
    return labels, tmp_path / "corrected", project_id


def example(document: str, word: str, *meanings: tuple[str, str]) -> str:
    """The example of a document that has a word in it, with what it stands for."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if word in block)
    for said, meant in meanings:
        assert said in code
        code = code.replace(said, meant)
    return code


def told(document: str, word: str, *meanings: tuple[str, str]) -> dict[str, Any]:
    """Run the example of a document that has a word in it, with what it stands for; the names that it defines."""
    names: dict[str, Any] = {}
    exec(example(document, word, *meanings), names)
    return names


def snippet(studio: Studio, folder: Path) -> int:
    """What docs/export.md says one has to do, done; the id of the project that it made."""
    names = told(
        "docs/export.md", "import_tasks",
        ("http://label-studio.example:8080", studio.url), ('"..."', repr(studio.account.token)),
        ('"corrected"', repr(str(folder))),
    )  # fmt: skip
    close_client(names["studio"])
    return int(names["project"].id)


def same(result: Any, labels: LabelSet, index: int, project: LabelStudioProject) -> None:
    """Regions that came back are those that went out: ids, lineage and every pixel."""
    image = labels[index]
    found = {item["id"]: decode_region(item, project.config, SIZE) for item in result}
    assert list(found) == [region.id for region in image.regions]
    for region in image.regions:
        back = found[region.id]
        assert (back.label, back.source, back.round) == (region.label, region.source, region.round)
        assert back.score == region.score
        assert np.array_equal(back.mask, shown_mask(image.mask(region), None, project.config))
        if project.config.kind != "polygonlabels":
            assert np.array_equal(back.mask, image.mask(region))
    assert found["m1"].first == found["m2"].first == "Sky"


KINDS = pytest.mark.parametrize(
    ("tag", "draw"), [("BrushLabels", scattered), ("BitmaskLabels", scattered), ("PolygonLabels", tiles)]
)


@KINDS
def test_predictions_of_another_project(studio: Studio, tmp_path: Path, tag: str, draw: Any) -> None:
    labels, folder, _ = export(studio, tmp_path, tag, draw, "predictions")
    copy = snippet(studio, folder)
    project = LabelStudioProject(studio.client, studio.url, copy)
    tasks = project.tasks()
    assert [task.image for task in tasks] == [image.address for image in labels]
    assert project.image(tasks[0]).shape == (*SIZE, 3)
    for index, task in enumerate(tasks):
        (prediction,) = studio.client.predictions.list(task=task.id)
        assert prediction.model_version == "a2lc-r2-12345678"
        same(prediction.result, labels, index, project)
    assert studio.client.projects.get(id=copy).model_version == "a2lc-r2-12345678"
    first, second = (studio.client.annotations.list(id=task.id) for task in tasks)
    assert (second, [item["id"] for item in first[0].result], first[0].lead_time) == ([], ["m1"], 3.0)


@KINDS
def test_annotations_of_another_project(studio: Studio, tmp_path: Path, tag: str, draw: Any) -> None:
    labels, folder, _ = export(studio, tmp_path, tag, draw, "annotations")
    copy = snippet(studio, folder)
    project = LabelStudioProject(studio.client, studio.url, copy)
    for index, task in enumerate(project.tasks()):
        assert list(studio.client.predictions.list(task=task.id)) == []
        (annotation,) = studio.client.annotations.list(id=task.id)
        same(annotation.result, labels, index, project)
        regions, problems = project.regions(task, SIZE)  # what round 0 of that project would begin with
        assert ([region.id for region in regions], problems) == ([one.id for one in labels[index].regions], ())


def test_files_may_be_uploaded_by_hand(studio: Studio, tmp_path: Path) -> None:
    labels, folder, _ = export(studio, tmp_path, "BitmaskLabels", scattered, "predictions")
    made = studio.client.projects.create(title="by hand", label_config=(folder / "label_config.xml").read_text())
    reply = httpx.post(
        f"{studio.url}/api/projects/{made.id}/import",
        files={"tasks": ("tasks-00001.json", (folder / "tasks-00001.json").read_bytes(), "application/json")},
        headers={"Authorization": f"Token {studio.account.token}"}, timeout=60,
    )  # fmt: skip
    reply.raise_for_status()
    assert (reply.json()["task_count"], reply.json()["prediction_count"], reply.json()["annotation_count"]) == (2, 2, 1)
    project = LabelStudioProject(studio.client, studio.url, int(made.id or 0))
    for index, task in enumerate(project.tasks()):
        (prediction,) = studio.client.predictions.list(task=task.id)
        same(prediction.result, labels, index, project)


def test_annotations_are_those_of_label_studio_though_read_many_at_a_time(studio: Studio) -> None:
    platform, project_id = make_project(studio, images=0)
    rows = [{"image": f"{studio.url}/{number}.jpg", "place": number} for number in range(40)]
    studio.client.projects.import_tasks(id=project_id, request=rows)
    firsts = [task.id for task in platform.tasks()]
    repeated = {"image": rows[3]["image"], FOLLOWS: firsts[3]}
    studio.client.projects.import_tasks(id=project_id, request=[repeated])
    repeat = next(task.id for task in studio.client.tasks.list(project=project_id) if task.id not in firsts)
    make = studio.client.annotations.create
    result = [encode_region(Region("m1", "Car", tiles(0) == 1), platform.config)]
    for task_id in (*firsts[2:30:9], repeat, firsts[3], firsts[39]):
        make(id=task_id, result=result, lead_time=2.5)
        make(id=task_id, result=[], was_cancelled=task_id == firsts[2], ground_truth=task_id == firsts[3])
    studio.client.tasks.delete(id=str(firsts[7]))

    reply = httpx.get(
        f"{studio.url}/api/projects/{project_id}/export?exportType=JSON&download_all_tasks=true",
        headers={"Authorization": f"Token {studio.account.token}"}, timeout=60,
    )  # fmt: skip
    exported = {task["id"]: task["annotations"] for task in reply.json()}
    originals = platform.originals()
    assert originals.of(firsts[7]) is None
    for place in (0, *range(7), *range(8, 40), 5):
        found = originals.of(firsts[place])
        held = exported[firsts[place]] + (exported[repeat] if place == 3 else [])
        assert found
        assert found.data == rows[place]
        assert found.annotations == [
            {name: item[name] for name in KEPT} for item in sorted(held, key=lambda item: item["id"])
        ]
        assert len(found.annotations) == {2: 2, 3: 4, 11: 2, 20: 2, 29: 2, 39: 2}.get(place, 0)
    assert any(item["was_cancelled"] for item in (originals.of(firsts[2]) or pytest.fail()).annotations)
    assert any(item["ground_truth"] for item in (originals.of(firsts[3]) or pytest.fail()).annotations)


def test_the_same_labels_make_the_same_tasks(studio: Studio, tmp_path: Path) -> None:
    labels, folder, project_id = export(studio, tmp_path, "BitmaskLabels", scattered, "predictions")
    gateway = Gateway(Settings(label_studio_url=studio.url, label_studio_api_key=studio.account.token), project_id)  # type: ignore[arg-type]
    assert export_labels(labels, "label-studio", tmp_path / "again", gateway.platform)
    for name in ("tasks-00001.json", "manifest.json", "label_config.xml"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    tasks = json.loads((folder / "tasks-00001.json").read_text())
    url = tasks[0]["predictions"][0]["result"][0]["value"]["imageDataURL"]
    assert url == encode_mask_png(labels[0].mask(labels[0].regions[0]))


def test_images_come_from_label_studio(studio: Studio, tmp_path: Path) -> None:
    labels, _, project_id = export(studio, tmp_path, "BitmaskLabels", scattered, "predictions")
    gateway = Gateway(Settings(label_studio_url=studio.url, label_studio_api_key=studio.account.token), project_id)  # type: ignore[arg-type]
    assert export_labels(labels, "voc", tmp_path / "voc", gateway.platform)
    names = (tmp_path / "voc/ImageSets/Segmentation/train.txt").read_text().split()
    assert names == ["picture0", "picture1"]
    for name, image in zip(names, labels, strict=True):
        assert (tmp_path / f"voc/JPEGImages/{name}.jpg").read_bytes() == image.file()


def test_the_readme_s_data_set(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.data import DataLoader

    labels, _, project_id = export(studio, tmp_path, "BitmaskLabels", scattered, "predictions")
    monkeypatch.setenv("A2LC_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("LABEL_STUDIO_URL", studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio.account.token)
    code = example("README.md", "torch.utils.data", ("load_labels(7, sources", f"load_labels({project_id}, sources"))
    (tmp_path / "streets.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    streets = importlib.import_module("streets")
    # Processes that are not forks, as on macOS, import the module that the data set stands in.
    found = list(DataLoader(streets.Streets(), batch_size=2, num_workers=1, multiprocessing_context="spawn"))
    pixels, label_maps = found[0]
    assert pixels.shape == (2, *SIZE, 3)
    first = labels[0]
    wanted = np.where(np.isin(first.mask_ids, (1, 2)), first.label_map, IGNORE)
    assert np.array_equal(label_maps[0].numpy(), wanted)
