"""Passwords and secrets between this program and the real Label Studio; and that none is written anywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from typer.testing import CliRunner

from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.cli import app
from a2lc_backend.demo.servers import Server, backend
from tests.conftest import REPOSITORY, Studio, wait_until
from tests.rig import Rig
from tests.test_label_studio import make_project

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PASSWORD, HOOK_SECRET, REDIS_PASSWORD = "pw-open-sesame", "hook-7c1f", "redis-93ab"
TYPED, SIGNATURE, IMAGE_PASSWORD = "typed-by-a-person", "signed-e5d0", "picture-4471"
GUARDED = {
    "A2LC_BASIC_AUTH_USER": "label-studio", "A2LC_BASIC_AUTH_PASSWORD": PASSWORD, "A2LC_WEBHOOK_SECRET": HOOK_SECRET,
}  # fmt: skip


def run(server: Server, *command: str, **more: str) -> str:
    """What a command of the program says, in the backend's environment."""
    return CliRunner().invoke(app, list(command), env=dict(server.environment) | more).output


def guarded_backend(studio: Studio, folder: Path, settings: dict[str, str], port: int | None = None) -> Server:
    more = settings | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "300"}
    return backend(folder, studio.url, studio.account.token, more, port)


@pytest.fixture
def server(studio: Studio, tmp_path: Path) -> Iterator[Server]:
    made = guarded_backend(studio, tmp_path, GUARDED).start()
    yield made
    made.stop()


def heard(server: Server) -> float:
    """Webhooks that were let in."""
    text = httpx.get(f"{server.url}/metrics", auth=("label-studio", PASSWORD), timeout=30).text
    lines = [line for line in text.splitlines() if line.startswith("a2lc_requests_total") and '"webhook"' in line]
    return float(lines[0].split()[-1]) if lines else 0.0


def test_label_studio_is_told_the_secrets_and_shows_them(studio: Studio, server: Server, tmp_path: Path) -> None:
    _, project_id = make_project(studio)
    project = ("--project", str(project_id))
    # Connected by hand, without the secrets: Label Studio is refused, and the doctor says what to do.
    assert "connected" in run(server, "connect", *project)
    assert "connected anew" in run(server, "connect", *project), "the password is told again each time"
    told = run(server, "doctor", *project)
    assert "webhook" in told
    assert "a2lc connect" not in told, told

    (connected,) = studio.client.ml.list(project=project_id)
    before = heard(server)
    studio.client.ml.train(id=int(connected.id or 0))
    wait_until(lambda: heard(server) > before, 20)
    wait_until(lambda: run(server, "rounds", "list", *project).count("done") == 1, 120, 1.0)
    server.stop()

    port = int(server.environment["A2LC_PORT"])
    other = GUARDED | {"A2LC_BASIC_AUTH_PASSWORD": "another", "A2LC_WEBHOOK_SECRET": "another"}
    changed = guarded_backend(studio, tmp_path, other, port).start()
    try:
        assert "another password than A2LC_BASIC_AUTH_PASSWORD" in run(changed, "doctor", *project)
        (hook,) = [item for item in studio.client.webhooks.list(project=project_id) if str(port) in item.url]
        refused = httpx.post(f"{changed.url}/webhook", json={}, headers=dict(hook.headers), timeout=30)
        assert refused.status_code == 401
        assert "connected anew" in run(changed, "connect", *project)
        told = run(changed, "doctor", *project)
        assert "a2lc connect" not in told, told
    finally:
        changed.stop()
    free = guarded_backend(studio, tmp_path, {}, port).start()
    try:
        assert "connected anew" in run(free, "connect", *project)
        (hook,) = [item for item in studio.client.webhooks.list(project=project_id) if str(port) in item.url]
        assert hook.headers == {}
        assert "was connected already" in run(free, "connect", *project)
    finally:
        free.stop()


