"""Mobility messages that tests make themselves, octet by octet, and what comes back for them.

Class: `Signaller`. Functions: `mobility_header`, `with_options`, `sign`, `stamped_at`, `ipv6_packet`,
`parameter_problems`.
Checksums and authenticators are computed here, apart from what the agents compute.
"""

import hashlib
import hmac
import itertools
import struct
import time
from ipaddress import IPv6Address

from agent_network import HOME_ADDRESS, HOME_AGENT, KEY
from datapath_network import Capture, Namespace, ipv6

from testbed.agent.mobility_socket import MobilitySocket
from testbed.wire.codec import Codec
from testbed.wire.error import ParseError
from testbed.wire.option import MessageIdentifier
from testbed.wire.packet import Packet, parse_packet

SPI = 1000
BRR, HOTI, COTI, HOT, COT, BU, BA, BE = range(8)
COOKIE = b"a cookie"
#: What follows the checksum in a good message of each type, without options.
FIXED = {
    BRR: bytes(2),
    HOTI: bytes(2) + COOKIE,
    COTI: bytes(2) + COOKIE,
    HOT: bytes(2) + COOKIE + bytes(8),
    COT: bytes(2) + COOKIE + bytes(8),
    BU: struct.pack("!HHH", 1, 0xC000, 15),
    BA: struct.pack("!BBHH", 0, 0, 1, 15),
    BE: bytes((1, 0)) + IPv6Address(HOME_ADDRESS).packed,
}
PADDING = [b"", b"\0"] + [bytes((1, n - 2)) + bytes(n - 2) for n in range(2, 8)]
_sequence = itertools.count(1)


def with_options(fixed: bytes, *options: tuple[int, int, int, bytes]) -> bytes:
    """`fixed` and options (type, x, y, data), each at x*n + y from the start of the Mobility Header."""
    for kind, unit, offset, data in options:
        fixed += PADDING[(offset - 6 - len(fixed)) % unit] + bytes((kind, len(data))) + data
    return fixed


