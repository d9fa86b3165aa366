"""The look-up of packages among known vulnerabilities, with a service that answers as a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scripts import audit

KNOWN = {
    "vulns": [
        {
            "id": "GHSA-0000", "aliases": ["CVE-2026-1"], "published": "2026-01-01T00:00:00Z", "summary": "it leaks",
            "affected": [
                {
                    "package": {"name": "leaky", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
                }
            ],
        }
    ]
}  # fmt: skip


class Service:
    """Knows that `leaky` has a vulnerability.

    Attributes:
        asked: names of packages.
        status: of all answers.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
                owner.asked.append(asked)
                body = json.dumps(KNOWN if asked == "leaky" else {}).encode()
                self.send_response(owner.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = Service()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def run(folder: Path, service: Service | str) -> int:
    url = service if isinstance(service, str) else service.url
    return audit.main(["--folder", str(folder), "--osv-url", url])


def test_a_known_vulnerability_fails_each_time(
    tmp_path: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "requirements.txt").write_text("sound==1.0\nleaky==1.0 ; python_version >= '3'\n")
    for _ in range(2):
        assert run(tmp_path, service) == 1
        assert "leaky 1.0: CVE-2026-1 = GHSA-0000, mended in 1.1\n" in capsys.readouterr().out
    assert service.asked.count("leaky") == 2


def test_what_is_clean_is_believed_for_a_day(tmp_path: Path, service: Service) -> None:
    (tmp_path / "requirements.txt").write_text("sound==1.0\n")
    assert run(tmp_path, service) == run(tmp_path, service) == 0
    assert service.asked == ["sound"]
    (tmp_path / "requirements.txt").write_text("sound==1.1\n")
    assert run(tmp_path, service) == 0
    assert service.asked == ["sound", "sound"]


def test_nothing_is_ignored_without_a_reason(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "requirements-dev.txt").write_text("leaky==1.0\n")
    monkeypatch.setattr(audit, "IGNORED", {"CVE-2026-1": " "})
    with pytest.raises(SystemExit, match="no reason is given for ignoring CVE-2026-1"):
        run(tmp_path, service)
    monkeypatch.setattr(audit, "IGNORED", {"CVE-2026-1": "it leaks what is public"})
    assert run(tmp_path, service) == 0
    assert "ignored: it leaks what is public" in capsys.readouterr().out


def test_label_studios_own_packages_are_told(
    tmp_path: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "requirements-label-studio.txt").write_text("leaky==1.0\n")
    assert run(tmp_path, service) == 0
    assert "1 of Label Studio's own packages" in capsys.readouterr().out


def test_a_service_that_does_not_answer_is_said_and_does_not_fail(
    tmp_path: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "requirements.txt").write_text("leaky==1.0\n")
    for url in ("http://127.0.0.1:9", service.url):
        service.status = 503
        assert run(tmp_path, url) == 0
        assert "requirements.txt WAS NOT AUDITED" in capsys.readouterr().out
    assert not list((tmp_path / ".cache").glob("*"))


def test_files_that_are_not_pinned_are_refused(tmp_path: Path, service: Service) -> None:
    (tmp_path / "requirements.txt").write_text("leaky>=1.0\n")
    with pytest.raises(SystemExit, match=r"pip-audit failed on requirements\.txt"):
        run(tmp_path, service)
