"""Which mobile network prefixes a mobile router may have (RFC 3963 §6.1.2, §6.2).

Class: `PrefixTable`.
"""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv6Address, IPv6Network

from testbed.mobility.binding_cache import BindingCache
from testbed.mobility.refusal import Refused
from testbed.wire.message import BindingUpdate, Status
from testbed.wire.option import MalformedOption, MobileNetworkPrefix


class PrefixTable:
    """`prefixes`: the mobile network prefixes of each mobile router, by its home address; `own`: prefixes of
    the home link and addresses of the home agent, which are nobody else's.

    `unlisted`: whether mobile routers that are not in the table may have what they ask for.
    """

    def __init__(
        self,
        prefixes: Mapping[IPv6Address, tuple[IPv6Network, ...]],
        own: Iterable[IPv6Network],
        unlisted: bool = False,
    ) -> None:
        self._prefixes = dict(prefixes)
        self._own = tuple(own)
        self._unlisted = unlisted

    def prefixes(
        self,
        update: BindingUpdate,
        home_address: IPv6Address,
        care_of_addresses: Collection[IPv6Address],
        cache: BindingCache,
    ) -> tuple[IPv6Network, ...]:
        """What is to be forwarded to this mobile router. Raises Refused with status 141, 142, 143 or 174."""
        if any(o.type == MobileNetworkPrefix.option_type for o in update.all_options(MalformedOption)):
            raise Refused(Status.INVALID_PREFIX)
        named = tuple(dict.fromkeys(option.prefix for option in update.all_options(MobileNetworkPrefix)))
        listed = self._prefixes.get(home_address, ())
        wanted = named or listed
        if not wanted:
            raise Refused(Status.FORWARDING_SETUP_FAILED)
        if not all(map(self._is_possible, wanted)) or _overlap(wanted):
            raise Refused(Status.INVALID_PREFIX)
        if home_address in self._prefixes or not self._unlisted:
            if not all(any(prefix.subnet_of(known) for known in listed) for prefix in named):
                raise Refused(Status.NOT_AUTHORIZED_FOR_PREFIX)
        others = [p for entry in cache if entry.home_address != home_address for p in entry.prefixes]
        if any(prefix.overlaps(other) for prefix in wanted for other in others):
            raise Refused(Status.INVALID_PREFIX)
        for care_of_address in care_of_addresses:
            self._check_loop(care_of_address, home_address, wanted, cache)
        return wanted

    def _is_possible(self, prefix: IPv6Network) -> bool:
        first = prefix.network_address
        special = first.is_multicast or first.is_link_local or first.is_loopback or first.is_unspecified
        return not special and not any(own.subnet_of(prefix) for own in self._own)

    @staticmethod
    def _check_loop(
        care_of_address: IPv6Address,
        home_address: IPv6Address,
        prefixes: Collection[IPv6Network],
        cache: BindingCache,
    ) -> None:
        """A mobile router may visit the network of another one, but never, at however many removes, its own:
        its tunnel would lead into itself (RFC 2473 §4.1)."""
        visited = {home_address}
        places = [care_of_address]
        while places:
            place = places.pop()
            if any(place in prefix for prefix in prefixes):
                raise Refused(Status.INVALID_CARE_OF_ADDRESS)
            for entry in cache:
                if entry.home_address not in visited and any(place in prefix for prefix in entry.prefixes):
                    visited.add(entry.home_address)
                    places += [binding.care_of_address for binding in entry.bindings.values()]


def _overlap(prefixes: Collection[IPv6Network]) -> bool:
    ordered = sorted(prefixes)
    return any(one.overlaps(other) for one, other in zip(ordered, ordered[1:], strict=False))
