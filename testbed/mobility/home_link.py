"""What a home agent knows of its home link, and tells mobile nodes far away (RFC 6275 §10.5, §10.6).

Classes: `HomePrefix`, `HomeAgentsList`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from testbed.wire.router_advertisement import (
    INFINITE_S,
    HomeAgentInformation,
    PrefixInformation,
    RouterAdvertisement,
)

#: So many addresses fit a reply that any IPv6 link (1280 octets) passes untouched (RFC 6275 §10.5.1).
MAX_ADDRESSES = (1280 - 40 - 8) // 16


@dataclass(frozen=True, slots=True)
class HomePrefix:
    """A prefix of the home link, and until when it is valid and preferred, on the role's clock."""

    network: IPv6Network
    valid_until: float = float("inf")
    preferred_until: float = float("inf")

    def information(self, now: float) -> PrefixInformation:
        """How it is advertised (RFC 6275 §6.8)."""
        valid, preferred = _seconds(self.valid_until - now), _seconds(self.preferred_until - now)
        return PrefixInformation(
            self.network.network_address, self.network.prefixlen, valid, min(valid, preferred)
        )


def _seconds(remaining: float) -> int:
    return INFINITE_S if remaining >= INFINITE_S else max(0, int(remaining))


@dataclass(slots=True)
class _HomeAgent:
    preference: int
    expires: float
    addresses: list[IPv6Address] = field(default_factory=list)


class HomeAgentsList:
    """The home agents of the home link, this one included (RFC 6275 §10.5.1).

    `shuffle` puts a list in random order, in place.
    """

    def __init__(
        self,
        address: IPv6Address,
        preference: int = 0,
        shuffle: Callable[[list], None] = random.shuffle,
    ) -> None:
        self._address = address
        self._preference = preference
        self._shuffle = shuffle
        self._others: dict[IPv6Address, _HomeAgent] = {}

    def heard(self, router: IPv6Address, advertisement: RouterAdvertisement, now: float) -> None:
        """`router`, a link-local address, has advertised itself on the home link."""
        information = advertisement.option(HomeAgentInformation)
        lifetime_s = information.lifetime_s if information else advertisement.router_lifetime_s
        if not advertisement.home_agent or lifetime_s == 0:
            self._others.pop(router, None)
            return
        known = self._others.setdefault(router, _HomeAgent(0, 0.0))
        known.preference = information.preference if information else 0
        known.expires = now + lifetime_s
        for option in advertisement.all_options(PrefixInformation):
            if option.router_address and option.address not in known.addresses:
                known.addresses.append(option.address)

    def addresses(self, now: float) -> tuple[IPv6Address, ...]:
        """All, by falling preference, those of equal preference in random order."""
        self._others = {router: known for router, known in self._others.items() if known.expires > now}
        agents = [_HomeAgent(self._preference, now, [self._address]), *self._others.values()]
        self._shuffle(agents)
        agents.sort(key=lambda agent: -agent.preference)
        listed: list[IPv6Address] = []
        for agent in agents:
            self._shuffle(agent.addresses)
            listed += [address for address in agent.addresses if address not in listed]
        return tuple(listed[:MAX_ADDRESSES])
