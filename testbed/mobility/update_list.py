"""A binding update list entry's parts (RFC 6275 §11.1): what is wanted beside what the receiver has.

Classes: `ListedBinding`, `ListedFlow`, `Outstanding`. Functions: `option_length`,
`describe_binding`, `describe_listed`.
"""

from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any

from testbed.mobility.binding import FlowBinding
from testbed.wire.flow import FlowIdentification, Pro


@dataclass(slots=True)
class ListedBinding:
    """One BID: the care-of address it should have, and the one that the receiver has acknowledged.

    `contradicted`: a message that is under way says otherwise than what is wanted by now, or has done so and
    was followed by another one, which has not been acknowledged yet.
    `home`: it is to be the home binding, whose care-of address is the home address (RFC 5648 §5.6.3).
    `status`: with which the receiver has acknowledged it.
    """

    bid: int
    priority: int
    care_of_address: IPv6Address | None = None
    registered: IPv6Address | None = None
    expires: float = 0.0
    refresh_due: bool = False
    refused: int | None = None
    contradicted: bool = False
    home: bool = False
    status: int = 0

    @property
    def dirty(self) -> bool:
        """Whether the receiver has to be told."""
        return self.moved or (
            self.refresh_due and self.care_of_address is not None and self.refused is None
        )

    @property
    def moved(self) -> bool:
        """Whether the receiver has to be told of another care-of address."""
        if self.care_of_address is None or self.refused is not None:
            return False
        return self.contradicted or self.care_of_address != self.registered


@dataclass(slots=True)
class ListedFlow:
    """One FID: what is wanted, what the receiver has, and the operation that leads from this to that.

    `told`: what it has, as the dialect has told it.
    """

    flow: FlowBinding
    registered: FlowBinding | None = None
    operation: Pro | None = Pro.ADD
    times_sent: int = 0
    told: FlowBinding | None = None

    @property
    def bids(self) -> set[int]:
        """All BIDs that this flow binding is attached to, here or at the receiver."""
        return set(self.flow.bids) | set(self.registered.bids if self.registered else ())


@dataclass(slots=True)
class Outstanding:
    """The Binding Update that has not been acknowledged yet."""

    sequence: int
    sent_at: float
    timeout: float
    lifetime_s: int
    bids: dict[int, IPv6Address] = field(default_factory=dict)
    flows: dict[int, tuple[Pro, FlowBinding]] = field(default_factory=dict)


def option_length(option: FlowIdentification) -> int:
    """An upper bound of the option's octets on the wire, padding included."""
    references = option.binding_reference
    selector = 0 if option.selector is None else 5 + len(bytes(option.selector))
    return 10 + (0 if references is None else 2 + 2 * len(references)) + selector


def describe_binding(binding: ListedBinding, now: float) -> dict[str, Any]:
    """The state of a BID: what is wanted, what is registered, for how many seconds."""
    return {
        "bid": binding.bid,
        "care_of_address": str(binding.care_of_address) if binding.care_of_address else None,
        "registered": str(binding.registered) if binding.registered else None,
        "remaining_s": round(binding.expires - now, 3) if binding.registered else None,
        "on_home_link": binding.home,
        "refused": binding.refused,
    }


def describe_listed(listed: ListedFlow) -> dict[str, Any]:
    """The state of a flow binding in words: "registered", "adding", "replacing", "removing" or "waiting"."""
    if listed.operation is None:
        state = "registered"
    elif listed.times_sent == 0:
        state = "waiting"
    else:
        state = {Pro.ADD: "adding", Pro.REPLACE: "replacing", Pro.REMOVE: "removing"}[listed.operation]
    return {"flow": listed.flow, "state": state}
