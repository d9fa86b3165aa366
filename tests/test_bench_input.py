"""What the benchmark says of bad input, and what it makes of extreme input: tiny worlds through the real rounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from a2lc_backend.bench.experiment import run_bench
from a2lc_backend.bench.files import DataSetError
from a2lc_backend.bench.methods import BenchError
from a2lc_backend.bench.oracle import OraclePlatform
from a2lc_backend.bench.world import load_world
from a2lc_backend.masks import IGNORE, Region
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.platform import Prediction
from a2lc_backend.store import Ledger
from tests.world_run import Work, phases_with

SIZE = (48, 64)  # height, width
CELL = 8
MASKS = (SIZE[0] // CELL) * (SIZE[1] // CELL)
IMAGES = 8
METHODS = ("mask", "a2lc-paper", "a2lc")
COLOURS = np.array([[90, 90, 90], [190, 40, 40], [40, 190, 40], [40, 40, 190]])


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2lc_backend.segmenter.unet.MIN_STEPS", 10)
    monkeypatch.setattr("a2lc_backend.segmenter.unet.MAX_STEPS", 10)


def write_ids(path: Path, ids: NDArray[np.integer]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(path)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


class Tiny:
    """A world folder of 8 images, cut into squares of which each has one class; a third of the first labels is wrong.

    Args:
        root: where it is written.
        classes: C.
        labels: true class of every square, (8, masks), `IGNORE` for void; drawn if not given.
        first: first labels; drawn if not given.
    """

    def __init__(
        self, root: Path, classes: int = 3, labels: NDArray[np.int64] | None = None,
        first: NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(0)
        self.root = root
        self.labels = rng.integers(0, classes, (IMAGES, MASKS)) if labels is None else labels
        wrong = rng.random(self.labels.shape) < 1 / 3
        noisy = np.where(wrong, (self.labels + 1) % classes, self.labels)
        self.first = np.where(self.labels == IGNORE, 0, noisy) if first is None else first
        squares = np.arange(1, MASKS + 1).reshape(SIZE[0] // CELL, -1).repeat(CELL, 0).repeat(CELL, 1)
        for number, name in enumerate(self.names):
            truth = self.labels[number][squares - 1]
            colours = COLOURS[np.where(truth == IGNORE, 3, truth)] + rng.integers(0, 30, (*SIZE, 3))
            write_ids(root / "pool" / "labels" / f"{name}.png", truth)
            write_ids(root / "pool" / "masks" / f"{name}.png", squares)
            (root / "pool" / "images").mkdir(exist_ok=True)
            Image.fromarray(colours.astype(np.uint8)).save(root / "pool" / "images" / f"{name}.png")
        write_json(root / "classes.json", {"names": [f"class {label}" for label in range(classes)], "ignore": IGNORE})
        self.write_first()

    names = tuple(f"image-{number}" for number in range(IMAGES))

    def write_first(self) -> None:
        first = {name: self.first[number].tolist() for number, name in enumerate(self.names)}
        write_json(self.root / "pool" / "pseudo_labels.json", first)


def bench(
    root: Path, out: Path, methods: tuple[str, ...] = METHODS, budget: int = 25, rounds: int = 2
) -> dict[str, Any]:
    run_bench(root, methods, budget, rounds, [0], out, Console(file=StringIO()))
    text = (out / "report.json").read_text()
    assert "NaN" not in text, "no JSON"
    return dict(json.loads(text))


def details(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The rounds of each method."""
    return {run["method"]: run["rounds"] for run in json.loads((out / "details.json").read_text())["runs"]}


@contextmanager
def ledger_of(out: Path, method: str) -> Iterator[Ledger]:
    with closing(Ledger(f"sqlite:///{out / 'runs' / f'{method}-seed0' / 'ledger.db'}")) as ledger:
        yield ledger


def drop_mask_file(world: Tiny) -> None:
    (world.root / "pool" / "masks" / "image-3.png").unlink()


def drop_truth(world: Tiny) -> None:
    (world.root / "pool" / "labels" / "image-3.png").unlink()


def drop_last_label(world: Tiny) -> None:
    first = {name: world.first[0].tolist() for name in world.names}
    first["image-3"] = first["image-3"][:-1]
    write_json(world.root / "pool" / "pseudo_labels.json", first)


def label_outside(world: Tiny) -> None:
    world.first[3, 6] = 7
    world.write_first()


def truth_outside(world: Tiny) -> None:
    write_ids(world.root / "pool" / "labels" / "image-3.png", np.full(SIZE, 3))


