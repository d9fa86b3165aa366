"""The artifacts of a project, typed: masks, catalogs, segmenter inputs, scores and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import MaskSet, Source
from a2lc_backend.store import Artifacts, Query

_REBUILDING = "rebuilding"

SOURCES: tuple[Source, ...] = ("foundation", "imported", "human", "corrector")


@dataclass(frozen=True)
class Catalog:
    """What is known of an image's masks without their pixels.

    Attributes:
        region_ids: (K,) names.
        first_labels: (K,) int64.
        areas: (K,) int64 pixels.
        features: (K, F) float32.
        imported: the first labels came out of Label Studio.
        seen_by: name of the model that the features behind those of colour and shape are of, "" for none.
    """

    region_ids: tuple[str, ...]
    first_labels: NDArray[np.int64]
    areas: NDArray[np.int64]
    features: NDArray[np.float32]
    imported: bool
    seen_by: str = ""


@dataclass(frozen=True)
class Scores:
    """What θ says of an image's masks in one round; see `acquisition.acquisition_rows`.

    Attributes:
        mask_key: the masks these rows belong to.
        rows: (K, C) float64.
        soft_labels: (K, C) float64 mean soft label of each mask.
        dominant: (K,) int64.
    """

    mask_key: str
    rows: NDArray[np.float64]
    soft_labels: NDArray[np.float64]
    dominant: NDArray[np.int64]


@dataclass(frozen=True)
class Labels:
    """The label of every mask of a project in one round, image after image.

    Attributes:
        task_ids: (T,) int64, ascending.
        mask_keys: (T,) the masks of each image.
        counts: (T,) int64 masks of each image; they sum to N.
        labels: (N,) int64 class ids or `IGNORE`.
        sources: (N,) int64 indices into `SOURCES`.
        confidence: (N,) float64, how sure the source is.
        guess: (N,) int64 what the corrector believes in, `IGNORE` if it has no opinion.
        proposals: (N,) int64 `labels` with what the corrector proposed but did not apply.
        doubt: (N,) float64, how unsure the corrector is of the proposal; NaN if it has no opinion.
        strata: (N,) int64 indices into `audit.STRATA`, −1 where the corrector proposes nothing.
        certainty: (N,) float64, how sure the corrector is of `guess`; NaN if it has no opinion.
    """

    task_ids: NDArray[np.int64]
    mask_keys: tuple[str, ...]
    counts: NDArray[np.int64]
    labels: NDArray[np.int64]
    sources: NDArray[np.int64]
    confidence: NDArray[np.float64]
    guess: NDArray[np.int64]
    proposals: NDArray[np.int64]
    doubt: NDArray[np.float64]
    strata: NDArray[np.int64]
    certainty: NDArray[np.float64]

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(self.counts)

    def find(self, task_id: int) -> int | None:
        """Place of a task in `task_ids`, None if it had no masks in that round."""
        place = int(np.searchsorted(self.task_ids, task_id))
        return place if place < len(self.task_ids) and self.task_ids[place] == task_id else None

    def span(self, place: int) -> slice:
        """Where the masks of the image at `place` lie in the (N,) arrays."""
        end = int(self._ends[place])
        return slice(end - int(self.counts[place]), end)


class Workspace:
    """Reads and writes a project's artifacts.

    Args:
        artifacts: where they lie.
        project_id: of the project.
    """

    def __init__(self, artifacts: Artifacts, project_id: int) -> None:
        self._artifacts = artifacts
        self._root = f"project-{project_id}"

    def mask_key(self, task_id: int, image: str, edits: str = "") -> str:
        """Key of an image's masks as proposed, or after the edits that `edits` spells out."""
        suffix = hashlib.sha256(edits.encode()).hexdigest()[:12] if edits else "proposed"
        return f"{self._folder(task_id, image)}/masks-{suffix}"

    def _folder(self, task_id: int, image: str) -> str:
        """A task whose image address changes starts anew."""
        return f"{self._root}/tasks/{task_id}-{hashlib.sha256(image.encode()).hexdigest()[:8]}"

    def image_key(self, task_id: int, image: str) -> str:
        """Names an image among those of all projects, by its task and address."""
        return f"{self._root}-{task_id}-{hashlib.sha256(image.encode()).hexdigest()[:16]}"

    def has_masks(self, key: str) -> bool:
        """Whether masks and their catalog are stored (the catalog is written last)."""
        return self._artifacts.exists(f"{key}.catalog")

    def write_masks(
        self, key: str, masks: MaskSet, features: NDArray[np.float32], imported: bool, seen_by: str = ""
    ) -> None:
        """Store masks, then their catalog; an id map shrinks to a hundredth, and is read as fast."""
        rings = {f"ring:{region_id}": ring for region_id, ring in masks.rings.items()}
        self._artifacts.write_arrays(
            key,
            {
                "mask_ids": masks.mask_ids, "region_ids": np.array(masks.region_ids, np.str_),
                "first_labels": masks.first_labels, **rings,
            },
            compress=True,
        )  # fmt: skip
        self._artifacts.write_arrays(
            f"{key}.catalog",
            {
                "region_ids": np.array(masks.region_ids, np.str_), "first_labels": masks.first_labels,
                "areas": masks.areas(), "features": features, "imported": np.array(imported),
                "seen_by": np.array(seen_by, np.str_),
            },
            compress=True,
        )  # fmt: skip

    def forget_masks(self, key: str) -> None:
        """Delete masks and their catalog."""
        self._artifacts.delete(key)
        self._artifacts.delete(f"{key}.catalog")

    def masks(self, key: str) -> MaskSet:
        """The masks of an image."""
        arrays = self._artifacts.read_arrays(key)
        rings = {name.removeprefix("ring:"): ring for name, ring in arrays.items() if name.startswith("ring:")}
        return MaskSet(arrays["mask_ids"], tuple(arrays["region_ids"].tolist()), arrays["first_labels"], rings)

    def catalog(self, key: str) -> Catalog:
        """The catalog of an image's masks."""
        arrays = self._artifacts.read_arrays(f"{key}.catalog")
        return Catalog(
            tuple(arrays["region_ids"].tolist()), arrays["first_labels"], arrays["areas"], arrays["features"],
            bool(arrays["imported"]), str(arrays.get("seen_by", "")),
        )  # fmt: skip

    def write_shape(self, annotation_id: int, region_id: str, shape: NDArray[np.bool_]) -> str:
        """Store the pixels a person drew; returns their key."""
        digest = hashlib.sha256(region_id.encode() + shape.tobytes()).hexdigest()[:16]
        key = f"{self._root}/shapes/{annotation_id}-{digest}"
        packed = {"bits": np.packbits(shape), "size": np.array(shape.shape)}
        self._artifacts.write_arrays(key, packed)
        return key

    def shape(self, key: str) -> NDArray[np.bool_]:
        """The pixels a person drew, (H, W) bool."""
        arrays = self._artifacts.read_arrays(key)
        height, width = (int(side) for side in arrays["size"])
        return np.unpackbits(arrays["bits"], count=height * width).reshape(height, width).astype(bool)

    def write_input(self, task_id: int, image: str, kind: str, array: NDArray[np.generic]) -> None:
        """Store what θ reads of an image: frozen features, or pixels; `kind` is `Segmenter.fingerprint`."""
        self._artifacts.write_arrays(f"{self._folder(task_id, image)}/input-{kind}", {"input": array})

    def has_input(self, task_id: int, image: str, kind: str) -> bool:
        """Whether θ's input of an image is stored."""
        return self._artifacts.exists(f"{self._folder(task_id, image)}/input-{kind}")

    def input(self, task_id: int, image: str, kind: str) -> NDArray[np.generic]:
        """What θ reads of an image."""
        return self._artifacts.read_arrays(f"{self._folder(task_id, image)}/input-{kind}")["input"]

    def write_segmenter(self, number: int, state: bytes) -> None:
        """Store θ of a round."""
        self._artifacts.write(f"{self._root}/rounds/{number}/segmenter", state)

    def has_segmenter(self, number: int) -> bool:
        """Whether a round's θ is stored."""
        return self._artifacts.exists(f"{self._root}/rounds/{number}/segmenter")

    def segmenter(self, number: int) -> bytes:
        """θ of a round."""
        return self._artifacts.read(f"{self._root}/rounds/{number}/segmenter")

    def write_training(self, number: int, name: str, state: bytes) -> None:
        """Store how far a training of a round is; `name` tells what it learns from."""
        self._artifacts.write(f"{self._root}/rounds/{number}/training/{name}", state)

    def training(self, number: int, name: str) -> bytes | None:
        """How far a training of a round is, None if it was not begun."""
        key = f"{self._root}/rounds/{number}/training/{name}"
        return self._artifacts.read(key) if self._artifacts.exists(key) else None

    def forget_training(self, number: int) -> None:
        """Delete what was stored of a round's trainings; θ itself stays."""
        self._artifacts.delete(f"{self._root}/rounds/{number}/training")

    def write_scores(self, number: int, task_id: int, scores: Scores) -> None:
        """Store what θ says of an image in a round."""
        self._artifacts.write_arrays(
            f"{self._root}/rounds/{number}/scores/{task_id}",
            {
                "mask_key": np.array(scores.mask_key), "rows": scores.rows, "soft_labels": scores.soft_labels,
                "dominant": scores.dominant,
            },
        )  # fmt: skip

    def scores(self, number: int, task_id: int, mask_key: str) -> Scores | None:
        """What θ said of these very masks in a round, None if it was not asked."""
        key = f"{self._root}/rounds/{number}/scores/{task_id}"
        if not self._artifacts.exists(key):
            return None
        arrays = self._artifacts.read_arrays(key)
        scores = Scores(str(arrays["mask_key"]), arrays["rows"], arrays["soft_labels"], arrays["dominant"])
        return scores if scores.mask_key == mask_key else None

    def begin_rebuild(self, version: str) -> None:
        """Delete the project's artifacts, and note what it is rebuilt from; masks that were rebuilt from it stay."""
        self._artifacts.delete(f"{self._root}/rounds" if self.rebuilt_from() == version else self._root)
        self._artifacts.write(f"{self._root}/{_REBUILDING}", version.encode())

    def rebuilt_from(self) -> str:
        """The version that an unfinished rebuild reads, empty where there is none."""
        key = f"{self._root}/{_REBUILDING}"
        return self._artifacts.read(key).decode() if self._artifacts.exists(key) else ""

    def end_rebuild(self) -> None:
        """Note that the project is rebuilt."""
        self._artifacts.delete(f"{self._root}/{_REBUILDING}")

    def write_labels(self, number: int, labels: Labels) -> None:
        """Store the labels of a round."""
        arrays = {field.name: np.asarray(getattr(labels, field.name)) for field in fields(Labels)}
        self._artifacts.write_arrays(f"{self._root}/rounds/{number}/labels", arrays)

    def has_labels(self, number: int) -> bool:
        """Whether the labels of a round are stored."""
        return self._artifacts.exists(f"{self._root}/rounds/{number}/labels")

    def labels(self, number: int) -> Labels:
        """The labels of a round."""
        arrays: dict[str, Any] = self._artifacts.read_arrays(f"{self._root}/rounds/{number}/labels")
        if "strata" not in arrays:  # written before corrections were audited
            arrays["strata"] = np.full(len(arrays["labels"]), -1, np.int64)
        if "certainty" not in arrays:  # written before queues said how sure the guess is
            arrays["certainty"] = np.full(len(arrays["labels"]), np.nan)
        return Labels(**(arrays | {"mask_keys": tuple(arrays["mask_keys"].tolist())}))

    def forget_round(self, number: int) -> None:
        """Delete everything that was stored for a round."""
        self._artifacts.delete(f"{self._root}/rounds/{number}")


def digest(labels: Labels, queries: Sequence[Query]) -> str:
    """What makes one round's predictions differ from another's, in eight hexadecimal digits."""
    found = hashlib.sha256()
    for array in (labels.task_ids, labels.labels, labels.sources):
        found.update(array.tobytes())
    found.update("\n".join(labels.mask_keys).encode())
    found.update("\n".join(f"{query.task_id} {query.region_id}" for query in queries).encode())
    return found.hexdigest()[:8]
