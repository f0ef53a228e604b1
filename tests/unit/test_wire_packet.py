"""The IPv6 packet around a message (RFC 6275 §6.3, §6.4, §9.3.1; RFC 8200 §4)."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_strategies import draft_messages, packets

from testbed.wire.checksum import checksum
from testbed.wire.codec import Codec
from testbed.wire.error import ParseError
from testbed.wire.message import BindingAcknowledgement, BindingUpdate
from testbed.wire.packet import Packet, build_packet, parse_packet

CODEC = Codec()
HOME = IPv6Address("2001:db8:100::100")
CARE_OF = IPv6Address("2001:db8:201::5")
AGENT = IPv6Address("2001:db8:100::1")
UPDATE = Packet(CARE_OF, AGENT, BindingUpdate(1, 60, True, True), home_address=HOME)
ANSWER = Packet(AGENT, CARE_OF, BindingAcknowledgement(0, 1, 60), routing_address=HOME)
HEADER = CODEC.build(UPDATE.message, HOME, AGENT)
HAO = bytes((0xC9, 16)) + HOME.packed


def ipv6(next_header, payload, source=CARE_OF, destination=AGENT):
    return (
        b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes((next_header, 64))
        + source.packed + destination.packed + payload
    )


def destination_options(options, next_header=135):
    octets = bytes((next_header, 0)) + options
    octets += bytes(-len(octets) % 8)
    return octets[:1] + bytes((len(octets) // 8 - 1,)) + octets[2:]


def parse(octets):
    return parse_packet(octets, CODEC)


def refused(octets, reason):
    with pytest.raises(ParseError, match=reason) as caught:
        parse(octets)
    return caught.value.pointer, caught.value.code


@settings(deadline=None)
@given(packets(draft_messages), st.integers(0, 255))
def test_round_trip(packet, hop_limit):
    octets = build_packet(packet, CODEC, hop_limit)
    assert octets[7] == hop_limit
    assert parse(octets) == packet
    assert octets.endswith(parse(octets).mobility_header)


@settings(deadline=None)
@given(packets(draft_messages))
def test_truncated_anywhere(packet):
    octets = build_packet(packet, CODEC)
    for length in range(len(octets)):
        with pytest.raises(ParseError):
            parse(octets[:length])
        if length >= 40:
            with pytest.raises(ParseError):
                parse(octets[:4] + (length - 40).to_bytes(2, "big") + octets[6:length])


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=200), st.sampled_from([0, 43, 44, 60, 135, 59]))
def test_arbitrary_octets(octets, next_header):
    for packet in (octets, ipv6(next_header, octets)):
        try:
            parse(packet)
        except ParseError as error:
            assert error.pointer is None or 0 <= error.pointer < len(packet)


@settings(deadline=None, max_examples=500)
@given(packets(draft_messages), st.data())
def test_mutated_octets(packet, data):
    octets = bytearray(build_packet(packet, CODEC))
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse(octets)
    except ParseError as error:
        assert error.pointer is None or 0 <= error.pointer < len(octets)


def test_link_layer_padding_is_ignored():
    assert parse(build_packet(UPDATE, CODEC) + b"padding") == UPDATE


@pytest.mark.requirement("RFC 6275 §6.3: the Home Address option lies at 8n + 6 of its header")
def test_the_home_address_is_aligned():
    octets = build_packet(UPDATE, CODEC)
    assert octets[6] == 60 and octets.index(HOME.packed) % 8 == 0


@pytest.mark.requirement("RFC 6275 §6.3: the Home Address option comes after the routing header")
def test_order_of_extension_headers():
    octets = build_packet(Packet(CARE_OF, AGENT, UPDATE.message, HOME, IPv6Address("2001:db8::7")), CODEC)
    assert (octets[6], octets[40], octets[64]) == (43, 60, 135)


def test_other_extension_headers_are_passed_over():
    atomic_fragment = bytes((60, 0, 0, 0, 1, 2, 3, 4))
    used_up_routing = bytes((44, 0, 0, 0, 0, 0, 0, 0))
    router_alert = bytes((43, 0, 5, 2, 0, 0, 1, 0))
    skipped = destination_options(bytes((1, 2, 0, 0, 0x1E, 1, 0xFF)) + HAO)
    octets = ipv6(0, router_alert + used_up_routing + atomic_fragment + skipped + HEADER)
    assert parse(octets) == UPDATE


@pytest.mark.requirement("RFC 8200 §4.2: the type of an unknown option says what becomes of the packet")
@pytest.mark.parametrize("kind, icmp", [(0x45, (None, 0)), (0x85, (42, 2)), (0xC5, (42, 2))])
def test_unknown_destination_options(kind, icmp):
    octets = ipv6(60, destination_options(bytes((kind, 0)) + HAO) + HEADER)
    assert refused(octets, f"option {kind} is not known") == icmp


@pytest.mark.requirement("RFC 6275 §6.3: not more than one Home Address option")
def test_two_home_addresses():
    refused(ipv6(60, destination_options(HAO + HAO) + HEADER), "more than one Home Address option")
    twice = destination_options(HAO, 60) + destination_options(HAO) + HEADER
    refused(ipv6(60, twice), "where none may be")
    refused(ipv6(0, destination_options(HAO) + HEADER), "where none may be")


@pytest.mark.requirement("RFC 6275 §9.3.1: a home address that is not unicast routable: packet dropped")
@pytest.mark.parametrize("address", ["::", "::1", "ff02::1", "fe80::1"])
def test_home_address_that_cannot_be_one(address):
    packet = Packet(CARE_OF, AGENT, UPDATE.message, home_address=IPv6Address(address))
    refused(build_packet(packet, CODEC), "Home Address option .* not a routable unicast address")
    packet = Packet(AGENT, CARE_OF, UPDATE.message, routing_address=IPv6Address(address))
    refused(build_packet(packet, CODEC), "type 2 routing header .* not a routable unicast address")


@pytest.mark.requirement("RFC 6275 §6.4.1: Hdr Ext Len must be 2, Segments Left must be 1")
@pytest.mark.parametrize("offset, value, pointer", [(41, 4, 41), (42, 0, 42), (42, 4, 42), (43, 2, 43)])
def test_routing_header_that_cannot_be(offset, value, pointer):
    octets = bytearray(build_packet(ANSWER, CODEC))
    octets[offset] = value
    assert refused(octets, "routing header") == (pointer, 0)


def test_two_type_2_routing_headers():
    octets = build_packet(ANSWER, CODEC)
    routing = octets[40:64]
    refused(ipv6(43, b"\x2b" + routing[1:] + octets[40:]), "more than one type 2 routing header")


def test_home_address_option_of_wrong_length():
    octets = ipv6(60, destination_options(bytes((0xC9, 15)) + bytes(15)) + HEADER)
    assert refused(octets, "does not have length 16") == (43, 0)


@pytest.mark.parametrize(
    "octets, reason",
    [
        (b"", "not an IPv6 packet"),
        (b"\x45" + bytes(59), "not an IPv6 packet"),
        (ipv6(59, HEADER), "header 59 in place of a Mobility Header"),
        (ipv6(50, HEADER), "header 50 in place"),
        (ipv6(44, bytes((135, 0, 0, 1, 0, 0, 0, 1)) + HEADER), "is a fragment"),
        (ipv6(44, bytes((135, 0, 0, 8, 0, 0, 0, 1)) + HEADER), "is a fragment"),
        (ipv6(60, bytes((135, 9)) + bytes(30)), "extension header 60 is truncated"),
        (ipv6(60, bytes(4)), "extension header 60 is truncated"),
        (ipv6(60, destination_options(bytes((0x1E, 9))) + HEADER), "runs past the end of its header"),
        (ipv6(60, destination_options(bytes((0, 0, 0, 0, 0, 0x1E))) + HEADER), "has no length"),
    ],
)
def test_packets_that_are_dropped(octets, reason):
    assert refused(octets, reason) == (None, 0)


def test_hop_by_hop_options_anywhere_but_first():
    inner = bytes((135, 0, 1, 4, 0, 0, 0, 0)) + HEADER
    assert refused(ipv6(60, bytes((0, 0, 1, 4, 0, 0, 0, 0)) + inner), "not the first") == (40, 1)


@pytest.mark.requirement("RFC 6275 §9.2: the pointer counts from the start of the packet (RFC 4443 §3.4)")
def test_pointers_count_from_the_ipv6_header():
    message = b"\x06" + HEADER[1:4] + bytes(2) + HEADER[6:]
    message = message[:4] + checksum(message, HOME, AGENT, 135).to_bytes(2, "big") + message[6:]
    assert refused(ipv6(60, destination_options(HAO) + message), "payload 6") == (64, 0)
