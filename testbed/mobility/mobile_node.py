"""The mobile node (RFC 6275 §11; RFC 5648 §5; draft-soliman-monami6-flow-binding-05 §6).

Class: `MobileNode`.
"""

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import IPv6Address
from typing import Any

from testbed.mobility.attachments import Attachments
from testbed.mobility.authentication import IpsecSigner, Signer, unprotected
from testbed.mobility.binding import NO_BID, FlowBinding, wanted_rules
from testbed.mobility.detours import Detours
from testbed.mobility.flow_requests import FlowRequests
from testbed.mobility.forwarding import HomeBinding, Pair, Path, RouteOptimisation
from testbed.mobility.home_discovery import (
    DISCOVER,
    INITIAL_DHAAD_TIMEOUT,
    SOLICIT,
    HomeAgentDiscovery,
    PrefixDiscovery,
)
from testbed.mobility.listed_flows import FlowError
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.mobility.registration import Registration
from testbed.mobility.returning_home import ReturningHome
from testbed.mobility.role import Role
from testbed.mobility.route_optimisation import RouteOptimiser
from testbed.mobility.signalling import Signalling
from testbed.mobility.snapshot import flow_from_snapshot, flow_to_snapshot
from testbed.mobility.update_list import describe_binding, describe_listed
from testbed.wire.address import link_local_of
from testbed.wire.codec import Codec
from testbed.wire.icmp_error import PARAMETER_PROBLEM, UNRECOGNIZED_NEXT_HEADER, IcmpError
from testbed.wire.icmpv6 import (
    HomeAgentAddressDiscoveryReply,
    Icmpv6Message,
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


class MobileNode(Role):
    """Registers the care-of addresses of its interfaces and its flow bindings with its home agent.

    Each interface has a BID. While an interface has no care-of address, its BID is bound to that of the
    most preferred interface that has one: one Binding Identifier option moves all the flows that are bound
    to it, and another one brings them back (draft §4.1, §6.2). In plain Mobile IPv6 there is one binding.
    """

    def __init__(
        self,
        configuration: MobileNodeConfiguration,
        now: float,
        sequence: int = 0,
        codec: Codec | None = None,
        random: Callable[[int], bytes] = os.urandom,
        time_of_day: Callable[[float], float] = lambda now: now,
        valid_until: Callable[[IPv6Address], float] = lambda care_of_address: math.inf,
        link_layer_address: Callable[[str], bytes] = lambda interface: b"",
        link_local_addresses: Callable[[], Collection[IPv6Address]] = tuple,
    ) -> None:
        """`time_of_day` turns the role's clock into seconds since 1970 (RFC 4285 §6); `valid_until` tells, on
        the role's clock, when the valid lifetime of a care-of address ends; `link_layer_address` that of an
        interface, empty if it has none; `link_local_addresses` those of all interfaces."""
        super().__init__()
        signer: Signer | IpsecSigner | None = None
        if configuration.ipsec:
            signer = IpsecSigner()
        elif configuration.association:
            signer = Signer(configuration.association, time_of_day, codec or Codec(configuration.dialect))
        self.configuration = configuration
        self._leaving = False
        self._saved: tuple[Any, ...] = ()
        self._valid_until = valid_until
        self.attachments = Attachments(configuration, self._note)
        self._signalling = Signalling(
            configuration.home_address, signer, self.attachments, self._send, link_layer_address
        )
        detours = Detours() if configuration.flow_updates == "each" else None
        self._flow_requests = FlowRequests(configuration.interfaces, detours, self._note)
        #: Correspondent nodes that nobody has asked for (see `Initiative`).
        self.begun: set[IPv6Address] = set()
        self.registration = Registration(
            configuration.home_agent or UNKNOWN,
            configuration.home_address,
            configuration.lifetime_s,
            self.timers,
            self._transmit,
            self._note,
            sequence,
            configuration.mobile_network(),
            dialect=configuration.dialect,
        )
        self.registration.unserved = self._unserved
        self._link_local_addresses = link_local_addresses
        self.registration.link_local_compatibility = self._is_compatible
        self.registration.valid_s = self._valid_s
        self._discovery = HomeAgentDiscovery(
            configuration.home_link_prefix,
            bool(configuration.prefixes),
            self.timers,
            self._discovering_address,
            self._send_from,
            self._note,
            random,
        )
        self.home_prefixes = PrefixDiscovery(
            configuration.home_address, self.timers, self._solicit_prefixes, self._note, random
        )
        self.attachments.bind(self.registration)
        for flow in configuration.flows:
            self.registration.flows.add(flow)
        self.optimiser = RouteOptimiser(
            configuration.home_address,
            self.timers,
            self._send_from,
            self._note,
            self.registration.remaining_s,
            random,
            codec,
            configuration.dialect,
        )
        self.optimiser.valid_s = self._valid_s
        self.optimiser.renewed_first = self.registration.next_refresh
        simultaneous = configuration.returning_home == "simultaneous"
        self._returning = ReturningHome(
            self.attachments, self.registration, self.optimiser, simultaneous, self._note
        )
        for correspondent in configuration.correspondents:
            self.optimiser.add(correspondent)

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
                moved |= self.attachments.attach(interface, attachments[interface.name])
        if moved:
            self._returning.look(self._leaving, now)
            self._moved(now)

    @property
    def home_interface(self) -> str | None:
        """The interface that is on the home link, None if there is none."""
        return self.attachments.home_interface

    @property
    def is_home(self) -> bool:
        """Whether it is on its home link, and the home agent has stopped to answer for the home address."""
        return self._returning.is_home

    @property
    def is_unguarded(self) -> bool:
        """Whether somebody else may have the home address by now (see `ReturningHome`)."""
        return self._returning.is_unguarded

    @property
    def presence(self) -> str | None:
        """The interface on the home link where it answers for its home address, None while it must not."""
        return self._returning.presence

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
        elif self.configuration.ipsec and (reason := unprotected(packet)) is not None:
            self._drop(packet, reason)
        elif isinstance(message, BindingAcknowledgement):
            if self._acknowledged(packet, self._signalling, self.registration, now):
                self._changed[self.configuration.home_address] = None
                self._returning.acknowledged(now)
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

    def receive_error(self, sent: Packet, error: IcmpError, now: float) -> None:
        """An ICMPv6 error about a message that we have sent (RFC 6275 §11.3.5). What cannot be delivered now
        is sent again in its time; an unknown Home Address option is noted."""
        self._note(
            "icmp-error-received",
            peer=str(error.source),
            message=type(sent.message).__name__,
            type=error.kind,
            code=error.code,
        )
        unknown = (error.kind, error.code) == (PARAMETER_PROBLEM, UNRECOGNIZED_NEXT_HEADER)
        if unknown and error.source == sent.destination and not isinstance(sent.message, Icmpv6Message):
            self._unsupported(sent.destination, now)
        self._optimise(now)

    def _unsupported(self, peer: IPv6Address, now: float) -> None:
        """This node does not know the Mobility Header."""
        if peer == self.home_agent:
            self.registration.unsupported(now)
        else:
            self.optimiser.unsupported(peer, now)

    def _acknowledged(
        self, packet: Packet, signalling: Signalling, registration: Registration, now: float
    ) -> bool:
        """Take a Binding Acknowledgement; whether it was one that has been waited for."""
        reason = signalling.objection(packet, registration, now)
        if reason is None and not registration.acknowledged(packet.message, now):
            reason = f"acknowledges sequence number {packet.message.sequence}, which is not outstanding"
        if reason is not None:
            self._drop(packet, reason)
        return reason is None

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

    @property
    def flow_registration(self) -> Registration:
        """The one that care-of addresses and flow bindings are registered with."""
        return self.registration

    @property
    def home_agent(self) -> IPv6Address:
        """Where it registers; the unspecified address while no home agent is known."""
        return self.registration.peer

    def _discovering_address(self) -> IPv6Address | None:
        """Where home agents are asked for: a care-of address, at home the home address."""
        at_home = self.home_interface is not None
        return self.attachments.preferred_address() or (self.configuration.home_address if at_home else None)

    def _unserved(self, now: float) -> bool:
        """The home agent does not answer, or does not serve us: on to the next one, if it may be another."""
        if self.configuration.home_agent is not None:
            return False
        found = self._discovery.next()
        if found is not None:
            self._register_with(found, now)
        else:
            self._register_with(UNKNOWN, now)
            self._discovery.again(now + INITIAL_DHAAD_TIMEOUT)
        return True

    def _home_agents_found(
        self, packet: Packet, message: HomeAgentAddressDiscoveryReply, now: float
    ) -> None:
        reason = self._discovery.replied(packet, message)
        if reason is not None:
            return self._drop(packet, reason)
        if self.home_agent == UNKNOWN:
            self._register_with(self._discovery.next(), now)

    def _register_with(self, home_agent: IPv6Address, now: float) -> None:
        self.registration.move_to(home_agent, now)
        self.attachments.bind(self.registration)
        self.registration.update(now)

    def _solicit_prefixes(self, message: MobilePrefixSolicitation) -> bool:
        """From a care-of address that the home agent has acknowledged, with the home address."""
        known = {binding.registered for binding in self.registration.bindings.values()}
        source = next((address for address in self._care_of_addresses() if address in known), None)
        home_address = self.configuration.home_address
        return source is not None and self._send_from(
            Packet(source, self.home_agent, message, home_address=home_address)
        )

    def _care_of_addresses(self) -> list[IPv6Address]:
        """Those that `_send_from` can send from now."""
        return [attachment.care_of_address for attachment in self.attachments.away()]

    def _prefixes_advertised(self, packet: Packet, message: MobilePrefixAdvertisement, now: float) -> None:
        if packet.routing_address != self.configuration.home_address:
            return self._drop(packet, "no type 2 routing header with our home address (RFC 6275 §11.4.3)")
        self.home_prefixes.advertised(message, now)
        self.optimiser.shorten(self.home_prefixes.remaining_s(now), now)

    def _valid_s(self, care_of_addresses: Iterable[IPv6Address], now: float) -> float:
        """How long the home address and these care-of addresses are valid (RFC 6275 §11.7.1)."""
        return min([self.home_prefixes.remaining_s(now), self._care_of_valid_s(care_of_addresses, now)])

    def _care_of_valid_s(self, care_of_addresses: Iterable[IPv6Address], now: float) -> float:
        return min((self._valid_until(address) - now for address in care_of_addresses), default=math.inf)

    def add_flow(self, flow: FlowBinding, now: float) -> None:
        """Bind a new flow. Raises FlowError in one sentence if it cannot be had as asked."""
        self._flow_requests.add(self.flow_registration, flow)
        self._update(now)

    def replace_flow(self, flow: FlowBinding, now: float) -> None:
        """Change a flow binding; no selector keeps the one it has. Raises FlowError."""
        self._flow_requests.replace(self.flow_registration, flow)
        self._update(now)

    def remove_flow(self, fid: int, now: float) -> None:
        """Remove a flow binding. Raises FlowError."""
        self._flow_requests.remove(self.flow_registration, fid)
        self._update(now)

    def prefer(self, interface: str | None, now: float) -> None:
        """Use the care-of address of this interface while it has one, whatever its priority (None: by
        priority). Raises FlowError where each interface has a BID: there, flows are bound."""
        if self.configuration.multiple_care_of_addresses:
            raise FlowError("an interface is preferred only without multiple care-of addresses: bind flows")
        if interface is not None and all(i.name != interface for i in self.configuration.interfaces):
            raise FlowError(f"there is no interface {interface}")
        self.attachments.prefer(interface)
        self._moved(now)

    def optimise(self, correspondent: IPv6Address, now: float, of_its_own_accord: bool = False) -> None:
        """Exchange packets with this node directly (RFC 6275 §11.7.2), as soon as it agrees."""
        if of_its_own_accord:
            self.begun.add(correspondent)
        else:
            self.begun.discard(correspondent)
        self.optimiser.add(correspondent)
        self._optimise(now)

    def stop_optimising(self, correspondent: IPv6Address, now: float) -> bool:
        """Go through the home agent again; False if the route was not optimised anyway."""
        self.begun.discard(correspondent)
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

    def home_binding(self, home_address: IPv6Address) -> HomeBinding | None:
        """The uplink: each BID's tunnel starts at a care-of address that the home agent has acknowledged,
        as it accepts no other (RFC 6275 §10.4.5)."""
        registration = self.registration
        if home_address != self.configuration.home_address or not registration.known_to_peer:
            return None
        paths, default = self._paths(registration)
        rules = wanted_rules(self._classifying.flows.registered(), [path.bid for path in paths])
        network = registration.mobile_network
        prefixes = network.prefixes if network is not None and network.served else ()
        return HomeBinding(home_address, paths, default, rules, prefixes)

    @property
    def _classifying(self) -> Registration:
        """The registration whose flow bindings say which of the home address's paths a flow takes."""
        return self.registration

    def forwarding(self) -> dict[IPv6Address, HomeBinding]:
        wanted = self.home_binding(self.configuration.home_address)
        return {} if wanted is None else {wanted.home_address: wanted}

    def optimisations(self) -> dict[Pair, RouteOptimisation]:
        return self.optimiser.wanted(self._paths, self.flow_registration.flows.registered())

    def _paths(self, registration: Registration) -> tuple[tuple[Path, ...], int | None]:
        """The path of each BID that `registration` has had acknowledged, and the default BID."""
        return self.attachments.paths(registration)

    def optimisation_changes(self) -> dict[Pair, RouteOptimisation | None]:
        return self.optimiser.changes(self.optimisations())

    def datapath_failed(self, home_address: IPv6Address, reason: str, now: float) -> None:
        """The kernel did not take what was wanted; there is nobody to tell but the log."""
        self._note("datapath-failed", home_address=str(home_address), reason=reason)

    def bindings(self, now: float) -> list[dict[str, Any]]:
        """One dictionary a BID: what is wanted, what is registered."""
        names = {interface.bid: interface.name for interface in self.configuration.interfaces}
        names[NO_BID] = next((a.interface.name for a in self.attachments.away()), None)
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
                flow_to_snapshot(self._flow_requests.wanted(flow))
                for flow in self.flow_registration.flows.wanted()
            ],
            "correspondents": [
                str(peer) for peer, known in self.optimiser.correspondents.items() if not known.leaving
            ],
            "begun": sorted(map(str, self.begun)),
        }

    def unsaved(self, now: float) -> dict[str, Any] | None:
        """All of it, where anything is new."""
        flows = tuple(self._flow_requests.wanted(flow) for flow in self.flow_registration.flows.wanted())
        leaving = tuple((peer, known.leaving) for peer, known in self.optimiser.correspondents.items())
        known, self._saved = self._saved, (self.registration.sequence, flows, leaving)
        return self.snapshot(now) if self._saved != known else None

    def restore(self, snapshot: dict[str, Any], saved_at: float, now: float) -> None:
        """Take up an earlier life, before the first `attach`. Raises ValueError if it is not a snapshot."""
        try:
            flows = [flow_from_snapshot(saved) for saved in snapshot["flows"]]
            correspondents = [IPv6Address(peer) for peer in snapshot.get("correspondents", ())]
            begun = {IPv6Address(peer) for peer in snapshot.get("begun", ())}
            self.registration.sequence = int(snapshot["sequence"]) % 65536
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the state of a mobile node: {error!r}") from error
        self._returning.lived_before = True
        self.begun = begun & set(correspondents) - set(self.optimiser.correspondents)
        for correspondent in correspondents:
            self.optimiser.add(correspondent)
        for flow in flows:
            if flow.fid not in self.registration.flows:
                try:
                    self.registration.flows.add(flow)
                except FlowError as error:
                    self._note("flow-forgotten", fid=flow.fid, reason=str(error))

    def _moved(self, now: float) -> None:
        self.attachments.bind(self.registration)
        self._changed[self.configuration.home_address] = None
        if self.home_agent == UNKNOWN and not self._leaving:
            self._discovery.start(now)
        self._update(now)

    def _update(self, now: float) -> None:
        """Tell everyone what has changed, the home agent first."""
        bids = [attachment.interface.bid for attachment in self.attachments.usable()]
        self._flow_requests.follow(self.flow_registration, bids)
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
        wanted = self.flow_registration
        abroad = wanted.bindings.values() if self.home_interface is None else ()
        self.optimiser.update(abroad, wanted.flows.wanted(), now)

    def _is_compatible(self) -> bool:
        """RFC 6275 §11.7.1: the L bit."""
        return link_local_of(self.configuration.home_address) in self._link_local_addresses()

    def _transmit(
        self, update: BindingUpdate, care_of_addresses: list[IPv6Address], now: float
    ) -> IPv6Address | None:
        """Send to the home agent, from the home link or the first of these addresses that is attached."""
        if self.home_agent == UNKNOWN:
            return None
        if self.home_interface is not None and not self.attachments.simultaneous:
            return self._signalling.from_home(update, self.home_agent, now)
        return self._signalling.from_abroad(update, self.home_agent, care_of_addresses, now)

    def _send_from(self, packet: Packet) -> bool:
        """Send from the care-of address that is the packet's source, or through the tunnel, which has to be
        there by then, as the home address has at home."""
        if packet.source == self.configuration.home_address:
            self._send(packet, after_datapath=True)
            return True
        at = self.attachments.first_of([packet.source])
        if at is not None:
            self._send(packet, at.interface.name)
        return at is not None
