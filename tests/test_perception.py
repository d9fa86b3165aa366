"""Rounds whose masks come from foundation models, loaded as users load theirs."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from a2lc_backend.bench.world import World
from a2lc_backend.features import EMBEDDED, FEATURE_NAMES
from a2lc_backend.foundation import Embedding, FoundationError
from a2lc_backend.foundation.sam import Sam
from a2lc_backend.masks import IGNORE
from a2lc_backend.perception import Perception
from a2lc_backend.proposals import make_proposals
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.runner import RoundFailedError, run_round
from a2lc_backend.settings import ProjectSettings, Settings, SettingsError
from a2lc_backend.store import Artifacts
from tests.tiny_sam import write_sam
from tests.tiny_text import write_dinov2, write_grounding_dino
from tests.world_run import Run

pytestmark = pytest.mark.usefixtures("short_training")

SAM2 = "sam2.1-hiera-small"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_sam(folder / "sam-vit-b/sam_vit_b_01ec64.pth")
    write_grounding_dino(folder / "grounding-dino-tiny", boxes=12)
    write_dinov2(folder / "dinov2-small")
    return folder


def perceive(run: Run, weights: Path, **more: Any) -> Perception:
    settings = Settings(data_dir=run.folder, weights_dir=weights, device="cpu", **more)
    return Perception(settings, Artifacts(f"file://{run.folder / 'artifacts'}"), run.ledger)


def context_of(run: Run, perception: Perception, settings: ProjectSettings) -> Context:
    proposals = make_proposals(
        settings.proposals, foundation=perception.foundation(settings.proposals),
        box_threshold=settings.box_threshold, background=settings.background,
    )  # fmt: skip
    found = run.begin()
    return replace(found, settings=settings, proposals=proposals, appearance=perception.appearance(settings))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, ...]]:
    """How often SAM's encoder was run."""
    runs: Counter[tuple[int, ...]] = Counter()
    embed = Sam.embed
    monkeypatch.setattr(Sam, "embed", lambda self, image: (runs.update(["run"]), embed(self, image))[1])
    return runs


def test_a_round_finds_masks_by_text_and_runs_the_encoder_once_an_image(
    world: World, tmp_path: Path, weights: Path, encoded: Counter[str]
) -> None:
    run, images = Run(world, tmp_path), 8
    settings = ProjectSettings(budget=20, proposals="grounded-sam", box_threshold=0.001, background="Sky")
    perception = perceive(run, weights)
    assert run_round(context_of(run, perception, settings), "test").status == "done"
    labels = run.workspace.labels(0)
    assert len(labels.task_ids) == images
    assert encoded["run"] == images
    sky = world.classes.index("Sky")
    for task_id, key in zip(labels.task_ids.tolist(), labels.mask_keys, strict=True):
        masks, catalog = run.workspace.masks(key), run.workspace.catalog(key)
        assert (masks.mask_ids > 0).all(), "the background takes what is left"
        assert masks.first_labels[masks.region_ids.index(f"t{task_id}background")] == sky
        assert (masks.first_labels != IGNORE).all()
        assert catalog.features.shape[1] == len(FEATURE_NAMES) + EMBEDDED
    assert run_round(context_of(run, perceive(run, weights), settings), "test").number == 1
    assert encoded["run"] == images, "another process reads what the first has seen"


def test_everything_starts_without_labels(world: World, tmp_path: Path, weights: Path) -> None:
    run = Run(world, tmp_path)

    def few(_self: Sam, embedding: Embedding) -> Iterator[np.ndarray[Any, Any]]:
        mask = np.zeros(embedding.size, bool)
        mask[: len(mask) // 2] = True
        return iter([mask, ~mask])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sam, "everything", few)  # random weights find nothing that is stable
        settings = ProjectSettings(budget=20, proposals="sam-everything", appearance="dinov2")
        record = run_round(context_of(run, perceive(run, weights), settings), "test")
    assert record.status == "done"
    labels = run.workspace.labels(0)
    assert (labels.labels == IGNORE).all()
    assert run.workspace.catalog(labels.mask_keys[0]).features.shape[1] == len(FEATURE_NAMES) + EMBEDDED


