"""The TCP probe: numbered, time-stamped records on one connection. Class: `RecordConnection`;
functions: `exchange_records`, `serve_pages`, `send_bulk`, `receive_bulk`.

A record is 24 octets in network order (length, flow and zero (16 bits each), sequence number,
CLOCK_MONOTONIC time in ns at which it was handed to the kernel) and padding up to its length. A receiver
logs the time at which it has the last octet of a record, so the delay includes what TCP adds:
retransmissions, and records waiting behind a loss.
"""

import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

from testbed.measure.pacing import Stop, arrivals
from testbed.measure.probe_log import FAILED, ProbeLogWriter
from testbed.measure.tcp_information import TcpWatch

HEADER = struct.Struct("!IHHQq")

_CHUNK = 256 * 1024


def _ignore(sequence: int, received_ns: int) -> None:
    """What most receivers do with a record, apart from logging it."""


class RecordConnection:
    """Sends and receives records, and logs both. One thread may send while another receives."""

    def __init__(self, sock: socket.socket, flow: int, send_log: ProbeLogWriter, receive_log: ProbeLogWriter):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self._flow = flow
        self._send_log = send_log
        self._receive_log = receive_log
        self.sent = self.failed = self.received = 0
        self.latest_ns = 0

    def send(self, sequence: int, due_ns: int, size: int) -> bool:
        """Send one record of `size` octets; False, logged as failed, if the connection has ended."""
        sent_ns = time.monotonic_ns()
        self.latest_ns = max(self.latest_ns, sent_ns - due_ns)
        try:
            header = HEADER.pack(size, self._flow, 0, sequence, sent_ns)
            self.socket.sendall(header + bytes(size - HEADER.size))
        except OSError:
            self.failed += 1
            self._send_log.append(sequence, due_ns, sent_ns, size, FAILED)
            return False
        self.sent += 1
        self._send_log.append(sequence, due_ns, sent_ns, size)
        return True

    def receive(self, stop: Stop, drain_s: float, on_record: Callable[[int, int], None] = _ignore) -> str:
        """Log records, telling `on_record(sequence, received_ns)`, until the other end closes the
        connection; once stopped, for at most `drain_s` more.

        Returns why it ended: "closed", "stopped", or the system's error. Raises ValueError for octets that
        are no record.
        """
        buffer = bytearray()
        needed, sequence, sent_ns = 0, 0, 0
        deadline = None
        while True:
            if stop.is_set and deadline is None:
                deadline = time.monotonic() + drain_s
            watched = [self.socket, stop] if deadline is None else [self.socket]
            timeout = None if deadline is None else max(deadline - time.monotonic(), 0)
            readable, _, _ = select.select(watched, [], [], timeout)
            if self.socket not in readable:
                if deadline is not None:
                    return "stopped"
                continue
            try:
                data = self.socket.recv(_CHUNK)
            except OSError as error:
                return error.strerror or str(error)
            if not data:
                return "closed"
            now_ns = time.monotonic_ns()
            buffer += data
            while len(buffer) >= (needed or HEADER.size):
                if not needed:
                    needed, flow, _, sequence, sent_ns = HEADER.unpack_from(buffer)
                    if flow != self._flow or needed < HEADER.size:
                        raise ValueError(f"not a record of flow {self._flow}: length {needed}, flow {flow}")
                    continue
                self._receive_log.append(sequence, sent_ns, now_ns, needed)
                self.received += 1
                del buffer[:needed]
                needed = 0
                on_record(sequence, now_ns)

    def send_on_schedule(self, stop: Stop, *, size: int, per_second: float, pattern: str, seed: int,
                         duration_s: float | None) -> None:
        """Send records of `size` octets until stopped, failed, or `duration_s` is over."""
        start_ns = time.monotonic_ns()
        end_ns = None if duration_s is None else start_ns + int(duration_s * 1e9)
        for sequence, due_ns in enumerate(arrivals(start_ns, per_second, pattern, seed)):
            if (end_ns is not None and due_ns >= end_ns) or stop.wait_until(due_ns):
                return
            if not self.send(sequence, due_ns, size):
                return

    def summary(self, ended: str) -> dict:
        return {"sent": self.sent, "failed": self.failed, "received": self.received,
                "latest_ms": self.latest_ns / 1e6, "ended": ended}

    def finish_sending(self) -> None:
        """Tell the other end that nothing more comes; what is under way still arrives."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        """Release a sender that the peer's full window holds, then the socket."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def exchange_records(connection: RecordConnection, stop: Stop, drain_s: float, **schedule) -> dict:
    """Send records on schedule (as `RecordConnection.send_on_schedule` has it) and log those that come.

    Both ends of an interactive session do this, each at its own pace, as at a terminal; so does the client of
    web pages, whose records are requests. It asks on schedule whether or not the last page has come: a slow
    answer must not hide that the next ones would have been slow as well.
    """
    return _run(connection, stop, drain_s, lambda: connection.send_on_schedule(stop, **schedule))


def serve_pages(connection: RecordConnection, stop: Stop, drain_s: float, page_size: int) -> dict:
    """Answer each request with a record of `page_size` octets that bears the request's sequence number."""
    requests: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()

    def answer() -> None:
        while (request := requests.get()) is not None:
            if not connection.send(*request, page_size):
                return

    return _run(connection, stop, drain_s, answer, lambda *request: requests.put(request),
                lambda: requests.put(None))


def send_bulk(connection: RecordConnection, stop: Stop, drain_s: float, **schedule) -> dict:
    """Send records on schedule to an end that only receives; what the kernel knows of the connection comes
    with the summary. A transfer that was held up catches up with its schedule, as libiperf's does."""
    watch = TcpWatch(connection.socket)
    watch.start()

    def send() -> None:
        connection.send_on_schedule(stop, **schedule)
        watch.stop()

    return _run(connection, stop, drain_s, send) | watch.summary()


def receive_bulk(connection: RecordConnection, stop: Stop, drain_s: float) -> dict:
    """Log the records of an end that does `send_bulk`, until told to stop."""
    return _run(connection, stop, drain_s, lambda: select.select([stop], [], []))


def _run(connection: RecordConnection, stop: Stop, drain_s: float, send: Callable[[], None],
         on_record: Callable[[int, int], None] = _ignore, release: Callable[[], None] = lambda: None) -> dict:
    """Send in a thread and receive in this one. Either end may stop: it finishes sending, the other sees
    that, finishes too, and nothing that was under way is lost unless the path is dead for `drain_s`."""

    def send_all() -> None:
        send()
        connection.finish_sending()

    sender = threading.Thread(target=send_all)
    sender.start()
    try:
        ended = connection.receive(stop, drain_s, on_record)
    finally:
        stop.set()
        release()
        sender.join(drain_s)
        connection.close()
        sender.join()
    return connection.summary(ended)
