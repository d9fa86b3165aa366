"""The benchmark on a small drawn world: the same rounds, oracle and report as on a real one, with less training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from a2lc_backend.bench.experiment import run_bench
from a2lc_backend.bench.files import DataSetError
from a2lc_backend.bench.findings import Changes
from a2lc_backend.bench.methods import (
    METHODS,
    BenchError,
    Method,
    find_method,
    parse_methods,
    parse_seeds,
)
from a2lc_backend.bench.oracle import PixelOracle, image_truth, representative_pixel, true_labels
from a2lc_backend.bench.report import mean_and_spread
from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.bench.world import World, load_world
from a2lc_backend.masks import IGNORE, Region, label_map
from a2lc_backend.metrics import confusion_matrix
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.phases import PHASES
from a2lc_backend.rounds.platform import Prediction
from a2lc_backend.rounds.runner import RoundFailedError
from tests.world_run import phases_with

BUDGET, ROUNDS = 30, 2
PAIR = ("abc", "a2lc")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return draw_world(tmp_path_factory.mktemp("bench-street"), images=8, val_images=2, size=(120, 160))


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real U-Net, trained for fewer steps: what is tested here is the benchmark."""
    shorten(monkeypatch)


def shorten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("a2lc_backend.segmenter.unet.MIN_STEPS", 20)
    patch.setattr("a2lc_backend.segmenter.unet.MAX_STEPS", 20)


def bench(world: Path, out: Path, methods: tuple[str, ...] = PAIR, budget: int = BUDGET) -> dict[str, Any]:
    path = run_bench(world, methods, budget, ROUNDS, [0], out, Console(file=StringIO()))
    assert path == out / "report.json"
    return dict(json.loads(path.read_text()))


