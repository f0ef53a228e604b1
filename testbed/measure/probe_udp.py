"""The UDP probe: numbered, time-stamped datagrams. Functions: `send`, `receive`.

A datagram begins with 24 octets in network order: "FBSP", flow (16 bits), zero (16), sequence number (64),
and the CLOCK_MONOTONIC time at which it was handed to the kernel (64, ns). All namespaces of a machine
share that clock, so the difference to the receiver's is the one-way delay (RFC 7679) without any
synchronisation.
"""

import select
import socket
import struct
import time
from random import Random

from testbed.measure.pacing import Stop, arrivals
from testbed.measure.probe_log import FAILED, ProbeLogWriter

MAGIC = b"FBSP"
HEADER = struct.Struct("!4sHHQq")

_SO_TIMESTAMPNS = 35
_SO_RXQ_OVFL = 40
_SO_RCVBUFFORCE = 33
_TIMESPEC = struct.Struct("@ll")
_DROPS = struct.Struct("@I")
_RECEIVE_BUFFER = 4 << 20


def send(sock: socket.socket, remote: tuple[str, int], log: ProbeLogWriter, stop: Stop, *, flow: int,
         size: int, per_second: float, pattern: str, seed: int, duration_s: float | None) -> dict:
    """Send `size` octets of payload `per_second` times until stopped or `duration_s` is over; the summary."""
    padding = Random(seed).randbytes(size - HEADER.size)
    start_ns = time.monotonic_ns()
    end_ns = None if duration_s is None else start_ns + int(duration_s * 1e9)
    sent = failed = latest_ns = 0
    for sequence, due_ns in enumerate(arrivals(start_ns, per_second, pattern, seed)):
        if (end_ns is not None and due_ns >= end_ns) or stop.wait_until(due_ns):
            break
        sent_ns = time.monotonic_ns()
        try:
            sock.sendto(HEADER.pack(MAGIC, flow, 0, sequence, sent_ns) + padding, remote)
            flags = 0
            sent += 1
        except OSError:  # no route, no buffer: lost in the sender, and logged as that
            flags = FAILED
            failed += 1
        latest_ns = max(latest_ns, sent_ns - due_ns)
        log.append(sequence, due_ns, sent_ns, size, flags)
    return {"sent": sent, "failed": failed, "latest_ms": latest_ns / 1e6}


def prepare_receiver(sock: socket.socket) -> None:
    """Ask for kernel time stamps, a drop counter and a large buffer."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    sock.setblocking(False)


def receive(sock: socket.socket, log: ProbeLogWriter, stop: Stop, *, flow: int, drain_s: float) -> dict:
    """Log what arrives until stopped and then for `drain_s` nothing has come (at most ten times that long).
    """
    received = foreign = drops = 0
    give_up_ns = None
    while True:
        timeout = None
        if stop.is_set:
            now = time.monotonic_ns()
            if give_up_ns is None:
                give_up_ns = now + int(10 * drain_s * 1e9)
            if now >= give_up_ns:
                break
            timeout = drain_s
        readable, _, _ = select.select([sock] if stop.is_set else [sock, stop], [], [], timeout)
        if stop.is_set and not readable:
            break
        if sock not in readable:
            continue
        while True:
            try:
                data, ancillary, _, _ = sock.recvmsg(65535, 64)
            except BlockingIOError:
                break
            except OSError:  # an ICMPv6 error for an earlier datagram: nothing to read
                continue
            received_ns, drops = _arrival(ancillary, drops)
            if len(data) < HEADER.size or data[:4] != MAGIC:
                foreign += 1
                continue
            _, found_flow, _, sequence, sent_ns = HEADER.unpack_from(data)
            if found_flow != flow:
                foreign += 1
                continue
            log.append(sequence, sent_ns, received_ns, len(data))
            received += 1
    return {"received": received, "foreign": foreign, "socket_drops": drops}


def _arrival(ancillary: list, drops: int) -> tuple[int, int]:
    """When the kernel took the datagram in (ns, CLOCK_MONOTONIC), and its count of drops at this socket.

    The kernel stamps with the wall clock; the age of the packet carries over to the monotonic clock, so that
    neither a busy receiver nor a step of the wall clock (unless in this very moment) shows in the delay.
    """
    received_ns = time.monotonic_ns()
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            now_ns, wall_ns = _both_clocks()
            received_ns = now_ns - max(wall_ns - (seconds * 1_000_000_000 + nanoseconds), 0)
        elif kind == _SO_RXQ_OVFL:
            (drops,) = _DROPS.unpack(data)
    return received_ns, drops


def _both_clocks() -> tuple[int, int]:
    """Monotonic and wall clock of the same moment, in ns: read again if something came between the
    readings.
    """
    for _ in range(5):
        before, wall_ns, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if after - before < 20_000:
            break
    return (before + after) // 2, wall_ns
