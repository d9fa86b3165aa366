"""Rounds on a real Redis with real workers as processes, which are killed; Label Studio is real too."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest

from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.bench.world import World
from a2lc_backend.masks import Region
from a2lc_backend.regions import encode_region, parse_label_config
from a2lc_backend.rounds.phases import PHASES, divide
from tests.conftest import REPOSITORY, Studio, wait_until
from tests.rig import Rig, WorkerProcess
from tests.servers import PostgresServer

IMAGES = 16
KILLS = int(os.environ.get("A2LC_TEST_KILLS", "10"))
KILLS_A_ROUND = 10
VICTIMS = ("worker", "worker", "backend", "redis")

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> World:
    return draw_world(tmp_path_factory.mktemp("street"), images=IMAGES, val_images=1)


@pytest.fixture
def rigs(studio: Studio, street: World, tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes rigs and ends them after the test."""
    made: list[Rig] = []

    def make(**options: object) -> Rig:
        made.append(Rig(studio, street, tmp_path / f"rig-{len(made)}", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for rig in made:
        rig.stop()


def started(rig: Rig) -> Rig:
    """The rig with a project, round 0 finished and its queue answered."""
    rig.start()
    rig.loop.create_project(lambda done, total: None)
    rig.run_round()
    rig.loop.annotator().work()
    return rig


_POINTS = [(kind.name, moment) for kind in PHASES for moment in ("begins", "inside", "ends")]


def dealt(dice: random.Random, kills: int) -> list[list[tuple[str, str]]]:
    """Kill points of each round at random: every one once before any comes again, none twice in a round."""
    hands: list[list[tuple[str, str]]] = []
    deck: list[tuple[str, str]] = []
    for left in range(kills, 0, -KILLS_A_ROUND):
        hand: list[tuple[str, str]] = []
        while len(hand) < min(left, KILLS_A_ROUND):
            deck = deck or dice.sample(_POINTS, len(_POINTS))
            hand.append(deck.pop(next(place for place, point in enumerate(deck) if point not in hand)))
        hands.append(sorted(hand, key=_POINTS.index))
    return hands


class Killer:
    """Kills a worker, the backend or Redis when a round comes to a drawn point, and starts it again.

    Inside a phase a shard is held meanwhile; a worker that is killed there is the one that works on it.
    """

    def __init__(self, rig: Rig, dice: random.Random, points: list[tuple[str, str]]) -> None:
        self._rig, self._dice, self.points = rig, dice, points
        self.struck: list[tuple[str, str, str]] = []
        self._holds = rig.folder / "holds"
        self._holds.mkdir(exist_ok=True)
        for phase, moment in self.points:
            if moment == "inside":
                (self._holds / phase).touch()

    def strike(self, number: int, who: str, phase: str, moment: str) -> None:
        names = [kind.name for kind in PHASES]
        later = names[names.index(phase) + 1 :]

        def there() -> bool:
            if moment == "inside":
                return (self._holds / f"{phase}.held").exists()
            phases = self._rig.phases(number)
            reached = ("done",) if moment == "ends" else ("running", "done")
            return phases.get(phase) in reached or any(name in phases for name in later)

        wait_until(there, 120, 0.005)
        if moment == "inside":
            assert self._rig.phases(number)[phase] == "running"
        self.struck.append((who, phase, moment))
        if who == "redis":
            self._rig.redis.end(signal.SIGKILL)
            self._rig.redis.start()
        elif who == "backend":
            self._rig.server.kill()
            self._rig.server.start()
        else:
            victim = self._victim(phase) if moment == "inside" else self._dice.choice(self._rig.workers)
            victim.end(signal.SIGKILL)
            victim.start()
        if moment == "inside":
            (self._holds / phase).unlink()
            (self._holds / f"{phase}.held").unlink()

    def _victim(self, phase: str) -> WorkerProcess:
        pid = int((self._holds / f"{phase}.held").read_text())
        (victim,) = [worker for worker in self._rig.workers if worker.pid == pid]
        return victim


@pytest.mark.timeout(1500)
def test_rounds_that_are_killed_end_as_undisturbed_ones(rigs: Callable[..., Rig]) -> None:
    seed = int(os.environ.get("A2LC_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"seed of the kill points: A2LC_TEST_SEED={seed}")
    dice = random.Random(seed)
    rig = started(rigs(workers=2))
    draw_a_mask(rig)
    calm_version = rig.shown_version()
    stop_all(rig)
    snapshot = rig.snapshot()
    start_all(rig)
    calm = rig.run_round()
    expected = rig.predictions(calm["round"]["version"])
    assert all(len(held) == 1 for held in expected.values())
    struck: list[tuple[str, str, str]] = []
    victims = dice.sample(list(islice(cycle(VICTIMS), KILLS)), KILLS)
    for points in dealt(dice, KILLS):
        stop_all(rig)
        rig.restore(snapshot, calm_version)
        killer = Killer(rig, dice, points)
        start_all(rig)
        number = rig.next_round()
        for point in killer.points:
            killer.strike(number, victims.pop(), *point)
        report = rig.wait_status(number, "done")
        struck += killer.struck
        assert report["round"]["version"] == calm["round"]["version"]
        assert rig.shown_version() == report["round"]["version"]
        assert rig.predictions(report["round"]["version"]) == expected, f"after {killer.struck}"
    by_victim = Counter(who for who, _, _ in struck)
    print(f"{len(struck)} kills: {dict(by_victim)}; {struck}")
    assert by_victim.keys() == set(VICTIMS)


def draw_a_mask(rig: Rig) -> None:
    """A person adds a mask to an annotation, so that the next round has something to propose."""
    client = rig.loop.client
    config = parse_label_config(client.projects.get(id=rig.project_id).label_config or "")
    annotation = next(
        held
        for task in client.tasks.list(project=rig.project_id, include="id")
        for held in client.annotations.list(id=task.id)
    )
    region = (annotation.result or [])[0]
    mask = np.zeros((region["original_height"], region["original_width"]), np.bool_)
    mask[:24, :24] = True
    drawn = encode_region(Region("drawn", config.classes[0], mask), config)
    client.annotations.update(id=annotation.id, result=[*(annotation.result or []), drawn])


def stop_all(rig: Rig) -> None:
    rig.server.stop()
    for worker in rig.workers:
        worker.end(signal.SIGKILL)


def start_all(rig: Rig) -> None:
    for worker in rig.workers:
        worker.start()
    rig.server.start()
    rig.wait_for_workers(len(rig.workers))


@pytest.mark.postgres
@pytest.mark.timeout(900)
def test_a_killed_round_on_postgresql_ends_whole(rigs: Callable[..., Rig], postgres: PostgresServer) -> None:
    seed = int(os.environ.get("A2LC_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"seed of the kill points: A2LC_TEST_SEED={seed}")
    rig = started(rigs(workers=2, database_url=postgres.new_database()))
    draw_a_mask(rig)
    dice = random.Random(seed)
    killer = Killer(rig, dice, dealt(dice, KILLS_A_ROUND)[0])
    number = rig.next_round()
    for point in killer.points:
        killer.strike(number, dice.choice(VICTIMS), *point)
    report = rig.wait_status(number, "done")
    assert rig.shown_version() == report["round"]["version"]
    held = rig.predictions(report["round"]["version"])
    assert len(held) >= IMAGES
    assert all(len(predictions) == 1 for predictions in held.values()), f"after {killer.struck}"
    assert report["round"]["summary"]["answered"] == rig.loop.budget + 1, "with the mask that was drawn"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_more_workers_come_to_the_same_result(rigs: Callable[..., Rig]) -> None:
    rig = started(rigs(workers=4))
    before = rig.shown_version()
    stop_all(rig)
    snapshot, everyone = rig.snapshot(), rig.workers
    results, lines = [], []
    for count in (1, 2, 4):
        rig.restore(snapshot, before)
        rig.workers = everyone[:count]
        start_all(rig)
        report = rig.run_round()
        version = report["round"]["version"]
        results.append((version, rig.predictions(version)))
        sharded = {
            phase["name"]: phase["total"] / (phase["ended"] - phase["started"])
            for phase in report["phases"]
            if phase["name"] in ("score", "publish")
        }
        lines.append(f"{count} workers: " + ", ".join(f"{name} {rate:.1f}/s" for name, rate in sharded.items()))
        stop_all(rig)
    rig.workers = everyone
    print("\n".join(lines))
    assert results[0] == results[1] == results[2]


def test_a_queue_without_a_worker_is_said_before_anything_is_begun(rigs: Callable[..., Rig]) -> None:
    rig = rigs(workers=1)
    rig.workers[0].queues = "a2lc-cpu"
    rig.start()
    rig.loop.create_project(lambda done, total: None)
    reply = rig.post(f"/api/projects/{rig.project_id}/rounds", {})
    assert reply.status_code == 503
    assert "a2lc worker --queues a2lc-gpu" in reply.json()["detail"]
    assert rig.get(f"/api/projects/{rig.project_id}/rounds") == []
    command = [sys.executable, "-m", "a2lc_backend", "rounds", "next", "-p", str(rig.project_id)]
    said = subprocess.run(
        command, env=os.environ | rig.environment, capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert said.returncode == 1
    assert "no worker listens on a2lc-gpu" in said.stderr


@pytest.mark.timeout(900)
def test_a_round_is_paused_resumed_cancelled_and_undone(rigs: Callable[..., Rig]) -> None:
    rig = started(rigs(workers=1))
    base = f"/api/projects/{rig.project_id}/rounds"
    shown = rig.shown_version()
    # A worker that ends gives its shard back at once; without one the round waits, and says what for.
    number = rig.next_round()
    wait_until(lambda: rig.phases(number).get("train") == "running", 120, 0.02)
    assert rig.workers[0].end(signal.SIGTERM) == 0
    assert rig.get("/api/workers") == []
    wait_until(lambda: "a2lc worker" in rig.get(f"{base}/{number}")["phases"][-1]["note"], 30)
    assert rig.get(base)[-1]["number"] == rig.next_round() == number
    assert rig.post(f"{base}/pause").json()["status"] == "paused"
    assert rig.post(f"{base}/pause").status_code == 409
    rig.workers[0].start()
    rig.wait_for_workers(1)
    assert rig.get(f"{base}/{number}")["round"]["status"] == "paused"
    assert rig.next_round() == number
    wait_until(lambda: rig.phases(number).get("score") in ("running", "done"), 120, 0.02)
    assert rig.post(f"{base}/cancel").status_code == 202
    report = rig.wait_status(number, "cancelled")
    assert rig.shown_version() == shown
    assert rig.predictions(report["round"]["version"]) == {}
    # What people answered counts in the next round.
    done = rig.run_round()
    assert done["round"]["number"] == number + 1
    assert done["round"]["summary"]["answered"] == 40
    changed = done["round"]["summary"]["changed_by_corrector"]
    assert changed > 0
    assert rig.post(f"{base}/{number}/undo").status_code == 404
    before = rig.predictions(done["round"]["version"])
    count = rig.post(f"{base}/{number + 1}/undo").json()["corrections"]
    assert count == changed
    undone = rig.wait_status(number + 1, "done")
    assert undone["round"]["version"] != done["round"]["version"]
    assert rig.shown_version() == undone["round"]["version"]
    assert undone["round"]["summary"]["changed_by_corrector"] == 0
    assert rig.post(f"{base}/{number + 1}/redo").json()["corrections"] == count
    again = rig.wait_status(number + 1, "done")
    assert again["round"]["version"] == done["round"]["version"]
    assert rig.predictions(done["round"]["version"]) == before
    assert re.search(rf'^a2lc_queued_masks{{project="{rig.project_id}"}} [1-9]', rig.metrics(), re.MULTILINE)


def test_a_shard_that_takes_too_long_ends_and_says_so(rigs: Callable[..., Rig]) -> None:
    rig = rigs(workers=1, more={"A2LC_JOB_SECONDS": "2", "A2LC_TEST_STEPS": "1000"})
    rig.start()
    rig.loop.create_project(lambda done, total: None)
    report = rig.wait_status(rig.next_round(), "failed")
    assert "A2LC_JOB_SECONDS" in report["round"]["error"]
    assert len(rig.get("/api/workers")) == 1, "the worker goes on"


def test_secrets_stay_out_of_the_logs(rigs: Callable[..., Rig]) -> None:
    rig = rigs(workers=1)
    rig.start()
    rig.loop.create_project(lambda done, total: None)
    rig.run_round()
    text = "".join(path.read_text(errors="replace") for path in rig.folder.glob("*.log"))
    assert re.search(rf"project={rig.project_id}\b.* round=0\b", text)
    assert rig.studio.account.token not in text


def test_phases_are_divided_evenly() -> None:
    assert divide([]) == []
    assert [len(part) for part in divide(range(5))] == [1] * 5
    assert [len(part) for part in divide(range(48))] == [3] * 16
    assert {len(part) for part in divide(range(64 * 40))} == {64}
