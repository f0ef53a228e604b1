"""Measuring a link from outside, for the tests and the benchmark of links.

Functions: private_namespaces, connect, measure_delays, measure_rate, measure_tcp.  Traffic is IPv6; one-way
delays are exact, as both ends read the same clock and the kernel stamps a packet's arrival.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from statistics import median

from testbed.emulation.link_device import Device, Namespace
from testbed.emulation.link_parameters import LinkError, LinkParameters
from testbed.emulation.link_veth import VethCable
from testbed.emulation.link_wire import WireCable

PORT = 5001
ADDRESSES = "2001:db8::1", "2001:db8::2"
ETHERNET_IPV6_UDP_OCTETS = 14 + 40 + 8
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
PROBE = struct.Struct("=IQ")  # number, time of sending by CLOCK_REALTIME in nanoseconds
RECEIVE_BUFFER_OCTETS = 64 << 20

Cable = VethCable | WireCable


@contextmanager
def private_namespaces(count: int) -> Iterator[list[Namespace]]:
    """Anonymous network namespaces, with loopback up, for as long as the block runs."""
    with ExitStack() as undo:
        namespaces = []
        for _ in range(count):
            keeper = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--net",
                 "sh", "-c", "ip link set lo up; echo; exec sleep infinity"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
            undo.callback(keeper.wait)
            undo.callback(keeper.kill)
            undo.callback(keeper.stdout.close)
            keeper.stdout.readline()
            namespaces.append(Namespace(keeper.pid))
        yield namespaces


@contextmanager
def connect(namespaces: list[Namespace], backend: str, parameters: LinkParameters,
            back: LinkParameters | None = None) -> Iterator[Cable]:
    """A link between the first two namespaces with ADDRESSES on its devices, "left" and "right"."""
    devices = Device(namespaces[0], "left"), Device(namespaces[1], "right")
    both = parameters, back or parameters
    failures: list[str] = []
    if backend == "wire":
        cable: Cable = WireCable(devices, (None, None), both, failures.append)
    else:
        cable = VethCable(devices, (None, None), both)
    try:
        for device, address in zip(devices, ADDRESSES, strict=True):
            with device.namespace.entered():
                subprocess.run(["ip", "address", "add", f"{address}/64", "dev", device.name, "nodad"],
                               check=True)
        # So that neighbour discovery is over before anything is measured, whatever is lost.
        for one, other, address in ((0, 1, ADDRESSES[1]), (1, 0, ADDRESSES[0])):
            with devices[one].namespace.entered():
                subprocess.run(["ip", "neigh", "replace", address, "dev", devices[one].name, "lladdr",
                                devices[other].state().address, "nud", "permanent"], check=True)
        for device, address in zip(devices, ADDRESSES, strict=True):
            _wait_for_address(device.namespace, address)
        yield cable
    finally:
        cable.delete()


def _wait_for_address(namespace: Namespace, address: str) -> None:
    """Until packets to the address are taken as the namespace's own, a moment after it has been added."""
    wanted = f"{int(IPv6Address(address)):032x} 80 "
    with namespace.entered():
        for _ in range(10_000):
            routes = Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()
            if any(route.startswith(wanted) for route in routes):
                return
            time.sleep(0.001)
    raise LinkError(f"the address {address} has not become usable")


def _receiver(namespace: Namespace) -> socket.socket:
    with namespace.entered():
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_OCTETS)
    receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    receiver.bind(("::", PORT))
    return receiver


@dataclass(frozen=True)
class Arrivals:
    """What became of numbered packets: `numbers` in the order of arrival, and of each the one-way delay, and
    how long after the first was sent it arrived."""

    sent: int
    numbers: list[int]
    delays_ms: list[float]
    after_ms: list[float]

    @property
    def loss_percent(self) -> float:
        """How many of the packets sent have not arrived, in percent."""
        return 100 * (1 - len(self.numbers) / self.sent)

    def delay_ms(self, quantile: float) -> float:
        """The one-way delay that this part (0 to 1) of the packets did not exceed."""
        return sorted(self.delays_ms)[min(int(quantile * len(self.delays_ms)), len(self.delays_ms) - 1)]


