"""Netlink without a library: a few microseconds a message, usable inside a running event loop.

The kernel handles a netlink request while it is being sent, so that a blocking socket never waits.
Classes: `NetlinkError`, `Netlink`. Functions: `attribute`, `nested`, `text`, `attributes`, `message`.
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator

ROUTE, XFRM, NETFILTER, GENERIC = 0, 6, 12, 16

REQUEST, ACK, DUMP, REPLACE, EXCLUSIVE, CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400

_ERROR, _DONE, _OVERRUN = 2, 3, 4
_NESTED = 0x8000
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT_CHECK = 270, 10, 11, 12
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_MESSAGE_IN_ACK_TLVS, _ACK_MESSAGE = 0x200, 1
_TIMEOUT_S = 10.0
_BUFFER = 8 << 20
#: A transaction is one message: that of a mobile node with 10,000 flow bindings has some 15 MB.
_SEND_BUFFER = 256 << 20
_RECEIVE = 1 << 18
#: Route messages sent at once: their acknowledgements must fit the receive buffer.
_CHUNK = 256

#: Thousands of tunnel routes at once use up the memory per CPU that the kernel has ready; it gets more in the
#: background, and says nothing when it has: there is no event to wait for, only the next attempt tells. The
#: pause leaves the processor to the kernel's worker, which on a busy machine may be a second late.
_MEMORY_ATTEMPTS, _MEMORY_PAUSE_S = 2500, 0.002

_header = struct.Struct("=IHHII")
_attribute = struct.Struct("=HH")


class NetlinkError(OSError):
    """The kernel's refusal of one message: `errno`, its own words if it gave some, `index` of the message."""

    def __init__(self, number: int, words: str = "", index: int = 0) -> None:
        super().__init__(number, words or os.strerror(number))
        self.index = index


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to 4 octets."""
    length = len(data) + 4
    return _attribute.pack(length, kind) + data + bytes(-length & 3)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that consists of attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """A string attribute, with its terminating zero."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes in `data` from `offset` on, by kind; the last one wins."""
    return dict(attribute_list(data, offset))


