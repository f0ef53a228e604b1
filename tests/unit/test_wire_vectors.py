"""Vectors: octets and what they mean, ours and other people's (see tests/vectors/README.md)."""

import ipaddress
import re
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from scapy.utils import RawPcapReader

from testbed.wire import flow, message, option, packet, selector
from testbed.wire.checksum import checksum
from testbed.wire.codec import MOBILITY_HEADER, Codec
from testbed.wire.error import ParseError
from testbed.wire.packet import build_packet, parse_packet

VECTORS = Path(__file__).parents[1] / "vectors"
NAMES = {
    name: value
    for module in (ipaddress, flow, message, option, packet, selector)
    for name, value in vars(module).items()
    if not name.startswith("_")
}


def evaluate(expression):
    return eval(expression, dict(NAMES))


class Golden:
    """One file of tests/vectors/golden."""

    def __init__(self, path):
        text, expected = path.read_text().split("\nexpected ")
        self.expected = evaluate(expected)
        fields = dict(re.findall(r"^(source|destination|setting) (.*)$", text, re.MULTILINE))
        self.codec = evaluate_codec(fields.get("setting", ""))
        self.source = fields.get("source")
        self.destination = fields.get("destination")
        digits = "".join(
            line.split("#")[0] for line in text.splitlines() if line.split(" ")[0] not in fields
        )
        self.octets = bytes.fromhex(digits.replace(" ", ""))

    def parse(self):
        if self.source is None:
            return parse_packet(self.octets, self.codec)
        return self.codec.parse(self.octets, IPv6Address(self.source), IPv6Address(self.destination))

    def build(self):
        if self.source is None:
            return build_packet(self.expected, self.codec)
        return self.codec.build(self.expected, IPv6Address(self.source), IPv6Address(self.destination))


def evaluate_codec(settings):
    return eval(f"Codec({settings})", {"Codec": Codec})


def golden_files():
    return [pytest.param(path, id=path.stem) for path in sorted((VECTORS / "golden").glob("*.txt"))]


@pytest.mark.parametrize("path", golden_files())
def test_golden_octets_parse_to_what_is_expected(path):
    vector = Golden(path)
    assert vector.parse() == vector.expected


@pytest.mark.parametrize("path", golden_files())
@pytest.mark.requirement("RFC 6275 §6.2: options are aligned, the Mobility Header is a multiple of 8 octets")
@pytest.mark.requirement("draft §3.1: layout of the Flow Identification option")
@pytest.mark.requirement("draft §3.2: layout of the Binding Reference sub-option")
def test_golden_octets_are_what_is_built(path):
    vector = Golden(path)
    assert vector.build().hex() == vector.octets.hex()


def test_the_golden_vectors_are_there():
    assert len(golden_files()) >= 16


def read_pcap(name):
    reader = RawPcapReader(str(VECTORS / "tcpdump" / name))
    link_header = 14 if reader.linktype == 1 else 0
    return [octets[link_header:] for octets, _ in reader]


def with_checksum(octets):
    """Return the Mobility Header after a plain IPv6 header with the right checksum, and the addresses."""
    header = bytearray(octets[40:])
    source, destination = IPv6Address(octets[8:24]), IPv6Address(octets[24:40])
    header[4:6] = bytes(2)
    header[4:6] = checksum(bytes(header), source, destination, MOBILITY_HEADER).to_bytes(2, "big")
    return bytes(header), source, destination


TCPDUMP = """\
BindingRefreshRequest()
HomeTestInit(bytes.fromhex("0102030405060708"))
CareOfTestInit(bytes.fromhex("090a0b0c0d0e0f10"))
HomeTest(0x90A, bytes.fromhex("0b0c0d0e0f1004d2"), bytes.fromhex("1112131415161718"))
CareOfTest(0x90A, bytes.fromhex("0b0c0d0e0f10162e"), bytes.fromhex("191a1b1c1d1e1f20"))
BindingUpdate(1000, 14400, True)
BindingUpdate(1000, 14400, True, options=(AlternateCareOfAddress(IPv6Address("2001:660:4701:f004:20d:54ff:fe98:bc93")),))
BindingUpdate(1000, 14400, True, options=(NonceIndices(1234, 5678),))
not the last option
not the last option
BindingAcknowledgement(0, 1000, 14400)
BindingAcknowledgement(0, 1000, 14400, options=(BindingRefreshAdvice(7200),))
not the last option
not the last option
BindingError(1, IPv6Address("2001:db8::1"))
BindingUpdate(1000, 14400, True)
""".splitlines()  # noqa: E501


@pytest.mark.requirement("RFC 6275 §6.1.7: the Binding Authorization Data option has no trailing padding")
def test_tcpdump_capture():
    captured = read_pcap("ipv6_mobility_1.pcap")
    assert len(captured) == len(TCPDUMP)
    for octets, expected in zip(captured, TCPDUMP, strict=True):
        header, source, destination = with_checksum(octets)
        if expected == "not the last option":  # padded after the authenticator
            with pytest.raises(ParseError, match=expected):
                Codec().parse(header, source, destination)
        else:
            assert Codec().parse(header, source, destination) == evaluate(expected)


@pytest.mark.requirement("RFC 6275 §9.2: a Mobility Header with a wrong checksum is discarded")
def test_tcpdump_capture_has_wrong_checksums():
    for octets in read_pcap("ipv6_mobility_1.pcap"):
        with pytest.raises(ParseError, match="checksum") as caught:
            parse_packet(octets, Codec())
        assert caught.value.pointer is None


FUZZED = {path.name for path in (VECTORS / "tcpdump").glob("*.pcap")} - {"ipv6_mobility_1.pcap"}


@pytest.mark.parametrize("name", sorted(FUZZED))
def test_fuzzed_captures_of_tcpdump(name):
    """What made other parsers read past the end is refused here, as a packet and as a Mobility Header."""
    for octets in read_pcap(name):
        with pytest.raises(ParseError):
            parse_packet(octets, Codec())
        for header in (octets, octets[40:]):
            with pytest.raises(ParseError):
                Codec().parse(header, IPv6Address("::1"), IPv6Address("::1"))
