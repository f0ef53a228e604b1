"""One agent in a network namespace: each has the kernel's state there to itself.

Class: `Territory`. Exception: `TerritoryError`.
"""

import errno
import logging
import os
import socket
import struct

logger = logging.getLogger(__name__)

#: In the abstract namespace of UNIX sockets, of which each network namespace has its own.
_NAME = "\0flowbind-agent"


class TerritoryError(Exception):
    """Somebody else is there; the text is one sentence with the remedy."""


class Territory:
    """The network namespace of the calling thread. It is free as soon as its agent has ended, however."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    @property
    def is_ours(self) -> bool:
        """Whether `claim` has succeeded."""
        return self._socket is not None

    def claim(self) -> None:
        """Raises TerritoryError if another agent is there. Who is not root cannot keep agents out."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.bind(_NAME)
            sock.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and _is_held_by_root():
                sock.close()
                raise TerritoryError(
                    "another agent works in this network namespace: stop it, or use another (ip netns)"
                ) from None
            logger.warning("whether another agent works here cannot be told: %s", error.strerror)
        self._socket = sock

    def close(self) -> None:
        """Leave it to others."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _is_held_by_root() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        try:
            client.connect(_NAME)
        except BlockingIOError:  # others have asked before
            return True
        except OSError:  # it has just ended
            return False
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, user, _ = struct.unpack("3i", credentials)
        return user in (0, os.geteuid())
