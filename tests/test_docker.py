"""The container image and the compose file, as far as they can be tried without a Docker engine.

Linters look at the files in `make lint`. Here the packages of the image are listed, and what the compose file gives to
each service is given to real processes of this machine, with its addresses in place of the services' names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from label_studio_sdk.client import LabelStudio
from typer.testing import CliRunner

from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.cli import app
from a2lc_backend.demo.servers import Server, free_port
from a2lc_backend.label_studio import close_client
from a2lc_backend.settings import Settings
from tests.conftest import LABEL_STUDIO_PROGRAM, REPOSITORY, wait_until
from tests.rig import SHORT, WorkerProcess
from tests.servers import PostgresServer, RedisServer

SERVICES = ("backend", "worker", "label-studio", "postgres", "redis")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    return found


def listed(torch: str) -> dict[str, str]:
    """The packages of an image, by name, with their versions and conditions."""
    ran = subprocess.run(
        [REPOSITORY / "docker/install.sh", "list", torch], capture_output=True, text=True, check=True
    )  # fmt: skip
    return {line: line.split("==")[0] for line in ran.stdout.splitlines()}


def test_the_image_holds_the_lock_and_without_a_gpu_no_cuda() -> None:
    lock = [line for line in (REPOSITORY / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert list(listed("cuda")) == lock
    cpu = listed("cpu")
    assert not [name for name in cpu.values() if re.match(r"nvidia|cuda|triton", name)]
    same = {line for line in lock if not re.match(r"nvidia-|cuda-|triton|torch(vision)?==", line)}
    changed = {line.replace("+cpu", "") for line in cpu if line not in same}
    assert cpu.keys() >= same
    assert changed == {line for line in lock if re.match(r"torch(vision)?==", line)}
    assert all("+cpu" in line for line in cpu if line not in same)


def test_the_image_is_not_made_of_anything_else() -> None:
    wrong = subprocess.run(
        [REPOSITORY / "docker/install.sh", "list", "tpu"], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "cpu or cuda" in wrong.stderr


def test_what_the_image_is_built_from_is_sent_to_the_builder() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M) for name in line.split()]
    assert len(copied) > 4
    allowed = {
        line.removeprefix("!").strip("/")
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for name in copied:
        assert (REPOSITORY / name).exists()
        assert name.removeprefix("./") in allowed
    assert not any("secret" in name for name in allowed)


def test_the_program_is_installed_by_the_image_s_own_step(tmp_path: Path) -> None:
    """Into an environment that sees this one's packages: installing those takes minutes."""
    source, prefix = tmp_path / "source", tmp_path / "a2lc"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("docker", "a2lc_backend"):
        shutil.copytree(REPOSITORY / name, source / name)
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--seed", "--python", sys.executable, prefix], check=True)
    packages = next(prefix.glob("lib/python*/site-packages"))
    own = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "these.pth").write_text(own)
    subprocess.run([source / "docker/install.sh", "program", prefix], check=True, capture_output=True, timeout=120)
    said = subprocess.run([prefix / "bin/a2lc", "--help"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "health" in said.stdout
    assert list(packages.glob("a2lc_backend/web/static/vendor/**/*.js")), "the pages are in the package"


def test_every_variable_is_one_that_somebody_reads(compose: Mapping[str, Any]) -> None:
    assert tuple(compose["services"]) == SERVICES
    ours = {f"A2LC_{name.upper()}" for name in Settings.model_fields}
    ours |= {"LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "LABEL_STUDIO_PUBLIC_URL", "FORWARDED_ALLOW_IPS"}
    for service in ("backend", "worker"):
        assert set(compose["services"][service]["environment"]) <= ours
    docker_file = (REPOSITORY / "Dockerfile").read_text()
    assert set(re.findall(r"\b(A2LC_\w+)=", docker_file)) <= ours


def test_each_service_gets_its_secrets_and_no_other_and_none_is_written_down(
    compose: Mapping[str, Any], tmp_path: Path
) -> None:
    made = secrets_in(tmp_path)
    assert made.keys() == compose["secrets"].keys()
    given = {name: set(service.get("secrets", ())) for name, service in compose["services"].items()}
    assert set.union(*given.values()) == made.keys()
    assert given["backend"] == given["worker"]
    settings = {f"a2lc_{name}" for name in Settings.model_fields} | {"label_studio_api_key"}
    assert given["backend"] <= settings
    assert not given["redis"] & given["backend"]
    again = secrets_in(tmp_path)
    assert again == made, "secrets that are there stay"
    assert len(set(made.values())) == len(made)
    assert min(map(len, made.values())) >= 24
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    text = (REPOSITORY / "docker-compose.yml").read_text()
    assert not [name for name, value in made.items() if value in text]
    assert "/secrets/" in (REPOSITORY / ".gitignore").read_text().splitlines()


def test_health_tells_who_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("A2LC_PORT", str(free_port()))
    monkeypatch.setenv("A2LC_DATA_DIR", str(tmp_path))
    run = CliRunner()
    assert run.invoke(app, ["health"]).exit_code == 1
    lonely = run.invoke(app, ["health", "--worker"])
    assert lonely.exit_code == 1
    assert "no worker of this machine" in lonely.output


def secrets_in(folder: Path) -> dict[str, str]:
    subprocess.run([REPOSITORY / "docker/secrets.sh", folder / "secrets"], check=True, capture_output=True)
    return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}


@dataclass
class Team:
    """What the compose file starts, as processes of this machine.

    Args:
        compose: the file.
        folder: for data, secrets and logs.
    """

    compose: Mapping[str, Any]
    folder: Path
    ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.secrets = secrets_in(self.folder)
        self.postgres = PostgresServer("postgres", self.secrets["postgres_password"])
        self.redis = RedisServer(self.folder, self.secrets["redis_password"])
        self.ports = {"label-studio": free_port(), "backend": free_port()}
        for service in SERVICES:
            own = self.folder / f"secrets-{service}"
            own.mkdir()
            for name in self.compose["services"][service].get("secrets", ()):
                (own / name).write_text(self._here(self.secrets[name]))

    def environment(self, service: str) -> dict[str, str]:
        """What a service is given, with the addresses of this machine."""
        given = self.compose["services"][service].get("environment", {})
        plain = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in given.items()}
        here = {name: self._here(value) for name, value in plain.items()}
        return here | {"SECRETS": str(self.folder / f"secrets-{service}")}

    def _here(self, text: str) -> str:
        for service, port in self.ports.items():
            text = re.sub(rf"//{service}:\d+", f"//127.0.0.1:{port}", text)
        text = text.replace("@postgres/", f"@127.0.0.1:{self.postgres.port}/")
        text = text.replace("@redis:6379", f"@127.0.0.1:{self.redis.port}")
        return text.replace("file:///data", f"file://{self.folder}/data").replace("/data/w", f"{self.folder}/data/w")

    def label_studio(self) -> Server:
        environment = self.environment("label-studio") | {
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.folder / "label-studio"), "POSTGRE_HOST": "127.0.0.1",
            "POSTGRE_PORT": str(self.postgres.port), "LATEST_VERSION_CHECK": "false",
        }  # fmt: skip
        port = self.ports["label-studio"]
        command = [
            "sh", str(REPOSITORY / "docker/label-studio.sh"), str(LABEL_STUDIO_PROGRAM), "start", "--no-browser",
            "--port", str(port), "--internal-host", "127.0.0.1",
        ]  # fmt: skip
        log = self.folder / "label-studio.log"
        return Server(command, environment, f"http://127.0.0.1:{port}", log, wait_seconds=240)

    def program(self, service: str) -> dict[str, str]:
        """The environment of backend or worker."""
        more = {
            "A2LC_SECRETS_DIR": str(self.folder / f"secrets-{service}"), "A2LC_DATA_DIR": str(self.folder / "data"),
            "A2LC_HOST": "127.0.0.1", "A2LC_PORT": str(self.ports["backend"]), "PYTHONPATH": str(REPOSITORY),
            "A2LC_SUPERPIXELS": "8", "COLUMNS": "200",
        }  # fmt: skip
        return self.environment(service) | more

    def run(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "a2lc_backend", *command], env=os.environ | self.program(service),
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip


