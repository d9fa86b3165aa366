"""The methods compared, each as named settings of the product's own rounds, and what the annotator and the measure see.

The names follow the A²LC paper's ablation. `mask` asks about masks by 1 − confidence times similarity (CIL · SIM),
`abc` weighs the classes adaptively, `lcm` adds the paper's corrector to `mask`, `a2lc-paper` has both, and `a2lc` is
what a project gets when nobody sets anything.

`alc` and `alc-unique` are ALC, the paper's predecessor: the annotator looks at one pixel of a mask and its class goes
to the whole mask; `alc` may ask about the same mask again, as the published code does. One thing is not ALC's: the
similarity is taken with the mean soft label that chooses this pixel, as A²LC takes it, not with the pixel's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from a2lc_backend.bench.oracle import OraclePlatform, true_labels
from a2lc_backend.bench.world import World
from a2lc_backend.masks import IGNORE, MaskSet, Region
from a2lc_backend.rounds.platform import Prediction, TaskProblem
from a2lc_backend.segmenter import enlarge
from a2lc_backend.settings import ProjectSettings, describe


class BenchError(ValueError):
    """A benchmark that cannot be run as asked; the message names the mend."""


@dataclass(frozen=True)
class Method:
    """One line of the benchmark's table.

    Attributes:
        name: on the command line and in the report.
        meaning: in the report, in words.
        settings: what differs from `ProjectSettings()`.
        one_pixel: the annotator sees only a mask's representative pixel.
    """

    name: str
    meaning: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    one_pixel: bool = False

    def project_settings(self, budget: int, seed: int) -> ProjectSettings:
        """The settings of one run.

        Args:
            budget: masks queried a round, 1 or more.
            seed: of everything random, segmenter included.

        Raises:
            BenchError: for a budget out of range, or a method whose settings the rounds do not offer.
        """
        values = {"proposals": "world", **self.settings, "budget": budget, "seed": seed}
        try:
            return ProjectSettings(**values)
        except ValidationError as error:
            raise BenchError(f"the method {self.name} cannot be run: {describe(error)}") from error


_PLAIN: Mapping[str, Any] = MappingProxyType({"corrector": "none", "ranking": "cil", "explore": 0.0})

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("alc", "ALC as published: one pixel a mask, repeats allowed", {**_PLAIN, "repeats": True}, True),
        Method("alc-unique", "ALC, no mask asked about twice", _PLAIN, True),
        Method("mask", "masks by CIL · SIM, no corrector", _PLAIN),
        Method("lcm", "mask + the paper's corrector", {**_PLAIN, "corrector": "paper"}),
        Method("abc", "mask + adaptive class weights", {**_PLAIN, "ranking": "abc"}),
        Method("a2lc-paper", "A²LC as in the paper: abc + lcm", {**_PLAIN, "ranking": "abc", "corrector": "paper"}),
        Method("a2lc", "the default of this program"),
    )
}
"""Every method by name, in the order of the report."""


def find_method(name: str) -> Method:
    """A method by its name.

    Raises:
        BenchError: for a name that no method has.
    """
    if name not in METHODS:
        raise BenchError(f"no method is called {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name]


def parse_methods(text: str) -> tuple[str, ...]:
    """Read a comma list of methods as the command line takes it.

    Raises:
        BenchError: for an unknown name or an empty list.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise BenchError(f"no method is named; choose from {', '.join(METHODS)}, separated by commas")
    return tuple(find_method(name).name for name in names)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read seeds as the command line takes them: `3` means 0, 1, 2; a comma makes a list, as in `0,2,5` or `7,`.

    Raises:
        BenchError: for anything that is no count and no list of numbers from 0 on.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise BenchError(f"the seeds {text!r} are no numbers; give a count such as 3, or a list such as 0,1,2")
    numbers = tuple(dict.fromkeys(int(part) for part in parts))
    if "," in text:
        return numbers
    if numbers[0] < 1:
        raise BenchError("0 seeds leave nothing to run; give a count such as 3, or the list `0,` for the seed 0")
    return tuple(range(numbers[0]))


SoftLabels = Callable[[int, int], NDArray[np.float32]]
"""Soft labels (C, h, w) of θ by round and task id."""


