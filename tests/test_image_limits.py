"""Which hosts images may come from, and what is said of their addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from a2lc_backend.image_limits import AllowedHosts, without_secrets

ADDRESSES = st.one_of(
    st.ip_addresses(),
    st.ip_addresses(v=4).map(lambda ip: IPv6Address(b"\0" * 10 + b"\xff\xff" + ip.packed)),
    st.ip_addresses(v=4).map(lambda ip: IPv6Address(IPv6Address("64:ff9b::").packed[:12] + ip.packed)),
    st.ip_addresses(v=4).map(lambda ip: IPv6Address(b"\x20\x02" + ip.packed + b"\0" * 10)),
)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "192.0.2.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%lo", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
        "ff0e::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
        "2002:7f00:1::", "2001:0:1::1", "2001:db8::1", "3fff::1", "5f00::1", "100::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not AllowedHosts().admit(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_admitted(address: str) -> None:
    assert AllowedHosts().admit(address)


@given(ADDRESSES)
@example(IPv6Address("::ffff:10.0.0.1"))
def test_what_python_calls_private_is_never_admitted(address: IPv4Address | IPv6Address) -> None:
    within = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
    if within.is_private or within.is_loopback or within.is_link_local or within.is_multicast or within.is_unspecified:
        assert not AllowedHosts().admit(str(address))


def test_networks_and_names_are_allowed_by_name() -> None:
    hosts = AllowedHosts.parse(" MinIO, pictures.lan:9000, 10.1.0.0/16,127.0.0.1 , fd00::/8, [::1]:81,")
    assert hosts.admit("10.1.2.3") and hosts.admit("::ffff:10.1.2.3") and hosts.admit("fd12::1")
    assert hosts.admit("127.0.0.1") and not hosts.admit("127.0.0.2") and not hosts.admit("10.2.0.1")
    assert hosts.names_host("minio", 80) and hosts.names_host("MINIO", 9001) and hosts.names_host("::1", 81)
    assert hosts.names_host("pictures.lan", 9000) and not hosts.names_host("pictures.lan", 80)
    assert not hosts.names_host("minio.evil.example", 80) and not hosts.names_host("127.0.0.1", 80)


@pytest.mark.parametrize("text", ["http://minio:9000", "10.0.0.1/8", "a b", "minio/path", "user@minio", "minio:"])
def test_what_is_no_host_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="no host name, host:port or network"):
        AllowedHosts.parse(f"good.example,{text}")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("/data/local-files/?d=a/b.png", "/data/local-files/?d=a/b.png"),
        ("https://user:secret@host:81/a.png", "https://host:81/a.png"),
        ("https://b.example/k.png?X-Amz-Signature=secret#secret", "https://b.example/k.png?…"),
        ("HTTP://u:secret@h/a", "http://h/a"),
        ("//u:secret@h/a", "//h/a"),
        ("data:image/png;base64,secret", "data:image/png;base64,…"),
        ("http://[secret", "(an address that cannot be read)"),
        ("s3://bucket/key.png", "s3://bucket/key.png"),
        ("a" * 400, "a" * 300 + "…"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, shown: str) -> None:
    assert without_secrets(address) == shown
