"""The binding cache of home agents, anchor points and correspondent nodes (RFC 6275 §9.1, draft §3.3, §4.2).

Classes: `CacheEntry`, `BindingCache`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from testbed.mobility.binding import Binding, FlowBinding, wanted_rules
from testbed.mobility.forwarding import Action, HomeBinding, Path
from testbed.mobility.policy import Policy
from testbed.wire.flow import FlowIdentification, FlowStatus, Pro


@dataclass(slots=True)
class CacheEntry:
    """What is known of one home address: its bindings by BID, its flow bindings by FID.

    An entry without bindings is the memory of a de-registration: it only keeps the sequence number
    (RFC 6275 §10.3.2).
    """

    home_address: IPv6Address
    #: The address of ours that the mobile node registers with: the outer source of what we tunnel.
    local: IPv6Address
    sequence: int
    bindings: dict[int, Binding] = field(default_factory=dict)
    flows: dict[int, FlowBinding] = field(default_factory=dict)
    #: Whether it is a mobile router (R flag), and the prefixes behind it (RFC 3963 §6.1.1).
    mobile_router: bool = False
    prefixes: tuple[IPv6Network, ...] = ()
    #: The SPI of the key that it was made with, where any mobile node's key will do (RFC 5380 §12).
    owner: int | None = None
    #: Whether its link-local address has the interface identifier of the home address (L bit, §6.1.7).
    link_local: bool = False

    def copy(self) -> "CacheEntry":
        """An independent copy: bindings and flow bindings themselves are immutable."""
        return CacheEntry(
            self.home_address,
            self.local,
            self.sequence,
            self.bindings.copy(),
            self.flows.copy(),
            self.mobile_router,
            self.prefixes,
            self.owner,
            self.link_local,
        )

    def forwards_like(self, other: "CacheEntry") -> bool:
        """Whether both ask for the same forwarding state: they differ in lifetimes at most, as they do before
        and after a refresh."""
        if self.bindings.keys() != other.bindings.keys() or self.flows != other.flows:
            return False
        for bid, binding in self.bindings.items():
            known = other.bindings[bid]
            if known.priority != binding.priority or known.care_of_address != binding.care_of_address:
                return False
            if known.on_link != binding.on_link:
                return False
        if self.link_local != other.link_local:
            return False
        return self.local == other.local and self.prefixes == other.prefixes

    def default_binding(self) -> Binding | None:
        """Where packets go that match no flow binding (draft §4.3)."""
        return min(self.bindings.values(), key=lambda binding: binding.preference, default=None)

    def reachable_abroad(self) -> Binding | None:
        """The most preferred care-of address that is not the home address."""
        abroad = [binding for binding in self.bindings.values() if binding.on_link is None]
        return min(abroad, key=lambda binding: binding.preference, default=None)

    def superseded_home_bindings(self, renewed: set[int]) -> list[int]:
        """BIDs of home bindings other than the one among `renewed`, the BIDs that a message registers: there
        is one at a time (RFC 5648 §5.6.3), and none once the H flag is not set any more (§5.6.5)."""
        return [bid for bid, b in self.bindings.items() if b.on_link is not None and bid not in renewed]

    def bid_of(self, care_of_address: IPv6Address) -> int | None:
        """The most preferred BID that is bound to `care_of_address`."""
        found = [b for b in self.bindings.values() if b.care_of_address == care_of_address]
        if len(found) > 1:
            return min(found, key=lambda binding: binding.preference).bid
        return found[0].bid if found else None

    def describe(self, now: float) -> list[dict[str, Any]]:
        """One dictionary a binding, the default marked; for people and programs."""
        return [
            {
                "home_address": str(self.home_address),
                "bid": binding.bid,
                "care_of_address": str(binding.care_of_address),
                "on_home_link": binding.on_link is not None,
                "priority": binding.priority,
                "default": binding is self.default_binding(),
                "lifetime_s": binding.lifetime_s,
                "remaining_s": round(binding.expires - now, 3),
            }
            for binding in sorted(self.bindings.values(), key=lambda binding: binding.bid)
        ]

    def flows_in_order(self) -> list[FlowBinding]:
        """The flow bindings in the order in which they are tried."""
        return sorted(self.flows.values(), key=lambda flow: (flow.priority, flow.fid))

    def forget_bids(self, bids: list[int], keep_flows: bool = False) -> list[int]:
        """Remove bindings, and the flow bindings that are left without any; returns the FIDs of these.

        With `keep_flows` these become inactive (RFC 6089 §4.3) while there is any binding at all.
        """
        for bid in bids:
            del self.bindings[bid]
        if keep_flows and self.bindings:
            return []
        lost = [fid for fid, flow in self.flows.items() if not any(bid in self.bindings for bid in flow.bids)]
        for fid in lost:
            del self.flows[fid]
        return lost

    def forget_flows_unmentioned(self, registered: set[int], mentioned: set[int]) -> list[int]:
        """Draft §4.7: a flow binding attached to a binding that a message renews is lost unless the
        message carries it. Returns the FIDs lost."""
        lost = [
            fid
            for fid, flow in self.flows.items()
            if fid not in mentioned and not registered.isdisjoint(flow.bids)
        ]
        for fid in lost:
            del self.flows[fid]
        return lost

    def forwarding(self, regional: bool = False) -> HomeBinding | None:
        """The forwarding state that this entry asks for; `regional`: see HomeBinding."""
        default = self.default_binding()
        if default is None:
            return None
        bindings = [self.bindings[bid] for bid in sorted(self.bindings)]
        paths = tuple([Path(b.bid, self.local, b.care_of_address, on_link=b.on_link) for b in bindings])
        rules = wanted_rules(self.flows.values(), self.bindings.keys())
        return HomeBinding(
            self.home_address, paths, default.bid, rules, self.prefixes, regional, self.link_local
        )

    def process(self, option: FlowIdentification, bid: int | None, policy: Policy) -> FlowStatus:
        """Judge one Flow Identification option and, if it is right, do what it asks (draft §8.1, §8.3.1).

        `bid`: the binding that the message as a whole is about (its source or alternate care-of address),
        which a flow goes to when the option names none. A refused option changes nothing.
        """
        known = self.flows.get(option.fid)
        if option.pro == Pro.REMOVE:
            if known is None:
                return FlowStatus.FID_NOT_FOUND
            del self.flows[option.fid]
            return FlowStatus.SUCCESS
        if option.pro == Pro.REFRESH:
            return FlowStatus.POORLY_FORMED if known is None else FlowStatus.SUCCESS
        if option.pro == Pro.ADD and known is not None:
            return FlowStatus.FID_IN_USE
        if option.pro == Pro.REPLACE and known is None:
            return FlowStatus.POORLY_FORMED
        if option.pro not in (Pro.ADD, Pro.REPLACE) or option.malformed is not None:
            return FlowStatus.POORLY_FORMED
        if option.unknown_selector_format is not None:
            return FlowStatus.CLASSIFIER_LANGUAGE_NOT_SUPPORTED
        return self._install(option, known, bid, policy)

    def _install(
        self, option: FlowIdentification, known: FlowBinding | None, bid: int | None, policy: Policy
    ) -> FlowStatus:
        # §3.1 numbers the actions from 1, the example in §5 sends 0 for "forward"
        try:
            action = Action(option.action or Action.FORWARD)
        except ValueError:
            return FlowStatus.POORLY_FORMED
        bids = option.binding_reference
        if action is Action.N_CAST:
            if not bids:
                return FlowStatus.POORLY_FORMED
            if len(set(bids)) == 1:
                # one BID: to it and to the care-of address of the message, if that is another one (§8.1)
                if bid is None or self._same_address(bids[0], bid):
                    return FlowStatus.POORLY_FORMED
                bids = (bids[0], bid)
        if not bids:
            if bid is None:
                return FlowStatus.POORLY_FORMED
            bids = (bid,)
        if any(reference not in self.bindings for reference in bids):
            return FlowStatus.POORLY_FORMED
        selector = option.selector
        if selector is None and known is not None:
            selector = known.selector  # §6.2: only the care-of address changes, the filter stays
        status = policy.judge(action, selector)
        if status is not FlowStatus.SUCCESS:
            return status
        if known is None and len(self.flows) >= policy.max_flows:
            return FlowStatus.REASON_UNSPECIFIED
        self.flows[option.fid] = FlowBinding(option.fid, option.priority, action, bids, selector)
        return FlowStatus.SUCCESS

    def _same_address(self, one: int, other: int) -> bool:
        first, second = self.bindings.get(one), self.bindings.get(other)
        return first is not None and second is not None and first.care_of_address == second.care_of_address


class BindingCache:
    """The entries by home address."""

    def __init__(self) -> None:
        self._entries: dict[IPv6Address, CacheEntry] = {}

    def __iter__(self) -> Iterator[CacheEntry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, home_address: IPv6Address) -> CacheEntry | None:
        """The entry of a home address, None if it is not bound."""
        return self._entries.get(home_address)

    def put(self, entry: CacheEntry) -> None:
        """Keep an entry in place of any other of its home address."""
        self._entries[entry.home_address] = entry

    def remove(self, home_address: IPv6Address) -> None:
        """Forget a home address, if it is known."""
        self._entries.pop(home_address, None)

    def leads_back(self, care_of_addresses: Iterable[IPv6Address], home_address: IPv6Address) -> bool:
        """Whether packets to one of these come to `home_address` at last: it is that address, or a home
        address that is bound to it, at however many removes (RFC 3775 §6.1.7)."""
        visited: set[IPv6Address] = set()
        places = list(care_of_addresses)
        while places:
            place = places.pop()
            if place == home_address:
                return True
            entry = self._entries.get(place)
            if entry is not None and place not in visited:
                visited.add(place)
                places += [binding.care_of_address for binding in entry.bindings.values()]
        return False
