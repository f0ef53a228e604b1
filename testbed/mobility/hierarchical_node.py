"""The mobile node in hierarchical Mobile IPv6 (RFC 5380 §6.1, §7.1, §8, §9; draft §9).

Class: `HierarchicalMobileNode`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv6Address
from types import MappingProxyType
from typing import Any

from testbed.mobility.authentication import IpsecSigner, SecurityAssociation, Signer, unprotected
from testbed.mobility.binding import NO_BID, wanted_rules
from testbed.mobility.forwarding import HomeBinding, Path
from testbed.mobility.known_anchors import KnownAnchors
from testbed.mobility.mobile_node import UNKNOWN, MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.mobility.registration import Registration
from testbed.mobility.signalling import Signalling
from testbed.mobility.update_list import ListedFlow
from testbed.wire.codec import Codec
from testbed.wire.message import BindingAcknowledgement, BindingRefreshRequest, BindingUpdate
from testbed.wire.option import BindingIdentifier
from testbed.wire.packet import Packet
from testbed.wire.router_advertisement import MobilityAnchorPoint

_IDENTIFIER = (1 << 64) - 1  #: the interface identifier of an address
#: Binding Updates that an anchor point may leave unanswered before another one, or none, is used.
MAX_UNANSWERED = 3
#: Looks for an anchor point again; the end of what bridges a change; what nobody knows any more.
_CHOOSE, _BRIDGE, _LAPSE = "choose", "bridge", "lapse"


class HierarchicalMobileNode(MobileNode):
    """Registers its care-of addresses and flow bindings with a mobility anchor point (MAP), where there is
    one, under a regional care-of address, and with its home agent this address alone.

    Where no MAP is advertised, or none serves us, it is an ordinary mobile node. `local`: the registration
    with the MAP in use; `former`: with those before. One that the home agent or a correspondent node may
    still send to is told where we are, and forwards to us (§8); then it is left.
    """

    def __init__(
        self,
        configuration: MobileNodeConfiguration,
        now: float,
        *arguments: Any,
        local_association: SecurityAssociation | None = None,
        by_ipsec: Mapping[IPv6Address, IPv6Address] = MappingProxyType({}),
        regional_routes: bool = True,
        codec: Codec | None = None,
        **keywords: Any,
    ) -> None:
        """`local_association`: the key shared with MAPs; `by_ipsec`: MAPs with which IPsec protects the
        messages instead, each with the regional address that its associations are for (RFC 5380 §12.1);
        `regional_routes`: correspondent nodes get the regional address, as the home agent does, else the
        on-link ones, with their flow bindings (§6.1); the rest as for MobileNode."""
        self._by_ipsec = by_ipsec
        self.regional_routes = regional_routes
        self.local: Registration | None = None
        self.former: list[Registration] = []
        self.anchors = KnownAnchors()
        self._identifier: int | None = None
        self._unanswered = 0
        #: What is wanted for the home address while the home agent has not confirmed what replaces it.
        self._bridge: HomeBinding | None = None
        super().__init__(configuration, now, *arguments, codec=codec, **keywords)
        self.registration.renewed_first = lambda: self.local.next_refresh() if self.local else None
        time_of_day = keywords.get("time_of_day", lambda now: now)
        self._local_signer = (
            Signer(local_association, time_of_day, codec or Codec(configuration.dialect))
            if local_association
            else None
        )

    # -- what happens to the node

    def anchors_advertised(self, interface: str, options: Iterable[MobilityAnchorPoint], now: float) -> bool:
        """A Router Advertisement on this interface has these MAP options, or none (RFC 5380 §7.1); returns
        whether that is news. Call it before the care-of address of the same advertisement is attached."""
        news = self.anchors.heard(interface, options, now)
        if news:
            self._moved(now)
        return news

    def move(self, attachments: Any, now: float) -> None:
        for interface, point in attachments.items():
            if point is None:
                self.anchors.forget(interface)
        super().move(attachments, now)

    def _moved(self, now: float) -> None:
        self._choose(now)
        if self.local is None and not self.anchors.are_unknown(self._interfaces_away()):
            self.attachments.bind(self.registration)
        for registration in self._with_anchors():
            if not registration.leaving:
                self.attachments.bind(registration)
        for registration in self.former:
            registration.update(now)
        self._changed.update(dict.fromkeys(self._addresses()))
        if self.home_agent == UNKNOWN and not self._leaving:
            self._discovery.start(now)
        self._update(now)
        self._follow(now)

    def _interfaces_away(self) -> list[str]:
        return [attachment.interface.name for attachment in self.attachments.away()]

    def _with_anchors(self) -> Iterator[Registration]:
        """The registrations with anchor points, the one in use first."""
        if self.local is not None:
            yield self.local
        yield from self.former

    def _update(self, now: float) -> None:
        if self.local is not None:
            self.local.update(now)
        super()._update(now)

    # -- the anchor point

    def _choose(self, now: float) -> None:
        """RFC 5380 §9: eager to use a new MAP, lazy to leave one. At home, and on the way out, none."""
        if self._leaving:
            return
        interfaces, current = self._interfaces_away(), self.local and self.local.peer
        if self.home_interface is not None:
            if self.local is not None:
                self._use(None, now)
            return
        if not interfaces:
            return
        chosen = self.anchors.choose(current, interfaces, now)
        if chosen != current:
            self._use(chosen, now)
            if chosen is None:
                self._register_at_home(now)
        due = self.anchors.next_change(interfaces, now)
        if due is not None:
            self.timers.set((_CHOOSE, None), due)

    def _use(self, anchor: IPv6Address | None, now: float) -> None:
        """Register with this MAP from now on, or with none."""
        left, registered_with = self.local, self.flow_registration
        flows = registered_with.flows.wanted()
        registered_with.flows.clear()
        self.local, self._unanswered = None, 0
        if anchor is not None:
            self.local = self._taken_up(anchor) or self._with_anchor(anchor)
        self._note(
            "anchor-point-chosen",
            anchor_point=str(anchor) if anchor else None,
            regional_care_of_address=str(self.local.home_address) if self.local else None,
        )
        if left is not None:
            self._part_with(left)
        now_with = self.flow_registration
        for interface in self.configuration.interfaces if now_with.takes_bids else ():
            now_with.bind(interface.bid, interface.priority, None)
        now_with.flows.clear()
        now_with.flows.update({flow.fid: ListedFlow(flow) for flow in flows})

    def _with_anchor(self, anchor: IPv6Address) -> Registration:
        """A registration with a MAP that knows nothing of us."""
        if self._identifier is None:
            self._identifier = int(self.attachments.away()[0].care_of_address) & _IDENTIFIER
        formed = IPv6Address(int(anchor) & ~_IDENTIFIER | self._identifier)
        regional = self._by_ipsec.get(anchor, formed)
        signalling = self._regional_signalling(regional)
        registration = Registration(
            anchor,
            regional,
            self.configuration.lifetime_s,
            self.timers,
            lambda update, addresses, now: signalling.from_abroad(update, anchor, addresses, now),
            self._note,
            local=True,
            dialect=self.configuration.dialect,
        )
        registration.valid_s = lambda addresses, now: min(
            self._care_of_valid_s(addresses, now), self.anchors.valid_until(anchor) - now
        )
        registration.unserved = self._unserved_by_anchor
        return registration

    def _taken_up(self, anchor: IPv6Address) -> Registration | None:
        """The registration with a former MAP, to be used again: its next message replaces everything."""
        for registration in self.former:
            if registration.peer == anchor:
                self.former.remove(registration)
                self.timers.cancel((_LAPSE, anchor))
                registration.unserved = self._unserved_by_anchor
                registration.resume()
                return registration
        return None

    def _unserved_by_anchor(self, now: float) -> bool:
        """The MAP in use does not answer, or has refused: to another one, or on without."""
        self._unanswered += 1
        if self.local.is_waiting and self._unanswered < MAX_UNANSWERED:
            return False
        self._note("anchor-point-unserving", anchor_point=str(self.local.peer))
        self.anchors.leave_alone(self.local.peer, now)
        self._moved(now)
        return True

    def _part_with(self, registration: Registration) -> None:
        """RFC 5380 §6.1: a former MAP may be of use for a while; §7.1: but not one that has failed."""
        failed = self.anchors.has_failed(registration.peer, self._interfaces_away())
        if registration.known_to_peer and not failed:
            self.former.append(registration)
            registration.unserved = lambda now: False
        else:
            self._drop_registration(registration)

    def _drop_registration(self, registration: Registration) -> None:
        for kind in ("refresh", "expire", "send", "retransmit", "retry", _LAPSE):
            self.timers.cancel((kind, registration.peer))
        self._changed[registration.home_address] = None

    def _leave_former(self, now: float) -> None:
        """De-register with former MAPs that neither the home agent nor a correspondent node sends to."""
        needed = set(self.registration.addresses_in_use)
        for correspondent in self.optimiser.correspondents.values():
            needed |= correspondent.addresses_in_use
        if self._bridge is not None:
            needed.update(path.local for path in self._bridge.paths)
        for registration in list(self.former):
            if not registration.leaving and registration.home_address not in needed:
                self.timers.set((_LAPSE, registration.peer), now + registration.remaining_s(now))
                registration.leave(now)
            if registration.left or not registration.known_to_peer:
                self._drop_registration(registration)
                self.former.remove(registration)

    # -- the home agent

    def _register_at_home(self, now: float) -> None:
        """Bring the home agent to the regional address, or back to the others."""
        registration = self.registration
        if self.local is None:
            registration.lifetime_s = self.configuration.lifetime_s
        preferred = min(self.configuration.interfaces, key=lambda i: (i.priority, i.bid))
        bid, priority = (preferred.bid, preferred.priority) if registration.takes_bids else (NO_BID, 0)
        wanted = {binding.care_of_address for binding in registration.bindings.values()}
        former = {known.home_address for known in self.former}
        if self.local is not None and registration.known_to_peer and wanted and wanted <= former:
            registration.bind(bid, priority, self.local.home_address)
        else:
            self._bridge_change(now)
            registration.resume()  # the next message replaces everything (RFC 5648 §5.9)
            registration.bindings.clear()
            if self.local is None:
                self.attachments.bind(registration)
            else:
                registration.flows.clear()
                registration.bind(bid, priority, self.local.home_address)
        self._changed[self.configuration.home_address] = None
        registration.update(now)

    def _bridge_change(self, now: float) -> None:
        """Until the home agent has confirmed the change, it goes on as before."""
        remaining_s = self.registration.remaining_s(now)
        if remaining_s > 0:
            self._bridge = self.home_binding(self.configuration.home_address)
            self.timers.set((_BRIDGE, self.home_agent), now + remaining_s)

    def _end_bridge(self) -> None:
        self._bridge = None
        self.timers.cancel((_BRIDGE, self.home_agent))

    def _bridged(self) -> HomeBinding | None:
        """What is left of the former ways to the home agent."""
        before = self._bridge
        if before is None:
            return None
        here = {attachment.care_of_address for attachment in self.attachments.away()}
        paths = tuple(path for path in before.paths if (path.via or path).local in here)
        if not paths:
            return None
        bids = {path.bid for path in paths}
        default = before.default_bid if before.default_bid in bids else min(bids)
        rules = tuple(rule for rule in before.rules if bids.issuperset(rule.bids))
        return replace(before, paths=paths, default_bid=default, rules=rules)

    @property
    def flow_registration(self) -> Registration:
        return self.local or self.registration

    def _receive_otherwise(self, packet: Packet, now: float) -> bool:
        registration = self._registration_with(packet.source)
        if registration is None:
            return False
        message = packet.message
        if isinstance(message, BindingAcknowledgement):
            signalling = self._regional_signalling(registration.home_address)
            self._acknowledged(packet, signalling, registration, now)
        elif registration.peer in self._by_ipsec and (reason := unprotected(packet)) is not None:
            self._drop(packet, reason)
        elif isinstance(message, BindingRefreshRequest):
            registration.refresh(now, [option.bid for option in message.all_options(BindingIdentifier)])
        else:
            self._drop(packet, f"a {type(message).__name__} is not for this role")
        self._follow(now)
        return True

    def _registration_with(self, peer: IPv6Address | None) -> Registration | None:
        return next((r for r in self._with_anchors() if r.peer == peer), None)

    def _unsupported(self, peer: IPv6Address, now: float) -> None:
        registration = self._registration_with(peer)
        if registration is None:
            super()._unsupported(peer, now)
        else:
            registration.unsupported(now)
            self._follow(now)

    def _handle_otherwise(self, kind: str, peer: IPv6Address | None, now: float) -> bool:
        if kind == _CHOOSE:
            self._moved(now)
            return True
        if kind == _BRIDGE:
            self._end_bridge()
            return False
        registration = self._registration_with(peer)
        if registration is None:
            return False
        if kind == _LAPSE:
            self.former.remove(registration)
            self._drop_registration(registration)
        else:
            registration.handle_timer(kind, now)
        self._follow(now)
        return True

    def receive(self, packet: Packet, interface: str, now: float) -> None:
        super().receive(packet, interface, now)
        self._follow(now)

    def handle_timer(self, now: float) -> None:
        super().handle_timer(now)
        self._follow(now)

    def _follow(self, now: float) -> None:
        """After news from the MAP or the home agent: what the one knows, the other may have to know."""
        local, home = self.local, self.registration
        self._changed.update(dict.fromkeys(self._addresses()))
        if home.known_to_peer or home.leaving:
            self._end_bridge()
        served = local is not None and local.remaining_s(now) > 0
        if served and not self._leaving and self.home_interface is None:
            self._unanswered = 0
            # RFC 5380 §6.1: no longer than the binding with the MAP lasts
            home.lifetime_s = max(4, min(self.configuration.lifetime_s, int(local.remaining_s(now)) // 4 * 4))
            wanted = {binding.care_of_address for binding in home.bindings.values()}
            if wanted != {local.home_address}:
                self._register_at_home(now)
            else:
                home.update(now)
        self._optimise(now)
        if self._leaving and home.left and local is not None and not local.leaving:
            local.leave(now)
        self._leave_former(now)

    # -- correspondent nodes

    def _optimise(self, now: float) -> None:
        """Correspondent nodes get what the home agent gets, and no flow bindings, as there is nothing to
        choose (RFC 5380 §6.1); on-link addresses as where there is no MAP. Nothing, where what the home agent
        has got is about to be replaced by a regional address."""
        if self._leaving or self.local is None or not self.regional_routes:
            return super()._optimise(now)
        wanted = self.registration.bindings.values()
        regional = {registration.home_address for registration in self._with_anchors()}
        if self.home_interface is None and regional.issuperset(b.care_of_address for b in wanted):
            self.optimiser.update(wanted, (), now)

    def _send_from(self, packet: Packet) -> bool:
        """From a regional address, through the MAP's tunnel (RFC 5380 §6.1, §12.2)."""
        if any(r.home_address == packet.source and r.known_to_peer for r in self._with_anchors()):
            self._send(packet, after_datapath=True)
            return True
        return super()._send_from(packet)

    def _care_of_addresses(self) -> list[IPv6Address]:
        """Regional addresses as well, which are what the home agent has got (RFC 5380 §6.1)."""
        regional = [r.home_address for r in self._with_anchors() if r.known_to_peer]
        return [*super()._care_of_addresses(), *regional]

    def _care_of_valid_s(self, care_of_addresses: Iterable[IPv6Address], now: float) -> float:
        """RFC 5380 §6.1: a regional address is good for no longer than the MAP has bound it."""
        named = list(care_of_addresses)
        bound = [r.remaining_s(now) for r in self._with_anchors() if r.home_address in named]
        return min([super()._care_of_valid_s(named, now), *bound])

    @property
    def deregistered(self) -> bool:
        return self.registration.left and (self.local is None or self.local.left) and not self.former

    # -- messages

    def _transmit(
        self, update: BindingUpdate, care_of_addresses: list[IPv6Address], now: float
    ) -> IPv6Address | None:
        """To the home agent: from the regional address, through the MAP's tunnel, once that is in place."""
        if self.local is None or self.home_interface is not None:
            return super()._transmit(update, care_of_addresses, now)
        regional = self.local.home_address
        if care_of_addresses and regional not in care_of_addresses or not self.local.known_to_peer:
            return None
        self._signalling.send(update, self.home_agent, regional, now, after_datapath=True)
        return regional

    def _regional_signalling(self, regional: IPv6Address) -> Signalling:
        """With a MAP: from an on-link care-of address, which it binds (RFC 5380 §6.1)."""
        signer = IpsecSigner() if regional in self._by_ipsec.values() else self._local_signer
        return Signalling(regional, signer, self.attachments, self._send)

    # -- what it wants

    def _addresses(self) -> list[IPv6Address]:
        """The home address, and the regional addresses."""
        return [self.configuration.home_address, *(r.home_address for r in self._with_anchors())]

    def regional_tunnels(self) -> set[tuple[IPv6Address, IPv6Address]]:
        """Anchor points that have bound a regional address for this node, with that address."""
        return {(r.peer, r.home_address) for r in self._with_anchors() if r.known_to_peer}

    def home_binding(self, home_address: IPv6Address) -> HomeBinding | None:
        for registration in self._with_anchors():
            if registration.home_address == home_address:
                if not registration.known_to_peer:
                    return None
                paths, default = self.attachments.paths(registration)
                rules = wanted_rules(self.flow_registration.flows.registered(), [path.bid for path in paths])
                return HomeBinding(home_address, paths, default, rules, regional=True)
        if home_address == self.configuration.home_address and not self.registration.known_to_peer:
            return self._bridged()
        return super().home_binding(home_address)

    @property
    def _classifying(self) -> Registration:
        """Behind a MAP, which has the flow bindings: what is registered with it (draft §9)."""
        return self.registration if self._serving(self.registration) is None else self.flow_registration

    def _paths(self, registration: Registration) -> tuple[tuple[Path, ...], int | None]:
        serving = self._serving(registration)
        if serving is None:
            return super()._paths(registration)
        outer, default = self.attachments.paths(serving)
        paths = (
            replace(path, local=serving.home_address, remote=registration.peer, via=path) for path in outer
        )
        return tuple(paths), default

    def _serving(self, of: Registration) -> Registration | None:
        """The MAP whose regional address the home agent, or a correspondent node, has."""
        registered = {binding.registered for binding in of.bindings.values()}
        for registration in self._with_anchors():
            if registration.home_address in registered:
                return registration if registration.known_to_peer else None
        return None

    def forwarding(self) -> dict[IPv6Address, HomeBinding]:
        wanted = ((address, self.home_binding(address)) for address in self._addresses())
        return {address: binding for address, binding in wanted if binding is not None}
