"""Kernel objects of rtnetlink as values that know how to be installed, removed and recognised.

Classes: `Route`, `PolicyRule`, `HomeAddress`, `Proxy`, `Neighbour`; each has `key` (equal keys replace one
another), `install(links)` and `remove(links)`, which return one netlink message, and `volatile`: it may
vanish by itself. Functions: `dump_routes`, `dump_rules`, `dump_addresses`, `dump_proxies`,
`dump_neighbours`, `Links`, `LinkIndices`, `UnknownInterface`.
"""

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from testbed.datapath.mark import PROTOCOL
from testbed.datapath.netlink import CREATE, EXCLUSIVE, REPLACE, Netlink, attribute, attributes, nested

_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR, _GET_NEIGHBOUR = 28, 29, 30
_NEW_RULE, _DELETE_RULE, _GET_RULE = 32, 33, 34

_route_header = struct.Struct("=BBBBBBBBI")
_rule_header = struct.Struct("=BBBBBBBBI")
_address_header = struct.Struct("=BBBBI")
_neighbour_header = struct.Struct("=BBHiHBB")

UNICAST, LOCAL, BLACKHOLE, UNREACHABLE, THROW = 1, 2, 6, 7, 9
_METRIC = 1024
_NODAD, _HOME_FLAG, _PERMANENT, _PROXY_FLAG = 0x02, 0x10, 0x80, 0x08
_STALE = 0x04
#: What a `PolicyRule` does not say: interfaces (3, 17), a protocol.
_MORE_OF_RULE = {3, 17, 22}

Message = tuple[int, int, bytes]
#: Interface name -> index. Raises UnknownInterface for a name that is none.
Links = Callable[[str], int]


class UnknownInterface(Exception):
    """There is no such interface; the text is its name."""


