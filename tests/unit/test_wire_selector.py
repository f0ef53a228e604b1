"""Traffic selectors (RFC 6088)."""

from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_strategies import ipv4_selectors, ipv6_selectors, selectors

from testbed.wire.error import ParseError
from testbed.wire.selector import SELECTORS, IPv4TrafficSelector, IPv6TrafficSelector

CN = IPv6Address("2001:db8:300::2")
MN = IPv6Address("2001:db8:100::100")


@settings(deadline=None)
@given(selectors)
def test_round_trip(selector):
    assert type(selector).parse(bytes(selector)) == selector


@settings(deadline=None)
@given(selectors)
def test_mirrored_twice_is_itself(selector):
    mirrored = selector.mirrored()
    assert mirrored.source_port == selector.destination_port
    assert mirrored.destination_address == selector.source_address
    assert mirrored.mirrored() == selector


@settings(deadline=None)
@given(selectors)
def test_truncated_anywhere(selector):
    octets = bytes(selector)
    for length in range(len(octets)):
        with pytest.raises(ParseError):
            type(selector).parse(octets[:length])
    with pytest.raises(ParseError, match="after its last field"):
        type(selector).parse(octets + b"\0")


@settings(deadline=None)
@given(st.sampled_from(sorted(SELECTORS.values(), key=str)), st.binary(max_size=120))
def test_arbitrary_octets(kind, octets):
    try:
        selector = kind.parse(octets)
    except ParseError:
        return
    assert kind.parse(bytes(selector)) == selector


@settings(deadline=None)
@given(ipv6_selectors)
def test_each_ipv6_field_decides(selector):
    check_each_field_decides(selector)


@settings(deadline=None)
@given(ipv4_selectors)
def test_each_ipv4_field_decides(selector):
    check_each_field_decides(selector)


def check_each_field_decides(selector):
    wanted = {field.name: getattr(selector, field.name) for field in fields(selector)}
    packet = {name: value[0] for name, value in wanted.items() if value is not None}
    assert selector.matches(**packet)
    assert selector.matches(**{name: value[1] for name, value in wanted.items() if value is not None})
    for name, value in wanted.items():
        if value is None:
            continue
        assert not selector.matches(**{**packet, name: None})
        step = 4 if name in ("traffic_class", "dscp") else 1
        for outside in (int(value[0]) - step, int(value[1]) + step):
            if 0 <= outside < 2 ** (32 if value[0].__class__ is int else value[0].max_prefixlen):
                other = type(value[0])(outside)
                assert not selector.matches(**{**packet, name: other}), name


def test_no_field_is_the_wild_card():
    assert IPv6TrafficSelector().matches(next_header=6, source_port=22)
    assert bytes(IPv6TrafficSelector()) == bytes(4)


def test_a_packet_without_ports_is_not_of_a_flow_with_ports():
    assert not IPv6TrafficSelector(source_port=(0, 65535)).matches(next_header=58)


@pytest.mark.requirement("RFC 6088 §3.2: the two low bits of the traffic class are not compared")
def test_congestion_notification_is_not_compared():
    selector = IPv6TrafficSelector(traffic_class=(0xB8, 0xB8))
    assert selector.matches(traffic_class=0xBB)
    assert not selector.matches(traffic_class=0xBC)
    assert IPv4TrafficSelector(dscp=(0xBA, 0xBB)).matches(dscp=0xB8)


@pytest.mark.requirement("RFC 6088 §3.2: the first 8 bits of a flow label are ignored")
def test_upper_bits_of_a_flow_label_are_ignored():
    octets = bytes.fromhex("0200 0000 ff012345")
    assert IPv6TrafficSelector.parse(octets).flow_label == (0x12345, 0x12345)


@pytest.mark.requirement("RFC 6088 §3: reserved bits are zero when sent and ignored at receipt")
def test_reserved_bits_are_ignored():
    selector = IPv6TrafficSelector(source_port=(22, 22))
    octets = bytes(selector)
    assert octets[2:4] == b"\0\0"
    assert IPv6TrafficSelector.parse(octets[:2] + b"\xff\xff" + octets[4:]) == selector
    # the IPv4 format has two flags less
    assert IPv4TrafficSelector.parse(bytes.fromhex("0003 ffff")) == IPv4TrafficSelector()


@pytest.mark.requirement("RFC 6088 §3: an end may not be there without its start")
@pytest.mark.parametrize("bit", range(0, 16, 2))
def test_end_without_start(bit):
    octets = (1 << bit).to_bytes(2, "big") + bytes(18)
    with pytest.raises(ParseError, match="end but no start"):
        IPv6TrafficSelector.parse(octets)


@pytest.mark.parametrize(
    "octets, reason",
    [
        ("00c0 0000 0017 0016", "source_port starts at 23, after its end 22"),
        ("0200 0000 00100000", "flow_label must be from 0 to 1048575"),
    ],
)
def test_values_that_cannot_be(octets, reason):
    with pytest.raises(ParseError, match=reason):
        IPv6TrafficSelector.parse(bytes.fromhex(octets))


@pytest.mark.parametrize(
    "kind, wrong, reason",
    [
        (IPv6TrafficSelector, {"source_port": (2, 1)}, "source_port starts at 2"),
        (IPv6TrafficSelector, {"source_port": 22}, "source_port must be a pair"),
        (IPv6TrafficSelector, {"source_port": (0, 65536)}, "source_port must be from 0 to 65535"),
        (IPv6TrafficSelector, {"next_header": ("tcp", "tcp")}, "next_header must be from 0 to 255"),
        (IPv6TrafficSelector, {"flow_label": (-1, 0)}, "flow_label must be from 0 to 1048575"),
        (IPv6TrafficSelector, {"source_address": (MN, CN, MN)}, "source_address must be a pair"),
        (IPv6TrafficSelector, {"source_address": (CN, MN)}, "source_address starts at 2001:db8:300::2"),
        (IPv6TrafficSelector, {"source_address": (IPv4Address(1),) * 2}, "must be two of IPv6Address"),
        (IPv4TrafficSelector, {"destination_address": (MN, MN)}, "must be two of IPv4Address"),
        (IPv4TrafficSelector, {"protocol": (0, 256)}, "protocol must be from 0 to 255"),
    ],
)
def test_the_constructor_names_the_field(kind, wrong, reason):
    with pytest.raises(ValueError, match=reason):
        kind(**wrong)


def test_matches_knows_the_fields():
    with pytest.raises(TypeError, match="has no field dscp"):
        IPv6TrafficSelector().matches(dscp=0)


@pytest.mark.requirement("RFC 6088 §3: alignment of the traffic selector sub-option")
@pytest.mark.parametrize(
    "selector, alignment",
    [
        (IPv6TrafficSelector(source_address=(CN, CN), next_header=(6, 6)), 8),
        (IPv6TrafficSelector(flow_label=(1, 1), source_port=(1, 1)), 4),
        (IPv6TrafficSelector(destination_port=(1, 1), traffic_class=(0, 0)), 2),
        (IPv6TrafficSelector(next_header=(6, 6)), 1),
        (IPv6TrafficSelector(), 1),
        (IPv4TrafficSelector(source_address=(IPv4Address(1), IPv4Address(2))), 4),
    ],
)
def test_alignment(selector, alignment):
    assert selector.alignment == alignment