def test_missing_weights_fail_the_round_with_the_command(world: World, tmp_path: Path) -> None:
    run = Run(world, tmp_path)
    settings = ProjectSettings(budget=20, proposals="grounded-sam")
    with pytest.raises(RoundFailedError, match=r"propose: .* get them with: a2lc weights fetch grounding-dino-tiny"):
        run_round(context_of(run, perceive(run, tmp_path / "none"), settings), "test")
    assert run.problems(0) == [], "no image is to blame"


def test_an_image_too_large_for_the_device_costs_only_itself(
    world: World, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = Run(world, tmp_path), []
    embed = Sam.embed

    def starved(self: Sam, image: np.ndarray[Any, Any]) -> Any:
        seen.append(image)
        if len(seen) == 2:
            raise FoundationError("the device has too little memory for the encoder of SAM")
        return embed(self, image)

    monkeypatch.setattr(Sam, "embed", starved)
    settings = ProjectSettings(budget=20, proposals="grounded-sam", box_threshold=0.001)
    record = run_round(context_of(run, perceive(run, weights), settings), "test")
    assert (record.status, record.summary["tasks_left_out"]) == ("done", 1)
    assert "too little memory" in run.problems(0)[0]


def test_smart_tools_are_answered_by_what_is_there(world: World, tmp_path: Path, weights: Path) -> None:
    run, settings = Run(world, tmp_path), ProjectSettings()
    model = perceive(run, weights).clicked(settings)
    assert model is not None
    assert model.fingerprint.startswith("sam-")
    assert perceive(run, weights, clicks="off").clicked(settings) is None
    assert perceive(run, tmp_path / "none").clicked(settings) is None
    with pytest.raises(SettingsError, match=r"A2LC_CLICKS: .* a2lc weights fetch sam-vit-l"):
        perceive(run, weights, clicks="sam-vit-l").clicked(settings)
    with pytest.raises(SettingsError, match="A2LC_CLICKS: no weights are named"):
        perceive(run, weights, clicks="sam-vit-x").clicked(settings)


def test_the_weights_that_rounds_ask_are_named(world: World, tmp_path: Path) -> None:
    perception = perceive(Run(world, tmp_path), tmp_path / "none")
    for chosen, names in (
        (ProjectSettings(), []),
        (ProjectSettings(proposals="grounded-sam"), ["grounding-dino-tiny", "sam-vit-b"]),
        (ProjectSettings(proposals="sam2", appearance="dinov2"), ["grounding-dino-tiny", SAM2, "dinov2-small"]),
        (ProjectSettings(proposals="sam-everything", appearance="looks"), ["sam-vit-b"]),
        (ProjectSettings(appearance="sam2"), [SAM2]),
    ):  # fmt: skip
        assert perception.needed(chosen) == names


def test_warming_reads_the_weights_and_bad_ones_stop_nothing(world: World, tmp_path: Path, weights: Path) -> None:
    run = Run(world, tmp_path)
    perception = perceive(run, weights)
    perception.warm()
    model = perception.clicked(ProjectSettings())
    (weights / "sam-vit-b").rename(tmp_path / "away")
    try:
        assert model is not None
        assert model.embed(np.zeros((8, 8, 3), np.uint8)).size == (8, 8), "its file is not read again"
    finally:
        (tmp_path / "away").rename(weights / "sam-vit-b")
    chosen = perceive(run, weights, proposals="sam2", sam2="sam2.1-hiera-tiny")
    assert chosen.clicked_name(ProjectSettings(proposals="sam2")) == "sam-vit-b", "its own weights are not there"
    with structlog.testing.capture_logs() as logs:
        perceive(run, tmp_path / "none", clicks="sam-vit-l").warm()
        perceive(run, tmp_path / "none").warm()
    (line,) = logs
    assert "a2lc weights fetch sam-vit-l" in line["error"]


def test_damaged_weights_stop_the_phase_at_once(world: World, tmp_path: Path, weights: Path) -> None:
    run = Run(world, tmp_path)
    folder = tmp_path / "damaged"
    shutil.copytree(weights, folder)
    (folder / "sam-vit-b/sam_vit_b_01ec64.pth").write_bytes(b"half a file")
    settings = ProjectSettings(budget=20, proposals="grounded-sam", box_threshold=0.001)
    with pytest.raises(RoundFailedError, match=r"propose: .* is no checkpoint of SAM .* a2lc weights check"):
        run_round(context_of(run, perceive(run, folder), settings), "test")
    assert run.problems(0) == [], "no image is to blame"
