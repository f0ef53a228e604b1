"""The mobility anchor point (RFC 5380 §6.2; draft-soliman-monami6-flow-binding-05 §9).

Classes: `AnchorPointConfiguration`, `AnchorPoint`.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from testbed.mobility.authentication import SecurityAssociation, Verifier
from testbed.mobility.forwarding import HomeBinding, OnLink
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.refusal import Refused
from testbed.mobility.registrar import Registrar
from testbed.wire.codec import Codec
from testbed.wire.message import BindingUpdate, Status
from testbed.wire.option import MobilityMessageAuthentication
from testbed.wire.packet import Packet


@dataclass(frozen=True, slots=True)
class AnchorPointConfiguration(HomeAgentConfiguration):
    """As of a home agent; `home_prefixes` are those that regional care-of addresses are formed from.

    `local_prefixes`: the access networks whose care-of addresses are taken (RFC 5380 §6.2), any if there are
    none. `keys`: the security associations of mobile nodes. Their regional addresses are not known before:
    the SPI says which key is meant. Those that IPsec protects, `by_ipsec`, are.
    """

    local_prefixes: tuple[IPv6Network, ...] = ()
    keys: tuple[SecurityAssociation, ...] = ()


class SpiVerifier(Verifier):
    """Finds the security association by the SPI of the message (RFC 4285 §5.1). `owner(address)`: the SPI
    that a regional address is registered with, None if it is not."""

    def __init__(
        self,
        owner: Callable[[IPv6Address], int | None],
        keys: Iterable[SecurityAssociation],
        accept_unauthenticated: bool,
        time_of_day: Callable[[float], float],
        codec: Codec,
        by_ipsec: Collection[IPv6Address] = (),
    ) -> None:
        super().__init__({}, accept_unauthenticated, time_of_day, codec, by_ipsec)
        self._owner = owner
        self._keys = {key.spi: key for key in keys}

    def association(self, packet: Packet, home: IPv6Address) -> SecurityAssociation | None:
        return self._keys.get(spi_of(packet))

    def _remember(self, home: IPv6Address, timestamp: int, ours: int) -> None:
        """But for messages with another key than the owner's: they are refused, and must not make those of
        the owner look old."""
        _, association = self._found
        if self._owner(home) in (None, association.spi):
            super()._remember(home, timestamp, ours)


def spi_of(packet: Packet) -> int | None:
    """The SPI that a Binding Update is authenticated with, None if it is not."""
    option = packet.message.option(MobilityMessageAuthentication)
    return None if option is None else option.spi


class AnchorPoint(HomeAgent):
    """Binds regional care-of addresses to on-link ones. Its operation is that of a home agent (draft §9), but
    for whom it serves; its flow bindings classify what is inside the tunnels of home agents."""

    def __init__(
        self,
        configuration: AnchorPointConfiguration,
        now: float,
        codec: Codec | None = None,
        time_of_day: Callable[[float], float] = lambda now: now,
    ) -> None:
        super().__init__(configuration, now, codec, time_of_day)
        self.verifier = SpiVerifier(
            self._owner,
            configuration.keys,
            configuration.accept_unauthenticated,
            time_of_day,
            codec or Codec(configuration.dialect),
            configuration.by_ipsec,
        )
        self.configuration: AnchorPointConfiguration = configuration

    def receive(self, packet: Packet, interface: str, now: float) -> None:
        Registrar.receive(self, packet, interface, now)  # nothing of home links

    def _is_for_us(self, update: BindingUpdate) -> bool:
        # RFC 5380 §4: M and A set tell a local Binding Update from others
        return update.map_registration and update.acknowledge and not update.home_registration

    def _check_service(self, update: BindingUpdate, home_address: IPv6Address) -> None:
        if update.mobile_router:
            raise Refused(Status.MOBILE_ROUTER_OPERATION_NOT_PERMITTED)
        super()._check_service(update, home_address)

    def _on_link(self, update: BindingUpdate) -> OnLink | None:
        return None  # no mobile node is on the link of its regional address

    def _owner(self, home_address: IPv6Address) -> int | None:
        entry = self.cache.get(home_address)
        return entry.owner if entry is not None and entry.bindings else None

    def _decide(self, packet: Packet, update: BindingUpdate, home_address: IPv6Address, now: float) -> None:
        """Nobody gets a regional address that was registered with another key, while it is."""
        spi, entry = spi_of(packet), self.cache.get(home_address)
        if entry is not None and entry.bindings and entry.owner != spi:
            return self._reject(packet, update, home_address, Status.DUPLICATE_ADDRESS_DETECTION_FAILED)
        super()._decide(packet, update, home_address, now)
        entry = self.cache.get(home_address)
        if entry is not None:
            entry.owner = spi

    def _care_of_status(self, care_of_address: IPv6Address) -> Status:
        """RFC 5380 §6.2: code 129 for an on-link address outside of the domain; §6.1: no MAP behind a MAP."""
        configuration = self.configuration
        if any(care_of_address in prefix for prefix in configuration.home_prefixes):
            return Status.INVALID_CARE_OF_ADDRESS
        local = configuration.local_prefixes
        if local and not any(care_of_address in prefix for prefix in local):
            return Status.ADMINISTRATIVELY_PROHIBITED
        return Status.BINDING_UPDATE_ACCEPTED

    def home_binding(self, home_address: IPv6Address) -> HomeBinding | None:
        entry = self.cache.get(home_address)
        return entry.forwarding(regional=True) if entry else None

    def forwarding(self) -> dict[IPv6Address, HomeBinding]:
        wanted = {entry.home_address: entry.forwarding(regional=True) for entry in self.cache}
        return {address: binding for address, binding in wanted.items() if binding is not None}
