"""Captures to flows: which packets are a flow's, which path each took, what became of each.

Classes: `Arrivals`, `Signalling`. Functions: `sent_packets`, `arrivals`, `signalling`, `path_series`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from testbed.measure.accounting import Received, Sent
from testbed.measure.packets import MOBILITY, SYN, TCP, UDP, PacketTable, address_text, same_address
from testbed.measure.traffic import FlowKey

#: No link here carries more in a packet: a longer one is many, not yet cut up by segmentation offload.
_LARGEST_FRAME = 1600


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A flow's data packets at the measured end, in order of time.

    `interface` indexes `interfaces`; `care_of_addresses` says per interface which outer addresses on the
    mobile node's side its packets bore. `key`, `octets` (payload) as in `accounting.Received`.
    """

    interfaces: tuple[str, ...]
    key: np.ndarray
    time_ns: np.ndarray
    octets: np.ndarray
    interface: np.ndarray
    care_of_addresses: dict[str, list[str]]

    def received(self) -> Received:
        """The same packets without where they came."""
        return Received(self.key, self.time_ns, self.octets)

    def times_on(self, interface: str) -> np.ndarray:
        """When packets arrived by this interface, ns, ascending."""
        return self.time_ns[self.interface == self.interfaces.index(interface)]


@dataclass(frozen=True, slots=True)
class Signalling:
    """One Mobility Header packet on an access link: `message` is its type, octets those of the frame."""

    time_ns: int
    interface: str
    message: int
    octets: int
    from_mobile: bool


def _data_rows(table: PacketTable, key: FlowKey) -> np.ndarray:
    """Which packets carry this flow's data in its measured direction."""
    protocol = {"tcp": TCP, "udp": UDP}[key.protocol]
    correspondent, mobile, port = (
        (table.source, table.destination, table.source_port) if key.downlink else
        (table.destination, table.source, table.destination_port))
    rows = (table.protocol == protocol) & (port == key.port) & (table.payload_octets > 0)
    rows &= table.probe_flow >= 0 if protocol == UDP else table.flags & SYN == 0
    of_mobile = np.logical_or.reduce([same_address(mobile, address) for address in (key.mobile, *key.also)])
    return rows & same_address(correspondent, key.correspondent) & of_mobile


def segment_limit(tables: Iterable[PacketTable], key: FlowKey) -> int:
    """The payload of this flow's full-sized TCP segments: the smaller MSS of the handshake, less the time
    stamps.

    Zero if the handshake was not captured, or if no packet is larger than a link could carry.
    """
    smallest, oversize = 0, False
    for table in tables:
        of_flow = (table.protocol == TCP) & (
            (table.source_port == key.port) | (table.destination_port == key.port))
        offered = table.segment_limit[of_flow & (table.segment_limit > 0)]
        oversize |= bool((table.wire_octets[of_flow] > _LARGEST_FRAME).any())
        if len(offered):
            smallest = min(smallest or 65535, int(offered.min()))
    return smallest - 12 if smallest and oversize else 0


def _pieces(table: PacketTable, key: FlowKey, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, transmission key and payload octets of each piece: oversize packets are cut as the link would."""
    if key.protocol == "udp":
        return np.arange(len(table)), table.probe_sequence, table.payload_octets
    oversize = (table.wire_octets > _LARGEST_FRAME) & (limit > 0)
    count = np.where(oversize, -(-table.payload_octets // max(limit, 1)), 1)
    row = np.repeat(np.arange(len(table)), count)
    number = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    offset = number * limit
    octets = table.payload_octets[row]
    octets = np.where(oversize[row], np.minimum(limit, octets - offset), octets)
    sequence = (table.sequence[row].astype(np.uint64) + offset.astype(np.uint64)) & np.uint64(0xFFFFFFFF)
    return row, sequence << np.uint64(32) | table.timestamp[row].astype(np.uint64), octets


def sent_packets(tables: Iterable[PacketTable], key: FlowKey, limit: int = 0) -> Sent:
    """What a flow put on the wire, from captures of all interfaces of its sending end.

    A TCP transmission is identified by sequence number and time stamp, so that a retransmission is another
    packet; `limit` is from `segment_limit`. Copies of one packet (n-cast by a mobile node) count once.
    """
    table = PacketTable.join([table[_data_rows(table, key)] for table in tables])
    table = table[np.argsort(table.time_ns, kind="stable")]
    row, keys, octets = _pieces(table, key, limit)
    first = np.sort(np.unique(keys, return_index=True)[1])
    return Sent(keys[first], table.time_ns[row[first]], octets[first])


def arrivals(tables: Mapping[str, PacketTable], key: FlowKey, limit: int = 0) -> Arrivals:
    """A flow's packets at its receiving end, from captures by name of the interface."""
    columns: list[tuple[np.ndarray, ...]] = []
    care_of: dict[str, list[str]] = {}
    for index, (interface, whole) in enumerate(tables.items()):
        table = whole[_data_rows(whole, key)]
        row, keys, octets = _pieces(table, key, limit)
        columns.append((keys, table.time_ns[row], octets, np.full(len(row), index)))
        outer = np.unique(table.outer_destination if key.downlink else table.outer_source)
        care_of[interface] = [address_text(value) for value in outer if value["high"] or value["low"]]
    keys, times, octets, interface = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(times, kind="stable")
    return Arrivals(tuple(tables), keys[order], times[order], octets[order], interface[order], care_of)


def signalling(tables: Mapping[str, PacketTable], home_agent: str | None = None) -> list[Signalling]:
    """The mobility signalling on the access links, in order of time.

    `home_agent`, if given, tells the direction by its address; otherwise the type does (RFC 6275 §6.1:
    Binding Updates and test inits come from the mobile node).
    """
    found = []
    for interface, table in tables.items():
        table = table[table.protocol == MOBILITY]
        for row in range(len(table)):
            message = int(table.message[row])
            from_mobile = (not same_address(table.source[row:row + 1], home_agent)[0] if home_agent
                           else message in (1, 2, 5))
            found.append(Signalling(int(table.time_ns[row]), interface, message, int(table.wire_octets[row]),
                                    bool(from_mobile)))
    return sorted(found, key=lambda one: one.time_ns)


def path_series(flow: Arrivals, start_ns: int, bins: int,
                width_ns: int = 100_000_000) -> dict[str, np.ndarray]:
    """Payload octets that arrived by each interface in each bin from `start_ns` on."""
    place = (flow.time_ns - start_ns) // width_ns
    inside = (place >= 0) & (place < bins)
    return {interface: np.bincount(place[inside & (flow.interface == index)], minlength=bins,
                                   weights=flow.octets[inside & (flow.interface == index)])[:bins]
            for index, interface in enumerate(flow.interfaces)}
