"""The files of images from real servers: what is fetched, what is refused, and who hears the token."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpcore
import pytest

from a2lc_backend.image_limits import AllowedHosts, ImageLimits
from a2lc_backend.label_studio import LabelStudioUnreachableError, image_files, outside, patience
from a2lc_backend.label_studio.image_files import ImageFiles
from a2lc_backend.rounds.platform import Task, TaskError

pytestmark = pytest.mark.timed

TOKEN = "Token 0123456789abcdef"
FILE = b"\x89PNG the file of an image"

KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgbSJYFcwJPdvEfEVj
/zYST72UYgme9RSjwZlZKeAmWxShRANCAARkSSXKhLhV2IF09Gdo7nDBkFQ0RHo8
7xNY66cjankc8ANPWEhPknUHgRpa9aiUT1xZJK5jq4H2meArFsyxLeKa
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBqjCCAVCgAwIBAgIUM9J6QkxqG4orCizQ+mlU7lwunYAwCgYIKoZIzj0EAwIw
GzEZMBcGA1UEAwwQcGljdHVyZXMuZXhhbXBsZTAgFw0yNjExMjMxMDU2MjhaGA8y
MTI2MTAzMDEwNTYyOFowGzEZMBcGA1UEAwwQcGljdHVyZXMuZXhhbXBsZTBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABGRJJcqEuFXYgXT0Z2jucMGQVDREejzvE1jr
pyNqeRzwA09YSE+SdQeBGlr1qJRPXFkkrmOrgfaZ4CsWzLEt4pqjcDBuMB0GA1Ud
DgQWBBQLbXmliv+BKiHyPym/YlsSPajMdzAfBgNVHSMEGDAWgBQLbXmliv+BKiHy
Pym/YlsSPajMdzAPBgNVHRMBAf8EBTADAQH/MBsGA1UdEQQUMBKCEHBpY3R1cmVz
LmV4YW1wbGUwCgYIKoZIzj0EAwIDSAAwRQIgBWNzeHHaxyXDQHHoQCHN7h8Z4G2p
zTaWxCljLGW+kuQCIQDnQv91aJsd1rAZMf/J4/JpKU6NNbMMG+osx3v02hrLTg==
-----END CERTIFICATE-----
"""
"""Key and certificate of pictures.example, made for this test alone."""


