"""Which packets a selector means, field by field, seen in the path that they take in both directions."""

import struct
from ipaddress import IPv6Address

import pytest
from datapath_bed import (
    AH,
    DCCP,
    ESP,
    ICMPV6,
    OTHER,
    SCTP,
    TCP,
    UDP,
    UDP_LITE,
    Bed,
    addresses,
    mirrored,
    packet,
    payload,
    security,
)
from datapath_network import CORRESPONDENT, HOME_ADDRESS, HOME_ADDRESS_2

from testbed.mobility.forwarding import Action, FlowRule
from testbed.wire.selector import IPv4TrafficSelector, IPv6TrafficSelector

# name, selector, packets that match it, packets that do not
CASES = [
    (
        "source port",
        IPv6TrafficSelector(source_port=(443, 443)),
        [packet(p, 443, 9) for p in (TCP, UDP, SCTP, DCCP, UDP_LITE)],
        [packet(TCP, 444, 443), packet(ICMPV6, body=struct.pack("!HHHH", 443, 0, 0, 0) + payload())],
    ),
    (
        "source ports",
        IPv6TrafficSelector(source_port=(1000, 1999)),
        [packet(UDP, 1000, 1), packet(UDP, 1999, 1)],
        [packet(UDP, 999, 1000), packet(UDP, 2000, 1000)],
    ),
    (
        "destination ports",
        IPv6TrafficSelector(destination_port=(5000, 5010)),
        [packet(UDP, 1, 5000), packet(TCP, 1, 5010)],
        [packet(UDP, 5000, 4999), packet(UDP, 1, 5011)],
    ),
    (
        "port and protocol",
        IPv6TrafficSelector(source_port=(22, 22), next_header=(TCP, TCP)),
        [packet(TCP, 22, 1)],
        [packet(UDP, 22, 1), packet(TCP, 23, 22)],
    ),
    (
        "port and protocols",
        IPv6TrafficSelector(source_port=(22, 22), next_header=(TCP, UDP)),
        [packet(TCP, 22, 1), packet(UDP, 22, 1)],
        [packet(SCTP, 22, 1)],
    ),
    (
        "next header",
        IPv6TrafficSelector(next_header=(SCTP, SCTP)),
        [packet(SCTP)],
        [packet(UDP), packet(TCP)],
    ),
    (
        "next headers",
        IPv6TrafficSelector(next_header=(ESP, ESP + 50)),
        [packet(ESP, body=security(ESP, 7)), packet(AH, body=security(AH, 7))],
        [packet(UDP), packet(SCTP)],
    ),
    (
        "AH as next header",
        IPv6TrafficSelector(next_header=(AH, AH)),
        [packet(AH, body=security(AH, 7))],
        [packet(ESP, body=security(ESP, 7))],
    ),
    (
        "SPI",
        IPv6TrafficSelector(spi=(0x100, 0x100)),
        [packet(ESP, body=security(ESP, 0x100)), packet(AH, body=security(AH, 0x100))],
        [packet(ESP, body=security(ESP, 0x101)), packet(AH, body=security(AH, 0xFF)), packet(UDP, 0, 0x100)],
    ),
    (
        "SPIs",
        IPv6TrafficSelector(spi=(0x80000000, 0x80001000)),
        [packet(ESP, body=security(ESP, 0x80000000)), packet(AH, body=security(AH, 0x80001000))],
        [packet(ESP, body=security(ESP, 0x7FFFFFFF)), packet(ESP, body=security(ESP, 0x80001001))],
    ),
    (
        "traffic class",
        IPv6TrafficSelector(traffic_class=(0xB8, 0xB8)),
        [packet(traffic_class=0xB8), packet(traffic_class=0xBB)],
        [packet(traffic_class=0xB4), packet()],
    ),
    (
        "traffic classes",
        IPv6TrafficSelector(traffic_class=(0x21, 0x4B)),
        [packet(traffic_class=0x20), packet(traffic_class=0x4B)],
        [packet(traffic_class=0x1F), packet(traffic_class=0x4C)],
    ),
    (
        "flow label",
        IPv6TrafficSelector(flow_label=(0xABCDE, 0xABCDE)),
        [packet(flow_label=0xABCDE), packet(flow_label=0xABCDE, traffic_class=0xFF)],
        [packet(flow_label=0xABCDF), packet()],
    ),
    (
        "flow labels",
        IPv6TrafficSelector(flow_label=(0x00100, 0x0FFFF)),
        [packet(flow_label=0x100), packet(flow_label=0xFFFF)],
        [packet(flow_label=0xFF), packet(flow_label=0x10000)],
    ),
    (
        "source address",
        IPv6TrafficSelector(source_address=(CORRESPONDENT, CORRESPONDENT)),
        [packet()],
        [packet(source=OTHER)],
    ),
    (
        "source prefix",
        IPv6TrafficSelector(source_address=addresses("2001:db8:300::", "2001:db8:300::2")),
        [packet()],
        [packet(source=OTHER)],
    ),
    (
        "source addresses",
        IPv6TrafficSelector(source_address=addresses("2001:db8:300::3", "2001:db8:300::5")),
        [packet(source=OTHER)],
        [packet()],
    ),
    (
        "source /64",
        IPv6TrafficSelector(source_address=addresses("2001:db8:300::", "2001:db8:300::ffff:ffff:ffff:ffff")),
        [packet(), packet(source=OTHER)],
        [],
    ),
    (
        "destination address",
        IPv6TrafficSelector(destination_address=(HOME_ADDRESS, HOME_ADDRESS)),
        [packet()],
        [],
    ),
    (
        "other destination",
        IPv6TrafficSelector(destination_address=(HOME_ADDRESS_2, HOME_ADDRESS_2)),
        [],
        [packet()],
    ),
    (
        "any address",
        IPv6TrafficSelector(source_address=(IPv6Address(0), IPv6Address((1 << 128) - 1))),
        [packet(), packet(source=OTHER)],
        [],
    ),
    (
        "everything at once",
        IPv6TrafficSelector(
            (CORRESPONDENT, CORRESPONDENT),
            (HOME_ADDRESS, HOME_ADDRESS),
            None,
            (5, 6),
            (1000, 1001),
            (2000, 2001),
            (0x20, 0x23),
            (UDP, UDP),
        ),
        [packet(flow_label=5, traffic_class=0x22), packet(UDP, 1001, 2001, flow_label=6, traffic_class=0x20)],
        [
            packet(flow_label=7, traffic_class=0x20),
            packet(flow_label=5),
            packet(UDP, 1002, 2000, flow_label=5, traffic_class=0x20),
        ],
    ),
    ("wild card", None, [packet(), packet(TCP), packet(ESP, body=security(ESP, 1))], []),
    ("IPv4", IPv4TrafficSelector(protocol=(0, 255)), [], [packet(), packet(TCP)]),
]


@pytest.mark.requirement(
    "RFC 6088 §3.2: every field of the binary traffic selector is matched, ends included"
)
@pytest.mark.requirement("draft §4: both directions of a flow take the path that it is bound to")
@pytest.mark.parametrize(
    "selector, hits, misses", [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_selector(bed: Bed, selector, hits, misses):
    bed.bind(default=2, rules=(FlowRule(7, 1, selector, Action.FORWARD, (1,)),))
    for expected, packets in ((1, hits), (2, misses)):
        for sent in packets:
            sent = sent[:-8] + payload()
            assert bed.downlink(sent) == [expected]
            assert bed.uplink(mirrored(sent)) == [expected]
    for counters in (bed.anchor.counters(), bed.mobile.counters()):
        assert counters[HOME_ADDRESS, 7][0] >= len(hits)
        assert counters[HOME_ADDRESS, None][0] >= len(misses)
