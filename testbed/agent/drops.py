"""Messages that an agent cannot use: counted, reported up to a rate, answered where the RFC says so.

Class: `Drops`.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from testbed.agent.events import EventLog
from testbed.mobility.binding import is_unicast_routable
from testbed.mobility.rate_limit import RateLimit
from testbed.wire.error import ParseError
from testbed.wire.parameter_problem import parameter_problem

logger = logging.getLogger(__name__)

#: Reports of dropped messages: so many at once, then so many a second; all are counted.
REPORTS_BURST, REPORTS_PER_S = 20, 1
#: Messages that are looked at from one /64 in a second after which all the others are bad: a sender of this
#: many floods us, and gets no more than its share of the agent's time.
MAX_BAD_MESSAGES_PER_SENDER_PER_S = 2000
#: How many bad messages a second are remembered, whoever sent them.
MAX_SENDERS = 100_000
#: ICMPv6 Parameter Problems a second: to all senders, to one /64 (RFC 4443 §2.4).
MAX_PROBLEMS_PER_S, MAX_PROBLEMS_PER_SENDER_PER_S = 100, 10


class Drops:
    """`counters` counts them: malformed, dropped (by the role), flooded, problems sent. `send(packet, source,
    destination)` sends an answer, and raises OSError."""

    def __init__(
        self,
        counters: Counter[str],
        events: EventLog,
        send: Callable[[bytes, IPv6Address, IPv6Address], None],
        now: float,
    ) -> None:
        self._counters = counters
        self._events = events
        self._send = send
        self._bad = RateLimit(MAX_SENDERS, MAX_BAD_MESSAGES_PER_SENDER_PER_S)
        self._problems = RateLimit(MAX_PROBLEMS_PER_S, MAX_PROBLEMS_PER_SENDER_PER_S)
        self._reports = float(REPORTS_BURST)
        self._reported_at = now
        self._unreported = 0

    def floods(self, data: bytes, now: float) -> bool:
        """Whether the sender of this packet has sent too many bad ones to be looked at; counted."""
        if len(data) < 24 or not self._bad.exhausted(IPv6Address(data[8:24]), now):
            return False
        self._counters["flooded"] += 1
        return True

    def malformed(self, data: bytes, error: ParseError, now: float) -> None:
        """A packet cannot be parsed. Its sender is told which field is at fault (RFC 6275 §9.2, RFC 4443
        §3.4), no matter what bindings there are."""
        source = str(IPv6Address(data[8:24])) if len(data) >= 24 else ""
        self.count("malformed", now, source=source, reason=error.reason)
        if error.pointer is not None:
            self._tell_sender(data, error, now)
        self._events.flush()

    def _tell_sender(self, data: bytes, error: ParseError, now: float) -> None:
        """What has no unicast source, or there is too much of, gets no answer (RFC 4443 §2.4)."""
        source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
        answerable = is_unicast_routable(source) and is_unicast_routable(destination)
        if not answerable or not self._problems.allows(source, now):
            return
        try:
            self._send(parameter_problem(data, error.code, error.pointer), destination, source)
        except OSError as failure:
            logger.info("no Parameter Problem to %s: %s", source, failure.strerror)
            return
        self._counters["problems_sent"] += 1
        fields = {"destination": str(source), "code": error.code, "pointer": error.pointer}
        self._events.record("parameter-problem-sent", time.monotonic(), **fields)

    def count(self, kind: str, now: float, **fields: Any) -> None:
        """Count a dropped message, and report it unless there are too many. `fields`: its reason, and its
        source where that is known."""
        self._counters[kind] += 1
        if fields.get("source"):
            self._bad.allows(IPv6Address(fields["source"]), now)
        elapsed, self._reported_at = now - self._reported_at, now
        self._reports = min(REPORTS_BURST, self._reports + elapsed * REPORTS_PER_S)
        if self._reports < 1:
            self._unreported += 1
            return
        self._reports -= 1
        unreported, self._unreported = self._unreported, 0
        also = f" (and {unreported} others before)" if unreported else ""
        logger.warning("dropped a message from %s: %s%s", fields.get("source") or "?", fields["reason"], also)
        self._events.record("message-dropped", now, kind=kind, unreported=unreported, **fields)
