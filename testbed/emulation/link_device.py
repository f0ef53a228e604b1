"""Network devices in other namespaces: Namespace, Device, open_tap, make_veth.

A few rtnetlink requests spoken directly: they cost 0.1 ms, where an `ip` process costs 5 ms of a handover,
they also work inside a running event loop, and no open socket keeps a namespace alive that should have ended.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from testbed.emulation.link_parameters import LinkError

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
NLMSG_ERROR, RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 2, 16, 17, 18
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MASTER, IFLA_TXQLEN, IFLA_OPERSTATE, IFLA_LINKINFO = 1, 3, 10, 13, 16, 18
IFLA_IFALIAS, IFLA_STATS64, IFLA_NET_NS_FD = 20, 23, 28
IF_OPER_UNKNOWN, IF_OPER_UP = 0, 6
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1

_libc = ctypes.CDLL(None, use_errno=True)


def _attribute(kind: int, value: bytes | int | str) -> bytes:
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _interface(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """A struct ifinfomsg."""
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def hardware_address(text: str) -> bytes:
    """The octets of an Ethernet address with colons. Raises ValueError."""
    return bytes.fromhex(text.replace(":", ""))


class Namespace:
    """The network namespace that a process is in."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def open(self) -> int:
        """A file descriptor of the namespace.  Raises LinkError when the process has ended."""
        try:
            return os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LinkError(f"process {self.pid}, whose network namespace is wanted, has ended") from error

    def is_same(self, other: Namespace) -> bool:
        """Whether both processes are in one and the same namespace."""
        mine, theirs = self.open(), other.open()
        try:
            return os.path.sameopenfile(mine, theirs)
        finally:
            os.close(mine)
            os.close(theirs)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the namespace; so is a process that it starts."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            target = self.open()
            try:
                _set_namespace(target)
            finally:
                os.close(target)
            try:
                yield
            finally:
                _set_namespace(home)
        finally:
            os.close(home)

    def request(self, kind: int, flags: int, body: bytes) -> bytes:
        """Send an rtnetlink request; returns the body of the answer.  Raises OSError as the kernel says."""
        with self.entered():
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC,
                                    socket.NETLINK_ROUTE)
        with netlink:
            netlink.send(struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body)
            answer = netlink.recv(65536)
        if struct.unpack_from("=H", answer, 4)[0] == NLMSG_ERROR:
            code = -struct.unpack_from("=i", answer, 16)[0]
            if code:
                raise OSError(code, os.strerror(code))
        return answer[16:]


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise LinkError(f"cannot enter a network namespace: {os.strerror(code)}; this needs root")


@dataclass(frozen=True)
class DeviceState:
    """What the kernel says of a device.

    operational: as carrier, but as the kernel has announced it.
    address: of the hardware.
    queue_length: packets, the limit of disciplines that have no other.
    statistics: packets, octets, drops.
    """

    index: int
    up: bool
    carrier: bool
    operational: bool
    address: str
    queue_length: int
    statistics: dict[str, int]


