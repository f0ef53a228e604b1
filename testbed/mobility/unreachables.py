"""Care-of addresses that cannot be reached, at a correspondent node (RFC 6275 §9.3.4).

Classes: `Unreachables`, `Standing`.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address

from testbed.mobility.binding import Binding
from testbed.mobility.binding_cache import BindingCache

#: Errors that go on for so many seconds, and are so many at least, are persistent.
PERSISTENT_S, PERSISTENT_COUNT = 4.0, 3
#: A mobile node that has shown up is believed for so many seconds, whatever is said of it.
BELIEVED_S = 20.0
#: After so many seconds without errors, the next one is the first again.
FORGOTTEN_S = 60.0


class Standing(Enum):
    """What is to be thought of another error."""

    FIRST = "first"
    ANOTHER = "another"
    PERSISTENT = "persistent"


@dataclass(slots=True)
class _Errors:
    binding: Binding
    first: float
    last: float
    count: int = 1


class Unreachables:
    """What ICMPv6 errors say of the bindings in a cache. A Binding Update makes a new binding of a BID: the
    mobile node has shown up."""

    def __init__(self, cache: BindingCache) -> None:
        self._cache = cache
        self._errors: dict[tuple[IPv6Address, int], _Errors] = {}

    def reported(self, home_address: IPv6Address, binding: Binding, now: float) -> Standing:
        """An error about packets to this binding of `home_address` has come at `now`, in seconds."""
        key = home_address, binding.bid
        known = self._errors.get(key)
        if known is None:
            self._forget_others()
        if known is None or self._is_over(known, binding, now):
            self._errors[key] = _Errors(binding, now, now)
            return Standing.FIRST
        if known.binding != binding:
            return Standing.ANOTHER
        known.last = now
        known.count += 1
        persistent = known.count >= PERSISTENT_COUNT and now - known.first >= PERSISTENT_S
        return Standing.PERSISTENT if persistent else Standing.ANOTHER

    @staticmethod
    def _is_over(known: _Errors, binding: Binding, now: float) -> bool:
        """Whether what was said before does not matter any more."""
        if known.binding.care_of_address != binding.care_of_address:
            return True
        believed = known.binding != binding
        return now - known.first > BELIEVED_S if believed else now - known.last > FORGOTTEN_S

    def _forget_others(self) -> None:
        """Bindings that are there no more."""
        there = {(entry.home_address, bid) for entry in self._cache for bid in entry.bindings}
        self._errors = {key: errors for key, errors in self._errors.items() if key in there}
