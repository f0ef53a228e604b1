"""The agent of a home agent: it defends home addresses on the home link.

Class: `HomeAgentAgent`.
"""

import asyncio
import logging
import os
import time
from dataclasses import replace
from functools import partial
from ipaddress import IPv6Address
from math import inf
from typing import Any

from testbed.agent import requests
from testbed.agent.anycast import AnycastAddress
from testbed.agent.configuration import HomeAgentFile, association, policy
from testbed.agent.daemon import Agent, AgentError
from testbed.agent.duplicate_address import DuplicateAddressDetection
from testbed.agent.ipsec_tables import ipsec_keys
from testbed.agent.neighbour_discovery import MAX_NEIGHBOR_ADVERTISEMENT, RETRANS_TIMER_S
from testbed.agent.presentation import flow_to_json
from testbed.agent.protected_signalling import ProtectedSignalling
from testbed.agent.protected_socket import ProtectedSocket
from testbed.agent.requests import Request, RequestError
from testbed.agent.security import time_of_day
from testbed.datapath.mobile_network import Unreachable
from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Side
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.home_link import HomePrefix
from testbed.wire.icmpv6 import home_agents_anycast

logger = logging.getLogger(__name__)


BRIDGE_FILTER = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


class HomeAgentAgent(Agent):
    """Serves the mobile nodes of a home link. Raises AgentError if the link's interface is not there."""

    side = Side.ANCHOR
    file: HomeAgentFile
    role: HomeAgent

    def __init__(self, file: HomeAgentFile) -> None:
        super().__init__(file)
        if self.monitor.link(file.home_interface) is None:
            raise AgentError(f"home_interface: there is no interface {file.home_interface} on this host")
        self.role = self.make_role()
        self._defended: dict[IPv6Address, asyncio.TimerHandle] = {}
        self._anycast: list[AnycastAddress] = []
        self._detection = DuplicateAddressDetection(file.home_interface)

    def make_role(self) -> HomeAgent:
        """The role that the configuration describes."""
        file = self.file
        prefix_table = {router.home_address: tuple(router.prefixes) for router in file.mobile_router}
        configuration = HomeAgentConfiguration(
            file.address,
            tuple(file.home_prefixes),
            file.max_lifetime_s,
            policy(file),
            prefix_table,
            duplicate_address_detection=file.duplicate_address_detection,
            other_routers=file.other_routers,
            preference=file.preference,
            prefix_interval_s=file.prefix_interval_s,
        )
        ipsec = file.ipsec
        if ipsec:
            keys = [ipsec_keys(table, table.home_address, file.address) for table in ipsec]
            self.protected = ProtectedSignalling(self.side, keys)
        configuration = replace(
            configuration,
            associations={table.home_address: association(table) for table in file.security_association},
            by_ipsec=frozenset(table.home_address for table in ipsec),
            accept_unauthenticated=file.accept_unauthenticated,
            dialect=file.dialect,
            max_refusals_per_s=file.max_refusals_per_s,
            max_refusals_per_sender_per_s=file.max_refusals_per_sender_per_s,
        )
        if prefix_table:
            self.networks = Unreachable(prefix for prefixes in prefix_table.values() for prefix in prefixes)
        return HomeAgent(configuration, self.started, self.codec, time_of_day)

    def begin(self, now: float) -> None:
        if not self.monitor.is_local(self.file.address):
            logger.warning("address: %s is not an address of this node yet", self.file.address)
        bridged = os.path.isdir(f"/sys/class/net/{self.file.home_interface}/bridge")
        if bridged and _read(BRIDGE_FILTER) == "1":
            logger.warning(
                "home_interface: %s is a bridge whose packets pass nf_tables: who returns home is "
                "not heard; switch that off: sysctl -w net.bridge.bridge-nf-call-ip6tables=0",
                self.file.home_interface,
            )
        self.join_home_link()
        super().begin(now)

    def join_home_link(self) -> None:
        """Take part in the discovery of home agents (RFC 6275 §10.5)."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.neighbours.fileno(), self._guarded, self._hear_routers)
        for prefix in self.file.home_prefixes:
            try:
                self._anycast.append(AnycastAddress(home_agents_anycast(prefix), self.file.home_interface))
            except OSError as error:
                logger.warning("no home agent discovery for %s: %s", prefix, error.strerror)

    def _hear_routers(self) -> None:
        """Other home agents of the home link (RFC 6275 §10.5.1)."""
        for name, advertisement in self.neighbours.receive():
            if name == self.file.home_interface:
                self.role.home_agents.heard(advertisement.router, advertisement.message, time.monotonic())

    def is_ours(self, address: IPv6Address) -> bool:
        return super().is_ours(address) or any(anycast.address == address for anycast in self._anycast)

    def _receive(self) -> None:
        """All that has come in is judged, then carried out by one change of the kernel's state: most of its
        cost is the same for one home address and for many."""
        super()._receive()
        if self._steps:
            self.turn(time.monotonic())

    def _receive_protected(self, sock: ProtectedSocket) -> None:
        super()._receive_protected(sock)
        if self._steps:
            self.turn(time.monotonic())

    def received(self, now: float, received: float) -> None:
        self._collect(now, received)

    def turn(self, now: float, received: float | None = None) -> None:
        super().turn(now, received)
        for home_address in self.role.probes():
            self._probe(home_address)

    def _probe(self, home_address: IPv6Address) -> None:
        """Look for other users of the address on the home link (RFC 6275 §10.3.1), and of the link-local one
        where that is the mobile node's, too."""
        waiting = set(self.role.to_be_tested(home_address))

        def found(address: IPv6Address, unique: bool) -> None:
            waiting.discard(address)
            if unique and waiting:
                return
            now = time.monotonic()
            self.role.dad_result(home_address, unique, now)
            self.turn(now)

        for address in sorted(waiting):
            if self.monitor.is_local(address):
                return found(address, False)
        try:
            for address in sorted(waiting):
                self._detection.probe(address, partial(self._guarded, found, address))
        except OSError as error:
            interface = self.file.home_interface
            logger.error("%s not looked for on %s: %s", home_address, interface, error.strerror)
            found(home_address, False)

    def bound(self, home_address: IPv6Address) -> None:
        """Draw the packets to this home address here (RFC 6275 §10.4.1)."""
        self._advertise(home_address, MAX_NEIGHBOR_ADVERTISEMENT)

    def _advertise(self, home_address: IPv6Address, remaining: int) -> None:
        previous = self._defended.pop(home_address, None)
        if previous is not None:
            previous.cancel()
        wanted = self.role.home_binding(home_address)
        if wanted is None or not wanted.defended:
            return
        try:
            for address in wanted.defended_addresses:
                self.neighbours.advertise(address, self.file.home_interface)
        except OSError as error:
            logger.warning("%s not claimed on %s: %s", home_address, self.file.home_interface, error.strerror)
        if remaining > 1:
            self._defended[home_address] = asyncio.get_running_loop().call_later(
                RETRANS_TIMER_S, self._guarded, self._advertise, home_address, remaining - 1
            )

    async def farewell(self) -> None:
        for handle in self._defended.values():
            handle.cancel()
        self._detection.close()
        for anycast in self._anycast:
            anycast.close()

    def _state(self, home_address: IPv6Address, flow: FlowBinding) -> str:
        """Whether packets are matched against a flow binding (RFC 6089 §4.3)."""
        bindings = self.role.cache.get(home_address).bindings
        return "registered" if any(bid in bindings for bid in flow.bids) else "inactive"

    def status(self) -> dict[str, Any]:
        return {
            "address": str(self.file.address),
            "home_interface": self.file.home_interface,
            "home_prefixes": [str(prefix.network) for prefix in self.role.home_prefixes()],
            "home_agents": [str(address) for address in self.role.home_agents.addresses(time.monotonic())],
            "mobile_nodes": len(self.role.forwarding()),
        }

    async def handle(self, request: Request) -> Any:
        """The answer to a request on the control socket. Raises RequestError in one sentence."""
        if isinstance(request, requests.Flows):
            return [
                {**flow_to_json(home_address, flow), "state": self._state(home_address, flow)}
                for home_address, flow in self.role.flows()
            ]
        if isinstance(request, requests.HomePrefix):
            return self._change_prefix(request)
        if isinstance(request, (requests.FlowAdd, requests.FlowReplace, requests.FlowRemove)):
            raise RequestError(
                f"{self.file.name} is a home agent: flow bindings are changed at their mobile node"
            )
        return await super().handle(request)

    def _change_prefix(self, request: requests.HomePrefix) -> list[dict[str, Any]]:
        """Renumber the home link (RFC 6275 §10.6): new lifetimes of a prefix, or a new prefix."""
        now = time.monotonic()
        ends = (now + s if s is not None else inf for s in (request.valid_s, request.preferred_s))
        self.role.change_prefix(HomePrefix(request.prefix, *ends), now)
        self.turn(now)
        return [
            {
                "prefix": str(prefix.network),
                "valid_s": None if prefix.valid_until == inf else round(prefix.valid_until - now, 3),
                "preferred_s": None
                if prefix.preferred_until == inf
                else round(prefix.preferred_until - now, 3),
            }
            for prefix in self.role.home_prefixes()
        ]
