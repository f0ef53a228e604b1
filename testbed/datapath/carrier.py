"""What puts the headers of route optimisation in. Classes: `Carrier`, `Way`, `TunnelledWay`, `Peer`,
`BpfCarrier`.

`BpfCarrier` does it in the kernel (see `optimisation_programs`). In modules of their own: `XfrmCarrier`, by
the kernel's own Mobile IPv6, and `UserspaceCarrier`, where neither is to be had. What arrives is nf_tables'
(see `optimisation_rules`).
"""

import struct
from collections.abc import Collection
from ipaddress import IPv6Address
from typing import NamedTuple

from testbed.datapath import mark
from testbed.datapath.bpf import Map, close_all, load_classifier
from testbed.datapath.netlink import Netlink
from testbed.datapath.optimisation_programs import put_headers
from testbed.datapath.optimisation_rules import WAY_MASK, number_of
from testbed.datapath.route import KernelObject, PolicyRule, Route
from testbed.datapath.traffic_control import Hooks

#: Of the policy rules that read our marks; they come before those of the tunnels' slots.
PRIORITY = 124
#: Table of number N is TABLE_BASE + N less the first number.
TABLE_BASE, TABLE_END = 29000, 29000 + (1 << 13)
#: Tells our rules from those of the tunnels.
OWNER = mark.PROTOCOL + 1
_ETHERNET_OCTETS = 14
_MAX_ENTRIES = 1 << 16


def table_of(way: int = 0, peer: int = 0) -> int:
    """The routing table of a way and a peer."""
    return TABLE_BASE + number_of(way, peer) - number_of()


class Way(NamedTuple):
    """Packets with this way in their mark, from home address to correspondent, leave from the care-of
    address, by the interface with this index. Addresses are octets."""

    way: int
    interface: int
    home_address: bytes
    correspondent: bytes
    care_of_address: bytes


class TunnelledWay(NamedTuple):
    """Packets from home address to correspondent in the tunnel to this anchor point, by the interface with
    this index, come from the regional care-of address there (RFC 5380 §6.1.1). Addresses are octets."""

    interface: int
    anchor_point: bytes
    home_address: bytes
    correspondent: bytes
    care_of_address: bytes


class Peer(NamedTuple):
    """Packets with this peer in their mark, to the home address, go to the care-of address."""

    peer: int
    home_address: bytes
    care_of_address: bytes


class Carrier:
    """Base of all. `open` may raise OSError."""

    name: str
    #: What the names of devices that finished packets come from begin with, None without such devices.
    devices: str | None = None
    #: Whether there may be a `TunnelledWay`.
    within_tunnels = False

    def open(self) -> None:
        """Prepare what does not depend on what is wanted."""

    def carry(
        self,
        ways: Collection[Way | TunnelledWay],
        peers: Collection[Peer],
        interfaces: Collection[int],
    ) -> None:
        """Make these the ways and peers. Raises OSError."""
        raise NotImplementedError

    def way(
        self, way: int, interface: str, gateway: IPv6Address | None, peers: Collection[int]
    ) -> list[KernelObject]:
        """What takes packets with the mark of a way, and any of the `peers`, out by the interface."""
        table = table_of(way)
        rule = PolicyRule(PRIORITY, table, mark.value(number_of(way)), WAY_MASK, owner=OWNER)
        return [Route(table, mark.ANY, interface, gateway), rule]

    def peer(self, peer: int) -> list[KernelObject]:
        """What takes packets with the mark of a peer, but no way, out: nothing, where they need no device."""
        return []

    def clean(self, interface: int) -> None:
        """Remove what an earlier life has left on an interface that is not in use."""

    def close(self) -> None:
        """Remove everything."""


class BpfCarrier(Carrier):
    """By a BPF program on the interfaces."""

    name = "bpf"
    within_tunnels = True

    def __init__(self, name: str, netlink: Netlink) -> None:
        self._name = name
        self._hooks = Hooks(netlink, name)
        self._now: list[dict[bytes, bytes]] = [{}, {}, {}]
        self._maps: list[Map] = []
        self._programs: list[int] = []

    def open(self) -> None:
        self._maps = [Map(key, 16, _MAX_ENTRIES) for key in (36, 20, 52)]
        self._programs = [load_classifier(self._name, put_headers(_ETHERNET_OCTETS, *self._maps))]

    def carry(
        self,
        ways: Collection[Way | TunnelledWay],
        peers: Collection[Peer],
        interfaces: Collection[int],
    ) -> None:
        wanted = [
            {
                struct.pack("=I", w.interface) + w.home_address + w.correspondent: w.care_of_address
                for w in ways
                if isinstance(w, Way)
            },
            {
                struct.pack("=I", mark.value(number_of(peer=p.peer))) + p.home_address: p.care_of_address
                for p in peers
            },
            {
                struct.pack("=I", w.interface) + w.anchor_point + w.home_address + w.correspondent:
                w.care_of_address
                for w in ways
                if isinstance(w, TunnelledWay)
            },
        ]
        for index, table in enumerate(self._maps):
            table.become(wanted[index], self._now[index])
            self._now[index] = wanted[index]
        for interface in self._hooks.interfaces - set(interfaces):
            self._hooks.detach(interface)
        for interface in set(interfaces) - self._hooks.interfaces:
            self._hooks.attach(interface, *self._programs)

    def clean(self, interface: int) -> None:
        if interface not in self._hooks.interfaces:
            self._hooks.detach(interface)

    def close(self) -> None:
        self._hooks.close()
        close_all(self._programs)
        self._programs = []
        for table in self._maps:
            table.close()
        self._maps = []