def mobility_header(kind: int, data: bytes, payload: int = 59, length: int | None = None) -> bytes:
    """A Mobility Header, padded, without its checksum."""
    data += PADDING[-(6 + len(data)) % 8]
    octets = 6 + len(data)
    return bytes((payload, octets // 8 - 1 if length is None else length, kind, 0, 0, 0)) + data


def checksummed(header: bytes, source: str, destination: str) -> bytes:
    header = header[:4] + b"\0\0" + header[6:]
    addresses = IPv6Address(source).packed + IPv6Address(destination).packed
    data = addresses + struct.pack("!II", len(header), 135) + header + bytes(len(header) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:4] + struct.pack("!H", ~total & 0xFFFF) + header[6:]


def sign(
    kind: int, data: bytes, care_of_address: str, timestamp: float | int | None = None, key: str = KEY,
    home_address: str = HOME_ADDRESS,
) -> bytes:  # fmt: skip
    """A Mobility Header with time stamp and authenticator at its end (RFC 4285), without its checksum.

    `timestamp`: seconds since 1970, a whole number means NTP's 64 bits; by default it is that of now.
    """
    seconds = time.time() if timestamp is None else timestamp
    stamp = seconds if isinstance(seconds, int) else int((seconds + 2_208_988_800) * 2**32)
    claim = b"\1" + struct.pack("!I", SPI) + bytes(12)
    data = with_options(data, (10, 8, 2, struct.pack("!Q", stamp)), (9, 4, 1, claim))
    return resign(mobility_header(kind, data), len(data) + 6, care_of_address, key, home_address)


def resign(header: bytes, end: int, care_of_address: str, key: str = KEY, home: str = HOME_ADDRESS) -> bytes:
    """The header with a new authenticator, whose option ends at the offset `end`."""
    addresses = IPv6Address(care_of_address).packed + IPv6Address(home).packed
    covered = addresses + header[:4] + b"\0\0" + header[6 : end - 12]
    proof = hmac.new(bytes.fromhex(key), covered, hashlib.sha1).digest()[:12]
    return header[: end - 12] + proof + header[end:]


def stamped_at(packet: bytes) -> float:
    """The time stamp of a message (RFC 4285 §6), in seconds: when its sender decided to send it. On a slow
    machine it may have left later."""
    return parse_packet(packet, Codec()).message.option(MessageIdentifier).timestamp / 2**32


def ipv6_packet(
    source: str, destination: str, header: bytes, home_address: str | None = None,
    routing_address: str | None = None, checksum: bool = True,
) -> bytes:  # fmt: skip
    """A whole packet around a Mobility Header, whose checksum is put right."""
    if checksum:
        header = checksummed(header, home_address or source, routing_address or destination)
    following = 135
    if home_address is not None:
        options = bytes((1, 2, 0, 0, 0xC9, 16)) + IPv6Address(home_address).packed
        header, following = bytes((following, 2)) + options + header, 60
    if routing_address is not None:
        routing = bytes((following, 2, 2, 1)) + bytes(4) + IPv6Address(routing_address).packed
        header, following = routing + header, 43
    return ipv6(source, destination, following, header)


class Signaller:
    """Sends whole packets from an interface of a namespace in which no agent runs; hears what comes back."""

    def __init__(self, node: Namespace, interface: str, address: str) -> None:
        self.node, self.interface, self.address = node, interface, address
        self._sending = node.run(MobilitySocket)
        self._capture = Capture(node, interface)
        self._heard: list[bytes] = []

    def send(self, *packets: bytes) -> None:
        for data in packets:
            source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
            self.node.run(
                lambda data=data, s=source, d=destination: self._sending.send(data, s, d, self.interface)
            )

    def update(
        self, *options: tuple[int, int, int, bytes], lifetime_s: int = 60, flags: int = 0xC000,
        sequence: int | None = None, care_of_address: str | None = None, **signature: object,
    ) -> bytes:  # fmt: skip
        """An authentic Binding Update of the mobile node's, as a whole packet."""
        source = care_of_address or self.address
        number = next(_sequence) if sequence is None else sequence
        data = with_options(struct.pack("!HHH", number, flags, lifetime_s // 4), *options)
        return ipv6_packet(source, HOME_AGENT, sign(BU, data, source, **signature), HOME_ADDRESS)

    def heard(self) -> list[bytes]:
        """All packets that have come in so far."""
        self._heard += self._capture.packets()
        return self._heard

    def forget(self) -> None:
        self._capture.packets()
        self._heard.clear()

    def messages(self) -> list[Packet]:
        """The mobility messages among them."""
        found = []
        for data in self.heard():
            try:
                found.append(parse_packet(data, Codec()))
            except ParseError:
                continue
        return found

    def problems(self) -> list[tuple[int, int]]:
        """Code and pointer of the ICMPv6 Parameter Problems among them."""
        return parameter_problems(self.heard())

    def close(self) -> None:
        self._sending.close()
        self._capture.close()


def parameter_problems(packets: list[bytes]) -> list[tuple[int, int]]:
    """Code and pointer of the ICMPv6 Parameter Problems, their checksums verified."""
    found = []
    for data in packets:
        if data[6] == 58 and data[40] == 4:
            pseudo = data[8:40] + struct.pack("!II", len(data) - 40, 58)
            content = pseudo + data[40:] + bytes(len(data) % 2)
            total = sum(struct.unpack(f"!{len(content) // 2}H", content))
            assert (total & 0xFFFF) + (total >> 16) in (0xFFFF, 0x1FFFE), "checksum of a Parameter Problem"
            found.append((data[41], int.from_bytes(data[44:48], "big")))
    return found


def binding_identifier(bid: int, care_of_address: str, priority: int = 10) -> tuple[int, int, int, bytes]:
    """A Binding Identifier option."""
    return 35, 8, 2, struct.pack("!HBB", bid, 0, priority) + IPv6Address(care_of_address).packed
