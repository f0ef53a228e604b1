"""A program for what leaves an interface: the kernel's traffic control (clsact).

Class: `Hooks`. Functions: `is_ethernet`, `local_addresses`.
"""

import errno
import fcntl
import socket
import struct

from testbed.datapath.netlink import CREATE, EXCLUSIVE, REPLACE, Netlink, NetlinkError, nested, text

_NEW_QDISC, _DELETE_QDISC = 36, 37
_NEW_FILTER, _DELETE_FILTER, _GET_FILTER = 44, 45, 46
_header = struct.Struct("=BBHiIII")
_CLSACT_HANDLE, _CLSACT_PARENT = 0xFFFF0000, 0xFFFFFFF1
_LEAVING = 0xFFFFFFF3
_PARENTS = 0xFFFFFFF2, _LEAVING
_KIND, _OPTIONS = 1, 2
_FD, _NAME, _FLAGS = 6, 7, 8
_DIRECT_ACTION = 1
_ETHERTYPE_IPV6 = 0x86DD
_SIOCGIFHWADDR = 0x8927
_ARPHRD_ETHER = 1
#: Our filters, among those that others may have on the same interface.
_PRIORITY = 177


class Hooks:
    """Programs on interfaces of this network namespace, for what leaves."""

    def __init__(self, netlink: Netlink, name: str) -> None:
        self._netlink = netlink
        self._name = name
        #: Indices of the interfaces that have the programs.
        self.interfaces: set[int] = set()

    def attach(self, interface: int, program: int) -> None:
        """Put a program (descriptor) on an interface, in place of an earlier one. Raises NetlinkError."""
        body = _header.pack(socket.AF_UNSPEC, 0, 0, interface, _CLSACT_HANDLE, _CLSACT_PARENT, 0)
        try:
            self._netlink.execute([(_NEW_QDISC, CREATE | EXCLUSIVE, body + text(_KIND, "clsact"))])
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
        self.interfaces.add(interface)
        self._remove_filter(interface)
        options = nested(
            _OPTIONS,
            struct.pack("=HHI", 8, _FD, program),
            text(_NAME, self._name),
            struct.pack("=HHI", 8, _FLAGS, _DIRECT_ACTION),
        )
        body = self._filter(interface) + text(_KIND, "bpf") + options
        self._netlink.execute([(_NEW_FILTER, CREATE | REPLACE, body)])

    def _filter(self, interface: int) -> bytes:
        priority = _PRIORITY << 16 | socket.htons(_ETHERTYPE_IPV6)
        return _header.pack(socket.AF_UNSPEC, 0, 0, interface, 0, _LEAVING, priority)

    def _remove_filter(self, interface: int) -> None:
        self._netlink.attempt([(_DELETE_FILTER, 0, self._filter(interface))])

    def detach(self, interface: int) -> None:
        """Take the program, of an earlier life too, off an interface, which may be gone; and the clsact
        discipline with them, unless others have filters there."""
        self.interfaces.discard(interface)
        before = self._has_filters(interface)
        self._remove_filter(interface)
        if before and not self._has_filters(interface):
            body = _header.pack(socket.AF_UNSPEC, 0, 0, interface, _CLSACT_HANDLE, _CLSACT_PARENT, 0)
            self._netlink.attempt([(_DELETE_QDISC, 0, body)])

    def _has_filters(self, interface: int) -> bool:
        try:
            return any(
                self._netlink.dump(_GET_FILTER, _header.pack(0, 0, 0, interface, 0, parent, 0))
                for parent in _PARENTS
            )
        except NetlinkError:  # no such interface, no such discipline
            return False

    def close(self) -> None:
        for interface in list(self.interfaces):
            self.detach(interface)


def is_ethernet(name: str) -> bool:
    """Whether frames of this interface begin with an Ethernet header (ARPHRD_ETHER)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        try:
            answer = fcntl.ioctl(control, _SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))
        except OSError:
            return False
    return struct.unpack_from("=H", answer, 16)[0] == _ARPHRD_ETHER


def local_addresses() -> set[bytes]:
    """The IPv6 addresses of this network namespace, 16 octets each."""
    with open("/proc/thread-self/net/if_inet6") as file:
        return {bytes.fromhex(line.split()[0]) for line in file}
