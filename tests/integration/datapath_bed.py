"""A home agent, a mobile node and a correspondent node with a datapath, and packets for them to carry."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address

from datapath_network import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    PREFIX,
    WLAN,
    Capture,
    Namespace,
    Network,
    answers,
    binding,
    ipv6,
    send_raw,
    wait_for,
)

from testbed.datapath.datapath import Datapath, DatapathConfiguration
from testbed.mobility.forwarding import Side

TCP, UDP, ICMPV6, ESP, AH, SCTP, DCCP, UDP_LITE = 6, 17, 58, 50, 51, 132, 33, 136
MOBILITY_HEADER = 135
OTHER = IPv6Address("2001:db8:300::3")


class Bed:
    """The network with a datapath at each end."""

    def __init__(self, backend: str) -> None:
        self.network = Network()
        self.ha = self.network.ha
        self.mn = self.network.mn
        self.cn = self.network.cn
        self.cn.shell(f"ip address add {OTHER}/64 dev eth0 nodad")
        self.anchor = self.ha.run(
            lambda: Datapath(Side.ANCHOR, DatapathConfiguration(backend, home_interface="home0"))
        )
        self.mobile = self.mn.run(lambda: Datapath(Side.MOBILE, DatapathConfiguration(backend)))
        self.down = {1: Capture(self.mn, "wlan"), 2: Capture(self.mn, "cellular")}
        self.up = {1: Capture(self.ha, "ar1"), 2: Capture(self.ha, "ar2")}

    def bind(self, **more) -> None:
        self.ha.run(lambda: self.anchor.apply({HOME_ADDRESS: binding(True, **more)}))
        self.mn.run(lambda: self.mobile.apply({HOME_ADDRESS: binding(False, **more)}))

    def clear(self) -> None:
        for capture in (*self.down.values(), *self.up.values()):
            capture.packets()

    def close(self) -> None:
        for capture in (*self.down.values(), *self.up.values()):
            capture.close()
        self.network.close()

    def downlink(self, packet: bytes, copies: int = 1) -> list[int]:
        """BIDs by which the packet, sent by the correspondent node, reached the mobile node."""
        return self._carried(self.cn, packet, self.down, copies)

    def uplink(self, packet: bytes, copies: int = 1) -> list[int]:
        return self._carried(self.mn, packet, self.up, copies)

    def _carried(self, sender, packet: bytes, captures: dict[int, Capture], copies: int) -> list[int]:
        self.clear()
        send_raw(sender, packet)
        mark = packet[-8:]
        bids: list[int] = []
        outer: list[bytes] = []

        def arrived() -> bool:
            for bid, capture in captures.items():
                for found in capture.packets():
                    if found.endswith(mark) and found[6] == 41:
                        bids.append(bid)
                        outer.append(found)
            return len(bids) >= copies

        wait_for(arrived)
        for bid, found in zip(bids, outer, strict=True):
            care_of_address = {1: WLAN, 2: CELLULAR}[bid]
            ends = (HOME_AGENT, care_of_address) if captures is self.down else (care_of_address, HOME_AGENT)
            assert (found[8:24], found[24:40]) == (ends[0].packed, ends[1].packed)
            assert found[48:80] == packet[8:40], "inner addresses"
            assert 60 <= found[7] <= 64, "outer hop limit"
        return sorted(bids)


@contextmanager
def mobile_network(bed: Bed) -> Iterator[Namespace]:
    """A link with PREFIX behind the mobile node, and on it a host at PREFIX[2]."""
    inside = Namespace("inside")
    try:
        bed.mn.shell(
            f"ip link add lan type veth peer name eth0 netns {inside.pid};"
            f"ip address add {PREFIX[1]}/64 dev lan nodad; ip link set lan up;"
            "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"
        )
        inside.shell(
            f"ip address add {PREFIX[2]}/64 dev eth0 nodad; ip link set eth0 up;"
            f"ip -6 route add default via {PREFIX[1]}"
        )
        wait_for(lambda: answers(inside, PREFIX[1]))
        yield inside
    finally:
        bed.mn.shell("ip link del lan; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding", check=False)
        inside.close()


_serial = 0


def payload() -> bytes:
    """Eight octets by which a packet is known again."""
    global _serial
    _serial += 1
    return struct.pack("!Q", 0xF10B1D00 << 32 | _serial)


def transport(protocol: int, source: int, destination: int) -> bytes:
    """Header of a protocol with ports (its checksum is left wrong: nobody on the way looks), and payload."""
    data = payload()
    ports = struct.pack("!HH", source, destination)
    if protocol == TCP:
        return ports + struct.pack("!IIBBHHH", 0, 0, 0x50, 0x10, 0, 0, 0) + data
    if protocol in (UDP, UDP_LITE):
        return ports + struct.pack("!HH", 8 + len(data), 0xABCD) + data
    return ports + bytes(12) + data


def packet(
    protocol: int = UDP,
    source_port: int = 1000,
    destination_port: int = 2000,
    source=CORRESPONDENT,
    destination=HOME_ADDRESS,
    body: bytes | None = None,
    **fields: int,
) -> bytes:
    body = transport(protocol, source_port, destination_port) if body is None else body
    return ipv6(source, destination, protocol, body, **fields)


def security(protocol: int, spi: int) -> bytes:
    """ESP, or AH in front of no next header."""
    if protocol == ESP:
        return struct.pack("!II", spi, 1) + bytes(16) + payload()
    return struct.pack("!BBHII", 59, 4, 0, spi, 1) + bytes(12) + payload()


def mirrored(packet: bytes) -> bytes:
    """The packet in the opposite direction."""
    ports = packet[42:44] + packet[40:42] if packet[6] in (TCP, UDP, SCTP, DCCP, UDP_LITE) else packet[40:44]
    return packet[:8] + packet[24:40] + packet[8:24] + ports + packet[44:]


def addresses(first: str, last: str) -> tuple[IPv6Address, IPv6Address]:
    return IPv6Address(first), IPv6Address(last)


def udp(source: IPv6Address, destination: IPv6Address, source_port: int, port: int, data: bytes) -> bytes:
    """A UDP datagram with its checksum."""
    length = 8 + len(data)
    header = struct.pack("!HHHH", source_port, port, length, 0)
    whole = (
        source.packed
        + destination.packed
        + struct.pack("!II", length, UDP)
        + header
        + data
        + bytes(len(data) % 2)
    )
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!HHHH", source_port, port, length, ~total & 0xFFFF or 0xFFFF) + data
