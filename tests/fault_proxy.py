"""A proxy that spoils requests on their way to Label Studio, as a plan drawn from a seed says."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

KINDS = ("drop", "delay", "409", "429", "500", "lost", "cut", "late")
"""What may happen to a request.

drop: the connection ends before the server hears of it. delay: it arrives later. 409, 429, 500: refused, the server
hears nothing. lost: the server acts, the reply never comes. cut: half of the reply comes. late: the connection ends,
and the request arrives all the same after the client has gone on; for predictions alone.
"""

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


class FaultProxy:
    """Serves in front of another server; use it as a context.

    Args:
        url: of the server behind.
        seed: of the plan.
        share: of requests that are spoilt.
        port: of its own; a free one if not given.
    """

    def __init__(self, url: str, seed: int, share: float, port: int = 0) -> None:
        self._behind = urlsplit(url)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._late: list[threading.Thread] = []
        self.share = share
        self.counts: Counter[str] = Counter()
        self.requests = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                proxy._handle(self)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815 - the names http.server calls

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultProxy:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.settle()

    def settle(self) -> None:
        """Wait until every late request has arrived."""
        while self._late:
            self._late.pop().join()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        kind = self._draw(handler)
        if kind == "drop":
            return _hang_up(handler)
        if kind == "late":
            seconds = self._random.uniform(0.2, 4.0)
            self._late.append(threading.Thread(target=self._arrive_late, args=(handler, body, seconds)))
            self._late[-1].start()
            return _hang_up(handler)
        if kind in {"409", "429", "500"}:
            return _reply(handler, int(kind), [], b'{"detail": "the proxy refuses"}')
        if kind == "delay":
            time.sleep(0.05)
        status, headers, data = self._forward(handler, body)
        if kind == "lost":
            return _hang_up(handler)
        return _reply(handler, status, headers, data, len(data) // 2 if kind == "cut" else None)

    def _draw(self, handler: BaseHTTPRequestHandler) -> str:
        creates = handler.command == "POST" and handler.path.split("?")[0].endswith("/import/predictions")
        with self._lock:
            self.requests += 1
            # Creating is rarer than reading, and more can go wrong with it.
            if self._random.random() >= (self.share**0.25 if creates else self.share):
                return ""
            kind = self._random.choice((*KINDS, "late", "late", "lost") if creates else KINDS[:-1])
            self.counts[kind] += 1
            return kind

    def _arrive_late(self, handler: BaseHTTPRequestHandler, body: bytes, seconds: float) -> None:
        time.sleep(seconds)
        self._forward(handler, body)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        sent = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP}
        connection = http.client.HTTPConnection(self._behind.hostname or "", self._behind.port, timeout=60)
        try:
            connection.request(handler.command, handler.path, body or None, sent)
            reply = connection.getresponse()
            kept = [(name, value) for name, value in reply.getheaders() if name.lower() not in _HOP]
            return reply.status, kept, reply.read()
        finally:
            connection.close()


def _reply(
    handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], data: bytes, sent: int | None = None
) -> None:
    handler.send_response(status)
    for name, value in headers:
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    with suppress(ConnectionError):  # the client may have died meanwhile
        handler.end_headers()
        handler.wfile.write(data[:sent])


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
