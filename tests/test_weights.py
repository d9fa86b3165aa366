"""Weights: fetched whole or not at all, compared with what was published, and never without the licence's yes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from typer.testing import CliRunner

from a2lc_backend import weights as module
from a2lc_backend.cli import app
from a2lc_backend.weights import CATALOG, Entry, File, Weights, WeightsError, entry

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
DINOV3 = "dinov3-vits16"
DOCS = Path(__file__).parents[1] / "docs/weights.md"


class Publisher(ThreadingHTTPServer):
    """Serves one file; the first answers may be cut off half way, or wrong."""

    cuts = 0
    refusals = 0
    content = CONTENT
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: Publisher

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        begin = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
        self.server.asked.append(self.headers.get("Range") or "")
        if self.server.refusals:
            self.server.refusals -= 1
            self.send_error(503)
            return
        rest = self.server.content[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            self.wfile.write(rest[: len(rest) // 2])
            return
        self.wfile.write(rest)


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    server = Publisher(("127.0.0.1", 0), _Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    own = replace(
        entry("sam-vit-b"), source=f"http://127.0.0.1:{server.server_port}",
        files=(File("sam_vit_b_01ec64.pth", len(CONTENT), DIGEST),),
    )  # fmt: skip
    monkeypatch.setattr(module, "CATALOG", tuple(own if item.name == own.name else item for item in CATALOG))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def silent(_done: int, _total: int) -> None:
    pass


def test_a_fetch_that_is_cut_off_goes_on_and_ends_whole(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cuts = 2
    publisher.refusals = 1
    told: list[tuple[int, int]] = []
    path = Weights(tmp_path).fetch("sam-vit-b", lambda *step: told.append(step))
    assert path == tmp_path / "sam-vit-b/sam_vit_b_01ec64.pth"
    assert path.read_bytes() == CONTENT
    assert publisher.asked == ["", "", f"bytes={len(CONTENT) // 2}-", f"bytes={len(CONTENT) * 3 // 4}-"]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert list(Weights(tmp_path).check("sam-vit-b")) == []
    assert not list(tmp_path.glob("*.part"))


def test_one_that_cannot_end_leaves_nothing_that_looks_whole(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cuts = 100
    weights = Weights(tmp_path)
    with pytest.raises(WeightsError, match=r"cannot be fetched .* it goes on after [\d,]+ bytes"):
        weights.fetch("sam-vit-b", silent)
    assert not weights.has("sam-vit-b")
    publisher.cuts = 0
    assert weights.fetch("sam-vit-b", silent).read_bytes() == CONTENT


def test_what_is_not_what_was_published_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    publisher.content = CONTENT[::-1]
    weights = Weights(tmp_path)
    with pytest.raises(WeightsError, match="is not what was published"):
        weights.fetch("sam-vit-b", silent)
    assert not weights.has("sam-vit-b")
    publisher.content = CONTENT
    assert weights.fetch("sam-vit-b", silent).read_bytes() == CONTENT, "nothing of it is kept"


def test_altered_and_missing_files_are_found(publisher: Publisher, tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    path = weights.fetch("sam-vit-b", silent)
    path.write_bytes(CONTENT[:-1])
    assert "has 1,023,999 bytes, published are 1,024,000" in next(weights.check("sam-vit-b"))
    path.write_bytes(CONTENT[1:] + b"x")
    assert "is not what was published" in next(weights.check("sam-vit-b"))
    path.unlink()
    with pytest.raises(WeightsError, match="a2lc weights fetch sam-vit-b - or, without internet, put the files of"):
        list(weights.check("sam-vit-b"))
    with pytest.raises(WeightsError, match="no weights are named 'sam'; choose one of sam-vit-b, "):
        weights.path("sam")


def test_a_folder_that_was_copied_by_hand_is_used(tmp_path: Path) -> None:
    (tmp_path / "sam_vit_l_0b3195.pth").write_bytes(b"x")
    assert Weights(tmp_path).path("sam-vit-l") == tmp_path / "sam_vit_l_0b3195.pth"
    folder = tmp_path / "dinov2-small"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert not Weights(tmp_path).has("dinov2-small")
    (folder / "model.safetensors").write_bytes(b"y")
    weights = Weights(tmp_path)
    assert weights.path("dinov2-small") == folder
    assert "it has 1 bytes, published are" in next(weights.check("dinov2-small"))
    assert weights.unverified("dinov2-small") == ["config.json"]


SAVED = ("config.json", "model.safetensors", "preprocessor_config.json")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Hugging Face, which cannot be reached from a test: writes three files."""
    asked: list[tuple[Any, ...]] = []

    def download(repository: str, *, revision: str, local_dir: Path, allow_patterns: list[str]) -> None:
        asked.append((repository, revision, allow_patterns))
        for name in SAVED:
            (Path(local_dir) / name).write_text(name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    content = SAVED[1].encode()
    weights = File(SAVED[1], len(content), hashlib.sha256(content).hexdigest())
    changed = {name: replace(entry(name), files=(weights, File("config.json"))) for name in ("dinov2-small", DINOV3)}
    monkeypatch.setattr(module, "CATALOG", tuple(changed.get(item.name, item) for item in CATALOG))
    return asked


def test_a_repository_is_fetched_at_its_revision_and_remembered(hub: list[Any], tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    folder = weights.fetch("dinov2-small", silent)
    (asked,) = hub
    assert asked[:2] == ("facebook/dinov2-small", entry("dinov2-small").revision)
    assert {"model.safetensors", "*.json"} <= set(asked[2])
    kept = json.loads((folder / module.MANIFEST).read_text())
    assert (kept["revision"], kept["licence"]) == (entry("dinov2-small").revision, "Apache-2.0")
    assert set(kept["files"]) == set(SAVED)
    assert weights.unverified("dinov2-small") == []
    (folder / "config.json").write_text("altered")
    assert "config.json is not what was published" in next(weights.check("dinov2-small"))


def test_a_repository_that_gives_something_else_is_refused(
    hub: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = Weights(tmp_path)
    monkeypatch.setattr(module, "CATALOG", CATALOG)  # with the checksum of the real file
    with pytest.raises(WeightsError, match="is not what was published"):
        published.fetch("dinov2-small", silent)
    assert not published.has("dinov2-small")


def test_weights_under_their_own_licence_need_a_yes(hub: list[Any], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"DINOv3 License.*--accept-licence dinov3-vits16"):
        Weights(tmp_path).fetch(DINOV3, silent)
    assert hub == []
    Weights(tmp_path, {DINOV3}).fetch(DINOV3, silent)
    assert not Weights(tmp_path).has(DINOV3), "being there is not enough"
    assert Weights(tmp_path, {DINOV3}).has(DINOV3)
    assert [item.name for item in CATALOG if item.commercial != "yes"] == [DINOV3, "dinov3-vitb16"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A2LC_WEIGHTS_DIR", str(tmp_path / "weights"))
    return lambda *words: CliRunner().invoke(app, ["weights", *words])


def test_the_commands_say_what_there_is(publisher: Publisher, run: Callable[..., Any], tmp_path: Path) -> None:
    assert "a2lc weights fetch sam-vit-b" in run("check").output
    fetched = run("fetch", "sam-vit-b")
    assert fetched.exit_code == 0, fetched.output
    assert "Apache-2.0" in fetched.output
    assert "is there already" in run("fetch", "sam-vit-b").output
    rows = {row["name"]: row for row in json.loads(run("list", "--json").output)}
    assert rows.keys() == {item.name for item in CATALOG}
    assert [name for name, row in rows.items() if row["present"]] == ["sam-vit-b"]
    assert "sam-vit-h" in run("list").output
    assert run("check").output == "sam-vit-b: whole\n"
    (tmp_path / "weights/sam-vit-b/sam_vit_b_01ec64.pth").write_bytes(b"short")
    broken = run("check")
    assert broken.exit_code == 1
    assert "get it again with: a2lc weights fetch sam-vit-b" in broken.output
    assert run("fetch", "nothing").exit_code == 1


def row(item: Entry) -> str:
    size = item.files[0].size
    megabytes = f"{size / 1e6:,.0f} MB" if size else ""
    return (
        f"| `{item.name}` | {item.use} | {megabytes} | {item.licence} | {item.commercial} | "
        f"{item.address.removeprefix('https://')} |"
    )


def test_the_docs_list_what_there_is() -> None:
    table = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    table = [line for line in table if "A2LC_" not in line]
    assert table == [row(item) for item in CATALOG]
