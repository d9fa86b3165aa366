"""Which masks people are asked about, and in which order: arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.acquisition import adaptive_class_weights, doubtful_values, mask_values, rank_masks
from a2lc_backend.audit import STRATA, draw, draw_by_stratum, in_strata, sample_size
from a2lc_backend.masks import IGNORE, Purpose
from a2lc_backend.settings import ProjectSettings

_TINY = 1e-6


@dataclass(frozen=True)
class QueueTable:
    """What ranking knows of every mask.

    Attributes:
        rows: (N, C) float64 from `acquisition.acquisition_rows`.
        soft_labels: (N, C) float64 mean soft labels.
        dominant: (N,) int64 dominant argmax.
        areas: (N,) int64 pixels.
        labels: (N,) int64 labels held.
        proposals: (N,) int64 labels held or proposed.
        doubt: (N,) float64 how unsure the corrector is of `proposals`, NaN without opinion.
        strata: (N,) int64 as `audit.stratify` gives them.
        automatic: (N,) bool, the label held is the corrector's.
        unanswered: (N,) bool, people have not settled the label.
        disputed: (N,) bool, people disagree.
        askable: (N,) bool, may be queued.
    """

    rows: NDArray[np.float64]
    soft_labels: NDArray[np.float64]
    dominant: NDArray[np.int64]
    areas: NDArray[np.int64]
    labels: NDArray[np.int64]
    proposals: NDArray[np.int64]
    doubt: NDArray[np.float64]
    strata: NDArray[np.int64]
    automatic: NDArray[np.bool_]
    unanswered: NDArray[np.bool_]
    disputed: NDArray[np.bool_]
    askable: NDArray[np.bool_]


@dataclass(frozen=True)
class Queue:
    """A review queue, first to last.

    Attributes:
        masks: (n,) int64 indices.
        acquisition: (n,) float64, falling. A mask that was drawn has that of its neighbour.
        samples: the masks that were drawn, by index.
    """

    masks: NDArray[np.int64]
    acquisition: NDArray[np.float64]
    samples: dict[int, Purpose]


def build_queue(table: QueueTable, settings: ProjectSettings, budget: int, seed: int) -> Queue:
    """Choose the next masks to ask about: those worth most, with the samples of the audits hidden among them.

    Args:
        table: every mask.
        settings: of the project.
        budget: masks to choose.
        seed: of what is drawn.
    """
    random = np.random.default_rng(seed)
    # A mask that two people label differently is asked about again before any other.
    values = mask_urgency(table, settings.ranking)
    values = np.where(table.disputed, values + values.max(initial=0.0) + 1.0, values)
    samples = _draw_samples(table, settings, budget, random)
    drawn = np.array(list(samples), np.int64)
    open_masks = table.askable.copy()
    open_masks[drawn] = False
    best = rank_masks(values, open_masks, budget)[: budget - len(drawn)]
    masks, acquisition = _hide(best, values[best], drawn, random)
    return Queue(masks, acquisition, samples)


@dataclass(frozen=True)
class _Parts:
    """What the acquisition of every mask is made of.

    Attributes:
        held: (N,) int64 label that is asked about, `IGNORE` for none.
        weights: (C,) float64 of the classes.
        effective: (N,) int64 `held`, or the dominant argmax where there is no label.
        unsure: (N,) float64, 1 − f(effective).
        doubt: (N,) float64 the corrector's, θ's where it has not seen the mask; None where it is not heeded.
    """

    held: NDArray[np.int64]
    weights: NDArray[np.float64]
    effective: NDArray[np.int64]
    unsure: NDArray[np.float64]
    doubt: NDArray[np.float64] | None


def _parts(table: QueueTable, ranking: str) -> _Parts:
    classes = table.rows.shape[1]
    doubtful = ranking == "doubt" and bool(np.isfinite(table.doubt).any())
    held = table.proposals if doubtful else table.labels
    counted = table.unanswered & (held != IGNORE)
    weights = adaptive_class_weights(np.bincount(held[counted], weights=table.areas[counted], minlength=classes))
    if ranking == "cil" or not counted.any():  # nothing has a label in round 0 of superpixels
        weights = np.ones(classes)
    effective = np.where(held == IGNORE, table.dominant, held)
    unsure = 1.0 - np.take_along_axis(table.soft_labels, effective[:, None], 1)[:, 0]
    # Masks that the corrector has not seen yet are as doubtful as θ finds them.
    doubt = np.where(np.isfinite(table.doubt), table.doubt, unsure) if doubtful else None
    return _Parts(held, weights, effective, unsure, doubt)


def mask_urgency(table: QueueTable, ranking: str) -> NDArray[np.float64]:
    """Acquisition of every mask, (N,), higher = sooner: ABC, or with the corrector's doubt once it has an opinion."""
    parts = _parts(table, ranking)
    if parts.doubt is None:
        return mask_values(table.rows, parts.held, parts.weights, table.dominant)
    plain = mask_values(table.rows, parts.held, np.ones(len(parts.weights)), table.dominant)
    doubtful = doubtful_values(plain, table.areas, parts.doubt)
    return np.asarray(doubtful * parts.weights[parts.effective], np.float64)


