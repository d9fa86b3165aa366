"""The gateway against a real Label Studio."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from label_studio_sdk.client import LabelStudio
from PIL import Image

from a2lc_backend.label_studio import (
    FOLLOWS,
    VIEW_TITLE,
    LabelStudioError,
    LabelStudioProject,
    LabelStudioUnauthorizedError,
)
from a2lc_backend.masks import Region
from a2lc_backend.regions import encode_region
from a2lc_backend.rounds.platform import AnnotationStamp, Prediction, Task, TaskError, TaskProblem
from tests.conftest import Studio, grid_masks

OpenClient = Callable[[str, str], LabelStudio]
Predict = Callable[[int], Prediction]

pytestmark = pytest.mark.e2e

SIZE = (24, 32)
CONFIG = """<View><Image name="image" value="$image"/>
<{tag} name="label" toName="image"><Label value="Sky"/><Label value="Road"/><Label value="Car"/></{tag}></View>"""


def jpeg(size: tuple[int, int] = SIZE) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size[::-1], (90, 120, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


def upload(studio: Studio, project_id: int, files: dict[str, bytes]) -> None:
    reply = httpx.post(
        f"{studio.url}/api/projects/{project_id}/import",
        files={name: (name, data) for name, data in files.items()},
        headers={"Authorization": f"Token {studio.account.token}"},
        timeout=60,
    )
    reply.raise_for_status()


def make_project(studio: Studio, images: int = 3, tag: str = "BitmaskLabels") -> tuple[LabelStudioProject, int]:
    client = studio.client
    project = client.projects.create(title="gateway", label_config=CONFIG.format(tag=tag))
    project_id = int(project.id or 0)
    if images:
        upload(studio, project_id, {f"picture{number}.jpg": jpeg() for number in range(images)})
    return LabelStudioProject(client, studio.url, project_id), project_id


def quarters(round_number: int, queued: tuple[str, ...] = ()) -> tuple[Region, ...]:
    masks = grid_masks(3, 4)
    return tuple(
        Region(name, "Sky", masks.mask(index), 0.5, "foundation", round_number, 1 if name in queued else None)
        for index, name in enumerate(masks.region_ids)
    )


def publish(project: LabelStudioProject, version: str, queued: dict[int, float], number: int = 0) -> list[TaskProblem]:
    def predict(task_id: int) -> Prediction:
        return Prediction(quarters(number, ("m1",) if task_id in queued else ()), queued.get(task_id, 0.0))

    return publish_tasks(project, version, [task.id for task in project.tasks()], queued.keys(), predict)


def publish_tasks(
    project: LabelStudioProject, version: str, tasks: list[int], queued: Collection[int], predict: Predict
) -> list[TaskProblem]:
    """All that a round asks of the platform at its end."""
    targets, problems = project.prepare(tasks, queued)
    problems += project.write(version, targets, predict, lambda done, total: None)
    named = {problem.task_id for problem in problems}
    return problems + project.show(version, [target for target in targets if target.task_id not in named])


def versions_of(studio: Studio, task_id: int) -> list[str]:
    return sorted(item.model_version or "" for item in studio.client.predictions.list(task=task_id))


def title(view: Any) -> str:
    return str(view.data["title"])


def next_task(studio: Studio, project_id: int) -> dict[str, Any] | None:
    """What "label the queue" serves next, as the Data Manager asks for it."""
    view: Any = next(view for view in studio.client.views.list(project=project_id) if title(view) == VIEW_TITLE)
    selection = {key: view.data[key] for key in ("ordering", "filters")}
    reply = httpx.post(
        f"{studio.url}/api/dm/actions?id=next_task&project={project_id}&tabID={view.id}",
        headers={"Authorization": f"Token {studio.account.token}"},
        json=selection | {"selectedItems": {"all": True, "excluded": []}},
        timeout=30,
    )
    if reply.status_code == 404:
        return None
    reply.raise_for_status()
    found: dict[str, Any] = reply.json()
    return found


def test_publishing_twice_leaves_one_prediction_a_task_and_one_view(studio: Studio) -> None:
    project, project_id = make_project(studio)
    tasks = [task.id for task in project.tasks()]
    for _ in range(2):
        assert publish(project, "a2lc-r0-00000000", {tasks[1]: 1.0}) == []
    assert [versions_of(studio, task) for task in tasks] == [["a2lc-r0-00000000"]] * 3
    assert studio.client.projects.get(id=project_id).model_version == "a2lc-r0-00000000"
    views = [view for view in studio.client.views.list(project=project_id) if title(view) == VIEW_TITLE]
    assert len(views) == 1
    assert project.queue_link() == f"{studio.url}/projects/{project_id}/data?tab={views[0].id}&labeling=1"


def test_a_prediction_that_was_written_twice_is_written_once_in_the_end(studio: Studio) -> None:
    project, project_id = make_project(studio)
    tasks = [task.id for task in project.tasks()]
    row = {"task": tasks[0], "result": [], "score": 0.0, "model_version": "a2lc-r0-11111111"}
    studio.client.projects.import_predictions(id=project_id, request=[row, row])
    publish(project, "a2lc-r0-11111111", {})
    assert [versions_of(studio, task) for task in tasks] == [["a2lc-r0-11111111"]] * 3


def test_the_queue_is_served_in_order_and_again_to_the_same_person(studio: Studio) -> None:
    project, project_id = make_project(studio)
    first, second, third = (task.id for task in project.tasks())
    publish(project, "a2lc-r0-22222222", {first: 0.3, third: 1.0})
    for expected in (third, first):
        served = next_task(studio, project_id)
        assert served is not None
        assert served["id"] == expected
        prediction = studio.client.predictions.list(task=expected)[0]
        studio.client.annotations.create(id=expected, result=prediction.result, parent_prediction=prediction.id)
    assert next_task(studio, project_id) is None
    # The next round queues an image this person has submitted: Label Studio would never serve that task again.
    publish(project, "a2lc-r1-22222222", {third: 1.0, second: 0.2}, number=1)
    served = next_task(studio, project_id)
    assert served is not None
    assert served["id"] not in {first, second, third}
    assert served["data"][FOLLOWS] == third
    assert [task.id for task in project.tasks()] == [first, second, third]
    prediction = studio.client.predictions.list(task=served["id"])[0]
    studio.client.annotations.create(id=served["id"], result=prediction.result, parent_prediction=prediction.id)
    assert sorted(stamp.task_id for stamp in project.annotation_stamps()) == [first, third, third]
    publish(project, "a2lc-r2-22222222", {second: 0.5}, number=2)
    everything = studio.client.tasks.list(project=project_id, include="id,data")
    assert len([task for task in everything if FOLLOWS in (task.data or {})]) == 1, "a served repeat is not made again"


@pytest.mark.parametrize("tag", ["BitmaskLabels", "BrushLabels", "PolygonLabels"])
def test_what_is_published_is_read_back_as_it_was(studio: Studio, tag: str) -> None:
    project, _ = make_project(studio, images=1, tag=tag)
    task = project.tasks()[0]
    publish(project, "a2lc-r3-33333333", {task.id: 1.0}, number=3)
    prediction = studio.client.predictions.list(task=task.id)[0]
    made = studio.client.annotations.create(
        id=task.id, result=prediction.result, parent_prediction=prediction.id, lead_time=1.0
    )
    stamp = project.annotation_stamps()[0]
    assert (stamp.id, stamp.task_id) == (made.id, task.id)
    annotation = project.annotation(stamp, SIZE)
    assert annotation is not None
    assert (annotation.shown_round, annotation.whole, annotation.problems) == (3, True, ())
    assert isinstance(annotation.made_at, datetime)
    sent = quarters(3, ("m1",))
    for was, now in zip(sent, annotation.regions, strict=True):
        assert (was.id, was.label, was.rank, was.round) == (now.id, now.label, now.rank, now.round)
        assert np.array_equal(project.shown_mask(was.mask, None), now.mask)


def test_a_bad_region_is_named_and_the_others_are_read(studio: Studio) -> None:
    project, _ = make_project(studio, images=1)
    task = project.tasks()[0]
    good, resized, garbled, foreign = (encode_region(region, project.config) for region in quarters(0)[:4])
    resized["original_width"] = 999
    garbled["value"]["imageDataURL"] = "data:image/png;base64,AAAA"
    foreign["value"]["bitmasklabels"] = ["Boat"]
    made = studio.client.annotations.create(id=task.id, result=[good, resized, garbled, foreign])
    annotation = project.annotation(AnnotationStamp(int(made.id or 0), task.id, ""), SIZE)
    assert annotation is not None
    assert [region.id for region in annotation.regions] == ["m1"]
    assert set(annotation.unreadable) == {"m2", "m3", "m4"}
    assert len(annotation.problems) == 3
    assert all(f"task {task.id}" in message for message in annotation.problems)
    assert "Boat" in annotation.problems[2]


def test_regions_of_a_team_are_read_and_our_own_are_not(studio: Studio) -> None:
    project, project_id = make_project(studio, images=2)
    first, second = project.tasks()
    team = [encode_region(region, project.config) for region in quarters(0)[:2]]
    studio.client.projects.import_predictions(
        id=project_id, request=[{"task": first.id, "result": team, "score": 0.1, "model_version": "our-net"}]
    )  # fmt: skip
    publish(project, "a2lc-r0-44444444", {})
    assert [region.id for region in project.regions(first, SIZE)[0]] == ["m1", "m2"]
    assert project.regions(second, SIZE) == ((), ())


def test_a_task_deleted_during_the_round_costs_only_itself(studio: Studio) -> None:
    project, _ = make_project(studio)
    first, second, third = (task.id for task in project.tasks())

    def predict(task_id: int) -> Prediction:
        if task_id == first:  # another admin deletes the second task while the first is being encoded
            studio.client.tasks.delete(id=str(second))
        return Prediction(quarters(0), 0.0)

    problems = publish_tasks(project, "a2lc-r0-55555555", [first, second, third, 10**9], (), predict)
    assert {problem.task_id for problem in problems} == {second, 10**9}
    assert all(f"task {problem.task_id}" in problem.message for problem in problems)
    assert versions_of(studio, first) == versions_of(studio, third) == ["a2lc-r0-55555555"]


def test_an_annotation_that_is_gone_reads_as_none(studio: Studio) -> None:
    project, _ = make_project(studio, images=1)
    assert project.annotation(AnnotationStamp(10**9, 1, ""), SIZE) is None


def broken_images() -> dict[str, tuple[bytes, str]]:
    def saved(image: Image.Image, kind: str, **more: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **more)
        return buffer.getvalue()

    sixteen = Image.fromarray((np.arange(32 * 24).reshape(24, 32) * 80).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "truncated.jpg": (jpeg()[:300], "truncated"),
        "text.png": (b"no picture at all", "image"),
        "grey.png": (saved(Image.new("L", (32, 24), 80), "PNG"), ""),
        "sixteen.png": (saved(sixteen, "PNG"), ""),
        "rgba.png": (saved(Image.new("RGBA", (32, 24), (9, 9, 9, 128)), "PNG"), ""),
        "rotated.jpg": (saved(Image.new("RGB", (24, 32), (9, 9, 9)), "JPEG", exif=exif), ""),
    }


def test_any_image_is_read_or_named(studio: Studio) -> None:
    project, project_id = make_project(studio, images=0)
    upload(studio, project_id, {name: data for name, (data, _) in broken_images().items()})
    for task in project.tasks():
        complaint = next(text for name, (_, text) in broken_images().items() if name.split(".")[0] in task.image)
        if complaint:
            with pytest.raises(TaskError, match=complaint):
                project.image(task)
        else:
            assert project.image(task).shape == (*SIZE, 3), task.image


@pytest.mark.parametrize(
    ("address", "mend"),
    [
        ("", "image address"),
        ("/data/upload/999/nothing.jpg", "check that the file exists"),
        ("/data/local-files/?d=nowhere/a.jpg", "Local Files storage"),
        ("http://127.0.0.1:9/a.jpg", "add 127.0.0.1:9 to A2LC_IMAGE_HOSTS"),
    ],
)
def test_an_image_that_cannot_be_fetched_names_the_mend(studio: Studio, address: str, mend: str) -> None:
    project, _ = make_project(studio, images=1)
    with pytest.raises(TaskError, match=mend):
        project.image(Task(project.tasks()[0].id, address))


def test_local_files_are_read_once_their_storage_is_connected(studio: Studio) -> None:
    project, project_id = make_project(studio, images=0)
    root = Path(studio.server.environment["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"])
    (root / "street").mkdir(exist_ok=True)
    (root / "street" / "a.jpg").write_bytes(jpeg())
    studio.client.import_storage.local.create(project=project_id, path=str(root / "street"), use_blob_urls=True)
    assert project.image(Task(1, "/data/local-files/?d=street/a.jpg")).shape == (*SIZE, 3)


def personal_token(studio: Studio) -> str:
    """Make a personal access token as a person does: logged in, in a browser."""
    with httpx.Client(base_url=studio.url, follow_redirects=True, timeout=30) as browser:
        browser.get("/user/login/")
        account, csrf = studio.account, browser.cookies["csrftoken"]
        browser.post(
            "/user/login/", data={"email": account.email, "password": account.password, "csrfmiddlewaretoken": csrf}
        )
        headers = {"X-CSRFToken": browser.cookies["csrftoken"]}
        enabled = {"legacy_api_tokens_enabled": True, "api_tokens_enabled": True}
        browser.post("/api/jwt/settings", json=enabled, headers=headers).raise_for_status()
        token: str = browser.post("/api/token/", headers=headers).raise_for_status().json()["token"]
    return token


@pytest.mark.parametrize("kind", [lambda studio: studio.account.token, personal_token], ids=["legacy", "personal"])
def test_both_kinds_of_token_read_tasks_and_images(
    studio: Studio, kind: Callable[[Studio], str], clients: OpenClient
) -> None:
    _, project_id = make_project(studio, images=1)
    project = LabelStudioProject(clients(studio.url, kind(studio)), studio.url, project_id)
    assert project.image(project.tasks()[0]).shape == (*SIZE, 3)


def test_a_refused_token_and_a_missing_project_name_the_mend(studio: Studio, clients: OpenClient) -> None:
    wrong = LabelStudioProject(clients(studio.url, "f" * 40), studio.url, 1)
    with pytest.raises(LabelStudioUnauthorizedError, match="set LABEL_STUDIO_API_KEY to a personal access token"):
        wrong.project()
    with pytest.raises(LabelStudioUnauthorizedError, match="LABEL_STUDIO_API_KEY"):
        clients(studio.url, "")
    with pytest.raises(LabelStudioError, match="check the id"):
        LabelStudioProject(studio.client, studio.url, 10**6).project()
    with pytest.raises(LabelStudioError, match="LABEL_STUDIO_URL"):
        LabelStudioProject(clients("http://127.0.0.1:9", "f" * 40), "http://127.0.0.1:9", 1).project()


def test_a_config_without_a_segmentation_control_is_named(studio: Studio) -> None:
    client = studio.client
    config = '<View><Image name="i" value="$image"/><Choices name="c" toName="i"><Choice value="A"/></Choices></View>'
    project = client.projects.create(title="choices", label_config=config)
    with pytest.raises(LabelStudioError, match="BitmaskLabels"):
        LabelStudioProject(client, studio.url, int(project.id or 0)).project()
