"""What the files of an image are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 100


def file_names(addresses: Mapping[int, str]) -> dict[int, str]:
    """A name for the files of each image, by task id: that of the image's own file, as far as no other has it.

    Args:
        addresses: of the images, by task id.
    """
    stems = {task_id: _stem(address) or f"task-{task_id}" for task_id, address in addresses.items()}
    # Not every file system tells capitals from small letters.
    count = Counter(stem.lower() for stem in stems.values())
    taken = {stem for stem, times in count.items() if times == 1}
    names = {}
    for task_id, stem in sorted(stems.items()):
        name = stem
        while count[stem.lower()] > 1 and (name == stem or name.lower() in taken):
            name = f"{name}-{task_id}"
        taken.add(name.lower())
        names[task_id] = name
    return names


def _stem(address: str) -> str:
    """The file name in an address, without suffix and without what Label Studio put before it; "" if there is none."""
    if address.startswith("data:"):
        return ""
    try:
        parts = urlsplit(address)
        path = parts.path
        if path.endswith("/data/local-files/"):
            path = parse_qs(parts.query).get("d", [path])[0]
    except ValueError:
        path = address
    name = PurePosixPath(unquote(path)).name
    if "/data/upload/" in address:
        name = _UPLOAD.sub("", name)
    stem = name.rsplit(".", 1)[0].removesuffix("_leftImg8bit")  # as Cityscapes calls its images
    return _UNSAFE.sub("_", stem)[:_LONGEST].strip("._-")