def reasons(table: QueueTable, ranking: str, masks: NDArray[np.int64]) -> list[str]:
    """Why each of some masks is asked about, in words; "" where nothing stands out.

    Acquisition is a product of class weight, area and doubts. The factor that lifts a mask most above the median of
    those that may be asked is the reason; a doubt is named only where it is a half or more. It has no more than 32
    letters.

    Args:
        table: every mask.
        ranking: that chose them.
        masks: (n,) int64 indices.
    """
    parts = _parts(table, ranking)
    heeded = np.zeros(len(table.areas), np.bool_) if parts.doubt is None else np.isfinite(table.doubt)
    factors = {
        "rare class": (parts.weights[parts.effective], np.ones(len(heeded)), 0.0),
        "large mask": (table.areas, np.ones(len(heeded)), 0.0),
        # The two doubts go in under one root.
        "the segmenter doubts it": (parts.unsure, np.where(heeded, 0.5, 1.0), 0.5),
        "the corrector is unsure": (np.where(heeded, table.doubt, 0.0), np.where(heeded, 0.5, 0.0), 0.5),
    }
    lifts = []
    for values, power, least in factors.values():
        usual = np.median(values[table.askable]) if table.askable.any() else 1.0
        lift = power * np.log(np.maximum(values, _TINY) / max(float(usual), _TINY))
        lifts.append(np.where(values >= least, lift, 0.0)[masks])
    names, best = list(factors), np.argmax(lifts, axis=0)
    found = [names[index] if lift > 0 else "" for index, lift in zip(best, np.max(lifts, axis=0), strict=True)]
    return ["people disagree" if table.disputed[mask] else why for mask, why in zip(masks, found, strict=True)]


def expected_share(table: QueueTable, masks: NDArray[np.int64]) -> float:
    """Share of some masks whose label θ takes for wrong: the mean of 1 − f(label held); 0 of no masks."""
    held = table.labels[masks]
    known = held != IGNORE
    belief = table.soft_labels[masks, np.where(known, held, 0)] * known
    return float((1.0 - belief).mean()) if len(masks) else 0.0


def _draw_samples(
    table: QueueTable, settings: ProjectSettings, budget: int, random: np.random.Generator
) -> dict[int, Purpose]:
    """The masks of the three samples; see `audit`."""
    askable = table.askable & ~table.disputed & table.unanswered
    size = sample_size(budget, settings.audit)
    stating = draw(np.flatnonzero(askable & table.automatic), size, random)
    others = draw(np.flatnonzero(askable & ~table.automatic), int(settings.explore * budget), random)
    # Where certainty is asked for, the answers go to the proposals that may reach it.
    strata = table.strata
    if settings.policy == "precision":
        strata = np.where(in_strata(strata, [stratum.seconded for stratum in STRATA]), strata, -1)
    taken = np.zeros(len(askable), np.bool_)
    taken[stating] = taken[others] = True
    deciding = draw_by_stratum(strata, np.flatnonzero(askable & ~taken), size, random)
    samples: dict[int, Purpose] = dict.fromkeys(others.tolist(), "random")
    samples |= dict.fromkeys(deciding.tolist(), "deciding") | dict.fromkeys(stating.tolist(), "stating")
    return dict(list(samples.items())[-budget:])


def _hide(
    best: NDArray[np.int64], values: NDArray[np.float64], drawn: NDArray[np.int64], random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Put the drawn masks at random places among the best: nobody sees which they are, and all are looked at alike."""
    count = len(best) + len(drawn)
    is_drawn = np.zeros(count, np.bool_)
    is_drawn[random.choice(count, len(drawn), replace=False)] = True
    masks = np.empty(count, np.int64)
    masks[~is_drawn], masks[is_drawn] = best, random.permutation(drawn)
    neighbour = np.clip(np.cumsum(~is_drawn) - 1, 0, None)
    acquisition = values[neighbour] if len(values) else np.zeros(count)
    return masks, np.asarray(acquisition, np.float64)
