"""Movement detection (RFC 6275 §11.5.1): which care-of address and router an interface has, if any.

Classes: `Attachment`, `AccessLink`. No I/O: told what the kernel reports and what routers advertise.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from testbed.agent.netlink import Address, Link


@dataclass(frozen=True, slots=True)
class Attachment:
    """A point of attachment: the care-of address and the default router through which it works."""

    care_of_address: IPv6Address
    gateway: IPv6Address


class AccessLink:
    """One interface of a mobile node, and where it is attached.

    At the start, and after the link was lost and gained, the kernel may still have the addresses and routers
    of another network. They are used at once, which is right if the network is the same, until a router is
    heard: if what it advertises does not confirm them, the node has moved, and only what routers have
    advertised since then counts. While the address for such a prefix is not usable yet, there is no
    attachment.
    """

    def __init__(self, home_address: IPv6Address) -> None:
        self.current: Attachment | None = None
        self._home_address = home_address
        self._last: Attachment | None = None
        self._heard: dict[IPv6Address, tuple[IPv6Network, ...]] = {}
        self._until: dict[IPv6Address, float] = {}
        self._has_changed = False

    @property
    def router_heard(self) -> bool:
        """Whether a router has been heard since the link was lost or gained."""
        return bool(self._heard)

    def link_changed(self) -> None:
        """The link was lost or gained: it may lead to another network now."""
        self._has_changed = True
        self._heard.clear()

    def advertised(
        self, router: IPv6Address, prefixes: tuple[IPv6Network, ...], until: float = float("inf")
    ) -> None:
        """`router` has advertised itself as a default router, with these prefixes for addresses, up to the
        time `until`. The kernel says nothing when that is over."""
        self._until[router] = until
        self._heard[router] = prefixes

    def update(self, link: Link | None, now: float) -> bool:
        """Look at the link anew, at a time on the clock of `advertised`; returns whether `current` has
        changed."""
        before = self.current
        self.current = self._choose(link, now) if link is not None and link.up else None
        self._last = self.current or self._last
        return self.current != before

    def departed_routers(self, link: Link) -> list[IPv6Address]:
        """Default routers that have not been heard since the link changed, though the one in use has: they
        are in another network, and the kernel had better forget them (RFC 6275 §11.5.1)."""
        in_use = self.current.gateway if self.current else None
        if not self._has_changed or in_use not in self._heard:
            return []
        return [router for router in link.gateways if router not in self._heard]

    def _choose(self, link: Link, now: float) -> Attachment | None:
        routers = sorted(link.gateways, key=link.gateways.__getitem__)  # by metric, else as they were learned
        pairs = [
            (address, router)
            for address in link.addresses.values()
            if address.is_global and address.address != self._home_address
            for router in routers
            if self._until.get(router, now) >= now
        ]
        pairs = [pair for pair in pairs if self._confirmed(*pair)] or pairs
        possible = [Attachment(address.address, router) for address, router in pairs if address.usable]
        for known in (self.current, self._last):
            if known in possible:
                return known
        return possible[0] if possible else None

    def _confirmed(self, address: Address, router: IPv6Address) -> bool:
        return any(address.address in prefix for prefix in self._heard.get(router, ()))