def small_masks(world: Tiny) -> None:
    write_ids(world.root / "pool" / "masks" / "image-3.png", np.ones((24, 32)))


def small_truth(world: Tiny) -> None:
    write_ids(world.root / "pool" / "labels" / "image-3.png", np.ones((24, 32)))


def broken_image(world: Tiny) -> None:
    (world.root / "pool" / "images" / "image-3.png").write_bytes(b"no image")


def no_images(world: Tiny) -> None:
    for path in (world.root / "pool" / "images").iterdir():
        path.unlink()


def only_void(world: Tiny) -> None:
    for name in world.names:
        write_ids(world.root / "pool" / "labels" / f"{name}.png", np.full(SIZE, IGNORE))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (drop_mask_file, DataSetError, r"image-3\.png is missing; image 'image-3' needs its masks as a PNG"),
        (drop_truth, DataSetError, r"image-3\.png is missing; image 'image-3' needs its truth"),
        (drop_last_label, BenchError, "'image-3' gets no masks.*has a mask 48 but .*has 47 labels.*write one label a"),
        (label_outside, DataSetError, "mask 7 of 'image-3' has the label 7; use a class id from 0 to 2, or 255"),
        (truth_outside, DataSetError, r"image-3\.png: holds the class id 3; .*add the class there or repaint"),
        (small_masks, BenchError, r"'image-3' gets no masks.*is \(24, 32\) but the image .*is \(48, 64\).*give the"),
        (small_truth, DataSetError, r"is 32×24 pixels but image-3\.png is 64×48; make both the same size"),
        (broken_image, DataSetError, "cannot be read as an image.*save it again as JPEG or PNG"),
        (no_images, DataSetError, r"holds no image; put the images there"),
        (only_void, BenchError, "no pixel of the pool .* has a true class; give images with truth"),
    ],
)
def test_bad_input_is_named_before_a_run_begins(
    tmp_path: Path, spoil: Callable[[Tiny], None], error: type[Exception], message: str
) -> None:
    world = Tiny(tmp_path / "world")
    spoil(world)
    with pytest.raises(error, match=message):
        bench(world.root, tmp_path / "out")
    assert not (tmp_path / "out" / "runs").exists()


def test_a_budget_above_all_masks_asks_each_once(tmp_path: Path) -> None:
    report = bench(Tiny(tmp_path / "world").root, tmp_path / "out", budget=10_000)
    for name, rounds in details(tmp_path / "out").items():
        assert [sum(item["queries"]) for item in rounds] == [0, IMAGES * MASKS, 0]
        assert report["methods"][name]["data_miou"][0][1:] == pytest.approx([100.0, 100.0])


