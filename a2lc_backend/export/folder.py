"""A folder that is there whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_PART = 2**20


class ExportError(RuntimeError):
    """Labels cannot be exported; the message says why and names the mend."""


def holds_already(target: Path, about: Mapping[str, Any]) -> bool:
    """Whether a folder holds the very export that is wanted, unchanged.

    Args:
        target: the folder.
        about: what the manifest says of it, without counts and checksums.

    Raises:
        ExportError: if it holds anything else.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    try:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, str] = manifest["files"]
        same = all(manifest[name] == value for name, value in json.loads(json.dumps(about)).items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ExportError(f"{target} holds other files; choose a folder that is empty or not there") from None
    if not same:
        was = f"round {manifest.get('round')} as {manifest.get('settings', {}).get('format')}"
        raise ExportError(f"{target} holds another export ({was}); delete it or choose another folder")
    if checksums(target) != files:
        raise ExportError(f"{target} holds this export, but its files were changed; delete it or choose another folder")
    return True


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which takes its name when all is written; what was cut off before is thrown away.

    Args:
        target: a folder that is empty or not there.

    Raises:
        ExportError: if it cannot be written, or another process writes it.
    """
    begun = target.with_name(f"{target.name}.unfinished")
    try:
        begun.mkdir(parents=True, exist_ok=True)
        lock = os.open(begun, os.O_RDONLY)
    except OSError as error:
        raise ExportError(f"{begun} cannot be written ({error.strerror}); choose another folder") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ExportError(f"another export is being written to {target}; wait for its end") from error
        for path in begun.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            yield begun
            begun.rename(target)
        except BaseException as error:
            shutil.rmtree(begun, ignore_errors=True)
            if isinstance(error, OSError):
                why = error.strerror or str(error)
                raise ExportError(f"{target} cannot be written: {why}; make room or choose another folder") from error
            raise
    finally:
        os.close(lock)


def write_manifest(folder: Path, about: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
    """Write what the folder holds, with a checksum for each file."""
    write_json(folder / MANIFEST, {**about, **counts, "files": checksums(folder)})


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder but its manifest, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while part := file.read(_PART):
                    digest.update(part)
            found[name] = digest.hexdigest()
    return found


def write_json(path: Path, content: object) -> None:
    """Write a JSON file as people read it."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def compact(content: object) -> str:
    """JSON on one line."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
