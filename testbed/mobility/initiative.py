"""Which routes a mobile node optimises of its own accord (RFC 6275 §11.7.2). Class: `Initiative`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address

from testbed.mobility.binding import is_unicast_routable
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.rate_limit import RateLimit

#: New correspondent nodes in a second.
MAX_NEW_PER_S = 5
#: How long one may take to answer, in seconds: three tests, with their back-off. Of the time since the last
#: look, LOOK_S counts at most: for the rest this machine stood still, and took no answers either.
PATIENCE_S, LOOK_S = 7.0, 1.0
#: How long one that has not answered, or knows nothing of mobility, is left alone, in seconds; and how many.
LEFT_ALONE_S, MAX_LEFT_ALONE = 300.0, 1000
#: A route that has not carried a packet of ours for so many seconds is given up.
IDLE_S = 420.0


@dataclass(slots=True)
class _Route:
    looked_at: float
    used_at: float
    silent_s: float = 0.0
    packets: int = 0


class Initiative:
    """Begins with correspondent nodes whose packets come through the home agent, `maximum` of them at most,
    and ends with those that do not answer or are not talked to any more. What its user asks for stays."""

    def __init__(self, mobile: MobileNode, maximum: int) -> None:
        self._mobile = mobile
        self._maximum = maximum
        self._rate = RateLimit(MAX_NEW_PER_S, MAX_NEW_PER_S)
        self._begun: dict[IPv6Address, _Route] = {}
        self._left_alone: dict[IPv6Address, float] = {}

    def heard(self, peers: Iterable[IPv6Address], now: float) -> bool:
        """Packets have come through the tunnel from these nodes; whether that changes anything."""
        mobile, begun = self._mobile, False
        if not mobile.registered or mobile.home_interface is not None:
            return False
        for peer in peers:
            if self._is_new(peer, now) and self._rate.allows(peer, now):
                self._begun[peer] = _Route(now, now)
                mobile.optimise(peer, now, of_its_own_accord=True)
                begun = True
        return begun

    def _is_new(self, peer: IPv6Address, now: float) -> bool:
        mobile = self._mobile
        return (
            len(self._begun) < self._maximum
            and self._left_alone.get(peer, now) <= now
            and peer not in mobile.optimiser.correspondents
            and peer not in (mobile.home_agent, mobile.configuration.home_address)
            and is_unicast_routable(peer)
        )

    def look(self, carried: Mapping[IPv6Address, int], now: float) -> bool:
        """`carried`: packets that each route has taken since it is there. Whether that changes anything.
        Wants to be called each LOOK_S at least."""
        if self._mobile.home_interface is not None:  # nothing is optimised there
            self._begun.clear()
            return False
        for peer in self._mobile.begun - self._begun.keys():  # in an earlier life, or before it was at home
            self._begun[peer] = _Route(now, now)
        ended = [peer for peer in list(self._begun) if self._ends(peer, carried.get(peer, 0), now)]
        for peer in ended:
            del self._begun[peer]
            if peer in self._mobile.begun:
                self._mobile.stop_optimising(peer, now)
        self._left_alone = {peer: until for peer, until in self._left_alone.items() if until > now}
        return bool(ended)

    def _ends(self, peer: IPv6Address, packets: int, now: float) -> bool:
        route, registration = self._begun[peer], self._mobile.optimiser.correspondents.get(peer)
        if registration is None or peer not in self._mobile.begun:
            return True  # somebody else has ended it, or has asked for it
        route.silent_s += min(now - route.looked_at, LOOK_S)
        route.looked_at = now
        if registration.known_to_peer:
            route.silent_s = 0.0
        if packets != route.packets:
            route.packets, route.used_at = packets, now
        if route.silent_s > PATIENCE_S or registration.is_unsupported:
            if len(self._left_alone) < MAX_LEFT_ALONE:
                self._left_alone[peer] = now + LEFT_ALONE_S
            return True
        return now - route.used_at > IDLE_S