class LinkIndices:
    """Interface name -> index, each looked up once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        index = self._known.get(name)
        if index is None:
            try:
                index = self._known[name] = socket.if_nametoindex(name)
            except OSError:
                raise UnknownInterface(name) from None
        return index


def _u32(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


@dataclass(frozen=True, slots=True)
class Route:
    """A route of IPv6. `encapsulation` is (type, attributes) of a lightweight tunnel. `mtu`: 0 is the
    device's."""

    table: int
    prefix: IPv6Network
    interface: str | None = None
    gateway: IPv6Address | None = None
    kind: int = UNICAST
    metric: int = _METRIC
    source: IPv6Address | None = None
    mtu: int = 0
    encapsulation: tuple[int, bytes] | None = None
    volatile: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"the route to {self.prefix} in table {self.table}"

    @property
    def key(self) -> tuple:
        return "route", self.table, self.prefix, self.metric

    def _body(self, links: Links, complete: bool) -> bytes:
        owner = PROTOCOL if complete else 0  # remove it whoever made it
        parts = [
            _route_header.pack(socket.AF_INET6, self.prefix.prefixlen, 0, 0, 252, owner, 0, self.kind, 0),
            _u32(15, self.table),
            _u32(6, self.metric),
        ]
        if self.prefix.prefixlen:
            parts.append(attribute(1, self.prefix.network_address.packed))
        if not complete:
            return b"".join(parts)
        if self.interface is not None:
            parts.append(_u32(4, links(self.interface)))
        if self.gateway is not None:
            parts.append(attribute(5, self.gateway.packed))
        if self.source is not None:
            parts.append(attribute(7, self.source.packed))
        if self.mtu:
            parts.append(nested(8, _u32(2, self.mtu)))
        if self.encapsulation is not None:
            kind, data = self.encapsulation
            parts += [attribute(22 | 0x8000, data), attribute(21, struct.pack("=H", kind))]
        return b"".join(parts)

    def install(self, links: Links) -> Message:
        return _NEW_ROUTE, CREATE | REPLACE, self._body(links, True)

    def remove(self, links: Links) -> Message:
        return _DELETE_ROUTE, 0, self._body(links, False)


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A policy rule of IPv6: packets with all that is given look into `table`; `specific`: not at its default
    route. It has no protocol: where a rule asks for one, the kernel dissects every packet that it routes."""

    priority: int
    table: int
    mark: int = 0
    mask: int = 0
    source: IPv6Address | None = None
    destination: IPv6Address | None = None
    specific: bool = False
    owner: int = field(default=PROTOCOL, compare=False)
    volatile: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"the policy rule of priority {self.priority}"

    @property
    def key(self) -> tuple:
        return "rule", self

    def _body(self) -> bytes:
        parts = [
            _rule_header.pack(
                socket.AF_INET6, 128 if self.destination else 0, 128 if self.source else 0, 0, 0, 0, 0, 1, 0
            ),
            _u32(6, self.priority),
            _u32(15, self.table),
        ]
        if self.destination is not None:
            parts.append(attribute(1, self.destination.packed))
        if self.source is not None:
            parts.append(attribute(2, self.source.packed))
        if self.mask:
            parts += [_u32(10, self.mark), _u32(16, self.mask)]
        if self.specific:
            parts.append(_u32(14, 0))
        return b"".join(parts)

    def install(self, links: Links) -> Message:
        return _NEW_RULE, CREATE | EXCLUSIVE, self._body() + attribute(21, bytes([self.owner]))

    def remove(self, links: Links) -> Message:
        return _DELETE_RULE, 0, self._body()


#: The kernel's own first rule, which has to make way for decapsulation.
FIRST_LOCAL_RULE = PolicyRule(0, 255, owner=2)


@dataclass(frozen=True, slots=True)
class HomeAddress:
    """A home address on the loopback interface, as /128. `for_kernel`: the kernel's own Mobile IPv6 is to
    know it for a home address."""

    address: IPv6Address
    interface: str = "lo"
    for_kernel: bool = False
    volatile: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        return f"the home address {self.address} on {self.interface}"

    @property
    def key(self) -> tuple:
        return "address", self.address, self.interface

    def _body(self, links: Links) -> bytes:
        flags = _NODAD | _PERMANENT | (_HOME_FLAG if self.for_kernel else 0)
        return (
            _address_header.pack(socket.AF_INET6, 128, flags, 0, links(self.interface))
            + attribute(1, self.address.packed)
            + attribute(11, bytes([PROTOCOL]))
        )

    def install(self, links: Links) -> Message:
        return _NEW_ADDRESS, CREATE | REPLACE, self._body(links)

    def remove(self, links: Links) -> Message:
        return _DELETE_ADDRESS, 0, self._body(links)


@dataclass(frozen=True, slots=True)
class Proxy:
    """The kernel answers Neighbour Solicitations for the address on the interface (RFC 6275 §10.4.1)."""

    address: IPv6Address
    interface: str
    volatile: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        return f"proxy neighbour discovery for {self.address} on {self.interface}"

    @property
    def key(self) -> tuple:
        return "proxy", self.address, self.interface

    def _body(self, links: Links) -> bytes:
        return (
            _neighbour_header.pack(socket.AF_INET6, 0, 0, links(self.interface), 0, _PROXY_FLAG, 0)
            + attribute(1, self.address.packed)
            + attribute(12, bytes([PROTOCOL]))
        )

    def install(self, links: Links) -> Message:
        return _NEW_NEIGHBOUR, CREATE | REPLACE, self._body(links)

    def remove(self, links: Links) -> Message:
        return _DELETE_NEIGHBOUR, 0, self._body(links)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The link-layer address of a node on the link of an interface. `permanent`: whatever Neighbour Discovery
    says; else it is a beginning, which Neighbour Discovery confirms or replaces."""

    address: IPv6Address
    interface: str
    link_layer_address: bytes
    permanent: bool
    volatile: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        return f"the neighbour {self.address} on {self.interface}"

    @property
    def key(self) -> tuple:
        return "neighbour", self.address, self.interface

    def _body(self, links: Links) -> bytes:
        state = _PERMANENT if self.permanent else _STALE
        return (
            _neighbour_header.pack(socket.AF_INET6, 0, 0, links(self.interface), state, 0, 0)
            + attribute(1, self.address.packed)
            + attribute(2, self.link_layer_address)
            + attribute(12, bytes([PROTOCOL]))
        )

    def install(self, links: Links) -> Message:
        return _NEW_NEIGHBOUR, CREATE | REPLACE, self._body(links)

    def remove(self, links: Links) -> Message:
        return _DELETE_NEIGHBOUR, 0, self._body(links)


KernelObject = Route | PolicyRule | HomeAddress | Proxy | Neighbour


