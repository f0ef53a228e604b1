"""Links, addresses and default routers of this network namespace, as the kernel reports their changes.

Classes: `LinkMonitor`, `Link`, `Address`, `Change`. Functions: `remove_default_router`,
`remove_on_link_prefix`. A raw rtnetlink
socket, parsed here: the standing of an interface is known as soon as the kernel has told it, and nothing is
polled.
"""

import errno
import math
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv6Address, IPv6Network

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/if.h
_NETLINK_ROUTE = 0
_GROUPS = 0x1 | 0x100 | 0x400  # links, IPv6 addresses, IPv6 routes
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_REQUEST_DUMP, _REQUEST_ACKNOWLEDGE = 0x1 | 0x300, 0x1 | 0x4
_IFLA_IFNAME = 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_INFINITE = 0xFFFFFFFF
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH = 1, 4, 5, 6, 9
_MAIN_TABLE, _UNICAST, _BY_KERNEL, _BY_ROUTER_ADVERTISEMENT = 254, 1, 2, 9
_IFF_UP, _IFF_RUNNING, _IFF_LOWER_UP = 0x1, 0x40, 0x10000
_OPTIMISTIC, _DAD_FAILED, _DEPRECATED, _TENTATIVE = 0x04, 0x08, 0x20, 0x40
_RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv6 address of an interface. `usable`: it may be the source of new communication; `optimistic`:
    whether somebody else has it is not known yet (RFC 4429); `valid_until`: on time.monotonic's clock.
    `renewed_at`: when its lifetime was set last, by an advertisement or by hand, in seconds on a clock of the
    kernel's."""

    address: IPv6Address
    network: IPv6Network
    is_global: bool
    usable: bool
    optimistic: bool = False
    valid_until: float = field(default=math.inf, compare=False)
    renewed_at: float = field(default=0.0, compare=False)

    @property
    def is_formed(self) -> bool:
        """Whether it is there for a time only, as one is that was formed for an advertised prefix."""
        return self.valid_until < math.inf


@dataclass(slots=True)
class Link:
    """An interface. `gateways` are its default routers in the order in which they were learned, with the
    metric of their routes."""

    index: int
    name: str
    up: bool = False
    addresses: dict[IPv6Address, Address] = field(default_factory=dict)
    gateways: dict[IPv6Address, int] = field(default_factory=dict)


class Change(Enum):
    """What has happened to a link."""

    GAINED = "gained"
    LOST = "lost"
    ADDRESSES = "addresses"
    GATEWAYS = "gateways"


