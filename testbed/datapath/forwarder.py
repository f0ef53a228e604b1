"""The process that puts the headers of route optimisation in, packet by packet.

`python -m testbed.datapath.forwarder CONTROL`, started by `UserspaceCarrier`. CONTROL is the descriptor of a
socket that brings the wanted state, one JSON object a line, each answered by "ok". Class: `Forwarder`.
"""

import fcntl
import json
import os
import selectors
import socket
import struct
import sys
from typing import NamedTuple

_IPV6_OCTETS, _VIRTIO_OCTETS, _HEADER_OCTETS = 40, 10, 24
_LINK_MTU = 1500
_MAX_PACKET = 1 << 16
_BATCH = 64
_ROUTING, _DESTINATION_OPTIONS = 43, 60

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x1, 0x1000, 0x4000
#: TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN: what the kernel may leave undone.
_OFFLOADS = 0x01 | 0x02 | 0x04 | 0x08
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFMTU = 0x8913, 0x8914, 0x8922
_IFF_UP = 0x1
_QUEUE_PACKETS = 4096
_SIOCSIFTXQLEN = 0x8943
_NEEDS_CHECKSUM = 1
#: Flags, kind of segments, octets of headers, size of segments, where a checksum begins, where it is.
_virtio = struct.Struct("=BBHHHH")


def open_tun(name: str, mtu: int) -> int:
    """A TUN device that is up, without addresses of its own; its descriptor. Raises OSError."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
        fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _OFFLOADS)
        for key, value in (("addr_gen_mode", "1"), ("accept_ra", "0")):
            with open(f"/proc/sys/net/ipv6/conf/{name}/{key}", "w") as file:
                file.write(value)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", name.encode(), mtu))
            fcntl.ioctl(control, _SIOCSIFTXQLEN, struct.pack("16si20x", name.encode(), _QUEUE_PACKETS))
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), _IFF_UP))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Headers(NamedTuple):
    """What becomes of the packets with one pair of addresses: their new source and destination (None: as it
    is), the kind of the first new header, and the new headers before and behind the octet that names that of
    the upper layer."""

    source: bytes | None
    destination: bytes | None
    kind: int
    before: bytes
    behind: bytes

    @classmethod
    def make(cls, home: bytes, peer: bytes, source: bytes, destination: bytes) -> "Headers":
        """Home Address option for `home` unless `source` is empty, routing header for `peer` unless
        `destination` is (RFC 6275 §6.3, §6.4)."""
        routing, options = b"\2\2\1\0\0\0\0" + peer, b"\2\1\2\0\0\xc9\x10" + home
        if not destination:
            return cls(source, None, _DESTINATION_OPTIONS, b"", options)
        if not source:
            return cls(None, destination, _ROUTING, b"", routing)
        return cls(source, destination, _ROUTING, bytes([_DESTINATION_OPTIONS]) + routing, options)


class Device:
    """A TUN device. Packets that come out of it have a mark that tells what is to become of them."""

    def __init__(self, name: str, headers: int) -> None:
        """`headers`: how many each packet gets."""
        self._room = headers * _HEADER_OCTETS
        self.descriptor = open_tun(name, _LINK_MTU - self._room)
        #: By source and destination, or by destination alone.
        self.known: dict[bytes, Headers] = {}
        self._head = bytearray(_VIRTIO_OCTETS + _IPV6_OCTETS)
        self._payload = bytearray(_MAX_PACKET)

    def forward(self) -> None:
        """Put the headers into what is waiting, and give it back to the kernel."""
        head, payload = self._head, memoryview(self._payload)
        for _ in range(_BATCH):
            try:
                octets = os.readv(self.descriptor, (head, payload)) - len(head)
            except (BlockingIOError, InterruptedError):
                return
            headers = self.known.get(bytes(head[18:50])) or self.known.get(bytes(head[34:50]))
            if headers is None or octets < 0:
                continue
            try:
                os.writev(self.descriptor, (*self._changed(head, octets, headers), payload[:octets]))
            except OSError:
                pass  # what the kernel does not take is lost, as on any link

    def _changed(self, head: bytearray, octets: int, headers: Headers) -> tuple[bytes, bytes]:
        """The head of a packet with a payload of so many octets as it is to be, and its new headers."""
        room = self._room
        flags, kind, length, size, begin, offset = _virtio.unpack_from(head)
        if flags & _NEEDS_CHECKSUM:
            begin += room
        if kind:
            length += room
        hop_limit = min(head[17] + 1, 255)  # nf_tables takes one away
        first = _virtio.pack(flags, kind, length, size, begin, offset) + head[10:14]
        first += struct.pack("!HBB", octets + room, headers.kind, hop_limit)
        first += (headers.source or head[18:34]) + (headers.destination or head[34:50])
        return first, headers.before + head[16:17] + headers.behind

    def close(self) -> None:
        os.close(self.descriptor)


class Forwarder:
    """Everything in the network namespace of the process."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._devices: dict[str, Device] = {}

    def serve(self, control: socket.socket) -> None:
        """Until the control socket is closed."""
        lines = control.makefile("r")
        control.sendall(b"ok\n")
        self._selector.register(control, selectors.EVENT_READ, None)
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    if key.fd in self._selector.get_map():  # not just closed
                        key.data.forward()
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

    def _configure(self, wanted: dict[str, list[list[str]]]) -> None:
        """`wanted`: name of a device -> source and destination, and what they become."""
        for name, entries in wanted.items():
            known = {}
            for entry in entries:
                home, peer, source, destination = map(bytes.fromhex, entry)
                known[home + peer] = Headers.make(home, peer, source, destination)
            if name not in self._devices:
                headers = 1 + all(entries[0][2:])
                device = self._devices[name] = Device(name, headers)
                self._selector.register(device.descriptor, selectors.EVENT_READ, device)
            self._devices[name].known = known
        for name in self._devices.keys() - wanted.keys():
            device = self._devices.pop(name)
            self._selector.unregister(device.descriptor)
            device.close()


def main(arguments: list[str]) -> int:
    with socket.socket(fileno=int(arguments[0])) as control:
        Forwarder().serve(control)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
