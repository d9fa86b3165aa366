"""Weights of foundation models: what there is, under which licence, and the folder that they are fetched into.

Each has a folder of its own name. What was fetched is written down beside the files, in `MANIFEST`; a folder that a
person copied there needs no such file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import httpx

from a2lc_backend.foundation import ModelUnusableError

MANIFEST = "a2lc-weights.json"
ATTEMPTS = 5
"""Failures of a download, with less than `CHUNK` gained each, after which it is given up."""

PAUSE = 0.2
"""Seconds before the second attempt; twice as long before each further one."""

CHUNK = 2**20
_SILENCE = 30.0

Progress = Callable[[int, int], None]
"""Is told the bytes that are there and the bytes in all, 0 if that is not known."""


class WeightsError(ModelUnusableError):
    """Weights cannot be used or fetched; the message says why and what mends it."""


@dataclass(frozen=True)
class File:
    """A file of some weights: its name, bytes and SHA-256, each of the latter None where none was published."""

    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """Weights that can be fetched by name.

    Attributes:
        name: what settings and commands call them.
        use: what they are for.
        files: without which they cannot be used.
        licence: SPDX identifier, or the name of a custom licence.
        commercial: whether it allows commercial use; `custom` where it sets conditions of its own.
        source: address of the folder of a single file; empty for a repository.
        repository: of Hugging Face, whose whole model is fetched; empty for a single file.
        revision: of the repository.
        terms: address of a custom licence.
    """

    name: str
    use: str
    files: tuple[File, ...]
    licence: str = "Apache-2.0"
    commercial: Literal["yes", "no", "custom"] = "yes"
    source: str = ""
    repository: str = ""
    revision: str = ""
    terms: str = ""

    @property
    def address(self) -> str:
        """Where a person can get the files by hand."""
        return f"https://huggingface.co/{self.repository}" if self.repository else f"{self.source}/{self.files[0].name}"

    @property
    def command(self) -> str:
        """What a person runs to get them."""
        accept = "" if self.commercial == "yes" else f" --accept-licence {self.name}"
        return f"a2lc weights fetch {self.name}{accept}"


_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_DINOV3 = "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"
_PATTERNS = ("model.safetensors", "*.json", "*.txt", "LICENSE*")


def _sam(size: str, name: str, length: int, sha256: str) -> Entry:
    return Entry(f"sam-vit-{size}", "masks by prompt", (File(name, length, sha256),), source=_SAM)


def _hub(name: str, use: str, owner: str, revision: str, length: int, sha256: str) -> Entry:
    files = (File("model.safetensors", length, sha256), File("config.json"))
    return Entry(name, use, files, repository=f"{owner}/{name}", revision=revision)


def _dinov3(size: str, revision: str, length: int, sha256: str) -> Entry:
    found = _hub(f"dinov3-{size}", "features", "facebook", revision, length, sha256)
    repository = f"{found.repository}-pretrain-lvd1689m"
    return replace(found, repository=repository, licence="DINOv3 License", commercial="custom", terms=_DINOV3)


CATALOG: tuple[Entry, ...] = (
    _sam("b", "sam_vit_b_01ec64.pth", 375_042_383, "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
    _sam(
        "l", "sam_vit_l_0b3195.pth", 1_249_524_607, "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"
    ),
    _sam(
        "h", "sam_vit_h_4b8939.pth", 2_564_550_879, "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
    ),
    _hub(
        "sam2.1-hiera-tiny",
        "masks by prompt",
        "facebook",
        "de431c4043854a71d8101e17995dfe596bf101a5",
        155_908_064,
        "48c14467e5cf9e51870511feb72c89688e82dd74523142c0538b663e193ac2a7",
    ),
    _hub(
        "sam2.1-hiera-small",
        "masks by prompt",
        "facebook",
        "ee5bba1d82bb8749febdf90f45e84b687142ba03",
        184_305_280,
        "0a4067b11ce1e23d5229203f11c718a823060d15a4b23fa2372a7d4b77cbbc60",
    ),
    _hub(
        "sam2.1-hiera-base-plus",
        "masks by prompt",
        "facebook",
        "b7320756a13354e7530a63935656d35b2f91a290",
        323_476_296,
        "2012733a0de5d03efd1bba550a2847c4551be9ef2e0d497c83074df66189f780",
    ),
    _hub(
        "sam2.1-hiera-large",
        "masks by prompt",
        "facebook",
        "665f8e2ad61cf5f53d65644ff27c8ee525124610",
        897_897_416,
        "dc407dce21301fd94abb395c5099b4f2c455fdc8a8f261ac3d0ea6d4cd197230",
    ),
    _hub(
        "grounding-dino-tiny",
        "boxes by text",
        "IDEA-Research",
        "a2bb814dd30d776dcf7e30523b00659f4f141c71",
        689_359_096,
        "1a2412ef99bd74bcd3c2a246fa1e48581f8889a1300c9051974741314fc042f3",
    ),
    _hub(
        "grounding-dino-base",
        "boxes by text",
        "IDEA-Research",
        "12bdfa3120f3e7ec7b434d90674b3396eccf88eb",
        933_400_872,
        "5548f844c928c4b6f411fa8cbcc2bfa8dbbba437cb1d513975519f93c2a9ed21",
    ),
    _hub(
        "dinov2-small",
        "features",
        "facebook",
        "ed25f3a31f01632728cabb09d1542f84ab7b0056",
        88_249_960,
        "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
    ),
    _hub(
        "dinov2-base",
        "features",
        "facebook",
        "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
        346_345_912,
        "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
    ),
    _hub(
        "dinov2-large",
        "features",
        "facebook",
        "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
        1_217_522_888,
        "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
    ),
    Entry(
        "resnet101-imagenet",
        "encoder of θ",
        (File("resnet101-63fe2227.pth", None, "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a"),),
        "BSD-3-Clause",
        source="https://download.pytorch.org/models",
    ),
    _dinov3(
        "vits16",
        "114c1379950215c8b35dfcd4e90a5c251dde0d32",
        86_406_384,
        "4610ad75edef83e75afdebf162d148dc628045ea6cbb83d67d4708c709c4f91d",
    ),
    _dinov3(
        "vitb16",
        "5931719e67bbdb9737e363e781fb0c67687896bc",
        342_662_192,
        "9a21ac3df0c63839d62612dda6f454d816c25611cc7a52966ed5a5a94921dc8b",
    ),
)


def entry(name: str) -> Entry:
    """The entry of the catalogue with a name.

    Raises:
        WeightsError: if none has it.
    """
    for item in CATALOG:
        if item.name == name:
            return item
    raise WeightsError(f"no weights are named {name!r}; choose one of {', '.join(item.name for item in CATALOG)}")


class Weights:
    """The weights in a folder.

    Args:
        folder: each weights' own folder lies in it; it need not exist.
        accepted: names of weights whose custom licence a person has read and accepted.
    """

    def __init__(self, folder: Path, accepted: Collection[str] = ()) -> None:
        self.folder = folder
        self._accepted = frozenset(accepted)

    def has(self, name: str) -> bool:
        """Whether weights can be used; False too for a name that no weights have."""
        try:
            self.path(name)
        except WeightsError:
            return False
        return True

    def path(self, name: str) -> Path:
        """The file of weights; or their folder, where they are saved as transformers saves models.

        Raises:
            WeightsError: if no weights have the name, they are not there, or their licence must be accepted first.
        """
        item = entry(name)
        self._ask_licence(item)
        place = self._place(item)
        lacking = [file.name for file in item.files if not (place / file.name).is_file()]
        if lacking:
            raise WeightsError(f"the weights {name} are not there ({lacking[0]} is missing): {self._mend(item)}")
        return place if item.repository else place / item.files[0].name

    def check(self, name: str) -> Iterator[str]:
        """What is wrong with files that are there, each with its mend; nothing if all is well.

        A file is compared with what was published, else with what was written down when it was fetched.

        Raises:
            WeightsError: as `path`, or if what was written down cannot be read.
        """
        item = entry(name)
        self.path(name)
        place = self._place(item)
        for file in self._expected(item):
            path = place / file.name
            if not path.is_file():
                yield f"{path} is missing; get it again with: {item.command}"
            elif wrong := _differs(path, file):
                yield f"{path} {wrong}; get it again with: {item.command}"

    def right_size(self, name: str) -> bool:
        """Whether the files have the sizes that were published, or written down when they were fetched."""
        item = entry(name)
        place = self._place(item)
        return all(file.size is None or _length(place / file.name) == file.size for file in self._expected(item))

    def unverified(self, name: str) -> list[str]:
        """Files that are used, but nothing says what they should be."""
        item = entry(name)
        known = {file.name for file in self._expected(item) if file.sha256}
        return [file.name for file in item.files if file.name not in known]

    def fetch(self, name: str, progress: Progress) -> Path:
        """Get weights; what an earlier attempt got is taken up.

        A file appears under its name only when it is whole and, where a checksum was published, right.

        Args:
            name: of the weights.
            progress: is told how far the download of a single file is; the client of Hugging Face shows its own.

        Returns:
            As `path`.

        Raises:
            WeightsError: if no weights have the name, their licence is not accepted, the source cannot be reached or
                sends something else, or the folder cannot be written.
        """
        item = entry(name)
        self._ask_licence(item)
        place = self.folder / name
        staging = self.folder / ".fetching" / name
        try:
            staging.mkdir(parents=True, exist_ok=True)
            place.mkdir(exist_ok=True)
            if item.repository:
                names = self._snapshot(item, staging)
            else:
                self._download(item, staging / item.files[0].name, progress)
                names = [item.files[0].name]
            published = {file.name: file for file in item.files}
            files = {file: _summed(staging / file, published.get(file, File(file)), item) for file in names}
            for file in sorted(names, key=lambda each: each in published):  # without these nothing looks whole
                (staging / file).replace(place / file)
            _write_manifest(staging, place, item, files)
            shutil.rmtree(staging)
        except OSError as error:
            raise WeightsError(
                f"{place} cannot be written ({error}); set A2LC_WEIGHTS_DIR to a folder that can be"
            ) from error
        return self.path(name)

    def _place(self, item: Entry) -> Path:
        """Folder of the files; a single one may also lie in the common folder."""
        beside = not item.repository and (self.folder / item.files[0].name).is_file()
        own = self.folder / item.name
        return self.folder if beside and not (own / item.files[0].name).is_file() else own

    def _expected(self, item: Entry) -> list[File]:
        """What files should be: as published, else as they were fetched."""
        written = _read_manifest(self._place(item) / MANIFEST)
        published = {file.name: file for file in item.files if file.sha256 is not None or file.name not in written}
        return [published.get(name) or written[name] for name in dict.fromkeys([*published, *written])]

    def _mend(self, item: Entry) -> str:
        return f"get them with: {item.command} - {self._by_hand(item)}"

    def _by_hand(self, item: Entry) -> str:
        names = ", ".join(file.name for file in item.files)
        what = f"{names} and the other .json and .txt files" if item.repository else names
        return (
            f"or, without internet, put the files of {item.address} ({what}), fetched on another machine, into "
            f"{self.folder / item.name}"
        )

    def _ask_licence(self, item: Entry) -> None:
        if item.commercial != "yes" and item.name not in self._accepted:
            raise WeightsError(
                f"the weights {item.name} are under the {item.licence}, which is no open one: read {item.terms}; if "
                f"you accept it, fetch them with: {item.command} - and set A2LC_ACCEPT_LICENCES to {item.name} to use "
                "them"
            )

    def _download(self, item: Entry, part: Path, tell: Progress) -> None:
        """Get a single file, from where the part that is there ends."""
        vain = 0
        while True:
            before = _length(part)
            try:
                return _continue(item, part, tell)
            except httpx.HTTPError as error:
                vain = 0 if _length(part) >= before + CHUNK else vain + 1
                if vain == ATTEMPTS:
                    raise WeightsError(
                        f"{item.address} cannot be fetched ({type(error).__name__}: {error}); fetch again and it goes "
                        f"on after {_length(part):,} bytes, {self._by_hand(item)}"
                    ) from error
            time.sleep(PAUSE * 2**vain)

    def _snapshot(self, item: Entry, staging: Path) -> list[str]:
        """Get a model of Hugging Face at its revision; its client goes on by itself where it was cut."""
        import huggingface_hub  # noqa: PLC0415 - only who fetches needs it
        from huggingface_hub.errors import GatedRepoError  # noqa: PLC0415

        try:
            huggingface_hub.snapshot_download(
                item.repository, revision=item.revision, local_dir=staging, allow_patterns=list(_PATTERNS)
            )
        except GatedRepoError as error:
            raise WeightsError(
                f"{item.address} is only open to those whom its owner let in: ask there, set HF_TOKEN to a token of "
                f"your account, then run: {item.command}"
            ) from error
        except Exception as error:  # the client lets through those of its HTTP library, another one in each version
            raise WeightsError(
                f"{item.address} cannot be fetched ({type(error).__name__}: {error}); fetch again when it can be "
                f"reached, {self._by_hand(item)}"
            ) from error
        names = sorted(path.name for path in staging.iterdir() if path.is_file() and path.name != MANIFEST)
        # Where the hub cannot be reached, the client returns without an error if anything lies in the folder already.
        lacking = [file.name for file in item.files if file.name not in names]
        if lacking:
            raise WeightsError(
                f"{item.address} cannot be fetched ({lacking[0]} did not come); fetch again when it can be reached, "
                f"{self._by_hand(item)}"
            )
        return names


def _continue(item: Entry, part: Path, tell: Progress) -> None:
    """One attempt to get what a part lacks; starts anew where the server sends files only as a whole."""
    there = _length(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
    with httpx.stream("GET", item.address, headers=headers, follow_redirects=True, timeout=_SILENCE) as reply:
        if reply.status_code == 416:  # nothing comes after the part; its checksum tells whether it is right
            return
        if reply.status_code == 429 or reply.status_code >= 500:
            reply.raise_for_status()  # it may pass, as a connection that was cut
        if reply.status_code not in {200, 206}:
            raise WeightsError(f"{item.address} answers {reply.status_code}; open it in a browser to see why")
        if reply.status_code == 200:
            there = 0
        length = reply.headers.get("Content-Length", "")
        total = there + int(length) if length.isdecimal() else item.files[0].size or 0
        with part.open("ab" if there else "wb") as file:
            for piece in reply.iter_raw():  # in pieces as they come: of a cut one nothing is lost
                file.write(piece)
                there += len(piece)
                tell(there, total)


def _summed(path: Path, published: File, item: Entry) -> File:
    """A fetched file with its size and checksum; one that is not what was published is deleted."""
    if wrong := _differs(path, published):
        path.unlink()
        raise WeightsError(
            f"what came from {item.address} {wrong}: it was deleted; if a proxy stands between, go round it, then "
            f"run: {item.command}"
        )
    return File(path.name, path.stat().st_size, _sha256(path))


def _differs(path: Path, expected: File) -> str:
    """What is wrong with a file, empty if nothing is."""
    size = path.stat().st_size
    if expected.sha256 is not None and expected.size is not None and size != expected.size:
        return f"is not what was published: it has {size:,} bytes, published are {expected.size:,}"
    if expected.sha256 is not None and _sha256(path) != expected.sha256:
        return "is not what was published: its SHA-256 differs"
    return ""


def _read_manifest(path: Path) -> dict[str, File]:
    if not path.is_file():
        return {}
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {name: File(name, int(about["size"]), str(about["sha256"])) for name, about in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} cannot be read; delete it: the files are used without it too") from error


def _write_manifest(staging: Path, place: Path, item: Entry, files: dict[str, File]) -> None:
    content = {
        "name": item.name,
        "source": item.address,
        "revision": item.revision,
        "licence": item.licence,
        "files": {name: {"size": file.size, "sha256": file.sha256} for name, file in files.items()},
    }
    whole = staging / MANIFEST
    whole.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    whole.replace(place / MANIFEST)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
