"""The file of a task's image, from Label Studio or from where else its address points.

A task's address was written by whoever imported the task. Nothing of this machine's disk is read for it, the token goes
to Label Studio's own files alone, and other hosts are asked only as far as `ImageLimits` allows.
"""

from __future__ import annotations

import base64
import posixpath
import time
from collections.abc import Callable
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

import httpx

from a2lc_backend import __version__
from a2lc_backend.image_limits import ImageLimits, without_secrets
from a2lc_backend.label_studio.client import LabelStudioUnreachableError
from a2lc_backend.label_studio.outside import NotAllowedError, OutsideTransport, tls
from a2lc_backend.label_studio.patience import PASSING, Patience
from a2lc_backend.rounds.platform import Task, TaskError

FILE_SECONDS = 120.0
"""How long a file may take in all."""

_READ_SECONDS = 60.0
_REFUSED_SECONDS = 10.0
"""How long an image is asked for again that Label Studio refuses: it may be this one image's fault."""

_MOST_HOPS = 5
_CLOUDS = ("s3:", "gs:", "azure-blob:")
_FILES = ("/data/", "/storage-data/", "/tasks/")
"""Where Label Studio serves files; the token goes nowhere else."""

_HEADERS = {"User-Agent": f"a2lc-backend/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}


class _AnswerError(Exception):
    """A host answered, but not with a file."""

    def __init__(self, status: int, own: bool) -> None:
        super().__init__(status)
        self.status, self.own = status, own


class _NoAnswerError(Exception):
    """A host did not answer, or broke off."""

    def __init__(self, own: bool) -> None:
        super().__init__(own)
        self.own = own


class ImageFiles:
    """Reads files of images.

    Args:
        url: address of Label Studio.
        authorization: gives the header that Label Studio knows this program by.
        limits: of what is fetched.
    """

    def __init__(self, url: str, authorization: Callable[[], str], limits: ImageLimits) -> None:
        self._url = url
        self._own = httpx.URL(url)
        self._authorization, self._limits = authorization, limits

    def read(self, task: Task) -> bytes:
        """The file of an image; what passes is ridden out where Label Studio itself serves it.

        Raises:
            TaskError: if this image cannot be had.
            LabelStudioUnreachableError: if Label Studio does not answer.
        """
        shown = without_secrets(task.image)
        absent, refused = Patience(), Patience(_REFUSED_SECONDS)
        while True:
            try:
                return self._read(task)
            except _AnswerError as error:
                if error.status in PASSING and error.own and refused.wait():
                    continue
                raise TaskError(
                    f"image {shown} cannot be fetched: {error.status}; {_mend(task.image, error.status)}"
                ) from error
            except NotAllowedError as error:
                raise TaskError(f"image {shown} is not fetched: {error}") from error
            except _NoAnswerError as error:
                reason = type(error.__cause__).__name__
                if not error.own:
                    raise TaskError(f"image {shown} cannot be fetched ({reason}); {_mend(task.image, 0)}") from error
                if absent.wait():
                    continue
                raise LabelStudioUnreachableError(
                    f"reading image {shown}: no answer from Label Studio at {self._url} ({reason}); check that it runs "
                    "and that LABEL_STUDIO_URL is its address"
                ) from error

    def _read(self, task: Task) -> bytes:
        if task.image[:5].lower() == "data:":
            return self._inline(task.image)
        first, *others = self._addresses(task)
        try:
            return self._get(first)
        except _AnswerError as error:
            if not others or error.status in PASSING:
                raise
        return self._get(others[0])

    def _addresses(self, task: Task) -> list[httpx.URL]:
        """Where to ask for an image, one after the other."""
        address = task.image
        if address.startswith(_CLOUDS):
            cloud = base64.urlsafe_b64encode(address.encode()).decode()
            return [httpx.URL(f"{self._url}/tasks/{task.id}/presign/?fileuri={cloud}")]
        if address.startswith(("upload/", "/upload/")):
            address = f"/data/{address.lstrip('/')}"
        try:
            if address.startswith("/") and not address.startswith("//"):
                # Label Studio under a path of its host writes that path itself.
                path = address.removeprefix(urlsplit(self._url).path)
                found = [httpx.URL(f"{self._url}{path}")]
                if path.startswith("/data/upload/"):  # with uploads kept in a cloud this is where they are
                    key = quote(unquote(path.removeprefix("/data/")))
                    found.append(httpx.URL(f"{self._url}/storage-data/uploaded/?filepath={key}"))
                return found
            url = httpx.URL(address)
        except (httpx.InvalidURL, ValueError, UnicodeError) as error:
            raise _no_address(task.image) from error
        if url.scheme not in {"http", "https"} or not url.host:
            raise _no_address(task.image)
        return [url]

    def _get(self, url: httpx.URL) -> bytes:
        end = time.monotonic() + FILE_SECONDS
        for _ in range(_MOST_HOPS):
            own = self._is_own(url)
            try:
                with self._client(url, own) as client, client.stream("GET", url, headers=self._headers(url)) as reply:
                    if reply.next_request is None:
                        if not reply.is_success:
                            raise _AnswerError(reply.status_code, own)
                        return self._body(reply, end)
                    url = reply.next_request.url
            except NotAllowedError:
                raise
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise _NoAnswerError(own) from error
            if url.scheme not in {"http", "https"}:
                raise TaskError(f"an image is not fetched from {without_secrets(str(url))}, where its host sends one")
        raise TaskError(f"an image is not fetched: its host sends one from place to place, last to {url.host}")

    def _client(self, url: httpx.URL, own: bool) -> httpx.Client:
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        if own or self._limits.hosts.names_host(url.host, port):
            return httpx.Client(verify=tls(), timeout=_READ_SECONDS)
        return httpx.Client(transport=OutsideTransport(self._limits.hosts, FILE_SECONDS), timeout=_READ_SECONDS)

    def _body(self, reply: httpx.Response, end: float) -> bytes:
        most = self._limits.size
        data = bytearray()
        if int(reply.headers.get("Content-Length") or 0) > most:
            raise _too_large(most)
        for part in reply.iter_bytes():
            data += part
            if len(data) > most:
                raise _too_large(most)
            if time.monotonic() > end:
                raise httpx.ReadTimeout("it took too long altogether")
        return bytes(data)

    def _inline(self, address: str) -> bytes:
        head, _, text = address.partition(",")
        try:
            data = unquote_to_bytes(text)
            data = base64.b64decode(data, validate=True) if head.lower().endswith(";base64") else data
        except ValueError as error:
            raise TaskError(f"image {without_secrets(address)} is no base64; import it again") from error
        if len(data) > self._limits.size:
            raise _too_large(self._limits.size)
        return data

    def _is_own(self, url: httpx.URL) -> bool:
        """Whether an address is Label Studio's, or the same host's that it moves everybody to by https."""
        moved = (self._own.scheme, self._own.port, url.scheme, url.port) == ("http", None, "https", None)
        same = (url.scheme, url.port) == (self._own.scheme, self._own.port)
        return url.host == self._own.host and (same or moved) and not url.userinfo

    def _headers(self, url: httpx.URL) -> dict[str, str]:
        # A server in front of Label Studio may put a path right after it was looked at here.
        path = posixpath.normpath(unquote(url.path))
        if self._is_own(url) and path.startswith(tuple(f"{self._own.path.rstrip('/')}{part}" for part in _FILES)):
            return _HEADERS | {"Authorization": self._authorization()}
        return _HEADERS


def _no_address(address: str) -> TaskError:
    return TaskError(
        f"image {without_secrets(address)!r} is no address that can be fetched; give the task an upload, a file of a "
        "storage that is connected in Label Studio, or an address with http:// or https://"
    )


def _too_large(most: int) -> TaskError:
    return TaskError(
        f"an image's file is larger than {most // 2**20} MB; save it smaller, or set A2LC_MAX_IMAGE_MB higher"
    )


def _mend(address: str, status: int) -> str:
    if "/data/local-files/" in address and status == 404:
        return "add a Local Files storage for its folder in the project's settings (Cloud Storage)"
    if status in {401, 403}:
        return "check that the file exists; if it does, LABEL_STUDIO_API_KEY must be the token of a project member"
    if address.startswith(_CLOUDS):
        return "connect the project's cloud storage in Label Studio, with pre-signed addresses on"
    return "check that the file exists and that this program can reach its address"