def test_the_doctor_sees_a_label_studio_that_was_told_nothing(studio: Studio, server: Server) -> None:
    _, project_id = make_project(studio, images=0)
    open_settings = dict.fromkeys(GUARDED, "")
    run(server, "connect", "--project", str(project_id), **open_settings)
    told = run(server, "doctor", "--project", str(project_id))
    assert "is not connected" in told or "A2LC_BASIC_AUTH_USER" in told
    assert "a2lc connect" in told


@pytest.fixture
def rig(studio: Studio, tmp_path: Path) -> Iterator[Rig]:
    world = draw_world(tmp_path / "street", images=4, val_images=1)
    made = Rig(studio, world, tmp_path / "rig", more=GUARDED, redis_password=REDIS_PASSWORD)
    yield made
    made.stop()


def test_no_secret_is_written_into_logs_errors_jobs_or_artifacts(rig: Rig) -> None:
    rig.start()
    rig.loop.create_project(lambda done, total: None)
    addresses = (
        f"https://nobody.invalid/a.jpg?X-Amz-Signature={SIGNATURE}&X-Amz-Security-Token={SIGNATURE}",
        f"http://user:{IMAGE_PASSWORD}@127.0.0.1:9/b.jpg",
    )
    rig.loop.client.projects.import_tasks(id=rig.project_id, request=[{"image": address} for address in addresses])
    rig.run_round()
    url = rig.server.url
    said = [
        httpx.post(f"{url}/api/login", json={"email": "ann@example.com", "password": TYPED}, timeout=30),
        httpx.post(f"{url}/api/login", json={"token": TYPED}, timeout=30),
        httpx.post(f"{url}/api/login", json={"email": [TYPED], "password": TYPED}, timeout=30),
        httpx.get(f"{url}/versions", auth=("label-studio", TYPED), timeout=30),
        httpx.post(f"{url}/webhook", json={}, headers={"X-A2LC-Secret": TYPED}, timeout=30),
        httpx.get(f"{url}/api/projects", headers={"Authorization": f"Token {TYPED}"}, timeout=30),
        rig.server.ask(f"/api/projects/{rig.project_id}/rounds/0"),
        rig.server.ask("/api/workers"),
        httpx.get(f"{url}/metrics", auth=("label-studio", PASSWORD), timeout=30),
    ]
    assert [reply.status_code for reply in said] == [401, 401, 422, 401, 401, 401, 200, 200, 200]
    problems = said[6].json()["problems"]
    assert len(problems) == len(addresses), "both images could not be had, and it is said"
    shown = run(rig.server, "rounds", "show", "--project", str(rig.project_id))
    assert "nobody.invalid" in shown
    places: dict[str, bytes] = {"errors": "".join(reply.text for reply in said).encode(), "shown": shown.encode()}
    places["doctor"] = run(rig.server, "doctor", "--project", str(rig.project_id)).encode()
    places["redis"] = b"".join(_everything(redis.Redis.from_url(rig.redis.url)))
    places |= {path.name: path.read_bytes() for path in rig.folder.glob("*.log")}
    artifacts = [path for path in (rig.data / "artifacts").rglob("*") if path.is_file()]
    assert len(artifacts) > 10
    places |= {str(path): path.read_bytes() for path in artifacts}
    secrets = [PASSWORD, HOOK_SECRET, REDIS_PASSWORD, TYPED, SIGNATURE, IMAGE_PASSWORD, rig.studio.account.token]
    secrets.append(httpx.BasicAuth("label-studio", PASSWORD)._auth_header.removeprefix("Basic "))
    found = [(name, secret) for name, text in places.items() for secret in secrets if secret.encode() in text]
    assert found == []


def _everything(store: redis.Redis) -> Iterator[bytes]:
    """Every key and value of a Redis, while a job may come and go."""
    end = time.monotonic() + 10
    for key in store.scan_iter():
        assert time.monotonic() < end
        yield key
        dumped: Any = store.dump(key)
        yield dumped or b""
        if store.type(key) == b"hash":
            for name, value in store.hgetall(key).items():
                yield name + b" " + value
    store.close()
