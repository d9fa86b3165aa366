"""Embeddings are made once, shared, and limited."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from a2lc_backend.embeddings import Embeddings
from a2lc_backend.foundation import Embedding, FoundationError
from a2lc_backend.store import Artifacts, Ledger

MEGABYTE = 2**20


class Encoder:
    """Counts how often it is run; what it makes tells the image apart."""

    fingerprint = "counting-1"

    def __init__(self, seconds: float = 0.0) -> None:
        self.runs = 0
        self._seconds = seconds
        self._lock = threading.Lock()

    def embed(self, image: NDArray[np.uint8]) -> Embedding:
        time.sleep(self._seconds)
        with self._lock:
            self.runs += 1
        values = np.full(MEGABYTE // 2, float(image[0, 0, 0]), np.float16)
        return Embedding({"features": values}, (image.shape[0], image.shape[1]), self.fingerprint)


def picture(value: int) -> Callable[[], NDArray[np.uint8]]:
    return lambda: np.full((4, 6, 3), value, np.uint8)


def unused() -> NDArray[np.uint8]:
    raise AssertionError("the image is not needed")


def test_the_encoder_sees_an_image_once_in_all_processes(ledger: Ledger, artifacts: Artifacts) -> None:
    encoder = Encoder()
    one = Embeddings(artifacts, ledger, 8 * MEGABYTE, 100 * MEGABYTE)
    made = one.of(encoder, "p1-7-a", picture(3))  # type: ignore[arg-type]
    assert (made.size, made.arrays["features"][0]) == ((4, 6), 3)
    assert one.of(encoder, "p1-7-a", unused) is made  # type: ignore[arg-type]
    other = Embeddings(artifacts, ledger, 8 * MEGABYTE, 100 * MEGABYTE)
    read = other.of(encoder, "p1-7-a", unused)  # type: ignore[arg-type]
    assert (read.size, read.fingerprint) == ((4, 6), "counting-1")
    assert np.array_equal(read.arrays["features"], made.arrays["features"])
    assert encoder.runs == 1


def test_many_threads_wait_for_one_encoder_and_never_mix_images(ledger: Ledger, artifacts: Artifacts) -> None:
    encoder = Encoder(seconds=0.05)
    embeddings = Embeddings(artifacts, ledger, 8 * MEGABYTE, 100 * MEGABYTE)

    def ask(turn: int) -> bool:
        value = turn % 4
        found = embeddings.of(encoder, f"p1-{value}-a", picture(value))  # type: ignore[arg-type]
        return bool((found.arrays["features"] == value).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(64)))
    assert encoder.runs == 4


def test_what_was_used_longest_ago_leaves_first(ledger: Ledger, artifacts: Artifacts) -> None:
    encoder = Encoder()
    embeddings = Embeddings(artifacts, ledger, 2 * MEGABYTE, 3 * MEGABYTE)
    for value in range(3):
        embeddings.of(encoder, f"k{value}", picture(value))  # type: ignore[arg-type]
    assert embeddings.of(encoder, "k0", unused).arrays["features"][0] == 0, "not in memory any more, but on disk"  # type: ignore[arg-type]
    assert encoder.runs == 3
    ledger.use_embedding("embeddings/counting-1/k0", 8 * 2)
    embeddings.of(encoder, "k3", picture(3))  # type: ignore[arg-type]
    held = [value for value in range(4) if artifacts.exists(f"embeddings/counting-1/k{value}")]
    assert held == [0, 2, 3]
    fresh = Embeddings(artifacts, ledger, 2 * MEGABYTE, 3 * MEGABYTE)
    fresh.of(encoder, "k1", picture(1))  # type: ignore[arg-type]
    assert encoder.runs == 5


def test_one_that_is_corrupt_or_failed_is_made_again(ledger: Ledger, artifacts: Artifacts, tmp_path: Path) -> None:
    encoder = Encoder()
    embeddings = Embeddings(artifacts, ledger, 0, 100 * MEGABYTE)
    embeddings.of(encoder, "k", picture(5))  # type: ignore[arg-type]
    file = tmp_path / "artifacts/embeddings/counting-1/k"
    file.write_bytes(file.read_bytes()[:-9])
    again = Embeddings(artifacts, ledger, 0, 100 * MEGABYTE)
    assert again.of(encoder, "k", picture(5)).arrays["features"][0] == 5  # type: ignore[arg-type]
    assert encoder.runs == 2

    def broken() -> NDArray[np.uint8]:
        raise FoundationError("the image cannot be had")

    with pytest.raises(FoundationError):
        again.of(encoder, "other", broken)  # type: ignore[arg-type]
    assert again.of(encoder, "other", picture(1)).arrays["features"][0] == 1, "a failure is not kept"  # type: ignore[arg-type]


def test_what_a_new_ledger_does_not_know_is_counted_once_it_is_used(
    ledger: Ledger, artifacts: Artifacts, tmp_path: Path
) -> None:
    encoder = Encoder()
    Embeddings(artifacts, ledger, 0, 100 * MEGABYTE).of(encoder, "k", picture(5))  # type: ignore[arg-type]
    other = Ledger(f"sqlite:///{tmp_path / 'other.db'}")
    assert other.surplus_embeddings(1) == []
    Embeddings(artifacts, other, 0, 100 * MEGABYTE).of(encoder, "k", unused)  # type: ignore[arg-type]
    assert other.surplus_embeddings(1) == ["embeddings/counting-1/k"]
    other.close()


def test_a_full_disk_costs_no_answer_and_no_second_look(
    ledger: Ledger, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder()
    embeddings = Embeddings(artifacts, ledger, 8 * MEGABYTE, 100 * MEGABYTE)

    def full(*_args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(artifacts, "write_arrays", full)
    assert embeddings.of(encoder, "k", picture(5)).size == (4, 6)  # type: ignore[arg-type]
    assert embeddings.of(encoder, "k", unused).size == (4, 6)  # type: ignore[arg-type]
    assert encoder.runs == 1
