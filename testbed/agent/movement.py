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


@dataclass(frozen=True, slots=True)
class Attachment:
    """A point of attachment: the care-of address and the default router through which it works."""

    care_of_address: IPv6Address
    gateway: IPv6Address


@dataclass(frozen=True, slots=True)
class Advertised:
    """What a router has advertised of itself."""

    prefixes: tuple[IPv6Network, ...]
    until: float
    global_address: IPv6Address | None


class AccessLink:
    """One interface of a mobile node, and where it is attached.

    At the start, and after the link was lost and gained, the kernel may still have the addresses and routers
    of another network. They are used at once, which is right if the network is the same, until a router is
    heard: if what it advertises does not confirm them, the node has moved, and only what routers have
    advertised since then counts. While the address for such a prefix is not usable yet, there is no
    attachment.

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

    @property
    def router_heard(self) -> bool:
        """Whether a router has been heard since the link was lost or gained."""
        return bool(self._heard)

    def link_changed(self) -> None:
        """The link was lost or gained: it may lead to another network now."""
        self._has_changed = True
        for known in (self._heard, self._global, self._namesakes, self._failed, self._since, self._departed):
            known.clear()
        self._is_doubtful = False

    def advertised(
        self,
        router: IPv6Address,
        prefixes: tuple[IPv6Network, ...],
        until: float = math.inf,
        global_address: IPv6Address | None = None,
    ) -> None:
        """`router` has advertised itself as a default router, with these prefixes for addresses and this
        global address of its own, up to the time `until`. The kernel says nothing when that is over."""
        in_use = self.current.gateway if self.current else None
        news = Advertised(prefixes, until, global_address)
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
        self._believe(router, news)

    def _believe(self, router: IPv6Address, advertised: Advertised) -> None:
        self._failed.discard(router)
        self._departed.difference_update(advertised.prefixes)
        self._until[router] = advertised.until
        self._heard[router] = advertised.prefixes
        if advertised.global_address is not None:
            self._global[router] = advertised.global_address

    def doubted(self, now: float) -> IPv6Address | None:
        """The address at which to ask the router in use whether it is still there, None without a reason."""
        if self.current is None or not self._is_doubtful or now - self._doubted_at < DOUBT_S:
            return None
        self._is_doubtful = False
        self._doubted_at = now
        return self._global.get(self.current.gateway, self.current.gateway)

    def found(self, address: IPv6Address, is_reachable: bool) -> None:
        """Whether somebody answers at this address; takes effect with `update`."""
        routers = [router for router, known in self._global.items() if known == address] or [address]
        for router in routers:
            if is_reachable:
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
        formed = {a.network for a in link.addresses.values() if a.is_global and a.valid_until < math.inf}
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
            for address in link.addresses.values()
            if address.is_global and not self._is_put_there(address)
            for router in routers
            if self._until.get(router, now) >= now and router not in self._failed
        ]
        pairs = [pair for pair in pairs if self._confirmed(*pair)] or pairs
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
        return any(address.address in prefix for prefix in self._heard.get(router, ()))
