"""The phases of a round, in order: what each does, where it runs, and how it is divided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from a2lc_backend.rounds.collect import collect
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.correct import correct, sound_labels
from a2lc_backend.rounds.propose import finish_proposals, plan_proposals, propose, sound_proposals
from a2lc_backend.rounds.publish import finish_publish, plan_publish, publish
from a2lc_backend.rounds.rank import rank
from a2lc_backend.rounds.train import plan_score, score, sound_scores, sound_segmenter, train

QueueName = Literal["gpu", "cpu"]
QUEUES: tuple[QueueName, ...] = ("gpu", "cpu")


@dataclass(frozen=True)
class PhaseKind:
    """What a phase does.

    Attributes:
        name: of the phase.
        queue: where its work belongs: `gpu` where a neural network runs.
        work: does a shard, or all of it; may be run again for the same items, also by two processes at once.
        plan: lists what there is to do, to be divided into shards; None for a phase that is one job.
        finish: does once what comes after the last shard; may be run again.
        sound: whether what the phase made can still be read, asked when a round that failed is taken up; what cannot is
            dropped, so that the phase makes it anew.
    """

    name: str
    queue: QueueName
    work: Callable[[Context, Items, Progress], None]
    plan: Callable[[Context], Sequence[Any]] | None = None
    finish: Callable[[Context], None] | None = None
    sound: Callable[[Context], bool] | None = None


PHASES: tuple[PhaseKind, ...] = (
    PhaseKind("collect", "cpu", collect),
    PhaseKind("propose", "gpu", propose, plan_proposals, finish_proposals, sound_proposals),
    PhaseKind("correct", "cpu", correct, sound=sound_labels),
    PhaseKind("train", "gpu", train, sound=sound_segmenter),
    PhaseKind("score", "gpu", score, plan_score, sound=sound_scores),
    PhaseKind("rank", "cpu", rank),
    PhaseKind("publish", "cpu", publish, plan_publish, finish_publish),
)
"""Publishing comes last, because a prediction also carries the queue."""

_SHARD_ITEMS = 64
_SHARDS = 16


def divide(items: Sequence[Any]) -> list[Sequence[Any]]:
    """Parts of a phase's items: at most 64 each, and 16 parts or more where there are as many items."""
    size = min(max(-(-len(items) // _SHARDS), 1), _SHARD_ITEMS)
    return [items[start : start + size] for start in range(0, len(items), size)]
