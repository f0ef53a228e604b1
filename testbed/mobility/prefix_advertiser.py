"""How a home agent tells mobile nodes away from home of the prefixes of their home link (RFC 6275 §10.6).

Class: `PrefixAdvertiser`.
"""

import random
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, IPv6Network

from testbed.mobility.binding_cache import BindingCache, CacheEntry
from testbed.mobility.home_link import HomePrefix
from testbed.mobility.role import Timers
from testbed.wire.icmpv6 import MobilePrefixAdvertisement, MobilePrefixSolicitation
from testbed.wire.packet import Packet

# RFC 6275 §12, §13; seconds
PREFIX_ADV_RETRIES, PREFIX_ADV_TIMEOUT = 3, 3.0
MIN_MOB_PFX_ADV_INTERVAL, MAX_MOB_PFX_ADV_INTERVAL = 600.0, 86400.0
#: No more than one advertisement a second to any mobile node (RFC 6275 §6.8).
LEAST_INTERVAL = 1.0


class PrefixAdvertiser:
    """Holds the prefixes of the home link, and sends them to mobile nodes that ask, or have to know.

    `interval_s`: the least and greatest delay of what nobody has asked for. Timers have keys ("prefixes",
    home address).
    """

    def __init__(
        self,
        prefixes: Iterable[HomePrefix],
        cache: BindingCache,
        timers: Timers,
        send: Callable[[Packet], None],
        note: Callable[..., None],
        interval_s: tuple[float, float] = (MIN_MOB_PFX_ADV_INTERVAL, MAX_MOB_PFX_ADV_INTERVAL),
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.prefixes = {prefix.network: prefix for prefix in prefixes}
        self._sort()
        self._cache = cache
        self._timers = timers
        self._send = send
        self._note = note
        self._interval_s = interval_s
        self._uniform = uniform
        self._sent: dict[IPv6Address, float] = {}
        #: Solicitations that wait: care-of address and identifier.
        self._asked: dict[IPv6Address, tuple[IPv6Address, int]] = {}
        #: Unsolicited advertisements that have not been answered: how often each was sent.
        self._unanswered: dict[IPv6Address, int] = {}

    def _sort(self) -> None:
        """Of addresses in several prefixes the longest counts. Bits behind it, and what is left then."""
        sorted_prefixes = sorted(self.prefixes.values(), key=lambda prefix: -prefix.network.prefixlen)
        shifts = [(128 - prefix.network.prefixlen, prefix) for prefix in sorted_prefixes]
        self._longest_first = [(s, int(p.network.network_address) >> s, p) for s, p in shifts]

    def prefix_of(self, home_address: IPv6Address) -> HomePrefix | None:
        """The home prefix that a home address is from."""
        number = int(home_address)
        for shift, start, prefix in self._longest_first:
            if number >> shift == start:
                return prefix
        return None

    def change(self, prefix: HomePrefix, now: float) -> None:
        """A prefix is new on the home link, or its lifetimes have changed: tell all mobile nodes in time."""
        new = prefix.network not in self.prefixes
        self.prefixes[prefix.network] = prefix
        self._sort()
        for entry in self._cache:
            if entry.bindings and (new or entry.home_address in prefix.network):
                self._schedule(entry.home_address, prefix, now)

    def _schedule(self, home_address: IPv6Address, prefix: HomePrefix, now: float) -> None:
        least, most = self._interval_s
        most = max(least, min(most, prefix.preferred_until - now))
        self._unanswered[home_address] = 0
        self._timers.set(("prefixes", home_address), now + self._uniform(least, most))

    def solicited(self, packet: Packet, message: MobilePrefixSolicitation, now: float) -> str | None:
        """Answer right away, or as soon as may be; the reason if it is dropped instead."""
        entry = self._cache.get(packet.home_address) if packet.home_address else None
        if entry is None or packet.source not in {b.care_of_address for b in entry.bindings.values()}:
            return "Mobile Prefix Solicitation without a binding (RFC 6275 §9.3.1)"
        self._unanswered.pop(entry.home_address, None)
        self._timers.cancel(("prefixes", entry.home_address))
        earliest = self._sent.get(entry.home_address, float("-inf")) + LEAST_INTERVAL
        if now < earliest:
            self._asked[entry.home_address] = packet.source, message.identifier
            self._timers.set(("prefixes", entry.home_address), earliest)
            return None
        self._advertise(entry, packet.source, message.identifier, now)
        return None

    def handle_timer(self, entry: CacheEntry, now: float) -> None:
        """Send what is due to a mobile node, and again if it does not answer."""
        abroad = entry.reachable_abroad()  # on the home link, its router advertises them
        if entry.home_address in self._asked:
            return self._advertise(entry, *self._asked.pop(entry.home_address), now)
        times = self._unanswered.get(entry.home_address)
        if abroad is None or times is None:
            return
        self._advertise(entry, abroad.care_of_address, 0, now)
        if times < PREFIX_ADV_RETRIES:
            self._unanswered[entry.home_address] = times + 1
            wait = PREFIX_ADV_TIMEOUT * 2**times
            self._timers.set(("prefixes", entry.home_address), now + wait)
        else:
            del self._unanswered[entry.home_address]

    def forget(self, home_address: IPv6Address) -> None:
        """Its bindings are gone."""
        self._sent.pop(home_address, None)
        self._asked.pop(home_address, None)
        self._unanswered.pop(home_address, None)
        self._timers.cancel(("prefixes", home_address))

    def _advertise(self, entry: CacheEntry, care_of: IPv6Address, identifier: int, now: float) -> None:
        valid = [prefix for prefix in self.prefixes.values() if prefix.valid_until > now]
        message = MobilePrefixAdvertisement(identifier, tuple(prefix.information(now) for prefix in valid))
        self._send(Packet(entry.local, care_of, message, routing_address=entry.home_address))
        self._sent[entry.home_address] = now
        self._note("mobile-prefix-advertisement-sent", home_address=str(entry.home_address))


def permanent(networks: Iterable[IPv6Network]) -> list[HomePrefix]:
    """Prefixes that stay."""
    return [HomePrefix(network) for network in networks]