class FileServer:
    """Serves `FILE` on a port of 127.0.0.1, and whatever else a path stands for.

    Attributes:
        heard: path and Authorization of every request.
        paths: what to do for a path: a status, an address to redirect to, or a handler.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.heard: list[tuple[str, str | None]] = []
        self.paths: dict[str, int | str | Callable[[BaseHTTPRequestHandler], None]] = {}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.heard.append((self.path, self.headers.get("Authorization")))
                what = owner.paths.get(self.path, owner.paths.get("*", 200))
                if callable(what):
                    with suppress(OSError):
                        what(self)
                    return
                self.send_response(302 if isinstance(what, str) else what)
                if isinstance(what, str):
                    self.send_header("Location", what)
                self.send_header("Content-Length", str(len(FILE)))
                self.end_headers()
                self.wfile.write(FILE)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def servers() -> Iterator[Callable[..., FileServer]]:
    started: list[FileServer] = []

    def start(certificate: Path | None = None) -> FileServer:
        started.append(FileServer(certificate))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def studio(servers: Callable[..., FileServer]) -> FileServer:
    return servers()


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses connected to outside Label Studio; any but this machine's own fails the test."""
    opened: list[str] = []
    plain = httpcore.SyncBackend.connect_tcp

    def connect(self: httpcore.SyncBackend, host: str, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        opened.append(host)
        assert host.startswith("127.") or host == "localhost", f"a connection to {host}"
        return plain(self, host, *args, **kwargs)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(image_files, "_REFUSED_SECONDS", 0.3)
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return opened


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Where host names lead: for each lookup the next list of addresses, the last one for ever."""
    table: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        found = table.get(host)
        if found is None:
            assert not host.endswith(".example"), f"{host} was looked up"
            return real(host, port, *args, **kwargs)
        return [item for address in (found.pop(0) if len(found) > 1 else found[0]) for item in real(address, port)]

    monkeypatch.setattr(outside.socket, "getaddrinfo", look_up)
    return table


def read(studio: FileServer | str, address: str, allowed: str = "", size: int = 10**6) -> bytes:
    url = studio if isinstance(studio, str) else studio.url
    limits = ImageLimits(size=size, hosts=AllowedHosts.parse(allowed))
    return ImageFiles(url, lambda: TOKEN, limits).read(Task(7, address))


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/data/upload/1/a b.png", "/data/upload/1/a%20b.png"),
        ("/data/upload/1/a%20b.png", "/data/upload/1/a%20b.png"),
        ("upload/1/a.png", "/data/upload/1/a.png"),
        ("/upload/1/a.png", "/data/upload/1/a.png"),
        ("/data/local-files/?d=a/ü.png", "/data/local-files/?d=a/%C3%BC.png"),
        ("s3://bucket/key.png", f"/tasks/7/presign/?fileuri={base64.b64encode(b's3://bucket/key.png').decode()}"),
        ("{url}/data/upload/1/a.png", "/data/upload/1/a.png"),
    ],
)
def test_files_of_label_studio_are_fetched_with_the_token(studio: FileServer, address: str, path: str) -> None:
    assert read(studio, address.format(url=studio.url)) == FILE
    assert studio.heard == [(path, TOKEN)]


def test_uploads_in_a_cloud_are_asked_for_where_they_are(studio: FileServer) -> None:
    studio.paths["/data/upload/1/a%20b.png"] = 404
    assert read(studio, "/data/upload/1/a b.png") == FILE
    assert studio.heard[1] == ("/storage-data/uploaded/?filepath=upload/1/a%20b.png", TOKEN)


def test_label_studio_may_lie_under_a_path_of_its_host(studio: FileServer) -> None:
    assert read(f"{studio.url}/studio", "/data/upload/1/a.png") == FILE
    assert read(f"{studio.url}/studio", "/studio/data/upload/1/a.png") == FILE
    assert studio.heard == [("/studio/data/upload/1/a.png", TOKEN)] * 2
    assert read(f"{studio.url}/studio", f"{studio.url}/data/upload/1/a.png") == FILE
    assert studio.heard[2] == ("/data/upload/1/a.png", None)


@pytest.mark.parametrize(
    "path",
    [
        "/api/users",
        "/static/a.png",
        "/data/../api/users",
        "/data/%2e%2e/api/users",
        "/logout",
        "/data/upload/../../api",
    ],
)
def test_other_pages_of_label_studio_do_not_hear_the_token(studio: FileServer, path: str) -> None:
    with suppress(TaskError):
        read(studio, path)
        read(studio, f"{studio.url}{path}")
    assert [token for where, token in studio.heard if "/api" in where or not where.startswith("/data/")] != []
    assert {token for _, token in studio.heard} == {None}


def test_data_addresses_need_no_server() -> None:
    assert read("http://127.0.0.1:9", f"data:image/png;base64,{base64.b64encode(FILE).decode()}") == FILE
    assert read("http://127.0.0.1:9", "data:text/plain,a%20b") == b"a b"
    with pytest.raises(TaskError, match="is no base64"):
        read("http://127.0.0.1:9", "data:image/png;base64,!!!")
    with pytest.raises(TaskError, match="A2LC_MAX_IMAGE_MB"):
        read("http://127.0.0.1:9", f"data:image/png;base64,{'A' * 2000}", size=1000)


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd", "FILE:///etc/passwd", "ftp://h/a", "gopher://h/a", "//h/a.png", "\\\\host\\share\\a.png",
        "C:\\a.png", "../../etc/passwd", "etc/passwd", "http://", "http:///a", "https://[::1", "http://h:99999/a",
        "http://h:x/", "javascript:alert(1)", "\0", "http://a\nb/", " ", "data", "memory://a", "http://" + "a" * 70000,
    ],
)  # fmt: skip
def test_addresses_that_cannot_be_fetched_are_said(studio: FileServer, connections: list[str], address: str) -> None:
    with pytest.raises(TaskError, match=r"no address that can be fetched|cannot be fetched \(") as error:
        read(studio, address)
    assert studio.heard == [] and connections == [] and len(str(error.value)) < 700


def test_nothing_of_this_machines_disk_is_read(
    studio: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK would take uploads from a Label Studio's folder of this user, and files from the root that is named."""
    upload = tmp_path / "label-studio/media/upload/1"
    upload.mkdir(parents=True)
    (upload / "a.png").write_bytes(b"of this machine")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LOCAL_FILES_DOCUMENT_ROOT", str(upload))
    monkeypatch.setattr(
        "label_studio_sdk._extensions.label_studio_tools.core.utils.io.LOCAL_FILES_DOCUMENT_ROOT", str(upload)
    )
    before = sorted(tmp_path.rglob("*"))
    for address in ("/data/upload/1/a.png", "/data/local-files/?d=a.png", str(upload / "a.png")):
        assert read(studio, address) == FILE
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]", "0.0.0.0", "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "[64:ff9b::7f00:1]",
        "private.example", "mixed.example", "１２７.0.0.1", "user:pw@127.0.0.1", "127.0.0.1.",
    ],
)  # fmt: skip
def test_hosts_that_are_not_public_are_refused(
    studio: FileServer, servers: Callable[..., FileServer], names: dict[str, list[list[str]]], connections: list[str],
    host: str,
) -> None:  # fmt: skip
    other = servers()
    names["private.example"] = [["192.168.7.7"]]
    names["mixed.example"] = [["127.0.0.2", "192.168.7.7"]]
    with pytest.raises(TaskError) as error:
        read(studio, f"http://{host}:{other.port}/latest/meta-data?token=secret", allowed="127.0.0.2")
    said = str(error.value)
    assert "A2LC_IMAGE_HOSTS" in said or "no address that can be fetched" in said or "(TransportError)" in said
    assert "secret" not in said and "pw" not in said
    assert other.heard == [] and connections == []


