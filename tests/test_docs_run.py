"""The commands of the documents, run as a reader would run them.

Every block of commands stands in `RUN_BY` with the test that runs it, or is marked in its document as not run; see
tests/test_docs.py. Addresses and project numbers of a document are replaced by those of the test, and by nothing else.
"""

from __future__ import annotations

import os
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
from tests.conftest import REPOSITORY
from tests.documents import Block, block, blocks
from tests.terminal import Terminal

pytestmark = pytest.mark.e2e

TUTORIAL = "docs/tutorial.md"
HERE = "tests/test_docs_run.py"

RUN_BY: dict[tuple[str, str], str] = {
    (TUTORIAL, "*"): f"{HERE}::test_the_tutorial",
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
        environment = {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", "A2LC_HOST": "127.0.0.1",
                       "A2LC_PORT": self.ports["9090"]}  # fmt: skip
        self.terminals = [Terminal(self.clone, folder / f"terminal-{n}", environment) for n in (1, 2, 3)]
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


@pytest.mark.timeout(900)
def test_the_tutorial(reader: Reader, photographs: World) -> None:
    rounds = 0
    for item in blocks(TUTORIAL):
        if item.not_run or not item.is_shell:
            continue
        text = reader.text_of(item)
        if "label-studio start" in text:
            for name in photographs.names:
                (reader.clone / "tutorial/images" / f"{name}.png").write_bytes(
                    photographs.image_path(name).read_bytes()
                )
            reader.studio.serve(text, reader.url("8080"))
        elif "a2lc serve" in text:
            reader.backend.serve(text, reader.url("9090"))
        elif text.startswith("rm "):
            labels = sorted(path.stem for path in (reader.clone / "tutorial/labels/labels").iterdir())
            assert labels == sorted(photographs.names)
            reader.backend.interrupt()
            reader.studio.interrupt()
            reader.own.run(text)
            assert not (reader.clone / "tutorial").exists()
        else:
            said = reader.own.run(text)
            if "a2lc doctor" in text:
                assert "FAIL" not in said
            if "rounds next" in text:
                assert f"Round {rounds} of project 1: done" in said
                assert "labeling=1" in said
                if rounds == 0:
                    assert answer_one_by_one(reader, photographs, 10) == 10
                    assert answer_in_place(reader, photographs) >= 20
                rounds += 1
    assert rounds == 2
