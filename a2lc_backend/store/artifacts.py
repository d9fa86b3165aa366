"""Arrays and bytes by key, on any address that fsspec knows."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray

_DIGEST_BYTES = 32
_MEND = (
    "start the round again, which makes anew what it can; if it is named once more, `a2lc rebuild --replace` makes a "
    "new store from Label Studio"
)


class ArtifactError(RuntimeError):
    """An artifact is missing or not what was written; the message names the key and the mend."""


def is_sound(read: Callable[[], object]) -> bool:
    """Whether what is read is there and is what was written."""
    try:
        read()
    except ArtifactError:
        return False
    return True


class Artifacts:
    """A folder of artifacts; each is written whole or not at all and carries its SHA-256.

    Args:
        url: fsspec address such as `file:///var/lib/a2lc/artifacts`, `s3://bucket/prefix` or `memory://name`.

    Raises:
        ArtifactError: if fsspec does not know such addresses, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ArtifactError(
                f"artifacts cannot be kept at {url}: {error}; install the driver (gs: pip install gcsfs) or set "
                "A2LC_ARTIFACTS_URL to another address"
            ) from error
        self._is_local = "file" in self._fs.protocol
        self._root = str(root).rstrip("/")

    def exists(self, key: str) -> bool:
        """Whether an artifact of that key was written."""
        return bool(self._fs.exists(self._path(key)))

    def write(self, key: str, data: bytes) -> None:
        """Write bytes under a key, replacing what was there in one step."""
        path = self._path(key)
        if not self._is_local:  # an object store puts an object there whole, and moving it would copy it
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(path, hashlib.sha256(data).digest() + data)
            return
        temporary = f"{path}.{uuid.uuid4().hex}.part"
        self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        try:
            with self._fs.open(temporary, "wb") as file:
                file.write(hashlib.sha256(data).digest())
                file.write(data)
            self._fs.mv(temporary, path)
        except BaseException:
            if self._fs.exists(temporary):
                self._fs.rm(temporary)
            raise

    def read(self, key: str) -> bytes:
        """Read what was written under a key.

        Raises:
            ArtifactError: if there is none, or its checksum is wrong.
        """
        try:
            data: bytes = self._fs.cat_file(self._path(key))
        except FileNotFoundError as error:
            raise ArtifactError(f"artifact {key} is missing in {self.url}; {_MEND}") from error
        digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            raise ArtifactError(f"artifact {key} in {self.url} is corrupt; {_MEND}")
        return body

    def write_arrays(self, key: str, arrays: Mapping[str, NDArray[Any]], *, compress: bool = False) -> None:
        """Write named arrays under a key.

        Args:
            key: of the artifact.
            arrays: by name.
            compress: for arrays that repeat themselves, as id maps and names do; floats gain little.
        """
        buffer = io.BytesIO()
        save = np.savez_compressed if compress else np.savez
        save(buffer, allow_pickle=False, **arrays)
        self.write(key, buffer.getvalue())

    def read_arrays(self, key: str) -> dict[str, NDArray[Any]]:
        """Read the arrays written under a key; raises what `read` raises."""
        with np.load(io.BytesIO(self.read(key)), allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}

    def delete(self, prefix: str) -> None:
        """Delete every artifact whose key starts with a folder's name; none is no error."""
        path = self._path(prefix)
        self._fs.invalidate_cache()  # else an object that another process has written since is not listed, and stays
        with suppress(FileNotFoundError):  # another process may delete it in the same instant
            if self._fs.exists(path):
                self._fs.rm(path, recursive=True)

    def _path(self, key: str) -> str:
        # No key is made of what people write, but of numbers and digests; this is a second lock.
        if not all(part.strip(".") for part in key.split("/")) or "\\" in key or "\0" in key:
            raise ArtifactError(f"{key!r} is no name of an artifact")
        return f"{self._root}/{key}"
