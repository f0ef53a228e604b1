"""How the kernel encapsulates IPv6 in IPv6 (RFC 2473). Classes: `Tunnel`, `Seg6Tunnel`, `Ip6Tunnel`.
Functions: `ip6_tunnel`, `explain`.

Both are lightweight tunnels, that is, attributes of a route:

- `seg6` needs no module: segment routing with a single segment and without its header (H.Encaps.Red) is plain
  RFC 2473 on the wire, and End.DT6 is decapsulation. Outer hop limit and, at a mobile node, outer source are
  written in postrouting.
- `ip6tnl` is an ip6tnl device in `external` mode (module ip6_tunnel). A tunnel within a tunnel (RFC 5380) has
  a device of its own, whose packets get their source in postrouting.
"""

import errno
import struct
from collections.abc import Iterable
from ipaddress import IPv6Address, IPv6Network

from testbed.datapath import mark
from testbed.datapath.device import DetourDevice, InnerTunnelDevice, TunnelDevice
from testbed.datapath.error import DatapathError
from testbed.datapath.netlink import GENERIC, Netlink, NetlinkError, attribute, attributes, text
from testbed.datapath.route import KernelObject, PolicyRule, Route
from testbed.mobility.forwarding import HomeBinding, Path, Side

HOP_LIMIT = 64
#: What a tunnel takes from the MTU of the path (RFC 2473 §7): one IPv6 header.
OVERHEAD = 40
#: What the kernel takes from the MTU of a seg6 route, as if there always were a segment routing header.
_SEG6_HEADROOM = 64

_ENCAPSULATE_IP6, _ENCAPSULATE_SEG6, _SEG6_LOCAL = 4, 5, 7
_ENCAPSULATION_REDUCED = 3
_END_DT6 = 7


class Tunnel:
    """What the rest of the datapath asks of a way to encapsulate."""

    name: str
    #: Tunnel packets are decapsulated by a route that their mark leads to.
    by_route: bool

    def open(self) -> None:
        """Set up what the namespace needs once. Raises NetlinkError, DatapathError."""

    def close(self) -> None:
        """Undo `open`. Raises NetlinkError."""

    def set_source(self, local: IPv6Address) -> None:
        """At an anchor: the outer source of all tunnels. Raises NetlinkError."""

    def prepare(self, bindings: Iterable[HomeBinding]) -> None:
        """Set up what these bindings, which are all that there will be, need beside routes. Raises
        NetlinkError, DatapathError."""

    def base(self) -> list[KernelObject]:
        """Rules and routes that are needed whatever the bindings."""
        return []

    def onward(self, end: IPv6Address) -> PolicyRule:
        """What is needed where packets out of tunnels to `end`, an address of this node, may be for others.
        Only where `by_route`."""
        raise NotImplementedError

    def end(self, table: int, prefix: IPv6Network) -> Route:
        """The route by which tunnel packets to `prefix` are decapsulated. Only where `by_route`."""
        raise NotImplementedError

    def route(self, table: int, prefix: IPv6Network, path: Path, source: IPv6Address | None = None) -> Route:
        """The route that sends `prefix` into the tunnel of `path`."""
        raise NotImplementedError

    def remote(self, route: Route) -> IPv6Address | None:
        """Outer destination of a route that `route` made (and the kernel returned)."""
        raise NotImplementedError