def dump_routes(netlink: Netlink, first: int, last: int) -> list[Route]:
    """The unicast, blackhole, unreachable and throw routes in tables first..last-1, whoever made them."""
    routes = []
    names = {index: name for index, name in socket.if_nameindex()}
    for body in netlink.dump(_GET_ROUTE, _route_header.pack(socket.AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, bits, _, _, table, _, _, kind, flags = _route_header.unpack_from(body)
        found = attributes(body, 12)
        table = _int(found.get(15)) or table
        if not first <= table < last or flags & 0x200:  # RTM_F_CLONED
            continue
        prefix = IPv6Network((found.get(1, bytes(16)), bits))
        metrics = attributes(found.get(8, b""))
        encapsulation = None
        if 21 in found and 22 in found:
            encapsulation = _int(found[21]), found[22]
        reject = kind in (BLACKHOLE, UNREACHABLE, THROW)
        interface = None if reject else names.get(_int(found.get(4)))
        routes.append(
            Route(
                table,
                prefix,
                interface,
                _address(found.get(5)),
                kind,
                _int(found.get(6)),
                _address(found.get(7)),
                _int(metrics.get(2)),
                encapsulation,
            )
        )
    return routes


def dump_rules(netlink: Netlink) -> list[PolicyRule]:
    """The rules of IPv6 that say no more than a `PolicyRule` can."""
    rules = []
    for body in netlink.dump(_GET_RULE, _rule_header.pack(socket.AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, to_bits, from_bits, _, table, _, _, action, flags = _rule_header.unpack_from(body)
        found = attributes(body, 12)
        hosts = {to_bits, from_bits} <= {0, 128}
        if not hosts or action != 1 or flags or _MORE_OF_RULE & found.keys():
            continue
        rules.append(
            PolicyRule(
                _int(found.get(6)),
                _int(found.get(15)) or table,
                _int(found.get(10)),
                _int(found.get(16)),
                _address(found.get(2)),
                _address(found.get(1)),
                found.get(14) == bytes(4),
                _int(found.get(21)),
            )
        )
    return rules


def dump_addresses(netlink: Netlink, interface: str) -> list[HomeAddress]:
    """The /128 addresses of the interface that carry our mark."""
    index = socket.if_nametoindex(interface)
    found = []
    for body in netlink.dump(_GET_ADDRESS, _address_header.pack(socket.AF_INET6, 0, 0, 0, index)):
        _, bits, flags, _, owner = _address_header.unpack_from(body)
        data = attributes(body, 8)
        address = _address(data.get(1))
        if owner == index and bits == 128 and _int(data.get(11)) == PROTOCOL and address is not None:
            found.append(HomeAddress(address, interface, bool(flags & _HOME_FLAG)))
    return found


def dump_proxies(netlink: Netlink) -> list[Proxy]:
    """The proxy entries that carry our mark."""
    names = {index: name for index, name in socket.if_nameindex()}
    found = []
    for body in netlink.dump(
        _GET_NEIGHBOUR, _neighbour_header.pack(socket.AF_INET6, 0, 0, 0, 0, _PROXY_FLAG, 0)
    ):
        _, _, _, index, _, flags, _ = _neighbour_header.unpack_from(body)
        data = attributes(body, 12)
        address = _address(data.get(1))
        if flags & _PROXY_FLAG and _int(data.get(12)) == PROTOCOL and index in names and address is not None:
            found.append(Proxy(address, names[index]))
    return found


def dump_neighbours(netlink: Netlink) -> list[Neighbour]:
    """The neighbours that carry our mark."""
    names = {index: name for index, name in socket.if_nameindex()}
    found = []
    for body in netlink.dump(_GET_NEIGHBOUR, _neighbour_header.pack(socket.AF_INET6, 0, 0, 0, 0, 0, 0)):
        _, _, _, index, state, _, _ = _neighbour_header.unpack_from(body)
        data = attributes(body, 12)
        address = _address(data.get(1))
        if _int(data.get(12)) == PROTOCOL and index in names and address is not None:
            permanent = bool(state & _PERMANENT)
            found.append(Neighbour(address, names[index], data.get(2, b""), permanent))
    return found


def _int(data: bytes | None) -> int:
    return int.from_bytes(data, "little" if struct.pack("=H", 1)[0] else "big") if data else 0


def _address(data: bytes | None) -> IPv6Address | None:
    return IPv6Address(data) if data else None