@pytest.fixture
def team(compose: Mapping[str, Any], tmp_path: Path) -> Iterator[Team]:
    """Databases, Redis, Label Studio, backend and a worker, each with the environment of the compose file."""
    made = Team(compose, tmp_path)
    with ExitStack() as stack:
        made.postgres.start()
        stack.callback(made.postgres.stop)
        subprocess.run(
            ["sh", REPOSITORY / "docker/databases.sh"], check=True, capture_output=True,
            env=os.environ | made.environment("postgres") | {
                "PGHOST": "127.0.0.1", "PGPORT": str(made.postgres.port),
                "PGPASSWORD": made.secrets["postgres_password"],
            },
        )  # fmt: skip
        made.redis.start()
        stack.callback(made.redis.end)
        stack.callback(made.label_studio().start().stop)
        backend = Server(
            [sys.executable, *SHORT, "serve"], made.program("backend"), f"http://127.0.0.1:{made.ports['backend']}",
            tmp_path / "backend.log",
        )  # fmt: skip
        stack.callback(backend.start().stop)
        worker = WorkerProcess(made.program("worker"), tmp_path / "worker.log")
        worker.start()
        stack.callback(worker.end)
        yield made


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_the_services_find_each_other_and_run_a_round(team: Team, tmp_path: Path) -> None:
    world = draw_world(tmp_path / "street", images=2, val_images=1)
    url, token = f"http://127.0.0.1:{team.ports['label-studio']}", team.secrets["label_studio_api_key"]
    studio = LabelStudio(base_url=url, api_key=token)
    config = (REPOSITORY / "label_studio_config/street.xml").read_text()
    project = ("--project", str(studio.projects.create(title="compose", label_config=config).id))
    paths = [world.image_path(name) for name in world.names]
    httpx.post(
        f"{url}/api/projects/{project[1]}/import", headers={"Authorization": f"Token {token}"}, timeout=60,
        files={path.name: (path.name, path.read_bytes()) for path in paths},
    ).raise_for_status()  # fmt: skip
    assert team.run("backend", "health").returncode == 0
    wait_until(lambda: team.run("worker", "health", "--worker").stdout.startswith("lives"), 60, 0.5)
    assert "connected" in team.run("backend", "connect", *project).stdout
    round_0 = team.run("backend", "rounds", "next", *project)
    assert round_0.returncode == 0, round_0.stdout + round_0.stderr
    assert "http://localhost:8080/projects/" in team.run("backend", "rounds", "show", *project).stdout
    doctor = team.run("backend", "doctor", *project)
    assert doctor.returncode == 0, doctor.stdout
    predicted = {item.task for item in studio.predictions.list(project=int(project[1]))}
    assert len(predicted) == len(paths)
    close_client(studio)
    written = "".join(path.read_text(errors="replace") for path in tmp_path.glob("*.log")) + doctor.stdout
    assert [name for name, value in team.secrets.items() if value in written] == []
