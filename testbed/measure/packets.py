"""A capture as columns: each header field of all packets is one numpy array. Class: `PacketTable`.

Function: `read_capture`. IPv6 over Ethernet; one level of IPv6-in-IPv6 (RFC 2473), extension headers, Home
Address option and type 2 routing header are looked through, so `source` and `destination` are the home
address or the correspondent's, never a care-of address.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from ipaddress import IPv6Address
from pathlib import Path

import numpy as np

from testbed.measure import probe_udp

TCP, UDP, MOBILITY = 6, 17, 135
SYN = 0x02

_IPV6_IN_IPV6, _HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS = 41, 0, 43, 44, 60
_ETHERNET = 14
_WINDOW = 208
_CHUNK = 1 << 14  # small enough to stay in the processor's cache
_MAXIMUM_HEADERS = 6
_TIMESTAMP_OPTION = 0x0101080A  # two no-operations, kind 8, length 10: what Linux sends after the handshake
_PROBE = int.from_bytes(probe_udp.MAGIC, "big")
_ADDRESS = np.dtype([("high", "u8"), ("low", "u8")])


@dataclass(frozen=True, slots=True)
class PacketTable:
    """Columns of equal length, in order of capture.

    `time_ns` is CLOCK_MONOTONIC; `wire_octets` the frame without preamble and checksum. Addresses have the
    fields `high` and `low`; `outer_source` and `outer_destination` are zero without a tunnel. `protocol` is
    the upper layer's, 0 where a packet is not IPv6 or is cut short. `payload_octets` is the upper layer's
    payload. `sequence`, `timestamp` (0 without the option), `flags`, `segment_limit` (MSS option of a SYN,
    else 0) are TCP's; `probe_flow` (-1 if this is no probe) and `probe_sequence` the UDP probe's; `message`
    is the Mobility Header's type.
    """

    time_ns: np.ndarray
    wire_octets: np.ndarray
    outer_source: np.ndarray
    outer_destination: np.ndarray
    source: np.ndarray
    destination: np.ndarray
    protocol: np.ndarray
    source_port: np.ndarray
    destination_port: np.ndarray
    payload_octets: np.ndarray
    sequence: np.ndarray
    timestamp: np.ndarray
    flags: np.ndarray
    segment_limit: np.ndarray
    probe_flow: np.ndarray
    probe_sequence: np.ndarray
    message: np.ndarray

    def __len__(self) -> int:
        return len(self.time_ns)

    def __getitem__(self, rows: np.ndarray) -> "PacketTable":
        """Some of the rows: a mask or indices."""
        return PacketTable(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def join(tables: Sequence["PacketTable"]) -> "PacketTable":
        """All rows of all tables, one after the other. Raises ValueError if there is no table."""
        return PacketTable(*(np.concatenate([getattr(table, field.name) for table in tables])
                             for field in fields(PacketTable)))


def same_address(column: np.ndarray, address: str | IPv6Address) -> np.ndarray:
    """Which rows have this address."""
    value = int(IPv6Address(address))
    return (column["high"] == value >> 64) & (column["low"] == value & (1 << 64) - 1)


def address_text(value: np.void) -> str:
    """One address of a column, as text."""
    return str(IPv6Address(int(value["high"]) << 64 | int(value["low"])))


def read_capture(path: str | Path, clock: Sequence[tuple[int, int]] | None = None) -> PacketTable:
    """Read a pcap file of Ethernet frames.

    `clock` has samples of (monotonic ns, wall ns); without it `time_ns` is the wall clock. A record cut
    short by a kill is left out. Raises ValueError if this is not such a file.
    """
    padded = np.zeros(Path(path).stat().st_size + _WINDOW, np.uint8)
    data = padded[:-_WINDOW]
    with open(path, "rb", buffering=0) as file:
        file.readinto(data)
    order, fraction_ns = _byte_order(data[:24].tobytes(), path)
    positions, seconds, fractions, captured, original = _records(data, order)
    time_ns = seconds * 1_000_000_000 + fractions * fraction_ns
    if clock:
        monotonic, wall = np.asarray(clock, np.int64).T
        offset = np.interp(time_ns - wall[0], wall - wall[0], (monotonic - monotonic[0]) - (wall - wall[0]))
        time_ns = time_ns + (monotonic[0] - wall[0]) + offset.astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)
    parts = [_dissect(windows[positions[start:start + _CHUNK]], captured[start:start + _CHUNK],
                      time_ns[start:start + _CHUNK], original[start:start + _CHUNK])
             for start in range(0, max(len(positions), 1), _CHUNK)]
    return PacketTable.join(parts)


def _byte_order(header: bytes, path: str | Path) -> tuple[str, int]:
    """Byte order of a pcap file and the unit of its fractions of a second in ns."""
    for order in "<>":
        if len(header) == 24:
            magic, _, _, _, _, _, link = struct.unpack(order + "IHHiIII", header)
            if magic in (0xA1B23C4D, 0xA1B2C3D4):
                if link & 0xFFFF != 1:
                    raise ValueError(f"{path} has link type {link & 0xFFFF}: expected 1, Ethernet")
                return order, 1 if magic == 0xA1B23C4D else 1000
    raise ValueError(f"{path} is not a pcap file")


def _records(data: np.ndarray, order: str) -> tuple[np.ndarray, ...]:
    """Positions of the frames in the file, and the four fields of each record header."""
    view, unpack = memoryview(data), struct.Struct(order + "I").unpack_from
    positions = []
    position, end = 24, len(data)
    while position + 16 <= end:
        (captured,) = unpack(view, position + 8)
        if position + 16 + captured > end:
            break
        positions.append(position)
        position += 16 + captured
    starts = np.asarray(positions, np.int64)
    if not len(starts):
        empty = np.zeros(0, np.int64)
        return empty, empty, empty, empty, empty
    headers = np.lib.stride_tricks.sliding_window_view(data, 16)[starts].view(order + "u4").astype(np.int64)
    return starts + 16, *headers.T


class _Reader:
    """Reads fields at a place that differs from packet to packet, but takes few values."""

    def __init__(self, window: np.ndarray, captured: np.ndarray):
        self._window, self._captured = window, np.minimum(captured, _WINDOW)

    def field(self, at: np.ndarray, kind: str, rows: np.ndarray) -> np.ndarray:
        """The big-endian field of dtype `kind` at `at`; zero outside `rows` and beyond what was captured."""
        dtype = np.dtype(kind)
        values = np.zeros(len(at), dtype.newbyteorder("="))
        rows = np.flatnonzero(rows & (at + dtype.itemsize <= self._captured))
        places = at[rows]
        for place in np.flatnonzero(np.bincount(places)):
            chosen = rows[places == place]
            octets = np.ascontiguousarray(self._window[chosen, place:place + dtype.itemsize])
            values[chosen] = octets.view(dtype.newbyteorder(">"))[:, 0]
        return values

    def address(self, at: np.ndarray, rows: np.ndarray) -> np.ndarray:
        values = np.zeros(len(at), _ADDRESS)
        values["high"] = self.field(at, "u8", rows)
        values["low"] = self.field(at + 8, "u8", rows)
        return values


def _dissect(window: np.ndarray, captured: np.ndarray, time_ns: np.ndarray,
             original: np.ndarray) -> PacketTable:
    read = _Reader(window, captured)
    count = len(window)
    everything = np.ones(count, bool)
    network = np.full(count, _ETHERNET, np.int64)
    ipv6 = read.field(network - 2, "u2", everything) == 0x86DD
    outer_source, outer_destination = np.zeros(count, _ADDRESS), np.zeros(count, _ADDRESS)
    source, destination = read.address(network + 8, ipv6), read.address(network + 24, ipv6)
    following = read.field(network + 6, "u1", ipv6)
    upper = network + 40
    unfinished = ipv6.copy()
    for _ in range(_MAXIMUM_HEADERS):
        inner = unfinished & (following == _IPV6_IN_IPV6)
        routing = unfinished & (following == _ROUTING)
        options = unfinished & (following == _DESTINATION_OPTIONS)
        fragment = unfinished & (following == _FRAGMENT)
        extension = routing | options | fragment | (unfinished & (following == _HOP_BY_HOP))
        unfinished = inner | extension
        if not unfinished.any():
            break
        outer_source[inner], outer_destination[inner] = source[inner], destination[inner]
        network = np.where(inner, upper, network)
        _look_through(read, upper, routing, options, source, destination)
        source[inner] = read.address(upper + 8, inner)[inner]
        destination[inner] = read.address(upper + 24, inner)[inner]
        length = np.where(fragment, 8, (read.field(upper + 1, "u1", extension).astype(np.int64) + 1) * 8)
        length = np.where(inner, 40, length)
        next_at = np.where(inner, upper + 6, upper)
        following = np.where(unfinished, read.field(next_at, "u1", unfinished), following)
        upper = np.where(unfinished, upper + length, upper)
    return _upper_layer(read, time_ns, original, ipv6, network, upper, following,
                        outer_source, outer_destination, source, destination)


def _look_through(read: _Reader, at: np.ndarray, routing: np.ndarray, options: np.ndarray,
                  source: np.ndarray, destination: np.ndarray) -> None:
    """Replace the care-of address by the home address of a type 2 routing header or a Home Address option.

    The option is aligned at 8n+6 (RFC 6275 §6.3), so in a header of its own it is 6 octets into it.
    """
    type_2 = routing & (read.field(at + 2, "u1", routing) == 2)
    destination[type_2] = read.address(at + 8, type_2)[type_2]
    home = options & (read.field(at + 6, "u1", options) == 0xC9)
    source[home] = read.address(at + 8, home)[home]


def _upper_layer(read: _Reader, time_ns: np.ndarray, original: np.ndarray, ipv6: np.ndarray,
                 network: np.ndarray, upper: np.ndarray, protocol: np.ndarray,
                 *addresses: np.ndarray) -> PacketTable:
    protocol = np.where(ipv6, protocol, 0)
    tcp, udp = protocol == TCP, protocol == UDP
    ported = tcp | udp
    octets = read.field(network + 4, "u2", ipv6).astype(np.int64) - (upper - network - 40)
    tcp_header = (read.field(upper + 12, "u1", tcp) >> 4).astype(np.int64) * 4
    payload = octets - np.where(tcp, tcp_header, np.where(udp, 8, 0))
    flags = read.field(upper + 13, "u1", tcp)
    stamped = tcp & (tcp_header >= 32) & (read.field(upper + 20, "u4", tcp) == _TIMESTAMP_OPTION)
    opening = tcp & (flags & SYN != 0) & (read.field(upper + 20, "u2", tcp) == 0x0204)
    probe = udp & (payload >= probe_udp.HEADER.size) & (read.field(upper + 8, "u4", udp) == _PROBE)
    return PacketTable(
        time_ns, original, *addresses, protocol,
        source_port=read.field(upper, "u2", ported), destination_port=read.field(upper + 2, "u2", ported),
        payload_octets=np.maximum(payload, 0), sequence=read.field(upper + 4, "u4", tcp),
        timestamp=read.field(upper + 24, "u4", stamped), flags=flags,
        segment_limit=read.field(upper + 22, "u2", opening),
        probe_flow=np.where(probe, read.field(upper + 12, "u2", probe).astype(np.int64), -1),
        probe_sequence=read.field(upper + 16, "u8", probe),
        message=np.where(protocol == MOBILITY, read.field(upper + 2, "u1", protocol == MOBILITY), 0))
