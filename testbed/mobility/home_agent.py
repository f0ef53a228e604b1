"""The home agent (RFC 6275 §10; draft-soliman-monami6-flow-binding-05 §8).

Classes: `HomeAgentConfiguration`, `HomeAgent`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from testbed.mobility.authentication import SecurityAssociation, Verifier
from testbed.mobility.policy import Policy
from testbed.mobility.prefix_table import PrefixTable
from testbed.mobility.registrar import Refused, Registrar
from testbed.wire.codec import Codec
from testbed.wire.message import BindingUpdate, Status


@dataclass(frozen=True, slots=True)
class HomeAgentConfiguration:
    """`address`: where mobile nodes register; `home_prefixes`: what is on-link on the home link.

    `prefix_table`: the mobile network prefixes of each mobile router, by home address (RFC 3963 §6.1.2).
    `associations`: the keys that Binding Updates are authenticated with, by home address (RFC 4285).
    """

    address: IPv6Address
    home_prefixes: tuple[IPv6Network, ...]
    max_lifetime_s: int = 3600
    policy: Policy = field(default_factory=Policy)
    prefix_table: Mapping[IPv6Address, tuple[IPv6Network, ...]] = field(default_factory=dict)
    associations: Mapping[IPv6Address, SecurityAssociation] = field(default_factory=dict)
    accept_unauthenticated: bool = True


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
            codec or Codec(),
        )
        super().__init__(configuration.policy, configuration.max_lifetime_s, verifier)
        self.configuration = configuration
        own = (*configuration.home_prefixes, IPv6Network(configuration.address))
        self._table = PrefixTable(configuration.prefix_table, own, configuration.policy.unlisted_prefixes)

    def _is_for_us(self, update: BindingUpdate) -> bool:
        # without the H bit it is for a correspondent node, which this role is not
        return update.home_registration or update.mobile_router

    def _check_service(self, update: BindingUpdate, home_address: IPv6Address) -> None:
        """RFC 6275 §10.3.1: the home address must be on-link on the home link (status 132)."""
        on_link = any(home_address in prefix for prefix in self.configuration.home_prefixes)
        if not on_link or home_address == self.configuration.address:
            raise Refused(Status.NOT_HOME_SUBNET)
        if update.mobile_router and not (update.home_registration and self.policy.mobile_routers):
            raise Refused(Status.MOBILE_ROUTER_OPERATION_NOT_PERMITTED)  # RFC 3963 §6.2, §6.6

    def _prefixes(
        self, update: BindingUpdate, home_address: IPv6Address, care_of_addresses: Collection[IPv6Address]
    ) -> tuple[IPv6Network, ...]:
        """RFC 3963 §6.2: those of the Mobile Network Prefix options, or else those of the prefix table."""
        return self._table.prefixes(update, home_address, care_of_addresses, self.cache)
