"""What one call into a role was followed by, until it is recorded. Class: `Step`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from testbed.mobility.role import Event, Transmission


@dataclass(slots=True)
class Step:
    """A call at `now`, seconds on the monotonic clock.

    `received`: when the kernel got the message that it was about. `sent`: when each message went out; the
    role notes a "…-sent" for each, in the same order (but for Binding Errors, which it does not note).
    `held`: what waits for the datapath.
    """

    now: float
    received: float | None
    sent: list[float]
    held: list[Transmission]
    events: list[Event]

    def happened(self) -> Iterator[tuple[float, str, dict[str, Any]]]:
        """The events with the times when they happened: time, name, fields."""
        instants = iter(self.sent)
        for event in self.events:
            t = self.now
            if event.name.endswith("-sent"):
                t = next(instants, t)
            elif event.name.endswith("-received") and self.received is not None:
                t = self.received
            yield t, event.name, event.fields
