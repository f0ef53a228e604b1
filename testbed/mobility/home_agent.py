"""The home agent (RFC 6275 §10; draft-soliman-monami6-flow-binding-05 §8).

Classes: `HomeAgentConfiguration`, `HomeAgent`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from testbed.mobility.authentication import SecurityAssociation, Verifier
from testbed.mobility.binding import is_unicast_routable, sequence_is_newer
from testbed.mobility.binding_cache import CacheEntry
from testbed.mobility.forwarding import OnLink
from testbed.mobility.home_link import HomeAgentsList, HomePrefix
from testbed.mobility.identifiers import link_layer_address_in
from testbed.mobility.policy import Policy
from testbed.mobility.prefix_advertiser import (
    MAX_MOB_PFX_ADV_INTERVAL,
    MIN_MOB_PFX_ADV_INTERVAL,
    PrefixAdvertiser,
    permanent,
)
from testbed.mobility.prefix_table import PrefixTable
from testbed.mobility.rate_limit import MAX_REFUSALS_PER_S, MAX_REFUSALS_PER_SENDER_PER_S, RateLimit
from testbed.mobility.refusal import Held, Refused
from testbed.mobility.registrar import Registrar
from testbed.wire.address import link_local_of
from testbed.wire.codec import Codec
from testbed.wire.icmpv6 import (
    HomeAgentAddressDiscoveryReply,
    HomeAgentAddressDiscoveryRequest,
    MobilePrefixSolicitation,
)
from testbed.wire.message import BindingUpdate, Status
from testbed.wire.option import BindingIdentifier
from testbed.wire.packet import Packet


@dataclass(frozen=True, slots=True)
class HomeAgentConfiguration:
    """`address`: where mobile nodes register; `home_prefixes`: what is on-link on the home link.

    `prefix_table`: the mobile network prefixes of each mobile router, by home address (RFC 3963 §6.1.2).
    `associations`: the keys that Binding Updates are authenticated with, by home address (RFC 4285);
    `by_ipsec`: home addresses whose messages are protected by IPsec instead (RFC 6275 §5.1);
    `accept_unauthenticated`: serve home addresses that there is no key for, whoever asks. `max_refusals…`:
    how many answers a second there are at most to what is not authentic, in all and to one /64. `dialect`:
    how flow bindings are spoken of, "draft" or "rfc6089" (see module `dialect`), as the codec has it.

    `duplicate_address_detection`: whether the agent looks for other users of a home address on the home link
    before its first binding (see `HomeAgent.probes`); False where addresses cannot collide.
    `other_routers`: whether packets may come to the home link by other routers; mobile nodes that are there
    and abroad at once then do without Neighbour Discovery for their home address (RFC 5648 §5.6.2).
    `preference`: among the home agents of the home link, more is better (RFC 6275 §8.4).
    `prefix_interval_s`: least and greatest delay, in seconds, of news of the home prefixes (§10.6.2).
    """

    address: IPv6Address
    home_prefixes: tuple[IPv6Network, ...]
    max_lifetime_s: int = 3600
    policy: Policy = field(default_factory=Policy)
    prefix_table: Mapping[IPv6Address, tuple[IPv6Network, ...]] = field(default_factory=dict)
    associations: Mapping[IPv6Address, SecurityAssociation] = field(default_factory=dict)
    by_ipsec: frozenset[IPv6Address] = frozenset()
    accept_unauthenticated: bool = False
    max_refusals_per_s: int = MAX_REFUSALS_PER_S
    max_refusals_per_sender_per_s: int = MAX_REFUSALS_PER_SENDER_PER_S
    dialect: str = "draft"
    duplicate_address_detection: bool = False
    other_routers: bool = False
    preference: int = 0
    prefix_interval_s: tuple[float, float] = (MIN_MOB_PFX_ADV_INTERVAL, MAX_MOB_PFX_ADV_INTERVAL)


class HomeAgent(Registrar):
    """Serves the home addresses of its home link."""

    def __init__(
        self,
        configuration: HomeAgentConfiguration,
        now: float,
        codec: Codec | None = None,
        time_of_day: Callable[[float], float] = lambda now: now,
    ) -> None:
        """`time_of_day` turns the role's clock into seconds since 1970 (RFC 4285 §6)."""
        verifier = Verifier(
            dict(configuration.associations),
            configuration.accept_unauthenticated,
            time_of_day,
            codec or Codec(configuration.dialect),
            configuration.by_ipsec,
        )
        refusals = RateLimit(configuration.max_refusals_per_s, configuration.max_refusals_per_sender_per_s)
        super().__init__(
            configuration.policy, configuration.max_lifetime_s, verifier, refusals, configuration.dialect
        )
        self.configuration = configuration
        own = (*configuration.home_prefixes, IPv6Network(configuration.address))
        self._held: dict[IPv6Address, tuple[Packet, BindingUpdate]] = {}
        self._unique: set[IPv6Address] = set()
        self._probes: list[IPv6Address] = []
        self.home_agents = HomeAgentsList(configuration.address, configuration.preference)
        self._advertiser = PrefixAdvertiser(
            permanent(configuration.home_prefixes),
            self.cache,
            self.timers,
            self._send,
            self._note,
            configuration.prefix_interval_s,
        )
        self._table = PrefixTable(configuration.prefix_table, own, configuration.policy.unlisted_prefixes)

    def receive(self, packet: Packet, interface: str, now: float) -> None:
        message = packet.message
        if isinstance(message, BindingUpdate):
            super().receive(packet, interface, now)
        elif isinstance(message, HomeAgentAddressDiscoveryRequest):
            self._reply(packet, message, now)
        elif isinstance(message, MobilePrefixSolicitation):
            home_address = packet.home_address or packet.source
            reason = self.verifier.unprotected(packet, home_address)
            reason = reason or self._advertiser.solicited(packet, message, now)
            if reason is not None:
                self._drop(packet, reason)
        else:
            super().receive(packet, interface, now)

    def _reply(self, packet: Packet, message: HomeAgentAddressDiscoveryRequest, now: float) -> None:
        """RFC 6275 §10.5.1, RFC 3963 §7.2: straight to the sender, whoever that is."""
        if not is_unicast_routable(packet.source) or not self._refusals.allows(packet.source, now):
            return self._drop(packet, "Home Agent Address Discovery Request that is not to be answered")
        # whether the other home agents serve mobile routers, they do not advertise
        routers = message.mobile_router and self.policy.mobile_routers
        addresses = (self.configuration.address,) if routers else self.home_agents.addresses(now)
        reply = HomeAgentAddressDiscoveryReply(message.identifier, addresses, routers)
        self._send(Packet(self.configuration.address, packet.source, reply))
        self._note("home-agent-discovery-reply-sent", destination=str(packet.source))

    def home_prefixes(self) -> list[HomePrefix]:
        """The prefixes of the home link, as mobile nodes are told of them."""
        return list(self._advertiser.prefixes.values())

    def change_prefix(self, prefix: HomePrefix, now: float) -> None:
        """A prefix of the home link has new lifetimes, or is new: mobile nodes are told (§10.6.2)."""
        self._advertiser.change(prefix, now)

    def _grant(self, update: BindingUpdate, home_address: IPv6Address, now: float) -> tuple[int, Status]:
        """RFC 6275 §10.3.1: no longer than the home prefix is valid; status 1 if that is soon over."""
        prefix = self._advertiser.prefix_of(home_address)
        granted, status = super()._grant(update, home_address, now)
        if prefix is None or prefix.valid_until - now < 4:
            raise Refused(Status.NOT_HOME_SUBNET)
        granted = int(min(granted, prefix.valid_until - now)) // 4 * 4
        ends = now + granted
        if prefix.preferred_until < ends or prefix.valid_until < ends + 4:
            status = Status.ACCEPTED_BUT_PREFIX_DISCOVERY_NECESSARY
        return granted, status

    def _handle_timer(self, kind: str, entry: CacheEntry, now: float) -> None:
        self._advertiser.handle_timer(entry, now)

    def _expired(self, entry: CacheEntry, now: float) -> None:
        super()._expired(entry, now)
        self._advertiser.forget(entry.home_address)

    def probes(self) -> list[IPv6Address]:
        """Home addresses that are to be looked for on the home link, since the last call; the agent answers
        each with `dad_result`."""
        taken, self._probes = self._probes, []
        return taken

    def to_be_tested(self, home_address: IPv6Address) -> tuple[IPv6Address, ...]:
        """The addresses that one of `probes` stands for: with the L bit, the link-local one as well."""
        _, update = self._held.get(home_address, (None, None))
        compatible = update is not None and update.link_local_compatibility
        return (home_address, link_local_of(home_address))[: 1 + compatible]

    def dad_result(self, home_address: IPv6Address, unique: bool, now: float) -> None:
        """What duplicate address detection has found on the home link: answer the Binding Update that has
        been waiting for that (RFC 6275 §10.3.1), status 134 if somebody else uses the address."""
        packet, update = self._held.pop(home_address, (None, None))
        if packet is None:
            return  # the mobile node has given up meanwhile
        if unique:
            self._unique.add(home_address)
            self._decide(packet, update, home_address, now)
            self._unique.discard(home_address)
        else:
            self._note("duplicate-address", home_address=str(home_address))
            self._reject(packet, update, home_address, Status.DUPLICATE_ADDRESS_DETECTION_FAILED)

    def _decide(self, packet: Packet, update: BindingUpdate, home_address: IPv6Address, now: float) -> None:
        _, held = self._held.get(home_address, (None, None)) if self._held else (None, None)
        if held is not None and not sequence_is_newer(update.sequence, held.sequence):
            return self._drop(packet, f"sequence number {held.sequence} is being judged already")
        if update.lifetime_s == 0:
            self._held.pop(home_address, None)
        super()._decide(packet, update, home_address, now)

    def _check_first(self, packet: Packet, update: BindingUpdate, home_address: IPv6Address) -> None:
        if not self.configuration.duplicate_address_detection or home_address in self._unique:
            return
        if home_address not in self._held:
            if len(self.cache) + len(self._held) >= self.policy.max_mobile_nodes:
                raise Refused(Status.INSUFFICIENT_RESOURCES)
            self._probes.append(home_address)
        self._held[home_address] = packet, update  # the newest is answered, if it was sent again meanwhile
        raise Held

    def _is_for_us(self, update: BindingUpdate) -> bool:
        # without the H bit it is for a correspondent node, which this role is not
        return update.home_registration or update.mobile_router

    def _check_service(self, update: BindingUpdate, home_address: IPv6Address) -> None:
        """RFC 6275 §10.3.1: the home address must be on-link on the home link (status 132)."""
        if self._advertiser.prefix_of(home_address) is None or home_address == self.configuration.address:
            raise Refused(Status.NOT_HOME_SUBNET)
        if update.mobile_router and not (update.home_registration and self.policy.mobile_routers):
            raise Refused(Status.MOBILE_ROUTER_OPERATION_NOT_PERMITTED)  # RFC 3963 §6.2, §6.6

    def _on_link(self, update: BindingUpdate) -> OnLink | None:
        if not self.policy.simultaneous_attachment or update.mobile_router:
            return None
        return OnLink(not self.configuration.other_routers, link_layer_address_in(update))

    def _deletes(self, packet: Packet, update: BindingUpdate, home_address: IPv6Address) -> bool:
        """RFC 5648 §5.6.3: the home binding has the home address as its care-of address."""
        if update.lifetime_s and [o for o in update.all_options(BindingIdentifier) if o.home]:
            return False
        return super()._deletes(packet, update, home_address)

    def _prefixes(
        self, update: BindingUpdate, home_address: IPv6Address, care_of_addresses: Collection[IPv6Address]
    ) -> tuple[IPv6Network, ...]:
        """RFC 3963 §6.2: those of the Mobile Network Prefix options, or else those of the prefix table."""
        return self._table.prefixes(update, home_address, care_of_addresses, self.cache)
