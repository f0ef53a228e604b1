"""The correspondent node (RFC 6275 §9; RFC 5648 §6; draft-soliman-monami6-flow-binding-05 §7).

Classes: `CorrespondentNodeConfiguration`, `CorrespondentDraft`, `CorrespondentNode`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address

from testbed.mobility.binding import is_unicast_routable
from testbed.mobility.binding_cache import CacheEntry
from testbed.mobility.dialect import Draft
from testbed.mobility.forwarding import Action, HomeBinding, Pair, RouteOptimisation, Side
from testbed.mobility.policy import Policy
from testbed.mobility.rate_limit import RateLimit
from testbed.mobility.registrar import Registrar
from testbed.mobility.return_routability import (
    MAX_NONCE_LIFETIME,
    MAX_RR_BINDING_LIFETIME,
    Nonces,
    authorised,
    binding_management_key,
    is_authorised,
)
from testbed.mobility.role import Transmission
from testbed.mobility.unreachables import Standing, Unreachables
from testbed.wire.address import text
from testbed.wire.codec import Codec
from testbed.wire.flow import FlowIdentification, FlowStatus, Pro
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingError,
    BindingErrorStatus,
    BindingUpdate,
    CareOfTest,
    CareOfTestInit,
    HomeTest,
    HomeTestInit,
    Status,
)
from testbed.wire.option import AlternateCareOfAddress as Alternate
from testbed.wire.option import BindingAuthorizationData, BindingIdentifier, NonceIndices
from testbed.wire.packet import Packet

#: The correspondent of the bindings that a correspondent node holds: they are for all of its addresses.
ANY_OF_OURS = IPv6Address(0)


@dataclass(frozen=True, slots=True)
class CorrespondentNodeConfiguration:
    """`max_lifetime_s` is never more than MAX_RR_BINDING_LIFETIME. `dialect`: how flow bindings are spoken
    of, "draft" or "rfc6089" (see module `dialect`), as the codec has it. The rest are limits against floods,
    in answers a second: to return routability tests, and to what could not be authenticated."""

    max_lifetime_s: int = MAX_RR_BINDING_LIFETIME
    policy: Policy = field(default_factory=Policy)
    max_tests_per_s: int = 1000
    max_tests_per_sender_per_s: int = 30
    max_refusals_per_s: int = 100
    max_refusals_per_sender_per_s: int = 10
    dialect: str = "draft"


class CorrespondentDraft(Draft):
    """Flow bindings at a correspondent node (draft §7.1)."""

    def judge(self, option: FlowIdentification, entry: CacheEntry, policy: Policy, bid: int) -> FlowStatus:
        known = entry.flows.get(option.fid)
        if option.pro in (Pro.REPLACE, Pro.REFRESH) and known is None:
            return FlowStatus.FID_NOT_FOUND
        if option.pro == Pro.REPLACE or (option.pro == Pro.ADD and known is None):
            if option.action == Action.N_CAST:
                return FlowStatus.N_CAST_NOT_SUPPORTED
        if option.pro == Pro.REMOVE and known is not None and bid in entry.bindings:
            # §6.1.2: only bindings associated with the care-of address of this very message
            addresses = {entry.bindings[b].care_of_address for b in known.bids if b in entry.bindings}
            if entry.bindings[bid].care_of_address not in addresses:
                return FlowStatus.ADMINISTRATIVELY_PROHIBITED
        return super().judge(option, entry, policy, bid)


class CorrespondentNode(Registrar):
    """Sends its packets straight to the care-of addresses of mobile nodes that have proven to be there.

    Knows nothing of a mobile node before its Binding Update is authenticated (RFC 6275 §5.2.5). Several
    care-of addresses come in one Binding Update each, authorised by its own care-of test; a flow is bound
    to one of them, never to several (draft §7.1, and a matter of policy in RFC 6089 §5.3.5).
    """

    #: As long as its nonces may be valid, or else an old message could be played back (RFC 6275 §5.2.8).
    memory_s = MAX_NONCE_LIFETIME

    def __init__(
        self,
        configuration: CorrespondentNodeConfiguration,
        now: float,
        codec: Codec | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        # RFC 5648 §6.2: one care-of address a message; draft §7.1: no n-casting
        policy = replace(configuration.policy, bulk_registration=False, n_cast=False)
        lifetime_s = min(configuration.max_lifetime_s, MAX_RR_BINDING_LIFETIME)
        super().__init__(policy, lifetime_s, dialect=configuration.dialect)
        if configuration.dialect == Draft.name:
            self.dialect = CorrespondentDraft()
        self.configuration = configuration
        self._codec = codec or Codec(configuration.dialect)
        self._nonces = Nonces(random)
        limits = configuration
        self._tests = RateLimit(limits.max_tests_per_s, limits.max_tests_per_sender_per_s)
        self._refusals = RateLimit(limits.max_refusals_per_s, limits.max_refusals_per_sender_per_s)
        #: Key, care-of address and correspondent of the message that is being answered, if authenticated.
        self._proof: tuple[bytes, IPv6Address, IPv6Address] | None = None
        self._unreachables = Unreachables(self.cache)

    def receive(self, packet: Packet, interface: str, now: float) -> None:
        """Process a message; those of return routability are answered without remembering anything."""
        if isinstance(packet.message, HomeTestInit | CareOfTestInit):
            self._test(packet, now)
        else:
            super().receive(packet, interface, now)

    def unverified_home_address(
        self, source: IPv6Address, destination: IPv6Address, home_address: IPv6Address, now: float
    ) -> None:
        """A packet was dropped for its Home Address option: no binding of `home_address` to `source`.
        RFC 6275 §9.3.1, §9.3.3: a Binding Error, status 1, tells its sender, at a limited rate."""
        if not is_unicast_routable(source) or not is_unicast_routable(home_address):
            return
        if not self._refusals.allows(source, now):
            return
        error = BindingError(BindingErrorStatus.UNKNOWN_BINDING, home_address)
        self._send(Packet(destination, source, error))
        self._note("binding-error-sent", care_of_address=str(source), home_address=str(home_address))

    def unreachable(self, home_address: IPv6Address, care_of_address: IPv6Address, now: float) -> None:
        """A packet of ours has come back from its way to a care-of address (ICMPv6 Destination Unreachable).
        RFC 6275 §9.3.4: where that persists, the binding is deleted. Whoever knows both addresses can make
        such an error up, so the mobile node is asked to show up there first: a Binding Update ends it."""
        entry = self.cache.get(home_address)
        found = [b for b in entry.bindings.values() if b.care_of_address == care_of_address] if entry else []
        standings = {self._unreachables.reported(home_address, binding, now) for binding in found}
        if Standing.FIRST in standings:
            addresses = {"home_address": text(home_address), "care_of_address": text(care_of_address)}
            self._note("care-of-address-unreachable", **addresses)
            self._ask_for(entry, found, care_of_address)
        elif standings == {Standing.PERSISTENT}:
            self._remove(entry, [binding.bid for binding in found], "unreachable", now)

    def home_binding(self, home_address: IPv6Address) -> HomeBinding | None:
        """None: a correspondent node has no tunnels."""
        return None

    def forwarding(self) -> dict[IPv6Address, HomeBinding]:
        return {}

    def changes(self) -> dict[IPv6Address, HomeBinding | None]:
        return {}

    def optimisations(self) -> dict[Pair, RouteOptimisation]:
        wanted = ((entry, _optimisation(entry)) for entry in self.cache)
        return {_pair(entry.home_address): found for entry, found in wanted if found is not None}

    def optimisation_changes(self) -> dict[Pair, RouteOptimisation | None]:
        self._asked = True
        taken, self._changed = self._changed, {}
        return {_pair(home_address): _optimisation(self.cache.get(home_address)) for home_address in taken}

    def _test(self, packet: Packet, now: float) -> None:
        """RFC 6275 §9.4: a token, sent to the address that it is to prove."""
        message, address = packet.message, packet.source
        if packet.home_address is not None:
            return self._drop(packet, "a test with a Home Address option (RFC 6275 §9.4.1, §9.4.2)")
        if not is_unicast_routable(address):
            return self._drop(packet, "a test of an address that is not unicast routable")
        if not self._tests.allows(address, now):
            return self._drop(packet, "more return routability tests than are answered")
        if isinstance(message, HomeTestInit):
            index, token = self._nonces.home_token(address, now)
            answer = HomeTest(index, message.home_init_cookie, token)
        else:
            index, token = self._nonces.care_of_token(address, now)
            bids = tuple(BindingIdentifier(o.bid) for o in message.all_options(BindingIdentifier)[:1])
            answer = CareOfTest(index, message.care_of_init_cookie, token, bids)
        self._send(Packet(packet.destination, address, answer))
        kind = "home" if isinstance(message, HomeTestInit) else "care-of"
        self._note(f"{kind}-test-sent", address=str(address))

    def _is_for_us(self, update: BindingUpdate) -> bool:
        return not update.home_registration and not update.map_registration

    def _check_service(self, update: BindingUpdate, home_address: IPv6Address) -> None:
        """Whoever has proven to be there is served."""

    def _receive_update(self, packet: Packet, update: BindingUpdate, now: float) -> None:
        """RFC 6275 §9.5.1: tests in an order that changes nothing before the message is authenticated."""
        self._proof = None
        home_address = packet.home_address or packet.source
        correspondent = packet.routing_address or packet.destination
        if not is_unicast_routable(home_address) or not is_unicast_routable(packet.source):
            return self._drop(packet, "no unicast routable home address and source address (RFC 6275 §9.5.1)")
        entry = self.cache.get(home_address)
        if update.home_registration:
            known = entry is not None and entry.bindings
            status = Status.REGISTRATION_TYPE_CHANGE_DISALLOWED
            return self._refuse(packet, status if known else Status.HOME_REGISTRATION_NOT_SUPPORTED, now)
        indices = update.option(NonceIndices)
        if indices is None or update.option(BindingAuthorizationData) is None or not self._is_for_us(update):
            return self._drop(packet, "no Nonce Indices and Binding Authorization Data (RFC 6275 §9.5.1)")
        care_of_address = self._care_of_address(packet, update)
        if not is_unicast_routable(care_of_address):
            return self._drop(packet, "no unicast routable care-of address")
        deletes = update.lifetime_s == 0 or care_of_address == home_address
        home_token = self._nonces.home_token_of(indices.home_nonce_index, home_address, now)
        care_of_token: bytes | None = b""
        if not deletes:
            care_of_token = self._nonces.care_of_token_of(indices.care_of_nonce_index, care_of_address, now)
        if home_token is None or care_of_token is None:
            return self._refuse(packet, _expired_status(home_token, care_of_token), now)
        key = binding_management_key(home_token, care_of_token)
        proven = home_address if deletes else care_of_address
        if not is_authorised(packet, key, proven, correspondent):
            return self._drop(packet, "wrong authenticator (RFC 6275 §6.2.7)")
        if not deletes and self.cache.leads_back([care_of_address], home_address):
            return self._drop(packet, "its care-of address leads back to its home address (RFC 3775 §6.1.7)")
        self._proof = (key, proven, correspondent)
        self._answer_update(packet, update, home_address, now)

    def _care_of_address(self, packet: Packet, update: BindingUpdate) -> IPv6Address:
        """The address that is to be registered, which is the one that must have been tested (RFC 6275
        §5.2.6): of the Binding Identifier option, of the alternate care-of address option, the one that
        the BID is bound to already (RFC 5648 §6.2), else the source address."""
        identifier, alternate = update.option(BindingIdentifier), update.option(Alternate)
        if identifier is not None and identifier.care_of_address is not None:
            return identifier.care_of_address
        if alternate is not None:
            return alternate.care_of_address
        entry = self.cache.get(packet.home_address or packet.source)
        known = entry.bindings.get(identifier.bid) if entry is not None and identifier is not None else None
        return known.care_of_address if known is not None else packet.source

    def _deregister(
        self, packet: Packet, update: BindingUpdate, entry: CacheEntry | None, now: float
    ) -> BindingAcknowledgement:
        """RFC 6275 §9.5.3: to delete what is not there is no error, unless a BID is named (RFC 5648 §6.2)."""
        if (entry is None or not entry.bindings) and update.option(BindingIdentifier) is None:
            if entry is not None:
                self._changed[entry.home_address] = None  # the datapath may have failed to follow
            return BindingAcknowledgement(Status.BINDING_UPDATE_ACCEPTED, update.sequence, 0)
        return super()._deregister(packet, update, entry, now)

    def _subject(self, packet: Packet, update: BindingUpdate, entry: CacheEntry) -> int:
        return update.option(BindingIdentifier).bid

    def _acknowledge(
        self, packet: Packet, home_address: IPv6Address, acknowledgement: BindingAcknowledgement
    ) -> None:
        """RFC 6275 §9.5.4: with an authenticator; acceptance is told to those who want that (A bit), or who
        ask for flow bindings (draft §4.8)."""
        asked = packet.message.acknowledge or acknowledgement.option(FlowIdentification) is not None
        if acknowledgement.status < 128 and not asked:
            return
        if self._proof is not None:
            acknowledgement = authorised(acknowledgement, *self._proof, self._codec)
        super()._acknowledge(packet, home_address, acknowledgement)

    def _withdrawn(self, transmission: Transmission, home_address: IPv6Address) -> Transmission:
        withdrawn = super()._withdrawn(transmission, home_address)
        if self._proof is None:
            return withdrawn
        message = authorised(withdrawn.packet.message, *self._proof, self._codec)
        return replace(withdrawn, packet=replace(withdrawn.packet, message=message))

    def _expired(self, entry: CacheEntry, now: float) -> None:
        """The sequence number stays: the message that made the binding may be played back (§5.2.8)."""
        self.timers.set(("forget", entry.home_address), now + self.memory_s)


def _expired_status(home_token: bytes | None, care_of_token: bytes | None) -> Status:
    if home_token is not None:
        return Status.EXPIRED_CARE_OF_NONCE_INDEX
    return Status.EXPIRED_NONCES if care_of_token is None else Status.EXPIRED_HOME_NONCE_INDEX


def _pair(home_address: IPv6Address) -> Pair:
    return home_address, ANY_OF_OURS


def _optimisation(entry: CacheEntry | None) -> RouteOptimisation | None:
    wanted = entry.forwarding() if entry is not None else None
    if wanted is None:
        return None
    return RouteOptimisation(
        entry.home_address, ANY_OF_OURS, Side.CORRESPONDENT, wanted.paths, wanted.default_bid, wanted.rules
    )
