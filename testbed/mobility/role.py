"""What all roles share: the queues between the protocol core and the agent that runs it.

Classes: `Role`, `Transmission`, `Event`, `Timers`.
"""

import heapq
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any

from testbed.mobility.binding import is_unicast_routable
from testbed.mobility.forwarding import HomeBinding, Pair, RouteOptimisation
from testbed.mobility.rate_limit import MAX_REFUSALS_PER_S, MAX_REFUSALS_PER_SENDER_PER_S, RateLimit
from testbed.wire.message import BindingError, BindingErrorStatus
from testbed.wire.packet import Packet


@dataclass(slots=True)
class Transmission:
    """A packet to send. `interface` None leaves the choice to routing.

    A packet whose source is the home address goes as data from it does: through the tunnel to the home
    agent while there is one (RFC 6275 §11.3.1, Home Test Init).

    `after_datapath`: only once the forwarding state that it promises is in place, so that whoever is told
    "accepted" can count on it.

    `answers`: the packet that it is the answer to, if that matters once more.

    `link_layer_address`: on the home link, straight to it, without Neighbour Discovery; empty: by routing.
    """

    packet: Packet
    interface: str | None = None
    after_datapath: bool = False
    link_layer_address: bytes = b""
    answers: Packet | None = None


@dataclass(slots=True)
class Event:
    """Something that happened, for logs and measurements. `fields` are JSON-able."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)


class Timers:
    """Named deadlines; setting one again replaces it. Logarithmic in the number of deadlines, constant where
    one is put off, as each refresh does: it is looked at when the earlier one is over."""

    def __init__(self) -> None:
        #: Deadline, and the time in the heap that stands for it.
        self._deadlines: dict[Hashable, tuple[float, float]] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._count = 0

    def set(self, key: Hashable, when: float) -> None:
        """Make `key` due at `when` (seconds on the caller's clock)."""
        known = self._deadlines.get(key)
        if known is not None and known[1] <= when:
            self._deadlines[key] = when, known[1]
            return
        self._deadlines[key] = when, when
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, key))

    def cancel(self, key: Hashable) -> None:
        """Make `key` not due any more, if it was to be."""
        self._deadlines.pop(key, None)

    def get(self, key: Hashable) -> float | None:
        """When `key` is due, None if it is not to be."""
        known = self._deadlines.get(key)
        return known[0] if known is not None else None

    def next(self) -> float | None:
        """The earliest deadline, None if there is none."""
        while self._heap:
            queued, number, key = self._heap[0]
            when, stands_for_it = self._deadlines.get(key, (None, None))
            if stands_for_it != queued:  # cancelled, or made earlier
                heapq.heappop(self._heap)
            elif when == queued:
                return when
            else:  # put off
                self._deadlines[key] = when, when
                heapq.heapreplace(self._heap, (when, number, key))
        return None

    def due(self, now: float) -> Iterator[Hashable]:
        """Take out and yield the keys whose deadline is not after `now`, earliest first."""
        while (when := self.next()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            del self._deadlines[key]
            yield key


class Role:
    """A protocol role, sans-IO. Subclasses implement `receive`, `handle_timer`, `home_binding`.

    After every call into a role, its agent (1) sends the `transmissions()` that do not wait for the
    datapath, (2) applies `changes()` and `optimisation_changes()`, (3) saves what is `unsaved`, (4) sends
    the others, (5) logs `events()`, and (6) calls `handle_timer` at `timer()`. All times are seconds on one
    monotonic clock, given by the caller.
    """

    def __init__(self, refusals: RateLimit | None = None) -> None:
        """`refusals` limits the answers to what proves nothing of its sender."""
        self.timers = Timers()
        self._refusals = refusals or RateLimit(MAX_REFUSALS_PER_S, MAX_REFUSALS_PER_SENDER_PER_S)
        self._transmissions: list[Transmission] = []
        self._events: list[Event] = []
        self._changed: dict[IPv6Address, None] = {}

    def receive(self, packet: Packet, interface: str, now: float) -> None:
        """Take a parsed packet whose checksum was right and whose destination is this node."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Do what has become due. Harmless when called early or late."""
        raise NotImplementedError

    def home_binding(self, home_address: IPv6Address) -> HomeBinding | None:
        """The forwarding state wanted for one home address, None for none."""
        raise NotImplementedError

    def forwarding(self) -> dict[IPv6Address, HomeBinding]:
        """The complete forwarding state that this role wants."""
        raise NotImplementedError

    def optimisations(self) -> dict[Pair, RouteOptimisation]:
        """All pairs whose packets do not go through a home agent."""
        return {}

    def optimisation_changes(self) -> dict[Pair, RouteOptimisation | None]:
        """What is wanted now for each pair that may have changed since the last call."""
        return {}

    def unsaved(self, now: float) -> dict[str, Any] | None:
        """What a restart needs to know of what has been promised since the last call: part of a snapshot,
        JSON-able, None if there is nothing. `restore` takes it after the snapshot that it follows."""
        return None

    def timer(self) -> float | None:
        """When `handle_timer` wants to be called, None for never."""
        return self.timers.next()

    def transmissions(self) -> list[Transmission]:
        """The packets to send since the last call."""
        taken, self._transmissions = self._transmissions, []
        return taken

    def hold(self, transmissions: Iterable[Transmission]) -> None:
        """Take back packets that have not been sent, because what they promise is not in place; for
        `datapath_failed` to make refusals of them."""
        self._transmissions[:0] = transmissions

    def changes(self) -> dict[IPv6Address, HomeBinding | None]:
        """What is wanted now for each home address whose forwarding may have changed since the last call."""
        taken, self._changed = self._changed, {}
        return {address: self.home_binding(address) for address in taken}

    def events(self) -> list[Event]:
        """What happened since the last call."""
        taken, self._events = self._events, []
        return taken

    def _send(
        self,
        packet: Packet,
        interface: str | None = None,
        after_datapath: bool = False,
        link_layer_address: bytes = b"",
        answers: Packet | None = None,
    ) -> None:
        self._transmissions.append(
            Transmission(packet, interface, after_datapath, link_layer_address, answers)
        )

    def _note(self, name: str, **fields: Any) -> None:
        self._events.append(Event(name, fields))

    def _drop(self, packet: Packet, reason: str) -> None:
        self._note("message-dropped", source=str(packet.source), reason=reason)

    def _answer_unrecognised(self, packet: Packet, now: float) -> None:
        """RFC 6275 §9.2: an unknown Mobility Header type is answered with a Binding Error, status 2."""
        self._drop(packet, f"unknown Mobility Header type {packet.message.type}")
        if is_unicast_routable(packet.source) and self._refusals.allows(packet.source, now):
            home_address = packet.home_address or IPv6Address(0)
            error = BindingError(BindingErrorStatus.UNRECOGNIZED_MH_TYPE, home_address)
            self._send(Packet(packet.destination, packet.source, error))
