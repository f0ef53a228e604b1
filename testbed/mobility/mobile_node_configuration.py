"""What a mobile node is told at its start. Classes: `MobileNodeConfiguration`, `InterfaceConfiguration`."""

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from testbed.mobility.authentication import SecurityAssociation
from testbed.mobility.binding import FlowBinding
from testbed.mobility.mobile_network import MobileNetwork


@dataclass(frozen=True, slots=True)
class InterfaceConfiguration:
    """An interface of the mobile node, with the BID that its care-of address is registered under.

    `priority`: BID-PRI, 1 to 127; the lowest is the default binding (draft §4.3).
    """

    name: str
    bid: int
    priority: int


@dataclass(frozen=True, slots=True)
class MobileNodeConfiguration:
    """`lifetime_s`: what is asked for, a multiple of 4 (RFC 6275 §6.1.7). `correspondents`: nodes to
    optimise the route to from the start.

    `flow_updates`: how flows follow when their interface is lost (draft §6.2): "together", by one Binding
    Identifier option, or "each" by a Flow Identification option of its own.
    `multiple_care_of_addresses` False: plain Mobile IPv6 (RFC 6275): one binding, without BID and flow
    bindings, at the most preferred care-of address.
    `returning_home`: "complete", where only the home link is used then (RFC 5648 §5.5.1), or "simultaneous",
    where it is one more way beside those abroad (§5.6).
    `home_agent` None: it is looked for on the link of `home_prefix` (RFC 6275 §11.4.1).
    `prefixes`: the mobile network prefixes of a mobile router (RFC 3963), none for a mobile host;
    `explicit_prefixes`, `prefix_fall_back`: see MobileNetwork. `dialect`: how flow bindings are
    spoken of, "draft" or "rfc6089" (see module `dialect`), as the codec has it. `ipsec`: what is exchanged
    with the home agent is protected by IPsec, in place of `association`.
    """

    home_address: IPv6Address
    home_agent: IPv6Address | None
    interfaces: tuple[InterfaceConfiguration, ...]
    lifetime_s: int = 60
    flows: tuple[FlowBinding, ...] = ()
    correspondents: tuple[IPv6Address, ...] = ()
    association: SecurityAssociation | None = None
    prefixes: tuple[IPv6Network, ...] = ()
    explicit_prefixes: bool = True
    prefix_fall_back: bool = False
    dialect: str = "draft"
    home_prefix: IPv6Network | None = None
    flow_updates: str = "together"
    multiple_care_of_addresses: bool = True
    returning_home: str = "complete"
    ipsec: bool = False

    @property
    def home_link_prefix(self) -> IPv6Network:
        """The prefix of the home link: that of the home address, of 64 bits if nothing else is said."""
        return self.home_prefix or IPv6Network((self.home_address, 64), strict=False)

    def mobile_network(self) -> MobileNetwork | None:
        """What a mobile router registers; None for a mobile host."""
        if not self.prefixes:
            return None
        return MobileNetwork(self.prefixes, self.explicit_prefixes, self.prefix_fall_back)
