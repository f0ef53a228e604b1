"""The forwarding state of an agent, published to those that mirror it. Class: `Feed`.

The lines are described in `testbed.mobility.feed`. A subscriber gets them on the control socket in answer to
the command `feed`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address

from testbed.mobility.feed import change_line, snapshot_line
from testbed.mobility.forwarding import HomeBinding

logger = logging.getLogger(__name__)

#: How far a subscriber may fall behind before it is dropped; octets. It can come back for a snapshot.
MAX_BACKLOG = 1 << 22


class Feed:
    """What has been published so far, and to whom. All from one event loop."""

    def __init__(self) -> None:
        self.serial = 0
        #: What the datapath does now.
        self.bindings: dict[IPv6Address, HomeBinding] = {}
        self._subscribers: set[asyncio.StreamWriter] = set()
        #: Called after each change, within the agent, with all bindings.
        self.listeners: list[Callable[[Mapping[IPv6Address, HomeBinding]], None]] = []

    def publish(self, changes: Mapping[IPv6Address, HomeBinding | None]) -> None:
        """Tell all subscribers what the datapath now does. None: no binding any more. Changes that change
        nothing are not told."""
        changed = {
            address: binding for address, binding in changes.items() if self.bindings.get(address) != binding
        }
        if not changed:
            return
        for address, binding in changed.items():
            if binding is None:
                self.bindings.pop(address, None)
            else:
                self.bindings[address] = binding
        self.serial += 1
        for listener in self.listeners:
            listener(self.bindings)
        line = change_line(self.serial, changed) if self._subscribers else b""
        for writer in list(self._subscribers):
            if writer.transport.get_write_buffer_size() > MAX_BACKLOG:
                logger.warning("a subscriber to the feed does not keep up, and is dropped")
                self._subscribers.discard(writer)
                writer.transport.abort()
            else:
                writer.write(line)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send the complete state, then each change, until the subscriber leaves."""
        writer.write(snapshot_line(self.serial, self.bindings.values()))
        self._subscribers.add(writer)
        try:
            while await reader.read(1 << 12):  # nothing is expected: this is to see the subscriber leave
                pass
        finally:
            self._subscribers.discard(writer)
