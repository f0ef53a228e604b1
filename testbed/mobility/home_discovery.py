"""What a mobile node finds out about its home link from far away (RFC 6275 §11.4).

Classes: `HomeAgentDiscovery`, `PrefixDiscovery`.
"""

import os
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

from testbed.mobility.role import Timers
from testbed.wire.icmpv6 import (
    HomeAgentAddressDiscoveryReply,
    HomeAgentAddressDiscoveryRequest,
    MobilePrefixAdvertisement,
    MobilePrefixSolicitation,
    home_agents_anycast,
)
from testbed.wire.packet import Packet
from testbed.wire.router_advertisement import PrefixInformation

# RFC 6275 §12
INITIAL_DHAAD_TIMEOUT, DHAAD_RETRIES = 3.0, 4
INITIAL_SOLICIT_TIMER, MAX_SOLICIT_TIMER = 3.0, 3600.0
#: A home prefix is asked for anew when this part of its valid lifetime is over.
SOLICIT_AT = 0.8

DISCOVER, SOLICIT = ("discover", None), ("solicit", None)  #: keys of timers


class HomeAgentDiscovery:
    """Finds the home agents of a home link, and goes through them one after the other (RFC 6275 §11.4.1).

    `care_of_address()`: where requests are sent from, None if there is nowhere; `send(packet)`. Nothing is
    sent while `care_of_address` gives none: `wanted` tells that there is something to send.
    """

    def __init__(
        self,
        home_prefix: IPv6Network,
        mobile_router: bool,
        timers: Timers,
        care_of_address: Callable[[], IPv6Address | None],
        send: Callable[[Packet], bool],
        note: Callable[..., None],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._anycast = home_agents_anycast(home_prefix)
        self._mobile_router = mobile_router
        self._timers = timers
        self._care_of_address = care_of_address
        self._send = send
        self._note = note
        self._random = random
        self._identifier: int | None = None
        self._tries = 0
        self._candidates: list[IPv6Address] = []

    @property
    def under_way(self) -> bool:
        """Whether a request waits for its reply."""
        return self._identifier is not None

    def start(self, now: float) -> None:
        """Ask, unless that is under way."""
        if self.under_way or self._care_of_address() is None:
            return
        self._identifier = int.from_bytes(self._random(2), "big")
        self._tries = 0
        self._request(now)

    def _request(self, now: float) -> None:
        care_of_address = self._care_of_address()
        if care_of_address is not None:
            message = HomeAgentAddressDiscoveryRequest(self._identifier, self._mobile_router)
            if self._send(Packet(care_of_address, self._anycast, message)):
                self._note("home-agent-discovery-sent", address=str(self._anycast))
        self._timers.set(DISCOVER, now + INITIAL_DHAAD_TIMEOUT * 2**self._tries)

    def handle_timer(self, now: float) -> None:
        """Ask again, up to DHAAD_RETRIES times; then wait for the next movement."""
        if self._identifier is None:
            return self.start(now)
        self._tries += 1
        if self._tries > DHAAD_RETRIES:
            self._identifier = None
            self._note("home-agent-discovery-failed", address=str(self._anycast))
        else:
            self._request(now)

    def replied(self, packet: Packet, message: HomeAgentAddressDiscoveryReply) -> str | None:
        """Take the list; the reason if it is dropped."""
        if message.identifier != self._identifier:
            return "not the Home Agent Address Discovery Reply that is waited for"
        # RFC 6275 §11.4.1; RFC 3963 §7.2: none of these serves mobile routers
        if self._mobile_router and not message.mobile_router:
            return "no home agent that serves mobile routers (RFC 3963 §7.2)"
        self._identifier = None
        self._timers.cancel(DISCOVER)
        self._candidates = list(message.addresses) or [packet.source]
        self._note("home-agents-discovered", addresses=[str(address) for address in self._candidates])
        return None

    def next(self) -> IPv6Address | None:
        """The home agent to try next, in the order of the list; None if all have been tried."""
        return self._candidates.pop(0) if self._candidates else None

    def again(self, when: float) -> None:
        """All have been tried: ask anew at `when`."""
        self._timers.set(DISCOVER, when)


class PrefixDiscovery:
    """Asks for the prefixes of the home link, and remembers them (RFC 6275 §11.4.2, §11.4.3).

    `send(message)` sends to the home agent with a Home Address option, and returns whether it could.
    """

    def __init__(
        self,
        home_address: IPv6Address,
        timers: Timers,
        send: Callable[[MobilePrefixSolicitation], bool],
        note: Callable[..., None],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._home_address = home_address
        self._timers = timers
        self._send = send
        self._note = note
        self._random = random
        self._identifier: int | None = None
        self._timeout = INITIAL_SOLICIT_TIMER
        #: What was advertised last, and when.
        self.prefixes: tuple[PrefixInformation, ...] = ()
        self._heard_at = 0.0

    def solicit(self, now: float) -> None:
        """Ask, unless that is under way."""
        if self._identifier is None:
            self._identifier = int.from_bytes(self._random(2), "big")
            self._timeout = INITIAL_SOLICIT_TIMER
            self._transmit(now)

    def handle_timer(self, now: float) -> None:
        """Ask (again, ever more rarely)."""
        if self._identifier is None:
            return self.solicit(now)
        self._timeout = min(2 * self._timeout, MAX_SOLICIT_TIMER)
        self._transmit(now)

    def _transmit(self, now: float) -> None:
        if self._send(MobilePrefixSolicitation(self._identifier)):
            self._note("mobile-prefix-solicitation-sent", identifier=self._identifier)
        self._timers.set(SOLICIT, now + self._timeout)

    def stop(self) -> None:
        """There is no home agent to ask any more."""
        self._identifier = None
        self._timers.cancel(SOLICIT)

    def advertised(self, message: MobilePrefixAdvertisement, now: float) -> None:
        """Take an advertisement of the home agent. One that was not asked for is answered by asking: the
        answer to that cannot be forged by somebody who does not see our messages."""
        if message.identifier != self._identifier:
            return self.solicit(now)
        self._identifier = None
        self._timers.cancel(SOLICIT)
        self.prefixes, self._heard_at = message.prefixes, now
        self._note(
            "home-prefixes-advertised",
            prefixes={str(p.prefix): [p.valid_lifetime_s, p.preferred_lifetime_s] for p in message.prefixes},
        )
        own = self._own()
        if own is not None and 0 < own.valid_lifetime_s < 0xFFFFFFFF:
            self._timers.set(SOLICIT, now + max(1.0, SOLICIT_AT * own.valid_lifetime_s))

    def _own(self) -> PrefixInformation | None:
        return next((prefix for prefix in self.prefixes if self._home_address in prefix.prefix), None)

    def remaining_s(self, now: float) -> float:
        """How long the home address is still valid, as far as is known."""
        own = self._own()
        if own is None or own.valid_lifetime_s == 0xFFFFFFFF:
            return float("inf")
        return max(0.0, self._heard_at + own.valid_lifetime_s - now)
