"""The mobile node (RFC 6275 §11; RFC 5648 §5; draft-soliman-monami6-flow-binding-05 §6).

Class: `MobileNode`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from testbed.mobility.authentication import Signer
from testbed.mobility.binding import FlowBinding, wanted_rules
from testbed.mobility.detours import Detours
from testbed.mobility.dialect import Draft
from testbed.mobility.forwarding import HomeBinding, Pair, Path, RouteOptimisation
from testbed.mobility.home_discovery import (
    DISCOVER,
    INITIAL_DHAAD_TIMEOUT,
    SOLICIT,
    HomeAgentDiscovery,
    PrefixDiscovery,
)
from testbed.mobility.mobile_network import MobileNetwork
from testbed.mobility.mobile_node_configuration import InterfaceConfiguration, MobileNodeConfiguration
from testbed.mobility.registration import FlowError, Registration
from testbed.mobility.role import Role
from testbed.mobility.route_optimisation import RouteOptimiser
from testbed.mobility.snapshot import flow_from_snapshot, flow_to_snapshot
from testbed.mobility.update_list import describe_binding, describe_listed
from testbed.wire.codec import Codec
from testbed.wire.flow import Pro
from testbed.wire.icmpv6 import (
    HomeAgentAddressDiscoveryReply,
    MobilePrefixAdvertisement,
    MobilePrefixSolicitation,
)
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingError,
    BindingRefreshRequest,
    BindingUpdate,
    Status,
    UnknownMessage,
)
from testbed.wire.option import BindingIdentifier
from testbed.wire.packet import Packet

#: The home agent, while none is known.
UNKNOWN = IPv6Address(0)
#: How long a node that leaves waits, in seconds, for correspondent nodes to delete their bindings: it takes
#: a test through the home agent, and up to a second for MAX_UPDATE_RATE.
MAX_LEAVE_TIME = 1.5


@dataclass(frozen=True, slots=True)
class _Attachment:
    interface: InterfaceConfiguration
    care_of_address: IPv6Address
    gateway: IPv6Address | None


class MobileNode(Role):
    """Registers the care-of addresses of its interfaces and its flow bindings with its home agent.

    Each interface has a BID. While an interface has no care-of address, its BID is bound to that of the
    most preferred interface that has one: one Binding Identifier option moves all the flows that are bound
    to it, and another one brings them back (draft §4.1, §6.2).
    """

    def __init__(
        self,
        configuration: MobileNodeConfiguration,
        now: float,
        sequence: int = 0,
        codec: Codec | None = None,
        random: Callable[[int], bytes] = os.urandom,
        time_of_day: Callable[[float], float] = lambda now: now,
    ) -> None:
        """`time_of_day` turns the role's clock into seconds since 1970 (RFC 4285 §6)."""
        super().__init__()
        self._signer = (
            Signer(configuration.association, time_of_day, codec or Codec(configuration.dialect))
            if configuration.association
            else None
        )
        self.configuration = configuration
        self._attachments: dict[str, _Attachment] = {}
        self._seen: set[int] = set()
        self._leaving = False
        self._home_prefix = configuration.home_prefix or IPv6Network(
            (configuration.home_address, 64), strict=False
        )
        #: The interface that is on the home link, None if there is none.
        self.home_interface: str | None = None
        self._detours = Detours() if configuration.flow_updates == "each" else None
        self._routes_kept: list[IPv6Address] = []
        self.registration = Registration(
            configuration.home_agent or UNKNOWN,
            configuration.home_address,
            configuration.lifetime_s,
            self.timers,
            self._transmit,
            self._note,
            sequence,
            self._mobile_network(),
            dialect=configuration.dialect,
        )
        self.registration.unserved = self._unserved
        self._discovery = HomeAgentDiscovery(
            self._home_prefix,
            bool(configuration.prefixes),
            self.timers,
            self._preferred_address,
            self._send_from,
            self._note,
            random,
        )
        self.home_prefixes = PrefixDiscovery(
            configuration.home_address, self.timers, self._solicit_prefixes, self._note, random
        )
        for interface in configuration.interfaces:
            self.registration.bind(interface.bid, interface.priority, None)
        for flow in configuration.flows:
            self.registration.add_flow(flow)
        self.optimiser = RouteOptimiser(
            configuration.home_address,
            self.timers,
            self._send_from,
            self._note,
            self._home_lifetime,
            random,
            codec,
        )
        self._optimised: dict[Pair, RouteOptimisation] = {}
        for correspondent in configuration.correspondents:
            self.optimiser.add(correspondent)

    # -- what happens to the node

    def attach(
        self, interface: str, care_of_address: IPv6Address, gateway: IPv6Address | None, now: float
    ) -> None:
        """An interface has a care-of address that can be used, and an access router (RFC 6275 §11.5.3)."""
        self.move({interface: (care_of_address, gateway)}, now)

    def detach(self, interface: str, now: float) -> None:
        """An interface has lost its link or its care-of address."""
        self.move({interface: None}, now)

    def move(
        self, attachments: Mapping[str, tuple[IPv6Address, IPv6Address | None] | None], now: float
    ) -> None:
        """What is new of some interfaces: care-of address and access router, None if there are none. What
        happens together is told together, in one Binding Update. Other interfaces' names are ignored."""
        moved = False
        for interface in self.configuration.interfaces:
            if interface.name in attachments:
                moved |= self._attach(interface, attachments[interface.name])
        if moved:
            self._look_for_home(now)
            self._moved(now)

    def _look_for_home(self, now: float) -> None:
        """RFC 6275 §11.5.5: the node is at home where its home prefix is on-link."""
        prefix, before = self._home_prefix, self.home_interface
        at_home = [a for a in self._attachments.values() if a.care_of_address in prefix]
        if any(attachment.interface.name == before for attachment in at_home):
            return
        at_home.sort(key=lambda attachment: attachment.interface.priority)
        self.home_interface = at_home[0].interface.name if at_home else None
        if before is None and self.home_interface is not None:
            self._note("home-link-gained", interface=self.home_interface)
            self._routes_kept = list(self.optimiser.correspondents)
            self.optimiser.leave(now)
            self.registration.leave(now)
        elif before is not None and self.home_interface is None:
            self._note("home-link-lost", interface=before)
            self.registration.resume()
            for correspondent in self._routes_kept:
                self.optimiser.add(correspondent)

    @property
    def is_home(self) -> bool:
        """Whether it is on its home link, and the home agent has stopped to serve it."""
        return self.home_interface is not None and self.registration.left

    def _attach(
        self, interface: InterfaceConfiguration, point: tuple[IPv6Address, IPv6Address | None] | None
    ) -> bool:
        before = self._attachments.get(interface.name)
        after = None if point is None else _Attachment(interface, *point)
        if after == before:
            return False
        if after is None:
            del self._attachments[interface.name]
            lost = str(before.care_of_address)
            self._note("care-of-address-lost", interface=interface.name, care_of_address=lost)
        else:
            self._attachments[interface.name] = after
            self._seen.add(interface.bid)
            gained = str(after.care_of_address)
            self._note("care-of-address-gained", interface=interface.name, care_of_address=gained)
        return True

    def receive(self, packet: Packet, interface: str, now: float) -> None:
        """A message from the home agent or a correspondent node, to one of our addresses."""
        message, peer = packet.message, self.home_agent
        if isinstance(message, HomeAgentAddressDiscoveryReply):
            self._home_agents_found(packet, message, now)
        elif isinstance(message, UnknownMessage):
            self._answer_unrecognised(packet, now)
        elif self._receive_otherwise(packet, now):
            pass
        elif packet.source != peer:
            reason = self.optimiser.receive(packet, now)
            if reason is not None:
                self._drop(packet, reason)
        elif isinstance(message, BindingAcknowledgement):
            if not self._is_at_home_address(packet):
                self._drop(packet, "no type 2 routing header with our home address (RFC 6275 §9.5.4)")
            elif (reason := self._unauthenticated(packet, now)) is not None:
                self._drop(packet, reason)
            elif not self.registration.acknowledged(message, now):
                self._drop(
                    packet, f"acknowledges sequence number {message.sequence}, which is not outstanding"
                )
            else:
                self._changed[self.configuration.home_address] = None
                if message.status == Status.ACCEPTED_BUT_PREFIX_DISCOVERY_NECESSARY:
                    self.home_prefixes.solicit(now)
        elif isinstance(message, MobilePrefixAdvertisement):
            self._prefixes_advertised(packet, message, now)
        elif isinstance(message, BindingRefreshRequest):
            bids = [option.bid for option in message.all_options(BindingIdentifier)]
            self._note("binding-refresh-request-received", peer=str(peer), bids=bids)
            self.registration.refresh(now, bids)
        elif isinstance(message, BindingError):
            self._note("binding-error-received", peer=str(peer), status=message.status)
        else:
            self._drop(packet, f"a {type(message).__name__} is not for this role")
        self._optimise(now)

    def _receive_otherwise(self, packet: Packet, now: float) -> bool:
        """Whether a subclass has dealt with a message from another node."""
        return False

    def _handle_otherwise(self, kind: str, peer: IPv6Address | None, now: float) -> bool:
        """Whether a subclass has dealt with a timer."""
        return False

    def handle_timer(self, now: float) -> None:
        """Retransmit, refresh, expire."""
        for kind, peer in self.timers.due(now):
            if kind == "leave":
                self.registration.leave(now)
            elif self._handle_otherwise(kind, peer, now):
                pass
            elif (kind, peer) == DISCOVER:
                self._discovery.handle_timer(now)
            elif (kind, peer) == SOLICIT:
                self.home_prefixes.handle_timer(now)
            elif peer != self.home_agent:
                self.optimiser.handle_timer(kind, peer, now)
                continue
            else:
                self.registration.handle_timer(kind, now)
            self._changed[self.configuration.home_address] = None
        self._optimise(now)

    # -- the home link, from far away

    @property
    def flow_registration(self) -> Registration:
        """The one that care-of addresses and flow bindings are registered with."""
        return self.registration

    @property
    def home_agent(self) -> IPv6Address:
        """Where it registers; the unspecified address while no home agent is known."""
        return self.registration.peer

    def _preferred_address(self) -> IPv6Address | None:
        preferred = self._by_preference()
        return preferred[0].care_of_address if preferred else None

    def _unserved(self, now: float) -> bool:
        """The home agent does not answer, or does not serve us: on to the next one, if it may be another."""
        if self.configuration.home_agent is not None:
            return False
        found = self._discovery.next()
        if found is not None:
            self.registration.move_to(found, now)
        else:
            self.registration.move_to(UNKNOWN, now)
            self._discovery.again(now + INITIAL_DHAAD_TIMEOUT)
        return True

    def _home_agents_found(
        self, packet: Packet, message: HomeAgentAddressDiscoveryReply, now: float
    ) -> None:
        reason = self._discovery.replied(packet, message)
        if reason is not None:
            return self._drop(packet, reason)
        if self.home_agent == UNKNOWN:
            self.registration.move_to(self._discovery.next(), now)

    def _solicit_prefixes(self, message: MobilePrefixSolicitation) -> bool:
        """From a care-of address that the home agent has acknowledged, with the home address."""
        known = {binding.registered for binding in self.registration.bindings.values()}
        for attachment in self._by_preference():
            if attachment.care_of_address in known:
                home_address = self.configuration.home_address
                source = attachment.care_of_address
                packet = Packet(source, self.home_agent, message, home_address=home_address)
                self._send(packet, attachment.interface.name)
                return True
        return False

    def _prefixes_advertised(self, packet: Packet, message: MobilePrefixAdvertisement, now: float) -> None:
        if packet.routing_address != self.configuration.home_address:
            return self._drop(packet, "no type 2 routing header with our home address (RFC 6275 §11.4.3)")
        self.home_prefixes.advertised(message, now)
        # RFC 6275 §11.4.2: no binding outlives the home address
        remaining_s = min(self.configuration.lifetime_s, self.home_prefixes.remaining_s(now))
        self.registration.lifetime_s = max(4, int(remaining_s) // 4 * 4)

    # -- what its user asks for

    def add_flow(self, flow: FlowBinding, now: float) -> None:
        """Bind a new flow. Raises FlowError in one sentence if it cannot be had as asked."""
        self.flow_registration.add_flow(self._with_bids(flow))
        self._note("flow-requested", fid=flow.fid, operation="add")
        self._update(now)

    def replace_flow(self, flow: FlowBinding, now: float) -> None:
        """Change a flow binding; no selector keeps the one it has. Raises FlowError."""
        self.flow_registration.replace_flow(self._with_bids(flow))
        self._forget_detour(flow.fid)
        self._note("flow-requested", fid=flow.fid, operation="replace")
        self._update(now)

    def remove_flow(self, fid: int, now: float) -> None:
        """Remove a flow binding. Raises FlowError."""
        self.flow_registration.remove_flow(fid)
        self._forget_detour(fid)
        self._note("flow-requested", fid=fid, operation="remove")
        self._update(now)

    def _forget_detour(self, fid: int) -> None:
        if self._detours is not None:
            self._detours.forget(fid)

    def optimise(self, correspondent: IPv6Address, now: float) -> None:
        """Exchange packets with this node directly (RFC 6275 §11.7.2), as soon as it agrees."""
        self.optimiser.add(correspondent)
        self._optimise(now)

    def stop_optimising(self, correspondent: IPv6Address, now: float) -> bool:
        """Go through the home agent again; False if the route was not optimised anyway."""
        return self.optimiser.remove(correspondent, now)

    def deregister(self, now: float) -> None:
        """Remove all bindings (RFC 6275 §11.7.1); `registered` and `deregistered` tell how far that is.

        Those of correspondent nodes come first, as deleting them takes a test through the home agent.
        """
        self._leaving = True
        self.optimiser.leave(now)
        self.home_prefixes.stop()
        self.timers.set(("leave", self.home_agent), now + MAX_LEAVE_TIME)
        self._optimise(now)

    @property
    def registered(self) -> bool:
        """Whether the home agent has acknowledged a binding that has not run out."""
        return self.registration.known_to_peer

    @property
    def deregistered(self) -> bool:
        """Whether `deregister` has been acknowledged, or was not needed."""
        return self.registration.left

    # -- what it wants and knows

    def home_binding(self, home_address: IPv6Address) -> HomeBinding | None:
        """The uplink: each BID's tunnel starts at a care-of address that the home agent has acknowledged,
        as it accepts no other (RFC 6275 §10.4.5)."""
        registration = self.registration
        if home_address != self.configuration.home_address or not registration.known_to_peer:
            return None
        paths, default = self._paths(registration)
        flows = [listed.registered for listed in registration.flows.values() if listed.registered]
        bids = [path.bid for path in paths]
        network = registration.mobile_network
        prefixes = network.prefixes if network is not None and network.served else ()
        return HomeBinding(home_address, paths, default, wanted_rules(flows, bids), prefixes)

    def _paths(self, registration: Registration) -> tuple[tuple[Path, ...], int | None]:
        """The path of each BID that `registration` has had acknowledged, and the default BID."""
        acknowledged = {b.registered for b in registration.bindings.values() if b.registered}
        usable = [a for a in self._by_preference() if a.care_of_address in acknowledged]
        paths = {}
        for bid, binding in registration.bindings.items():
            own = [a for a in usable if a.care_of_address == binding.registered]
            if binding.registered and usable:
                at = (own or usable)[0]
                paths[bid] = Path(
                    bid, at.care_of_address, registration.peer, at.interface.name, at.gateway
                )
        default = min(paths, key=lambda bid: (registration.bindings[bid].priority or 128, bid), default=None)
        return tuple(path for _, path in sorted(paths.items())), default

    def forwarding(self) -> dict[IPv6Address, HomeBinding]:
        wanted = self.home_binding(self.configuration.home_address)
        return {} if wanted is None else {wanted.home_address: wanted}

    def optimisations(self) -> dict[Pair, RouteOptimisation]:
        return self.optimiser.wanted(self._paths, self.flow_registration.flows.values())

    def optimisation_changes(self) -> dict[Pair, RouteOptimisation | None]:
        before, self._optimised = self._optimised, self.optimisations()
        pairs = before.keys() | self._optimised.keys()
        return {
            pair: self._optimised.get(pair)
            for pair in sorted(pairs)
            if before.get(pair) != self._optimised.get(pair)
        }

    def datapath_failed(self, home_address: IPv6Address, reason: str, now: float) -> None:
        """The kernel did not take what was wanted; there is nobody to tell but the log."""
        self._note("datapath-failed", home_address=str(home_address), reason=reason)

    def bindings(self, now: float) -> list[dict[str, Any]]:
        """One dictionary a BID: what is wanted, what is registered."""
        names = {interface.bid: interface.name for interface in self.configuration.interfaces}
        wanted = self.home_binding(self.configuration.home_address)
        return [
            {
                "home_address": str(self.configuration.home_address),
                "interface": names[binding.bid],
                "priority": binding.priority,
                "default": wanted is not None and wanted.default_bid == binding.bid,
                **describe_binding(binding, now),
            }
            for _, binding in sorted(self.flow_registration.bindings.items())
        ]

    def flows(self) -> list[dict[str, Any]]:
        """One dictionary a flow binding: `flow` (a FlowBinding) and `state` in a word."""
        listed = sorted(
            self.flow_registration.flows.values(), key=lambda item: (item.flow.priority, item.flow.fid)
        )
        return [describe_listed(flow) for flow in listed]

    def snapshot(self, now: float) -> dict[str, Any]:
        """What a restart needs to go on: the sequence number and the flow bindings asked for. JSON-able."""
        return {
            "sequence": self.registration.sequence,
            "flows": [
                flow_to_snapshot(self._detours.wanted(listed.flow) if self._detours else listed.flow)
                for listed in self.flow_registration.flows.values()
            ],
            "correspondents": [str(peer) for peer in self.optimiser.correspondents],
        }

    def restore(self, snapshot: dict[str, Any], saved_at: float, now: float) -> None:
        """Take up an earlier life, before the first `attach`. Raises ValueError if it is not a snapshot."""
        try:
            flows = [flow_from_snapshot(saved) for saved in snapshot["flows"]]
            correspondents = [IPv6Address(peer) for peer in snapshot.get("correspondents", ())]
            self.registration.sequence = int(snapshot["sequence"]) % 65536
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the state of a mobile node: {error!r}") from error
        for correspondent in correspondents:
            self.optimiser.add(correspondent)
        for flow in flows:
            if flow.fid not in self.registration.flows:
                try:
                    self.registration.add_flow(flow)
                except FlowError as error:
                    self._note("flow-forgotten", fid=flow.fid, reason=str(error))

    # -- inside

    def _mobile_network(self) -> MobileNetwork | None:
        configuration = self.configuration
        if not configuration.prefixes:
            return None
        return MobileNetwork(
            configuration.prefixes, configuration.explicit_prefixes, configuration.prefix_fall_back
        )

    def _by_preference(self) -> list[_Attachment]:
        """Where the node is attached away from home."""
        away = [a for a in self._attachments.values() if a.care_of_address not in self._home_prefix]
        return sorted(away, key=lambda a: (a.interface.priority, a.interface.bid))

    def _is_at_home_address(self, packet: Packet) -> bool:
        """RFC 6275 §9.5.4: a type 2 routing header with the home address, none where the node is at home."""
        home_address = self.configuration.home_address
        if self.home_interface is not None and packet.destination == home_address:
            return packet.routing_address is None
        return packet.routing_address == home_address

    def _moved(self, now: float) -> None:
        self._bind(self.registration)
        self._changed[self.configuration.home_address] = None
        if self.home_agent == UNKNOWN and not self._leaving:
            self._discovery.start(now)
        self._update(now)

    def _bind(self, registration: Registration) -> None:
        """Give every BID the care-of address of its own interface, else of the most preferred one."""
        preferred = self._by_preference()
        each = self._detours is not None
        for interface in self.configuration.interfaces:
            own = next((a for a in preferred if a.interface == interface), None)
            at = own or (preferred[0] if preferred and interface.bid in self._seen and not each else None)
            registration.bind(interface.bid, interface.priority, at.care_of_address if at else None)
        registration.removes_bids = each

    def _update(self, now: float) -> None:
        """Tell everyone what has changed, the home agent first."""
        if self._detours is not None:
            self._detours.apply(self.flow_registration, [a.interface.bid for a in self._by_preference()])
        self.registration.update(now)
        self._optimise(now)

    def _optimise(self, now: float) -> None:
        """Keep the correspondent nodes up with the home agent; leave that one once they are left."""
        if self._leaving:
            if not self.optimiser.correspondents and not self.registration.leaving:
                self.timers.cancel(("leave", self.home_agent))
                self.registration.leave(now)
                self._changed[self.configuration.home_address] = None
            return
        # correspondent nodes speak the draft's dialect only
        draft = self.configuration.dialect == Draft.name
        listed = self.flow_registration.flows.values() if draft else ()
        flows = [item.flow for item in listed if item.operation is not Pro.REMOVE]
        self.optimiser.update(self.flow_registration.bindings.values(), flows, now)

    def _home_lifetime(self, now: float) -> float:
        """How long the home registration still lasts, in seconds."""
        expiries = [b.expires - now for b in self.registration.bindings.values() if b.registered]
        return max(expiries, default=0.0) if self.registration.known_to_peer else 0.0

    def _with_bids(self, flow: FlowBinding) -> FlowBinding:
        """A flow binding that names no BID is attached to the default one."""
        if flow.bids or not self.configuration.interfaces:
            return flow
        preferred = min(
            self.configuration.interfaces, key=lambda interface: (interface.priority, interface.bid)
        )
        return FlowBinding(flow.fid, flow.priority, flow.action, (preferred.bid,), flow.selector)

    def _transmit(
        self, update: BindingUpdate, care_of_addresses: list[IPv6Address], now: float
    ) -> IPv6Address | None:
        """Send from the first of these addresses that is attached; any attached one where none is named."""
        attached = {attachment.care_of_address: attachment for attachment in reversed(self._by_preference())}
        usable = [address for address in care_of_addresses if address in attached]
        if not care_of_addresses:
            usable = [attachment.care_of_address for attachment in self._by_preference()]
        if not usable:
            return None
        home_agent, home_address = self.home_agent, self.configuration.home_address
        if home_agent == UNKNOWN:
            return None
        if self.home_interface is not None:  # RFC 6275 §11.5.5
            if self._signer is not None:
                update = self._signer.sign(update, home_address, home_address, now)
            self._send(Packet(home_address, home_agent, update), self.home_interface)
            return home_address
        if self._signer is not None:
            update = self._signer.sign(update, usable[0], home_address, now)
        packet = Packet(usable[0], home_agent, update, home_address=home_address)
        self._send(packet, attached[usable[0]].interface.name)
        return usable[0]

    def _unauthenticated(self, packet: Packet, now: float) -> str | None:
        """Why a Binding Acknowledgement is not to be believed (RFC 4285 §5.1.1), None if it is."""
        if self._signer is None:
            return None
        reason = self._signer.check(packet, self.configuration.home_address)
        if reason is None and self.registration.awaits(packet.message):
            self._signer.learn_time(packet.message, now)
        return reason

    def _send_from(self, packet: Packet) -> bool:
        """Send from the care-of address that is the packet's source, or through the tunnel."""
        if packet.source == self.configuration.home_address:
            self._send(packet)
            return True
        for attachment in self._by_preference():
            if attachment.care_of_address == packet.source:
                self._send(packet, attachment.interface.name)
                return True
        return False
