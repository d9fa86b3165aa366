"""Reads what comes next while what came last is worked on: artifacts may lie on a disk or across a network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

READERS = 2
AHEAD = 4
"""Items that may wait in memory for their turn."""

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(items: Iterable[Item], read: Callable[[Item], Read]) -> Iterator[tuple[Item, Read]]:
    """Give every item with what was read for it, in order, while threads read the next ones.

    Args:
        items: in the order they are wanted.
        read: called in a thread; what it raises is raised when the item's turn comes.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="a2lc-read") as pool:
        waiting: deque[tuple[Item, Future[Read]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(read, item)))
                if len(waiting) > AHEAD:
                    first, found = waiting.popleft()
                    yield first, found.result()
            while waiting:
                first, found = waiting.popleft()
                yield first, found.result()
        finally:
            for _, found in waiting:
                found.cancel()
