"""Addresses: the quick ways say what the standard library says."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.wire.address import is_unicast_routable, text

ADDRESSES = st.one_of(
    st.ip_addresses(v=6),
    st.integers(0, (1 << 50) - 1).map(IPv6Address),
    st.lists(st.sampled_from([0, 0, 0, 1, 0x20, 0xFFFF]), min_size=8, max_size=8).map(
        lambda words: IPv6Address(b"".join(word.to_bytes(2, "big") for word in words))
    ),
)


@given(ADDRESSES)
def test_text_is_that_of_the_standard_library(address):
    assert text(address) == str(address)


@given(ADDRESSES)
def test_routable_as_the_standard_library_sees_it(address):
    special = address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local
    assert is_unicast_routable(address) is not (special or address.ipv4_mapped is not None)


@pytest.mark.parametrize("address", ["::", "::1", "ff02::1", "fe80::1", "febf::1", "::ffff:192.0.2.1"])
def test_what_is_not_routable(address):
    assert not is_unicast_routable(IPv6Address(address))


@pytest.mark.parametrize("address", ["2001:db8::1", "fec0::1", "fc00::1", "::2", "::1:0:0:1"])
def test_what_is_routable(address):
    assert is_unicast_routable(IPv6Address(address))
