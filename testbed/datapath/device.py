"""The datapath's own network devices, made by rtnetlink.

`DetourDevice` is a veth pair with both ends in this namespace: what is routed into it comes back as if
received, hence passes routing checks (hop limit, Packet Too Big) and prerouting once more. `TunnelDevice` is
an ip6tnl device whose tunnels are described by routes. `InnerTunnelDevice` is another one, with one tunnel,
whose packets go into those. Function: `sysctl`.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv6Address
from pathlib import Path

from testbed.datapath.error import DatapathError
from testbed.datapath.netlink import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    nested,
    text,
)

_NEW_LINK, _DELETE_LINK, _GET_LINK, _SET_LINK = 16, 17, 18, 19
_link_header = struct.Struct("=BBHiII")
_UP, _NO_ARP = 0x1, 0x80
_ADDRESS, _NAME, _MTU, _LINK_INFO, _ALIAS, _FAMILIES = 1, 3, 4, 18, 20, 26
#: Both ends of the detour have it, so that what leaves one is for the other.
_DETOUR_MAC = b"\x02flowb"
#: Of an ip6tnl device.
_LOCAL, _REMOTE, _HOP_LIMIT, _FLAGS, _PROTOCOL, _COLLECT_METADATA = 2, 3, 4, 8, 9, 19
#: No encapsulation limit; the mark of the packet inside for the one outside.
_TUNNEL_FLAGS = 0x1 | 0x20
_NEW_ADDRESS, _CACHE_INFO, _ADDRESS_FLAGS = 20, 6, 0x82  #: for ever, without duplicate address detection
_FOR_EVER = 0xFFFFFFFF


def _header(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _link_header.pack(socket.AF_UNSPEC, 0, 0, index, flags, change)


def sysctl(name: str, value: int | None = None) -> int:
    """Set net/`name` of this network namespace if that changes it; return what it was.

    Raises DatapathError where it does not exist or may not be written.
    """
    path = Path("/proc/sys/net") / name
    try:
        before = int(path.read_text())
        if value is not None and before != value:
            path.write_text(str(value))
    except OSError as error:
        raise DatapathError(f"cannot set {path} to {value}: {os.strerror(error.errno or 0)}.") from error
    return before


class _Device:
    """A device with a name, known to the kernel under `index` once `ensure` has been called."""

    def __init__(self, netlink: Netlink, name: str, mtu: int) -> None:
        self._netlink = netlink
        self.name = name
        self.mtu = mtu
        self.index = 0

    def _find(self, name: str) -> tuple[int, int, dict[int, bytes]] | None:
        """Index, flags and attributes of the device of that name."""
        try:
            body = self._netlink.request(_GET_LINK, _header() + text(_NAME, name))
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        _, _, _, index, flags, _ = _link_header.unpack_from(body)
        return index, flags, attributes(body, 16)

    def _is_right(self, name: str, flags_wanted: int) -> int:
        """Index of the device if it is up and as wanted, else 0."""
        found = self._find(name)
        if found is None:
            return 0
        index, flags, data = found
        (mtu,) = struct.unpack("=I", data[_MTU])
        return index if flags & flags_wanted == flags_wanted and mtu == self.mtu else 0

    def _without_addresses(self, name: str) -> None:
        """No link-local address, no Router Advertisements."""
        mode = nested(_FAMILIES, nested(socket.AF_INET6, attribute(8, b"\1")))
        index = socket.if_nametoindex(name)
        self._netlink.execute([(_SET_LINK, 0, _header(index) + mode)])
        sysctl(f"ipv6/conf/{name}/accept_ra", 0)

    def _set_up(self, name: str, flags: int) -> int:
        index = socket.if_nametoindex(name)
        self._netlink.execute([(_SET_LINK, 0, _header(index, flags, flags))])
        return index

    def remove(self) -> None:
        self._remove([self.name])

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            found = self._find(name)
            if found is not None:
                self._netlink.attempt([(_DELETE_LINK, 0, _header(found[0]))])
        self.index = 0


class DetourDevice(_Device):
    """veth pair `name` -> `exit_name`."""

    def __init__(self, netlink: Netlink, name: str, exit_name: str, mtu: int) -> None:
        super().__init__(netlink, name, mtu)
        self.exit_name = exit_name
        self.exit_index = 0

    def ensure(self) -> bool:
        """Make it right if it is not; whether it had to be made."""
        wanted = _UP | _NO_ARP
        self.index = self._is_right(self.name, wanted)
        self.exit_index = self._is_right(self.exit_name, wanted)
        if self.index and self.exit_index:
            return False
        self.remove()
        common = attribute(_ADDRESS, _DETOUR_MAC) + attribute(_MTU, struct.pack("=I", self.mtu))
        peer = nested(1, _header() + text(_NAME, self.exit_name) + common)
        body = _header() + text(_NAME, self.name) + common
        body += nested(_LINK_INFO, text(1, "veth"), nested(2, peer))
        self._netlink.execute([(_NEW_LINK, CREATE | EXCLUSIVE, body)])
        for name in (self.name, self.exit_name):
            self._without_addresses(name)
        # The end that packets are sent into comes last: it has carrier from its start. The other one is told
        # by the kernel's link watch, some time later, and loses what is sent into it until then.
        self.exit_index, self.index = (self._set_up(name, wanted) for name in (self.exit_name, self.name))
        return True

    def remove(self) -> None:
        self._remove([self.name, self.exit_name])


class TunnelDevice(_Device):
    """ip6tnl `external` device: takes `encap ip6` routes, and every tunnel packet for this node."""

    def ensure(self) -> bool:
        """Make it right if it is not; whether it had to be made."""
        self.index = self._is_right(self.name, _UP)
        if self.index:
            return False
        self.remove()
        body = _header() + text(_NAME, self.name) + attribute(_MTU, struct.pack("=I", self.mtu))
        body += nested(_LINK_INFO, text(1, "ip6tnl"), nested(2, attribute(_COLLECT_METADATA, b"")))
        self._netlink.execute([(_NEW_LINK, CREATE | EXCLUSIVE, body)])
        self._without_addresses(self.name)
        self.index = self._set_up(self.name, _UP)
        return True

    def resize(self, mtu: int) -> None:
        """Have this MTU from now on; routes stay."""
        if self.mtu != mtu:
            self.mtu = mtu
            body = _header(self.index) + attribute(_MTU, struct.pack("=I", mtu))
            self._netlink.execute([(_SET_LINK, 0, body)])


class InnerTunnelDevice(_Device):
    """ip6tnl device of one tunnel from `source`, an address that only this device has, so that no packet
    comes in by it: an `external` device, of which there is but one, cannot lead into itself."""

    def __init__(self, netlink: Netlink, name: str, mtu: int, source: IPv6Address, hop_limit: int) -> None:
        super().__init__(netlink, name, mtu)
        self._source = source
        self._hop_limit = hop_limit
        self._remote: IPv6Address | None = None

    def lead_to(self, remote: IPv6Address) -> None:
        """Make it right if it is not. Routes stay."""
        if remote == self._remote and self._is_right(self.name, _UP):
            return
        data = attribute(_LOCAL, self._source.packed) + attribute(_REMOTE, remote.packed)
        data += attribute(_HOP_LIMIT, bytes([self._hop_limit]))
        data += attribute(_FLAGS, struct.pack("=I", _TUNNEL_FLAGS))
        data += attribute(_PROTOCOL, bytes([socket.IPPROTO_IPV6]))
        body = _header() + text(_NAME, self.name) + attribute(_MTU, struct.pack("=I", self.mtu))
        body += nested(_LINK_INFO, text(1, "ip6tnl"), nested(2, data))
        self._netlink.execute([(_NEW_LINK, CREATE, body)])
        self._without_addresses(self.name)
        self.index = self._set_up(self.name, _UP)
        address = struct.pack("=BBBBi", socket.AF_INET6, 128, _ADDRESS_FLAGS, 0, self.index)
        address += attribute(1, self._source.packed) + attribute(2, self._source.packed)
        # deprecated: never chosen as a source
        address += attribute(_CACHE_INFO, struct.pack("=IIII", 0, _FOR_EVER, 0, 0))
        self._netlink.execute([(_NEW_ADDRESS, CREATE | REPLACE, address)])
        self._remote = remote

    def remove(self) -> None:
        super().remove()
        self._remote = None
