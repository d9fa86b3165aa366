"""Connections to hosts that somebody else named: to public addresses alone, and not for ever.

A name is looked up once, and what was looked at is what is connected to: a name that leads elsewhere a moment later
gains nothing by it.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from a2lc_backend.image_limits import AllowedHosts

_FAILURES = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.UnsupportedProtocol)


class NotAllowedError(httpx.TransportError):
    """An address must not be connected to; the message says which and how to allow it."""


@cache
def tls() -> ssl.SSLContext:
    """What certificates are checked with; reading them takes 20 ms."""
    return httpx.create_ssl_context()


class OutsideTransport(httpx.BaseTransport):
    """Sends requests to public hosts, and to those of networks that are allowed.

    Args:
        hosts: that are allowed.
        seconds: all that is sent and read through it ends then, however slowly it comes.
    """

    def __init__(self, hosts: AllowedHosts, seconds: float) -> None:
        self._pool = httpcore.ConnectionPool(ssl_context=tls(), network_backend=_Door(hosts, seconds))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            NotAllowedError: if its host leads to an address that is not allowed, or a proxy would hide where it leads.
            httpx.TransportError: if it fails.
        """
        _refuse_proxy(request.url)
        url = httpcore.URL(
            scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path
        )
        with _as_httpx():
            reply = self._pool.handle_request(
                httpcore.Request(request.method, url, headers=request.headers.raw, extensions=request.extensions)
            )
        return httpx.Response(
            reply.status, headers=reply.headers, stream=_Body(reply.stream), extensions=reply.extensions
        )

    def close(self) -> None:
        """End all connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """What a host answers, as it comes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx():
            yield from self._stream

    def close(self) -> None:
        self._stream.close()


class _Door(httpcore.NetworkBackend):
    """Opens connections to addresses that were looked at, for so many seconds altogether."""

    def __init__(self, hosts: AllowedHosts, seconds: float) -> None:
        self._hosts, self._end = hosts, time.monotonic() + seconds
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._addresses(host, port):
            try:
                stream = self._plain.connect_tcp(
                    address, port, _left(self._end, timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self._end)
        raise failure

    def _addresses(self, host: str, port: int) -> list[str]:
        """Where a host lies; none of its addresses may be one that is not allowed."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"there is no host {host}") from error
        addresses = list(dict.fromkeys(str(where[0]) for *_, where in found))
        refused = [address for address in addresses if not self._hosts.admit(address)]
        if refused:
            leads = "" if refused[0] == host else f" leads to {refused[0]}, which"
            raise NotAllowedError(f"{host}{leads} is not public; {_allow(host, port)}")
        return addresses


class _Stream(httpcore.NetworkStream):
    """A connection that ends at a moment, though a byte may come now and then."""

    def __init__(self, stream: httpcore.NetworkStream, end: float) -> None:
        self._stream, self._end = stream, end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._end, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._end, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        begun = self._stream.start_tls(ssl_context, server_hostname, _left(self._end, timeout))
        return _Stream(begun, self._end)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(end: float, timeout: float | None) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("it took too long altogether")
    return left if timeout is None else min(left, timeout)


def _refuse_proxy(url: httpx.URL) -> None:
    """A proxy looks names up itself, so that nobody here knows where it connects to."""
    proxies = getproxies()
    if (url.scheme in proxies or "all" in proxies) and not proxy_bypass(url.host):
        raise NotAllowedError(
            f"{url.host} would be asked through this machine's proxy, which may connect anywhere; "
            f"{_allow(url.host, url.port or 0)}, or add it to NO_PROXY"
        )


def _allow(host: str, port: int) -> str:
    where = f"[{host}]" if ":" in host else host
    return f"if images may come from there, add {where}{f':{port}' if port else ''} to A2LC_IMAGE_HOSTS"


@contextmanager
def _as_httpx() -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise httpx.TransportError(f"{type(error).__name__}: {error}") from error
