"""Artifacts on a server that speaks S3: what is written there comes back, for every process, and rounds run on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from a2lc_backend.bench.world import World
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.store import ArtifactError, Artifacts
from tests.servers import S3Server
from tests.world_run import Run

pytestmark = pytest.mark.e2e


@pytest.fixture
def address(s3: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.bucket}/{request.node.name}"


def elsewhere(code: str, address: str) -> None:
    """Do something with the artifacts in another process."""
    code = f"from a2lc_backend.store import Artifacts; artifacts = Artifacts({address!r}); {code}"
    subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=True)


def test_artifacts_come_back_as_written_for_every_process(address: str) -> None:
    artifacts = Artifacts(address)
    arrays = {"ids": np.arange(6, dtype=np.uint16).reshape(2, 3), "names": np.array(["x", "übergroß"])}
    artifacts.write_arrays("deep/er/one", arrays, compress=True)
    artifacts.write("deep/two", b"first")
    artifacts.write("deep/two", b"second")
    for name, array in artifacts.read_arrays("deep/er/one").items():
        np.testing.assert_array_equal(array, arrays[name])
    assert not artifacts.exists("deep/three")
    elsewhere("assert artifacts.read('deep/two') == b'second'; artifacts.write('deep/three', b'third')", address)
    assert artifacts.exists("deep/three")
    assert artifacts.read("deep/three") == b"third"
    with pytest.raises(ArtifactError, match="deep/four is missing"):
        artifacts.read("deep/four")


def test_what_another_process_wrote_is_deleted_too(address: str) -> None:
    artifacts = Artifacts(address)
    artifacts.write("rounds/1/labels", b"1")
    artifacts._fs.find(artifacts._root)  # now s3fs believes to know what is there
    elsewhere("artifacts.write('rounds/1/scores', b'2'); artifacts.write('rounds/10/labels', b'3')", address)
    artifacts.delete("rounds/1")
    artifacts.delete("rounds/7")
    assert not artifacts.exists("rounds/1/labels")
    assert not artifacts.exists("rounds/1/scores")
    assert artifacts.exists("rounds/10/labels")


def test_a_bucket_that_is_not_there_is_made(address: str) -> None:
    artifacts = Artifacts(address.replace("masks", "new-bucket"))
    artifacts.write("one", b"1")
    assert artifacts.read("one") == b"1"


@pytest.mark.usefixtures("short_training")
def test_a_round_runs_on_it(address: str, world: World, tmp_path: Path) -> None:
    run = Run(world, tmp_path)
    run.workspace = Workspace(Artifacts(address), 1)
    record = run.round()
    run.ledger.close()
    assert (record.number, record.status, run.miou(0) > 0.1) == (0, "done", True)
    assert not (tmp_path / "artifacts").exists()
    elsewhere("assert artifacts.exists('project-1/rounds/0/labels')", address)
