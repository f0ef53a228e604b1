"""ICMPv6 messages of Mobile IPv6, Router Advertisements and their options: octets, limits, damage."""

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.wire.codec import Codec
from testbed.wire.error import ParseError
from testbed.wire.icmpv6 import (
    HomeAgentAddressDiscoveryReply,
    HomeAgentAddressDiscoveryRequest,
    MobilePrefixAdvertisement,
    MobilePrefixSolicitation,
    build_icmpv6,
    home_agents_anycast,
    parse_icmpv6,
)
from testbed.wire.packet import Packet, build_packet, parse_packet
from testbed.wire.router_advertisement import (
    AdvertisementInterval,
    HomeAgentInformation,
    MobilityAnchorPoint,
    PrefixInformation,
    RouterAdvertisement,
    SourceLinkLayerAddress,
    encode_options,
    parse_options,
)

requirement = pytest.mark.requirement
HERE, THERE, HOME = (IPv6Address(f"2001:db8::{n}") for n in (1, 2, 3))
MESSAGES = [
    HomeAgentAddressDiscoveryRequest(7),
    HomeAgentAddressDiscoveryRequest(65535, mobile_router=True),
    HomeAgentAddressDiscoveryReply(7, ()),
    HomeAgentAddressDiscoveryReply(7, (HERE, THERE), mobile_router=True),
    MobilePrefixSolicitation(8),
    MobilePrefixAdvertisement(8, (PrefixInformation(IPv6Address("2001:db8::"), 64, 100, 50),), managed=True),
]
OPTIONS = (
    PrefixInformation(HERE, 64, 30, 10, on_link=False, router_address=True),
    HomeAgentInformation(40000, 1800),
    MobilityAnchorPoint(THERE, 3, 9, 600),
    SourceLinkLayerAddress(bytes(range(6))),
    AdvertisementInterval(70),
)


@requirement("RFC 6275 §6.5, §6.6, §6.7, §6.8: formats of the discovery messages")
@requirement("RFC 3963 §7: the R flag in home agent address discovery")
@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize(("home_address", "routing_address"), [(None, None), (HOME, None), (None, HOME)])
def test_what_is_built_is_parsed(message, home_address, routing_address):
    packet = Packet(HERE, THERE, message, home_address, routing_address)
    assert parse_packet(build_packet(packet, Codec()), Codec()) == packet


def test_octets_of_a_request_and_a_reply():
    assert build_icmpv6(HomeAgentAddressDiscoveryRequest(0x1234, True), HERE, THERE)[4:] == bytes.fromhex(
        "12348000"
    )
    reply = build_icmpv6(HomeAgentAddressDiscoveryReply(1, (HOME,)), HERE, THERE)
    assert reply[:2] == bytes((145, 0)) and reply[8:] == HOME.packed


def test_scapy_reads_them_alike():
    from scapy.layers import inet6 as v6

    octets = [build_packet(Packet(HERE, THERE, message), Codec()) for message in MESSAGES]
    request, _, _, reply, solicitation, advertisement = (v6.IPv6(data) for data in octets)
    assert request[v6.ICMPv6HAADRequest].id == 7
    assert reply[v6.ICMPv6HAADReply].addresses == [str(HERE), str(THERE)]
    assert solicitation[v6.ICMPv6MPSol].id == 8
    assert advertisement[v6.ICMPv6MPAdv].flags == 2  # M
    for packet in (request, reply, solicitation, advertisement):
        original = packet.payload.cksum
        del packet.payload.cksum
        assert v6.IPv6(bytes(packet)).payload.cksum == original


@pytest.mark.parametrize("message", MESSAGES)
def test_damage_is_noticed(message):
    data = build_icmpv6(message, HERE, THERE)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(ParseError):
            parse_icmpv6(bytes(damaged), HERE, THERE)
    for length in range(len(data)):
        with pytest.raises(ParseError):
            parse_icmpv6(data[:length], HERE, THERE)
    with pytest.raises(ParseError):
        parse_icmpv6(data, HERE, HOME)


@given(st.binary(max_size=80))
def test_arbitrary_octets_are_refused_in_order(data):
    for parse in (RouterAdvertisement.parse, parse_options, lambda data: parse_icmpv6(data, HERE, THERE)):
        try:
            parse(data)
        except ParseError:
            pass


@requirement("RFC 6275 §7.1, §7.2, §7.4: the H flag, the R flag, Home Agent Information")
@requirement("RFC 5380 §5: the MAP option")
def test_a_router_advertisement_and_its_options():
    advertisement = RouterAdvertisement(1800, OPTIONS, home_agent=True)
    parsed = RouterAdvertisement.parse(bytes(advertisement))
    assert parsed.options[:3] == OPTIONS[:3] and parsed.home_agent
    assert parsed.option(MobilityAnchorPoint).address == THERE
    assert parsed.option(AdvertisementInterval).interval_ms == 70
    map_option = encode_options((MobilityAnchorPoint(THERE, 3, 9, 600),))
    assert map_option == bytes.fromhex("17033900") + (600).to_bytes(4, "big") + THERE.packed


def test_unknown_and_wrong_options_are_skipped():
    unknown = bytes((200, 1)) + bytes(6)
    no_distance = bytes((23, 3, 0x0F)) + bytes(21)
    assert parse_options(unknown + no_distance + encode_options(OPTIONS[:1])) == OPTIONS[:1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: MobilityAnchorPoint(HERE, 0),
        lambda: MobilityAnchorPoint(HERE, 1, 16),
        lambda: PrefixInformation(HERE, 129),
        lambda: HomeAgentInformation(65536, 1),
        lambda: RouterAdvertisement(70000),
    ],
)
def test_what_does_not_fit_its_field(make):
    with pytest.raises(ValueError, match="must be from"):
        make()


@requirement("RFC 2526 §2, §3: the Mobile IPv6 Home-Agents anycast address")
def test_the_anycast_address_of_home_agents():
    assert home_agents_anycast(IPv6Network("2001:db8:100::/64")) == IPv6Address(
        "2001:db8:100:0:fdff:ffff:ffff:fffe"
    )
    assert home_agents_anycast(IPv6Network("2001:db8::/96")) == IPv6Address("2001:db8::ffff:fffe")


@requirement("RFC 5380 §5: Dist, Pref, R, Valid Lifetime and address of the MAP option; its length is 3")
def test_the_map_option_octet_by_octet():
    option = MobilityAnchorPoint(THERE, 3, 9, 600, allocated=True)
    octets = encode_options((option,))
    assert octets == bytes.fromhex("1703 39 80 00000258") + THERE.packed
    assert parse_options(octets) == (option,)
    assert parse_options(bytes([23, 4]) + octets[2:] + bytes(8)) == ()  # another length
    assert parse_options(octets[:2] + b"\x09" + octets[3:]) == ()  # no distance
