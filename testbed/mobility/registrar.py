"""The receiving side of Binding Updates, as home agents and mobility anchor points share it.

Class: `Registrar`. RFC 6275 §9.5, §10.3; RFC 5648 §6; draft-soliman-monami6-flow-binding-05 §8, §9.
"""

from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from testbed.mobility.authentication import Verifier
from testbed.mobility.binding import NO_BID, Binding, FlowBinding, is_unicast_routable, sequence_is_newer
from testbed.mobility.binding_cache import BindingCache, CacheEntry
from testbed.mobility.dialect import DIALECTS, RFC6089
from testbed.mobility.forwarding import HomeBinding
from testbed.mobility.policy import Policy
from testbed.mobility.rate_limit import RateLimit
from testbed.mobility.role import Role, Transmission
from testbed.mobility.snapshot import entry_from_snapshot, entry_to_snapshot
from testbed.wire.address import text
from testbed.wire.flow import FlowIdentification, FlowStatus
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingRefreshRequest,
    BindingUpdate,
    Status,
    UnknownMessage,
)
from testbed.wire.option import (
    AlternateCareOfAddress,
    BindingIdentifier,
    MalformedOption,
    MessageIdentifier,
    MobileNetworkPrefix,
    MobilityMessageAuthentication,
    NonceIndices,
)
from testbed.wire.packet import Packet

#: How long the sequence number of a de-registered home address is remembered (RFC 6275 §10.3.2, §12).
MAX_DELETE_BCE_TIMEOUT = 10.0
#: A Binding Refresh Request goes out when this part of the lifetime is over and nobody has refreshed.
REFRESH_REQUEST_AT = 0.9