class Device:
    """A network device, by name, in a namespace.  All methods raise LinkError where the kernel refuses."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        self.namespace = namespace
        self.name = name

    def __repr__(self) -> str:
        return f"<Device {self.name} in the namespace of process {self.namespace.pid}>"

    def _request(self, what: str, kind: int, flags: int, body: bytes) -> bytes:
        try:
            return self.namespace.request(kind, flags, body)
        except OSError as error:
            raise LinkError(f"cannot {what} {self.name}: {error.strerror}") from error

    def _set(self, what: str, body: bytes) -> None:
        self._request(what, RTM_NEWLINK, NLM_F_ACK, body)

    def set_up(self, up: bool = True) -> None:
        name = _attribute(IFLA_IFNAME, self.name)
        self._set("set up" if up else "set down", _interface(0, IFF_UP if up else 0, IFF_UP) + name)

    def set_hardware_address(self, address: str) -> None:
        """Give it this Ethernet address. Raises LinkError."""
        self._set(f"set the address {address} of", _interface() + _attribute(IFLA_IFNAME, self.name)
                  + _attribute(IFLA_ADDRESS, hardware_address(address)))

    def set_bridge(self, bridge: str) -> None:
        """Make it a port of the bridge of that name in its namespace."""
        master = Device(self.namespace, bridge).state().index
        self._set(f"add to bridge {bridge}:", _interface() + _attribute(IFLA_IFNAME, self.name)
                  + _attribute(IFLA_MASTER, master))

    def move(self, namespace: Namespace) -> None:
        """Put it into another namespace, where it is down and has neither addresses nor a bridge."""
        target = namespace.open()
        try:
            self._set("move", _interface() + _attribute(IFLA_IFNAME, self.name)
                      + _attribute(IFLA_NET_NS_FD, target))
        finally:
            os.close(target)
        self.namespace = namespace

    def set_sysctl(self, key: str, value: int) -> None:
        """Set net.ipv6.conf.<device>.<key>; nothing happens on a kernel without IPv6."""
        with self.namespace.entered():
            try:
                with open(f"/proc/sys/net/ipv6/conf/{self.name}/{key}", "w") as file:
                    file.write(str(value))
            except FileNotFoundError:
                pass
            except OSError as error:
                raise LinkError(f"cannot set {key} of {self.name}: {error.strerror}") from error

    def announce_carrier(self) -> None:
        """Have everybody in the namespace told that the device has lost or gained its carrier.

        The kernel rations such news to one in a second.  Since Linux 6.8 it lets them out when it is asked
        for the state; before, a change of something that means nothing makes it send all it knows.
        """
        state = self.state()
        if state.operational and not state.carrier:
            self._set("describe", _interface() + _attribute(IFLA_IFNAME, self.name)
                      + _attribute(IFLA_IFALIAS, "no carrier"))
            self._set("describe", _interface() + _attribute(IFLA_IFNAME, self.name)
                      + _attribute(IFLA_IFALIAS, b""))

    def drop_queue(self) -> None:
        """Drop what waits to be sent, netem's delayed packets included.

        At a loss of carrier the kernel does so when it comes to it, which may take a second; when the length
        of the queue is changed, at once.
        """
        length = self.state().queue_length
        for one in (length + 1, length):
            self._set("empty the queue of", _interface() + _attribute(IFLA_IFNAME, self.name)
                      + _attribute(IFLA_TXQLEN, one))

    def state(self) -> DeviceState:
        """Ask the kernel."""
        answer = self._request("find", RTM_GETLINK, 0, _interface() + _attribute(IFLA_IFNAME, self.name))
        index, flags = struct.unpack_from("=iI", answer, 4)
        operational, address, queue_length, statistics = True, "", 0, {}
        offset = 16
        while offset < len(answer):
            length, kind = struct.unpack_from("=HH", answer, offset)
            if kind == IFLA_ADDRESS:
                address = answer[offset + 4:offset + length].hex(":")
            elif kind == IFLA_OPERSTATE:
                operational = answer[offset + 4] in (IF_OPER_UNKNOWN, IF_OPER_UP)
            elif kind == IFLA_TXQLEN:
                queue_length, = struct.unpack_from("=I", answer, offset + 4)
            elif kind == IFLA_STATS64:
                names = ("rx_packets", "tx_packets", "rx_octets", "tx_octets", "rx_errors", "tx_errors",
                         "rx_dropped", "tx_dropped")
                statistics = dict(zip(names, struct.unpack_from("=8Q", answer, offset + 4), strict=True))
            offset += length + -length % 4
        up, carrier = bool(flags & IFF_UP), bool(flags & IFF_LOWER_UP)
        return DeviceState(index, up, carrier, operational, address, queue_length, statistics)

    def delete(self, index: int = 0) -> None:
        """Delete it, if it is still there; index: only if it is that one."""
        which = _interface(index) if index else _interface() + _attribute(IFLA_IFNAME, self.name)
        try:
            self.namespace.request(RTM_DELLINK, NLM_F_ACK, which)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise LinkError(f"cannot delete {self.name}: {error.strerror}") from error


def open_tap(device: Device, address: str | None = None) -> int:
    """Make a TAP device, which lasts as long as the returned file descriptor (non-blocking) is open.

    Each frame read and written starts with a struct virtio_net_hdr.  The descriptor also keeps the namespace.
    Raises LinkError.
    """
    with device.namespace.entered():
        try:
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise LinkError(f"cannot open /dev/net/tun: {error.strerror}; the kernel's TUN/TAP driver is "
                            "needed (modprobe tun)") from error
        try:
            flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", device.name.encode(), flags))
        except OSError as error:
            os.close(tap)
            raise LinkError(f"cannot make the TAP device {device.name}: {error.strerror}") from error
    if address is not None:
        device.set_hardware_address(address)
    return tap


def make_veth(one: Device, two: Device, addresses: tuple[str | None, str | None] = (None, None)) -> None:
    """Make a veth pair, down, each end in its namespace.

    The first end gets an interface index that no other interface is likely to have: when both ends of a pair
    happen to have the same index, the kernel takes its time (up to a second) to tell that carrier is lost.
    Raises LinkError.
    """
    ends = [_attribute(IFLA_IFNAME, device.name)
            + (_attribute(IFLA_ADDRESS, hardware_address(address)) if address else b"")
            for device, address in zip((one, two), addresses, strict=True)]
    target = two.namespace.open()
    try:
        peer = _attribute(VETH_INFO_PEER, _interface() + ends[1] + _attribute(IFLA_NET_NS_FD, target))
        info = _attribute(IFLA_LINKINFO,
                          _attribute(IFLA_INFO_KIND, b"veth") + _attribute(IFLA_INFO_DATA, peer))
        for attempt in range(100):
            index = 1 << 16 | int.from_bytes(os.urandom(2), "little")
            try:
                one.namespace.request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
                                      _interface(index) + ends[0] + info)
                return
            except OSError as error:
                # EBUSY: the index is taken (EEXIST in older kernels, which a taken name gives, too)
                if error.errno not in (errno.EBUSY, errno.EEXIST) or attempt == 4:
                    raise LinkError(f"cannot make a veth pair {one.name} - {two.name}: "
                                    f"{error.strerror}") from error
    finally:
        os.close(target)
