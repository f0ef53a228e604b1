"""Where the interfaces of a mobile node are attached, and how that is found out (RFC 6275 §11.5.1).

Class: `AccessLinks`.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from ipaddress import IPv6Address, IPv6Network

from testbed.agent.events import EventLog
from testbed.agent.movement import AccessLink, Advertised, Attachment
from testbed.agent.neighbour_discovery import (
    MAX_RTR_SOLICITATIONS,
    RTR_SOLICITATION_INTERVAL_S,
    NeighbourDiscoverySocket,
    RouterAdvertisement,
)
from testbed.agent.netlink import Change, Link, LinkMonitor, remove_default_router, remove_on_link_prefix
from testbed.agent.reachability import Reachability
from testbed.wire.router_advertisement import AdvertisementInterval

logger = logging.getLogger(__name__)


class AccessLinks:
    """Judges what the kernel reports and what routers advertise, and asks routers where that leaves a doubt.

    `guarded(callback, *arguments)` is what the event loop calls; `moved(attachments, now)` is told of
    interfaces that may be attached differently, None where one is not attached.
    """

    def __init__(
        self,
        interfaces: Iterable[str],
        home_address: IPv6Address,
        monitor: LinkMonitor,
        neighbours: NeighbourDiscoverySocket,
        events: EventLog,
        guarded: Callable[..., None],
        moved: Callable[[Mapping[str, Attachment | None], float], None],
    ) -> None:
        self._access = {name: AccessLink(home_address) for name in interfaces}
        self._monitor = monitor
        self._neighbours = neighbours
        self._events = events
        self._guarded = guarded
        self._moved = moved
        self._reachability = Reachability()
        #: What is to be done for an interface in its time: one timer for each kind and name.
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._introduced: dict[str, Attachment] = {}

    def __contains__(self, interface: str) -> bool:
        return interface in self._access

    def attachment(self, interface: str) -> Attachment | None:
        """Where an interface is attached now."""
        return self._access[interface].current

    def care_of_addresses(self) -> set[IPv6Address]:
        """Those that can be used now."""
        return {access.current.care_of_address for access in self._access.values() if access.current}

    def begin(self, now: float) -> None:
        """Look at where all interfaces are already."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._reachability.fileno(), self._guarded, self._hear_neighbours)
        self._monitor.read()
        for name in self._access:
            if self._monitor.link(name) is None:
                logger.warning("there is no interface %s yet; waiting for it", name)
            self._look(name, now)
            self._solicit(name)
        self._move(self._access, now)

    def close(self) -> None:
        """Ask and listen no more."""
        for handle in self._timers.values():
            handle.cancel()
        asyncio.get_running_loop().remove_reader(self._reachability.fileno())
        self._reachability.close()

    def changed(self, changes: Iterable[tuple[str, Change]], now: float) -> None:
        """The kernel has reported changes of interfaces, their addresses or routers."""
        changes = [(name, change) for name, change in changes if name in self._access]
        for name, change in changes:
            if change in (Change.LOST, Change.GAINED):
                self._events.record(f"link-{change.value}", now, interface=name)
                self._access[name].link_changed()
                self._introduced.pop(name, None)
        self._move([name for name, _ in changes if self._look(name, now)], now)
        for name, change in changes:
            if change is Change.GAINED:
                self._solicit(name)
        self._events.flush()

    def heard(self, name: str, advertisement: RouterAdvertisement, now: float) -> None:
        """A router has advertised itself on an interface."""
        access = self._access.get(name)
        if access is None or advertisement.lifetime_s == 0:
            return
        interval = advertisement.message.option(AdvertisementInterval)
        news = Advertised(
            advertisement.prefixes,
            now + advertisement.lifetime_s,
            advertisement.global_address,
            interval.interval_ms / 1000 if interval is not None else math.inf,
        )
        access.advertised(advertisement.router, news, now)
        if self._look(name, now):
            self._move([name], now)
        self._probe(name)

    def _look(self, name: str, now: float) -> bool:
        """Look at an interface anew; returns whether it is attached differently."""
        access, link = self._access[name], self._monitor.link(name)
        changed = access.update(link, now)
        if link is not None:
            for router in access.departed_routers(link):
                self._forget_router(link, router)
            for network in access.departed_networks(link):
                self._forget_network(link, network)
            self._introduce(link)
        former = access.to_be_verified()
        if former is not None:
            self._ask(name, former)
        if access.doubtful_from < math.inf:
            self._later("probe", name, access.doubtful_from - now, self._probe)
        return changed

    def _later(self, kind: str, name: str, delay_s: float, action: Callable[..., None], *more: int) -> None:
        """Do something for an interface in its time, instead of what was to be done of this kind."""
        previous = self._timers.get((kind, name))
        if previous is not None:
            previous.cancel()
        call = partial(self._guarded, action, name, *more)
        self._timers[kind, name] = asyncio.get_running_loop().call_later(delay_s, call)

    def _introduce(self, link: Link) -> None:
        """Tell the access router the link-layer address of a new care-of address. Else the first packet that
        comes there waits for the router to ask, up to a second if it has been asking in vain while the node
        was elsewhere (RFC 4861 §7.2.2)."""
        attachment = self._access[link.name].current
        if attachment is None or attachment == self._introduced.get(link.name):
            return
        if link.addresses[attachment.care_of_address].optimistic:  # RFC 4429 §3.3
            return
        self._introduced[link.name] = attachment
        try:
            self._neighbours.introduce(attachment.care_of_address, attachment.gateway, link.name)
        except OSError as error:
            logger.info("%s: no Neighbour Solicitation: %s", link.name, error.strerror)

    def _move(self, names: Iterable[str], now: float) -> None:
        at = {name: self._access[name].current for name in names}
        if at:
            self._moved(at, now)

    def _forget_router(self, link: Link, router: IPv6Address) -> None:
        try:
            remove_default_router(link, router)
            logger.info("%s: router %s is in another network", link.name, router)
        except OSError as error:
            logger.warning("%s: router %s is not forgotten: %s", link.name, router, error.strerror)

    def _forget_network(self, link: Link, network: IPv6Network) -> None:
        """Its nodes are behind the router now: after the home link, the home agent is."""
        try:
            remove_on_link_prefix(link, network)
        except OSError as error:
            logger.warning("%s: %s is not forgotten: %s", link.name, network, error.strerror)

    def _solicit(self, name: str, remaining: int = MAX_RTR_SOLICITATIONS) -> None:
        """Ask for Router Advertisements until one comes (RFC 4861 §6.3.7): has the node moved?"""
        link = self._monitor.link(name)
        if link is None or not link.up or self._access[name].router_heard:
            return
        try:
            self._neighbours.solicit_routers(name)
        except OSError as error:
            logger.info("no Router Solicitation on %s: %s", name, error.strerror)
        if remaining > 1:
            self._later("solicit", name, RTR_SOLICITATION_INTERVAL_S, self._solicit, remaining - 1)

    def _probe(self, name: str) -> None:
        """Ask the router in use whether it is still there, if that is in doubt."""
        access, now = self._access[name], time.monotonic()
        address = access.doubted(now)
        if address is not None:
            self._ask(name, address)
        if access.doubtful_from < math.inf:
            self._later("probe", name, access.doubtful_from - now, self._probe)

    def _ask(self, name: str, router: IPv6Address) -> None:
        """Look whether a router is still there."""
        try:
            self._reachability.probe(name, router)
        except OSError as error:
            logger.info("%s: %s is not probed: %s", name, router, error.strerror)

    def _hear_neighbours(self) -> None:
        """RFC 6275 §11.5.1: where the router in use does not answer any more, another one is looked for."""
        now = time.monotonic()
        for name, address, is_reachable in self._reachability.read():
            access = self._access.get(name)
            if access is None:
                continue
            access.found(address, is_reachable)
            if self._look(name, now):
                what = "router-answers" if is_reachable else "router-lost"
                self._events.record(what, now, interface=name, router=str(address))
                self._move([name], now)
                if access.current is None:
                    self._solicit(name)
            if not is_reachable:
                self._ask_again(name)

    def _ask_again(self, name: str) -> None:
        """Routers that have not answered may do so again, and not advertise it."""
        link, access = self._monitor.link(name), self._access[name]
        if link is None or not link.up or access.current is not None:
            return
        for router in access.failed_routers:
            self._ask(name, router)
        if access.failed_routers:
            self._later("ask", name, RTR_SOLICITATION_INTERVAL_S, self._ask_again)