def test_a_class_that_nobody_gives_is_never_proposed(tmp_path: Path) -> None:
    """Class 2 stands among the first labels but nowhere in the truth; class 3 nowhere at all."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (IMAGES, MASKS))
    first = np.where(rng.random(labels.shape) < 0.3, 2, labels)
    report = bench(Tiny(tmp_path / "world", 4, labels, first).root, tmp_path / "out", budget=80)
    for name, rounds in details(tmp_path / "out").items():
        assert all(item["queries"][2:] == [0, 0] for item in rounds)
        assert all(item["data_iou"][3] is None for item in rounds), "neither true nor held: it does not count"
        assert all(item["data_iou"][2] in {0.0, None} for item in rounds), "held somewhere, true nowhere"
        assert all(0 <= value <= 100 for value in report["methods"][name]["data_miou"][0])
        with ledger_of(tmp_path / "out", name) as ledger:
            proposed = {change.after for number in (1, 2) for change in ledger.auto_corrections(1, number)}
        assert proposed <= {0, 1}
        assert bool(proposed) == (name != "mask")


def test_a_world_of_a_single_class_has_nothing_to_correct(tmp_path: Path) -> None:
    labels = np.zeros((IMAGES, MASKS), np.int64)
    report = bench(Tiny(tmp_path / "world", 1, labels, labels).root, tmp_path / "out")
    for found in report["methods"].values():
        assert found["data_miou"] == [[100.0] * 3]
        assert found["auto_corrections"] == [{"changed": 0, "fixed": 0, "broken": 0}]


def test_an_image_without_any_truth_counts_nowhere(tmp_path: Path) -> None:
    labels = Tiny(tmp_path / "plain").labels
    labels[2] = IGNORE
    report = bench(Tiny(tmp_path / "world", labels=labels).root, tmp_path / "out", budget=10_000)
    assert report["ceiling_data_miou"] == pytest.approx(100.0)
    for name, rounds in details(tmp_path / "out").items():
        assert report["methods"][name]["data_miou"][0][1:] == pytest.approx([100.0, 100.0])
        assert [sum(item["queries"]) for item in rounds] == [0, IMAGES * MASKS, 0], "its masks keep their first label"


def test_masks_without_label_and_truth_are_deleted_once_they_are_asked_about(tmp_path: Path) -> None:
    plain = Tiny(tmp_path / "plain")
    labels, first = plain.labels, plain.first
    labels[2], first[2] = IGNORE, IGNORE  # a whole image
    labels[4, :9], first[4, :9] = IGNORE, IGNORE  # a part of one
    report = bench(Tiny(tmp_path / "world", labels=labels, first=first).root, tmp_path / "out", budget=10_000)
    assert report["ceiling_data_miou"] == pytest.approx(100.0)
    for name, rounds in details(tmp_path / "out").items():
        assert report["methods"][name]["data_miou"][0][1:] == pytest.approx([100.0, 100.0])
        counts = [sum(item["queries"]) for item in rounds]
        assert counts[:2] == [0, (IMAGES - 1) * MASKS - 9]
        assert counts[2] <= 1, "a corrector may have given the one mask left in the whole image a label to keep"
        with ledger_of(tmp_path / "out", name) as ledger:
            deleted = [(item.task_id, item.round) for item in ledger.corrections(1) if item.kind == "deleted"]
            assert sorted(deleted) == [(3, 1)] * (MASKS - 1) + [(5, 1)] * 9
            assert [query.task_id for query in ledger.queries(1, 1)] == [3], "the last mask of an image stays"
    kept = {path.name for path in (tmp_path / "out").glob("**/masks-*")}
    assert kept == {"masks-proposed", "masks-proposed.catalog"}, "edited masks of finished runs take no room"


class Killed(BaseException):
    """The process ends here."""


def test_a_run_with_deleted_masks_that_is_killed_ends_as_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Tiny(tmp_path / "plain")
    labels, first = plain.labels, plain.first
    labels[:4, :9], first[:4, :9] = IGNORE, IGNORE
    root = Tiny(tmp_path / "world", labels=labels, first=first).root
    calm = bench(root, tmp_path / "calm", ("mask",), budget=100)

    def struck(work: Work) -> Work:
        def rank(context: Context, items: Items, progress: Progress) -> None:
            if context.number == 2:
                raise Killed
            work(context, items, progress)

        return rank

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("a2lc_backend.rounds.runner.PHASES", phases_with("rank", struck))
        bench(root, tmp_path / "killed", ("mask",), budget=100)
    resumed = bench(root, tmp_path / "killed", ("mask",), budget=100)
    with ledger_of(tmp_path / "killed", "mask") as ledger:
        assert any(item.kind == "deleted" for item in ledger.corrections(1))
    for report in (calm, resumed):
        del report["methods"]["mask"]["seconds"]
    assert resumed == calm


def test_validation_without_truth_has_no_model_miou(tmp_path: Path) -> None:
    world = Tiny(tmp_path / "world")
    write_ids(world.root / "val" / "labels" / "v.png", np.full(SIZE, IGNORE))
    (world.root / "val" / "images").mkdir()
    Image.new("RGB", SIZE[::-1]).save(world.root / "val" / "images" / "v.png")
    report = bench(world.root, tmp_path / "out", ("mask",))
    assert report["methods"]["mask"]["model_miou"] == [[None] * 3]


def test_the_oracle_gives_its_masks_back_as_they_were(tmp_path: Path) -> None:
    world = load_world(Tiny(tmp_path / "world").root)
    platform = OraclePlatform(world)
    mask = np.random.default_rng(0).random(SIZE) < 0.5
    shown = Prediction((Region("asked", "class 0", mask, round=0, rank=1), Region("other", "class 1", ~mask)), 1.0)
    targets, _ = platform.prepare([1], {1})
    for _ in range(2):  # a process that was killed writes again
        platform.write("a2lc-r0", targets, lambda task_id: shown, lambda done, total: None)
    (stamp,) = platform.annotation_stamps()
    answer = platform.annotation(stamp, SIZE)
    assert answer is not None
    assert [region.id for region in answer.regions] == ["asked"]
    assert np.array_equal(answer.regions[0].mask, mask)
    assert not answer.whole
    del platform.answers[stamp.id]
    assert not platform.answers
    assert platform.annotation(stamp, SIZE) is None
