"""The home address on the home link, while the mobile node is there (RFC 6275 §11.5.5).

Class: `HomePresence`.
"""

import asyncio
import errno
import logging
from collections.abc import Callable, Collection
from functools import partial
from ipaddress import IPv6Address

from testbed.agent.duplicate_address import DuplicateAddressDetection
from testbed.agent.neighbour_discovery import (
    MAX_NEIGHBOR_ADVERTISEMENT,
    RETRANS_TIMER_S,
    NeighbourDiscoverySocket,
)
from testbed.datapath.netlink import REPLACE, ROUTE, Netlink
from testbed.datapath.route import HomeAddress, LinkIndices, UnknownInterface

logger = logging.getLogger(__name__)

_GONE = {errno.EADDRNOTAVAIL, errno.ENODEV}


class HomePresence:
    """Puts `home_address` on the interface that is at home, so that the kernel answers neighbours, and claims
    it there when the home agent has given it up: it, and what else the home agent has answered for.
    `interface`: where it is now. `claims(interface)`: the addresses to claim;
    `duplicate(address, interface)` is called if somebody else has one.
    """

    def __init__(
        self,
        home_address: IPv6Address,
        neighbours: NeighbourDiscoverySocket,
        claims: Callable[[str], Collection[IPv6Address]],
        duplicate: Callable[[IPv6Address, str], None],
    ) -> None:
        self.interface: str | None = None
        self._claims = claims
        self._duplicate = duplicate
        self._detection: DuplicateAddressDetection | None = None
        self._unsure: set[IPv6Address] = set()
        self._home_address = home_address
        self._neighbours = neighbours
        self._claiming: asyncio.TimerHandle | None = None
        self._claimed = False

    def update(self, interface: str | None, is_home: bool, is_unguarded: bool = False) -> None:
        """The node's home link is at `interface`; `is_home`: the home agent does not serve it any more.
        `is_unguarded`: nor has it done so right before, as it may turn out here only; whether the address is
        free has to be found out."""
        if interface != self.interface:
            self._withdraw()
            self.interface = interface
            if not is_unguarded:
                self._change(remove=False)
        if self._claimed or interface is None:
            return
        if is_unguarded:
            self._detect(interface)
        elif is_home:
            self._claimed = True
            self._claim(MAX_NEIGHBOR_ADVERTISEMENT)

    def _detect(self, interface: str) -> None:
        """Duplicate address detection, after all bindings have run out (RFC 6275 §11.5.5). Meanwhile nobody
        has the address."""
        self._change(remove=True)
        self._detection = DuplicateAddressDetection(interface)
        self._claimed = True
        self._unsure = set(self._claims(interface))
        try:
            for address in sorted(self._unsure):
                self._detection.probe(address, partial(self._detected, address))
        except OSError as error:
            logger.error("%s not looked for on %s: %s", self._home_address, interface, error.strerror)
            self._detected(self._home_address, False)

    def _detected(self, address: IPv6Address, unique: bool) -> None:
        if not unique:
            self._detection.close()
            return self._duplicate(address, self.interface)
        self._unsure.discard(address)
        if not self._unsure:
            self._change(remove=False)
            self._claim(MAX_NEIGHBOR_ADVERTISEMENT)

    def close(self) -> None:
        """Take the address off the interface."""
        self._withdraw()

    def _withdraw(self) -> None:
        if self._claiming is not None:
            self._claiming.cancel()
        if self._detection is not None:
            self._detection.close()
        self._detection = None
        self._claiming = None
        self._claimed = False
        self._change(remove=True)
        self.interface = None

    def _change(self, remove: bool) -> None:
        """Put the address there or take it away. One that the kernel has formed for itself is its own affair:
        put there again it would stay for ever, and with it the home prefix on the next link."""
        if self.interface is None:
            return
        address = HomeAddress(self._home_address, self.interface)
        netlink = Netlink(ROUTE)
        try:
            links = LinkIndices()
            kind, how, body = address.remove(links) if remove else address.install(links)
            netlink.execute([(kind, how & ~REPLACE, body)])
        except UnknownInterface:
            pass  # gone, with its addresses
        except OSError as error:
            if error.errno not in (_GONE if remove else {errno.EEXIST}):
                logger.error("%s on %s: %s", self._home_address, self.interface, error.strerror)
        finally:
            netlink.close()

    def _claim(self, remaining: int) -> None:
        try:
            for address in self._claims(self.interface):
                self._neighbours.advertise(address, self.interface)
        except OSError as error:
            logger.warning("%s not claimed on %s: %s", self._home_address, self.interface, error.strerror)
        if remaining > 1:
            self._claiming = asyncio.get_running_loop().call_later(
                RETRANS_TIMER_S, self._claim, remaining - 1
            )
