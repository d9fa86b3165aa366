"""What all runs of a benchmark share: the data, its masks, frozen features, and how the model is measured."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.bench.bars import Bars
from a2lc_backend.bench.dataset import DataSet
from a2lc_backend.bench.files import hash_file
from a2lc_backend.bench.methods import BenchError
from a2lc_backend.bench.oracle import ImageTruth, OraclePlatform, image_truth
from a2lc_backend.features import mask_features
from a2lc_backend.masks import IGNORE
from a2lc_backend.metrics import confusion_matrix, mean_iou
from a2lc_backend.proposals import Picture, ProposalError, Proposals, make_proposals
from a2lc_backend.rounds.ahead import read_ahead
from a2lc_backend.rounds.platform import Task
from a2lc_backend.rounds.propose import picture_key
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.segmenter import Segmenter, SegmenterError, Training, enlarge, make_segmenter
from a2lc_backend.settings import ProjectSettings
from a2lc_backend.store import Artifacts

POOL, _VAL = 1, 2
"""Project ids: of the runs, and of the validation images in the cache."""


class Ground:
    """What all runs on a data set share; all of it is read, and so checked, before the first run.

    Args:
        data: to run on.
        proposals: where masks and first labels come from.
        backbone: of θ; None for a U-Net trained from scratch.
        caches: folder for what is computed once, one folder for each data set and source of masks.
        bars: told of the progress.

    Raises:
        BenchError: for an image that gets no masks, a pool whose truth says nothing, or a backbone that is not there.
        DataSetError: for a file that cannot be used.

    Attributes:
        initial_data_miou: of the first labels, in percent; 0 where no mask has one.
        ceiling_data_miou: of the masks with their true labels, in percent.
        true_masks: (C,) masks of each class by the truth.
    """

    def __init__(self, data: DataSet, proposals: Proposals, backbone: Path | None, caches: Path, bars: Bars) -> None:
        if backbone is not None and not backbone.is_file():
            raise BenchError(f"there is no backbone {backbone}; give the path of a .pt2 or .pth file")
        self.data, self.proposals, self.bars = data, proposals, bars
        self._backbone, self._digest = backbone, data.digest()
        self.cache = caches / f"{self._digest}-{proposals.name}"
        self._store = Artifacts(f"file://{self.cache.absolute()}")
        self._images: dict[str, ImageTruth] = {}
        classes = len(data.classes)
        first, best = np.zeros((classes, classes + 1), np.int64), np.zeros((classes, classes + 1), np.int64)
        true: list[NDArray[np.int64]] = []
        for done, task in enumerate(OraclePlatform(data).tasks()):
            bars.step("masks and truth", done, len(data.names))
            image = self._first_look(task, data.names[done])
            first += image.confusion(image.first)
            best += image.confusion(image.true)
            true.append(image.true[image.true != IGNORE])
        self._proposed = frozenset(self._images)
        for name in data.val_names:
            data.val_truth(name)
        if not best.any():
            raise BenchError(f"no pixel of the pool of {data.name} has a true class; give images with truth to measure")
        self.initial_data_miou = 100 * mean_iou(first)
        self.ceiling_data_miou = 100 * mean_iou(best)
        self.true_masks = tuple(np.bincount(np.concatenate(true), minlength=classes).tolist())

    def _first_look(self, task: Task, name: str) -> ImageTruth:
        """Store the masks of an image as the rounds would, so that no run computes them; hold them against truth."""
        workspace, truth = Workspace(self._store, POOL), self.data.truth(name)
        key = workspace.mask_key(task.id, task.image)
        if not workspace.has_masks(key):
            image = self.data.image(name)
            picture = Picture(picture_key(task.image), task.id, image, (), self.data.classes)
            try:
                masks = self.proposals.propose(picture)
            except ValueError as error:
                raise BenchError(f"image {name!r} gets no masks: {error}") from error
            workspace.write_masks(key, masks, mask_features(image, masks), imported=False)
        self._images[key] = image_truth(workspace.masks(key), truth, len(self.data.classes))
        return self._images[key]

    def about(self) -> dict[str, str | None]:
        """All that decides a run beside its settings."""
        backbone = None if self._backbone is None else hash_file(self._backbone)[:16]
        return {"data": self._digest, "proposals": self.proposals.name, "backbone": backbone}

    def segmenter(self, settings: ProjectSettings) -> Segmenter:
        """An untrained θ, as the service builds it.

        Raises:
            BenchError: if it cannot be built.
        """
        name = settings.segmenter if settings.segmenter != "auto" else "unet" if self._backbone is None else "head"
        try:
            return make_segmenter(
                name, classes=len(self.data.classes), backbone=self._backbone, seed=settings.seed,
                training=Training(
                    settings.encoder, settings.iterations, settings.crop, settings.batch, settings.learning_rate
                ),
            )  # fmt: skip
        except SegmenterError as error:
            raise BenchError(f"the model cannot be built: {error}") from error

    def prepare(self, segmenter: Segmenter) -> None:
        """Compute what θ reads of every image, where it is not in the cache yet.

        Raises:
            BenchError: if the backbone cannot be used.
        """
        data, pool, val = self.data, Workspace(self._store, POOL), Workspace(self._store, _VAL)
        tasks = OraclePlatform(data).tasks()
        wanted = [
            *((pool, task.id, task.image, data.image, name) for task, name in zip(tasks, data.names, strict=True)),
            *((val, number, name, data.val_image, name) for number, name in enumerate(data.val_names, 1)),
        ]
        try:
            kind = segmenter.fingerprint
            for done, (workspace, number, address, read, name) in enumerate(wanted):
                self.bars.step("frozen features", done, len(wanted))
                if not workspace.has_input(number, address, kind):
                    workspace.write_input(number, address, kind, segmenter.prepare(read(name)))
        except SegmenterError as error:
            raise BenchError(f"the backbone {self._backbone} cannot be used: {error}") from error

    def share(self, artifacts: Path) -> None:
        """Let a run read the cache as its own artifacts; what it adds, such as edited masks, stays with the run."""
        place = Path(f"project-{POOL}") / "tasks"
        for folder in (self.cache / place).iterdir():
            own = artifacts / place / folder.name
            own.mkdir(parents=True, exist_ok=True)
            for file in folder.iterdir():
                if not (own / file.name).exists():
                    (own / file.name).symlink_to(os.path.relpath(file.resolve(), own.resolve()))

    def forget_edits(self) -> None:
        """Drop the truth of masks that a finished run edited: every run has its own."""
        self._images = {key: truth for key, truth in self._images.items() if key in self._proposed}

    def image_truth(self, workspace: Workspace, task_id: int, mask_key: str) -> ImageTruth:
        """The truth of the masks that a run works on."""
        if mask_key not in self._images:
            truth = self.data.truth(self.data.names[task_id - 1])
            self._images[mask_key] = image_truth(workspace.masks(mask_key), truth, len(self.data.classes))
        return self._images[mask_key]

    def model_confusion(self, segmenter: Segmenter) -> NDArray[np.int64]:
        """Confusion matrix of θ over the validation images, (C, C + 1)."""
        classes, names = len(self.data.classes), self.data.val_names
        total, workspace = np.zeros((classes, classes + 1), np.int64), Workspace(self._store, _VAL)

        def look(place: int) -> tuple[NDArray[np.uint8], NDArray[np.generic]]:
            name = names[place]
            return self.data.val_truth(name), workspace.input(place + 1, name, segmenter.fingerprint)

        for place, (truth, prepared) in read_ahead(range(len(names)), look):
            self.bars.step("validation", place + 1, len(names))
            soft = segmenter.soft_labels(prepared)
            total += confusion_matrix(truth, enlarge(soft, (truth.shape[0], truth.shape[1])).argmax(0), classes)
        return total


def choose_proposals(data: DataSet, name: str | None) -> Proposals:
    """The source of masks of a benchmark.

    Args:
        data: to run on.
        name: any that `make_proposals` knows; the data set's own if None.

    Raises:
        BenchError: for a name that is not known, or `world` where there is no world folder.
    """
    name = name or data.proposals
    if name == "world" and data.world_folder is None:
        raise BenchError(f"`world` proposals are the masks of a world folder, which {data.name} is not; choose others")
    try:
        return make_proposals(name, world=data.world_folder)
    except ProposalError as error:
        raise BenchError(f"masks cannot be had: {error}") from error