def attribute_list(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data` from `offset` on, in order."""
    while offset + 4 <= len(data):
        length, kind = _attribute.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += length + 3 & ~3


def message(kind: int, flags: int, body: bytes) -> tuple[int, int, bytes]:
    """What `Netlink` sends: type, flags (REQUEST is implied), body."""
    return kind, flags, body


class Netlink:
    """One socket of one netlink protocol, in the network namespace of the calling thread.

    Raises OSError where the kernel lacks the protocol.
    """

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        self._socket.settimeout(_TIMEOUT_S)
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        for option, size in ((_SO_SNDBUFFORCE, _SEND_BUFFER), (_SO_RCVBUFFORCE, _BUFFER)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, size)
            except PermissionError:  # without CAP_NET_ADMIN nothing that follows will work either
                pass
        if protocol == ROUTE:
            try:
                self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
            except OSError:  # before Linux 4.20: dumps are then filtered by their readers only
                pass
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    def execute(self, messages: Iterable[tuple[int, int, bytes]]) -> None:
        """Have the kernel do these, in order. Raises NetlinkError for the first that it refuses.

        The messages after that one are done as well if they were sent together; see `attempt`.
        """
        for index, error in enumerate(self.attempt(messages)):
            if error is not None:
                error.index = index
                raise error

    def attempt(self, messages: Iterable[tuple[int, int, bytes]]) -> list[NetlinkError | None]:
        """Have the kernel do these, in order; for each its refusal or None."""
        messages = list(messages)
        results: list[NetlinkError | None] = []
        for start in range(0, len(messages), _CHUNK):
            chunk = messages[start : start + _CHUNK]
            answers = self._attempt(chunk)
            for _ in range(_MEMORY_ATTEMPTS):
                again = [i for i, error in enumerate(answers) if error and error.errno == errno.ENOMEM]
                if not again:
                    break
                time.sleep(_MEMORY_PAUSE_S)
                for i, error in zip(again, self._attempt([chunk[i] for i in again]), strict=True):
                    answers[i] = error
            results += answers
        return results

    def _attempt(self, messages: list[tuple[int, int, bytes]]) -> list[NetlinkError | None]:
        first = self._sequence + 1
        self._sequence += len(messages)
        packed = b"".join(
            _pack(kind, flags | ACK, first + index, body)
            for index, (kind, flags, body) in enumerate(messages)
        )
        self._socket.send(packed)
        results: list[NetlinkError | None] = [None] * len(messages)
        waiting = len(messages)
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if kind == _ERROR and first <= sequence:
                    results[sequence - first] = _refusal(body, flags)
                    waiting -= 1
        return results

    def transaction(self, begin: bytes, messages: list[tuple[int, int, bytes]], end: bytes) -> None:
        """Have nf_tables do all of these or none. Raises NetlinkError (index: of the message)."""
        if not messages:
            return
        first = self._sequence + 1
        last = first + len(messages)
        self._sequence = last + 1
        packed = [_pack(16, 0, first, begin)]
        for index, (kind, flags, body) in enumerate(messages):
            flags |= ACK if first + 1 + index == last else 0
            packed.append(_pack(kind, flags, first + 1 + index, body))
        packed.append(_pack(17, 0, last + 1, end))
        self._socket.send(b"".join(packed))
        refusal = None
        while True:
            for kind, flags, sequence, body in self._receive():
                if kind != _ERROR or sequence < first:
                    continue
                error = _refusal(body, flags)
                if error is not None and refusal is None:
                    error.index = max(sequence - first - 1, 0)
                    refusal = error
                if sequence in (first, last):  # the batch as a whole, or its last message
                    if refusal is not None:
                        raise refusal
                    return

    def request(self, kind: int, body: bytes) -> bytes:
        """The body of the single answer to a request. Raises NetlinkError."""
        self._sequence += 1
        sequence = self._sequence
        self._socket.send(_pack(kind, 0, sequence, body))
        while True:
            for answer, flags, number, data in self._receive():
                if number == sequence:
                    if answer == _ERROR:
                        raise _refusal(data, flags) or NetlinkError(errno.ENODATA)
                    return data

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of all objects that a dump request returns. Raises NetlinkError.

        A dump that the kernel interrupted because of a change is taken again.
        """
        while True:
            try:
                return list(self._dump(kind, body))
            except InterruptedError:
                continue

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        sequence = self._sequence
        interrupted = False
        self._socket.send(_pack(kind, DUMP, sequence, body))
        while True:
            for answer, flags, number, data in self._receive():
                if number != sequence:
                    continue
                interrupted |= bool(flags & 0x10)
                if answer == _ERROR:
                    raise _refusal(data, flags) or NetlinkError(errno.EIO)
                if answer == _DONE:
                    (number,) = struct.unpack_from("=i", data) if len(data) >= 4 else (0,)
                    if number < 0:
                        raise NetlinkError(-number)
                    if interrupted:
                        raise InterruptedError
                    return
                yield data

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        try:
            data = self._socket.recv(_RECEIVE)
        except TimeoutError:
            raise NetlinkError(errno.ETIMEDOUT, "the kernel did not answer") from None
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _port = _header.unpack_from(data, offset)
            if length < 16:
                return
            yield kind, flags, sequence, data[offset + 16 : offset + length]
            offset += length + 3 & ~3


def _pack(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    length = len(body) + 16
    return _header.pack(length, kind, flags | REQUEST, sequence, 0) + body + bytes(-length & 3)


def _refusal(body: bytes, flags: int) -> NetlinkError | None:
    (number,) = struct.unpack_from("=i", body)
    if not number:
        return None
    words = b""
    if flags & _MESSAGE_IN_ACK_TLVS:
        words = attributes(body, 20).get(_ACK_MESSAGE, b"")
    return NetlinkError(-number, words.rstrip(b"\0").decode(errors="replace"))
