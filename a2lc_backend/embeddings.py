"""Embeddings of images, made once: kept as artifacts that all processes share, the latest also in memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import structlog
from numpy.typing import NDArray

from a2lc_backend.foundation import Embedding, PromptedModel
from a2lc_backend.store import ArtifactError, Artifacts, Ledger

_NOTE_USE_SECONDS = 60.0
"""Which embeddings were used is written down so often: a click must not wait for the database each time."""

log = structlog.get_logger()


class Embeddings:
    """Gives the embedding of an image from memory, from the artifacts, or by running the encoder once.

    Whoever asks for an embedding that another thread is making waits for that one.

    Args:
        artifacts: where embeddings are kept.
        ledger: knows which were used when.
        memory_bytes: kept in this process, the least recently used go first.
        disk_bytes: kept as artifacts, the least recently used go first.
    """

    def __init__(self, artifacts: Artifacts, ledger: Ledger, memory_bytes: int, disk_bytes: int) -> None:
        self._artifacts, self._ledger = artifacts, ledger
        self._memory_bytes, self._disk_bytes = memory_bytes, disk_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Embedding] = OrderedDict()
        self._held = 0
        self._making: dict[str, Future[Embedding]] = {}
        self._noted: dict[str, float] = {}

    def of(self, model: PromptedModel, image_key: str, image: Callable[[], NDArray[np.uint8]]) -> Embedding:
        """The embedding of an image.

        Args:
            model: that makes it and reads it.
            image_key: names the image for ever.
            image: gives the image, (H, W, 3) uint8 RGB; called only if the encoder has to be run.

        Raises:
            FoundationError: if the model cannot be used.
        """
        key = f"embeddings/{model.fingerprint}/{image_key}"
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
            waiting = self._making.get(key)
            if kept is None and waiting is None:
                self._making[key] = made = Future[Embedding]()
        if kept is not None:
            self._note_use(key, kept)
            return kept
        if waiting is not None:
            return waiting.result()
        try:
            embedding = self._read(key, model.fingerprint)
            stored = embedding is not None
            embedding = embedding or model.embed(image())
            self._keep(key, embedding)
            made.set_result(embedding)
        except BaseException as error:
            made.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._making[key]
        if not stored:
            self._store(key, embedding)
        return embedding

    def _read(self, key: str, fingerprint: str) -> Embedding | None:
        if not self._artifacts.exists(key):
            return None
        try:
            arrays = self._artifacts.read_arrays(key)
        except ArtifactError as error:
            log.warning("an embedding cannot be read; it is made again", error=str(error))
            return None
        height, width = arrays.pop("size").tolist()
        embedding = Embedding(arrays, (height, width), fingerprint)
        self._note_use(key, embedding)
        return embedding

    def _store(self, key: str, embedding: Embedding) -> None:
        """Keep an embedding for other processes; where that fails, it is made again when one needs it."""
        try:
            arrays = dict(embedding.arrays)
            self._artifacts.write_arrays(key, arrays | {"size": np.array(embedding.size, np.int64)})
            self._ledger.use_embedding(key, _bytes(embedding))
            for surplus in self._ledger.surplus_embeddings(self._disk_bytes):
                self._artifacts.delete(surplus)
                self._ledger.forget_embedding(surplus)
        except Exception as error:  # a full disk costs time, not the mask
            log.warning("an embedding cannot be kept for others", error=f"{type(error).__name__}: {error}")

    def _keep(self, key: str, embedding: Embedding) -> None:
        with self._lock:
            self._kept[key] = embedding
            self._held += _bytes(embedding)
            while self._held > self._memory_bytes and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._held -= _bytes(dropped)

    def _note_use(self, key: str, embedding: Embedding) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._noted.get(key, -_NOTE_USE_SECONDS) < _NOTE_USE_SECONDS:
                return
            if len(self._noted) > 10_000:
                self._noted.clear()
            self._noted[key] = now
        self._ledger.use_embedding(key, _bytes(embedding))


def _bytes(embedding: Embedding) -> int:
    return sum(array.nbytes for array in embedding.arrays.values())
