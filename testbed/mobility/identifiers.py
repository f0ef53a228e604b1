"""The Binding Identifier options of a Binding Update, as its receiver judges them (RFC 5648 §6.2).

Class: `Identifiers`. Functions: `acknowledged_bids`, `link_layer_address_in`.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address

from testbed.mobility.binding import NO_BID, Binding, is_unicast_routable
from testbed.mobility.binding_cache import CacheEntry
from testbed.mobility.forwarding import OnLink
from testbed.mobility.policy import Policy
from testbed.mobility.refusal import Refused
from testbed.wire.message import BindingUpdate, Status
from testbed.wire.option import (
    AlternateCareOfAddress,
    BindingIdentifier,
    LinkLayerAddress,
    MalformedOption,
)

_ETHERNET_OCTETS = 6


class Identifiers:
    """`options`: those of one Binding Update, in order. `statuses`: why some are refused, by BID."""

    #: The status of the home binding, where it is not that of the others (RFC 5648 §6.3).
    home_status: tuple[int, Status] | None = None

    def __init__(self, update: BindingUpdate, policy: Policy, entry: CacheEntry | None = None) -> None:
        """`entry`: what there is of the home address already, if the message is to add to it. Raises Refused
        if the message may not carry these options."""
        for malformed in update.all_options(MalformedOption):
            if malformed.type == BindingIdentifier.option_type:
                raise Refused(Status.MCOA_MALFORMED)
        self.options = update.all_options(BindingIdentifier)
        self.bids = [option.bid for option in self.options]
        #: Whether one of them is the home binding's (H flag).
        self.at_home = True in [option.home for option in self.options]
        self.statuses: dict[int, Status] = {}
        self._update = update
        self._policy = policy
        if NO_BID in self.bids or len(set(self.bids)) != len(self.bids):
            raise Refused(Status.MCOA_MALFORMED)
        if self.options and not policy.multiple_care_of_addresses:
            raise Refused(Status.MCOA_PROHIBITED)
        if len(self.options) > 1 and not policy.bulk_registration:
            raise Refused(Status.MCOA_BULK_REGISTRATION_PROHIBITED)
        if self.options and entry is not None and NO_BID in entry.bindings and not update.overwrite:
            raise Refused(Status.MCOA_NON_MCOA_BINDING_EXISTS)

    def bindings(
        self,
        entry: CacheEntry,
        care_of_status: Callable[[IPv6Address], Status],
        on_link: OnLink | None,
        granted: int,
        now: float,
    ) -> list[Binding]:
        """The bindings that the options ask for, `granted` seconds long; the refused ones leave their status
        in `statuses`. `care_of_status` says whether the receiver takes such a care-of address at all,
        `on_link` how the mobile node is reached on the home link, None if it must not be there meanwhile.
        Raises Refused if there is nothing left."""
        kept = {} if self._update.overwrite else entry.bindings
        room = self._policy.max_bindings - len(kept)
        bindings = []
        for option in self.options:
            known = kept.get(option.bid)
            care_of_address = self._care_of_address(option, known)
            if option.home:
                status = self._judge_home(option, on_link, entry.home_address, bindings)
            else:
                status = self._judge(care_of_address, entry.home_address)
            if status is Status.BINDING_UPDATE_ACCEPTED and known is None and room <= 0:
                status = Status.INSUFFICIENT_RESOURCES
            if status is Status.BINDING_UPDATE_ACCEPTED and not option.home:
                status = care_of_status(care_of_address)
            if status is Status.BINDING_UPDATE_ACCEPTED:
                room -= known is None
                where = (entry.home_address, on_link) if option.home else (care_of_address, None)
                bindings.append(
                    Binding(option.bid, where[0], option.priority, granted, now + granted, where[1])
                )
            else:
                self.statuses[option.bid] = status
        if not bindings:
            raise Refused(self.statuses[self.bids[0]])
        at_home = [binding.bid for binding in bindings if binding.on_link is not None]
        if at_home and not on_link.neighbour_discovery:
            self.home_status = at_home[0], Status.MCOA_RETURNHOME_WO_NDP
        return bindings

    def _care_of_address(self, option: BindingIdentifier, known: Binding | None) -> IPv6Address | None:
        """That of the option, of the message, or the one that the BID is bound to already."""
        if option.care_of_address is not None:
            return option.care_of_address
        alternate = self._update.option(AlternateCareOfAddress)
        if alternate is not None:
            return alternate.care_of_address
        return known.care_of_address if known is not None else None

    @staticmethod
    def _judge_home(
        option: BindingIdentifier, on_link: OnLink | None, home_address: IPv6Address, others: list[Binding]
    ) -> Status:
        """§5.6.3: the care-of address is the home address, and there is one home binding."""
        if on_link is None:
            return Status.MCOA_SIMULTANEOUS_HOME_AND_FOREIGN_PROHIBITED
        if option.care_of_address not in (None, home_address) or any(b.on_link for b in others):
            return Status.MCOA_MALFORMED
        if not on_link.neighbour_discovery and not on_link.link_layer_address:
            return Status.REASON_UNSPECIFIED  # there is no way to send anything to it
        return Status.BINDING_UPDATE_ACCEPTED

    @staticmethod
    def _judge(care_of_address: IPv6Address | None, home_address: IPv6Address) -> Status:
        if care_of_address is None:
            return Status.MCOA_UNKNOWN_COA
        if not is_unicast_routable(care_of_address) or care_of_address == home_address:
            return Status.MCOA_MALFORMED
        return Status.BINDING_UPDATE_ACCEPTED

    def status(self, status: Status) -> Status:
        """That of the acknowledgement, where nothing is refused as a whole (RFC 5648 §6.2, §6.3)."""
        if self.statuses:
            return Status.MCOA_NOTCOMPLETE
        if self.home_status is not None and status is Status.BINDING_UPDATE_ACCEPTED:
            return self.home_status[1]
        return status

    def answers(self) -> tuple[BindingIdentifier, ...]:
        """What the acknowledgement says of them."""
        statuses: dict[int, int] = dict([self.home_status] if self.home_status else [])
        return acknowledged_bids(self._update, statuses | self.statuses)


def acknowledged_bids(update: BindingUpdate, statuses: Mapping[int, int]) -> tuple[BindingIdentifier, ...]:
    """RFC 5648 §6.2: all Binding Identifier options come back, without care-of address."""
    return tuple(
        [
            _answer(option.bid, statuses.get(option.bid, 0), option.home, option.priority)
            for option in update.all_options(BindingIdentifier)
        ]
    )


#: Mobile nodes number their bindings alike: the same few answers are given again and again.
_answer = lru_cache(maxsize=1024)(BindingIdentifier)
def link_layer_address_in(update: BindingUpdate) -> bytes:
    """The mobile node's link-layer address on the home link (RFC 5648 §5.6.3); empty if the message has none
    that a packet could be sent to."""
    for option in update.all_options(LinkLayerAddress):
        address = option.address
        if option.option_code == LinkLayerAddress.OF_MOBILE_NODE and len(address) == _ETHERNET_OCTETS:
            return b"" if address[0] & 1 or not any(address) else address
    return b""
