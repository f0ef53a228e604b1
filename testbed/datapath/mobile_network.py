"""What a mobile router and its home agent do with packets of a mobile network that has no binding to follow.

Classes: `IngressFilter` (mobile router), `Unreachable` (home agent). Rules and routes with `proto 178`,
which the `Datapath` leaves alone.
"""

import errno
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv6Network

from testbed.datapath import mark
from testbed.datapath.error import DatapathError
from testbed.datapath.netlink import ROUTE, Netlink, NetlinkError, attribute, text

PROTOCOL = mark.PROTOCOL + 1
#: Before marked packets find their tunnel; after that, and before the default path takes what has no mark.
FOREIGN_PRIORITY, INSIDE_PRIORITY, OUTSIDE_PRIORITY = 125, 136, 137
_NEW_ROUTE, _DELETE_ROUTE, _NEW_RULE, _DELETE_RULE = 24, 25, 32, 33
_CREATE_EXCLUSIVE, _CREATE_REPLACE = 0x600, 0x500
_TO_TABLE, _BLACKHOLE = 1, 6
_MAIN_TABLE, _UNREACHABLE, _LAST_METRIC = 254, 7, 0xFFFFFFF0
_header = struct.Struct("=BBBBBBBBI")


class IngressFilter:
    """RFC 3963 §9: what comes from the mobile network has an address of it, nothing else has; and nothing
    passes between the mobile network and the visited networks but through a tunnel.

    `inside`: interfaces of the mobile network; `outside`: interfaces in visited networks.
    """

    def __init__(
        self, prefixes: Iterable[IPv6Network], inside: Iterable[str], outside: Iterable[str]
    ) -> None:
        inside, outside = list(inside), list(outside)
        unmarked = _u32(10, 0) + _u32(16, mark.NUMBER_MASK)
        self._rules: list[bytes] = []
        for prefix in prefixes:
            for interface in outside:
                self._rules.append(_rule(FOREIGN_PRIORITY, _BLACKHOLE, text(3, interface), prefix))
            for interface in inside:
                # to other links of the mobile network, but never by a default route
                more = text(3, interface) + _u32(14, 0)
                self._rules.append(_rule(INSIDE_PRIORITY, _TO_TABLE, more, prefix))
        self._rules += [_rule(OUTSIDE_PRIORITY, _BLACKHOLE, text(3, interface)) for interface in inside]
        self._rules += [
            _rule(OUTSIDE_PRIORITY, _BLACKHOLE, text(3, interface) + unmarked) for interface in outside
        ]

    def install(self) -> None:
        """Put it in place, whether it was or not. Raises DatapathError."""
        messages = [(_NEW_RULE, _CREATE_EXCLUSIVE, rule) for rule in self._rules]
        _attempt(messages, {errno.EEXIST}, "set up the ingress filter of the mobile network")

    def close(self) -> None:
        """Raises DatapathError; what is not there is no error."""
        messages = [(_DELETE_RULE, 0, rule) for rule in self._rules]
        _attempt(messages, {errno.ENOENT}, "remove the ingress filter of the mobile network")


class Unreachable:
    """RFC 3963 §6.3: the home agent draws the packets to mobile networks to itself; while one has no binding,
    they must not go back by the default route: the sender is told that there is no way."""

    def __init__(self, prefixes: Iterable[IPv6Network]) -> None:
        self._routes = [
            _header.pack(
                socket.AF_INET6, prefix.prefixlen, 0, 0, _MAIN_TABLE, PROTOCOL, 0, _UNREACHABLE, 0
            )
            + attribute(1, prefix.network_address.packed)
            + _u32(6, _LAST_METRIC)
            for prefix in prefixes
        ]

    def install(self) -> None:
        """Raises DatapathError."""
        messages = [(_NEW_ROUTE, _CREATE_REPLACE, route) for route in self._routes]
        _attempt(messages, {errno.EEXIST}, "set up the routes of mobile networks")

    def close(self) -> None:
        """Raises DatapathError; what is not there is no error."""
        messages = [(_DELETE_ROUTE, 0, route) for route in self._routes]
        _attempt(messages, {errno.ESRCH, errno.ENOENT}, "remove the routes of mobile networks")


def _u32(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


def _rule(priority: int, action: int, more: bytes, source: IPv6Network | None = None) -> bytes:
    table = _MAIN_TABLE if action == _TO_TABLE else 0
    length = source.prefixlen if source is not None else 0
    body = _header.pack(socket.AF_INET6, 0, length, 0, table, 0, 0, action, 0)
    body += _u32(6, priority) + attribute(21, bytes([PROTOCOL])) + more
    if length:
        body += attribute(2, source.network_address.packed)
    return body


def _attempt(messages: list[tuple[int, int, bytes]], harmless: set[int], what: str) -> None:
    try:
        netlink = Netlink(ROUTE)
        try:
            results = netlink.attempt(messages)
        finally:
            netlink.close()
    except OSError as error:
        raise DatapathError(f"cannot {what}: {error.strerror}.") from error
    for error in results:
        if isinstance(error, NetlinkError) and error.errno not in harmless:
            raise DatapathError(f"cannot {what}: {error.args[1]}.") from error
