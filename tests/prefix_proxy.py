"""A proxy that serves another server below a prefix, and takes that away from what it passes on."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@contextmanager
def served_below(prefix: str, url: str) -> Iterator[str]:
    """Serve `url` below a prefix such as "/a2lc/" on a free port, and nothing else; the address there."""
    behind = urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            if not self.path.startswith(prefix):
                return self._reply(404, [], b"nothing is served here")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            connection = http.client.HTTPConnection(behind.hostname or "", behind.port, timeout=60)
            try:
                connection.request(self.command, "/" + self.path[len(prefix) :], body or None, sent)
                reply = connection.getresponse()
                kept = [(name, value) for name, value in reply.getheaders() if name.lower() not in _HOP]
                return self._reply(reply.status, kept, reply.read())
            finally:
                connection.close()

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - the names http.server calls

        def _reply(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
            self.send_response_only(status)
            for name, value in [*headers, ("Content-Length", str(len(data)))]:
                self.send_header(name, value)
            with suppress(ConnectionError):  # the browser may have left the page meanwhile
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
