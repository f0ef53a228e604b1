"""The log of what happened: a file, a memory of the latest, and whoever listens.

Class: `EventLog`. One JSON object a line: `t` (seconds on the monotonic clock, which all namespaces of a
machine share), `node`, `event`, and the fields of the event.
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

logger = logging.getLogger(__name__)

#: How many events are kept in memory for `flowbind events`.
CAPACITY = 2000

Listener = Callable[[dict[str, Any], bytes], None]


class EventLog:
    """Appends to `path` ("" for no file) and keeps the latest events.

    A file that cannot be written is reported once and does not stop anything: the events of that time are
    missing from it. Raises OSError if it cannot be opened in the first place.
    """

    def __init__(self, node: str, path: str = "") -> None:
        self.node = node
        #: Called with each event, as a dictionary and as the line that it is in the file.
        self.listeners: set[Listener] = set()
        self._recent: deque[bytes] = deque(maxlen=CAPACITY)
        self._pending: list[bytes] = []
        self._failed = False
        self._path = path
        self._file = -1
        if path:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def record(self, name: str, t: float, **fields: Any) -> None:
        """Take up an event that happened at `t`. It reaches the file with the next `flush`."""
        event = {"t": t, "node": self.node, "event": name, **fields}
        line = msgspec.json.encode(event)
        self._recent.append(line)
        self._pending.append(line + b"\n")
        for listener in tuple(self.listeners):
            listener(event, line)

    def flush(self) -> None:
        """Write what is pending to the file, in one go."""
        if not self._pending:
            return
        data, self._pending = b"".join(self._pending), []
        if self._file < 0:
            return
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            if not self._failed:
                logger.error("events cannot be written to %s: %s; going on", self._path, error.strerror)
            self._failed = True
        else:
            self._failed = False

    def recent(self, count: int = CAPACITY) -> list[msgspec.Raw]:
        """The latest `count` events, oldest first, as JSON."""
        return [msgspec.Raw(line) for line in list(self._recent)[-count:]] if count > 0 else []

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