def measure_delays(cable: Cable, packets: int, interval_s: float, octets: int = 200,
                   patience_s: float = 10.0) -> Arrivals:
    """Send packets from the first end at regular times; see what arrives, and when.

    A sender that was held up does not catch up: a burst would be other traffic than was asked for.
    octets: of the Ethernet frame; patience_s: when nothing has come for so long, the rest is lost.
    """
    payload = bytes(octets - ETHERNET_IPV6_UDP_OCTETS - PROBE.size)
    numbers, delays, after = [], [], []
    with cable.ends[0].namespace.entered():
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sender, _receiver(cable.ends[1].namespace) as receiver:
        sender.connect((ADDRESSES[1], PORT))
        due, begin = time.monotonic(), time.clock_gettime_ns(time.CLOCK_REALTIME)
        for number in range(packets):
            now = time.monotonic()
            if due > now:
                time.sleep(due - now)
            due = max(due, now - interval_s) + interval_s
            sender.send(PROBE.pack(number, time.clock_gettime_ns(time.CLOCK_REALTIME)) + payload)
        receiver.settimeout(patience_s)
        while len(numbers) < packets:
            try:
                data, ancillary, _, _ = receiver.recvmsg(octets, 128)
            except TimeoutError:
                break
            number, sent_at = PROBE.unpack_from(data)
            seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
            numbers.append(number)
            arrived_at = seconds * 10**9 + nanoseconds
            delays.append((arrived_at - sent_at) / 1e6)
            after.append((arrived_at - begin) / 1e6)
    return Arrivals(packets, numbers, delays, after)


def measure_rate(cable: Cable, offered_mbit: float, seconds: float, octets: int = 1514) -> float:
    """Send more than the link takes from the first end; what the second end's device receives, in Mbit/s.

    Counted over Ethernet frames, as in LinkParameters, while the queue is full (see `_RateMeter`).
    """
    payload = bytes(octets - ETHERNET_IPV6_UDP_OCTETS)
    packets_per_s = offered_mbit * 1e6 / 8 / octets
    with cable.ends[0].namespace.entered():
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sender, _receiver(cable.ends[1].namespace) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the device has counted a packet by then
        sender.connect((ADDRESSES[1], PORT))
        sent, begin = 0, time.monotonic()
        meter = None
        while True:
            now = time.monotonic()
            due = (now - begin) * packets_per_s
            while sent < due:
                sender.send(payload)
                sent += 1
            if meter is not None and (rate := meter.rate_mbit()) is not None:
                return rate
            if meter is None and now - begin > 0.2 + cable.parameters[0].delay_ms / 1e3:
                meter = _RateMeter(lambda: _received_octets(cable), seconds)
            time.sleep(0.0005)


def _received_octets(cable: Cable) -> int:
    return cable.ends[1].state().statistics["rx_octets"]


class _RateMeter:
    """The rate at which a counter of octets grows: the median of spans of 0.2 s, so that it does not matter
    whether the link or who measures it stands still in one of them."""

    _SPAN_S = 0.2

    def __init__(self, count: Callable[[], int], seconds: float) -> None:
        self._count = count
        self._spans = max(round(seconds / self._SPAN_S), 1)
        self._rates: list[float] = []
        self._counted, self._from = count(), time.monotonic()

    def rate_mbit(self) -> float | None:
        """Call it often: Mbit/s once enough has been counted, None before."""
        if time.monotonic() < self._from + self._SPAN_S:
            return None
        counted, now = self._count(), time.monotonic()
        self._rates.append((counted - self._counted) * 8 / 1e6 / (now - self._from))
        self._counted, self._from = counted, now
        return median(self._rates) if len(self._rates) >= self._spans else None


def measure_tcp(cable: Cable, seconds: float) -> float:
    """What one TCP connection (cubic) from the first end to the second carries, Mbit/s of its payload (see
    `_RateMeter`)."""
    with cable.ends[1].namespace.entered():
        listener = socket.create_server(("::", PORT), family=socket.AF_INET6)
    with cable.ends[0].namespace.entered():
        sender = socket.socket(socket.AF_INET6)
    sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    received = [0]

    def sink() -> None:
        buffer = bytearray(1 << 20)
        with suppress(ConnectionResetError):  # measuring has ended
            while count := receiver.recv_into(buffer):
                received[0] += count

    with listener, sender:
        sender.connect((ADDRESSES[1], PORT))
        receiver, _ = listener.accept()
        thread = threading.Thread(target=sink)
        thread.start()
        data = bytes(1 << 18)
        warm_up = 0.5 + 20 * cable.parameters[0].delay_ms / 1e3
        begin, meter, rate = time.monotonic(), None, None
        while rate is None:
            sender.send(data)
            if meter is not None:
                rate = meter.rate_mbit()
            elif time.monotonic() - begin >= warm_up:
                meter = _RateMeter(lambda: received[0], seconds)
        receiver.shutdown(socket.SHUT_RDWR)
        thread.join()
        receiver.close()
    return rate
