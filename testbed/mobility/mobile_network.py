"""The mobile network behind a mobile router, as the mobile router registers it (RFC 3963 §5).

Class: `MobileNetwork`.
"""

from dataclasses import dataclass, field
from ipaddress import IPv6Network

from testbed.wire.message import Status
from testbed.wire.option import MobileNetworkPrefix

#: Statuses that only mobile routers get (RFC 3963 §4.2).
MOBILE_ROUTER_STATUSES = frozenset(
    {
        Status.MOBILE_ROUTER_OPERATION_NOT_PERMITTED,
        Status.INVALID_PREFIX,
        Status.NOT_AUTHORIZED_FOR_PREFIX,
        Status.FORWARDING_SETUP_FAILED,
    }
)


@dataclass(slots=True)
class MobileNetwork:
    """`prefixes`: what the nodes behind the mobile router have their addresses from.

    `explicit`: whether Binding Updates name the prefixes, or the home agent knows them (RFC 3963 §5.2).
    `fall_back`: whether the other mode is tried when this one is refused (§5.4 allows it).
    `served`: whether the home agent forwards to the mobile network, as it said last (§5.3).
    """

    prefixes: tuple[IPv6Network, ...]
    explicit: bool = True
    fall_back: bool = False
    served: bool = False
    _refused: set[bool] = field(default_factory=set)

    def options(self) -> tuple[MobileNetworkPrefix, ...]:
        """What a Binding Update that registers has to carry: in explicit mode, all prefixes, always."""
        return tuple(MobileNetworkPrefix(prefix) for prefix in self.prefixes) if self.explicit else ()

    def refused(self, status: int) -> bool:
        """The home agent has refused with one of `MOBILE_ROUTER_STATUSES`; whether to try the other mode.

        RFC 3963 §5.4.1, §5.4.2: 143 in implicit mode and 141, 142 in explicit mode allow that; everything
        else is the end.
        """
        self.served = False
        self._refused.add(self.explicit)
        mends = {Status.INVALID_PREFIX, Status.NOT_AUTHORIZED_FOR_PREFIX}
        if not self.explicit:
            mends = {Status.FORWARDING_SETUP_FAILED}
        if not self.fall_back or status not in mends or (not self.explicit) in self._refused:
            return False
        self.explicit = not self.explicit
        return True
