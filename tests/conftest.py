"""What several test modules share."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import structlog
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.types.prediction import Prediction
from numpy.typing import NDArray

from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.bench.world import World
from a2lc_backend.demo.servers import Account, Server, label_studio
from a2lc_backend.label_studio import close_client, open_client
from a2lc_backend.masks import MaskSet
from a2lc_backend.store import Artifacts, Ledger
from tests.servers import PostgresServer, S3Server

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"


OWN_TOKEN = {"Authorization": f"Token {'f' * 40}"}
"""How a program asks a backend whose own token is made of f."""

LABEL_STUDIO_PROGRAM = Path(
    os.environ.get("A2LC_TEST_LABEL_STUDIO", REPOSITORY / ".venv-label-studio/bin/label-studio")
)


def shared(name: str) -> Path:
    """A folder of reference data beside the checkout; the test is left out where it is not there."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with servers first: they wait more than they work, and the short ones fill what is left in the end."""
    with_servers = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: item.path not in with_servers)


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """A command under test may set the log to a stream that ends with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL on a free port."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that speaks S3 on a free port, with an empty bucket."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.e2e, pytest.mark.postgres])])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
    else:
        url = request.getfixturevalue("postgres").new_database()
    with closing(Ledger(url)) as opened:
        yield opened


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    """An empty folder of artifacts."""
    return Artifacts(f"file://{tmp_path / 'artifacts'}")


def wait_until(true: Callable[[], object], seconds: float = 60.0, step: float = 0.05) -> None:
    """Wait for something to become true; fails if it does not in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(step)


def grid_masks(rows: int, columns: int, cell: int = 8, labels: list[int] | None = None) -> MaskSet:
    """Masks that tile an image like a chessboard, row by row."""
    ids = np.arange(1, rows * columns + 1, dtype=np.uint16).reshape(rows, columns)
    first = np.array(labels if labels is not None else [0] * (rows * columns), np.int64)
    names = tuple(f"m{number}" for number in range(1, rows * columns + 1))
    return MaskSet(ids.repeat(cell, 0).repeat(cell, 1), names, first, {})


def random_soft_labels(classes: int, height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Soft labels with some structure, (C, H, W)."""
    values = np.random.default_rng(seed).gamma(0.3, size=(classes, height, width)) + 1e-6
    return (values / values.sum(0)).astype(np.float32)


@dataclass(frozen=True)
class Studio:
    """A running Label Studio and its admin."""

    server: Server
    account: Account
    client: LabelStudio

    @property
    def url(self) -> str:
        return self.server.url


def migrated_database(program: Path, cache: pytest.Cache) -> Path:
    """An empty database of Label Studio as its migrations leave it: they take half a minute, so they run once."""
    pins = hashlib.sha256((REPOSITORY / "requirements-label-studio.txt").read_bytes()).hexdigest()
    kept = cache.mkdir("label-studio") / f"{pins[:16]}.sqlite3"
    with (kept.parent / "lock").open("w") as lock, tempfile.TemporaryDirectory() as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes begin at once
        if not kept.exists():
            find = "import os, importlib.util as u; print(os.path.dirname(u.find_spec('label_studio').origin))"
            python = program.with_name("python")
            package = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout.strip()
            subprocess.run(
                [python, f"{package}/manage.py", "migrate", "--verbosity", "0"], check=True, capture_output=True,
                env=os.environ | {"LABEL_STUDIO_BASE_DATA_DIR": folder, "COLLECT_ANALYTICS": "false"},
            )  # fmt: skip
            made = Path(shutil.copy(Path(folder) / "label_studio.sqlite3", kept.parent / "made"))
            made.replace(kept)
    return kept


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Studio]:
    """A real Label Studio on a free port, fresh for this test run."""
    program = LABEL_STUDIO_PROGRAM
    if not program.exists():
        pytest.fail(f"there is no {program}; run these tests with `make test`, which installs Label Studio")
    account = Account()
    files = tmp_path_factory.mktemp("files")
    folder = tmp_path_factory.mktemp("label-studio")
    assert pytestconfig.cache is not None
    shutil.copy(migrated_database(program, pytestconfig.cache), folder / "label_studio.sqlite3")
    server = label_studio(program, folder, account)
    server.environment = {
        **server.environment,
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(files),
    }
    client = open_client(server.url, account.token)
    try:
        yield Studio(server.start(), account, client)
    finally:
        close_client(client)
        server.stop()


@pytest.fixture
def clients() -> Iterator[Callable[[str, str], LabelStudio]]:
    """Opens SDK clients and closes them after the test."""
    opened: list[LabelStudio] = []

    def make(url: str, token: str) -> LabelStudio:
        opened.append(open_client(url, token))
        return opened[-1]

    yield make
    for client in opened:
        close_client(client)


def batch_predict(studio: Studio, project_id: int, task_id: int) -> Prediction:
    """Do what "Retrieve predictions" does in the Data Manager: Label Studio calls /predict and keeps the answer."""
    httpx.post(
        f"{studio.url}/api/dm/actions?id=retrieve_tasks_predictions&project={project_id}",
        headers={"Authorization": f"Token {studio.account.token}"},
        json={"selectedItems": {"all": False, "included": [task_id]}, "filters": {"conjunction": "and", "items": []}},
        timeout=100,
    ).raise_for_status()
    return max(studio.client.predictions.list(task=task_id), key=lambda item: item.id)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Eight drawn street scenes with their truth."""
    return draw_world(tmp_path_factory.mktemp("street"), images=8, val_images=1, size=(120, 160))


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real U-Net, trained for fewer steps: for tests of the rounds around it."""
    monkeypatch.setattr("a2lc_backend.segmenter.unet.MIN_STEPS", 10)
    monkeypatch.setattr("a2lc_backend.segmenter.unet.MAX_STEPS", 10)
