"""The commands of the documents, run as a reader would run them.

Every block of commands stands in `RUN_BY` with the test that runs it, or is marked in its document as not run; see
tests/test_docs.py. Addresses and project numbers of a document are replaced by those of the test, and by nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.bench.world import World
from a2lc_backend.demo.annotator import SimulatedAnnotator
from a2lc_backend.demo.servers import free_port
from a2lc_backend.label_studio import LabelStudioProject, close_client, open_client
from tests.conftest import REPOSITORY, wait_until
from tests.documents import Block, block, blocks
from tests.servers import PostgresServer, RedisServer, S3Server
from tests.terminal import Terminal
from tests.test_datasets import add_street, stripes

pytestmark = pytest.mark.e2e

KEY = "f" * 40
TUTORIAL = "docs/tutorial.md"
HERE = "tests/test_docs_run.py"

OPERATIONS = "docs/operations.md"
CONNECT = "docs/how-to/connect.md"
WORKERS = "docs/how-to/workers.md"
POSTGRES = "docs/how-to/postgresql.md"
WEIGHTS_LIST = "a2lc weights list                                   # names, sizes, licences, what is there"
PROPOSALS = "export A2LC_PROPOSALS=grounded-sam                  # or in a project's extra params"
EXPORTS = "a2lc export --project 7 --format png --out labels                 # the last finished round"
S3 = "export A2LC_ARTIFACTS_URL=s3://masks/a2lc               # bucket and prefix"
CITYSCAPES = "a2lc bench --data path/to/cityscapes --methods a2lc --budget 20 --rounds 1 --out bench-try"
ADDRESSES = "export A2LC_REDIS_URL=redis://redis.example:6379/0                      # carries jobs, keeps nothing"
NEW_ROLE = "psql --dbname=postgres --command \"CREATE ROLE ledger LOGIN PASSWORD 'a-password'\""
LEDGER = "export A2LC_DATABASE_URL=postgresql://ledger:a-password@db.example:5432/ledger"
EMPTIED = "psql --quiet \"$A2LC_DATABASE_URL\" --command 'DROP SCHEMA public CASCADE; CREATE SCHEMA public'"
REBUILD = "a2lc rebuild --project 7        # while no backend runs: a new store; nothing in Label Studio is changed"
WATCH = "a2lc rounds watch --project 7   # until it is done"
SERVERS = f"{HERE}::test_a_backend_is_started"
PROJECT = f"{HERE}::test_commands_about_a_project"
BACKUP = "tests/test_upgrade.py::test_the_backup_of_operations_comes_back"
LOST = f"{HERE}::test_a_store_that_is_lost_is_rebuilt"

SECRETS = "tests/test_docker.py::test_each_service_gets_its_secrets_and_no_other_and_none_is_written_down"

RUN_BY: dict[tuple[str, str], str] = {
    (TUTORIAL, "*"): f"{HERE}::test_the_tutorial",
    ("README.md", "export LABEL_STUDIO_URL=http://label-studio.example:8080"): SERVERS,
    ("README.md", "a2lc connect --project 7        # or Settings > Model > Connect Model"): PROJECT,
    ("README.md", "a2lc export --project 7 --format png --out labels"): PROJECT,
    (CONNECT, "export LABEL_STUDIO_URL=http://label-studio.example:8080"): SERVERS,
    (CONNECT, "a2lc connect --project 7"): PROJECT,
    ("docs/how-to/control-room.md", "a2lc rounds list --project 7"): PROJECT,
    ("docs/how-to/foundation-models.md", WEIGHTS_LIST): PROJECT,
    ("docs/how-to/foundation-models.md", PROPOSALS): SERVERS,
    ("docs/export.md", EXPORTS): PROJECT,
    ("docs/how-to/s3.md", S3): f"{HERE}::test_artifacts_on_s3",
    ("docs/how-to/cityscapes.md", CITYSCAPES): f"{HERE}::test_the_benchmark_on_a_small_cityscapes",
    (WORKERS, ADDRESSES): f"{HERE}::test_workers_on_postgresql_and_redis",
    (WORKERS, "a2lc serve"): f"{HERE}::test_workers_on_postgresql_and_redis",
    (WORKERS, "a2lc worker --queues a2lc-gpu,a2lc-cpu"): f"{HERE}::test_workers_on_postgresql_and_redis",
    (POSTGRES, NEW_ROLE): f"{HERE}::test_workers_on_postgresql_and_redis",
    (POSTGRES, LEDGER): f"{HERE}::test_workers_on_postgresql_and_redis",
    ("docs/docker.md", "docker/secrets.sh"): SECRETS,
    (OPERATIONS, "mkdir backup"): BACKUP,
    (OPERATIONS, "mkdir backup-of-team"): BACKUP,
    (OPERATIONS, 'mkdir -p "$A2LC_DATA_DIR"'): BACKUP,
    (OPERATIONS, EMPTIED): BACKUP,
    (OPERATIONS, REBUILD): LOST,
    (OPERATIONS, WATCH): LOST,
    ("docs/security.md", "A2LC_IMAGE_HOSTS=minio:9000,pictures.lan,10.1.0.0/16"): SERVERS,
}
"""Document and first line of a block, or * for all blocks of a document in their order: the test that runs it."""


class Reader:
    """Somebody who follows the documents in a clone of the repository."""

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "clone"
        self.clone.mkdir()
        self.ports = {"8080": str(free_port()), "9090": str(free_port())}
        studio = os.environ.get("A2LC_TEST_LABEL_STUDIO", REPOSITORY / ".venv-label-studio/bin/label-studio")
        (self.clone / ".venv").symlink_to(Path(sys.prefix))
        (self.clone / ".venv-label-studio").symlink_to(Path(studio).absolute().parents[1])
        self._environment = {
            "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", "A2LC_HOST": "127.0.0.1", "A2LC_PORT": self.ports["9090"],
        }  # fmt: skip
        self.terminals = [Terminal(self.clone, folder / f"terminal-{n}", self._environment) for n in (1, 2, 3)]
        self.studio, self.backend, self.own = self.terminals

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}"

    def text_of(self, item: Block, meanings: Mapping[str, str] | None = None) -> str:
        """A block of commands; its ports are the test's."""
        ports = {port: real for port, real in self.ports.items() if port in item.text}
        return item.meaning({**(meanings or {}), **ports})

    def text(self, document: str, first: str, meanings: Mapping[str, str] | None = None) -> str:
        """The block of a document that begins so."""
        return self.text_of(block(document, first), meanings)

    def terminal(self, log: Path, environment: Mapping[str, str] | None = None) -> Terminal:
        """One more terminal in the clone."""
        path = f"{self.clone / '.venv/bin'}:{os.environ['PATH']}"
        return Terminal(self.clone, log, {**self._environment, "PATH": path, **(environment or {})})

    def serve(self) -> None:
        """Start the tutorial's backend again."""
        self.backend.serve(". tutorial/env.sh\na2lc serve", self.url("9090"))

    def close(self) -> None:
        for terminal in self.terminals:
            terminal.interrupt()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    made = Reader(tmp_path_factory.mktemp("reader"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> World:
    return draw_world(tmp_path_factory.mktemp("photographs"), images=12, val_images=1, size=(96, 128))


def token(reader: Reader) -> str:
    return reader.own.run("echo $LABEL_STUDIO_API_KEY").strip()


def answer_one_by_one(reader: Reader, world: World, count: int) -> int:
    """Answer masks on the review page as its program does: whatever is asked, the first class that is there."""
    with httpx.Client(base_url=reader.url("9090"), timeout=60) as browser:
        account = {"email": "me@example.com", "password": "tutorial-password"}
        browser.post("/api/login", json=account).raise_for_status()
        leased = browser.post("/api/projects/1/review/lease", json={"count": count}).raise_for_status().json()
        given = [
            {name: item[name] for name in ("round", "task", "region")}
            | {"id": str(uuid.uuid4()), "kind": "label", "label": world.classes.index("Road"), "seconds": 1.0}
            for item in leased["questions"]
        ]
        said = browser.post("/api/projects/1/review/answers", json={"answers": given}).raise_for_status().json()
    assert said["refused"] == []
    return len(said["accepted"])


def answer_in_place(reader: Reader, world: World) -> int:
    """Correct every queued image in Label Studio from the truth."""
    client = open_client(reader.url("8080"), token(reader))
    try:
        config = LabelStudioProject(client, reader.url("8080"), 1).config
        return SimulatedAnnotator(client, 1, config, world.truth).work().looked_at
    finally:
        close_client(client)


@pytest.fixture(scope="module")
def followed(reader: Reader, photographs: World) -> list[str]:
    """The tutorial, done but for its cleaning up; what each block of the reader's own terminal printed."""
    printed: list[str] = []
    for item in blocks(TUTORIAL):
        if item.not_run or not item.is_shell:
            continue
        text = reader.text_of(item)
        if "label-studio start" in text:
            folder = reader.clone / "tutorial/images"
            for name in photographs.names:
                path = photographs.image_path(name)
                (folder / path.name).write_bytes(path.read_bytes())
            reader.studio.serve(text, reader.url("8080"))
        elif "a2lc serve" in text:
            reader.backend.serve(text, reader.url("9090"))
        elif not text.startswith("rm "):
            printed.append(reader.own.run(text))
            if "Round 0 of project 1: done" in printed[-1]:
                assert answer_one_by_one(reader, photographs, 10) == 10
                assert answer_in_place(reader, photographs) >= 20
    return printed


@pytest.mark.timeout(600)
def test_the_tutorial(reader: Reader, photographs: World, followed: list[str]) -> None:
    _, _, connected, *rounds, exported = followed
    assert "connected: ML backend" in connected
    assert "FAIL" not in connected
    for number, said in enumerate(rounds):
        assert f"Round {number} of project 1: done" in said
        assert "labeling=1" in said
    assert len(rounds) == 2
    assert "answered: 40\n" in rounds[1]
    assert "changed by people: 40\n" in rounds[1], "superpixels had no labels before"
    assert exported.count(".jpg") == exported.count(".png") == len(photographs.names), "images and label maps"
    manifest = json.loads((reader.clone / "tutorial/labels/manifest.json").read_text())
    assert manifest["images"] == len(photographs.names)


def as_project_1(text: str) -> str:
    """The commands of a document about project 7, for the project of the tutorial."""
    assert "--project 7" in text
    return text.replace("--project 7", "--project 1")


def test_commands_about_a_project(reader: Reader, followed: list[str]) -> None:
    said = reader.own.run(as_project_1(block(CONNECT, "a2lc connect --project 7").text))
    assert "was connected already" in said
    assert "FAIL" not in said
    said = reader.own.run(as_project_1(block("docs/how-to/control-room.md", "a2lc rounds list").text))
    assert "none → Road: approved from the next round on" in said
    reader.own.run("mkdir exports && cd exports")
    exports = {"--project 7": "--project 1", "--round 3": "--round 1"}
    reader.own.run(block("docs/export.md", EXPORTS).meaning(exports))
    made = sorted(path.name for path in (reader.clone / "exports").iterdir())
    assert made == ["labels", "people", "voc"]
    reader.own.run("rm -r labels")
    reader.own.run(as_project_1(block("README.md", "a2lc export").text))
    assert (reader.clone / "exports/labels/manifest.json").exists()
    reader.own.run("cd ..")
    assert "sam-vit-b" in reader.own.run(block("docs/how-to/foundation-models.md", WEIGHTS_LIST).text)


def test_artifacts_on_s3(reader: Reader, followed: list[str], s3: S3Server, tmp_path: Path) -> None:
    terminal = reader.terminal(tmp_path / "s3")
    terminal.run(". tutorial/env.sh")
    told = block("docs/how-to/s3.md", S3)
    own = s3.environment
    said = terminal.run(told.meaning({
        "=... AWS": f"={own['AWS_ACCESS_KEY_ID']} AWS", "KEY=...": f"KEY={own['AWS_SECRET_ACCESS_KEY']}",
        "http://minio.example:9000": own["AWS_ENDPOINT_URL"],
    }))  # fmt: skip
    assert "ok   artifacts: " in said
    assert "FAIL" not in said
    wrong = terminal.run("AWS_ENDPOINT_URL=http://127.0.0.1:9 a2lc doctor || true")
    assert "FAIL artifacts: " in wrong


@pytest.mark.timeout(600)
def test_a_store_that_is_lost_is_rebuilt(reader: Reader, followed: list[str]) -> None:
    """A backup comes back and the project goes on; then everything is lost, and comes back from Label Studio."""
    data = reader.clone / "tutorial/backend"
    before = reader.own.run("a2lc rounds list --project 1")
    reader.own.run(block(OPERATIONS, "mkdir backup").text)
    reader.backend.interrupt()
    shutil.rmtree(data)
    reader.own.run(block(OPERATIONS, 'mkdir -p "$A2LC_DATA_DIR"').text)
    reader.serve()
    assert reader.own.run("a2lc rounds list --project 1") == before
    assert "FAIL" not in reader.own.run("a2lc doctor --project 1")

    reader.backend.interrupt()
    shutil.rmtree(data)
    said = reader.own.run(as_project_1(block(OPERATIONS, "a2lc rebuild").text))
    assert "rebuilt round 1" in said
    reader.serve()
    said = reader.own.run(as_project_1(block(OPERATIONS, "a2lc rounds watch").text))
    assert "Round 1 of project 1: done" in said
    assert "Round 2 of project 1: done" in said


def test_the_tutorial_cleans_up(reader: Reader, followed: list[str]) -> None:
    reader.backend.interrupt()
    reader.studio.interrupt()
    reader.own.run(block(TUTORIAL, "rm -r tutorial").text)
    assert not (reader.clone / "tutorial").exists()


@pytest.mark.parametrize(
    ("document", "first"), [key for key, test in RUN_BY.items() if test == SERVERS], ids=lambda word: word[:40]
)
def test_a_backend_is_started(reader: Reader, tmp_path: Path, document: str, first: str) -> None:
    """Addresses that nobody answers at: the backend starts without Label Studio, and says so where it is asked."""
    text = reader.text(document, first)
    if not text.rstrip().endswith("a2lc serve"):
        text = f"set -a\n{text}\nset +a\na2lc serve"
    terminal = reader.terminal(tmp_path, {"A2LC_DATA_DIR": str(tmp_path / "data")})
    try:
        terminal.serve(text, reader.url("9090"), 120)
    finally:
        terminal.interrupt()


def test_workers_on_postgresql_and_redis(reader: Reader, postgres: PostgresServer, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    redis.start()
    administrator = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": "a2lc"}
    places = {
        "redis://redis.example:6379/0": redis.url, "/shared/a2lc": str(tmp_path / "shared"), "KEY=...": f"KEY={KEY}",
        "postgresql://a2lc:password@db.example/a2lc": f"postgresql://ledger:a-password@127.0.0.1:{postgres.port}/ledger",
    }  # fmt: skip
    terminals = [reader.terminal(tmp_path / name, administrator) for name in ("backend", "worker", "own")]
    backend, worker, own = terminals
    try:
        own.run(block(POSTGRES, NEW_ROLE).text)
        backend.serve(
            reader.text(POSTGRES, LEDGER, {"db.example:5432": f"127.0.0.1:{postgres.port}"}), reader.url("9090"), 120
        )
        backend.interrupt()
        for terminal in terminals:
            terminal.run(reader.text(WORKERS, ADDRESSES, places))
        backend.serve(block(WORKERS, "a2lc serve").text, reader.url("9090"), 120)
        worker.serve(block(WORKERS, "a2lc worker").text, reader.url("9090"))
        headers = {"Authorization": f"Token {KEY}"}

        def queues() -> set[str]:
            found = (
                httpx.get(f"{reader.url('9090')}/api/workers", headers=headers, timeout=30).raise_for_status().json()
            )
            return {queue for item in found for queue in item["queues"]}

        wait_until(lambda: queues() == {"a2lc-gpu", "a2lc-cpu"}, 120, 0.5)
    finally:
        for terminal in terminals:
            terminal.interrupt()
        redis.end()


def test_the_benchmark_on_a_small_cityscapes(reader: Reader, tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    for split, numbers in (("train", (0, 1, 2, 3)), ("val", (4,))):
        for number in numbers:
            add_street(root, split, "ulm", number, stripes([7, 11, 21, 26]))
    terminal = reader.terminal(tmp_path / "bench")
    said = terminal.run(block("docs/how-to/cityscapes.md", CITYSCAPES).meaning(
        {"path/to/cityscapes": str(root), "bench-try": str(tmp_path / "bench-try")}
    ))  # fmt: skip
    assert "report: " in said
    assert "a2lc" in (tmp_path / "bench-try/report.md").read_text()
