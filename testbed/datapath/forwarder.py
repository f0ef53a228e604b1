"""The process that puts the headers of route optimisation in and takes them out, packet by packet.

`python -m testbed.datapath.forwarder SIDE NAME CONTROL REPORT`, started by `UserspaceCarrier`. CONTROL and
REPORT are descriptors: the first brings the wanted state, one JSON object a line, each answered by "ok"; the
second takes the addresses of packets that no binding allows. Class: `Forwarder`.
"""

import ctypes
import fcntl
import json
import os
import selectors
import socket
import struct
import sys

from testbed.datapath.optimisation_programs import HEADER_OCTETS, MOBILE_PREFIX_ADVERTISEMENT

_IPV6_OCTETS, _ETHERNET_OCTETS, _VIRTIO_OCTETS = 40, 14, 10
_MTU = 1500 - HEADER_OCTETS
_MAX_PACKET = 70000
_BATCH = 64
_ROUTING, _DESTINATION_OPTIONS = 43, 60
_LEFT_ALONE = (135, 50, 51)  # mobility messages, ESP, AH
_ICMPV6 = 58

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x1, 0x1000, 0x4000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFMTU = 0x8913, 0x8914, 0x8922
_IFF_UP = 0x1
_ETH_P_IPV6, _ARPHRD_ETHER = 0x86DD, 1
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_OUTGOING = 263, 15, 4
_SO_ATTACH_FILTER = 26
_virtio = struct.Struct("=BBHHHH")

#: Packets for this host with a routing or a destination options header; the last instruction rejects.
_NETWORK, _PACKET_TYPE = 0xFFF00000, 0xFFFFF000 + 4
_FILTER = (
    (0x30, 0, 0, _PACKET_TYPE),
    (0x15, 0, 4, 0),
    (0x30, 0, 0, _NETWORK + 6),
    (0x15, 1, 0, _ROUTING),
    (0x15, 0, 1, _DESTINATION_OPTIONS),
    (0x06, 0, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0),
)


