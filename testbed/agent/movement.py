"""Movement detection (RFC 6275 §11.5.1): which care-of address and router an interface has, if any.

Classes: `Attachment`, `Advertised`, `AccessLink`. No I/O: told what the kernel reports and what routers
advertise.
"""

import math
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from testbed.agent.netlink import Address, Link

#: A router in use is asked whether it is still there once in so many seconds at most.
DOUBT_S = 5.0
#: So many advertisements of the router in use that have not come are a reason to ask it.
MISSED_ADVERTISEMENTS = 3


@dataclass(frozen=True, slots=True)
class Attachment:
    """A point of attachment: the care-of address and the default router through which it works."""

    care_of_address: IPv6Address
    gateway: IPv6Address


@dataclass(frozen=True, slots=True)
class Advertised:
    """What a router has advertised of itself: the prefixes for addresses, until when it is a default router
    (the kernel says nothing when that is over), a global address of its own, and how often it advertises at
    least, in seconds (RFC 6275 §7.3)."""

    prefixes: tuple[IPv6Network, ...] = ()
    until: float = math.inf
    global_address: IPv6Address | None = None
    interval_s: float = math.inf


class AccessLink:
    """One interface of a mobile node, and where it is attached.

    At the start, the addresses and routers that the kernel has are used at once; of addresses, which stay
    valid for long after their network was left, the one whose lifetime was renewed last. After the link was
    lost and gained they may be those of another network: they are used again once their router has answered,
    or has advertised their prefix (RFC 6275 §11.5.1: an L2 handover may or may not imply an L3 handover). If
    what another router advertises does not confirm them, the node has moved, and only what routers have
    advertised since then counts; that another one answers says nothing of addresses that were formed for what
    routers advertise. While the address for such a prefix is not usable yet, there is no attachment.

    Another router that turns up is no reason to leave the one in use as long as that answers: it may be one
    more on the link, or the only one on the next. A router is told from another with the same link-local
    address by its global address, where advertisements have it (Router Address bit).
    """

    def __init__(self, home_address: IPv6Address) -> None:
        self.current: Attachment | None = None
        self._home_address = home_address
        self._last: Attachment | None = None
        self._heard: dict[IPv6Address, tuple[IPv6Network, ...]] = {}
        self._until: dict[IPv6Address, float] = {}
        self._global: dict[IPv6Address, IPv6Address] = {}
        #: By link-local address: who uses the address of a router that is still in use.
        self._namesakes: dict[IPv6Address, Advertised] = {}
        self._failed: set[IPv6Address] = set()
        self._departed: set[IPv6Network] = set()
        #: Routers that have been heard since the one in use was.
        self._since: set[IPv6Address] = set()
        self._is_doubtful = False
        self._doubted_at = -math.inf
        self._has_changed = False
        #: The router in use before the link changed, and where to ask it; which routers have answered since.
        self._former: tuple[IPv6Address, IPv6Address] | None = None
        self._answered: set[IPv6Address] = set()
        self._unverified: IPv6Address | None = None
        self._asked: set[IPv6Address] = set()
        #: When the router in use, by its link-local address, has missed too many advertisements.
        self._overdue: dict[IPv6Address, float] = {}

    @property
    def router_heard(self) -> bool:
        """Whether a router has been heard since the link was lost or gained."""
        return bool(self._heard)

    def link_changed(self) -> None:
        """The link was lost or gained: it may lead to another network now."""
        self._has_changed = True
        if self.current is not None:
            gateway = self.current.gateway
            self._former = gateway, self._global.get(gateway, gateway)
        for known in (self._heard, self._global, self._namesakes, self._failed, self._since, self._departed):
            known.clear()
        for known in (self._answered, self._asked, self._overdue):
            known.clear()
        self._is_doubtful = False

    def advertised(self, router: IPv6Address, news: Advertised, now: float = 0.0) -> None:
        """`router` has advertised itself as a default router, at a time on the clock of `update`."""
        global_address = news.global_address
        in_use = self.current.gateway if self.current else None
        if router == in_use and None not in (global_address, self._global.get(router)):
            if global_address != self._global[router]:
                self._namesakes[router] = news
                self._is_doubtful = True
                return
        if router == in_use:
            self._since.clear()
        elif in_use is not None:
            self._is_doubtful |= router in self._since or router not in self._heard
            self._since.add(router)
        self._overdue[router] = now + MISSED_ADVERTISEMENTS * news.interval_s
        self._believe(router, news)

    def _believe(self, router: IPv6Address, advertised: Advertised) -> None:
        self._failed.discard(router)
        self._departed.difference_update(advertised.prefixes)
        self._until[router] = advertised.until
        self._heard[router] = advertised.prefixes
        if advertised.global_address is not None:
            self._global[router] = advertised.global_address

    @property
    def doubtful_from(self) -> float:
        """When the router in use is to be asked if it is not heard up to then (RFC 6275 §11.5.1)."""
        overdue = self._overdue.get(self.current.gateway, math.inf) if self.current else math.inf
        return max(overdue, self._doubted_at + DOUBT_S)

    def doubted(self, now: float) -> IPv6Address | None:
        """The address at which to ask the router in use whether it is still there, None without a reason."""
        if self.current is None or now - self._doubted_at < DOUBT_S:
            return None
        if not self._is_doubtful and now < self.doubtful_from:
            return None
        self._is_doubtful = False
        self._doubted_at = now
        return self._global.get(self.current.gateway, self.current.gateway)

    def found(self, address: IPv6Address, is_reachable: bool) -> None:
        """Whether somebody answers at this address; takes effect with `update`."""
        known = list(self._global.items())
        if self._former is not None and self._former[0] not in self._heard:
            known.append(self._former)
        routers = [router for router, its in known if its == address] or [address]
        for router in routers:
            if is_reachable:
                self._answered.add(router)
                self._failed.discard(router)
                if address == self._global.get(router):  # a link-local address does not tell who it is
                    self._namesakes.pop(router, None)
            elif router in self._namesakes:
                self._believe(router, self._namesakes.pop(router))
            elif router in self._until or (self.current and router == self.current.gateway):
                self._failed.add(router)
                self._heard.pop(router, None)

    def update(self, link: Link | None, now: float) -> bool:
        """Look at the link anew, at a time on the clock of `advertised`; returns whether `current` has
        changed."""
        before = self.current
        self.current = self._choose(link, now) if link is not None and link.up else None
        self._last = self.current or self._last
        return self.current != before

    def to_be_verified(self) -> IPv6Address | None:
        """The address at which to ask whether a router is still there that has been in use before the link
        changed, once for each; None: there is nothing to ask."""
        router = self._unverified
        if router is None or router in self._asked:
            return None
        self._asked.add(router)
        former = dict([self._former] if self._former else ())
        return former.get(router, router)

    @property
    def failed_routers(self) -> set[IPv6Address]:
        """Routers that have not answered."""
        return set(self._failed)

    def departed_routers(self, link: Link) -> list[IPv6Address]:
        """Default routers that have not been heard since the link changed, though the one in use has: they
        are in another network, and the kernel had better forget them (RFC 6275 §11.5.1)."""
        if not self._has_left():
            return []
        gone = self._failed if not self._has_changed else link.gateways.keys() - self._heard.keys()
        return [router for router in link.gateways if router in gone]

    def departed_networks(self, link: Link) -> list[IPv6Network]:
        """Prefixes of addresses that routers of another network have advertised: they are not on this link,
        whatever the kernel thinks. Each is told once."""
        if not self._has_left():
            return []
        here = [prefix for prefixes in self._heard.values() for prefix in prefixes]
        formed = {a.network for a in link.addresses.values() if a.is_global and a.is_formed}
        gone = [network for network in formed - self._departed if network not in here]
        self._departed.update(gone)
        return gone

    def _has_left(self) -> bool:
        """Whether a router has been heard that is in use now instead of another one."""
        in_use = self.current.gateway if self.current else None
        return in_use in self._heard and (self._has_changed or bool(self._failed))

    def _choose(self, link: Link, now: float) -> Attachment | None:
        routers = sorted(link.gateways, key=link.gateways.__getitem__)  # by metric, else as they were learned
        pairs = [
            (address, router)
            for address in sorted(link.addresses.values(), key=lambda known: -known.renewed_at)
            if address.is_global and not self._is_put_there(address)
            for router in routers
            if self._until.get(router, now) >= now and router not in self._failed
        ]
        confirmed = [pair for pair in pairs if self._confirmed(*pair)]
        chosen = self._prefer(confirmed or [pair for pair in pairs if not self._denied(*pair)])
        doubtful = self._has_changed and not confirmed
        self._unverified = chosen.gateway if chosen and doubtful else None
        return chosen if not doubtful or chosen == self.current else None

    def _prefer(self, pairs: list[tuple[Address, IPv6Address]]) -> Attachment | None:
        """What was in use last, if it still can be."""
        possible = [Attachment(address.address, router) for address, router in pairs if address.usable]
        for known in (self.current, self._last):
            if known in possible:
                return known
        return possible[0] if possible else None

    def _is_put_there(self, address: Address) -> bool:
        """Whether it is the home address as an agent puts it on an interface, which says nothing of the link.
        With a prefix, routers have had the kernel form it: the link is the home link."""
        return address.address == self._home_address and address.network.prefixlen == 128

    def _confirmed(self, address: Address, router: IPv6Address) -> bool:
        """Whether the router has advertised a prefix of the address since the link changed, or has answered
        and advertised none at all. One that has not advertised anything yet is the router that was in use
        before, or may advertise the prefix of another address."""
        prefixes = self._heard.get(router)
        if prefixes:
            return any(address.address in prefix for prefix in prefixes)
        former = self._last.gateway if self._last else router
        may_tell = router == former or prefixes is not None or not address.is_formed
        return self._has_changed and router in self._answered and may_tell

    def _denied(self, address: Address, router: IPv6Address) -> bool:
        """Whether the router has advertised other prefixes than that which the address was formed for. What
        is in use is used until there is something else."""
        if not address.is_formed or Attachment(address.address, router) == self.current:
            return False
        prefixes = self._heard.get(router, ())
        return bool(prefixes) and not any(address.address in prefix for prefix in prefixes)
