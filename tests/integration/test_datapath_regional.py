"""What an anchor point classifies of packets to a regional care-of address: what they carry."""

import struct
from ipaddress import IPv6Address

import pytest
from datapath_bed import ESP, ICMPV6, MOBILITY_HEADER, TCP, UDP, Bed, payload, security, transport
from datapath_network import CORRESPONDENT, HOME_ADDRESS, binding, ipv6

from testbed.mobility.forwarding import Action, FlowRule
from testbed.wire.selector import IPv6TrafficSelector

requirement = pytest.mark.requirement
#: On the anchor point's link, which is that of the bed's home agent.
REGIONAL = HOME_ADDRESS
HOME, PEER_HOME = IPv6Address("2001:db8:900::1"), IPv6Address("2001:db8:900::2")
HOME_AGENT = IPv6Address("2001:db8:900::ff")
PORT = IPv6TrafficSelector(destination_port=(2000, 2000))
ROUTING, FRAGMENT, OPTIONS = 43, 44, 60

# extension headers, but for the octet that names the next header
HOME_ADDRESS_OPTION = OPTIONS, b"\2\1\2\0\0\xc9\x10" + PEER_HOME.packed
TYPE_2 = ROUTING, b"\2\2\1\0\0\0\0" + HOME.packed
FIRST_FRAGMENT = FRAGMENT, struct.pack("!BHI", 0, 1, 77)
LATER_FRAGMENT = FRAGMENT, struct.pack("!BHI", 0, 8 << 3, 77)
PADDING = OPTIONS, b"\0\1\4\0\0\0\0"
PADDING_16 = OPTIONS, b"\1\1\x0c" + bytes(12)

CHAINS = {
    "nothing": [],
    "8": [PADDING],
    "first fragment": [FIRST_FRAGMENT],
    "Home Address option": [HOME_ADDRESS_OPTION],
    "type 2 routing header": [TYPE_2],
    "both": [TYPE_2, HOME_ADDRESS_OPTION],
    "fragment behind one": [HOME_ADDRESS_OPTION, FIRST_FRAGMENT],
}


def chained(headers, protocol, body):
    """The first next header, and all headers with the body behind them."""
    for kind, rest in reversed(headers):
        protocol, body = kind, bytes([protocol]) + rest + body
    return protocol, body


def inside(headers=(), protocol=UDP, body=None, source=CORRESPONDENT, destination=HOME, **fields):
    """A packet in the tunnel of a home agent to the regional address."""
    body = transport(protocol, 1000, 2000) if body is None else body
    inner = ipv6(source, destination, *chained(headers, protocol, body), **fields)
    return ipv6(HOME_AGENT, REGIONAL, 41, inner)


def routed(headers=(), protocol=UDP, body=None):
    """A packet of a correspondent node to the regional address."""
    body = transport(protocol, 1000, 2000) if body is None else body
    return ipv6(CORRESPONDENT, REGIONAL, *chained([TYPE_2, *headers], protocol, body))


def bind(bed: Bed, *selectors):
    """The first BID for packets of any of these selectors, the second one for others."""
    rules = tuple(
        FlowRule(fid, fid, selector, Action.FORWARD, (1,)) for fid, selector in enumerate(selectors, 1)
    )
    bed.ha.run(lambda: bed.anchor.apply({REGIONAL: binding(True, rules=rules, regional=True)}))


@requirement("draft §9: a MAP classifies what is in the tunnel, behind whatever extension headers")
@pytest.mark.parametrize("headers", CHAINS.values(), ids=CHAINS)
def test_ports_behind_extension_headers(bed: Bed, headers):
    bind(bed, PORT)
    assert bed.downlink(inside(headers)) == [1]
    assert bed.downlink(inside(headers, TCP)) == [1]
    assert bed.downlink(inside(headers, body=transport(UDP, 2000, 1000))) == [2]
    body = struct.pack("!HHHH", 1000, 2000, 0, 0) + payload()
    assert bed.downlink(inside(headers, ICMPV6, body)) == [2]


@pytest.mark.parametrize("headers", CHAINS.values(), ids=CHAINS)
def test_next_header_and_spi_behind_extension_headers(bed: Bed, headers):
    bind(bed, IPv6TrafficSelector(next_header=(ICMPV6, ICMPV6)), IPv6TrafficSelector(spi=(7, 7)))
    assert bed.downlink(inside(headers, ICMPV6, bytes(8) + payload())) == [1]
    assert bed.downlink(inside(headers)) == [2]
    assert bed.downlink(inside(headers, ESP, security(ESP, 7))) == [1]
    assert bed.downlink(inside(headers, ESP, security(ESP, 8))) == [2]


def test_extension_headers_as_next_headers(bed: Bed):
    bind(bed, IPv6TrafficSelector(next_header=(OPTIONS, OPTIONS)))
    assert bed.downlink(inside([HOME_ADDRESS_OPTION])) == [1]
    assert bed.downlink(inside([TYPE_2, HOME_ADDRESS_OPTION])) == [1]
    assert bed.downlink(inside([TYPE_2])) == [2]
    assert bed.downlink(inside()) == [2]


def test_what_cannot_be_seen(bed: Bed):
    """A port is none where it cannot be; all that stands before is compared."""
    bind(bed, PORT)
    assert bed.downlink(inside([LATER_FRAGMENT])) == [2]
    assert bed.downlink(inside([HOME_ADDRESS_OPTION, LATER_FRAGMENT])) == [2]
    assert bed.downlink(inside([PADDING_16])) == [2]
    assert bed.downlink(inside([PADDING, PADDING, PADDING])) == [2]
    bind(bed, PORT, IPv6TrafficSelector(source_address=(CORRESPONDENT, CORRESPONDENT)))
    assert bed.downlink(inside([LATER_FRAGMENT])) == [1]
    assert bed.downlink(inside([PADDING_16])) == [1]
    assert bed.downlink(inside([PADDING_16], source=PEER_HOME)) == [2]


@requirement("draft §9: a MAP classifies what comes to the regional address with a type 2 routing header")
def test_type_2_routing_header_to_the_regional_address(bed: Bed):
    bind(bed, PORT)
    assert bed.downlink(routed()) == [1]
    assert bed.downlink(routed([HOME_ADDRESS_OPTION])) == [1]
    assert bed.downlink(routed(body=transport(UDP, 2000, 1000))) == [2]
    bind(bed, IPv6TrafficSelector(destination_address=(HOME, HOME)))
    assert bed.downlink(routed()) == [1]
    assert bed.downlink(inside()) == [1]
    assert bed.downlink(inside(destination=PEER_HOME)) == [2]
    bind(bed, IPv6TrafficSelector(destination_address=(REGIONAL, REGIONAL)))
    assert bed.downlink(routed()) == [2]  # it is not its destination in the end
    assert bed.downlink(ipv6(CORRESPONDENT, REGIONAL, UDP, transport(UDP, 1, 2))) == [1]


@requirement("draft §4: flow bindings do not apply to mobility signalling")
@pytest.mark.parametrize("headers", CHAINS.values(), ids=CHAINS)
def test_signalling_inside_takes_the_default(bed: Bed, headers):
    bind(bed, PORT, IPv6TrafficSelector(source_address=(CORRESPONDENT, CORRESPONDENT)))
    message = bytes([59, 1, 3, 0, 0, 0, 0, 0]) + payload()
    assert bed.downlink(inside(headers, MOBILITY_HEADER, message)) == [2]
    assert bed.downlink(routed((), MOBILITY_HEADER, message)) == [2]
