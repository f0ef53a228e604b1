"""What the kernel knows of a TCP connection while it lasts. Class: `TcpWatch`; function: `tcp_information`.

Of a Multipath TCP connection, that of each of its subflows (RFC 8684 §2.2).
"""

import ctypes
import socket
import struct
import threading

_SOL_MPTCP, _MPTCP_TCPINFO = 284, 2
#: struct mptcp_subflow_data: own size, number of subflows, size of an entry in the kernel and here.
_SUBFLOW_DATA = struct.Struct("=IIII")
#: As far as tcpi_total_retrans in struct tcp_info; tcpi_rtt is in microseconds.
_ENTRY_OCTETS, _ROUND_TRIP_AT, _RETRANSMITS_AT = 104, 68, 100
_MOST_SUBFLOWS = 8
_INTERVAL_S = 0.1
_libc = ctypes.CDLL(None, use_errno=True)


def tcp_information(sock: socket.socket) -> list[tuple[float, int]]:
    """Smoothed round trip (ms) and segments sent again so far, of the connection or of each of its subflows.
    Raises OSError once the connection has ended."""
    data = _of_subflows(sock)
    if data is None:
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ENTRY_OCTETS)
    return [
        (struct.unpack_from("=I", data, start + _ROUND_TRIP_AT)[0] / 1000,
         struct.unpack_from("=I", data, start + _RETRANSMITS_AT)[0])
        for start in range(0, len(data) - _ENTRY_OCTETS + 1, _ENTRY_OCTETS)
    ]  # fmt: skip


def _of_subflows(sock: socket.socket) -> bytes | None:
    """One entry a subflow; None if this is plain TCP. The option is asked for with a header that is filled
    in, which Python's getsockopt cannot do."""
    head = _SUBFLOW_DATA.size
    buffer = ctypes.create_string_buffer(head + _MOST_SUBFLOWS * _ENTRY_OCTETS)
    _SUBFLOW_DATA.pack_into(buffer, 0, head, 0, 0, _ENTRY_OCTETS)
    length = ctypes.c_uint32(len(buffer))
    if _libc.getsockopt(sock.fileno(), _SOL_MPTCP, _MPTCP_TCPINFO, buffer, ctypes.byref(length)):
        return None
    _, subflows, _, octets = _SUBFLOW_DATA.unpack_from(buffer)
    assert octets == _ENTRY_OCTETS, octets
    return buffer.raw[head : head + min(subflows, _MOST_SUBFLOWS) * _ENTRY_OCTETS]


class TcpWatch:
    """Asks ten times a second, in a thread, from `start` to `stop`. A subflow that ends takes its count with
    it, so increases are added up; one within the tenth of a second of an end is missed."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.retransmits = 0
        self.round_trips_ms: list[float] = []

    def start(self) -> None:
        """Begin to ask, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End it; the figures are complete at the return."""
        self._stop.set()
        self._thread.join()

    def summary(self) -> dict:
        """`retransmits`, and `round_trip_ms` as p50, p95 and max of what was seen (None: nothing)."""
        values = sorted(self.round_trips_ms)
        last = len(values) - 1
        quantiles = {"p50": values[round(last * 0.5)], "p95": values[round(last * 0.95)],
                     "max": values[last]} if values else None  # fmt: skip
        return {"retransmits": self.retransmits, "round_trip_ms": quantiles}

    def _watch(self) -> None:
        before = 0
        while not self._stop.wait(_INTERVAL_S):
            try:
                found = tcp_information(self._socket)
            except OSError:
                return
            total = sum(retransmits for _, retransmits in found)
            self.retransmits += max(total - before, 0)
            before = total
            self.round_trips_ms += [round_trip_ms for round_trip_ms, _ in found if round_trip_ms]
