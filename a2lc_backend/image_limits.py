"""What an installation fetches as an image: from which hosts, and how much of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?")

_NAT64 = IPv6Network("64:ff9b::/96")
"""Behind it lies the IPv4 address of the last 32 bits."""

_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "168.63.129.16/32",  # serves the secrets of machines in Azure
        "192.0.0.0/24",  # protocols of the provider; serves the secrets of machines in Oracle's cloud
        "192.88.99.0/24", "2002::/16",  # IPv4 within IPv6 by relays
        "::/96", "64:ff9b:1::/48", "100:0:0:1::/64", "3fff::/20", "5f00::/16", "fec0::/10",
    )
)  # fmt: skip
"""What Python 3.11 counts as public and is not."""


@dataclass(frozen=True)
class AllowedHosts:
    """Hosts besides Label Studio that images may come from though their addresses are not public.

    Attributes:
        names: hosts in small letters, as `host` or `host:port`.
        networks: of addresses.
    """

    names: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> AllowedHosts:
        """Read names and networks that are parted by commas.

        Raises:
            ValueError: for what is neither.
        """
        names, networks = set(), []
        for part in filter(None, (part.strip().lower() for part in text.split(","))):
            try:
                networks.append(ip_network(part))
            except ValueError as error:
                if not _NAME.fullmatch(part):
                    raise ValueError(
                        f"{part!r} is no host name, host:port or network such as 10.1.0.0/16 ({error})"
                    ) from error
                names.add(part)
        return cls(frozenset(names), tuple(networks))

    def names_host(self, host: str, port: int) -> bool:
        """Whether a host is allowed by its name, wherever that leads."""
        host = f"[{host}]" if ":" in host else host
        return not self.names.isdisjoint({host.lower(), f"{host}:{port}".lower()})

    def admit(self, address: str) -> bool:
        """Whether an IP address may be connected to: a public one, or one of a network that is allowed."""
        found = _plain(ip_address(address))
        if any(found in network for network in self.networks):
            return True
        return found.is_global and not found.is_multicast and not any(found in network for network in _NOT_PUBLIC)


@dataclass(frozen=True)
class ImageLimits:
    """What an installation fetches and decodes as an image.

    Attributes:
        pixels: of an image, at most.
        size: of its file in bytes, at most.
        hosts: that may serve images from addresses that are not public.
    """

    pixels: int = 100_000_000
    size: int = 250 * 2**20
    hosts: AllowedHosts = AllowedHosts()


def without_secrets(address: str) -> str:
    """An image's address for people and logs: no password, no signature, and not too long."""
    kind, _, rest = address.partition(":")
    if kind.lower() == "data":
        return f"data:{rest.partition(',')[0][:40]},…"
    try:
        parts = urlsplit(address)
    except ValueError:
        return "(an address that cannot be read)"
    if parts.netloc:
        query = "?…" if parts.query else ""
        address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}".removeprefix(":")
    return address if len(address) <= 300 else f"{address[:300]}…"


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that lies within one of IPv6, where the network takes it out."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(address.packed[-4:])
        return address.ipv4_mapped or address
    return address
