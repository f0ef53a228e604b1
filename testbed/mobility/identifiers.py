"""The Binding Identifier options of a Binding Update, as its receiver judges them (RFC 5648 §6.2).

Class: `Identifiers`. Function: `acknowledged_bids`.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address

from testbed.mobility.binding import NO_BID, Binding, is_unicast_routable
from testbed.mobility.binding_cache import CacheEntry
from testbed.mobility.policy import Policy
from testbed.mobility.refusal import Refused
from testbed.wire.message import BindingUpdate, Status
from testbed.wire.option import AlternateCareOfAddress, BindingIdentifier, MalformedOption


class Identifiers:
    """`options`: those of one Binding Update, in order. `statuses`: why some are refused, by BID."""

    def __init__(self, update: BindingUpdate, policy: Policy, entry: CacheEntry | None = None) -> None:
        """`entry`: what there is of the home address already, if the message is to add to it. Raises Refused
        if the message may not carry these options."""
        for malformed in update.all_options(MalformedOption):
            if malformed.type == BindingIdentifier.option_type:
                raise Refused(Status.MCOA_MALFORMED)
        self.options = update.all_options(BindingIdentifier)
        self.bids = [option.bid for option in self.options]
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
        self, entry: CacheEntry, care_of_status: Callable[[IPv6Address], Status], granted: int, now: float
    ) -> list[Binding]:
        """The bindings that the options ask for, `granted` seconds long; the refused ones leave their status
        in `statuses`. `care_of_status` says whether the receiver takes such a care-of address at all. Raises
        Refused if there is nothing left."""
        kept = {} if self._update.overwrite else entry.bindings
        room = self._policy.max_bindings - len(kept)
        bindings = []
        for option in self.options:
            known = kept.get(option.bid)
            care_of_address = self._care_of_address(option, known)
            status = self._judge(option, care_of_address, entry.home_address)
            if status is Status.BINDING_UPDATE_ACCEPTED and known is None and room <= 0:
                status = Status.INSUFFICIENT_RESOURCES
            if status is Status.BINDING_UPDATE_ACCEPTED:
                status = care_of_status(care_of_address)
            if status is Status.BINDING_UPDATE_ACCEPTED:
                room -= known is None
                bindings.append(Binding(option.bid, care_of_address, option.priority, granted, now + granted))
            else:
                self.statuses[option.bid] = status
        if not bindings:
            raise Refused(self.statuses[self.bids[0]])
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
    def _judge(
        option: BindingIdentifier, care_of_address: IPv6Address | None, home_address: IPv6Address
    ) -> Status:
        if option.home:
            return Status.MCOA_SIMULTANEOUS_HOME_AND_FOREIGN_PROHIBITED
        if care_of_address is None:
            return Status.MCOA_UNKNOWN_COA
        if not is_unicast_routable(care_of_address) or care_of_address == home_address:
            return Status.MCOA_MALFORMED
        return Status.BINDING_UPDATE_ACCEPTED

    def answers(self) -> tuple[BindingIdentifier, ...]:
        """What the acknowledgement says of them."""
        return acknowledged_bids(self._update, self.statuses)


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
