"""Subscribing to the feeds of agents. Class: `FeedClient`."""

import logging
import socket
from collections.abc import Callable

from testbed.mobility.feed import FeedError, FeedReader, FeedUpdate

logger = logging.getLogger(__name__)

#: Between attempts to connect; seconds.
RETRY_S = 0.2


class FeedClient:
    """Reads the feed of the agent whose control socket is `path`, and connects again whenever it ends.

    `updated` gets each line's update, `lost` is called when a connection that had brought something has
    ended.
    """

    def __init__(
        self,
        path: str,
        updated: Callable[[FeedUpdate], None],
        lost: Callable[[], None],
        sleep: Callable[[float], None],
    ) -> None:
        self.path = path
        self.connected = False
        self._updated = updated
        self._lost = lost
        self._sleep = sleep
        self._complaint = ""

    def run(self) -> None:
        """Never returns."""
        while True:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    connection.connect(self.path)
                    connection.sendall(b'{"command": "feed"}\n')
                    with connection.makefile("rb") as lines:
                        self._read(lines)
            except OSError as error:
                self._complain(f"cannot be read: {error.strerror or error}")
            except FeedError as error:
                self._complain(f"is not understood: {error}; asking for a new snapshot")
            if self.connected:
                self.connected = False
                self._lost()
            self._sleep(RETRY_S)

    def _read(self, lines) -> None:
        reader = FeedReader()
        for line in lines:
            if not line.endswith(b"\n"):
                break  # it ended in the middle
            if not self.connected and line.startswith(b'{"ok":false'):
                raise FeedError(f"the agent refuses: {line.decode(errors='replace').strip()}")
            update = reader.read(line)
            if not self.connected:
                logger.info("the feed %s is there: %d bindings", self.path, len(update.changes))
                self.connected, self._complaint = True, ""
            self._updated(update)
        self._complain("has ended")

    def _complain(self, complaint: str) -> None:
        """Say it once, not at each attempt."""
        if complaint != self._complaint:
            logger.warning("the feed %s %s", self.path, complaint)
            self._complaint = complaint
