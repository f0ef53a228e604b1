"""The mobile node in hierarchical Mobile IPv6 (RFC 5380 §6.1, §7.1, §8, §9; draft §9).

Class: `HierarchicalMobileNode`.
"""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

from testbed.mobility.authentication import SecurityAssociation, Signer
from testbed.mobility.binding import NO_BID, wanted_rules
from testbed.mobility.forwarding import HomeBinding, Path
from testbed.mobility.mobile_node import MobileNode
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


class HierarchicalMobileNode(MobileNode):
    """Registers its care-of addresses and flow bindings with a mobility anchor point (MAP), where there is
    one, under a regional care-of address, and with its home agent this address alone.

    Where no MAP is advertised, it is an ordinary mobile node. `local`: the registration with the MAP in use;
    `previous`: with the one before, which forwards to us until the home agent knows the new one (§8).
    """

    def __init__(
        self,
        configuration: MobileNodeConfiguration,
        now: float,
        *arguments: Any,
        local_association: SecurityAssociation | None = None,
        codec: Codec | None = None,
        **keywords: Any,
    ) -> None:
        """`local_association`: the key shared with MAPs; the rest as for MobileNode."""
        self.local: Registration | None = None
        self.previous: Registration | None = None
        #: What routers have said of MAPs, by interface: options, and when they were heard; None: nothing yet.
        self._options: dict[str, dict[IPv6Address, tuple[MobilityAnchorPoint, float]]] = {}
        self._identifier: int | None = None
        super().__init__(configuration, now, *arguments, codec=codec, **keywords)
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
        known = {option.address: (option, now) for option in options}
        before = self._options.get(interface)
        self._options[interface] = known
        told = before and {address: option for address, (option, _) in before.items()}
        news = before is None or told != {address: option for address, (option, _) in known.items()}
        if news:
            self._moved(now)
        return news

    def move(self, attachments: Any, now: float) -> None:
        for interface, point in attachments.items():
            if point is None:
                self._options.pop(interface, None)  # the next network may have other MAPs
        super().move(attachments, now)

    def _moved(self, now: float) -> None:
        self._choose(now)
        if self.local is None and not self._undecided():
            self.attachments.bind(self.registration)
        for registration in (self.local, self.previous):
            if registration is not None:
                self.attachments.bind(registration)
        if self.previous is not None:
            self.previous.update(now)
        self._changed.update(dict.fromkeys(self._addresses()))
        self._update(now)

    def _undecided(self) -> bool:
        """Whether it is too early to say that there is no MAP: no router has been heard."""
        attached = self.attachments.away()
        return bool(attached) and not any(a.interface.name in self._options for a in attached)

    def _update(self, now: float) -> None:
        if self.local is not None:
            self.local.update(now)
        super()._update(now)

    # -- the anchor point

    def _choose(self, now: float) -> None:
        """RFC 5380 §9: eager to use a new MAP, lazy to leave one; of several, the furthest (§9.1)."""
        if self._leaving or self.home_interface is not None or not self.attachments.away():
            return
        attached = [attachment.interface.name for attachment in self.attachments.away()]
        heard = [self._options.get(name) for name in attached]
        valid = {
            option.address: option
            for known in heard
            if known
            for option, at in known.values()
            if at + option.valid_lifetime_s > now
        }
        if self.local is not None and (self.local.peer in valid or None in heard):
            failed = any(
                known and self.local.peer in known and not known[self.local.peer][0].valid_lifetime_s
                for known in heard
            )
            if not failed:
                return
        candidates = [option for option in valid.values() if option.preference > 0]
        if candidates:
            best = max(candidates, key=lambda option: (option.distance, option.preference, option.address))
            self._use(best.address, now)
        elif None not in heard and self.local is not None:
            self._use(None, now)

    def _use(self, anchor: IPv6Address | None, now: float) -> None:
        """Register with this MAP from now on, or with none."""
        left, registered_with = self.local, self.flow_registration
        if self.previous is not None:
            self._drop_registration(self.previous)
            self.previous = None
        flows = registered_with.flows.wanted()
        registered_with.flows.clear()
        self.local = None
        if anchor is not None:
            if self._identifier is None:
                self._identifier = int(self.attachments.away()[0].care_of_address) & _IDENTIFIER
            regional = IPv6Address(int(anchor) & ~_IDENTIFIER | self._identifier)
            signalling = self._regional_signalling(regional)
            self.local = Registration(
                anchor,
                regional,
                self.configuration.lifetime_s,
                self.timers,
                lambda update, addresses, now: signalling.from_abroad(update, anchor, addresses, now),
                self._note,
                local=True,
                dialect=self.configuration.dialect,
            )
            self.local.valid_s = self._care_of_valid_s
        self._note(
            "anchor-point-chosen",
            anchor_point=str(anchor) if anchor else None,
            regional_care_of_address=str(self.local.home_address) if self.local else None,
        )
        if left is not None and left.known_to_peer:
            self.previous = left
        elif left is not None:
            self._drop_registration(left)
        now_with = self.flow_registration
        for interface in self.configuration.interfaces if now_with.takes_bids else ():
            now_with.bind(interface.bid, interface.priority, None)
        now_with.flows.clear()
        now_with.flows.update({flow.fid: ListedFlow(flow) for flow in flows})
        if self.local is None:
            self._register_at_home(now)

    def _drop_registration(self, registration: Registration) -> None:
        for kind in ("refresh", "expire", "send", "retransmit", "retry"):
            self.timers.cancel((kind, registration.peer))
        self._changed[registration.home_address] = None

    def _register_at_home(self, now: float) -> None:
        """Bring the home agent to the regional address, or back to the others: it forgets the rest."""
        registration = self.registration
        registration.resume()  # the next message replaces everything (RFC 5648 §5.9)
        registration.lifetime_s = self.configuration.lifetime_s
        if self.local is None:
            registration.bindings.clear()
            self.attachments.bind(registration)
        else:
            preferred = min(self.configuration.interfaces, key=lambda i: (i.priority, i.bid))
            bid, priority = (preferred.bid, preferred.priority) if registration.takes_bids else (NO_BID, 0)
            registration.bindings.clear()
            registration.flows.clear()
            registration.bind(bid, priority, self.local.home_address)
        self._changed[self.configuration.home_address] = None
        registration.update(now)

    @property
    def flow_registration(self) -> Registration:
        return self.local or self.registration

    def _receive_otherwise(self, packet: Packet, now: float) -> bool:
        registration = next(
            (r for r in (self.local, self.previous) if r is not None and r.peer == packet.source), None
        )
        if registration is None:
            return False
        message = packet.message
        if isinstance(message, BindingAcknowledgement):
            signalling = self._regional_signalling(registration.home_address)
            self._acknowledged(packet, signalling, registration, now)
        elif isinstance(message, BindingRefreshRequest):
            registration.refresh(now, [option.bid for option in message.all_options(BindingIdentifier)])
        else:
            self._drop(packet, f"a {type(message).__name__} is not for this role")
        self._follow(now)
        return True

    def _unsupported(self, peer: IPv6Address, now: float) -> None:
        for registration in (self.local, self.previous):
            if registration is not None and registration.peer == peer:
                return registration.unsupported(now)
        super()._unsupported(peer, now)

    def _handle_otherwise(self, kind: str, peer: IPv6Address | None, now: float) -> bool:
        for registration in (self.local, self.previous):
            if registration is not None and registration.peer == peer:
                registration.handle_timer(kind, now)
                self._follow(now)
                return True
        return False

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
        if local is not None and local.known_to_peer and not self._leaving and self.home_interface is None:
            # RFC 5380 §6.1: no longer than the binding with the MAP lasts
            remaining_s = max(b.expires - now for b in local.bindings.values() if b.registered)
            home.lifetime_s = max(4, min(self.configuration.lifetime_s, int(remaining_s) // 4 * 4))
            wanted = {binding.care_of_address for binding in home.bindings.values()}
            if wanted != {local.home_address}:
                self._register_at_home(now)
            else:
                home.update(now)
        registered = {binding.registered for binding in home.bindings.values()}
        at_home_again = local.home_address if local is not None else None
        if self.previous is not None and home.known_to_peer and home._outstanding is None:
            if local is None or at_home_again in registered:
                if not self.previous.leaving:
                    self.previous.leave(now)
                if self.previous.left:
                    self._drop_registration(self.previous)
                    self.previous = None
        if self._leaving and home.left and local is not None and not local.leaving:
            local.leave(now)

    @property
    def deregistered(self) -> bool:
        return self.registration.left and (self.local is None or self.local.left)

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
        return Signalling(regional, self._local_signer, self.attachments, self._send)

    # -- what it wants

    def _addresses(self) -> list[IPv6Address]:
        """The home address, and the regional addresses."""
        regional = [r.home_address for r in (self.local, self.previous) if r is not None]
        return [self.configuration.home_address, *regional]

    def home_binding(self, home_address: IPv6Address) -> HomeBinding | None:
        for registration in (self.local, self.previous):
            if registration is not None and registration.home_address == home_address:
                if not registration.known_to_peer:
                    return None
                paths, default = self.attachments.paths(registration)
                return HomeBinding(home_address, paths, default, self._rules(paths), regional=True)
        if home_address != self.configuration.home_address or self.local is None:
            return super().home_binding(home_address)
        serving = self._serving()
        if serving is None:
            return None
        outer, default = self.attachments.paths(serving)
        paths = tuple(
            replace(path, local=serving.home_address, remote=self.home_agent, via=path) for path in outer
        )
        return HomeBinding(home_address, paths, default, self._rules(paths))

    def _serving(self) -> Registration | None:
        """The MAP whose regional address the home agent has."""
        registered = {binding.registered for binding in self.registration.bindings.values()}
        for registration in (self.local, self.previous):
            if registration is not None and registration.home_address in registered:
                return registration if registration.known_to_peer else None
        return None

    def _rules(self, paths: tuple[Path, ...]) -> tuple:
        return wanted_rules(self.flow_registration.flows.registered(), [path.bid for path in paths])

    def forwarding(self) -> dict[IPv6Address, HomeBinding]:
        wanted = ((address, self.home_binding(address)) for address in self._addresses())
        return {address: binding for address, binding in wanted if binding is not None}
