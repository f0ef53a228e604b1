"""The agent of a mobile node: where it is attached, what its user wants.

Class: `MobileNodeAgent`.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from testbed.agent import requests
from testbed.agent.complaints import Complaints
from testbed.agent.configuration import (
    MobileNodeFile,
    association,
    flow_binding,
    ipsec_keys,
    mobile_network,
)
from testbed.agent.daemon import Agent, AgentError
from testbed.agent.home_agent_lookup import HomeAgentLookup
from testbed.agent.home_presence import HomePresence
from testbed.agent.icmp_errors import IcmpErrorSocket, Outbox
from testbed.agent.mobile_node_commands import MobileNodeCommands
from testbed.agent.mobility_socket import Datagram, MobilitySocket
from testbed.agent.movement import AccessLink, Attachment
from testbed.agent.neighbour_discovery import (
    MAX_RTR_SOLICITATIONS,
    RTR_SOLICITATION_INTERVAL_S,
    RouterAdvertisement,
    hardware_address,
)
from testbed.agent.netlink import Change, Link, remove_default_router, remove_on_link_prefix
from testbed.agent.packet_filter import IPV6, ROUTING
from testbed.agent.protected_signalling import ProtectedSignalling
from testbed.agent.reachability import Reachability
from testbed.agent.requests import Request, RequestError
from testbed.agent.security import time_of_day
from testbed.agent.tunnelled_socket import TunnelledSocket
from testbed.datapath.error import DatapathError
from testbed.datapath.mobile_network import IngressFilter
from testbed.datapath.native_uplink import TUNNEL_DEVICE, NativeUplink
from testbed.datapath.netlink import NetlinkError
from testbed.datapath.optimisation import OptimisedRoutes
from testbed.datapath.optimisation_programs import HEADER_OCTETS
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
from testbed.wire.router_advertisement import (
    MobilityAnchorPoint,
    PrefixInformation,
    SourceLinkLayerAddress,
)

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
    """Tells the role where the node is attached and what its user asks for."""

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
        if file.ipsec is not None:
            keys = ipsec_keys(file.ipsec, file.home_address, file.home_agent)
            self.protected = ProtectedSignalling(self.side, file.home_address, [keys])
        self._access = {i.name: AccessLink(file.home_address) for i in file.interface}
        #: Link-layer address of the home agent by interface; `_outdated`: the link may be another one by now.
        self._hardware: dict[str, bytes] = {}
        self._outdated: set[str] = set()
        self._presence = HomePresence(file.home_address, self.neighbours, self._claims, self._duplicate)
        self._soliciting: dict[str, asyncio.TimerHandle] = {}
        self._introduced: dict[str, Attachment] = {}
        self._listening: set[IPv6Address] = set()
        self._tunnelled = TunnelledSocket(file.home_address)
        self._icmp_errors, self._outbox = IcmpErrorSocket(), Outbox()
        self._reachability = Reachability()
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
        if self.datapath.backend != "seg6":
            raise AgentError('hierarchical: needs [datapath] tunnel_backend = "seg6"')
        key = association(self.file.map_security) if self.file.map_security else None
        self.mobility_socket.close()
        self.mobility_socket = MobilitySocket(tunnelled=True)
        return HierarchicalMobileNode(configuration, self.started, local_association=key, **common)

    def make_routes(self, carrier: str) -> OptimisedRoutes:
        return OptimisedRoutes(
            self.side,
            carrier=carrier,
            correspondent=self.file.correspondent_node,
            homes=[self.file.home_address],
            talkers=self.file.optimise == "traffic",
        )

    def tunnel_mtu(self) -> int:
        """What another mobile node's home agent may have to tunnel has a header of its own by then."""
        mtu = super().tunnel_mtu()
        return max(mtu - HEADER_OCTETS, MINIMUM_MTU) if self.file.correspondent_node else mtu

    # -- life

    def begin(self, now: float) -> None:
        """Register from wherever the node is attached already."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.neighbours.fileno(), self._guarded, self._hear_routers)
        loop.add_reader(self._tunnelled.fileno(), self._guarded, self._receive_tunnelled)
        loop.add_reader(self._icmp_errors.fileno(), self._guarded, self._read_icmp_errors)
        loop.add_reader(self._reachability.fileno(), self._guarded, self._hear_neighbours)
        if self.routes.reports() is not None:
            loop.add_reader(self.routes.reports().fileno(), self._guarded, self._read_rejected)
        self.monitor.read()
        for name in self._access:
            if self.monitor.link(name) is None:
                logger.warning("there is no interface %s yet; waiting for it", name)
            self._look(name, now)
            self._solicit(name)
        self._move(self._access, now)
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
        for handle in self._soliciting.values():
            handle.cancel()
        if self.routes.reports() is not None:
            asyncio.get_running_loop().remove_reader(self.routes.reports().fileno())
        for source in (self._tunnelled, self._icmp_errors, self._reachability):
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

    def _receive_tunnelled(self) -> None:
        for datagram in self._tunnelled.receive():
            if self.protected is None or datagram.data[8:24] != self.mobile.home_agent.packed:
                self._guarded(super()._take, datagram)  # others have come by the protected socket

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
        local = self.mobile.local if isinstance(self.mobile, HierarchicalMobileNode) else None
        expected = local is not None and (local.peer.packed, local.home_address.packed)
        if (outer[8:24], inner[24:40]) == expected and inner[6] == ROUTING:
            super()._take(replace(datagram, data=inner))

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
        if self._native_uplink is not None:
            self._native_uplink.close()
        self._presence.close()
        self._home_agent_lookup.close()
        await super()._close(loop)

    def turn(self, now: float, received: float | None = None) -> None:
        super().turn(now, received)
        self._listen()
        self._presence.update(self.mobile.presence, self.mobile.is_home, self.mobile.is_unguarded)

    def _listen(self) -> None:
        """Be ready for what correspondent nodes send to a new care-of address: they test it first."""
        wanted = self._initiative is not None or self.mobile.optimiser.correspondents
        wanted = wanted or self._complaints is not None
        here = {a.current.care_of_address for a in self._access.values() if wanted and a.current}
        if here == self._listening:
            return
        self._listening = here
        try:
            self.routes.listen(sorted(here))
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
        if interface in self._hardware:
            return self._put_on_home_link(data, transmission, self._hardware[interface])
        self._home_agent_lookup.ask(interface, partial(self._send_home, data, transmission))

    def _send_home(self, data: bytes, transmission: Transmission, hardware: bytes | None) -> None:
        """The home agent has told its link-layer address, or nobody has."""
        interface = transmission.interface
        if hardware is None:
            return logger.info("%s: no home agent answers for %s", interface, self.file.home_address)
        self._hardware[interface] = hardware
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
        links = (self.monitor.link(name) for name in self._access)
        found = (address for link in links if link is not None for address in link.addresses)
        return {address for address in found if address.is_link_local}

    # -- where the node is attached

    def links_changed(self, changes: list[tuple[str, Change]], now: float) -> None:
        changes = [(name, change) for name, change in changes if name in self._access]
        for name, change in changes:
            if change in (Change.LOST, Change.GAINED):
                self.events.record(f"link-{change.value}", now, interface=name)
                self._access[name].link_changed()
                self._outdated.add(name)
                self._introduced.pop(name, None)
        self._move([name for name, _ in changes if self._look(name, now)], now)
        for name, change in changes:
            if change is Change.GAINED:
                self._solicit(name)
        self.events.flush()

    def _look(self, name: str, now: float) -> bool:
        """Look at an interface anew; returns whether it is attached differently."""
        access, link = self._access[name], self.monitor.link(name)
        changed = access.update(link, now)
        if link is not None:
            for router in access.departed_routers(link):
                self._forget_router(link, router)
            for network in access.departed_networks(link):
                self._forget_network(link, network)
            self._introduce(link)
        return changed

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
            self.neighbours.introduce(attachment.care_of_address, attachment.gateway, link.name)
        except OSError as error:
            logger.info("%s: no Neighbour Solicitation: %s", link.name, error.strerror)

    def _move(self, names: Iterable[str], now: float) -> None:
        """Tell the role where these interfaces are attached now."""
        at = {name: self._access[name].current for name in names}
        if at:
            points = {name: point and (point.care_of_address, point.gateway) for name, point in at.items()}
            self.mobile.move(points, now)
            self.turn(now)

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
        if name in self._soliciting:
            self._soliciting.pop(name).cancel()
        link = self.monitor.link(name)
        if link is None or not link.up or self._access[name].router_heard:
            return
        try:
            self.neighbours.solicit_routers(name)
        except OSError as error:
            logger.info("no Router Solicitation on %s: %s", name, error.strerror)
        if remaining > 1:
            self._soliciting[name] = asyncio.get_running_loop().call_later(
                RTR_SOLICITATION_INTERVAL_S, self._guarded, self._solicit, name, remaining - 1
            )

    def _hear_routers(self) -> None:
        now = time.monotonic()
        for name, advertisement in self.neighbours.receive():
            access = self._access.get(name)
            self._hear_home_agent(name, advertisement)
            self._hear_anchors(name, advertisement, now)
            if access is not None and advertisement.lifetime_s > 0:
                access.advertised(
                    advertisement.router,
                    advertisement.prefixes,
                    now + advertisement.lifetime_s,
                    advertisement.global_address,
                )
                if self._look(name, now):
                    self._move([name], now)
                self._probe(name, now)

    def _probe(self, name: str, now: float) -> None:
        """Look whether the router in use is still there, if that is in doubt (RFC 6275 §11.5.1)."""
        address = self._access[name].doubted(now)
        if address is not None:
            self._ask(name, address)

    def _ask(self, name: str, router: IPv6Address) -> None:
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
                self.events.record(what, now, interface=name, router=str(address))
                self._move([name], now)
                if access.current is None:
                    self._solicit(name)
                    self._ask_again(name)

    def _ask_again(self, name: str) -> None:
        """Routers that have not answered may do so again, and not advertise it."""
        link, access = self.monitor.link(name), self._access[name]
        if link is None or not link.up or access.current is not None:
            return
        for router in access.failed_routers:
            self._ask(name, router)
        if access.failed_routers:
            loop = asyncio.get_running_loop()
            loop.call_later(RTR_SOLICITATION_INTERVAL_S, self._guarded, self._ask_again, name)

    def _hear_home_agent(self, name: str, advertisement: RouterAdvertisement) -> None:
        """RFC 6275 §11.5.5: the link-layer address of our home agent; of several home agents, that of the one
        that says so (R bit, §7.2), else that of the first."""
        message = advertisement.message
        option = message.option(SourceLinkLayerAddress)
        if option is None or not message.home_agent:
            return
        prefixes = message.all_options(PrefixInformation)
        named = [prefix.address for prefix in prefixes if prefix.router_address]
        if self.mobile.home_agent in named or name not in self._hardware or name in self._outdated:
            self._hardware[name] = option.address[:6]
            self._outdated.discard(name)

    def _hear_anchors(self, name: str, advertisement: RouterAdvertisement, now: float) -> None:
        """RFC 5380 §7.1: before the care-of address of the same advertisement is there."""
        if isinstance(self.mobile, HierarchicalMobileNode) and name in self._access:
            options = advertisement.message.all_options(MobilityAnchorPoint)
            if self.mobile.anchors_advertised(name, options, now):
                self.turn(now)

    # -- what its user wants

    def status(self) -> dict[str, Any]:
        interfaces = []
        for interface in self.file.interface:
            link, attachment = self.monitor.link(interface.name), self._access[interface.name].current
            interfaces.append(
                {
                    "name": interface.name,
                    "bid": interface.bid,
                    "priority": interface.priority,
                    "link": "none" if link is None else "up" if link.up else "down",
                    "care_of_address": str(attachment.care_of_address) if attachment else None,
                    "gateway": str(attachment.gateway) if attachment else None,
                }
            )
        return {
            "home_address": str(self.file.home_address),
            "home_agent": str(self.mobile.home_agent),
            "home_prefixes": [
                {
                    "prefix": str(prefix.prefix),
                    "valid_s": prefix.valid_lifetime_s,
                    "preferred_s": prefix.preferred_lifetime_s,
                }
                for prefix in self.mobile.home_prefixes.prefixes
            ],
            "registered": self.mobile.registered,
            "at_home": self.mobile.home_interface,
            "interfaces": interfaces,
            **self._peers(),
            **self._mobile_network(),
            **self._hierarchy(),
        }

    def _peers(self) -> dict[str, Any]:
        """What a correspondent node has to say for itself."""
        if not isinstance(self.role, MobileCorrespondent):
            return {}
        return {"mobile_nodes": len(self.role.correspondent.optimisations())}

    def _hierarchy(self) -> dict[str, Any]:
        local = getattr(self.mobile, "local", None)
        if local is None:
            return {}
        return {
            "anchor_point": str(local.peer),
            "regional_address": str(local.home_address),
            "registered_with_anchor_point": local.known_to_peer,
        }

    def _mobile_network(self) -> dict[str, Any]:
        """What a mobile router has to say for itself."""
        network = self.mobile.registration.mobile_network
        if network is None:
            return {}
        return {
            "mobile_network": {
                "prefixes": [str(prefix) for prefix in network.prefixes],
                "mode": "explicit" if network.explicit else "implicit",
                "served": network.served,
                "refused": self.mobile.registration.given_up,
            }
        }

    async def handle(self, request: Request) -> Any:
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