class LinkMonitor:
    """The links by index, kept up to date by reading `fileno()` whenever it is readable.

    A link is up while it is administratively up and has its carrier. What is asked for at the start, and
    again if the kernel had to drop reports, is read in one go from a socket of its own.
    """

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self._socket = _open(_GROUPS)
        self._socket.setblocking(False)
        self._resynchronise()

    def fileno(self) -> int:
        """The descriptor that becomes readable when something has changed."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def link(self, name: str) -> Link | None:
        """The interface called `name`, if there is one now."""
        return next((link for link in self.links.values() if link.name == name), None)

    def is_local(self, address: IPv6Address) -> bool:
        """Whether `address` is one of this node's."""
        return any(address in link.addresses for link in self.links.values())

    def valid_until(self, address: IPv6Address) -> float:
        """When the valid lifetime of one of this node's addresses ends, on time.monotonic's clock."""
        found = [link.addresses[address] for link in self.links.values() if address in link.addresses]
        return max((known.valid_until for known in found), default=math.inf)

    def read(self) -> list[tuple[str, Change]]:
        """What has happened since the last call: names of interfaces with the kind of change, in order."""
        changes: list[tuple[str, Change]] = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return changes
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                changes += self._resynchronise()  # the kernel dropped reports: look at everything anew
                continue
            for kind, body in _messages(data):
                changes += self._take(kind, body)

    def _resynchronise(self) -> list[tuple[str, Change]]:
        before, self.links = self.links, {}
        with _open(0) as sock:
            for request, body in (
                (_GETLINK, struct.pack("BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)),
                (_GETADDR, struct.pack("BBBBI", socket.AF_INET6, 0, 0, 0, 0)),
                (_GETROUTE, struct.pack("BBBBBBBBI", socket.AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0)),
            ):
                for kind, answer in _dump(sock, request, body):
                    self._take(kind, answer)
        changes = []
        for index in before.keys() | self.links.keys():
            old, new = before.get(index), self.links.get(index)
            name = (new or old).name
            if (old is not None and old.up) != (new is not None and new.up):
                changes.append((name, Change.GAINED if new is not None and new.up else Change.LOST))
            if old != new:
                changes += [(name, Change.ADDRESSES), (name, Change.GATEWAYS)]
        return changes

    def _take(self, kind: int, body: bytes) -> list[tuple[str, Change]]:
        if kind in (_NEWLINK, _DELLINK):
            return self._take_link(kind, body)
        if kind in (_NEWADDR, _DELADDR):
            return self._take_address(kind, body)
        if kind in (_NEWROUTE, _DELROUTE):
            return self._take_route(kind, body)
        return []

    def _take_link(self, kind: int, body: bytes) -> list[tuple[str, Change]]:
        family, _, index, flags, _ = struct.unpack_from("BxHiII", body)
        if family != socket.AF_UNSPEC:  # the bridge's reports about its ports
            return []
        name = dict(_attributes(body[16:])).get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        link = self.links.get(index)
        was_up = link is not None and link.up
        if kind == _DELLINK:
            self.links.pop(index, None)
            return [(link.name, Change.LOST)] if link is not None and was_up else []
        changes = []
        if link is None:
            link = self.links[index] = Link(index, name)
        elif link.name != name:
            if was_up:
                changes.append((link.name, Change.LOST))
            link.name, was_up = name, False
        needed = _IFF_UP | _IFF_RUNNING | _IFF_LOWER_UP
        link.up = flags & needed == needed
        if not flags & _IFF_UP:  # all its routes are gone, which the kernel does not always say one by one
            link.gateways.clear()
        if link.up != was_up:
            changes.append((name, Change.GAINED if link.up else Change.LOST))
        return changes

    def _take_address(self, kind: int, body: bytes) -> list[tuple[str, Change]]:
        family, length, flags, scope, index = struct.unpack_from("BBBBI", body)
        link = self.links.get(index)
        if family != socket.AF_INET6 or link is None:
            return []
        attributes = dict(_attributes(body[8:]))
        packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if packed is None or len(packed) != 16:
            return []
        address = IPv6Address(packed)
        if kind == _DELADDR:
            if link.addresses.pop(address, None) is None:
                return []
        else:
            if _IFA_FLAGS in attributes:
                (flags,) = struct.unpack("I", attributes[_IFA_FLAGS])
            tentative = flags & _TENTATIVE and not flags & _OPTIMISTIC
            usable = not tentative and not flags & (_DEPRECATED | _DAD_FAILED)
            network = IPv6Network((packed, length), strict=False)
            optimistic = bool(flags & _OPTIMISTIC)
            known = Address(address, network, scope == 0, usable, optimistic, *_times(attributes))
            renewed = link.addresses.get(address) == known
            link.addresses[address] = known
            if renewed:
                return []
        return [(link.name, Change.ADDRESSES)]

    def _take_route(self, kind: int, body: bytes) -> list[tuple[str, Change]]:
        # only default routes of the main table: all else, which with many tunnels may be much, is skipped
        family, destination_length, source_length, _, table, _, _, route_type = struct.unpack_from("8B", body)
        if family != socket.AF_INET6 or destination_length or source_length:
            return []
        if table != _MAIN_TABLE or route_type != _UNICAST:
            return []
        attributes = dict(_attributes(body[12:]))
        metric = struct.unpack("I", attributes.get(_RTA_PRIORITY, bytes(4)))[0]
        changes = []
        for index, packed in _next_hops(attributes):
            link = self.links.get(index)
            if link is None:
                continue
            gateway = IPv6Address(packed)
            if kind == _DELROUTE:
                if link.gateways.pop(gateway, None) is None:
                    continue
            elif link.gateways.get(gateway) == metric:
                continue
            else:
                link.gateways[gateway] = metric
            changes.append((link.name, Change.GATEWAYS))
        return changes


def _times(attributes: dict[int, bytes]) -> tuple[float, float]:
    """When the valid lifetime of an address that has just been reported ends, and when it was set."""
    unknown = struct.pack("4I", _INFINITE, _INFINITE, 0, 0)
    _, valid_s, _, updated_cs = struct.unpack_from("4I", attributes.get(_IFA_CACHEINFO, unknown))
    return math.inf if valid_s == _INFINITE else time.monotonic() + valid_s, updated_cs / 100


def _next_hops(attributes: dict[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """Interface index and gateway of each next hop of a route that has both."""
    if _RTA_OIF in attributes and len(attributes.get(_RTA_GATEWAY, b"")) == 16:
        yield struct.unpack("I", attributes[_RTA_OIF])[0], attributes[_RTA_GATEWAY]
    hops = attributes.get(_RTA_MULTIPATH, b"")
    while len(hops) >= 8:
        length, _, _, index = struct.unpack_from("HBBi", hops)
        if length < 8:
            return
        gateway = dict(_attributes(hops[8:length])).get(_RTA_GATEWAY, b"")
        if len(gateway) == 16:
            yield index, gateway
        hops = hops[(length + 3) & ~3 :]


def _open(groups: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    sock.bind((0, groups))
    return sock


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and body of each netlink message in what was received."""
    offset = 0
    while len(data) - offset >= 16:
        length, kind = struct.unpack_from("IH", data, offset)
        if length < 16:
            return
        yield kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while len(data) - offset >= 4:
        length, kind = struct.unpack_from("HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _dump(sock: socket.socket, request: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    sock.send(struct.pack("IHHII", 16 + len(body), request, _REQUEST_DUMP, 1, 0) + body)
    while True:
        for kind, answer in _messages(sock.recv(1 << 18)):
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                code = -struct.unpack_from("i", answer)[0]
                raise OSError(code, os.strerror(code))
            yield kind, answer


def remove_default_router(link: Link, router: IPv6Address) -> None:
    """Have the kernel forget a default router that it has learned from Router Advertisements; it learns it
    again when it hears it. Raises OSError; one that is not known is no error."""
    _remove_route(link, _BY_ROUTER_ADVERTISEMENT, 0, struct.pack("HH16s", 20, _RTA_GATEWAY, router.packed))


def remove_on_link_prefix(link: Link, network: IPv6Network) -> None:
    """Have the kernel forget that a network is on this link; it learns it again as above. Raises OSError."""
    destination = struct.pack("HH16s", 20, _RTA_DST, network.network_address.packed)
    _remove_route(link, _BY_KERNEL, network.prefixlen, destination)


def _remove_route(link: Link, protocol: int, prefix_length: int, attribute: bytes) -> None:
    body = struct.pack(
        "BBBBBBBBI", socket.AF_INET6, prefix_length, 0, 0, _MAIN_TABLE, protocol, 0, _UNICAST, 0
    )
    body += struct.pack("HHI", 8, _RTA_OIF, link.index) + attribute
    with _open(0) as sock:
        header = struct.pack("IHHII", 16 + len(body), _DELROUTE, _REQUEST_ACKNOWLEDGE, 1, 0)
        sock.send(header + body)
        for kind, answer in _messages(sock.recv(65536)):
            code = -struct.unpack_from("i", answer)[0] if kind == _NLMSG_ERROR else 0
            if code not in (0, errno.ESRCH):
                raise OSError(code, os.strerror(code))