class Refused(Exception):
    """The Binding Update as a whole is refused with `status`."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status = status


class Held(Exception):
    """The Binding Update is answered later."""


class Registrar(Role):
    """Keeps a binding cache as Binding Updates ask for it, and acknowledges them.

    Subclasses say whom they serve (`_check_service`). `max_lifetime_s` caps what is granted.
    """

    #: How long the sequence number of a home address without bindings is remembered, in seconds.
    memory_s = MAX_DELETE_BCE_TIMEOUT

    def __init__(
        self,
        policy: Policy,
        max_lifetime_s: int,
        verifier: Verifier | None = None,
        refusals: RateLimit | None = None,
        dialect: str = "draft",
    ) -> None:
        super().__init__(refusals)
        self.policy = policy
        self.verifier = verifier
        self.dialect = DIALECTS[dialect]()
        self.max_lifetime_s = max_lifetime_s
        self.cache = BindingCache()
        self._undo: dict[IPv6Address, CacheEntry | None] = {}
        self._answered: Packet | None = None

    # -- what subclasses decide

    def _check_service(self, update: BindingUpdate, home_address: IPv6Address) -> None:
        """Raise `Refused` unless this node may serve `home_address`."""
        raise NotImplementedError

    def _is_for_us(self, update: BindingUpdate) -> bool:
        """Whether this kind of registration is what this role is there for; others are dropped in silence."""
        raise NotImplementedError

    def _prefixes(
        self, update: BindingUpdate, home_address: IPv6Address, care_of_addresses: Collection[IPv6Address]
    ) -> tuple[IPv6Network, ...]:
        """What is behind a mobile router. Raises `Refused` if it may not have that."""
        raise Refused(Status.MOBILE_ROUTER_OPERATION_NOT_PERMITTED)

    def _check_first(self, packet: Packet, update: BindingUpdate, home_address: IPv6Address) -> None:
        """Called before the first binding of a home address. Raises `Held` or `Refused`."""

    def _grant(self, update: BindingUpdate, home_address: IPv6Address, now: float) -> tuple[int, Status]:
        """The lifetime, in seconds, and the status of what is accepted."""
        return min(update.lifetime_s, self.max_lifetime_s) // 4 * 4, Status.BINDING_UPDATE_ACCEPTED

    def _care_of_status(self, care_of_address: IPv6Address) -> Status:
        """Whether this role takes such a care-of address: "accepted", or the status that says why not."""
        return Status.BINDING_UPDATE_ACCEPTED

    def _handle_timer(self, kind: str, entry: CacheEntry, now: float) -> None:
        """Do what a subclass has set a timer for."""

    # -- what the agent calls

    def receive(self, packet: Packet, interface: str, now: float) -> None:
        """Process a message from a mobile node. Times in seconds on the agent's monotonic clock."""
        if isinstance(packet.message, BindingUpdate):
            self._receive_update(packet, packet.message, now)
        elif isinstance(packet.message, UnknownMessage):
            self._answer_unrecognised(packet, now)
        else:
            self._drop(packet, f"a {type(packet.message).__name__} is not for this role")

    def handle_timer(self, now: float) -> None:
        """Expire bindings, ask for refreshes, forget de-registrations."""
        for kind, home_address in self.timers.due(now):
            entry = self.cache.get(home_address)
            if entry is None:
                continue
            if kind == "forget":
                self.cache.remove(home_address)
            elif kind == "refresh":
                self._request_refresh(entry, now)
            elif kind == "expire":
                self._expire(entry, now)
            else:
                self._handle_timer(kind, entry, now)

    def home_binding(self, home_address: IPv6Address) -> HomeBinding | None:
        entry = self.cache.get(home_address)
        return entry.forwarding() if entry else None

    def forwarding(self) -> dict[IPv6Address, HomeBinding]:
        wanted = ((entry.home_address, entry.forwarding()) for entry in self.cache)
        return {home_address: binding for home_address, binding in wanted if binding is not None}

    def bindings(self, now: float) -> list[dict[str, Any]]:
        """One dictionary a binding, the default of each home address marked; for people and programs."""
        return [
            {
                "home_address": str(entry.home_address),
                "bid": binding.bid,
                "care_of_address": str(binding.care_of_address),
                "priority": binding.priority,
                "default": binding is entry.default_binding(),
                "lifetime_s": binding.lifetime_s,
                "remaining_s": round(binding.expires - now, 3),
            }
            for entry in self.cache
            for binding in sorted(entry.bindings.values(), key=lambda binding: binding.bid)
        ]

    def flows(self) -> list[tuple[IPv6Address, FlowBinding]]:
        """The flow bindings, each with its home address, in the order in which they are tried."""
        return [
            (entry.home_address, flow)
            for entry in self.cache
            for flow in sorted(entry.flows.values(), key=lambda flow: (flow.priority, flow.fid))
        ]

    def datapath_failed(self, home_address: IPv6Address, reason: str, now: float) -> None:
        """The kernel did not take what the last update asked for: go back to what was before, and say
        "insufficient resources" instead of "accepted"."""
        before = self._undo.pop(home_address, None)
        if before is None:
            self.cache.remove(home_address)
        else:
            self.cache.put(before)
        self._schedule(home_address)
        self._transmissions = [
            self._withdrawn(transmission)
            if transmission.after_datapath and transmission.packet.routing_address == home_address
            else transmission
            for transmission in self._transmissions
        ]
        self._note("datapath-failed", home_address=str(home_address), reason=reason)

    def snapshot(self, now: float) -> dict[str, Any]:
        """All promises made to mobile nodes, JSON-able; lifetimes as remaining seconds."""
        saved = {"entries": [entry_to_snapshot(entry, now) for entry in self.cache if entry.bindings]}
        if self.verifier is not None:
            saved["timestamps"] = {str(home): stamp for home, stamp in self.verifier.timestamps.items()}
        return saved

    def restore(self, snapshot: dict[str, Any], saved_at: float, now: float) -> None:
        """Take up the promises of an earlier life. `saved_at`: when the snapshot was taken, on the clock
        that `now` is on. Raises ValueError if it is not a snapshot of ours."""
        for entry in [entry_from_snapshot(saved, saved_at) for saved in snapshot.get("entries", ())]:
            self.cache.put(entry)
            self._changed[entry.home_address] = None
            self._expire(entry, now)
        if self.verifier is not None:
            for home, stamp in snapshot.get("timestamps", {}).items():
                self.verifier.timestamps[IPv6Address(home)] = int(stamp)

    # -- Binding Updates

    def _receive_update(self, packet: Packet, update: BindingUpdate, now: float) -> None:
        home_address = packet.home_address or packet.source
        if not is_unicast_routable(home_address) or not is_unicast_routable(packet.source):
            return self._drop(packet, "no unicast routable home address and source address (RFC 6275 §9.5.1)")
        if not self._is_for_us(update):
            return self._drop(packet, "not a registration that this role serves")
        if update.option(NonceIndices) is not None:
            return self._drop(packet, "Nonce Indices in a home registration (RFC 6275 §9.5.1)")
        reason = self.verifier.drop_reason(packet, home_address) if self.verifier else None
        if reason is not None:
            return self._drop(packet, reason)
        if self.verifier is not None:
            status = self.verifier.judge(packet, home_address, now)
            if status is not Status.BINDING_UPDATE_ACCEPTED:
                return self._refuse(packet, status, now)
        self._answer_update(packet, update, home_address, now)

    def _answer_update(
        self, packet: Packet, update: BindingUpdate, home_address: IPv6Address, now: float
    ) -> None:
        """Do what a Binding Update from the right mobile node asks for, and acknowledge it."""
        self._note(
            "binding-update-received",
            home_address=text(home_address),
            care_of_address=text(packet.source),
            sequence=update.sequence,
        )
        entry = self.cache.get(home_address)
        if entry is not None and not sequence_is_newer(update.sequence, entry.sequence):
            refusal = BindingAcknowledgement(Status.SEQUENCE_NUMBER_OUT_OF_WINDOW, entry.sequence, 0)
            return self._acknowledge(packet, home_address, refusal)
        self._decide(packet, update, home_address, now)

    def _decide(self, packet: Packet, update: BindingUpdate, home_address: IPv6Address, now: float) -> None:
        """Do what an authentic Binding Update in its turn asks for, and acknowledge it."""
        entry = self.cache.get(home_address)
        self._undo = {home_address: entry.copy() if entry else None}
        if entry is not None:
            entry.sequence = update.sequence
        try:
            self._check_service(update, home_address)
            if update.lifetime_s == 0 or self._care_of_address(packet, update) == home_address:
                acknowledgement = self._deregister(packet, update, entry, now)
            else:
                acknowledgement = self._register(packet, update, home_address, entry, now)
        except Held:
            return
        except Refused as refused:
            return self._reject(packet, update, home_address, refused.status)
        self._acknowledge(packet, home_address, acknowledgement)

    def _reject(
        self, packet: Packet, update: BindingUpdate, home_address: IPv6Address, status: Status
    ) -> None:
        """Answer a Binding Update that is refused as a whole."""
        flow_statuses = [self.dialect.unspecified] * len(update.all_options(FlowIdentification))
        options = _acknowledged_bids(update, {}) + _acknowledged_flows(update, flow_statuses)
        self._acknowledge(
            packet, home_address, BindingAcknowledgement(status, update.sequence, 0, options=options)
        )

    def _register(
        self,
        packet: Packet,
        update: BindingUpdate,
        home_address: IPv6Address,
        entry: CacheEntry | None,
        now: float,
    ) -> BindingAcknowledgement:
        identifiers = self._check_identifiers(update, entry)
        if entry is None:
            if len(self.cache) >= self.policy.max_mobile_nodes:
                raise Refused(Status.INSUFFICIENT_RESOURCES)
            entry = CacheEntry(home_address, packet.destination, update.sequence)
        elif entry.bindings and entry.mobile_router != update.mobile_router:
            raise Refused(Status.REGISTRATION_TYPE_CHANGE_DISALLOWED)  # RFC 3963 §6.2
        granted, status = self._grant(update, home_address, now)
        bid_statuses: dict[int, int] = {}
        if identifiers:
            bindings = self._judge_identifiers(packet, update, entry, identifiers, bid_statuses, granted, now)
        else:
            care_of_address = self._care_of_address(packet, update)
            if not is_unicast_routable(care_of_address):
                raise Refused(Status.REASON_UNSPECIFIED)
            if self._care_of_status(care_of_address) is not Status.BINDING_UPDATE_ACCEPTED:
                raise Refused(self._care_of_status(care_of_address))
            bindings = [Binding(NO_BID, care_of_address, 0, granted, now + granted)]
        care_of_addresses = [binding.care_of_address for binding in bindings]
        prefixes = ()
        if update.mobile_router:
            prefixes = self._prefixes(update, home_address, care_of_addresses)
        if not entry.bindings:
            self._check_first(packet, update, home_address)
        entry.mobile_router, entry.prefixes = update.mobile_router, prefixes
        if not identifiers or update.overwrite:
            entry.bindings.clear()
            if not (identifiers and self.dialect.renews_all):
                entry.flows.clear()
        entry.local = packet.destination
        entry.bindings.update({binding.bid: binding for binding in bindings})
        self.cache.put(entry)
        renewed = {binding.bid for binding in bindings}
        flows, lost = self._answer_flows(packet, update, entry, bool(identifiers), renewed)
        self._changed[home_address] = None
        self._schedule(home_address)
        self._note(
            "binding-changed",
            home_address=text(home_address),
            bindings={binding.bid: text(binding.care_of_address) for binding in bindings},
            lifetime_s=granted,
            flows=[int(flow.status) for flow in flows],
            flows_lost=lost,
        )
        return BindingAcknowledgement(
            Status.MCOA_NOTCOMPLETE if any(bid_statuses.values()) else status,
            update.sequence,
            granted,
            mobile_router=entry.mobile_router,
            options=_acknowledged_bids(update, bid_statuses) + flows,
        )

    def _check_identifiers(
        self, update: BindingUpdate, entry: CacheEntry | None
    ) -> tuple[BindingIdentifier, ...]:
        """The Binding Identifier options, if the message may carry these (RFC 5648 §6.2)."""
        if any(
            option.type == BindingIdentifier.option_type for option in update.all_options(MalformedOption)
        ):
            raise Refused(Status.MCOA_MALFORMED)
        identifiers = update.all_options(BindingIdentifier)
        bids = [identifier.bid for identifier in identifiers]
        if NO_BID in bids or len(set(bids)) != len(bids):
            raise Refused(Status.MCOA_MALFORMED)
        if identifiers and not self.policy.multiple_care_of_addresses:
            raise Refused(Status.MCOA_PROHIBITED)
        if len(identifiers) > 1 and not self.policy.bulk_registration:
            raise Refused(Status.MCOA_BULK_REGISTRATION_PROHIBITED)
        if identifiers and entry is not None and NO_BID in entry.bindings and not update.overwrite:
            raise Refused(Status.MCOA_NON_MCOA_BINDING_EXISTS)
        return identifiers

    def _judge_identifiers(
        self,
        packet: Packet,
        update: BindingUpdate,
        entry: CacheEntry,
        identifiers: tuple[BindingIdentifier, ...],
        statuses: dict[int, int],
        granted: int,
        now: float,
    ) -> list[Binding]:
        """The bindings that the options ask for; the refused ones leave their status in `statuses`."""
        alternate = update.option(AlternateCareOfAddress)
        kept = {} if update.overwrite else entry.bindings
        room = self.policy.max_bindings - len(kept)
        bindings = []
        for identifier in identifiers:
            known = kept.get(identifier.bid)
            care_of_address = identifier.care_of_address
            if care_of_address is None and alternate is not None:
                care_of_address = alternate.care_of_address
            if care_of_address is None and known is not None:
                care_of_address = known.care_of_address
            status = Status.BINDING_UPDATE_ACCEPTED
            if identifier.home:
                status = Status.MCOA_SIMULTANEOUS_HOME_AND_FOREIGN_PROHIBITED
            elif care_of_address is None:
                status = Status.MCOA_UNKNOWN_COA
            elif not is_unicast_routable(care_of_address) or care_of_address == entry.home_address:
                status = Status.MCOA_MALFORMED
            elif known is None and room <= 0:
                status = Status.INSUFFICIENT_RESOURCES
            else:
                status = self._care_of_status(care_of_address)
            if status is Status.BINDING_UPDATE_ACCEPTED:
                room -= known is None
                bindings.append(
                    Binding(identifier.bid, care_of_address, identifier.priority, granted, now + granted)
                )
            else:
                statuses[identifier.bid] = status
        if not bindings:
            raise Refused(Status(statuses[identifiers[0].bid]))
        return bindings

    def _answer_flows(
        self, packet: Packet, update: BindingUpdate, entry: CacheEntry, with_bids: bool, renewed: set[int]
    ) -> tuple[tuple[FlowIdentification, ...], list[int]]:
        """Do what a message says of flows: the options of the answer, and the FIDs that are lost because the
        message, which renews the BIDs `renewed`, leaves them out."""
        if isinstance(self.dialect, RFC6089):
            return self.dialect.process(update, entry, self.policy)
        statuses = self._process_flows(packet, update, entry, with_bids)
        mentioned = {option.fid for option in update.all_options(FlowIdentification)}
        lost = entry.forget_flows_unmentioned(renewed, mentioned)
        return _acknowledged_flows(update, statuses), lost

    def _process_flows(
        self, packet: Packet, update: BindingUpdate, entry: CacheEntry, with_bids: bool
    ) -> list[FlowStatus]:
        """Judge the Flow Identification options, each by itself; their statuses, in order."""
        options = update.all_options(FlowIdentification)
        bid = entry.bid_of(self._care_of_address(packet, update))
        if bid is None and with_bids:
            bid = update.option(BindingIdentifier).bid
        return [
            entry.process(option, bid, self.policy) if with_bids else FlowStatus.POORLY_FORMED
            for option in options
        ]

    def _deregister(
        self, packet: Packet, update: BindingUpdate, entry: CacheEntry | None, now: float
    ) -> BindingAcknowledgement:
        """RFC 6275 §10.3.2, RFC 5648 §5.4, §6.2: all bindings, or those that are named."""
        if entry is None or not entry.bindings:
            raise Refused(Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE)
        identifiers = self._check_identifiers(update, None)
        named = [identifier.bid for identifier in identifiers]
        found = [bid for bid in named if bid in entry.bindings] if named else list(entry.bindings)
        if not found:
            raise Refused(Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE)
        statuses = {
            bid: Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE for bid in named if bid not in entry.bindings
        }
        lost = entry.forget_bids(found, self.dialect.keeps_inactive)
        flows, left_out = self._answer_flows(packet, update, entry, bool(entry.bindings), set())
        self._changed[entry.home_address] = None
        self._schedule(entry.home_address)
        if not entry.bindings:
            self.timers.set(("forget", entry.home_address), now + self.memory_s)
        self._note(
            "binding-removed",
            home_address=text(entry.home_address),
            bids=found,
            flows_lost=lost + left_out,
            cause="request",
        )
        return BindingAcknowledgement(
            Status.MCOA_NOTCOMPLETE if statuses else Status.BINDING_UPDATE_ACCEPTED,
            update.sequence,
            0,
            options=_acknowledged_bids(update, statuses) + flows,
        )

    @staticmethod
    def _care_of_address(packet: Packet, update: BindingUpdate) -> IPv6Address:
        """RFC 6275 §9.5.1: the alternate care-of address if there is one, else the source address."""
        alternate = update.option(AlternateCareOfAddress)
        return alternate.care_of_address if alternate else packet.source

    # -- what is sent

    def _refuse(self, packet: Packet, status: Status, now: float) -> None:
        """Refuse what is not authenticated, or old; no more often than is good for those who are told."""
        self._drop(packet, f"refused with status {status.name}: not authentic, or not new")
        if self._refusals.allows(packet.source, now):
            refusal = BindingAcknowledgement(status, packet.message.sequence, 0)
            self._acknowledge(packet, packet.home_address or packet.source, refusal)

    def _acknowledge(
        self, packet: Packet, home_address: IPv6Address, acknowledgement: BindingAcknowledgement
    ) -> None:
        """RFC 6275 §9.5.4, §10.3.1: to the source address, by a type 2 routing header unless at home."""
        self._answered = packet
        if self.verifier is not None:
            acknowledgement = self.verifier.sign(acknowledgement, packet, home_address)
        self._send(
            Packet(
                source=packet.destination,
                destination=packet.source,
                message=acknowledgement,
                routing_address=home_address if packet.home_address is not None else None,
            ),
            after_datapath=True,
        )
        self._note(
            "binding-acknowledgement-sent",
            home_address=text(home_address),
            care_of_address=text(packet.source),
            sequence=acknowledgement.sequence,
            status=int(acknowledgement.status),
        )

    def _withdrawn(self, transmission: Transmission) -> Transmission:
        """The same acknowledgement, turned into a refusal."""
        acknowledgement = transmission.packet.message
        options = tuple(
            replace(option, status=self.dialect.unspecified)
            if isinstance(option, FlowIdentification)
            else option
            for option in acknowledgement.options
            if not isinstance(option, MessageIdentifier | MobilityMessageAuthentication)
        )
        status = Status.INSUFFICIENT_RESOURCES
        if acknowledgement.mobile_router:  # RFC 3963 §6.2
            named = self._answered.message.option(MobileNetworkPrefix)
            status = Status.INVALID_PREFIX if named else Status.FORWARDING_SETUP_FAILED
        refusal = replace(acknowledgement, status=status, lifetime_s=0, mobile_router=False, options=options)
        if self.verifier is not None:
            refusal = self.verifier.sign(refusal, self._answered, transmission.packet.routing_address)
        return replace(transmission, packet=replace(transmission.packet, message=refusal))

    def _request_refresh(self, entry: CacheEntry, now: float) -> None:
        """Draft §8.3: an entry that is going to expire is announced; RFC 5648 §6.4: with its BIDs."""
        if entry.default_binding() is None:
            return
        late = [binding for binding in entry.bindings.values() if _refresh_due(binding) <= now]
        options = tuple(BindingIdentifier(b.bid, priority=b.priority) for b in late if b.bid != NO_BID)
        self._send(
            Packet(
                source=entry.local,
                destination=entry.default_binding().care_of_address,
                message=BindingRefreshRequest(options=options),
                routing_address=entry.home_address,
            )
        )
        self._note(
            "binding-refresh-request-sent", home_address=text(entry.home_address), bids=[b.bid for b in late]
        )
        self._schedule(entry.home_address, after=now)

    # -- time

    def _schedule(self, home_address: IPv6Address, after: float = float("-inf")) -> None:
        """Arm the timers of one entry; no refresh is asked for again up to the time `after`."""
        entry = self.cache.get(home_address)
        bindings = entry.bindings.values() if entry else ()
        expiry = min((binding.expires for binding in bindings), default=None)
        refresh = min((due for due in map(_refresh_due, bindings) if due > after), default=None)
        for kind, when in (("expire", expiry), ("refresh", refresh)):
            if when is None:
                self.timers.cancel((kind, home_address))
            else:
                self.timers.set((kind, home_address), when)
        if bindings:
            self.timers.cancel(("forget", home_address))

    def _expire(self, entry: CacheEntry, now: float) -> None:
        """RFC 6275 §10.3.1: a binding is deleted when its lifetime is over, and its flow bindings with it."""
        expired = [bid for bid, binding in entry.bindings.items() if binding.expires <= now]
        if expired:
            lost = entry.forget_bids(expired, self.dialect.keeps_inactive)
            self._changed[entry.home_address] = None
            self._note(
                "binding-removed",
                home_address=text(entry.home_address),
                bids=expired,
                flows_lost=lost,
                cause="lifetime",
            )
        if not entry.bindings:
            self._expired(entry, now)
        self._schedule(entry.home_address, after=now)

    def _expired(self, entry: CacheEntry, now: float) -> None:
        """The last binding of an entry has run out."""
        self.cache.remove(entry.home_address)



def _refresh_due(binding: Binding) -> float:
    return binding.expires - (1 - REFRESH_REQUEST_AT) * binding.lifetime_s


def _acknowledged_bids(update: BindingUpdate, statuses: dict[int, int]) -> tuple[BindingIdentifier, ...]:
    """RFC 5648 §6.2: all Binding Identifier options come back, without care-of address."""
    return tuple(
        BindingIdentifier(option.bid, statuses.get(option.bid, 0), option.home, option.priority)
        for option in update.all_options(BindingIdentifier)
    )


def _acknowledged_flows(update: BindingUpdate, statuses: list[FlowStatus]) -> tuple[FlowIdentification, ...]:
    """Draft §4.8, §8.2: a copy of the 8 octets of each option comes back, with its own status."""
    return tuple(
        option.answer(status)
        for option, status in zip(update.all_options(FlowIdentification), statuses, strict=True)
    )