def open_tun(name: str, flags: int = 0) -> int:
    """A TUN device that is up, without addresses of its own; its descriptor. Raises OSError."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI | flags)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
        for key, value in (("addr_gen_mode", "1"), ("accept_ra", "0")):
            with open(f"/proc/sys/net/ipv6/conf/{name}/{key}", "w") as file:
                file.write(value)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", name.encode(), _MTU))
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), _IFF_UP))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Forwarder:
    """Everything in the network namespace of the process. Raises OSError where a device is not to be had."""

    def __init__(self, mobile: bool, name: str, report: socket.socket) -> None:
        self._mobile = mobile
        self._report = report
        self._selector = selectors.DefaultSelector()
        self._devices: dict[int, tuple[str, int]] = {}
        self._ways: dict[tuple[int, bytes], tuple[int, bytes]] = {}
        self._accepted: set[bytes] = set()
        self._ours: set[bytes] = set()
        self._sending = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._arriving = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IPV6))
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _FILTER))
        program = struct.pack("HP", len(_FILTER), ctypes.addressof(code))
        self._arriving.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        self._arriving.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._arriving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._arriving.setblocking(False)
        self._inside = open_tun(name, _IFF_VNET_HDR)
        self._selector.register(self._arriving, selectors.EVENT_READ, self._arrive)

    def serve(self, control: socket.socket) -> None:
        """Until the control socket is closed."""
        lines = control.makefile("r")
        control.sendall(b"ok\n")
        self._selector.register(control, selectors.EVENT_READ, None)
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    key.data()
                    continue
                line = lines.readline()
                if not line:
                    return
                try:
                    self._configure(json.loads(line))
                    answer = "ok"
                except OSError as error:
                    answer = str(error.strerror)
                control.sendall(answer.encode() + b"\n")

    def _configure(self, wanted: dict) -> None:
        devices = {int(number): name for number, name in wanted["devices"].items()}
        for number, name in devices.items():
            if number not in self._devices:
                descriptor = open_tun(name)
                self._devices[number] = name, descriptor
                self._selector.register(
                    descriptor, selectors.EVENT_READ, lambda number=number: self._leave(number)
                )
        ways, accepted = {}, {bytes.fromhex(text) for text in wanted["homes"]}
        for number, interface, *texts in wanted["ways"]:
            home, correspondent, care_of = (bytes.fromhex(text) for text in texts)
            key = home + correspondent if self._mobile else home
            ways[number, key] = interface, care_of
            accepted.add(home if self._mobile else home + care_of)
        self._ways, self._accepted = ways, accepted
        self._ours = {bytes.fromhex(text) for text in wanted["ours"]}
        for number in self._devices.keys() - devices.keys():
            _, descriptor = self._devices.pop(number)
            self._selector.unregister(descriptor)
            os.close(descriptor)

    def _leave(self, number: int) -> None:
        """Packets of this node, on their way out: the header goes in."""
        device = self._devices.get(number)
        for _ in range(_BATCH):
            if device is None:
                return
            try:
                packet = os.read(device[1], _MAX_PACKET)
            except (BlockingIOError, InterruptedError):
                return
            key = packet[8:40] if self._mobile else packet[24:40]
            way = self._ways.get((number, key))
            if way is None:
                continue
            interface, care_of = way
            if self._mobile:
                kind, header = _DESTINATION_OPTIONS, packet[6:7] + b"\2\1\2\0\0\xc9\x10" + packet[8:24]
                addresses = care_of + packet[24:40]
            else:
                kind, header = _ROUTING, packet[6:7] + b"\2\2\1\0\0\0\0" + packet[24:40]
                addresses = packet[8:24] + care_of
            length = struct.pack("!HB", len(packet) - _IPV6_OCTETS + HEADER_OCTETS, kind)
            packet = packet[:4] + length + packet[7:8] + addresses + header + packet[_IPV6_OCTETS:]
            self._send(packet, interface)

    def _send(self, packet: bytes, interface: int) -> None:
        information = struct.pack("=16sI", packet[8:24], interface)
        ancillary = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, information)]
        address = socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0
        try:
            self._sending.sendmsg([packet], ancillary, 0, address)
        except OSError:
            pass  # no way out just now: lost, as on any link

    def _arrive(self) -> None:
        """Packets for this node: the header comes out if there is a binding."""
        for _ in range(_BATCH):
            try:
                data, address = self._arriving.recvfrom(_MAX_PACKET)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an interface went down: the socket itself is fine
                continue
            if address[3] == _ARPHRD_ETHER and address[2] != _PACKET_OUTGOING:
                self._take(data)

    def _take(self, data: bytes) -> None:
        start = _VIRTIO_OCTETS + _ETHERNET_OCTETS
        packet = data[start:]
        if len(packet) < _IPV6_OCTETS + HEADER_OCTETS or packet[40] in _LEFT_ALONE:
            return
        source, destination, inner = packet[8:24], packet[24:40], packet[48:64]
        if destination not in self._ours:
            return
        if self._mobile:
            if packet[6] != _ROUTING or packet[41:44] != b"\2\2\1" or inner not in self._accepted:
                return
            if packet[40] == _ICMPV6 and packet[64:65] == bytes([MOBILE_PREFIX_ADVERTISEMENT]):
                return
            destination = inner
        else:
            if packet[6] != _DESTINATION_OPTIONS or packet[41] != 2 or packet[46:48] != b"\xc9\x10":
                return
            if inner + source not in self._accepted:
                try:
                    self._report.send(source + destination + inner, socket.MSG_DONTWAIT)
                except OSError:
                    pass  # there are more of them than anyone wants to know
                return
            source = inner
        flags, kind, octets, size, begin, offset = _virtio.unpack_from(data)
        removed = _ETHERNET_OCTETS + HEADER_OCTETS
        begin, octets = max(begin - removed, 0), max(octets - removed, 0)
        length = int.from_bytes(packet[4:6], "big") - HEADER_OCTETS
        try:
            os.write(
                self._inside,
                _virtio.pack(flags, kind, octets, size, begin, offset)
                + packet[:4]
                + struct.pack("!H", length)
                + packet[40:41]
                + packet[7:8]
                + source
                + destination
                + packet[_IPV6_OCTETS + HEADER_OCTETS :],
            )
        except OSError:
            pass  # what the kernel does not take is lost


def main(arguments: list[str]) -> int:
    side, name, control, report = arguments
    control_socket, report_socket = socket.socket(fileno=int(control)), socket.socket(fileno=int(report))
    try:
        forwarder = Forwarder(side == "mobile", name, report_socket)
    except OSError as error:
        control_socket.sendall(f"{error.strerror}\n".encode())
        return 1
    forwarder.serve(control_socket)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