class PixelOracle(OraclePlatform):
    """An annotator who sees only the representative pixel of a queued mask; its class goes to the whole mask.

    Args:
        world: images, masks and truth.
        soft_labels: what θ said in a round of an image; decides which pixel represents a mask.
    """

    def __init__(self, world: World, soft_labels: SoftLabels) -> None:
        super().__init__(world)
        self._soft_labels = soft_labels

    def publish(
        self,
        version: str,
        tasks: Sequence[int],
        queued: Collection[int],
        predict: Callable[[int], Prediction],
        progress: Callable[[int, int], None],
    ) -> list[TaskProblem]:
        """Answer every queued mask with the true class of one pixel; where that is void, it keeps its label."""
        shown: dict[tuple[int, str], str | None] = {}
        answered = set(self.answers)

        def remember(task_id: int) -> Prediction:
            prediction = predict(task_id)
            shown.update({(task_id, region.id): region.label for region in prediction.regions})
            return prediction

        problems = super().publish(version, tasks, queued, remember, progress)
        for number in self.answers.keys() - answered:
            answer = self.answers[number]
            regions = self._look(answer.task_id, answer.regions, shown)
            self.answers[number] = replace(answer, regions=regions)
        return problems

    def _look(
        self, task_id: int, regions: Sequence[Region], shown: Mapping[tuple[int, str], str | None]
    ) -> tuple[Region, ...]:
        truth = self._world.truth(self.name(task_id))
        soft = enlarge(self._soft_labels(regions[0].round or 0, task_id), (truth.shape[0], truth.shape[1]))
        looked = []
        for region in regions:
            label = int(truth[representative_pixel(soft, region.mask)])
            name = shown[task_id, region.id] if label == IGNORE else self._world.classes[label]
            looked.append(replace(region, label=name))
        return tuple(looked)


def representative_pixel(soft_labels: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel of a mask that is most like its mean soft label.

    The mean is over the pixels whose argmax is the mask's dominant argmax; likeness is the cosine, and of equals the
    first pixel in reading order is taken.

    Args:
        soft_labels: (C, H, W) class probabilities.
        mask: (H, W) bool, at least one pixel.

    Returns:
        Row and column.
    """
    rows, columns = np.nonzero(mask)
    soft = soft_labels[:, rows, columns].astype(np.float64)
    argmax = soft.argmax(0)
    mean = soft[:, argmax == np.bincount(argmax).argmax()].mean(1)
    best = int((mean @ soft / np.linalg.norm(soft, axis=0)).argmax())
    return int(rows[best]), int(columns[best])


@dataclass(frozen=True)
class ImageTruth:
    """The truth of one image, mask by mask.

    Attributes:
        region_ids: (K,) names of the masks.
        first: (K,) int64 first labels.
        pixels: (K + 1, C) int64 pixels of each true class; row 0 lies outside every mask.
        true: (K,) int64 the commonest true class, `IGNORE` where the truth says nothing.
    """

    region_ids: tuple[str, ...]
    first: NDArray[np.int64]
    pixels: NDArray[np.int64]
    true: NDArray[np.int64]

    def confusion(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """`metrics.confusion_matrix` of the label map that these labels of the masks make, (C, C + 1)."""
        classes = self.pixels.shape[1]
        columns = np.concatenate([[classes], np.where(labels == IGNORE, classes, labels)])
        counts = np.zeros((classes + 1, classes), np.int64)
        np.add.at(counts, columns, self.pixels)
        return counts.T


def image_truth(masks: MaskSet, truth: NDArray[np.uint8], classes: int) -> ImageTruth:
    """Hold masks against the truth, (H, W) class ids or `IGNORE`."""
    known = truth < classes
    flat = masks.mask_ids[known].astype(np.int64) * classes + truth[known]
    pixels = np.bincount(flat, minlength=(len(masks) + 1) * classes).reshape(-1, classes)
    return ImageTruth(masks.region_ids, masks.first_labels, pixels, true_labels(masks, truth, classes))


def world_digest(world: World) -> str:
    """Name of what is in a world folder: its classes, first labels, masks and truth, and its images by size."""
    digest = hashlib.sha256(json.dumps([world.classes, world.ignore, dict(world.pseudo_labels)]).encode())
    for name in world.names:
        digest.update(f"{name} {world.image_path(name).stat().st_size}".encode())
        for folder in ("masks", "labels"):
            digest.update((world.root / "pool" / folder / f"{name}.png").read_bytes())
    for name in world.val_names:
        digest.update(name.encode())
        digest.update((world.root / "val" / "labels" / f"{name}.png").read_bytes())
    if world.backbone_path is not None:
        digest.update(world.backbone_path.read_bytes())
    return digest.hexdigest()[:16]