def test_hosts_that_are_listed_may_serve_images(
    studio: FileServer, servers: Callable[..., FileServer], names: dict[str, list[list[str]]]
) -> None:
    other = servers()
    names["pictures.example"] = [["127.0.0.1"]]
    assert read(studio, f"{other.url}/a.png", allowed="127.0.0.0/8") == FILE
    assert read(studio, f"{other.url}/a.png", allowed=f"127.0.0.1:{other.port}") == FILE
    assert read(studio, f"http://localhost:{other.port}/a.png", allowed="localhost") == FILE
    assert read(studio, f"http://pictures.example:{other.port}/a.png", allowed="127.0.0.1") == FILE
    with pytest.raises(TaskError, match=f"add 127.0.0.1:{other.port} to A2LC_IMAGE_HOSTS"):
        read(studio, f"{other.url}/a.png", allowed=f"127.0.0.1:{other.port + 1}")
    assert other.heard == [("/a.png", None)] * 4


def test_a_password_in_an_address_goes_to_its_own_host_alone(
    studio: FileServer, servers: Callable[..., FileServer]
) -> None:
    first, second = servers(), servers()
    first.paths["/a.png"] = f"{second.url}/b.png"
    assert read(studio, f"http://user:pw@127.0.0.1:{first.port}/a.png", allowed="127.0.0.1") == FILE
    assert first.heard == [("/a.png", f"Basic {base64.b64encode(b'user:pw').decode()}")]
    assert second.heard == [("/b.png", None)]


def test_a_name_is_looked_up_once(
    studio: FileServer, servers: Callable[..., FileServer], names: dict[str, list[list[str]]], connections: list[str]
) -> None:
    """A name that leads to a public address while it is looked at, and elsewhere when it is connected to."""
    other = servers()
    names["rebinding.example"] = [["127.0.0.2"], ["127.0.0.1"]]
    with pytest.raises(TaskError, match="cannot be fetched"):
        read(studio, f"http://rebinding.example:{other.port}/", allowed="127.0.0.2")
    assert set(connections) == {"127.0.0.2"} and other.heard == []


def test_each_address_of_a_name_is_tried(
    studio: FileServer, servers: Callable[..., FileServer], names: dict[str, list[list[str]]], connections: list[str]
) -> None:
    other = servers()
    names["two.example"] = [["127.0.0.2", "127.0.0.1"]]
    assert read(studio, f"http://two.example:{other.port}/", allowed="127.0.0.0/8") == FILE
    assert connections == ["127.0.0.2", "127.0.0.1"]


def test_redirects_are_looked_at_and_hear_no_token(studio: FileServer, servers: Callable[..., FileServer]) -> None:
    other = servers()
    studio.paths["/data/upload/1/a.png"] = f"{other.url}/data/stolen.png"
    with pytest.raises(TaskError, match=r"is not fetched.*A2LC_IMAGE_HOSTS"):
        read(studio, "/data/upload/1/a.png")
    assert other.heard == []
    assert read(studio, "/data/upload/1/a.png", allowed="127.0.0.1") == FILE
    assert other.heard == [("/data/stolen.png", None)]
    # Back to Label Studio, as a storage behind it may do.
    other.paths["/round.png"] = f"{studio.url}/data/upload/1/b.png"
    assert read(studio, f"{other.url}/round.png", allowed="127.0.0.1") == FILE
    assert studio.heard[-1] == ("/data/upload/1/b.png", TOKEN)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/", "data:image/png;base64,AAAA", "//", "http://["])
