"""What puts the headers of route optimisation in and takes them out. Classes: `Carrier`, `Way`, `BpfCarrier`.

`BpfCarrier` does it in the kernel (see `optimisation_programs`). In modules of their own: `XfrmCarrier`, by
the kernel's own Mobile IPv6, and `UserspaceCarrier`, where neither is to be had.
"""

import struct
from collections.abc import Collection
from typing import NamedTuple

from testbed.datapath.bpf import Map, close_all, load_classifier
from testbed.datapath.netlink import Netlink
from testbed.datapath.optimisation_programs import (
    add_home_address,
    add_routing_header,
    take_home_address,
    take_routing_header,
)
from testbed.datapath.rejected import RejectedPackets
from testbed.datapath.route import KernelObject, PolicyRule, Route
from testbed.datapath.traffic_control import Hooks
from testbed.mobility.forwarding import Side

_ETHERNET_OCTETS = 14
_MAX_ENTRIES = 1 << 16


class Way(NamedTuple):
    """Packets with this number in their mark (the whole mark, without bits of others) between home address
    and correspondent (all zeros: any) go to or from the care-of address; `interface`: index, at a mobile
    node. Addresses are octets."""

    mark: int
    interface: int
    home_address: bytes
    correspondent: bytes
    care_of_address: bytes


class Carrier:
    """Base of all. `open` may raise OSError. `kernel_headers`: packets still have their headers when
    nf_tables gets them, as the kernel's own IPv6 takes them out."""

    name: str
    kernel_headers = False

    def open(self) -> None:
        """Prepare what does not depend on what is wanted."""

    def carry(
        self,
        ways: Collection[Way],
        ours: Collection[bytes],
        interfaces: Collection[int],
        homes: Collection[bytes] = (),
    ) -> None:
        """Make these the ways, in both directions. `ours`: addresses of this node; `homes`: home addresses
        that packets may arrive for without a way. Raises OSError."""
        raise NotImplementedError

    def steering(self, table: int, rule: PolicyRule, route: Route | None) -> list[KernelObject]:
        """The objects that take packets with the mark of `rule` out; `route`: the way by which they leave,
        None for that of the main table."""
        raise NotImplementedError

    def reports(self) -> RejectedPackets | None:
        """Where packets with a Home Address option that no binding allows are told; None at a mobile node."""
        raise NotImplementedError

    def clean(self, interface: int) -> None:
        """Remove what an earlier life has left on an interface that is not in use."""

    def close(self) -> None:
        """Remove everything."""


class BpfCarrier(Carrier):
    """By BPF programs on the interfaces."""

    name = "bpf"

    def __init__(self, side: Side, name: str, netlink: Netlink) -> None:
        self._mobile = side is Side.MOBILE
        self._name = name
        self._hooks = Hooks(netlink, name)
        self._now: list[dict[bytes, bytes]] = [{}, {}, {}]
        self._maps: list[Map] = []
        self._programs: list[int] = []
        self._reports: RejectedPackets | None = None

    def open(self) -> None:
        link = _ETHERNET_OCTETS
        for key in (36 if self._mobile else 20, 16 if self._mobile else 32, 16):
            self._maps.append(Map(key, 16 if not self._maps else 4, _MAX_ENTRIES))
        paths, bindings, ours = self._maps
        if self._mobile:
            arriving, leaving = take_routing_header(link, bindings, ours), add_home_address(link, paths)
        else:
            arriving, leaving = take_home_address(link, bindings, ours), add_routing_header(link, paths)
            self._reports = RejectedPackets()
        self._programs = [load_classifier(self._name, program) for program in (arriving, leaving)]

    def carry(
        self,
        ways: Collection[Way],
        ours: Collection[bytes],
        interfaces: Collection[int],
        homes: Collection[bytes] = (),
    ) -> None:
        if self._mobile:
            paths = {
                struct.pack("=I", w.interface) + w.home_address + w.correspondent: w.care_of_address
                for w in ways
            }
            bindings = dict.fromkeys([*homes, *(way.home_address for way in ways)], bytes(4))
        else:
            paths = {struct.pack("=I", way.mark) + way.home_address: way.care_of_address for way in ways}
            bindings = {way.home_address + way.care_of_address: bytes(4) for way in ways}
        wanted = [paths, bindings, {address: bytes(4) for address in ours}]
        for index, table in enumerate(self._maps):
            table.become(wanted[index], self._now[index])
            self._now[index] = wanted[index]
        for interface in self._hooks.interfaces - set(interfaces):
            self._hooks.detach(interface)
        for interface in set(interfaces) - self._hooks.interfaces:
            self._hooks.attach(interface, *self._programs)

    def steering(self, table: int, rule: PolicyRule, route: Route | None) -> list[KernelObject]:
        return [] if route is None else [route, rule]

    def reports(self) -> RejectedPackets | None:
        return self._reports

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
        if self._reports is not None:
            self._reports.close()
            self._reports = None
