"""The sequence probe's binary log: one record a packet. Class: `ProbeLogWriter`; function: `read_probe_log`.

A file is the magic, the length and the text of a JSON header, then records of 32 octets, little-endian:
sequence number, two times (ns of CLOCK_MONOTONIC), octets of payload, flags. In a sender's log the times
are when the packet was due and when it was sent; in a receiver's, when it was sent (from the packet) and
received.
"""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the processes in the hosts start without numpy, which alone takes 0.1 s
    import numpy

MAGIC = b"fbprobe1"
RECORD = struct.Struct("<QqqII")
#: The operating system refused to send this packet.
FAILED = 1

_LENGTH = struct.Struct("<I")
_FLUSH_OCTETS = 4096
_TIMES = {"sender": ("scheduled_ns", "sent_ns"), "receiver": ("sent_ns", "received_ns")}


class ProbeLogWriter:
    """Appends records to a new log. `role` is "sender" or "receiver", `header` any further JSON-able facts.
    """

    def __init__(self, path: str | Path, role: str, header: dict):
        text = json.dumps({"role": role, **header}).encode()
        self._file = open(path, "wb", buffering=0)
        self._buffer = bytearray(MAGIC + _LENGTH.pack(len(text)) + text)
        self.flush()

    def append(self, sequence: int, first_ns: int, second_ns: int, octets: int, flags: int = 0) -> None:
        self._buffer += RECORD.pack(sequence, first_ns, second_ns, octets, flags)
        if len(self._buffer) >= _FLUSH_OCTETS:
            self.flush()

    def flush(self) -> None:
        self._file.write(self._buffer)
        self._buffer.clear()

    def close(self) -> None:
        self.flush()
        self._file.close()


def read_probe_log(path: str | Path) -> "tuple[dict, numpy.ndarray]":
    """The header and the records, a structured array with the fields `sequence`, `scheduled_ns` and `sent_ns`
    (sender) or `sent_ns` and `received_ns` (receiver), `octets`, `flags`. A record cut short by a kill is
    left out.

    Raises ValueError if this is not a probe log.
    """
    import numpy

    data = Path(path).read_bytes()
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + _LENGTH.size:
        raise ValueError(f"{path} is not a probe log: it does not start with {MAGIC.decode()}")
    (length,) = _LENGTH.unpack_from(data, len(MAGIC))
    start = len(MAGIC) + _LENGTH.size + length
    try:
        header = json.loads(data[start - length:start])
        times = _TIMES[header["role"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a probe log: its header is damaged") from error
    names = ("sequence", *times, "octets", "flags")
    dtype = numpy.dtype(list(zip(names, ("<u8", "<i8", "<i8", "<u4", "<u4"), strict=True)))
    count = (len(data) - start) // RECORD.size
    return header, numpy.frombuffer(data, dtype, count, start)
