"""Bindings and flow bindings, as binding caches and binding update lists hold them.

Classes: `Binding`, `FlowBinding`. Functions: `sequence_is_newer`, `is_unicast_routable`, `wanted_rules`.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from testbed.mobility.forwarding import Action, FlowRule, OnLink
from testbed.wire.address import is_unicast_routable as address_is_unicast_routable
from testbed.wire.selector import TrafficSelector

#: The BID under which a binding without a Binding Identifier option (RFC 6275) is kept; 0 is reserved.
NO_BID = 0
#: A Binding Refresh Request goes out when this part of the lifetime is over and nobody has refreshed.
REFRESH_REQUEST_AT = 0.9


@dataclass(frozen=True, slots=True)
class Binding:
    """A care-of address of a home address (RFC 6275 §9.1, RFC 5648 §4.1).

    `priority` is the BID-PRI of RFC 6089 §4.1: 1 to 127, lower is preferred; 0, which a sender of plain
    RFC 5648 leaves there, ranks last. `expires` is a time on the role's clock, `lifetime_s` what was granted.

    `on_link`: of the home binding (RFC 5648 §5.6.3), whose care-of address is the home address.
    """

    bid: int
    care_of_address: IPv6Address
    priority: int
    lifetime_s: int
    expires: float
    on_link: OnLink | None = None

    @property
    def preference(self) -> tuple[int, int]:
        """Sort key: the smallest is the default binding (draft §4.3)."""
        return (self.priority or 128, self.bid)

    @property
    def refresh_due(self) -> float:
        """When the mobile node is asked to refresh it, on the clock of `expires`."""
        return self.expires - (1 - REFRESH_REQUEST_AT) * self.lifetime_s


@dataclass(frozen=True, slots=True)
class FlowBinding:
    """What is done with one flow (draft §3.3): identified by its home address and FID.

    `bids`: where to, in order of preference. FORWARD takes the first that is registered, N_CAST all that
    are; for DISCARD they only say to which bindings the flow binding is attached (draft §4.7).
    `selector` None is the wild card (draft §4.4).
    """

    fid: int
    priority: int
    action: Action
    bids: tuple[int, ...]
    selector: TrafficSelector | None = None


def sequence_is_newer(sequence: int, last: int) -> bool:
    """RFC 6275 §9.5.1: greater modulo 2^16; the last number and the 32768 before it are not."""
    return 0 < (sequence - last) % 65536 < 32768


def is_unicast_routable(address: IPv6Address | IPv4Address | None) -> bool:
    """RFC 6275 §3.1: a unicast address other than unspecified, loopback, link-local or IPv4-mapped."""
    return isinstance(address, IPv6Address) and address_is_unicast_routable(address)


def wanted_rules(flows: Iterable[FlowBinding], bids: Collection[int]) -> tuple[FlowRule, ...]:
    """The rules for `flows` where only `bids` have a path, in the order in which they are tried.

    A flow binding none of whose BIDs has a path is left out: its packets take the next rule that matches
    or the default binding, so that no flow is ever without a way.
    """
    rules = []
    for flow in sorted(flows, key=lambda flow: (flow.priority, flow.fid)):
        live = tuple([bid for bid in flow.bids if bid in bids])
        if live == flow.bids:
            live = flow.bids  # which many share
        if flow.action is Action.DISCARD:
            live = ()
        elif not live:
            continue
        elif flow.action is Action.FORWARD:
            live = live[:1] if len(live) > 1 else live
        rules.append(FlowRule(flow.fid, flow.priority, flow.selector, flow.action, live))
    return tuple(rules)
