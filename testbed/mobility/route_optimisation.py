"""Route optimisation at the mobile node: its correspondent registrations (RFC 6275 §11.6, §11.7.2).

Class: `RouteOptimiser`.
"""

import math
import os
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address
from typing import Any

from testbed.mobility.binding import FlowBinding, wanted_rules
from testbed.mobility.correspondent_registration import CorrespondentRegistration
from testbed.mobility.forwarding import Action, FlowRule, Pair, Path, RouteOptimisation, Side
from testbed.mobility.registration import Registration
from testbed.mobility.role import Timers
from testbed.mobility.update_list import ListedBinding, describe_binding, describe_listed
from testbed.wire.codec import Codec
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingError,
    BindingErrorStatus,
    BindingRefreshRequest,
    CareOfTest,
    HomeTest,
)
from testbed.wire.option import BindingIdentifier
from testbed.wire.packet import Packet

#: Nodes that were left whose sequence numbers are remembered: more have no end where traffic begins routes. A
#: number that is not taken for a new one is mended by status 135.
MAX_REMEMBERED = 1000


class RouteOptimiser:
    """The correspondent nodes whose packets are not to go through the home agent.

    `send(packet)` sends from the packet's source address, through the tunnel where that is the home address,
    and returns whether it can; `home_lifetime(now)` as for CorrespondentRegistration.
    """

    def __init__(
        self,
        home_address: IPv6Address,
        timers: Timers,
        send: Callable[[Packet], bool],
        note: Callable[..., None],
        home_lifetime: Callable[[float], float],
        random: Callable[[int], bytes] = os.urandom,
        codec: Codec | None = None,
        dialect: str = "draft",
    ) -> None:
        self.home_address = home_address
        self.correspondents: dict[IPv6Address, CorrespondentRegistration] = {}
        #: As for Registration.
        self.valid_s: Callable[[Iterable[IPv6Address], float], float] = lambda addresses, now: math.inf
        self.renewed_first: Callable[[], float | None] = lambda: None
        #: Where to go on with a node that was left (RFC 6275 §11.7.2: greater than the previous number).
        self._sequences: dict[IPv6Address, int] = {}
        self._told: dict[Pair, RouteOptimisation] = {}
        self._timers = timers
        self._send = send
        self._note = note
        self._home_lifetime = home_lifetime
        self._random = random
        self._dialect = dialect
        self._codec = codec or Codec(dialect)

    def add(self, correspondent: IPv6Address) -> None:
        """Optimise the route to this node from now on; takes effect with `update`."""
        known = self.correspondents.get(correspondent)
        if known is not None and not known.leaving:
            return known.retry()
        registration = self.correspondents[correspondent] = CorrespondentRegistration(
            correspondent,
            self.home_address,
            self._timers,
            self._send,
            self._note,
            self._home_lifetime,
            self._random,
            self._codec,
            self._dialect,
        )
        registration.valid_s = self.valid_s
        registration.renewed_first = self.renewed_first
        if correspondent in self._sequences:
            registration.sequence = self._sequences.pop(correspondent)

    def remove(self, correspondent: IPv6Address, now: float) -> bool:
        """Go through the home agent again; False if that was so already."""
        known = self.correspondents.get(correspondent)
        if known is None:
            return False
        known.leave(now)
        self._forget_gone()
        return True

    def shorten(self, remaining_s: float, now: float) -> None:
        """The home address is valid for so many seconds only: so are bindings (RFC 6275 §11.4.2)."""
        for registration in self.correspondents.values():
            registration.shorten(remaining_s, now)

    def leave(self, now: float) -> None:
        """Remove all."""
        for correspondent in list(self.correspondents):
            self.remove(correspondent, now)

    def update(self, bindings: Iterable[ListedBinding], flows: Iterable[FlowBinding], now: float) -> None:
        """Bring the correspondent nodes to these bindings (what is wanted, not what a home agent has
        acknowledged) and flow bindings."""
        bindings, flows = list(bindings), list(flows)
        for registration in self.correspondents.values():
            if not registration.leaving:
                registration.follow(bindings)
                registration.flows.want(flows)
                registration.update(now)

    def receive(self, packet: Packet, now: float) -> str | None:
        """Take a message from a correspondent node; the reason if it is not for us or not in order."""
        registration = self.correspondents.get(packet.source)
        if registration is None:
            return "not from the home agent nor a correspondent node of ours"
        message = packet.message
        at_home = self.home_address in (packet.destination, packet.routing_address)
        reason = None
        if isinstance(message, HomeTest):
            tunnelled = packet.destination == self.home_address and packet.routing_address is None
            if not tunnelled or not registration.home_test(message, now):
                reason = "not the Home Test that is waited for (RFC 6275 §11.6.2)"
        elif isinstance(message, CareOfTest):
            direct = packet.routing_address is None
            if not direct or not registration.care_of_test(packet.destination, message, now):
                reason = "not the Care-of Test that is waited for (RFC 6275 §11.6.2)"
        elif isinstance(message, BindingAcknowledgement):
            if packet.routing_address != self.home_address:
                reason = "no type 2 routing header with our home address (RFC 6275 §9.5.4)"
            elif not registration.proven(packet):
                reason = "no valid Binding Authorization Data (RFC 6275 §11.7.3)"
            elif not registration.acknowledged(message, now):
                reason = f"acknowledges sequence number {message.sequence}, which is not outstanding"
        elif isinstance(message, BindingRefreshRequest) and at_home:
            bids = [option.bid for option in message.all_options(BindingIdentifier)]
            self._note("binding-refresh-request-received", peer=str(packet.source), bids=bids)
            registration.refresh(now, bids)
        elif isinstance(message, BindingError):
            self._note("binding-error-received", peer=str(packet.source), status=message.status)
            if message.status == BindingErrorStatus.UNKNOWN_BINDING:
                if message.home_address == self.home_address:
                    registration.lost(now)
            elif not registration.known_to_peer:  # RFC 6275 §11.3.6: it knows none of this
                registration.unsupported(now)
        else:
            reason = f"a {type(message).__name__} is not for this role"
        self._forget_gone()
        return reason

    def unsupported(self, correspondent: IPv6Address, now: float) -> None:
        """This node does not know the Mobility Header (RFC 6275 §11.3.5)."""
        registration = self.correspondents.get(correspondent)
        if registration is not None:
            registration.unsupported(now)
            self._forget_gone()

    def handle_timer(self, kind: Any, correspondent: IPv6Address, now: float) -> None:
        """Do what was due under the key `(kind, correspondent)`."""
        registration = self.correspondents.get(correspondent)
        if registration is not None:
            registration.handle_timer(kind, now)
            self._forget_gone()

    def wanted(
        self,
        paths_of: Callable[[Registration], tuple[tuple[Path, ...], int | None]],
        flows: Iterable[FlowBinding],
    ) -> dict[Pair, RouteOptimisation]:
        """Where packets to correspondent nodes leave: by what these have acknowledged. `flows`: those of the
        home agent, whose n-casting is not for correspondent nodes; or of the anchor point, whose tunnel the
        packets take."""
        wanted, flows = {}, list(flows)
        n_cast = tuple(
            FlowRule(flow.fid, flow.priority, flow.selector, Action.N_CAST)
            for flow in flows
            if flow.action is Action.N_CAST
        )
        for peer, registration in self.correspondents.items():
            paths, default = paths_of(registration)
            if default is not None and not registration.leaving:
                bids = [path.bid for path in paths]
                if any(path.via for path in paths):
                    rules = wanted_rules(flows, bids)
                else:
                    rules = n_cast + wanted_rules(registration.flows.registered(), bids)
                wanted[self.home_address, peer] = RouteOptimisation(
                    self.home_address,
                    peer,
                    Side.MOBILE,
                    paths,
                    default,
                    tuple(sorted(rules, key=lambda rule: (rule.priority, rule.fid))),
                )
        return wanted

    def changes(self, wanted: dict[Pair, RouteOptimisation]) -> dict[Pair, RouteOptimisation | None]:
        """What is different now that this is `wanted`, since the last call; None: nothing any more."""
        before, self._told = self._told, wanted
        pairs = sorted(before.keys() | wanted.keys())
        return {pair: wanted.get(pair) for pair in pairs if before.get(pair) != wanted.get(pair)}

    def describe(self, now: float) -> list[dict[str, Any]]:
        """One dictionary a correspondent node: its bindings and flow bindings; for people and programs."""
        return [
            {
                "correspondent": str(peer),
                "optimised": registration.known_to_peer,
                "bindings": [
                    describe_binding(binding, now)
                    for _, binding in sorted(registration.bindings.items())
                ],
                "flows": [describe_listed(listed) for _, listed in sorted(registration.flows.items())],
            }
            for peer, registration in self.correspondents.items()
        ]

    def _forget_gone(self) -> None:
        for correspondent in [peer for peer, known in self.correspondents.items() if known.left]:
            self._sequences[correspondent] = self.correspondents.pop(correspondent).sequence
            if len(self._sequences) > MAX_REMEMBERED:
                del self._sequences[next(iter(self._sequences))]
