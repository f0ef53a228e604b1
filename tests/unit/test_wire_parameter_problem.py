"""ICMPv6 Parameter Problems, and how many of them there are."""

from ipaddress import IPv6Address

import pytest
from scapy.layers.inet6 import ICMPv6ParamProblem, IPv6, in6_chksum

from testbed.mobility.rate_limit import RateLimit
from testbed.wire.checksum import checksum
from testbed.wire.codec import Codec
from testbed.wire.error import ParseError
from testbed.wire.message import BindingUpdate
from testbed.wire.option import AlternateCareOfAddress
from testbed.wire.packet import Packet, build_packet
from testbed.wire.parameter_problem import parameter_problem

HERE, THERE = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")


def packet(octets: int = 0) -> bytes:
    data = build_packet(Packet(THERE, HERE, BindingUpdate(1, 60)), Codec())
    return data + bytes(octets)


@pytest.mark.requirement("RFC 4443 §3.4: code, pointer, and as much of the packet as fits in 1280 octets")
@pytest.mark.parametrize("octets", [0, 1, 1000, 5000])
def test_scapy_reads_a_parameter_problem(octets):
    bad = packet(octets)
    answer = parameter_problem(bad, 2, 42)
    read = IPv6(answer)
    assert (read.src, read.dst, read.plen) == (str(HERE), str(THERE), len(answer) - 40)
    problem = read[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (2, 42)
    assert answer[48:] == bad[: 1280 - 48] and len(answer) <= 1280
    assert in6_chksum(58, IPv6(answer[:40]), answer[40:]) == 0


def test_alignment_is_asked_for_or_not():
    codec = Codec()
    good = codec.encode(BindingUpdate(1, 60, options=(AlternateCareOfAddress(THERE),)))
    bad = good[:12] + good[14:] + bytes((1, 0))  # without the padding before the option
    bad = bad[:4] + codec_checksum(bad) + bad[6:]
    assert codec.parse(bad, THERE, HERE).option(AlternateCareOfAddress).care_of_address == THERE
    with pytest.raises(ParseError, match=r"option 3 at octet 12 is not at 8n \+ 6"):
        Codec(require_alignment=True).parse(bad, THERE, HERE)


def codec_checksum(header: bytes) -> bytes:
    return checksum(header[:4] + b"\0\0" + header[6:], THERE, HERE, 135).to_bytes(2, "big")


def test_a_sender_is_exhausted_for_the_rest_of_a_second():
    limit = RateLimit(total=10, per_sender=2)
    neighbour = THERE + 7
    assert not limit.exhausted(THERE, 0.0)
    assert limit.allows(THERE, 0.0) and limit.allows(neighbour, 0.1)
    assert limit.exhausted(THERE, 0.2) and limit.exhausted(neighbour, 0.9)
    assert not limit.exhausted(IPv6Address("2001:db8:1::1"), 0.9)
    assert not limit.exhausted(THERE, 1.0)