class Seg6Tunnel(Tunnel):
    name = "seg6"
    by_route = True

    def __init__(self, side: Side, netlink: Netlink, detour: DetourDevice, mtu: int) -> None:
        self._side = side
        self._detour = detour
        self._mtu = mtu
        self._generic: Netlink | None = None
        self._family = 0
        self._source: IPv6Address | None = None
        self._source_before: IPv6Address | None = None

    def open(self) -> None:
        self._generic = Netlink(GENERIC)
        answer = self._generic.request(0x10, struct.pack("=BBH", 3, 1, 0) + text(2, "SEG6"))
        (self._family,) = struct.unpack("=H", attributes(answer, 4)[1])
        self._source_before = self._get_source()
        if self._side is Side.MOBILE:
            self.set_source(mark.PLACEHOLDER)

    def close(self) -> None:
        if self._generic is None:
            return
        if self._source is not None and self._get_source() == self._source:
            before = self._source_before
            ours = before is None or before == self._source or before == mark.PLACEHOLDER
            self._source = None
            self.set_source(IPv6Address(0) if ours else before)
        self._generic.close()
        self._generic = None

    def _get_source(self) -> IPv6Address:
        answer = self._generic.request(self._family, struct.pack("=BBH", 4, 1, 0))
        return IPv6Address(attributes(answer, 4)[1])

    def set_source(self, local: IPv6Address) -> None:
        if self._source is not None and local != self._source:
            raise DatapathError(
                f"tunnels from {local} and from {self._source} at once need the ip6tnl backend: "
                "seg6 has one tunnel source a network namespace."
            )
        if self._source is None:
            body = struct.pack("=BBH", 3, 1, 0) + attribute(1, local.packed)
            self._generic.execute([(self._family, 0, body)])
            self._source = local

    def base(self) -> list[KernelObject]:
        objects: list[KernelObject] = [
            PolicyRule(mark.LOCAL_PRIORITY, mark.LOCAL_TABLE),
            # the inner packet is looked up by all policy rules, and does not meet that of `onward` again: it
            # is for somebody else (see `TunnelPackets`)
            self._decapsulate(mark.TABLE_BASE + mark.DECAPSULATE, mark.ANY, 0),
        ]
        into = {mark.DECAPSULATE_OTHER: mark.INNER_TABLE}
        if self._side is Side.MOBILE:
            into[mark.DECAPSULATE_HERE] = mark.HERE_TABLE
        for number, table in into.items():
            objects.append(self._decapsulate(mark.TABLE_BASE + number, mark.ANY, table))
            objects.append(self._to_decapsulation(number))
        return objects

    def onward(self, end: IPv6Address) -> PolicyRule:
        return self._to_decapsulation(mark.DECAPSULATE, end)

    @staticmethod
    def _to_decapsulation(number: int, end: IPv6Address | None = None) -> PolicyRule:
        """How tunnel packets with this number (to `end`) get to where they are decapsulated."""
        table, priority = mark.TABLE_BASE + number, mark.DECAPSULATION_PRIORITY
        return PolicyRule(priority, table, mark.value(number), mark.NUMBER_MASK, destination=end)

    def end(self, table: int, prefix: IPv6Network) -> Route:
        return self._decapsulate(table, prefix, mark.INNER_TABLE)

    def _decapsulate(self, table: int, prefix: IPv6Network, into: int) -> Route:
        """The inner packet is looked up in table `into`, 0: by all policy rules."""
        data = struct.pack("=HHI", 8, 1, _END_DT6) + struct.pack("=HHI", 8, 3, into)
        return Route(table, prefix, self._detour.name, encapsulation=(_SEG6_LOCAL, data))

    def route(self, table: int, prefix: IPv6Network, path: Path, source: IPv6Address | None = None) -> Route:
        header = struct.pack("=iBBBBBBH", _ENCAPSULATION_REDUCED, 0, 2, 4, 0, 0, 0, 0)
        encapsulation = attribute(1, header + path.remote.packed)
        return Route(
            table,
            prefix,
            self._detour.name,
            source=source,
            mtu=self._mtu + _SEG6_HEADROOM,
            encapsulation=(_ENCAPSULATE_SEG6, encapsulation),
        )

    def remote(self, route: Route) -> IPv6Address | None:
        kind, data = route.encapsulation or (0, b"")
        if kind != _ENCAPSULATE_SEG6 or len(data) != 32:
            return None
        return IPv6Address(data[16:32])


class Ip6Tunnel(Tunnel):
    name = "ip6tnl"
    by_route = False

    def __init__(self, side: Side, netlink: Netlink, device: TunnelDevice, inner: InnerTunnelDevice) -> None:
        self.device = device
        self._inner = inner

    def open(self) -> None:
        self.device.ensure()

    def close(self) -> None:
        self.device.remove()
        self._inner.remove()

    def prepare(self, bindings: Iterable[HomeBinding]) -> None:
        ends = {path.remote for binding in bindings for path in binding.paths if path.via is not None}
        if len(ends) > 1:
            raise DatapathError("tunnels within tunnels lead to one home agent at a time.")
        for end in ends:
            self._inner.lead_to(end)
        self.device.resize(self._inner.mtu + OVERHEAD * len(ends))

    def route(self, table: int, prefix: IPv6Network, path: Path, source: IPv6Address | None = None) -> Route:
        if path.via is not None:
            return Route(table, prefix, self._inner.name, source=source)
        # as the kernel returns it, so that what is there can be compared with what is wanted
        data = (
            struct.pack("=HH", 12, 1)
            + bytes(8)
            + attribute(2, path.remote.packed)
            + attribute(3, path.local.packed)
            + attribute(5, b"\0")
            + attribute(4, bytes([HOP_LIMIT]))
            + attribute(6, b"\0\0")
        )
        return Route(table, prefix, self.device.name, source=source, encapsulation=(_ENCAPSULATE_IP6, data))

    def remote(self, route: Route) -> IPv6Address | None:
        kind, data = route.encapsulation or (0, b"")
        return IPv6Address(attributes(data)[2]) if kind == _ENCAPSULATE_IP6 else None


def ip6_tunnel(side: Side, netlink: Netlink, name: str, mtu: int) -> Ip6Tunnel:
    """The ip6tnl backend with its devices, whose names begin with `name`. `mtu`: of the tunnels, octets."""
    inner = InnerTunnelDevice(netlink, f"{name}3", mtu, mark.PLACEHOLDER, HOP_LIMIT)
    return Ip6Tunnel(side, netlink, TunnelDevice(netlink, f"{name}2", mtu), inner)


def explain(error: NetlinkError) -> str:
    """Why the kernel refused, in words."""
    if error.errno == errno.EPERM:
        return "it needs root (CAP_NET_ADMIN)"
    return str(error.args[1])
