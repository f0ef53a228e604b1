"""The forwarding state that a role wants: what the protocol core asks of the datapath.

Plain immutable values, no kernel in sight. Classes: `Action`, `Side`, `OnLink`, `Path`, `FlowRule`,
`HomeBinding`, `RouteOptimisation`.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from ipaddress import IPv6Address, IPv6Network
from typing import TypeAlias

from testbed.wire.address import link_local_of
from testbed.wire.selector import TrafficSelector


class Action(IntEnum):
    """What is done with the packets of a flow (draft-soliman-monami6-flow-binding-05 §3.1)."""

    FORWARD = 1
    DISCARD = 2
    N_CAST = 3


class Side(Enum):
    """Which end of the tunnels this node is, hence which packets its rules apply to."""

    #: Home agent or mobility anchor point: packets *to* the home address, selectors as they stand.
    ANCHOR = "anchor"
    #: Mobile node or router: packets *from* the home address (or mobile network), selectors mirrored.
    MOBILE = "mobile"
    #: Correspondent node: packets *to* the home address, sent by this node itself (route optimisation).
    CORRESPONDENT = "correspondent"


@dataclass(frozen=True, slots=True)
class OnLink:
    """The home link as the way of one BID, while others have tunnels (RFC 5648 §5.6).

    `neighbour_discovery`: whether the mobile node answers for its home address there; if not, the home agent
    goes on to do so. `link_layer_address`: of the mobile node, where the home agent sends to; empty if that
    is not known, and at the mobile node. `prefix`: at a mobile node that takes part in Neighbour Discovery,
    what it reaches there without its router.
    """

    neighbour_discovery: bool = True
    link_layer_address: bytes = b""
    prefix: IPv6Network | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """The tunnel of one BID of one home address (RFC 5648 §3, RFC 2473).

    `local` and `remote` are the outer source and destination of what this node sends, and the reverse of
    what it accepts. `interface` and `gateway` (the access router's link-local address) say where the outer
    packet leaves; both are None at an anchor, where ordinary routing decides.

    `via`: the tunnel that this one is inside of, at a mobile node whose `local` is a regional care-of address
    (RFC 5380 §6.1); `interface` and `gateway` are then those of `via`.

    `on_link`: there is no tunnel, packets go as they are. `remote` is then the home address at a home agent,
    `local` at a mobile node.
    """

    bid: int
    local: IPv6Address
    remote: IPv6Address
    interface: str | None = None
    gateway: IPv6Address | None = None
    via: "Path | None" = None
    on_link: OnLink | None = None


@dataclass(frozen=True, slots=True)
class FlowRule:
    """One flow binding as the datapath sees it: it names only BIDs that have a `Path`.

    `selector` describes packets from the correspondent node to the mobile node (RFC 6088), None is the
    wild card. FORWARD has exactly one BID, N_CAST one or more, DISCARD none.
    """

    fid: int
    priority: int
    selector: TrafficSelector | None
    action: Action
    bids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HomeBinding:
    """All that is wanted for one home address.

    `rules` are in the order in which they are tried: by priority, ties by lower FID. A packet that matches
    none takes `default_bid` (draft §4.3). `prefixes` are mobile network prefixes (RFC 3963), treated like
    the home address. No paths: packets of this home address are dropped (the mobile node has no care-of
    address at all).

    `regional`: the home address is a regional care-of address (RFC 5380), and packets to it are tunnels:
    rules are for what is inside of these, where there is something inside.

    `link_local`: the link-local address with the same interface identifier is the mobile node's, too (L bit).
    """

    home_address: IPv6Address
    paths: tuple[Path, ...]
    default_bid: int | None
    rules: tuple[FlowRule, ...] = ()
    prefixes: tuple[IPv6Network, ...] = ()
    regional: bool = False
    link_local: bool = False

    @property
    def defended(self) -> bool:
        """Whether an anchor answers for the home address on the home link (RFC 6275 §10.4.1)."""
        return not any(path.on_link and path.on_link.neighbour_discovery for path in self.paths)

    @property
    def defended_addresses(self) -> tuple[IPv6Address, ...]:
        """What an anchor answers for on the home link."""
        if not self.defended:
            return ()
        return (self.home_address, link_local_of(self.home_address))[: 1 + self.link_local]


#: Home address and correspondent node.
Pair: TypeAlias = tuple[IPv6Address, IPv6Address]


@dataclass(frozen=True, slots=True)
class RouteOptimisation:
    """All that is wanted for the packets between a home address and a correspondent node: that they go
    straight between care-of address and correspondent node (RFC 6275 §6.3, §6.4).

    At the mobile node (`side` MOBILE): packets from home address to correspondent leave from `Path.local`, a
    care-of address, with a Home Address option; where that is a regional one, in the tunnel `Path.via` to its
    anchor point (RFC 5380 §6.1.1). At the correspondent node (CORRESPONDENT), where
    `correspondent` is the unspecified address: packets to the home address, from any address, go to
    `Path.remote`, a care-of address, with a type 2 routing header; a Home Address option is accepted from
    the care-of addresses of `paths` only.
    Rules and default are as in HomeBinding, except that N_CAST is not carried out here: these packets are
    left to what the HomeBinding says (at a mobile node) and never occur at a correspondent node.
    """

    home_address: IPv6Address
    correspondent: IPv6Address
    side: Side
    paths: tuple[Path, ...]
    default_bid: int
    rules: tuple[FlowRule, ...] = ()