@pytest.fixture(scope="session")
def calm(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark that nothing disturbed."""
    out = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        bench(world.root, out)
    return out


def without_seconds(out: Path) -> Any:
    """All numbers of a benchmark but those of the clock."""
    details = json.loads((out / "details.json").read_text())
    for run in details["runs"]:
        for item in run["rounds"]:
            assert set(item.pop("seconds")) == {kind.name for kind in PHASES}
    return details


def test_the_report_has_the_agreed_shape(calm: Path) -> None:
    report = json.loads((calm / "report.json").read_text())
    assert set(report) == {"methods", "initial_data_miou", "ceiling_data_miou"}
    assert list(report["methods"]) == list(PAIR)
    for found in report["methods"].values():
        assert list(found) == ["data_miou", "model_miou", "queries", "auto_corrections", "seconds"]
        assert [len(found[name]) for name in found] == [1] * 5
        assert len(found["data_miou"][0]) == len(found["model_miou"][0]) == ROUNDS + 1
        assert found["data_miou"][0][0] == pytest.approx(report["initial_data_miou"])
        assert all(0 <= value <= report["ceiling_data_miou"] for value in found["data_miou"][0])
        assert all(0 <= value <= 100 for value in found["model_miou"][0])
        assert found["queries"] == [BUDGET * ROUNDS]
        assert set(found["auto_corrections"][0]) == {"changed", "fixed", "broken"}
        assert found["seconds"][0] > 0
    assert report["methods"]["abc"]["auto_corrections"] == [{"changed": 0, "fixed": 0, "broken": 0}]
    assert report["methods"]["abc"]["data_miou"][0][-1] > report["initial_data_miou"]


def test_the_page_and_the_pictures_say_the_same(calm: Path) -> None:
    page, report = (calm / "report.md").read_text(), json.loads((calm / "report.json").read_text())
    assert "| Method | Init | 1R | 2R |" in page
    for name, found in report["methods"].items():
        assert f"| `{name}` | {' | '.join(f'{value:.1f}' for value in found['data_miou'][0])} |" in page
    for name in ("learning_curves.png", "queries.png"):
        assert f"]({name})" in page
        with Image.open(calm / name) as picture:
            assert min(picture.size) > 400
    assert (calm / "reliability.png").exists() == ("reliability.png" in page)


def test_what_a_round_states_stands_beside_the_truth(calm: Path) -> None:
    runs = json.loads((calm / "details.json").read_text())["runs"]
    last = next(run for run in runs if run["method"] == "a2lc")["rounds"][-1]["checks"]
    for name in ("still_wrong", "next_fixes"):
        assert last[name]["low"] <= last[name]["stated"] <= last[name]["high"]
        assert last[name]["true"] >= 0
    assert "## What the rounds stated" in (calm / "report.md").read_text()


def test_finished_runs_leave_only_their_result(calm: Path, world: World) -> None:
    for name in PAIR:
        assert {path.name for path in (calm / "runs" / f"{name}-seed0").iterdir()} == {
            "ledger.db", "result.json", "run.json",
        }  # fmt: skip
    cached = list((calm / "cache").glob("*/project-1/tasks/*/input-*"))
    assert len(cached) == len(world.names), "both runs read one copy"


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("phase", ["collect", "score", "publish", "measure"])
def test_a_benchmark_that_is_killed_ends_as_an_undisturbed_one(
    world: World, calm: Path, tmp_path: Path, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: set[tuple[str, int]] = set()

    def struck(work: Callable[..., Any]) -> Callable[..., Any]:
        def run_and_die(*arguments: Any) -> Any:
            first = arguments[0]
            ledger, number = (first.ledger, first.number) if isinstance(first, Context) else arguments[2:4]
            rounds.add((ledger.url, number))
            if len(rounds) == ROUNDS + 3:  # the second run, its second round
                raise Killed
            return work(*arguments)

        return run_and_die

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("a2lc_backend.rounds.runner.PHASES", phases_with(phase, struck))
        if phase == "measure":
            from a2lc_backend.bench import experiment

            patch.setattr(experiment, "measure_round", struck(experiment.measure_round))
        bench(world.root, tmp_path)
    assert not (tmp_path / "report.json").exists()
    assert (tmp_path / "runs" / "abc-seed0" / "result.json").exists()
    bench(world.root, tmp_path)
    assert without_seconds(tmp_path) == without_seconds(calm)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (calm, tmp_path)]
    for report in reports:
        for found in report["methods"].values():
            found.pop("seconds")
    assert reports[0] == reports[1]


def test_finished_runs_are_not_run_again(world: World, calm: Path, tmp_path: Path) -> None:
    shutil.copytree(calm, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "report.json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("a2lc_backend.rounds.runner.PHASES", ())
        bench(world.root, tmp_path)
    assert (tmp_path / "report.json").read_bytes() == before
    with pytest.raises(BenchError, match=r"budget 30, now 20.*another --out or delete"):
        bench(world.root, tmp_path, budget=20)


def test_a_folder_takes_one_benchmark_at_a_time(world: World, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BenchError, match="another benchmark is writing"):
            bench(world.root, tmp_path)


def test_a_budget_above_the_masks_asks_about_all_of_them(world: World, tmp_path: Path) -> None:
    report = bench(world.root, tmp_path, ("abc",), budget=100_000)
    found = report["methods"]["abc"]
    assert found["data_miou"][0][1:] == pytest.approx([report["ceiling_data_miou"]] * ROUNDS)
    masks = sum((world.mask_set(name).areas() > 0).sum() for name in world.names)
    assert found["queries"] == [masks]


def test_a_world_with_a_single_class_has_a_defined_result(world: World, tmp_path: Path) -> None:
    root = tmp_path / "plain"
    shutil.copytree(world.root, root)
    (root / "classes.json").write_text(json.dumps({"names": ["Thing"], "ignore": 255}))
    labels = {name: [0] * len(world.pseudo_labels[name]) for name in world.names}
    (root / "pool" / "pseudo_labels.json").write_text(json.dumps(labels))
    for path in [*(root / "pool" / "labels").iterdir(), *(root / "val" / "labels").iterdir()]:
        with Image.open(path) as image:
            Image.fromarray(np.zeros(image.size[::-1], np.uint8)).save(path)
    report = bench(root, tmp_path / "out")
    assert report["methods"]["a2lc"]["data_miou"][0] == [report["initial_data_miou"]] * (ROUNDS + 1)
    assert report["methods"]["a2lc"]["model_miou"][0] == [100.0] * (ROUNDS + 1)
    assert report["initial_data_miou"] == report["ceiling_data_miou"] > 90


def test_a_world_without_validation_images_has_no_model_miou(world: World, tmp_path: Path) -> None:
    root = tmp_path / "no-val"
    shutil.copytree(world.root, root)
    shutil.rmtree(root / "val")
    report = bench(root, tmp_path / "out", ("abc",))
    assert report["methods"]["abc"]["model_miou"] == [[None] * (ROUNDS + 1)]
    assert "the model was not measured" in (tmp_path / "out" / "report.md").read_text()


def test_a_bad_world_is_named_before_anything_runs(world: World, tmp_path: Path) -> None:
    root = tmp_path / "bad"
    shutil.copytree(world.root, root)
    name = world.names[-1]
    Image.new("L", (10, 10)).save(root / "pool" / "masks" / f"{name}.png")
    with pytest.raises(BenchError, match=rf"{name}.png is \(10, 10\) but the image"):
        bench(root, tmp_path / "out")
    assert not (tmp_path / "out" / "runs").exists()
    with pytest.raises(DataSetError, match="is not a folder"):
        bench(tmp_path / "nowhere", tmp_path / "out")


def test_a_round_that_fails_can_be_taken_up_again(
    world: World, calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("the disk is full; make room")

    with monkeypatch.context() as patch, pytest.raises(RoundFailedError, match="make room"):
        patch.setattr("a2lc_backend.rounds.runner.PHASES", phases_with("rank", lambda _: broken))
        bench(world.root, tmp_path)
    bench(world.root, tmp_path)
    assert without_seconds(tmp_path) == without_seconds(calm)


def test_what_cannot_be_run_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no method is called 'a3lc'; choose from alc, alc-unique, mask"):
        bench(world.root, tmp_path, ("a3lc",))
    with pytest.raises(BenchError, match="the method abc cannot be run: budget"):
        bench(world.root, tmp_path, ("abc",), budget=0)
    for methods, rounds, seeds in (((), 1, [0]), (("abc",), 0, [0]), (("abc",), 1, []), (("abc",), 1, [-1])):
        with pytest.raises(BenchError, match="nothing to run"):
            run_bench(world.root, methods, BUDGET, rounds, seeds, tmp_path, Console(file=StringIO()))
    unknown = Method("next", "of another version", {"telepathy": True})
    with pytest.raises(BenchError, match="the method next cannot be run: telepathy"):
        unknown.project_settings(BUDGET, 0)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(BenchError, match="cannot be written"):
        bench(world.root, file)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_can_be_set(name: str) -> None:
    settings = find_method(name).project_settings(400, 2)
    assert (settings.budget, settings.seed) == (400, 2)


@pytest.mark.parametrize("name", ["alc", "alc-unique", "mask", "lcm", "a2lc-paper"])
def test_the_other_methods_run(world: World, tmp_path: Path, name: str) -> None:
    report = bench(world.root, tmp_path, (name,))
    assert report["methods"][name]["queries"] == [BUDGET * ROUNDS]


def test_arguments_are_read() -> None:
    assert parse_methods("mask, a2lc,mask") == ("mask", "a2lc")
    assert [parse_seeds(text) for text in ("3", "0,2,5", "7,", "0,")] == [(0, 1, 2), (0, 2, 5), (7,), (0,)]
    for text in ("", ",", "0", "-1", "one", "1.5"):
        with pytest.raises(BenchError, match="seeds"):
            parse_seeds(text)
    with pytest.raises(BenchError, match="no method is named"):
        parse_methods(" ,")


def test_the_representative_pixel_is_most_like_the_mean() -> None:
    soft = np.zeros((2, 1, 5), np.float32)
    soft[0] = [[0.9, 0.8, 0.7, 0.1, 1.0]]
    soft[1] = 1 - soft[0]
    mask = np.array([[True, True, True, True, False]])
    assert representative_pixel(soft, mask) == (0, 1), "the mean of 0.9, 0.8, 0.7 is nearest to 0.8"


def test_one_pixel_decides_for_the_whole_mask(world: World) -> None:
    truth = world.truth(world.names[0])
    mask = np.ones(truth.shape, bool)
    soft = np.full((len(world.classes), *truth.shape), 0.01, np.float32)
    soft[0] = 1.0
    oracle = PixelOracle(world, lambda number, task_id: soft)
    shown = Prediction((Region("all", world.classes[3], mask, round=0, rank=1),), 1.0)
    targets, _ = oracle.prepare([1], {1})
    for _ in range(2):  # a process that was killed writes again
        oracle.write("a2lc-r0", targets, lambda task_id: shown, lambda done, total: None)
    (answer,) = oracle.answers.values()
    assert answer.regions[0].label == world.classes[int(truth[0, 0])], "of equals the first pixel is taken"
    assert np.array_equal(answer.regions[0].mask, mask)


def test_the_truth_of_masks_agrees_with_the_truth_of_pixels(world: World) -> None:
    rng = np.random.default_rng(0)
    for name in world.names[:3]:
        masks, truth, classes = world.mask_set(name), world.truth(name), len(world.classes)
        found = image_truth(masks, truth, classes)
        assert np.array_equal(found.true, true_labels(masks, truth, classes))
        labels = rng.choice([*range(classes), IGNORE], len(masks)).astype(np.int64)
        expected = confusion_matrix(truth, label_map(masks.mask_ids, labels), classes)
        assert np.array_equal(found.confusion(labels), expected)


def test_changes_are_counted() -> None:
    before, after, true = (
        np.array(labels) for labels in ([0, 0, 1, 1, 2, 2], [0, 1, 0, 2, 3, 3], [0, 1, 1, 0, 255, 3])
    )
    assert Changes.count(before, after, true) == Changes(changed=5, fixed=2, broken=1)


def test_the_spread_is_over_seeds() -> None:
    assert mean_and_spread(np.array([70.0, 72.0])) == "71.0 ± 1.4"
    assert mean_and_spread(np.array([70.04])) == "70.0"
    assert mean_and_spread(np.array([np.nan])) == "–"


def test_a_changed_world_is_another_world(world: World, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(world.root, root)
    copy = load_world(root)
    assert copy.digest() == world.digest()
    first = world.names[0]
    labels = {**world.pseudo_labels, first: (0, *world.pseudo_labels[first][1:])}
    assert (replace(copy, pseudo_labels=labels).digest() == world.digest()) == (world.pseudo_labels[first][0] == 0)
