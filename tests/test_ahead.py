"""Reading ahead keeps the order, the errors, and bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from a2lc_backend.rounds.ahead import AHEAD, read_ahead


def test_order_is_that_of_the_items_whichever_is_read_first() -> None:
    second_read = threading.Event()

    def read(item: int) -> int:
        if item == 0:
            assert second_read.wait(10)
        if item == 1:
            second_read.set()
        return item * item

    assert list(read_ahead(range(20), read)) == [(item, item * item) for item in range(20)]


def test_no_more_is_read_than_may_wait() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    reading = read_ahead(items(), str)
    next(reading)
    assert len(taken) <= AHEAD + 1
    reading.close()
    assert len(taken) <= AHEAD + 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("a2lc-read")]


def test_an_error_comes_when_its_item_does() -> None:
    def read(item: int) -> int:
        if item == 3:
            raise ValueError("item 3")
        return item

    seen = []
    with pytest.raises(ValueError, match="item 3"):
        for item, _ in read_ahead(range(10), read):
            seen.append(item)
    assert seen == [0, 1, 2]
