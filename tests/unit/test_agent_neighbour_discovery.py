"""Router Advertisements as movement detection reads them."""

import struct
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.agent.neighbour_discovery import RouterAdvertisement

ROUTER = IPv6Address("fe80::1")


def prefix_information(prefix, flags=0xC0):
    network = IPv6Network(prefix)
    head = struct.pack("!BBBBIII", 3, 4, network.prefixlen, flags, 86400, 14400, 0)
    return head + network.network_address.packed


def advertisement(*options, lifetime_s=1800):
    return struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime_s, 0, 0) + b"".join(options)


def test_prefixes_for_addresses_are_read():
    data = advertisement(
        bytes([1, 1]) + bytes(6),
        prefix_information("2001:db8:201::/64"),
        prefix_information("2001:db8:999::/64", flags=0x80),  # on-link, but not to form addresses from
        bytes([200, 2]) + bytes(14),
    )
    assert RouterAdvertisement.parse(ROUTER, data) == RouterAdvertisement(
        ROUTER, 1800, (IPv6Network("2001:db8:201::/64"),)
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        advertisement()[:15],
        bytes([134, 1]) + bytes(14),
        bytes([133, 0]) + bytes(14),
        advertisement(bytes(8)),
        advertisement(bytes([3])),
        advertisement(prefix_information("2001:db8:201::/64")[:-1]),
    ],
)
def test_what_a_host_must_discard_is_refused(data):
    with pytest.raises(ValueError):
        RouterAdvertisement.parse(ROUTER, data)


def test_a_router_speaks_from_its_link_local_address():
    with pytest.raises(ValueError, match="not link-local"):
        RouterAdvertisement.parse(IPv6Address("2001:db8::1"), advertisement())


@given(st.binary(max_size=200))
def test_arbitrary_options_raise_nothing_else(data):
    try:
        RouterAdvertisement.parse(ROUTER, advertisement(data))
    except ValueError:
        pass
