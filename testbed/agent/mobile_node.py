"""The agent of a mobile node: where it is attached, what its user wants.

Class: `MobileNodeAgent`.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from ipaddress import IPv6Address
from typing import Any

from testbed.agent import requests
from testbed.agent.access_links import AccessLinks
from testbed.agent.complaints import Complaints
from testbed.agent.configuration import MobileNodeFile, association, flow_binding, mobile_network
from testbed.agent.daemon import Agent, AgentError
from testbed.agent.home_agent_lookup import HomeAgentLookup
from testbed.agent.home_presence import HomePresence
from testbed.agent.icmp_errors import IcmpErrorSocket, Outbox
from testbed.agent.ipsec_tables import ipsec_keys, map_keys
from testbed.agent.mobile_node_commands import MobileNodeCommands
from testbed.agent.mobile_node_status import mobile_node_status
from testbed.agent.mobility_socket import Datagram, MobilitySocket
from testbed.agent.movement import Attachment
from testbed.agent.neighbour_discovery import RouterAdvertisement, hardware_address
from testbed.agent.netlink import Change
from testbed.agent.packet_filter import IPV6, ROUTING
from testbed.agent.protected_signalling import ProtectedSignalling
from testbed.agent.requests import Request, RequestError
from testbed.agent.security import time_of_day
from testbed.agent.tunnelled_socket import TunnelledSocket
from testbed.datapath.error import DatapathError
from testbed.datapath.mobile_network import IngressFilter
from testbed.datapath.native_uplink import TUNNEL_DEVICE, NativeUplink
from testbed.datapath.netlink import NetlinkError
from testbed.datapath.optimisation import OptimisedRoutes
from testbed.datapath.optimisation_programs import HEADER_OCTETS
from testbed.datapath.tunnel import OVERHEAD
from testbed.mobility.correspondent_node import CorrespondentNode, CorrespondentNodeConfiguration
from testbed.mobility.forwarding import HomeBinding, Pair, Side
from testbed.mobility.hierarchical_node import HierarchicalMobileNode
from testbed.mobility.initiative import Initiative
from testbed.mobility.listed_flows import FlowError
from testbed.mobility.mobile_correspondent import MobileCorrespondent
from testbed.mobility.mobile_node import MAX_LEAVE_TIME, MobileNode
from testbed.mobility.mobile_node_configuration import InterfaceConfiguration, MobileNodeConfiguration
from testbed.mobility.role import Transmission
from testbed.wire.address import link_local_of
from testbed.wire.router_advertisement import MobilityAnchorPoint

logger = logging.getLogger(__name__)

#: How long the end of the agent waits for the de-registration to be acknowledged. It may have to
#: wait up to a second before it is sent (RFC 6275 §11.8, MAX_UPDATE_RATE), and MAX_LEAVE_TIME before that
#: for correspondent nodes that do not answer.
FAREWELL_S = 1.5 + MAX_LEAVE_TIME
#: How often a mobile node looks for whom to optimise the route to.
WATCH_INTERVAL_S = 0.5
#: Of IPv6, octets.
MINIMUM_MTU = 1280


class MobileNodeAgent(Agent):
    """Tells the role where the node is attached and what its user asks for. Raises AgentError for a
    configuration that the role does not take."""

    side = Side.MOBILE
    file: MobileNodeFile
    role: MobileNode | MobileCorrespondent

    def __init__(self, file: MobileNodeFile) -> None:
        super().__init__(file)
        try:
            configuration = MobileNodeConfiguration(
                file.home_address,
                file.home_agent,
                tuple(InterfaceConfiguration(i.name, i.bid, i.priority) for i in file.interface),
                file.lifetime_s,
                tuple(flow_binding(flow, file.interface) for flow in file.flow),
                tuple(correspondent.address for correspondent in file.correspondent),
                association=association(file.security) if file.security else None,
                dialect=file.dialect,
                home_prefix=file.home_prefix,
                flow_updates=file.flow_updates,
                multiple_care_of_addresses=file.multiple_care_of_addresses,
                returning_home=file.returning_home,
                ipsec=file.ipsec is not None,
                **mobile_network(file),
            )
            self.mobile = self._make_role(configuration)
        except FlowError as error:
            raise AgentError(f"flow: {error}") from None
        self.role = self.mobile
        self._commands = MobileNodeCommands(file, self.mobile, self.events, self.turn)
        self._initiative: Initiative | None = None
        if file.optimise == "traffic":
            self._initiative = Initiative(self.mobile, file.max_optimised)
        self._watching: asyncio.TimerHandle | None = None
        self._complaints: Complaints | None = None
        if file.correspondent_node:
            peers = CorrespondentNodeConfiguration(dialect=file.dialect)
            correspondent = CorrespondentNode(peers, self.started, self.codec)
            self.role = MobileCorrespondent(self.mobile, correspondent)
            self._complaints = Complaints(correspondent, self.is_ours, self.counters)
            self.feed.listeners.append(self._follow_home)
        if file.mobile_network is not None:
            self.networks = IngressFilter(
                file.mobile_network.prefixes, file.mobile_network.interfaces, [i.name for i in file.interface]
            )
        keys = [map_keys(table, table.anchor_point) for table in file.map_ipsec]
        if file.ipsec is not None:
            keys.append(ipsec_keys(file.ipsec, file.home_address, file.home_agent))
        if keys:
            self.protected = ProtectedSignalling(self.side, keys)
        self._access = AccessLinks(
            [interface.name for interface in file.interface],
            file.home_address,
            self.monitor,
            self.neighbours,
            self.events,
            self._guarded,
            self._moved,
        )
        self._presence = HomePresence(file.home_address, self.neighbours, self._claims, self._duplicate)
        #: Care-of addresses; anchor points with the regional addresses that they bind.
        self._listening: tuple[set[IPv6Address], set[tuple[IPv6Address, IPv6Address]]] = set(), set()
        self._tunnelled = TunnelledSocket(file.home_address)
        self._from_anchors: dict[IPv6Address, TunnelledSocket] = {}
        self._icmp_errors, self._outbox = IcmpErrorSocket(), Outbox()
        self._home_agent_lookup = HomeAgentLookup(file.home_address)
        self._native_uplink: NativeUplink | None = None
        if file.datapath.native_uplink:
            device = TUNNEL_DEVICE if self.datapath.backend == "ip6tnl" else None
            self._native_uplink = NativeUplink(device)
            self.feed.listeners.append(self._follow_paths)

    def _make_role(self, configuration: MobileNodeConfiguration) -> MobileNode:
        common = {
            "codec": self.codec,
            "time_of_day": time_of_day,
            "valid_until": self.monitor.valid_until,
            "link_layer_address": _link_layer_address,
            "link_local_addresses": self._link_local_addresses,
        }
        if not self.file.hierarchical:
            return MobileNode(configuration, self.started, **common)
        key = association(self.file.map_security) if self.file.map_security else None
        by_ipsec = {table.anchor_point: table.regional_address for table in self.file.map_ipsec}
        return HierarchicalMobileNode(
            configuration,
            self.started,
            local_association=key,
            by_ipsec=by_ipsec,
            regional_routes=self._regional_routes(),
            **common,
        )

    def _regional_routes(self) -> bool:
        """Whether correspondent nodes get regional addresses. Raises AgentError where that cannot be."""
        possible = self.routes.within_tunnels
        if self.file.optimise_by == "regional" and not possible:
            raise AgentError(
                'optimise_by: "regional" needs route_carrier "bpf", which alone puts the Home Address option '
                'into the tunnel of an anchor point; use "on-link"'
            )
        return possible and self.file.optimise_by != "on-link"

    def make_mobility_socket(self) -> MobilitySocket:
        return MobilitySocket(tunnelled=self.file.hierarchical)

    def make_routes(self, carrier: str) -> OptimisedRoutes:
        return OptimisedRoutes(
            self.side,
            carrier=carrier,
            correspondent=self.file.correspondent_node,
            homes=[self.file.home_address],
            talkers=self.file.optimise == "traffic",
            regional=self.file.hierarchical,
            slots=lambda: self.datapath.slots,
        )

    def tunnel_mtu(self) -> int:
        """What another mobile node's home agent may have to tunnel has a header of its own by then; what goes
        into the tunnel to an anchor point has been in another one (RFC 5380 §11)."""
        taken = HEADER_OCTETS * self.file.correspondent_node + OVERHEAD * self.file.hierarchical
        return max(super().tunnel_mtu() - taken, MINIMUM_MTU)

    def begin(self, now: float) -> None:
        """Register from wherever the node is attached already."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.neighbours.fileno(), self._guarded, self._hear_routers)
        loop.add_reader(self._tunnelled.fileno(), self._guarded, self._receive_tunnelled, self._tunnelled)
        loop.add_reader(self._icmp_errors.fileno(), self._guarded, self._read_icmp_errors)
        if self.routes.reports() is not None:
            loop.add_reader(self.routes.reports().fileno(), self._guarded, self._read_rejected)
        self._access.begin(now)
        if self._initiative is not None:
            self._watch()

    def _watch(self) -> None:
        """Look for correspondent nodes to begin and to end with (RFC 6275 §11.7.2)."""
        self._watching = asyncio.get_running_loop().call_later(WATCH_INTERVAL_S, self._guarded, self._watch)
        now = time.monotonic()
        try:
            talkers, counters = self.routes.talkers(), self.routes.counters()
        except (DatapathError, NetlinkError) as error:
            return logger.info("%s", error)
        carried: Counter[IPv6Address] = Counter()
        for (_, correspondent, _), (packets, _) in counters.items():
            carried[correspondent] += packets
        changed = self._initiative.look(carried, now)
        if self._initiative.heard(talkers, now) or changed:
            self.turn(now)

    async def farewell(self) -> None:
        """De-register (RFC 6275 §11.7.1)."""
        if self._watching is not None:
            self._watching.cancel()
        if not await self._commands.deregister(FAREWELL_S):
            logger.warning("the home agent has not acknowledged the de-registration")
        self._access.close()
        if self.routes.reports() is not None:
            asyncio.get_running_loop().remove_reader(self.routes.reports().fileno())
        self._hear_from_anchors(set())
        for source in (self._tunnelled, self._icmp_errors):
            asyncio.get_running_loop().remove_reader(source.fileno())
            source.close()

    def _read_icmp_errors(self) -> None:
        """Only those about our own messages; others are for those who have sent what they are about."""
        now = time.monotonic()
        for error in self._icmp_errors.receive():
            sent = self._outbox.find(error.quoted)
            if sent is not None:
                self.mobile.receive_error(sent, error, now)
            elif self._complaints is not None:
                self._complaints.error(error, now)
            else:
                continue
            self.turn(now)

    def _read_rejected(self) -> None:
        now = time.monotonic()
        self._complaints.read_rejected(self.routes.reports(), now)
        self.turn(now)

    def _receive_tunnelled(self, source: TunnelledSocket) -> None:
        for datagram in source.receive():
            if self.file.ipsec is None or datagram.data[8:24] != self.mobile.home_agent.packed:
                self._guarded(super()._take, datagram)  # others have come by the protected socket

    def _hear_from_anchors(self, regional: set[IPv6Address]) -> None:
        """Have a socket for each regional address, and for no other."""
        loop, known = asyncio.get_running_loop(), self._from_anchors
        for address in known.keys() - regional:
            loop.remove_reader(known[address].fileno())
            known.pop(address).close()
        for address in regional - known.keys():
            known[address] = TunnelledSocket(address)
            loop.add_reader(known[address].fileno(), self._guarded, self._receive_tunnelled, known[address])

    def _take(self, datagram: Datagram) -> None:
        """A packet from a packet socket. What has come out of a tunnel comes by the other socket as well;
        while there is a tunnel, nobody but the home agent has to send to the home address without it."""
        home = self.file.home_address
        if datagram.interface == TUNNEL_DEVICE:
            return
        if datagram.data[6:7] == bytes([IPV6]):
            return self._take_from_tunnel(datagram)
        if datagram.data[24:40] == home.packed and self.mobile.home_binding(home) is not None:
            if datagram.data[8:24] != self.mobile.home_agent.packed:
                return
        super()._take(datagram)

    def _take_from_tunnel(self, datagram: Datagram) -> None:
        """A packet with a type 2 routing header to our regional address, in a tunnel of its MAP: the kernel
        will not see it. All else that is in tunnels comes out of them by itself."""
        outer, inner = datagram.data[:40], datagram.data[40:]
        ends = IPv6Address(outer[8:24]), IPv6Address(inner[24:40])
        if ends in self._regional_tunnels() and inner[6] == ROUTING:
            super()._take(replace(datagram, data=inner))

    def is_ours(self, address: IPv6Address) -> bool:
        """Regional addresses are before the kernel has told that it has them."""
        return super().is_ours(address) or any(address == own for _, own in self._regional_tunnels())

    def _regional_tunnels(self) -> set[tuple[IPv6Address, IPv6Address]]:
        """Anchor points that have bound a regional address for us, with that address."""
        return self.mobile.regional_tunnels() if isinstance(self.mobile, HierarchicalMobileNode) else set()

    def route_failed(self, pair: Pair, reason: str, now: float) -> None:
        """What this kernel cannot do must not be asked of the correspondent node."""
        super().route_failed(pair, reason, now)
        if pair[0] == self.file.home_address:
            self.mobile.stop_optimising(pair[1], now)

    def _follow_home(self, bindings: Mapping[IPv6Address, HomeBinding]) -> None:
        """Packets to other mobile nodes take another way first where this node has left or come home."""
        try:
            self.routes.refresh()
        except DatapathError as error:
            logger.info("%s", error)

    def _follow_paths(self, bindings: Mapping[IPv6Address, HomeBinding]) -> None:
        try:
            self._native_uplink.apply(bindings, self.datapath.slots)
        except DatapathError as error:
            logger.error("%s", error)

    async def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        self._home_agent_lookup.close()
        await super()._close(loop)

    def _leave_kernel(self) -> None:
        if self._native_uplink is not None:
            self._native_uplink.close()
        self._presence.close()
        super()._leave_kernel()

    def prepare(self, now: float) -> None:
        """At home, the home address is there before anything is sent from it."""
        super().prepare(now)
        self._listen()
        self._presence.update(self.mobile.presence, self.mobile.is_home, self.mobile.is_unguarded)

    def _keep(self, now: float) -> None:
        """What there is to save is little: all of it."""
        if self.file.state and self.role.unsaved(now) is not None:
            self._save()

    def _listen(self) -> None:
        """Be ready for what correspondent nodes send to a new care-of address: they test it first."""
        wanted = self._initiative is not None or self.mobile.optimiser.correspondents
        wanted = wanted or self._complaints is not None
        here = self._access.care_of_addresses() if wanted else set()
        regional = self._regional_tunnels() if wanted else set()
        if (here, regional) == self._listening:
            return
        self._listening = here, regional
        self._hear_from_anchors({address for _, address in regional})
        try:
            self.routes.listen(sorted(here), sorted(regional))
        except DatapathError as error:
            logger.info("%s", error)

    def _put_on_the_wire(self, data: bytes, transmission: Transmission) -> None:
        """RFC 6275 §11.5.5: at home, the Binding Update goes to the home agent's link-layer address, known
        from its Router Advertisements or its own answer; the tunnel is still there, and must not take it.
        Where nobody answers, it is lost, and sent again later."""
        self._outbox.remember(data, transmission.packet)
        interface = transmission.interface
        if transmission.packet.source != self.file.home_address or interface is None:
            return super()._put_on_the_wire(data, transmission)
        hardware = self._home_agent_lookup.known(interface)
        if hardware is not None:
            return self._put_on_home_link(data, transmission, hardware)
        self._home_agent_lookup.ask(interface, partial(self._send_home, data, transmission))

    def _send_home(self, data: bytes, transmission: Transmission, hardware: bytes | None) -> None:
        """The home agent has told its link-layer address, or nobody has."""
        interface = transmission.interface
        if hardware is None:
            return logger.info("%s: no home agent answers for %s", interface, self.file.home_address)
        try:
            self._put_on_home_link(data, transmission, hardware)
        except (OSError, DatapathError) as error:
            logger.warning("%s: no Binding Update: %s", interface, error)

    def _put_on_home_link(self, data: bytes, transmission: Transmission, hardware: bytes) -> None:
        packet, interface = transmission.packet, transmission.interface
        if self.protected is not None and self.protected.covers(packet):
            return self.protected.send(packet, data, interface, hardware)
        self.mobility_socket.send_on_link(data, interface, hardware)

    def _claims(self, interface: str) -> list[IPv6Address]:
        """RFC 6275 §11.5.5: the home address, and the link-local address that goes with it."""
        home, link = self.file.home_address, self.monitor.link(interface)
        addresses = (home, link_local_of(home))
        return [address for address in addresses if address == home or link and address in link.addresses]

    def _duplicate(self, address: IPv6Address, interface: str) -> None:
        """Somebody else has our home address, or the link-local address that goes with it."""
        home_address = self.file.home_address
        logger.error("%s is in use on %s: %s is not taken", address, interface, home_address)
        fields = {"home_address": str(home_address), "address": str(address)}
        self.events.record("duplicate-address", time.monotonic(), **fields)
        self.events.flush()

    def _link_local_addresses(self) -> set[IPv6Address]:
        """Of the interfaces that may come to the home link."""
        links = (self.monitor.link(interface.name) for interface in self.file.interface)
        found = (address for link in links if link is not None for address in link.addresses)
        return {address for address in found if address.is_link_local}

    def links_changed(self, changes: list[tuple[str, Change]], now: float) -> None:
        for name, change in changes:
            if change in (Change.LOST, Change.GAINED):
                self._home_agent_lookup.link_changed(name)
        self._access.changed(changes, now)

    def _moved(self, attachments: Mapping[str, Attachment | None], now: float) -> None:
        """Tell the role where these interfaces are attached now."""
        points = {name: at and (at.care_of_address, at.gateway) for name, at in attachments.items()}
        self.mobile.move(points, now)
        self.turn(now)

    def _hear_routers(self) -> None:
        now = time.monotonic()
        for name, advertisement in self.neighbours.receive():
            self._home_agent_lookup.heard(name, advertisement.message, self.mobile.home_agent)
            self._hear_anchors(name, advertisement, now)
            self._access.heard(name, advertisement, now)

    def _hear_anchors(self, name: str, advertisement: RouterAdvertisement, now: float) -> None:
        """RFC 5380 §7.1: before the care-of address of the same advertisement is there."""
        if isinstance(self.mobile, HierarchicalMobileNode) and name in self._access:
            options = advertisement.message.all_options(MobilityAnchorPoint)
            if self.mobile.anchors_advertised(name, options, now):
                self.turn(now)

    def status(self) -> dict[str, Any]:
        status = mobile_node_status(self.file, self.mobile, self.monitor, self._access)
        if isinstance(self.role, MobileCorrespondent):
            status["mobile_nodes"] = len(self.role.correspondent.optimisations())
        return status

    async def handle(self, request: Request) -> Any:
        """The answer to a request on the control socket. Raises RequestError or FlowError in one sentence."""
        if isinstance(request, requests.Cache):
            if not isinstance(self.role, MobileCorrespondent):
                raise RequestError("this mobile node is no correspondent node: correspondent_node = false")
            return self._cache(self.role.correspondent)
        answer = await self._commands.handle(request)
        return await super().handle(request) if answer is NotImplemented else answer


def _link_layer_address(interface: str) -> bytes:
    try:
        return hardware_address(interface)
    except OSError:  # it is gone
        return b""
