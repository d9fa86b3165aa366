"""Work in batches that shrink where the device's memory is too small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
import torch

from a2lc_backend.foundation import FoundationError

Item = TypeVar("Item")
Result = TypeVar("Result")

log = structlog.get_logger()


_SIGNS = ("alloc_failed", "can't allocate memory", "not enough memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had too little memory, as torch, CUDA's libraries and Python say it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def in_batches(
    items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]], size: int, what: str
) -> list[Result]:
    """Do some work batch by batch; where the device runs out of memory, go on with half the batch.

    Args:
        items: in order.
        work: gives one result an item, in order; it is called again with fewer items when it ran out of memory.
        size: items a batch to begin with, 1 or more.
        what: the work in words, for the log and the error.

    Returns:
        One result an item.

    Raises:
        FoundationError: if the memory is too small for a single item.
    """
    results: list[Result] = []
    while len(results) < len(items):
        batch = items[len(results) : len(results) + size]
        try:
            results += work(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise FoundationError(
                    f"the device has too little memory for {what}; choose a smaller model, or set A2LC_DEVICE to cpu"
                ) from error
            size = max(min(size, len(batch)) // 2, 1)
            log.warning("out of memory; the batch is halved", what=what, batch=size)
        else:
            continue
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # after the exception, whose frames hold what filled the memory
    return results
