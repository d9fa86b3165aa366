"""Writing back through faults: what a real Label Studio holds in the end, whatever was lost on the way."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from label_studio_sdk.client import LabelStudio

from a2lc_backend.label_studio import FOLLOWS, VIEW_TITLE, LabelStudioError, LabelStudioProject, patience
from a2lc_backend.masks import MaskSet, Region
from a2lc_backend.regions import encode_region
from a2lc_backend.rounds.collect import collect
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.platform import Prediction, Target
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.settings import ProjectSettings
from a2lc_backend.store import Artifacts, Ledger, Round, TaskState
from tests.conftest import Studio
from tests.fault_proxy import FaultProxy
from tests.test_label_studio import SIZE, make_project

pytestmark = pytest.mark.e2e

OpenClient = Callable[[str, str], LabelStudio]

SEED = 20261122
FAULTS = 200
KEPT = 3
QUEUED = 3
LABELS = ("Sky", "Road", "Car")


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many attempts as ever, sooner after each other."""
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.05)


def halves() -> MaskSet:
    """Two masks, the left and the right half of an image."""
    ids = np.ones(SIZE, np.uint16)
    ids[:, SIZE[1] // 2 :] = 2
    return MaskSet(ids, ("a", "b"), np.zeros(2, np.int64), {})


def prediction(number: int, task_id: int, score: float) -> Prediction:
    masks = halves()
    label = LABELS[(number + task_id) % len(LABELS)]
    regions = (
        Region(name, label, masks.mask(index), 0.5, "foundation", number) for index, name in enumerate(("a", "b"))
    )
    return Prediction(tuple(regions), score)


@dataclass
class Team:
    """Rounds of a project with people in between, and what must be there in the end."""

    studio: Studio
    open_client: OpenClient
    project_id: int
    sources: list[int]
    rng: random.Random
    versions: list[str] = field(default_factory=list)
    queues: list[dict[int, float]] = field(default_factory=list)
    expected: dict[tuple[int, str], tuple[list[Any], float]] = field(default_factory=dict)
    repeats: Counter[int] = field(default_factory=Counter)
    serving: dict[int, int] = field(default_factory=dict)
    kills: int = 0

    def publish(self, url: str, may_die: bool = False, queued: Sequence[int] = ()) -> None:
        """Publish the next version, in as many processes as it takes."""
        number = len(self.versions)
        self.versions.append(f"a2lc-r{number}-{number:08x}")
        queued = queued or self.rng.sample(self.sources, QUEUED)
        self.queues.append({task_id: round(self.rng.uniform(0.1, 1.0), 3) for task_id in queued})
        for attempt in range(20):
            project = LabelStudioProject(self.open_client(url, self.studio.account.token), url, self.project_id)
            if may_die and attempt < 4:
                self._doom(project)
            try:
                targets = self._attempt(project, number)
                break
            except Killed:
                self.kills += 1
        for target in targets:
            shown = self.predict(number, target.source_id)
            rows = [encode_region(region, project.config) for region in shown.regions]
            self.expected[target.task_id, self.versions[-1]] = rows, shown.score if target.serves_queue else 0.0
            if (
                target.serves_queue
                and target.task_id != target.source_id
                and self.serving.get(target.source_id) != target.task_id
            ):
                self.repeats[target.source_id] += 1
            if target.serves_queue:
                self.serving[target.source_id] = target.task_id

    def predict(self, number: int, task_id: int) -> Prediction:
        return prediction(number, task_id, self.queues[number].get(task_id, 0.0))

    def _doom(self, project: LabelStudioProject) -> None:
        """Let the process end before or after one of its next requests."""
        left = [self.rng.randint(1, 12)]

        def strike(_: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        hooks = project._client._client_wrapper.httpx_client.httpx_client.event_hooks
        project._client._client_wrapper.httpx_client.httpx_client.event_hooks = {
            **hooks, self.rng.choice(["request", "response"]): [strike]
        }  # fmt: skip

    def _attempt(self, project: LabelStudioProject, number: int) -> list[Target]:
        version = self.versions[number]
        targets, problems = project.prepare(self.sources, list(self.queues[number]))
        shards = [targets[0::2], targets[1::2], targets[:2]]  # one shard is run twice
        for shard in shards:
            problems += project.write(version, shard, lambda task_id: self.predict(number, task_id), lambda *_: None)
        problems += project.show(version, targets)
        project.prune(KEPT - 1)
        assert problems == []
        return targets

    def annotate(self) -> None:
        """Some of the queue is answered, by people whose connection is good."""
        client = self.studio.client
        for task_id in self.rng.sample(sorted(self.queues[-1]), 2):
            serving = self.serving[task_id]
            shown = next(
                item for item in client.predictions.list(task=serving) if item.model_version == self.versions[-1]
            )
            client.annotations.create(id=serving, result=shown.result, parent_prediction=shown.id)

    def check(self) -> None:
        """What Label Studio holds, asked without the proxy."""
        client, kept = self.studio.client, set(self.versions[-KEPT:])
        held: Counter[tuple[int, str]] = Counter()
        for item in self.all_predictions():
            key = (item["task"], item["model_version"])
            held[key] += 1
            result, score = self.expected[key]
            assert item["result"] == result, key
            assert item["score"] == pytest.approx(score), key
        assert set(held.values()) == {1}
        assert {version for _, version in held} == kept
        assert held.keys() == {key for key in self.expected if key[1] in kept}
        found: Counter[int] = Counter()
        for task in client.tasks.list(project=self.project_id, include="id,data"):
            if FOLLOWS in (task.data or {}):
                found[task.data[FOLLOWS]] += 1
        assert found == self.repeats
        assert client.projects.get(id=self.project_id).model_version == self.versions[-1]
        assert self.views() == [VIEW_TITLE]

    def all_predictions(self) -> list[dict[str, Any]]:
        reply = httpx.get(
            f"{self.studio.url}/api/predictions/",
            params={"project": self.project_id},
            headers={"Authorization": f"Token {self.studio.account.token}"},
            timeout=60,
        )
        found: list[dict[str, Any]] = reply.raise_for_status().json()
        return found

    def views(self) -> list[str]:
        return [str(view.data["title"]) for view in self.studio.client.views.list(project=self.project_id)]  # type: ignore[index]


@pytest.fixture
def team(studio: Studio, clients: OpenClient) -> Team:
    project, project_id = make_project(studio, images=5)
    return Team(studio, clients, project_id, [task.id for task in project.tasks()], random.Random(SEED))


@pytest.fixture
def proxy(studio: Studio) -> Iterator[FaultProxy]:
    with FaultProxy(studio.url, SEED, share=0.5) as proxy:
        yield proxy


def test_versions_are_written_once_through_any_faults(team: Team, proxy: FaultProxy) -> None:
    begun, doubles = time.monotonic(), 0
    while proxy.counts.total() < FAULTS or len(team.versions) < KEPT + 2:
        team.publish(proxy.url, may_die=True)
        proxy.settle()
        # The next round begins with this, for the sake of requests that arrived late.
        project = LabelStudioProject(team.open_client(proxy.url, team.studio.account.token), proxy.url, team.project_id)
        doubles += project.tidy(team.versions[-1])
        team.check()
        team.annotate()
    print(
        f"seed {SEED}: {proxy.counts.total()} faults in {proxy.requests} requests: {dict(proxy.counts.most_common())}, "
        f"{team.kills} processes killed, {len(team.versions)} versions, {team.repeats.total()} second tasks, "
        f"{doubles} doubles that came late, {time.monotonic() - begun:.0f} s"
    )


def through(team: Team, url: str) -> LabelStudioProject:
    return LabelStudioProject(team.open_client(url, team.studio.account.token), url, team.project_id)


def test_collecting_through_faults_reads_what_people_said(
    team: Team, proxy: FaultProxy, ledger: Ledger, artifacts: Artifacts, tmp_path: Path
) -> None:
    team.publish(team.studio.url)
    for number, task_id in enumerate(team.sources):
        held = team.studio.client.predictions.list(task=task_id)[0]
        result = [dict(item) for item in held.result or []]
        result[0]["value"] = result[0]["value"] | {"bitmasklabels": [LABELS[number % 3]]}
        team.studio.client.annotations.create(id=task_id, result=result[:1], parent_prediction=held.id)
    calm = collected(team, Ledger(f"sqlite:///{tmp_path / 'calm.db'}"), artifacts, team.studio.url)
    assert len([item for item in calm if item[2] == "deleted"]) == len(team.sources)
    assert collected(team, ledger, artifacts, proxy.url) == calm
    task = through(team, team.studio.url).tasks()[0]
    for _ in range(5):
        assert through(team, proxy.url).image(task).shape == (*SIZE, 3)
    print(f"seed {SEED}: {proxy.counts.total()} faults in {proxy.requests} requests while collecting")
    # What was deleted stays deleted when the prediction that it was deleted from is pruned, and the person saves again.
    before = team.versions[-1]
    team.publish(team.studio.url)
    through(team, team.studio.url).drop(before, "")
    for stamp in through(team, team.studio.url).annotation_stamps():
        found = team.studio.client.annotations.get(id=stamp.id)
        assert found.parent_prediction is None
        team.studio.client.annotations.update(id=stamp.id, result=found.result)
    assert collected(team, ledger, artifacts, proxy.url) == calm


def collected(team: Team, ledger: Ledger, artifacts: Artifacts, url: str) -> list[tuple[int, str, str, int]]:
    workspace = Workspace(artifacts, team.project_id)
    workspace.write_masks("masks", halves(), np.zeros((2, 1), np.float32), imported=False)
    known = {state.task_id for state in ledger.tasks(team.project_id)}
    project = through(team, url)
    new = [task for task in through(team, team.studio.url).tasks() if task.id not in known]
    ledger.save_tasks(team.project_id, [TaskState(task.id, task.image, ready=True, mask_key="masks") for task in new])
    record = Round(team.project_id, 1, "running")
    context: Any = Context(record, ProjectSettings(), ledger, workspace, project, None, None)  # type: ignore[arg-type]
    collect(context, (), lambda done, total: None)
    said = ledger.corrections(team.project_id)
    return sorted((item.task_id, item.region_id, item.kind, item.label) for item in said)


def test_what_arrives_after_the_round_is_removed_in_the_next(team: Team) -> None:
    team.publish(team.studio.url)
    client, project = team.studio.client, through(team, team.studio.url)
    again = [
        {"task": task_id, "result": result, "score": score, "model_version": version}
        for (task_id, version), (result, score) in team.expected.items()
    ]
    client.projects.import_predictions(id=team.project_id, request=again[:2])
    assert project.tidy(team.versions[-1]) == 2
    assert project.tidy(team.versions[-1]) == 0
    team.check()
    team.annotate()
    queued = list(team.queues[-1])
    team.publish(team.studio.url, queued=queued)
    assert team.repeats.total() == 2
    for source, repeat in team.serving.items():
        if repeat != source:  # and again
            data = client.tasks.get(id=str(repeat)).data
            client.projects.import_tasks(id=team.project_id, request=[{"data": data}] * 2)
    team.publish(team.studio.url, queued=queued)
    team.check()


def test_pruning_leaves_what_is_shown_and_what_is_not_ours(team: Team) -> None:
    client, project = team.studio.client, through(team, team.studio.url)
    row = {"task": team.sources[0], "result": [], "score": 0.5, "model_version": "our-net"}
    client.projects.import_predictions(id=team.project_id, request=[row])
    for _ in range(3):
        team.publish(team.studio.url)
    first, second, third = team.versions
    held = lambda: {item["model_version"] for item in team.all_predictions()}  # noqa: E731
    client.projects.update(id=team.project_id, model_version=first)
    project.prune(1)
    assert held() == {"our-net", first, second, third}
    project.prune(0)
    assert held() == {"our-net", first, third}
    client.projects.update(id=team.project_id, model_version=third)
    project.drop(third, first)
    assert held() == {"our-net", first}
    assert client.projects.get(id=team.project_id).model_version == first
    project.drop(first, "")
    project.drop(first, "")
    assert held() == {"our-net"}
    assert client.projects.get(id=team.project_id).model_version == ""


def test_a_round_that_is_given_up_leaves_no_second_tasks(team: Team) -> None:
    client, project = team.studio.client, through(team, team.studio.url)
    team.publish(team.studio.url)
    team.annotate()
    queued = list(team.queues[-1])

    def second_tasks() -> dict[int, int]:
        tasks = client.tasks.list(project=team.project_id, include="id,data")
        return {task.id: task.data[FOLLOWS] for task in tasks if FOLLOWS in (task.data or {})}

    targets, _ = project.prepare(team.sources, queued)
    version = "a2lc-r1-given-up"
    project.write(version, targets, lambda task_id: prediction(0, task_id, 0.5), lambda *_: None)
    made = second_tasks()
    assert len(made) == 2
    kept = min(made)  # somebody has begun to draw there
    draft = client._client_wrapper.httpx_client.request(
        f"api/tasks/{kept}/drafts", method="POST", json={"result": [], "lead_time": 1.0}
    )
    assert draft.status_code == 201, draft.text
    project.drop(version, team.versions[-1])
    assert second_tasks() == {kept: made[kept]}
    assert {item["model_version"] for item in team.all_predictions()} == {team.versions[-1]}


def test_faults_that_stay_end_in_a_clear_error(team: Team, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(patience, "GREETING_SECONDS", 0.3)
    with FaultProxy(studio.url, SEED, share=0.0) as proxy:
        project = through(team, proxy.url)
        targets, _ = project.prepare(team.sources, [])
        proxy.share = 1.0
        with pytest.raises(LabelStudioError, match=r"(no answer|run the round again)"):
            project.write("a2lc-r0-0", targets, lambda task_id: prediction(0, task_id, 0.0), lambda *_: None)
        proxy.share = 0.0
        with pytest.raises(LabelStudioError, match="kept no prediction a2lc-r0-0"):
            project.show("a2lc-r0-0", targets)
        assert project.write("a2lc-r0-0", targets, lambda task_id: prediction(0, task_id, 0.0), lambda *_: None) == []
        assert project.show("a2lc-r0-0", targets) == []