def test_redirects_lead_nowhere_but_to_hosts(studio: FileServer, location: str) -> None:
    studio.paths["/data/a"] = location
    with pytest.raises((TaskError, LabelStudioUnreachableError)):
        read(studio, "/data/a")
    assert {path for path, _ in studio.heard} == {"/data/a"}


def test_redirects_end(studio: FileServer) -> None:
    studio.paths["*"] = "/data/again"
    with pytest.raises(TaskError, match="from place to place"):
        read(studio, "/data/a")
    assert len(studio.heard) == 5


def test_certificates_are_those_of_the_name(
    studio: FileServer, servers: Callable[..., FileServer], names: dict[str, list[list[str]]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pem = tmp_path / "pictures.pem"
    pem.write_text(KEY)
    trusting = ssl.create_default_context(cafile=str(pem))
    monkeypatch.setattr(outside, "tls", lambda: trusting)
    other = servers(pem)
    names["pictures.example"] = names["else.example"] = [["127.0.0.1"]]
    assert read(studio, f"https://pictures.example:{other.port}/a.png", allowed="127.0.0.1") == FILE
    with pytest.raises(TaskError, match="cannot be fetched"):
        read(studio, f"https://else.example:{other.port}/a.png", allowed="127.0.0.1")
    assert other.heard == [("/a.png", None)]


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def _claims_much(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**12))
    handler.end_headers()


@pytest.mark.parametrize("handler", [_endless, _claims_much])
@pytest.mark.parametrize("own", [True, False])
def test_files_are_bounded(
    studio: FileServer, servers: Callable[..., FileServer], handler: Callable[[BaseHTTPRequestHandler], None], own: bool
) -> None:
    server = studio if own else servers()
    server.paths["*"] = handler
    with pytest.raises(TaskError, match=r"larger than 1 MB.*A2LC_MAX_IMAGE_MB"):
        read(studio, f"{server.url}/data/a.png", allowed="127.0.0.1", size=2**20)


def _drip(head: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """Sends a byte now and then, so that no single read takes long."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        for _ in range(500):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.02)  # the fault itself

    return send


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b""])
def test_what_drips_ends(
    studio: FileServer, servers: Callable[..., FileServer], monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(image_files, "FILE_SECONDS", 0.5)
    other = servers()
    other.paths["*"] = _drip(head)
    begun = time.monotonic()
    with pytest.raises(TaskError, match="cannot be fetched"):
        read(studio, f"{other.url}/a.png", allowed="127.0.0.0/8")
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_is_asked_for_hosts_that_are_not_listed(
    studio: FileServer, servers: Callable[..., FileServer], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    proxy = servers()
    monkeypatch.setenv(variable, proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(TaskError, match=r"through this machine's proxy.*add far\.example to A2LC_IMAGE_HOSTS"):
        read(studio, "http://far.example/a.png")
    assert proxy.heard == []
    assert read(studio, "http://far.example/a.png", allowed="far.example") == FILE
    assert proxy.heard == [("http://far.example/a.png", None)]
    assert read(studio, "/data/upload/1/a.png") == FILE


def test_refusals_that_pass_are_ridden_out_where_label_studio_answers(
    studio: FileServer, servers: Callable[..., FileServer]
) -> None:
    answers = [503, 429]

    def busy(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(answers.pop() if answers else 200)
        handler.send_header("Content-Length", str(len(FILE)))
        handler.end_headers()
        handler.wfile.write(FILE)

    studio.paths["*"] = busy
    assert read(studio, "/data/upload/1/a.png") == FILE and len(studio.heard) == 3
    other = servers()
    other.paths["*"] = 503
    with pytest.raises(TaskError, match="cannot be fetched: 503"):
        read(studio, f"{other.url}/a.png", allowed="127.0.0.1")
    assert len(other.heard) == 1


def test_without_label_studio_it_is_named(studio: FileServer) -> None:
    with pytest.raises(LabelStudioUnreachableError, match="no answer from Label Studio"):
        read("http://127.0.0.1:9", "/data/upload/1/a.png")
    studio.paths["*"] = 403
    with pytest.raises(TaskError, match="403; check that the file exists; if it does, LABEL_STUDIO_API_KEY"):
        read(studio, "/data/upload/1/a.png")
    studio.paths["*"] = 404
    with pytest.raises(TaskError, match="404; add a Local Files storage"):
        read(studio, "/data/local-files/?d=a.png")
